//! What chains are made of, and whether they improve what is predicted.

use serde::Serialize;

use super::report::PredictorReport;
use crate::chain::Chain;

const US_PER_HOUR: u64 = 3_600_000_000;
const HOURS: usize = 24;
const DAYS: usize = 7;

/// One chain at the end of a trace.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChainReport {
    /// Its number.
    pub id: u32,
    /// Its epochs.
    pub epochs: usize,
    /// Mean changed blocks of its epochs.
    pub mean_changed_blocks: u64,
    /// Mean likeness of neighbours.
    pub likeness: f64,
    /// Epochs by hour of the day, as the trace counts time.
    pub hours: [u32; HOURS],
    /// Epochs by day, of each seven the first to the last, as the trace counts time.
    pub days: [u32; DAYS],
}

impl ChainReport {
    /// What a chain is made of.
    #[must_use]
    pub fn new(chain: &Chain) -> Self {
        let mut report = Self {
            id: chain.id,
            epochs: chain.epochs().count(),
            mean_changed_blocks: chain.mean_changed_blocks(),
            likeness: chain.likeness().total(),
            ..Self::default()
        };
        for sealed_us in chain.times_us() {
            // An epoch that ends at midnight is of the day before.
            let hour = sealed_us.saturating_sub(1) / US_PER_HOUR;
            let (hour, day) = (hour as usize % HOURS, (hour as usize / HOURS) % DAYS);
            report.hours.iter_mut().skip(hour).take(1).for_each(|count| *count += 1);
            report.days.iter_mut().skip(day).take(1).for_each(|count| *count += 1);
        }
        report
    }

    /// A line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let list = |counts: &[u32]| counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        format!(
            "  chain {:>3}: {:>3} epochs, {:>5} changes each, {:.2} alike; by hour {}; by day {}\n",
            self.id,
            self.epochs,
            self.mean_changed_blocks,
            self.likeness,
            list(&self.hours),
            list(&self.days),
        )
    }
}

/// The same trace in the same run, but nothing predicted from what followed alike epochs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WithoutChains {
    /// What was served.
    pub served: PredictorReport,
    /// Every predictor.
    pub predictors: Vec<PredictorReport>,
}

impl WithoutChains {
    /// Lines for people: those that learn, and what was served, with and without.
    #[must_use]
    pub fn lines(&self, served: &PredictorReport, predictors: &[PredictorReport]) -> String {
        let pairs = predictors.iter().zip(&self.predictors).chain(std::iter::once((served, &self.served)));
        let mut text = String::from(
            "\n  with and without chains and similar epochs, mAP in the last fifth (over all):\n",
        );
        for (with, without) in pairs {
            if with.mean_average_precision_all != without.mean_average_precision_all {
                text += &format!(
                    "  {:<18} {:.3} ({:.3}) with, {:.3} ({:.3}) without\n",
                    with.name,
                    with.mean_average_precision,
                    with.mean_average_precision_all,
                    without.mean_average_precision,
                    without.mean_average_precision_all,
                );
            }
        }
        text
    }
}
