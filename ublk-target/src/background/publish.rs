//! Telling of sealed epochs: as soon as a layer has drained and its end is durable, its change vector is scored and goes to
//! the trainer, whether or not the capacity tier keeps up.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use forerun::config::SnapshotName;

use super::{TICK, Tasks, World};
use crate::control::SealedEpoch;
use crate::volume::layers::LayerNumber;

/// How often a layer that still has writes in flight is looked at.
const DRAIN_INTERVAL: Duration = Duration::from_millis(1);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Publishes each sealed epoch, in order, for ever.
pub(super) async fn keep_publishing(tasks: Rc<Tasks<impl World>>) {
    let shared = &tasks.shared;
    while !shared.stopping() {
        let published = *shared.sealed().borrow();
        let layers = shared.volume.layers();
        let live = layers.live();
        // The last one is open.
        let sealed = live.iter().rev().skip(1).rev();
        let Some(layer) = sealed.copied().find(|layer| layers.epoch(*layer) > published) else {
            let woken = shared.wake_publisher.notified();
            let _ = tokio::time::timeout(TICK, woken).await;
            continue;
        };
        if let Err(error) = publish(&tasks, layer).await {
            tracing::warn!(%error, "a sealed epoch cannot be told of yet");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn publish(tasks: &Rc<Tasks<impl World>>, layer: LayerNumber) -> anyhow::Result<()> {
    let shared = &tasks.shared;
    let volume = &shared.volume;
    while !volume.layers().drained(layer) {
        tokio::time::sleep(DRAIN_INTERVAL).await;
        if shared.stopping() {
            return Ok(());
        }
    }
    // An epoch that a crash could undo is not told of: the next one of its number would be another.
    shared.committer.commit().await?;
    let content = volume.layer_content(layer);
    let vector = volume.change_vector(layer, &content.blocks)?;
    let snapshot = volume.layers().with_info(layer, |info| info.snapshot.clone());
    let reads = shared.prediction.take_reads(shared, &vector);
    shared.prediction.score(&vector, reads.as_deref().unwrap_or_default());
    let snapshot = snapshot.map(SnapshotName::new).transpose()?;
    shared.publish(SealedEpoch { vector: Arc::new(vector), snapshot, reads });
    Ok(())
}
