//! How much of each cell changed, and what is expected there. A cell is a row in an epoch.

use forerun::change_vector::{Change, ChangeKind};
use forerun::prediction::Prediction;

use super::rows::Rows;

/// The kinds, in the order of the counts and of the legend.
pub const KINDS: [ChangeKind; 3] = [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted];

/// When an epoch was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    pub epoch: u32,
    /// In microseconds since 1970 (UTC).
    pub opened_us: u64,
    pub sealed_us: u64,
}

/// An epoch's cells, top to bottom: how many blocks changed, by kind.
pub struct Column {
    pub moment: Moment,
    pub counts: Vec<[u32; 3]>,
}

/// What to paint a cell by: the kind that most of it has, and a value from above 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shade {
    pub kind: ChangeKind,
    pub value: f64,
}

/// The cells of the past, the oldest epoch first.
pub struct Cells {
    pub rows: Rows,
    pub columns: Vec<Column>,
}

impl Cells {
    /// No epochs yet.
    pub const fn new(rows: Rows) -> Self {
        Self { rows, columns: Vec::new() }
    }

    /// Counts changes of an epoch; pieces of one epoch come one after the other.
    pub fn add(&mut self, moment: Moment, changes: &[Change]) {
        if self.columns.last().is_none_or(|column| column.moment.epoch != moment.epoch) {
            self.columns.push(Column { moment, counts: vec![[0; 3]; self.rows.rows.len()] });
        }
        let Some(column) = self.columns.last_mut() else { return };
        for change in changes {
            let counts = self.rows.of(change.block.0).and_then(|row| column.counts.get_mut(row));
            if let Some(count) = counts.and_then(|counts| counts.get_mut(index(change.kind))) {
                *count += 1;
            }
        }
    }

    /// What to paint a column by: the share of each cell's blocks that changed.
    pub fn shades(&self, column: &Column) -> Vec<Option<Shade>> {
        let shade = |(counts, row): (&[u32; 3], &super::rows::Row)| {
            let changed: u32 = counts.iter().sum();
            // Of equally many, the first.
            let (most, kind) =
                counts.iter().zip(KINDS).rev().max_by_key(|(count, _)| **count).filter(|(n, _)| **n > 0)?;
            debug_assert!(*most <= changed);
            Some(Shade { kind, value: f64::from(changed) / f64::from(row.blocks.max(1)) })
        };
        column.counts.iter().zip(&self.rows.rows).map(shade).collect()
    }

    /// What to paint predictions by, of those from a probability on: the highest in each cell.
    pub fn predicted(&self, predictions: &[Prediction], from: f64) -> Vec<Option<Shade>> {
        let mut shades: Vec<Option<Shade>> = vec![None; self.rows.rows.len()];
        for prediction in predictions {
            // As the list does, and the target. Reads are not in the picture: there are no past ones to set them beside.
            let Some(kind) = prediction.kind.change() else { continue };
            if prediction.probability.get() < from as f32 {
                continue;
            }
            let shade = self.rows.of(prediction.block.0).and_then(|row| shades.get_mut(row));
            let value = f64::from(prediction.probability.get());
            if let Some(shade) = shade
                && shade.is_none_or(|highest| highest.value < value)
            {
                *shade = Some(Shade { kind, value });
            }
        }
        shades
    }
}

/// A kind's place among the counts.
pub const fn index(kind: ChangeKind) -> usize {
    match kind {
        ChangeKind::Added => 0,
        ChangeKind::Modified => 1,
        ChangeKind::Deleted => 2,
    }
}
