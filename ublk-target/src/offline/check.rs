//! The check: every checksum of both tiers, and whether the two fit each other.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use forerun::config::{CapacityAddress, VolumeConfig};
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::cross;
use crate::capacity_tier::{self, CapacityTier, CheckReport, VolumeUuid};
use crate::fast_tier::{self, check as fast_check};

/// Where a volume's tiers are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Places {
    /// The fast tier.
    pub fast: Option<PathBuf>,
    /// The capacity tier.
    pub capacity: Option<CapacityAddress>,
    /// Whose the tiers have to be; any volume's, but both the same one's, where only the tiers are named.
    pub volume: Option<Uuid>,
}

impl Places {
    /// Those of a configured volume.
    #[must_use]
    pub fn of(config: &VolumeConfig) -> Self {
        Self {
            fast: Some(config.fast.path.clone()),
            capacity: Some(config.capacity.address.clone()),
            volume: Some(config.uuid),
        }
    }
}

/// Is told how far long work has come.
pub trait Progress {
    /// So many of all.
    fn step(&mut self, what: &'static str, done: u64, all: u64);
}

/// Nobody is told.
pub struct Quiet;

impl Progress for Quiet {
    fn step(&mut self, _what: &'static str, _done: u64, _all: u64) {}
}

/// How grave a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is lost, or the volume cannot be opened.
    Damage,
    /// Something is damaged that the tier can do without.
    Minor,
    /// Nothing to worry about.
    Note,
}

/// Something that the check met.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// `fast`, `capacity`, or `both` where they do not fit each other.
    pub tier: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What it is.
    pub what: String,
    /// Where.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do.
    pub advice: String,
}

impl Finding {
    /// Whether something is lost, or the volume cannot be opened.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.severity == Severity::Damage
    }
}

/// What a check came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// What was met.
    pub findings: Vec<Finding>,
    /// What was looked at, by tier.
    pub checked: Map<String, Value>,
    /// Findings beyond the most that are listed.
    pub not_listed: u64,
}

impl Outcome {
    /// Whether something is damaged that is missed.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(Finding::is_damage)
    }

    /// Whether nothing at all is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged() == 0
    }

    /// How much is damaged.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        let listed = self.findings.iter().filter(|finding| finding.severity != Severity::Note).count();
        listed as u64 + self.not_listed
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"clean": self.is_clean(), "damaged": self.damaged(), "checked": self.checked,
               "findings": self.findings, "not_listed": self.not_listed})
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for Finding { tier, severity, what, place, advice } in &self.findings {
            let severity = match severity {
                Severity::Damage => "DAMAGE",
                Severity::Minor => "minor",
                Severity::Note => "note",
            };
            let tier = if *tier == "both" { "both tiers".to_owned() } else { format!("{tier} tier") };
            lines.push(format!("{severity}: {tier}, {place}: {what}\n    {advice}"));
        }
        for (tier, counts) in &self.checked {
            let counts = counts.as_object().into_iter().flatten();
            let counts: Vec<String> = counts.map(|(what, count)| format!("{count} {what}")).collect();
            lines.push(format!("{tier} tier checked: {}", counts.join(", ")));
        }
        if self.not_listed > 0 {
            lines.push(format!("{} more findings are not listed", self.not_listed));
        }
        lines.push(match self.damaged() {
            0 => "sound\n".to_owned(),
            damaged => format!("{damaged} damaged\n"),
        });
        lines.join("\n")
    }
}

/// Checks what is named; nothing is written.
///
/// # Errors
/// Only what keeps it from looking: a tier that is missing, in use, of another volume, or that cannot be read at all.
pub fn check(places: &Places, progress: &mut dyn Progress) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let fast =
        places.fast.as_deref().map(|path| check_fast(path, places.volume, &mut outcome)).transpose()?;
    let capacity = match &places.capacity {
        Some(address) => Some(check_capacity(address, places.volume, &mut outcome, progress)?),
        None => None,
    };
    if let (Some(fast), Some(capacity), Some(address)) = (&fast, &capacity, &places.capacity) {
        cross::check(fast, capacity, address, &mut outcome)?;
    }
    Ok(outcome)
}

