//! The past epochs' change vectors, from the volume's API.

use std::time::Duration;

use anyhow::{Context, bail};
use forerun::api::v1::{GetVolumeStatusRequest, WatchChangeVectorsRequest, WatchChangeVectorsResponse};
use forerun::change_vector::{Change, ChangeKind};
use forerun::config::{Paths, VolumeName};
use forerun::geometry::BlockIndex;

use super::super::super::args::PredictOptions;
use super::super::super::client;
use super::super::super::failure::Failure;
use super::cells::Moment;

/// How long the next piece may take. The stream has no end: it waits for epochs to come, and after a restart also for
/// those that are not on the capacity tier yet.
const PIECE_LIMIT: Duration = Duration::from_secs(10);

/// Where the vectors come from.
pub struct Past {
    source: Source,
    blocks: u32,
}

enum Source {
    /// There is none, and why.
    Missing(String),
    /// Epochs from the first to the last, both of them; none where the first is the greater.
    Volume { paths: Paths, volume: VolumeName, first: u32, last: u32 },
    #[cfg(test)]
    Vectors(Vec<forerun::change_vector::ChangeVector>),
}

impl Past {
    /// The last epochs of a volume with so many blocks; asks which those are.
    pub fn new(paths: &Paths, options: &PredictOptions, blocks: u32) -> anyhow::Result<Self> {
        let volume = options.volume.clone();
        let status = client::block_on(async {
            let mut client = client::connect(paths, &volume, client::CALL_LIMIT).await?;
            let request = GetVolumeStatusRequest { volume_id: volume.to_string() };
            client.get_volume_status(request).await.map_err(client::failure)
        });
        let source = match status {
            Ok(status) => {
                let last = status.into_inner().open_epoch.saturating_sub(1);
                let first = last.saturating_sub(options.epochs.saturating_sub(1)).max(1);
                Source::Volume { paths: paths.clone(), volume, first, last }
            }
            Err(error) => match error.downcast_ref::<Failure>() {
                Some(Failure::NotRunning(_)) => Source::Missing("the volume is not running".into()),
                _ => return Err(error),
            },
        };
        Ok(Self { source, blocks })
    }

    /// Vectors that are at hand.
    #[cfg(test)]
    pub const fn of(vectors: Vec<forerun::change_vector::ChangeVector>, blocks: u32) -> Self {
        Self { source: Source::Vectors(vectors), blocks }
    }

    /// No vectors, and why.
    #[cfg(test)]
    pub fn missing(why: &str) -> Self {
        Self { source: Source::Missing(why.into()), blocks: 0 }
    }

    /// Why there are no epochs, if it is not that there are none yet.
    pub fn note(&self) -> Option<String> {
        match &self.source {
            Source::Missing(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Goes through all changes: pieces of epochs, ascending. May be called again, and then ends where it ended before.
    pub fn each(&mut self, take: &mut impl FnMut(Moment, &[Change])) -> anyhow::Result<()> {
        let told = match &self.source {
            Source::Missing(_) => return Ok(()),
            Source::Volume { paths, volume, first, last } if first <= last => {
                client::block_on(self.follow(paths, volume, *first, *last, take))?
            }
            Source::Volume { .. } => return Ok(()),
            #[cfg(test)]
            Source::Vectors(vectors) => {
                for vector in vectors {
                    let (opened_us, sealed_us) = (vector.opened_us, vector.sealed_us);
                    let moment = Moment { epoch: vector.epoch.0, opened_us, sealed_us };
                    // In two pieces, as the API does it with large ones.
                    let (one, two) = vector.changes().split_at(vector.changes().len() / 2);
                    take(moment, one);
                    take(moment, two);
                }
                return Ok(());
            }
        };
        if let Source::Volume { last, .. } = &mut self.source
            && told < *last
        {
            let seconds = PIECE_LIMIT.as_secs();
            eprintln!(
                "epochs {} to {last} are not in the picture: nothing came of them for {seconds} s",
                told + 1
            );
            *last = told;
        }
        Ok(())
    }

    /// Takes what comes; gives the last epoch that did, the one before the first where none did.
    async fn follow(
        &self,
        paths: &Paths,
        volume: &VolumeName,
        first: u32,
        last: u32,
        take: &mut impl FnMut(Moment, &[Change]),
    ) -> anyhow::Result<u32> {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        let request = WatchChangeVectorsRequest { volume_id: volume.to_string(), from_epoch: first };
        let mut stream = client.watch_change_vectors(request).await.map_err(client::failure)?.into_inner();
        let (mut told, mut is_whole) = (first.saturating_sub(1), true);
        loop {
            let piece = match tokio::time::timeout(PIECE_LIMIT, stream.message()).await {
                Ok(piece) => piece.map_err(client::failure)?,
                Err(_) if is_whole => return Ok(told),
                Err(_) => {
                    let seconds = PIECE_LIMIT.as_secs();
                    bail!(
                        "volume {volume} sent a part of an epoch's changes, and then nothing for {seconds} s"
                    );
                }
            };
            let Some(piece) = piece else {
                bail!("volume {volume} ended the stream of its change vectors; it may have been stopped");
            };
            if piece.epoch > last {
                return Ok(last);
            }
            let changes = self.changes(&piece)?;
            let WatchChangeVectorsResponse { epoch, opened_us, sealed_us, complete, .. } = piece;
            take(Moment { epoch, opened_us, sealed_us }, &changes);
            (told, is_whole) = (epoch, complete);
            if complete && epoch == last {
                return Ok(last);
            }
        }
    }

    fn changes(&self, piece: &WatchChangeVectorsResponse) -> anyhow::Result<Vec<Change>> {
        let change = |change: &forerun::api::v1::BlockChange| {
            let kind = u8::try_from(change.kind).ok().and_then(ChangeKind::from_number)?;
            let sub_blocks = u8::try_from(change.sub_blocks).ok()?;
            let block = BlockIndex(change.block);
            (change.block < self.blocks).then_some(Change { block, kind, sub_blocks })
        };
        let changes: Option<Vec<Change>> = piece.changes.iter().map(change).collect();
        changes.with_context(|| {
            format!("the target sent changes of epoch {} that make no sense: another version?", piece.epoch)
        })
    }
}
