//! From the engine's words to the schema's.

use forerun::api::v1;
use forerun::change_vector::{Change, ChangeKind};
use forerun::config::VolumeName;
use forerun::geometry::BLOCK_BYTES;

use crate::background::{Collected, Hydration, HydrationState};
use crate::capacity_tier::Garbage;

use super::plane::{CloneInfo, CreatedSnapshot, Snapshot};
use super::status::{
    Chain, OriginStatus, PredictorScore, PrefetchStatus, TierStatus, TrainerReport, VolumeStatus,
};

pub(super) fn change(change: &Change) -> v1::BlockChange {
    let kind = match change.kind {
        ChangeKind::Added => v1::ChangeKind::Added,
        ChangeKind::Modified => v1::ChangeKind::Modified,
        ChangeKind::Deleted => v1::ChangeKind::Deleted,
    };
    v1::BlockChange { block: change.block.0, kind: kind.into(), sub_blocks: change.sub_blocks.into() }
}

pub(super) fn snapshot(snapshot: Snapshot) -> v1::Snapshot {
    v1::Snapshot {
        name: snapshot.name.to_string(),
        epoch: snapshot.epoch.0,
        created_us: snapshot.created_us,
        data_bytes: snapshot.data_bytes,
        added_blocks: snapshot.added_blocks,
        modified_blocks: snapshot.modified_blocks,
        deleted_blocks: snapshot.deleted_blocks,
        change_bytes_per_second: snapshot.change_bytes_per_second,
        on_capacity_tier: snapshot.on_capacity_tier,
    }
}

pub(super) fn created(created: CreatedSnapshot) -> v1::CreatePredictiveSnapshotResponse {
    v1::CreatePredictiveSnapshotResponse {
        snapshot: Some(snapshot(created.snapshot)),
        created: created.created,
        prediction_horizon: created.horizon.epochs(),
        predictions_above_threshold: created.predictions_above_threshold,
    }
}

fn tier(tier: TierStatus) -> v1::Tier {
    v1::Tier {
        path: tier.path,
        total_bytes: tier.total_bytes,
        used_bytes: tier.used_bytes,
        clean_bytes: tier.clean_bytes,
        conditional_writes: tier.conditional_writes,
    }
}

pub(super) fn volume_status(
    volume: &VolumeName,
    uuid: String,
    status: VolumeStatus,
) -> v1::GetVolumeStatusResponse {
    v1::GetVolumeStatusResponse {
        volume_id: volume.to_string(),
        uuid,
        device: status.device,
        size_bytes: status.size_bytes,
        logical_block_bytes: status.logical_block_bytes,
        queues: status.queues,
        queue_depth: status.queue_depth,
        transfer_mode: status.transfer_mode,
        not_granted: status.not_granted,
        started_us: status.started_us,
        pid: std::process::id(),
        health: status.health,
        open_epoch: status.open_epoch,
        open_epoch_since_us: status.open_epoch_since_us,
        sync_interval_seconds: status.sync_interval_seconds,
        epochs_not_written_back: status.epochs_not_written_back,
        written_back_epoch: status.written_back_epoch,
        write_back_remaining_bytes: status.write_back_remaining_bytes,
        write_back_eta_seconds: status.write_back_eta_seconds,
        written_back_bytes: status.written_back_bytes,
        write_back_error: status.write_back_error,
        mapped_bytes: status.mapped_bytes,
        dirty_bytes: status.dirty_bytes,
        fast_tier: Some(tier(status.fast_tier)),
        capacity_tier: Some(tier(status.capacity_tier)),
        memory_bytes: status.memory_bytes,
        read_requests: status.read_requests,
        read_bytes: status.read_bytes,
        write_requests: status.write_requests,
        write_bytes: status.write_bytes,
        discard_requests: status.discard_requests,
        flush_requests: status.flush_requests,
        failed_requests: status.failed_requests,
        read_hits: status.read_hits,
        read_misses: status.read_misses,
        promotions: status.promotions,
        evictions: status.evictions,
        waits_for_room: status.waits_for_room,
        fast_tier_errors: status.fast_tier_errors,
        journal_failures: status.journal_failures,
        write_back_failures: status.write_back_failures,
        capacity_read_errors: status.capacity_read_errors,
        origins: status.origins.into_iter().map(origin).collect(),
        hydration: Some(hydration(&status.hydration)),
    }
}

fn hydration(hydration: &Hydration) -> v1::Hydration {
    let state = match hydration.state {
        HydrationState::Waiting => "waiting",
        HydrationState::Off => "off",
        HydrationState::Listed => "listed",
        HydrationState::Rest => "rest",
        HydrationState::Done => "done",
        HydrationState::Full => "full",
    };
    v1::Hydration {
        state: state.to_owned(),
        listed_blocks: hydration.listed,
        listed_done: hydration.listed_done,
        rest_blocks: hydration.rest,
        rest_done: hydration.rest_done,
        fetched_bytes: hydration.fetched_bytes,
        failed_blocks: hydration.failed,
        seconds: hydration.seconds,
        eta_seconds: hydration.eta_seconds,
        list_made_us: hydration.list_made_us,
        request_seconds: hydration.request_ns / 1e9,
        steady_request_seconds: hydration.steady_request_ns / 1e9,
        read_hits: hydration.read_hits,
        steady_read_hits: hydration.steady_read_hits,
        steady: hydration.steady_after_bytes.is_some(),
        steady_after_bytes: hydration.steady_after_bytes.unwrap_or(0),
    }
}