fn check_fast(
    path: &Path,
    volume: Option<Uuid>,
    outcome: &mut Outcome,
) -> anyhow::Result<fast_check::Report> {
    // Another volume's tier is not damaged: it is the wrong one.
    let mut report = fast_tier::check::check(path, None)?;
    if let (Some(expected), Some(found)) = (volume, report.volume)
        && expected != found
    {
        bail!("{} is the fast tier of volume {found}, not of {expected}: check the path", path.display());
    }
    for finding in std::mem::take(&mut report.findings) {
        let severity = match finding.severity {
            fast_check::Severity::Fatal => Severity::Damage,
            fast_check::Severity::Minor => Severity::Minor,
        };
        let fast_check::Finding { what, place, advice, .. } = finding;
        let place = format!("{} {place}", path.display());
        outcome.findings.push(Finding { tier: "fast", severity, what, place, advice: advice.to_owned() });
    }
    let counts =
        json!({"slots in use": report.held_slots, "commits since the checkpoint": report.journal_commits});
    outcome.checked.insert("fast".to_owned(), counts);
    Ok(report)
}

fn check_capacity(
    address: &CapacityAddress,
    volume: Option<Uuid>,
    outcome: &mut Outcome,
    progress: &mut dyn Progress,
) -> anyhow::Result<CheckReport> {
    let volume = volume.map(|volume| VolumeUuid(*volume.as_bytes()));
    let mut told =
        |now: capacity_tier::CheckProgress| progress.step("layers checked", now.layers, now.layers_total);
    let mut report = tokio_uring::start(CapacityTier::check(address, volume, &mut told))
        .with_context(|| format!("capacity tier {address}"))?;
    let listed = std::mem::take(&mut report.findings);
    let damaged = listed.iter().filter(|finding| finding.severity == capacity_tier::Severity::Damage).count();
    outcome.not_listed += report.damaged.saturating_sub(damaged as u64);
    outcome.findings.extend(listed.into_iter().map(|finding| Finding {
        tier: "capacity",
        severity: match finding.severity {
            capacity_tier::Severity::Damage => Severity::Damage,
            capacity_tier::Severity::Note => Severity::Note,
        },
        what: finding.what,
        place: finding.place,
        advice: finding.advice,
    }));
    let counts = json!({"objects": report.objects, "blocks": report.blocks, "bytes": report.bytes});
    outcome.checked.insert("capacity".to_owned(), counts);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use forerun::geometry::Geometry;

    use super::*;
    use crate::fast_tier::FastTier;

    #[test]
    fn a_volumes_tiers_have_to_be_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (fast, capacity) = (folder.path().join("fast"), folder.path().join("capacity"));
        let (ours, others) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let geometry = Geometry::new(64 << 20, 4096).unwrap();
        FastTier::format(&fast, Some(64 << 20), *ours.as_bytes(), geometry).unwrap();
        let uuid = VolumeUuid(*ours.as_bytes());
        tokio_uring::start(CapacityTier::create(&capacity, uuid, geometry)).unwrap();
        let only = |fast: Option<&PathBuf>, capacity: Option<&PathBuf>, volume| Places {
            fast: fast.cloned(),
            capacity: capacity.map(Into::into),
            volume,
        };
        for volume in [None, Some(ours)] {
            let outcome = check(&only(Some(&fast), Some(&capacity), volume), &mut Quiet).unwrap();
            assert_eq!(outcome.findings, []);
        }
        for places in [only(Some(&fast), None, Some(others)), only(None, Some(&capacity), Some(others))] {
            let text = format!("{:#}", check(&places, &mut Quiet).unwrap_err());
            assert!(text.contains(&ours.to_string()) && text.contains(&others.to_string()), "{text}");
        }
        // Two volumes' tiers, named by hand.
        let other = folder.path().join("other");
        FastTier::format(&other, Some(64 << 20), *others.as_bytes(), geometry).unwrap();
        let outcome = check(&only(Some(&other), Some(&capacity), None), &mut Quiet).unwrap();
        assert!(outcome.is_damaged() && outcome.findings[0].tier == "both", "{outcome:?}");
    }
}
