//! A delta: one change of the map or of the layers, as the journal and the checkpoint hold it.
//!
//! Every delta states a whole fact ("slot 7 holds block 9 of epoch 3, these sub-blocks"), so that
//! applying one twice, or one that a checkpoint holds already, changes nothing. On disk a delta is a
//! kind byte and fixed little-endian fields; a snapshot's name is a length and its bytes.
//!
//! | kind | bytes after it |
//! |---|---|
//! | 1 slot holds | slot u32, block u32, epoch u32, valid u16, dirty u16, flags u8 |
//! | 2 slot is free | slot u32 |
//! | 3 block deleted | block u32, epoch u32 |
//! | 4 epoch sealed | epoch u32, opened µs u64, sealed µs u64, mapped blocks u32 |
//! | 5 snapshot named | epoch u32, length u8, name |
//! | 6 snapshot unnamed | epoch u32 |

use forerun::config::SnapshotName;
use forerun::geometry::{BlockIndex, Epoch, SlotId, SubBlockMask};

/// The longest delta, in bytes: a named snapshot.
pub const DELTA_BYTES_MAX: usize = 1 + 4 + 1 + 63;

/// Flag of a slot: its block held nothing when the epoch began.
const FLAG_ADDED: u8 = 1;

/// A change of the map or of the layers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delta {
    /// A slot holds a block's data of an epoch.
    Holds(Holds),
    /// A slot holds nothing.
    Free(SlotId),
    /// A block was deleted as a whole in an epoch.
    Deleted {
        /// Which block.
        block: BlockIndex,
        /// In which epoch.
        epoch: Epoch,
    },
    /// An epoch ended and the next one began.
    Sealed(Sealed),
    /// A sealed epoch is kept as a snapshot.
    Named {
        /// The sealed epoch.
        epoch: Epoch,
        /// The snapshot's name, at most 63 bytes.
        name: String,
    },
    /// A snapshot was deleted before its epoch was written back.
    Unnamed {
        /// The epoch it was.
        epoch: Epoch,
    },
}

/// An epoch that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// The epoch.
    pub epoch: Epoch,
    /// When it began, in microseconds since 1970.
    pub opened_us: u64,
    /// When it ended, in microseconds since 1970.
    pub sealed_us: u64,
    /// Blocks that the volume held when it ended.
    pub mapped_blocks: u32,
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holds {
    /// Which slot.
    pub slot: SlotId,
    /// Whose data.
    pub block: BlockIndex,
    /// Of which epoch; for data that is on the capacity tier, an epoch at whose end it was current.
    pub epoch: Epoch,
    /// The sub-blocks that can be read from the slot.
    pub valid: SubBlockMask,
    /// The sub-blocks written in the epoch.
    pub dirty: SubBlockMask,
    /// The block held nothing when the epoch began.
    pub added: bool,
}

