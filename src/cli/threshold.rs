//! `threshold`: the probability from which a prediction is acted on.

use forerun::api::v1::AdjustPredictionThresholdRequest;
use forerun::config::Paths;

use super::args::ThresholdOptions;
use super::{client, output};

/// Runs the command.
pub fn run(paths: &Paths, options: &ThresholdOptions) -> anyhow::Result<()> {
    let adjusted = client::block_on(async {
        let mut client = client::connect(paths, &options.volume, client::CALL_LIMIT).await?;
        let request = AdjustPredictionThresholdRequest {
            volume_id: options.volume.to_string(),
            threshold: options.threshold,
        };
        client.adjust_prediction_threshold(request).await.map_err(client::failure)
    })?
    .into_inner();
    if options.json {
        return Ok(output::json(&adjusted)?);
    }
    Ok(output::text(&format!(
        "the prediction threshold of volume {} is {}, was {}\n",
        options.volume, adjusted.threshold, adjusted.previous_threshold
    ))?)
}
