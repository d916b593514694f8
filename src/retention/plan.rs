//! What a policy says of the snapshots that are there: which are kept, which are merged into a newer one, which are cut.
//!
//! Pure: it looks at a list and at chains. A snapshot counts for an hour (day, ISO week, month, year; UTC) if it is the
//! newest of it, and hours in which none was made do not count, so that a volume that stood still for a month keeps what it
//! had. Chains stretch that reach or shorten it ([`Stability`]). What is left is cut down to the limits, the oldest first.
//!
//! Planning again after the plan was carried out, at the same moment, asks for nothing more
//! (`what_was_pruned_needs_no_pruning`).

use std::collections::BTreeMap;

use serde::Serialize;

use super::policy::Policy;
use crate::utc::Utc;

/// A chain of fewer epochs is neither stable nor diverging: too little is known of it.
const TELLING_EPOCHS: u32 = 8;
/// Mean likeness of neighbours from which on a chain is stable. The trainer links epochs from 0.6 on; a nightly batch that
/// does the same work is at 0.8 and more.
const STABLE_FROM: f64 = 0.7;
/// The share of its epochs that a chain has lost because they were unlike the rest, from which on it diverges fast.
const DIVERGES_FROM: f64 = 0.5;

/// A snapshot, as the plan looks at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: u32,
    /// When it was made, in microseconds since 1970 (UTC).
    pub created_us: u64,
    /// Bytes of the blocks that were added or modified since the snapshot before it.
    pub changed_bytes: u64,
}

impl Point {
    /// Whether nobody gave it a name.
    #[must_use]
    pub fn is_automatic(&self) -> bool {
        self.name.starts_with("auto-")
    }
}

/// What the plan has to know of a chain.
#[derive(Clone, PartialEq, Debug)]
pub struct Chain {
    /// Its number.
    pub id: u32,
    /// Its epochs, ascending.
    pub epochs: Vec<u32>,
    /// Mean likeness of neighbours, 0 to 1.
    pub similarity: f64,
    /// Epochs that left it because they were unlike the rest.
    pub diverged: u32,
}

/// How a chain bears on how long its snapshots are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stability {
    /// Long, and each epoch like the one before: twice as long.
    Stable,
    /// Nothing to be said.
    Usual,
    /// Half of it or more is unlike the rest: half as long.
    Diverges,
}

impl Chain {
    /// Whether it is stable, diverges fast, or neither.
    #[must_use]
    pub fn stability(&self) -> Stability {
        let linked = u32::try_from(self.epochs.len()).unwrap_or(u32::MAX);
        let all = linked.saturating_add(self.diverged);
        if all < TELLING_EPOCHS {
            Stability::Usual
        } else if f64::from(self.diverged) >= DIVERGES_FROM * f64::from(all) {
            Stability::Diverges
        } else if linked >= TELLING_EPOCHS && self.similarity >= STABLE_FROM {
            Stability::Stable
        } else {
            Stability::Usual
        }
    }
}

impl Stability {
    /// How far a rule reaches that keeps `count` of something.
    fn reach(self, count: u32) -> u32 {
        match self {
            Self::Stable => count.saturating_mul(2),
            Self::Usual => count,
            Self::Diverges => count.div_ceil(2),
        }
    }
}

/// What becomes of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It is kept.
    Keep,
    /// It goes; the newer one of this name stands for its time as well.
    Merge(String),
    /// It goes, and nothing of its time is kept.
    Cut,
}

/// What becomes of one snapshot, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The snapshot.
    pub point: Point,
    /// What becomes of it.
    pub what: What,
    /// Why, for people.
    pub why: String,
}

/// What becomes of each snapshot, oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// One for each snapshot.
    pub verdicts: Vec<Verdict>,
}

impl Plan {
    /// The names of those that go, oldest first.
    pub fn to_delete(&self) -> impl Iterator<Item = &str> {
        let goes = self.verdicts.iter().filter(|verdict| verdict.what != What::Keep);
        goes.map(|verdict| verdict.point.name.as_str())
    }
}

/// A rule that keeps the newest of each span of time.
struct Span {
    /// "hour"
    name: &'static str,
    /// The span that a moment is in; any number that is the same within it.
    of: fn(u64) -> u64,
    count: u32,
}

