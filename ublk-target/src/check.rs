//! `check`: both tiers of a volume that is not in use, every checksum.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use forerun::config::{Paths, VolumeConfig, VolumeName};
use serde_json::json;
use ublk_target::capacity_tier::{CapacityTier, Severity};
use ublk_target::daemon::CheckArgs;
use ublk_target::fast_tier;

/// The exit code that says: there is damage.
const DAMAGED: u8 = 5;

/// Something that the check met.
struct Finding {
    tier: &'static str,
    damage: bool,
    what: String,
    place: String,
    advice: String,
}

/// Checks what the arguments name and prints what was found.
pub fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (fast, capacity) = places(args)?;
    let mut findings = Vec::new();
    let mut checked = serde_json::Map::new();
    if let Some(fast) = &fast {
        checked.insert("fast".to_owned(), check_fast(fast, &mut findings)?);
    }
    if let Some(capacity) = &capacity {
        checked.insert("capacity".to_owned(), check_capacity(capacity, &mut findings, args.json)?);
    }
    let damaged = findings.iter().filter(|finding| finding.damage).count();
    if args.json {
        let list: Vec<_> = findings
            .iter()
            .map(|finding| {
                let severity = if finding.damage { "damage" } else { "note" };
                json!({"tier": finding.tier, "severity": severity, "what": finding.what,
                       "where": finding.place, "advice": finding.advice})
            })
            .collect();
        println!("{}", json!({"checked": checked, "damaged": damaged, "findings": list}));
    } else {
        for finding in &findings {
            let severity = if finding.damage { "DAMAGE" } else { "note" };
            println!("{severity}: {} tier, {}: {}", finding.tier, finding.place, finding.what);
            println!("    {}", finding.advice);
        }
        for (tier, counts) in &checked {
            println!("{tier} tier checked: {}", human(counts));
        }
        println!("{}", if damaged == 0 { "sound".to_owned() } else { format!("{damaged} damaged") });
    }
    Ok(if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

fn places(args: &CheckArgs) -> anyhow::Result<(Option<PathBuf>, Option<PathBuf>)> {
    let Some(volume) = &args.volume else { return Ok((args.fast.clone(), args.capacity.clone())) };
    let volume = VolumeName::new(volume.as_str())?;
    let config = VolumeConfig::load(&volume, &Paths::from_env().volume(&volume))?;
    Ok((Some(config.fast.path), Some(config.capacity.path)))
}

fn human(counts: &serde_json::Value) -> String {
    let Some(counts) = counts.as_object() else { return String::new() };
    counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn check_fast(path: &Path, findings: &mut Vec<Finding>) -> anyhow::Result<serde_json::Value> {
    let report = fast_tier::check::check(path, None)?;
    findings.extend(report.findings.into_iter().map(|finding| Finding {
        tier: "fast",
        damage: true,
        what: match finding.severity {
            fast_tier::check::Severity::Fatal => finding.what,
            fast_tier::check::Severity::Minor => format!("{} (the tier can do without)", finding.what),
        },
        place: finding.place,
        advice: finding.advice.to_owned(),
    }));
    Ok(json!({"slots in use": report.held_slots, "commits since the checkpoint": report.journal_commits}))
}

fn check_capacity(
    directory: &Path,
    findings: &mut Vec<Finding>,
    quiet: bool,
) -> anyhow::Result<serde_json::Value> {
    let mut told = 0;
    let mut progress = |now: ublk_target::capacity_tier::CheckProgress| {
        if !quiet && now.bytes - told >= 1 << 30 {
            told = now.bytes;
            eprintln!("layer {} of {}, {} GiB read", now.layers, now.layers_total, now.bytes >> 30);
        }
    };
    let report = tokio_uring::start(CapacityTier::check(directory, &mut progress))
        .with_context(|| format!("capacity tier {}", directory.display()))?;
    findings.extend(report.findings.into_iter().map(|finding| Finding {
        tier: "capacity",
        damage: finding.severity == Severity::Damage,
        what: finding.what,
        place: finding.place,
        advice: finding.advice,
    }));
    Ok(json!({"objects": report.objects, "blocks": report.blocks, "bytes": report.bytes}))
}
