//! `check`: both tiers of a volume that is not in use, every checksum.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use forerun::config::{Paths, VolumeConfig, VolumeName};
use serde_json::json;
use ublk_target::capacity_tier::{CapacityTier, Severity, VolumeUuid};
use ublk_target::daemon::CheckArgs;
use ublk_target::fast_tier;
use uuid::Uuid;

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

/// What is to be checked.
struct Places {
    fast: Option<PathBuf>,
    capacity: Option<PathBuf>,
    /// Whose the tiers have to be; any volume's where only the tiers are named.
    volume: Option<Uuid>,
}

/// Checks what the arguments name and prints what was found.
pub fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let Places { fast, capacity, volume } = places(args)?;
    let mut findings = Vec::new();
    let mut checked = serde_json::Map::new();
    if let Some(fast) = &fast {
        checked.insert("fast".to_owned(), check_fast(fast, volume, &mut findings)?);
    }
    if let Some(capacity) = &capacity {
        checked.insert("capacity".to_owned(), check_capacity(capacity, volume, &mut findings, args.json)?);
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

fn places(args: &CheckArgs) -> anyhow::Result<Places> {
    let Some(volume) = &args.volume else {
        return Ok(Places { fast: args.fast.clone(), capacity: args.capacity.clone(), volume: None });
    };
    let volume = VolumeName::new(volume.as_str())?;
    let config = VolumeConfig::load(&volume, &Paths::from_env().volume(&volume))?;
    Ok(Places {
        fast: Some(config.fast.path),
        capacity: Some(config.capacity.path),
        volume: Some(config.uuid),
    })
}

fn human(counts: &serde_json::Value) -> String {
    let Some(counts) = counts.as_object() else { return String::new() };
    counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn check_fast(
    path: &Path,
    volume: Option<Uuid>,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<serde_json::Value> {
    // Another volume's tier is not damaged: it is the wrong one.
    let report = fast_tier::check::check(path, None)?;
    if let (Some(expected), Some(found)) = (volume, report.volume)
        && expected != found
    {
        bail!("{} is the fast tier of volume {found}, not of {expected}: check the path", path.display());
    }
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
    volume: Option<Uuid>,
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
    let volume = volume.map(|volume| VolumeUuid(*volume.as_bytes()));
    let report = tokio_uring::start(CapacityTier::check(directory, volume, &mut progress))
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

#[cfg(test)]
mod tests {
    use forerun::geometry::Geometry;
    use ublk_target::fast_tier::FastTier;

    use super::*;

    #[test]
    fn a_volumes_tiers_have_to_be_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (fast, capacity) = (folder.path().join("fast"), folder.path().join("capacity"));
        let (ours, others) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let geometry = Geometry::new(64 << 20, 4096).unwrap();
        FastTier::format(&fast, Some(64 << 20), *ours.as_bytes(), geometry).unwrap();
        let uuid = VolumeUuid(*ours.as_bytes());
        tokio_uring::start(CapacityTier::create(&capacity, uuid, geometry)).unwrap();
        let mut findings = Vec::new();
        for volume in [None, Some(ours)] {
            check_fast(&fast, volume, &mut findings).unwrap();
            check_capacity(&capacity, volume, &mut findings, true).unwrap();
        }
        assert!(findings.is_empty());
        let told = [
            check_fast(&fast, Some(others), &mut findings).unwrap_err(),
            check_capacity(&capacity, Some(others), &mut findings, true).unwrap_err(),
        ];
        for error in told {
            let text = format!("{error:#}");
            assert!(text.contains(&ours.to_string()) && text.contains(&others.to_string()), "{text}");
        }
    }
}
