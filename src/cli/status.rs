//! `status`: fetch both statuses, show them once or again and again.

use std::io::{self, IsTerminal};
use std::time::Duration;

use forerun::api::v1::{
    GetPrefetchStatusRequest, GetPrefetchStatusResponse, GetVolumeStatusRequest, GetVolumeStatusResponse,
};
use forerun::config::Paths;
use forerun::utc::now_us;
use serde::Serialize;

use super::args::StatusOptions;
use super::client::{self, Client};
use super::{output, status_page};

/// Both answers, as printed with `--json`.
#[derive(Serialize)]
struct Both {
    volume: GetVolumeStatusResponse,
    prefetch: GetPrefetchStatusResponse,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &StatusOptions) -> anyhow::Result<()> {
    client::block_on(async {
        let mut client = client::connect(paths, &options.volume, client::CALL_LIMIT).await?;
        if !options.watch {
            let both = fetch(&mut client, options).await?;
            return if options.json { Ok(output::json(&both)?) } else { Ok(output::text(&page(&both))?) };
        }
        loop {
            let both = fetch(&mut client, options).await?;
            if options.json {
                output::json_line(&both)?;
            } else if io::stdout().is_terminal() {
                output::text(&in_place(&page(&both)))?;
            } else {
                output::text(&format!("{}\n", page(&both)))?;
            }
            tokio::time::sleep(Duration::from_secs(options.interval.into())).await;
        }
    })
}

async fn fetch(client: &mut Client, options: &StatusOptions) -> anyhow::Result<Both> {
    let volume_id = options.volume.to_string();
    let volume = client.get_volume_status(GetVolumeStatusRequest { volume_id: volume_id.clone() }).await;
    let volume = volume.map_err(client::failure)?.into_inner();
    let prefetch = client.get_prefetch_status(GetPrefetchStatusRequest { volume_id }).await;
    Ok(Both { volume, prefetch: prefetch.map_err(client::failure)?.into_inner() })
}

fn page(both: &Both) -> String {
    status_page::render(&both.volume, &both.prefetch, now_us())
}

/// The page over the one before: cursor to the corner, each line's rest cleared, then what is below.
/// Clearing the whole screen first would flicker.
fn in_place(page: &str) -> String {
    let lines = page.replace('\n', "\x1b[K\n");
    format!("\x1b[H{lines}\x1b[J")
}
