//! `snapshot create`, `list`, `delete` and `attach`.

use anyhow::bail;
use forerun::api::v1::{
    ClonedVolume, CreatePredictiveSnapshotRequest, DeleteSnapshotRequest, ListSnapshotsRequest, Snapshot,
    SyncSnapshotRequest,
};
use forerun::config::{Paths, SnapshotName, VolumeName, format_size};
use forerun::utc::Utc;
use serde::Serialize;

use super::args::{SnapshotAttachOptions, SnapshotCreateOptions, SnapshotDeleteOptions, SnapshotListOptions};
use super::devices::{self, DeviceRef, DeviceState};
use super::failure::Failure;
use super::table::{Align, Table};
use super::{add, client, output};

#[derive(Serialize)]
struct List<'a> {
    snapshots: &'a [Snapshot],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    clones: &'a [ClonedVolume],
}

/// Runs `snapshot create`.
pub fn create(paths: &Paths, options: SnapshotCreateOptions) -> anyhow::Result<()> {
    if options.horizon == Some(0) {
        // 0 in the schema means "as before"; nobody types it for that.
        return Err(
            Failure::Refused("the prediction horizon is 0 epochs; the range is 1 to 64".into()).into()
        );
    }
    let volume = &options.volume;
    let answer = client::block_on(async {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        let request = CreatePredictiveSnapshotRequest {
            volume_id: volume.to_string(),
            prediction_horizon: options.horizon.unwrap_or(0),
            name: options.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        client.create_predictive_snapshot(request).await.map_err(client::failure)
    })?
    .into_inner();
    if options.json {
        return Ok(output::json(&answer)?);
    }
    let snapshot = answer.snapshot.unwrap_or_default();
    if !answer.created {
        return Ok(output::text(&format!(
            "snapshot {} of volume {volume} is there already (epoch {}, {}); nothing was changed\n",
            snapshot.name,
            snapshot.epoch,
            Utc::from_us(snapshot.created_us)
        ))?);
    }
    Ok(output::text(&format!(
        "snapshot {} of volume {volume}: epoch {}, {} of data; {} above the threshold over {}\n",
        snapshot.name,
        snapshot.epoch,
        format_size(snapshot.data_bytes),
        output::counted(answer.predictions_above_threshold, "prediction"),
        output::counted(answer.prediction_horizon.into(), "epoch"),
    ))?)
}

/// All snapshots of a volume, oldest first.
///
/// # Errors
/// Those of the calls.
pub fn all(paths: &Paths, volume: &VolumeName) -> anyhow::Result<Vec<Snapshot>> {
    all_with_clones(paths, volume).map(|(snapshots, _)| snapshots)
}

/// All snapshots of a volume, oldest first, and its clones.
fn all_with_clones(paths: &Paths, volume: &VolumeName) -> anyhow::Result<(Vec<Snapshot>, Vec<ClonedVolume>)> {
    client::block_on(async {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        let mut snapshots = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListSnapshotsRequest { volume_id: volume.to_string(), page_size: 0, page_token };
            let page = client.list_snapshots(request).await.map_err(client::failure)?.into_inner();
            snapshots.extend(page.snapshots);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok((snapshots, page.clones));
            }
        }
    })
}

/// Runs `snapshot list`.
pub fn list(paths: &Paths, options: &SnapshotListOptions) -> anyhow::Result<()> {
    let (snapshots, clones) = all_with_clones(paths, &options.volume)?;
    if options.json {
        return Ok(output::json(&List { snapshots: &snapshots, clones: &clones })?);
    }
    if snapshots.is_empty() && clones.is_empty() {
        let volume = &options.volume;
        return Ok(output::text(&format!(
            "volume {volume} has no snapshots; `forerun snapshot create {volume}` makes one\n"
        ))?);
    }
    let mut table = Table::new(&[
        ("SNAPSHOT", Align::Left),
        ("EPOCH", Align::Right),
        ("CREATED (UTC)", Align::Left),
        ("DATA", Align::Right),
        ("ON CAPACITY TIER", Align::Left),
    ]);
    for snapshot in &snapshots {
        table.row(vec![
            snapshot.name.clone(),
            snapshot.epoch.to_string(),
            Utc::from_us(snapshot.created_us).to_string(),
            format_size(snapshot.data_bytes),
            if snapshot.on_capacity_tier { "yes" } else { "not yet" }.into(),
        ]);
    }
    Ok(output::text(&(table.render() + &of_clones(&snapshots, &clones)))?)
}

