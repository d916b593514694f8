//! `prune`: deletes the snapshots that the volume's policy does not keep, or says which and why.

use anyhow::bail;
use clap::Args;
use forerun::api::v1::{self, DeleteSnapshotRequest, ListChainsRequest, Snapshot};
use forerun::config::{Paths, VolumeName, format_size};
use forerun::geometry::BLOCK_BYTES;
use forerun::retention::{Chain, Plan, Point, Verdict, What, plan};
use forerun::utc::Utc;
use serde::Serialize;
use tonic::Code;

use super::output::{self, counted};
use super::table::{Align, Table};
use super::{client, retention, snapshot};

/// Options of `prune`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
The policy is the one that `forerun retention` shows and sets. Snapshots that were given a name stay
unless it says otherwise; the newest of all that may go stays too. A snapshot that is attached stays
until it is not any more. The space of what went comes back in the background.

With --explain each snapshot says why it is kept, merged into a newer one that stands for the same
hour, day, week, month or year, or cut: nothing of its time is kept.

Examples:
  forerun prune data --dry-run --explain
  forerun prune data
  systemctl enable --now forerun-snapshot@data.timer    # hourly: a snapshot, then this")]
pub struct PruneOptions {
    /// The volume
    pub volume: VolumeName,
    /// Delete nothing, only say what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Say for each snapshot what becomes of it, and why
    #[arg(long)]
    pub explain: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was done, with `--json`.
#[derive(Serialize)]
struct Pruned<'a> {
    dry_run: bool,
    snapshots: Vec<PrunedSnapshot<'a>>,
    /// Snapshots that were to go and are in use.
    in_use: &'a [String],
}

#[derive(Serialize)]
struct PrunedSnapshot<'a> {
    name: &'a str,
    epoch: u32,
    created_us: u64,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_into: Option<&'a str>,
    why: &'a str,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &PruneOptions) -> anyhow::Result<()> {
    let (policy, source) = retention::policy(paths, &options.volume)?;
    let points = snapshot::all(paths, &options.volume)?.into_iter().map(point).collect();
    let chains = if policy.chains { chains(paths, &options.volume)? } else { Vec::new() };
    let plan = plan(points, &chains, &policy);
    let in_use = if options.dry_run { Vec::new() } else { delete(paths, &options.volume, &plan)? };
    if options.json {
        let snapshots = plan.verdicts.iter().map(pruned).collect();
        return Ok(output::json(&Pruned { dry_run: options.dry_run, snapshots, in_use: &in_use })?);
    }
    let mut text = if options.explain { explained(&plan).render() } else { String::new() };
    let gone = plan.to_delete().count().saturating_sub(in_use.len()) as u64;
    let kept = plan.verdicts.len() as u64 - gone;
    let done = if options.dry_run { "would go" } else { "went" };
    text += &format!(
        "volume {}: {} {done}, {kept} kept, by {source}\n",
        options.volume,
        counted(gone, "snapshot"),
        kept = output::count(kept),
    );
    for name in &in_use {
        text += &format!("{name} is in use and stays until it is not; prune again then\n");
    }
    Ok(output::text(&text)?)
}

fn point(snapshot: Snapshot) -> Point {
    Point {
        changed_bytes: (snapshot.added_blocks + snapshot.modified_blocks).saturating_mul(BLOCK_BYTES),
        name: snapshot.name,
        epoch: snapshot.epoch,
        created_us: snapshot.created_us,
    }
}

/// What the trainer has linked; nothing where none has reported.
fn chains(paths: &Paths, volume: &VolumeName) -> anyhow::Result<Vec<Chain>> {
    let answer = client::block_on(async {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        let request = ListChainsRequest { volume_id: volume.to_string() };
        client.list_chains(request).await.map_err(client::failure)
    })?;
    let chain = |chain: v1::Chain| Chain {
        id: chain.id,
        epochs: chain.epochs,
        similarity: chain.similarity,
        diverged: chain.pruned_by_divergence,
    };
    Ok(answer.into_inner().chains.into_iter().map(chain).collect())
}

/// Deletes what goes, the oldest first; gives the names of those that are in use.
fn delete(paths: &Paths, volume: &VolumeName, plan: &Plan) -> anyhow::Result<Vec<String>> {
    client::block_on(async {
        let mut client = client::connect(paths, volume, client::WAITING_CALL_LIMIT).await?;
        let mut in_use = Vec::new();
        for (done, name) in plan.to_delete().enumerate() {
            let request = DeleteSnapshotRequest { volume_id: volume.to_string(), name: name.to_owned() };
            match client.delete_snapshot(request).await {
                // Somebody else was quicker.
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) if status.code() == Code::FailedPrecondition => in_use.push(name.to_owned()),
                Err(status) => {
                    let gone = counted((done - in_use.len()) as u64, "snapshot");
                    bail!(client::failure(status).context(format!("{gone} went, but not {name}")));
                }
                Ok(_) => {}
            }
        }
        Ok(in_use)
    })
}

const fn word(what: &What) -> &'static str {
    match what {
        What::Keep => "keep",
        What::Merge(_) => "merge",
        What::Cut => "cut",
    }
}

fn pruned(verdict: &Verdict) -> PrunedSnapshot<'_> {
    let point = &verdict.point;
    PrunedSnapshot {
        name: &point.name,
        epoch: point.epoch,
        created_us: point.created_us,
        what: word(&verdict.what),
        merged_into: if let What::Merge(into) = &verdict.what { Some(into) } else { None },
        why: &verdict.why,
    }
}

fn explained(plan: &Plan) -> Table {
    let mut table = Table::new(&[
        ("SNAPSHOT", Align::Left),
        ("EPOCH", Align::Right),
        ("CREATED (UTC)", Align::Left),
        ("CHANGES", Align::Right),
        ("", Align::Left),
        ("WHY", Align::Left),
    ]);
    for Verdict { point, what, why } in &plan.verdicts {
        table.row(vec![
            point.name.clone(),
            point.epoch.to_string(),
            Utc::from_us(point.created_us).to_string(),
            format_size(point.changed_bytes),
            word(what).to_owned(),
            why.clone(),
        ]);
    }
    table
}
