//! How good a ranking was, once the epoch it was for is known.

/// Which candidates changed, and how many blocks changed in all, candidates or not.
#[derive(Clone, Debug)]
pub struct Truth {
    /// By candidate.
    pub changed: Vec<bool>,
    /// Changed blocks in the epoch; those that were no candidates lower every score.
    pub total: usize,
}

impl Truth {
    /// Compares candidates with changed blocks, both ascending.
    #[must_use]
    pub fn new(candidates: &[u32], changed: impl ExactSizeIterator<Item = u32>) -> Self {
        let total = changed.len();
        let mut changed = changed.peekable();
        let label = |candidate: &u32| {
            while changed.next_if(|block| block < candidate).is_some() {}
            changed.peek() == Some(candidate)
        };
        Self { changed: candidates.iter().map(label).collect(), total }
    }

    /// The share of changes that were candidates at all.
    #[must_use]
    pub fn reach(&self) -> f64 {
        self.changed.iter().filter(|changed| **changed).count() as f64 / self.total.max(1) as f64
    }
}

/// A ranking's quality.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Average precision, 0 to 1.
    pub average_precision: f64,
    /// The share of the changes among the first `budget` candidates.
    pub coverage: f64,
}

/// The quality of `scores`, with a budget of candidates for the coverage.
///
/// Equal scores are one step: the precision after all of them counts for each, so that the order of ties
/// neither helps nor harms (as scikit-learn's `average_precision_score`). A budget that ends within ties
/// takes its share of them.
#[must_use]
pub fn quality(scores: &[f32], truth: &Truth, budget: usize) -> Quality {
    if truth.total == 0 {
        return Quality::default();
    }
    let mut order: Vec<(f32, bool)> = scores.iter().copied().zip(truth.changed.iter().copied()).collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut taken, mut hits, mut sum, mut covered) = (0usize, 0usize, 0.0, 0.0);
    for ties in order.chunk_by(|a, b| a.0 == b.0) {
        // What was given no score at all is no prediction.
        if ties.first().is_none_or(|first| first.0 <= 0.0) {
            break;
        }
        let new = ties.iter().filter(|(_, changed)| *changed).count();
        let room = budget.saturating_sub(taken).min(ties.len());
        covered += new as f64 * room as f64 / ties.len() as f64;
        taken += ties.len();
        hits += new;
        sum += new as f64 * hits as f64 / taken as f64;
    }
    let total = truth.total as f64;
    Quality { average_precision: sum / total, coverage: covered / total }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(changed: &[bool]) -> Truth {
        Truth { changed: changed.to_vec(), total: changed.iter().filter(|changed| **changed).count() }
    }

    #[test]
    fn average_precision_is_what_the_formula_says() {
        // Ranks of the hits: 1 and 3, so (1/1 + 2/3) / 2.
        let quality_of = |scores: &[f32], truth: &Truth| quality(scores, truth, 2);
        let found = quality_of(&[0.9, 0.8, 0.7, 0.1], &truth(&[true, false, true, false]));
        assert!((found.average_precision - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(found.coverage, 0.5);
        let ties = quality_of(&[0.5; 4], &truth(&[true, false, true, false]));
        assert_eq!((ties.average_precision, ties.coverage), (0.5, 0.5));
        assert_eq!(quality_of(&[0.0; 2], &truth(&[true, true])), Quality::default());
        let missed = Truth { changed: vec![true], total: 4 };
        assert_eq!(quality_of(&[1.0], &missed).average_precision, 0.25);
    }

    #[test]
    fn truth_is_the_intersection() {
        let truth = Truth::new(&[1, 5, 9, 10], [0, 5, 6, 10].into_iter());
        assert_eq!(truth.changed, [false, true, false, true]);
        assert_eq!((truth.total, truth.reach()), (4, 0.5));
    }
}
