//! `gc`: what the capacity tier holds that is not needed any more, and giving it back.

use clap::Args;
use forerun::api::v1::{CollectGarbageRequest, CollectGarbageResponse};
use forerun::config::{Paths, VolumeName, format_size};

use super::{client, output};

/// Options of `gc`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
A running volume does this by itself, where it pays and within the budget of its background
work: layers between snapshots are merged, segments of which most is superseded are copied
together, and what nothing refers to any more is deleted half a minute later. `gc` does at once
all that gives space back, whether it pays or not.

Examples:
  forerun gc data --dry-run              # what there is to be given back
  forerun snapshot delete data monday && forerun gc data")]
pub struct GcOptions {
    /// The volume
    pub volume: VolumeName,
    /// Only say what there is to be given back
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &GcOptions) -> anyhow::Result<()> {
    let answer = client::block_on(async {
        // It copies: as long as a write-back may take.
        let mut client = client::connect(paths, &options.volume, client::WAITING_CALL_LIMIT).await?;
        let request =
            CollectGarbageRequest { volume_id: options.volume.to_string(), dry_run: options.dry_run };
        client.collect_garbage(request).await.map_err(client::failure)
    })?
    .into_inner();
    if options.json {
        return Ok(output::json(&answer)?);
    }
    Ok(output::text(&page(&options.volume, options.dry_run, &answer))?)
}

fn page(volume: &VolumeName, dry_run: bool, answer: &CollectGarbageResponse) -> String {
    let CollectGarbageResponse { segment_bytes, live_bytes, queued_objects, queued_bytes, .. } = *answer;
    let superseded = format_size(segment_bytes.saturating_sub(live_bytes));
    let mut text = format!(
        "volume {volume}: {} of segments, {superseded} of it superseded\n",
        format_size(segment_bytes)
    );
    if queued_objects > 0 {
        text += &format!(
            "  {}, {}, nothing refers to any more: deleted when their delay has passed\n",
            output::counted(queued_objects, "object"),
            format_size(queued_bytes)
        );
    }
    if answer.pinned_bytes > 0 {
        text += &format!(
            "  {} only clones need: they go with the clones, or once those stand alone (`forerun promote`)\n",
            format_size(answer.pinned_bytes)
        );
    }
    if !dry_run {
        text += &format!(
            "  done: {} merged, {} copied together, {} of {} deleted; what they have set free goes when its delay has passed\n",
            output::counted(answer.layers_merged, "layer"),
            output::counted(answer.segments_compacted, "segment"),
            output::counted(answer.deleted_objects, "object"),
            format_size(answer.deleted_bytes)
        );
        return text;
    }
    if answer.merged_layers > 0 {
        text += &format!(
            "  first {} would be merged; what that supersedes is known only then\n",
            output::counted(answer.merged_layers, "layer")
        );
    }
    if answer.compacted_segments > 0 {
        text += &format!(
            "  {} would be copied together, {} of them, and {} come back\n",
            output::counted(answer.compacted_segments, "segment"),
            format_size(answer.copied_bytes),
            format_size(answer.gained_bytes)
        );
    }
    if answer.merged_layers == 0 && answer.compacted_segments == 0 {
        text += "  nothing to be merged or copied together\n";
    }
    text
}
