//! `promote`: a clone copies what it shares, in the background, and stands alone.

use forerun::api::v1::PromoteRequest;
use forerun::config::{Paths, format_size};

use super::args::PromoteOptions;
use super::{client, output};

/// Runs the command.
pub fn run(paths: &Paths, options: &PromoteOptions) -> anyhow::Result<()> {
    let volume = &options.volume;
    let answer = client::block_on(async {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        client.promote(PromoteRequest { volume_id: volume.to_string() }).await.map_err(client::failure)
    })?
    .into_inner();
    let shared: u64 = answer.origins.iter().map(|origin| origin.shared_bytes).sum();
    Ok(output::text(&match answer.origins.is_empty() {
        true => format!("volume {volume} shares nothing with another one\n"),
        false => format!(
            "{} that volume {volume} shares are being copied in the background; `forerun status {volume}` shows how far it is\n",
            format_size(shared)
        ),
    })?)
}
