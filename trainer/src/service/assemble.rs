//! Puts change vectors together from the target's messages, and refuses what cannot be one.

use forerun::api::v1::WatchChangeVectorsResponse;
use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::Horizon;
use thiserror::Error;

/// A message that no target in its right mind sends.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the target sent a change vector that makes no sense: {0}")]
pub struct Refused(pub String);

/// What a message brought.
#[derive(Debug, PartialEq)]
pub struct Received {
    /// The horizon that predictions are wanted for.
    pub horizon: Horizon,
    /// The vector that the message completed.
    pub vector: Option<ChangeVector>,
    /// The blocks that were read in that vector's epoch and not changed, ascending; `None` where nobody knows.
    pub reads: Option<Vec<BlockIndex>>,
}

/// The vector that is on its way.
#[derive(Debug)]
pub struct Assembly {
    volume: [u8; 16],
    volume_blocks: u32,
    /// The last epoch that was completed.
    last: Epoch,
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    epoch: Epoch,
    changes: Vec<Change>,
    reads: Vec<BlockIndex>,
}

impl Assembly {
    /// Waits for the vectors of a volume after `last`.
    #[must_use]
    pub const fn new(volume: [u8; 16], volume_blocks: u32, last: Epoch) -> Self {
        Self { volume, volume_blocks, last, under_way: None }
    }

    /// Takes a message. Epoch 0 without changes only tells the horizon.
    ///
    /// # Errors
    /// Another volume, an epoch that is not after the last, pieces of different epochs mixed, blocks
    /// out of order or outside of the volume, an unknown kind, a number of sub-blocks or a horizon out of range.
    pub fn take(&mut self, message: WatchChangeVectorsResponse) -> Result<Received, Refused> {
        let refuse = |why: String| Err(Refused(why));
        let horizon = match message.prediction_horizon {
            0 => Horizon::DEFAULT,
            epochs => Horizon::new(epochs).map_err(|error| Refused(error.to_string()))?,
        };
        if !message.volume_uuid.is_empty() && parse_uuid(&message.volume_uuid) != Some(self.volume) {
            return refuse(format!("it is of volume {:?}", message.volume_uuid));
        }
        if message.volume_blocks != 0 && message.volume_blocks != self.volume_blocks {
            return refuse(format!("the volume has {} blocks now", message.volume_blocks));
        }
        if message.epoch == 0 && message.changes.is_empty() && !message.complete {
            return Ok(Received { horizon, vector: None, reads: None });
        }
        let epoch = Epoch(message.epoch);
        if epoch <= self.last {
            return refuse(format!("epoch {epoch} after {}", self.last));
        }
        let under_way =
            self.under_way.get_or_insert(UnderWay { epoch, changes: Vec::new(), reads: Vec::new() });
        if under_way.epoch != epoch {
            return refuse(format!("epoch {epoch} begins within {}", under_way.epoch));
        }
        let UnderWay { changes, reads, .. } = under_way;
        for block in message.read_blocks {
            if block >= self.volume_blocks || reads.last().is_some_and(|last| last.0 >= block) {
                return refuse(format!("read block {block} is out of order, or of {}", self.volume_blocks));
            }
            reads.push(BlockIndex(block));
        }
        for change in message.changes {
            let kind = u8::try_from(change.kind).ok().and_then(ChangeKind::from_number);
            let (Some(kind), Ok(sub_blocks)) = (kind, u8::try_from(change.sub_blocks)) else {
                return refuse(format!("kind {}, {} sub-blocks", change.kind, change.sub_blocks));
            };
            if change.block >= self.volume_blocks {
                return refuse(format!("block {} of {}", change.block, self.volume_blocks));
            }
            if changes.last().is_some_and(|last| last.block.0 >= change.block) {
                return refuse(format!("block {} is out of order", change.block));
            }
            changes.push(Change { block: BlockIndex(change.block), kind, sub_blocks });
        }
        if !message.complete {
            return Ok(Received { horizon, vector: None, reads: None });
        }
        let (changes, reads) = (std::mem::take(changes), std::mem::take(reads));
        self.under_way = None;
        let vector = ChangeVector::new(epoch, message.opened_us, message.sealed_us, changes)
            .map_err(|error| Refused(error.to_string()))?;
        self.last = epoch;
        Ok(Received { horizon, vector: Some(vector), reads: message.reads_known.then_some(reads) })
    }
}

/// Reads a uuid in any of its written forms.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    uuid::Uuid::parse_str(text).ok().map(uuid::Uuid::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun::api::v1::BlockChange;
    use proptest::prelude::*;

    fn message(epoch: u32, blocks: &[u32], complete: bool) -> WatchChangeVectorsResponse {
        let change = |&block| BlockChange { block, kind: 2, sub_blocks: 1 };
        WatchChangeVectorsResponse {
            epoch,
            changes: blocks.iter().map(change).collect(),
            complete,
            ..Default::default()
        }
    }

    #[test]
    fn pieces_become_a_vector() {
        let mut assembly = Assembly::new([1; 16], 100, Epoch(4));
        let mut take = |message| assembly.take(message).map(|received| received.vector);
        assert_eq!(take(message(0, &[], false)), Ok(None));
        assert_eq!(take(message(5, &[1, 2], false)), Ok(None));
        let vector = take(message(5, &[7], true)).expect("sound").expect("complete");
        assert_eq!(vector.changes().len(), 3);
        assert!(take(message(5, &[], true)).is_err(), "once only");
        assert!(take(message(7, &[100], true)).is_err(), "past the end");
    }

    #[test]
    fn nonsense_is_refused() {
        let fresh = || Assembly::new([1; 16], 100, Epoch(0));
        assert!(fresh().take(message(1, &[5, 5], true)).is_err());
        let mut mixed = fresh();
        assert!(mixed.take(message(1, &[5], false)).is_ok() && mixed.take(message(2, &[6], true)).is_err());
        let horizon = WatchChangeVectorsResponse { prediction_horizon: 65, ..message(1, &[], true) };
        assert!(fresh().take(horizon).expect_err("too far").0.contains("1 to 64"));
        let other = WatchChangeVectorsResponse { volume_uuid: "x".to_owned(), ..message(1, &[], true) };
        assert!(fresh().take(other).is_err());
        let grown = WatchChangeVectorsResponse { volume_blocks: 101, ..message(1, &[], true) };
        assert!(fresh().take(grown).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_there_is_no_panic_and_every_vector_is_sound(
            messages in proptest::collection::vec(
                (0u32..6, proptest::collection::vec((0u32..130, -1i32..6, 0u32..20), 0..5), any::<bool>()), 0..8),
        ) {
            let mut assembly = Assembly::new([1; 16], 100, Epoch(1));
            for (epoch, changes, complete) in messages {
                let change = |(block, kind, sub_blocks)| BlockChange { block, kind, sub_blocks };
                let changes = changes.into_iter().map(change).collect();
                let message = WatchChangeVectorsResponse { epoch, changes, complete, ..Default::default() };
                match assembly.take(message) {
                    Ok(Received { vector: Some(vector), .. }) => {
                        prop_assert!(vector.epoch > Epoch(1));
                        prop_assert!(vector.changes().iter().all(|change| change.block.0 < 100));
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
}
