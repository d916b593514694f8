//! What each cell may hold: every write with when it began and ended, by a clock that counts events.
//!
//! A read may return the value of a write that began before the read ended, unless another write lay wholly
//! between that one's end and the read's beginning. A discard is a write of zeros.

use std::collections::HashMap;

use forerun::geometry::BlockIndex;

/// A cell of a block.
pub type Place = (BlockIndex, usize);

#[derive(Clone, Copy, Debug)]
struct Write {
    value: u64,
    begun: u64,
    ended: Option<u64>,
}

/// Which write this is, of one cell.
#[derive(Clone, Copy)]
pub struct WriteId(usize);

/// All writes so far.
#[derive(Clone, Default)]
pub struct Truth {
    clock: u64,
    writes: HashMap<Place, Vec<Write>>,
}

impl Truth {
    /// The next moment.
    pub fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A write begins.
    pub fn begin(&mut self, place: Place, value: u64) -> WriteId {
        let begun = self.now();
        let writes = self.writes.entry(place).or_default();
        writes.push(Write { value, begun, ended: None });
        WriteId(writes.len() - 1)
    }

    /// A write is acknowledged.
    pub fn end(&mut self, place: Place, write: WriteId) {
        let ended = self.now();
        self.writes.get_mut(&place).expect("it began")[write.0].ended = Some(ended);
    }

    /// Panics if a read from `from` to `to` could not have seen `value`.
    pub fn check(&self, place: Place, value: u64, from: u64, to: u64, what: &str) {
        let zeros = Write { value: 0, begun: 0, ended: Some(0) };
        let writes: Vec<Write> =
            std::iter::once(zeros).chain(self.writes.get(&place).into_iter().flatten().copied()).collect();
        let hidden = |write: &Write| {
            let over = |later: &Write| {
                write.ended.is_some_and(|ended| ended < later.begun)
                    && later.ended.is_some_and(|ended| ended < from)
            };
            writes.iter().any(over)
        };
        let seen = writes.iter().any(|write| write.value == value && write.begun < to && !hidden(write));
        assert!(seen, "{what}: cell {place:?} holds {value} from {from} to {to}; its writes: {writes:?}");
    }

    /// Whether a write of a value other than zeros lay wholly between the two moments.
    pub fn written_between(&self, block: BlockIndex, from: u64, to: u64) -> bool {
        let inside = |write: &Write| {
            write.value != 0 && from < write.begun && write.ended.is_some_and(|ended| ended < to)
        };
        self.writes.iter().any(|((of, _), writes)| *of == block && writes.iter().any(inside))
    }

    /// Whether a write or a discard of the block began before `to` and had not ended before `from`.
    pub fn touched_between(&self, block: BlockIndex, from: u64, to: u64) -> bool {
        let near = |write: &Write| write.begun < to && write.ended.is_none_or(|ended| from < ended);
        self.writes.iter().any(|((of, _), writes)| *of == block && writes.iter().any(near))
    }

    /// Whether a discard of the block began before `to` and had not ended before `from`.
    pub fn discarded_near(&self, block: BlockIndex, from: u64, to: u64) -> bool {
        let near = |write: &Write| {
            write.value == 0 && write.begun < to && write.ended.is_none_or(|ended| from < ended)
        };
        self.writes.iter().any(|((of, _), writes)| *of == block && writes.iter().any(near))
    }
}