impl Delta {
    /// Appends the delta's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Holds(holds) => {
                out.push(1);
                out.extend_from_slice(&holds.slot.0.to_le_bytes());
                out.extend_from_slice(&holds.block.0.to_le_bytes());
                out.extend_from_slice(&holds.epoch.0.to_le_bytes());
                out.extend_from_slice(&holds.valid.0.to_le_bytes());
                out.extend_from_slice(&holds.dirty.0.to_le_bytes());
                out.push(if holds.added { FLAG_ADDED } else { 0 });
            }
            Self::Free(slot) => {
                out.push(2);
                out.extend_from_slice(&slot.0.to_le_bytes());
            }
            Self::Deleted { block, epoch } => {
                out.push(3);
                out.extend_from_slice(&block.0.to_le_bytes());
                out.extend_from_slice(&epoch.0.to_le_bytes());
            }
            Self::Sealed(sealed) => {
                out.push(4);
                out.extend_from_slice(&sealed.epoch.0.to_le_bytes());
                out.extend_from_slice(&sealed.opened_us.to_le_bytes());
                out.extend_from_slice(&sealed.sealed_us.to_le_bytes());
                out.extend_from_slice(&sealed.mapped_blocks.to_le_bytes());
            }
            Self::Named { epoch, name } => {
                debug_assert!(name.len() <= 63, "snapshot names are checked at the door");
                out.push(5);
                out.extend_from_slice(&epoch.0.to_le_bytes());
                out.push(name.len() as u8);
                out.extend_from_slice(name.as_bytes());
            }
            Self::Unnamed { epoch } => {
                out.push(6);
                out.extend_from_slice(&epoch.0.to_le_bytes());
            }
        }
    }

    /// Reads one delta from the front of `bytes` and moves past it; `None` where there is no sound one.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut rest = *bytes;
        let delta = match take::<1>(&mut rest)? {
            [1] => Self::Holds(Holds {
                slot: SlotId(u32::from_le_bytes(take(&mut rest)?)),
                block: BlockIndex(u32::from_le_bytes(take(&mut rest)?)),
                epoch: Epoch(u32::from_le_bytes(take(&mut rest)?)),
                valid: SubBlockMask(u16::from_le_bytes(take(&mut rest)?)),
                dirty: SubBlockMask(u16::from_le_bytes(take(&mut rest)?)),
                added: match take::<1>(&mut rest)? {
                    [0] => false,
                    [FLAG_ADDED] => true,
                    _ => return None,
                },
            }),
            [2] => Self::Free(SlotId(u32::from_le_bytes(take(&mut rest)?))),
            [3] => Self::Deleted {
                block: BlockIndex(u32::from_le_bytes(take(&mut rest)?)),
                epoch: Epoch(u32::from_le_bytes(take(&mut rest)?)),
            },
            [4] => Self::Sealed(Sealed {
                epoch: Epoch(u32::from_le_bytes(take(&mut rest)?)),
                opened_us: u64::from_le_bytes(take(&mut rest)?),
                sealed_us: u64::from_le_bytes(take(&mut rest)?),
                mapped_blocks: u32::from_le_bytes(take(&mut rest)?),
            }),
            [5] => {
                let epoch = Epoch(u32::from_le_bytes(take(&mut rest)?));
                let [len] = take::<1>(&mut rest)?;
                if len > 63 {
                    return None;
                }
                let (name, after) = rest.split_at_checked(usize::from(len))?;
                rest = after;
                // What would be refused where it is given is refused here too: it becomes part of a file's name.
                let name = SnapshotName::new(std::str::from_utf8(name).ok()?).ok()?;
                Self::Named { epoch, name: name.to_string() }
            }
            [6] => Self::Unnamed { epoch: Epoch(u32::from_le_bytes(take(&mut rest)?)) },
            _ => return None,
        };
        *bytes = rest;
        Some(delta)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_delta() -> impl Strategy<Value = Delta> {
        let holds = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>(), any::<bool>());
        prop_oneof![
            holds.prop_map(|(slot, block, epoch, valid, dirty, added)| Delta::Holds(Holds {
                slot: SlotId(slot),
                block: BlockIndex(block),
                epoch: Epoch(epoch),
                valid: SubBlockMask(valid),
                dirty: SubBlockMask(dirty),
                added,
            })),
            any::<u32>().prop_map(|slot| Delta::Free(SlotId(slot))),
            (any::<u32>(), any::<u32>())
                .prop_map(|(block, epoch)| Delta::Deleted { block: BlockIndex(block), epoch: Epoch(epoch) }),
            (any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
                |(epoch, opened_us, sealed_us, mapped_blocks)| {
                    Delta::Sealed(Sealed { epoch: Epoch(epoch), opened_us, sealed_us, mapped_blocks })
                }
            ),
            (any::<u32>(), "[a-z0-9]{1,63}")
                .prop_map(|(epoch, name)| Delta::Named { epoch: Epoch(epoch), name }),
            any::<u32>().prop_map(|epoch| Delta::Unnamed { epoch: Epoch(epoch) }),
        ]
    }

    #[test]
    fn a_name_that_cannot_be_given_is_no_name() {
        for (name, good) in [("mon", true), ("", false), ("../mon", false), ("Mon", false), (".", false)] {
            let mut bytes = vec![5, 1, 0, 0, 0, name.len() as u8];
            bytes.extend_from_slice(name.as_bytes());
            assert_eq!(Delta::decode(&mut bytes.as_slice()).is_some(), good, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(deltas in proptest::collection::vec(any_delta(), 0..50)) {
            let mut bytes = Vec::new();
            for delta in &deltas {
                let before = bytes.len();
                delta.encode(&mut bytes);
                prop_assert!(bytes.len() - before <= DELTA_BYTES_MAX);
            }
            let mut rest = bytes.as_slice();
            for delta in &deltas {
                let decoded = Delta::decode(&mut rest);
                prop_assert_eq!(decoded.as_ref(), Some(delta));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = bytes.as_slice();
            while Delta::decode(&mut rest).is_some() {}
        }
    }
}