fn spans(policy: &Policy) -> [Span; 5] {
    const HOUR_US: u64 = 3_600_000_000;
    const DAY_US: u64 = 24 * HOUR_US;
    // 1970 began on a Thursday: three days into its week.
    let week = |us: u64| (us / DAY_US + 3) / 7;
    let month = |us: u64| Utc::from_us(us).year * 12 + Utc::from_us(us).month;
    [
        Span { name: "hour", of: |us| us / HOUR_US, count: policy.hourly },
        Span { name: "day", of: |us| us / DAY_US, count: policy.daily },
        Span { name: "week", of: week, count: policy.weekly },
        Span { name: "month", of: month, count: policy.monthly },
        Span { name: "year", of: |us| Utc::from_us(us).year, count: policy.yearly },
    ]
}

/// What the policy says of these snapshots (in any order).
#[must_use]
pub fn plan(mut points: Vec<Point>, chains: &[Chain], policy: &Policy) -> Plan {
    points.sort_by_key(|point| (point.epoch, point.created_us));
    let chains = if policy.chains { chains } else { &[] };
    let of_chain = by_epoch(chains);
    let stability = |point: &Point| {
        of_chain.get(&point.epoch).map_or((Stability::Usual, None), |chain| (chain.stability(), Some(*chain)))
    };
    let spans = spans(policy);
    // By rule, the spans that have been met, newest first, each with the newest snapshot in it.
    let mut newest: [Vec<(u64, usize)>; 5] = Default::default();
    let mut verdicts = Vec::with_capacity(points.len());
    let mut under_policy = 0;
    for (at, point) in points.iter().enumerate().rev() {
        if !point.is_automatic() && !policy.named {
            verdicts.push((What::Keep, "it has a name: kept until it is deleted".to_owned()));
            continue;
        }
        under_policy += 1;
        let (stability, chain) = stability(point);
        let mut keeps = Vec::new();
        let mut stands_for_it = None;
        if under_policy <= policy.keep_last {
            keeps.push(format!("one of the last {}", policy.keep_last));
        }
        for (span, met) in spans.iter().zip(&mut newest) {
            let now = (span.of)(point.created_us);
            let is_newest = met.last().is_none_or(|(last, _)| *last != now);
            if is_newest {
                met.push((now, at));
            }
            let number = u32::try_from(met.len()).unwrap_or(u32::MAX);
            if is_newest && number <= stability.reach(span.count) {
                keeps.push(reason(span, number, stability, chain));
            } else if number <= span.count && stands_for_it.is_none() {
                let other = met.last().and_then(|(_, newest)| points.get(*newest));
                stands_for_it = other.filter(|_| !is_newest).map(|other| (span.name, other.name.clone()));
            }
        }
        verdicts.push(match (keeps.is_empty(), stands_for_it) {
            (false, _) => (What::Keep, keeps.join("; ")),
            (true, Some((span, newer))) => {
                let why = format!("{newer} is the newest of the same {span}");
                (What::Merge(newer), why)
            }
            (true, None) => (What::Cut, cut_reason(stability, chain)),
        });
    }
    verdicts.reverse();
    let mut verdicts: Vec<Verdict> =
        points.into_iter().zip(verdicts).map(|(point, (what, why))| Verdict { point, what, why }).collect();
    within_limits(&mut verdicts, policy);
    stand_for_what_is_kept(&mut verdicts);
    Plan { verdicts }
}

fn by_epoch(chains: &[Chain]) -> BTreeMap<u32, &Chain> {
    chains.iter().flat_map(|chain| chain.epochs.iter().map(move |epoch| (*epoch, chain))).collect()
}

fn reason(span: &Span, number: u32, stability: Stability, chain: Option<&Chain>) -> String {
    let own = format!("the newest of {} {number} of {}", span.name, span.count);
    match (stability, chain) {
        (Stability::Stable, Some(chain)) if number > span.count => format!(
            "{own}, kept twice as long: chain {} is stable ({} epochs, {:.2} alike)",
            chain.id,
            chain.epochs.len(),
            chain.similarity
        ),
        _ => own,
    }
}

fn cut_reason(stability: Stability, chain: Option<&Chain>) -> String {
    match (stability, chain) {
        (Stability::Diverges, Some(chain)) => format!(
            "older than what is kept, half as long as others: chain {} diverges ({} of its epochs left it, {} stayed)",
            chain.id,
            chain.diverged,
            chain.epochs.len()
        ),
        _ => "older than what is kept".to_owned(),
    }
}