pub(super) fn origin(origin: OriginStatus) -> v1::Origin {
    let OriginStatus { uuid, address, shared_bytes, promoting } = origin;
    v1::Origin { uuid, address, shared_bytes, promoting }
}

pub(super) fn clone_info(clone: CloneInfo) -> v1::ClonedVolume {
    let CloneInfo { uuid, name, address, epoch, created_us } = clone;
    v1::ClonedVolume { uuid, name, address, epoch: epoch.0, created_us }
}

pub(super) fn prefetch_status(
    status: PrefetchStatus,
    report: Option<&TrainerReport>,
) -> v1::GetPrefetchStatusResponse {
    v1::GetPrefetchStatusResponse {
        threshold: status.threshold.as_f64(),
        prediction_horizon: status.horizon.epochs(),
        state: status.state,
        predictions_published: status.predictions_published,
        predictions_above_threshold: status.predictions_above_threshold,
        tables_accepted: status.tables_accepted,
        tables_refused: status.tables_refused,
        last_refusal: status.last_refusal,
        queue_length: status.queue_length,
        reservations_held: status.reservations_held,
        reservations_made: status.reservations_made,
        reservations_used: status.reservations_used,
        reservations_wasted: status.reservations_wasted,
        redirects: status.redirects,
        prefetched_bytes: status.prefetched_bytes,
        prefetched_used_bytes: status.prefetched_used_bytes,
        precision: status.precision,
        recall: status.recall,
        score_window_epochs: status.score_window_epochs,
        serving_predictor: report.map(|report| report.serving_predictor.clone()).unwrap_or_default(),
        serving_reason: report.map(|report| report.serving_reason.clone()).unwrap_or_default(),
        predictors: report.map(|report| report.predictors.iter().map(score).collect()).unwrap_or_default(),
        trainer_reported_us: report.map_or(0, |report| report.received_us),
        read_precision: status.read_precision,
        read_recall: status.read_recall,
        table_epoch: status.table_epoch,
        table_published_us: status.table_published_us,
        acts_from: status.acts_from,
        missed_after_eviction: status.missed_after_eviction,
        acted_blocks: status.acted_blocks,
        acted_missed: status.acted_missed,
        control_blocks: status.control_blocks,
        control_missed: status.control_missed,
        capacity_read_seconds: status.capacity_read_seconds,
        growth_bytes: status.growth_blocks.saturating_mul(BLOCK_BYTES),
        growth_kept_bytes: u64::from(status.growth_slots) * BLOCK_BYTES,
    }
}

fn score(score: &PredictorScore) -> v1::PredictorScore {
    v1::PredictorScore {
        name: score.name.clone(),
        mean_average_precision: score.mean_average_precision,
        precision: score.precision,
        recall: score.recall,
        epochs: score.epochs,
    }
}

pub(super) fn chain(chain: &Chain) -> v1::Chain {
    let likeness = |[blocks, regions, run_lengths, kinds, volume]: [f64; 5]| v1::ChainLikeness {
        blocks,
        regions,
        run_lengths,
        kinds,
        volume,
    };
    let [linked_from_similarity, pruned_below_similarity] = chain.similarity_limits;
    let [pruned_after_hours, pruned_above_epochs] = chain.age_and_number_limits;
    v1::Chain {
        id: chain.id,
        epochs: chain.epochs.clone(),
        first_us: chain.first_us,
        last_us: chain.last_us,
        similarity: chain.similarity,
        mean_changed_blocks: chain.mean_changed_blocks,
        pruned_by_age: chain.pruned_by_age,
        pruned_by_divergence: chain.pruned_by_divergence,
        likeness: chain.likeness.map(likeness),
        pruned_by_number: chain.pruned_by_number,
        linked_from_similarity,
        pruned_below_similarity,
        pruned_after_hours,
        pruned_above_epochs,
    }
}

/// What the capacity tier had that was not needed, and what was done about it.
pub fn garbage(before: Garbage, done: Collected) -> v1::CollectGarbageResponse {
    let Garbage { segment_bytes, live_bytes, queued_objects, queued_bytes, pinned_bytes, .. } = before;
    v1::CollectGarbageResponse {
        segment_bytes,
        live_bytes,
        queued_objects,
        queued_bytes,
        pinned_bytes,
        compacted_segments: before.compacted_segments,
        copied_bytes: before.copied_bytes,
        gained_bytes: before.gained_bytes,
        merged_layers: before.merged_layers,
        layers_merged: done.merged_layers,
        segments_compacted: done.compacted_segments,
        deleted_objects: done.deleted_objects,
        deleted_bytes: done.deleted_bytes,
    }
}
