//! When the capacity tier is kept up: after each layer that was written back, and now and then, as deleted objects go after a delay.
//!
//! Beside write-back, and not between two layers of it: on a slow store a step may take minutes, and somebody may wait for the
//! next layer.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::capacity::{look_at_space, maintain};
use super::{Tasks, World};

/// How often it is kept up while nothing is written back.
const IDLE: Duration = Duration::from_secs(10);
/// How often it is looked whether the volume is being closed.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps it up, for ever.
pub(super) async fn keep_up(tasks: Rc<Tasks<impl World>>) {
    let mut last = Instant::now();
    while !tasks.shared.stopping() {
        let written = timeout(LOOK, tasks.wake_upkeep.notified()).await.is_ok();
        if written || last.elapsed() >= IDLE {
            maintain(&tasks).await;
            look_at_space(&tasks).await;
            last = Instant::now();
        }
    }
}