/// Cuts the oldest that may go until the limits hold; the newest of all stays.
fn within_limits(verdicts: &mut [Verdict], policy: &Policy) {
    let limit = |value: u64| if value == 0 { u64::MAX } else { value };
    let (max_count, max_bytes) = (limit(policy.max_count.into()), limit(policy.max_bytes));
    let kept = |verdict: &&Verdict| verdict.what == What::Keep;
    let mut count = verdicts.iter().filter(kept).count() as u64;
    let mut bytes: u64 = verdicts.iter().filter(kept).map(|verdict| verdict.point.changed_bytes).sum();
    let newest = verdicts.iter().rposition(|verdict| verdict.what == What::Keep);
    for (at, verdict) in verdicts.iter_mut().enumerate() {
        let why = if count > max_count {
            format!("more than {max_count} snapshots (max_count)")
        } else if bytes > max_bytes {
            format!("more than {max_bytes} bytes of changes (max_bytes)")
        } else {
            break;
        };
        let may_go = verdict.point.is_automatic() || policy.named;
        if verdict.what == What::Keep && may_go && Some(at) != newest {
            count -= 1;
            bytes -= verdict.point.changed_bytes;
            (verdict.what, verdict.why) = (What::Cut, why);
        }
    }
}

/// What was to be merged into one that goes itself is merged into what that is merged into, or cut with it.
fn stand_for_what_is_kept(verdicts: &mut [Verdict]) {
    let mut newer: BTreeMap<String, (What, String)> = BTreeMap::new();
    for verdict in verdicts.iter_mut().rev() {
        if let What::Merge(into) = &verdict.what
            && let Some((what, why)) = newer.get(into).filter(|(what, _)| *what != What::Keep)
        {
            (verdict.what, verdict.why) = (what.clone(), why.clone());
        }
        newer.insert(verdict.point.name.clone(), (verdict.what.clone(), verdict.why.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000_000;
    /// 2026-11-02, a Monday, 00:30.
    const MONDAY: u64 = 1_793_579_400_000_000;

    fn auto(epoch: u32, created_us: u64) -> Point {
        Point { name: format!("auto-{epoch}"), epoch, created_us, changed_bytes: 100 }
    }

    fn none() -> Policy {
        Policy { keep_last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, max_count: 0, ..Policy::default() }
    }

    fn kept(plan: &Plan) -> Vec<u32> {
        let kept = plan.verdicts.iter().filter(|verdict| verdict.what == What::Keep);
        kept.map(|verdict| verdict.point.epoch).collect()
    }

    /// One an hour for four weeks.
    fn hourly() -> Vec<Point> {
        (0..28 * 24).map(|hour| auto(hour + 1, MONDAY + u64::from(hour) * HOUR)).collect()
    }

    #[test]
    fn the_newest_of_each_span_is_kept_and_says_so() {
        assert_eq!(Utc::from_us(MONDAY).to_string(), "2026-11-02 00:30:00");
        let plan = plan(hourly(), &[], &Policy { hourly: 3, daily: 4, weekly: 3, ..none() });
        let last = 28 * 24;
        assert_eq!(
            kept(&plan),
            [14 * 24, 21 * 24, last - 72, last - 48, last - 24, last - 2, last - 1, last]
        );
        let why = |epoch: u32| plan.verdicts[epoch as usize - 1].why.as_str();
        assert_eq!(
            why(last),
            "the newest of hour 1 of 3; the newest of day 1 of 4; the newest of week 1 of 3"
        );
        assert_eq!(why(14 * 24), "the newest of week 3 of 3");
        assert_eq!(plan.verdicts[last as usize - 5].what, What::Merge(format!("auto-{last}")));
        assert_eq!(why(last - 4), format!("auto-{last} is the newest of the same day"));
        // In the week of one that is kept, and in none.
        assert_eq!(plan.verdicts[13 * 24].what, What::Merge(format!("auto-{}", 14 * 24)));
        assert_eq!((&plan.verdicts[0].what, why(1)), (&What::Cut, "older than what is kept"));
    }

    #[test]
    fn what_has_a_name_stays_unless_the_policy_says_otherwise() {
        let named = |policy: &Policy| {
            let mut points = hourly();
            points[5].name = "before the update".to_owned();
            kept(&plan(points, &[], policy))
        };
        assert_eq!(named(&Policy { keep_last: 1, ..none() }), [6, 28 * 24]);
        assert_eq!(
            named(&Policy { keep_last: 1, max_count: 1, ..none() }),
            [6, 28 * 24],
            "the newest stays as well"
        );
        assert_eq!(named(&Policy { keep_last: 1, named: true, ..none() }), [28 * 24]);
    }

    #[test]
    fn stable_chains_are_kept_twice_as_long_and_diverging_ones_half_as_long() {
        // Noon and midnight of each day; midnights are one chain, noons another.
        let points: Vec<Point> =
            (0..60).map(|half| auto(half + 1, MONDAY + u64::from(half) * 12 * HOUR)).collect();
        let chain = |id, first: u32, similarity, diverged| Chain {
            id,
            epochs: (0..30).map(|day| first + 2 * day).collect(),
            similarity,
            diverged,
        };
        let policy = Policy { hourly: 10, ..none() };
        let midnight = chain(7, 1, 0.85, 3);
        let noon = chain(8, 2, 0.62, 31);
        assert_eq!((midnight.stability(), noon.stability()), (Stability::Stable, Stability::Diverges));
        let plan_of = |chains: &[Chain], policy| plan(points.clone(), chains, policy);
        let both = plan_of(&[midnight, noon], &policy);
        assert_eq!(kept(&both), [41, 43, 45, 47, 49, 51, 53, 55, 56, 57, 58, 59, 60]);
        let why = |epoch: usize| both.verdicts[epoch - 1].why.as_str();
        assert_eq!(
            why(41),
            "the newest of hour 20 of 10, kept twice as long: chain 7 is stable (30 epochs, 0.85 alike)"
        );
        assert_eq!(
            why(54),
            "older than what is kept, half as long as others: chain 8 diverges (31 of its epochs left it, 30 stayed)"
        );
        let without = Policy { chains: false, ..policy };
        assert_eq!(kept(&plan_of(&[chain(7, 1, 0.85, 3)], &without)), (51..=60).collect::<Vec<_>>());
        let short = Chain { epochs: vec![1, 3], ..chain(7, 1, 0.9, 4) };
        assert_eq!(short.stability(), Stability::Usual, "six epochs tell too little");
    }

    #[test]
    fn limits_cut_the_oldest_and_what_they_stood_for() {
        let policy = Policy { daily: 28, max_count: 3, ..none() };
        let three = plan(hourly(), &[], &policy);
        assert_eq!(kept(&three), [26 * 24, 27 * 24, 28 * 24]);
        assert_eq!(three.verdicts[24 * 24 - 1].why, "more than 3 snapshots (max_count)");
        assert_eq!(
            three.verdicts[24 * 24 - 2].what,
            What::Cut,
            "its day went with the snapshot that stood for it"
        );
        let bytes = plan(hourly(), &[], &Policy { daily: 28, max_bytes: 250, ..none() });
        assert_eq!(kept(&bytes), [27 * 24, 28 * 24]);
        assert!(bytes.verdicts[26 * 24 - 1].why.contains("250 bytes of changes"));
    }

    proptest! {
        #[test]
        fn what_was_pruned_needs_no_pruning(
            gaps in proptest::collection::vec((1u64..400, any::<bool>(), 0u8..4), 0..150),
            rules in proptest::array::uniform6(0u32..6),
            (named, max_count, max_bytes) in (any::<bool>(), 0u32..30, 0u64..4000),
        ) {
            let mut at = MONDAY;
            let mut chains: Vec<Chain> =
                (0..3).map(|id| Chain { id, epochs: Vec::new(), similarity: 0.8, diverged: 20 * id }).collect();
            let points: Vec<Point> = gaps.iter().zip(1..).map(|((hours, is_named, chain), epoch)| {
                at += hours * HOUR / 4;
                if let Some(chain) = chains.get_mut(usize::from(*chain)) {
                    chain.epochs.push(epoch);
                }
                let name = if *is_named { format!("n{epoch}") } else { format!("auto-{epoch}") };
                Point { name, ..auto(epoch, at) }
            }).collect();
            let [keep_last, hourly, daily, weekly, monthly, yearly] = rules;
            let policy = Policy { keep_last, hourly, daily, weekly, monthly, yearly, named, max_count, max_bytes, ..none() };
            let first = plan(points.clone(), &chains, &policy);
            prop_assert_eq!(first.verdicts.len(), points.len());
            let gone: BTreeSet<&str> = first.to_delete().collect();
            for verdict in &first.verdicts {
                let kept = verdict.what == What::Keep;
                prop_assert!(!verdict.why.is_empty());
                prop_assert!(kept || verdict.point.is_automatic() || named, "{:?}", verdict);
                if let What::Merge(into) = &verdict.what {
                    prop_assert!(!gone.contains(into.as_str()), "{:?}", verdict);
                }
            }
            if rules.iter().any(|kept| *kept > 0) && !points.is_empty() && (named || points.iter().any(Point::is_automatic)) {
                prop_assert!(first.verdicts.iter().any(|verdict| verdict.what == What::Keep));
            }
            let left = points.into_iter().filter(|point| !gone.contains(point.name.as_str())).collect();
            let second = plan(left, &chains, &policy);
            prop_assert_eq!(second.to_delete().collect::<Vec<_>>(), Vec::<&str>::new());
        }
    }
}