/// The clones, under the snapshots; nothing where there are none.
fn of_clones(snapshots: &[Snapshot], clones: &[ClonedVolume]) -> String {
    if clones.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("CLONE", Align::Left),
        ("OF SNAPSHOT", Align::Left),
        ("EPOCH", Align::Right),
        ("CREATED (UTC)", Align::Left),
        ("UUID", Align::Left),
        ("CAPACITY TIER", Align::Left),
    ]);
    for clone in clones {
        let of = snapshots.iter().find(|snapshot| snapshot.epoch == clone.epoch);
        table.row(vec![
            clone.name.clone(),
            of.map_or_else(|| "(deleted)".to_owned(), |snapshot| snapshot.name.clone()),
            clone.epoch.to_string(),
            Utc::from_us(clone.created_us).to_string(),
            clone.uuid.clone(),
            clone.address.clone(),
        ]);
    }
    format!("\n{}", table.render())
}

/// Runs `snapshot delete`.
pub fn delete(paths: &Paths, options: &SnapshotDeleteOptions) -> anyhow::Result<()> {
    delete_one(paths, &options.volume, &options.name)?;
    Ok(output::text(&format!("deleted snapshot {} of volume {}\n", options.name, options.volume))?)
}

/// Deletes a snapshot.
///
/// # Errors
/// Those of the call.
pub fn delete_one(paths: &Paths, volume: &VolumeName, name: &SnapshotName) -> anyhow::Result<()> {
    client::block_on(async {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        let request = DeleteSnapshotRequest { volume_id: volume.to_string(), name: name.to_string() };
        client.delete_snapshot(request).await.map_err(client::failure)
    })
    .map(drop)
}

/// Runs `snapshot attach`.
pub fn attach(paths: &Paths, options: &SnapshotAttachOptions) -> anyhow::Result<()> {
    client::load_config(paths, &options.volume)?;
    let reference = DeviceRef { volume: options.volume.clone(), snapshot: Some(options.name.clone()) };
    if let Some(record) = devices::record(paths, &reference)? {
        let path = record.device_path();
        match devices::state(&record, &reference) {
            DeviceState::Running => bail!("{reference} is attached already: {path}, process {}", record.pid),
            DeviceState::WaitsForRecovery => bail!(
                "{reference} is attached already, and its target died: `forerun recover {}` takes {path} over",
                reference.typed()
            ),
            DeviceState::Gone => {}
        }
    }
    sync(paths, &options.volume, &options.name)?;
    add::start(paths, &options.volume, Some(&options.name), &options.device, options.json)
}

/// Makes a snapshot of this moment that no later step may take for another one.
///
/// # Errors
/// There is one of that name, of another moment: says so, and `advice`.
pub fn make(paths: &Paths, volume: &VolumeName, name: &str, advice: &str) -> anyhow::Result<()> {
    let made = client::block_on(async {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        let request = CreatePredictiveSnapshotRequest {
            volume_id: volume.to_string(),
            prediction_horizon: 0,
            name: name.to_owned(),
        };
        client.create_predictive_snapshot(request).await.map_err(client::failure)
    })?;
    if !made.into_inner().created {
        bail!("volume {volume} has a snapshot {name} of another moment already; {advice}");
    }
    Ok(())
}

/// Has a running volume write the snapshot back. A stopped one has only what is on the capacity tier.
///
/// # Errors
/// No such snapshot; a write-back that fails.
pub fn sync(paths: &Paths, volume: &VolumeName, name: &SnapshotName) -> anyhow::Result<()> {
    let synced = client::block_on(async {
        let mut client = client::connect(paths, volume, client::WAITING_CALL_LIMIT).await?;
        let request = SyncSnapshotRequest { volume_id: volume.to_string(), name: name.to_string() };
        client.sync_snapshot(request).await.map_err(client::failure)
    });
    match synced {
        Err(error) if matches!(error.downcast_ref(), Some(Failure::NotRunning(_))) => Ok(()),
        other => other.map(drop),
    }
}
