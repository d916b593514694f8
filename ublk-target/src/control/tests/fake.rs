//! A volume in memory that seals an epoch with every snapshot.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::config::{SnapshotName, VolumeName};
use forerun::geometry::{BlockIndex, Epoch, Geometry, GeometryError};
use forerun::prediction::{Horizon, Threshold};
use tokio::sync::watch;

use crate::background::Collected;
use crate::capacity_tier::Garbage;
use crate::control::status::{OriginStatus, PrefetchStatus, TrainerReport, VolumeStatus};
use crate::control::{
    CloneInfo, ControlError, ControlPlane, CreatedSnapshot, Deletion, ErrorKind, FastGrown, FastGrowth,
    Grown, SealedEpoch, Snapshot, WriteBack,
};

/// The volume's blocks.
pub(super) const BLOCKS: u32 = 100_000;

pub(super) struct FakeVolume {
    name: VolumeName,
    state: Mutex<State>,
    sealed: watch::Sender<Epoch>,
    /// How far write-back has come: as far as sealing, unless a test holds it up.
    pub(super) written_back: watch::Sender<WriteBack>,
    pub(super) held_up: AtomicBool,
    pub(super) reports: Mutex<Vec<Arc<TrainerReport>>>,
    /// How many change vectors were asked for.
    pub(super) vectors_read: AtomicU64,
}

#[derive(Default)]
struct State {
    snapshots: Vec<Snapshot>,
    vectors: Vec<SealedEpoch>,
    threshold: Option<Threshold>,
    horizon: Option<Horizon>,
}

impl FakeVolume {
    pub(super) fn new() -> Self {
        Self {
            name: VolumeName::new("data").expect("a name"),
            state: Mutex::default(),
            sealed: watch::Sender::new(Epoch(0)),
            written_back: watch::Sender::default(),
            held_up: AtomicBool::new(false),
            reports: Mutex::default(),
            vectors_read: AtomicU64::new(0),
        }
    }

    /// Seals an epoch in which the first `changed` blocks changed.
    pub(super) fn seal(&self, changed: u32, snapshot: Option<&SnapshotName>) -> Epoch {
        let mut state = self.state.lock().expect("the state");
        let epoch = Epoch(u32::try_from(state.vectors.len()).expect("few") + 1);
        let changes = (0..changed)
            .map(|block| Change { block: BlockIndex(block), kind: ChangeKind::Modified, sub_blocks: 3 })
            .collect();
        let vector = ChangeVector::new(epoch, 10, 20, changes).expect("ascending");
        state.vectors.push(SealedEpoch {
            vector: Arc::new(vector),
            snapshot: snapshot.cloned(),
            reads: Some((changed..changed * 2).map(BlockIndex).collect()),
        });
        if let Some(name) = snapshot {
            state.snapshots.push(Snapshot {
                name: name.clone(),
                epoch,
                created_us: 20,
                data_bytes: u64::from(changed) << 16,
                added_blocks: 0,
                modified_blocks: changed.into(),
                deleted_blocks: 0,
                change_bytes_per_second: 1.5,
                on_capacity_tier: false,
            });
        }
        drop(state);
        self.sealed.send_replace(epoch);
        if !self.held_up.load(Ordering::SeqCst) {
            self.written_back.send_replace(WriteBack { epoch, error: String::new() });
        }
        epoch
    }

    fn find(&self, name: &SnapshotName) -> Result<Snapshot, ControlError> {
        let state = self.state.lock().expect("the state");
        let found = state.snapshots.iter().find(|snapshot| snapshot.name == *name).cloned();
        found.ok_or_else(|| ControlError::no_snapshot(&self.name, name))
    }
}

impl ControlPlane for FakeVolume {
    fn volume(&self) -> &VolumeName {
        &self.name
    }

    fn uuid(&self) -> String {
        "00000000-0000-0000-0000-000000000007".into()
    }

    fn blocks(&self) -> u32 {
        BLOCKS
    }

    fn create_snapshot(
        &self,
        name: &SnapshotName,
        horizon: Option<Horizon>,
    ) -> Result<CreatedSnapshot, ControlError> {
        if name.as_str() == "full" {
            return Err(ControlError::new(ErrorKind::Exhausted, "the capacity tier is full"));
        }
        let created = self.find(name).is_err();
        if created {
            self.seal(40_000, Some(name));
            if let Some(horizon) = horizon {
                self.state.lock().expect("the state").horizon = Some(horizon);
            }
        }
        Ok(CreatedSnapshot {
            snapshot: self.find(name)?,
            created,
            horizon: self.horizon(),
            predictions_above_threshold: 5,
        })
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, ControlError> {
        let mut snapshots = self.state.lock().expect("the state").snapshots.clone();
        snapshots.reverse();
        let written_back = self.written_back.borrow().epoch;
        snapshots.iter_mut().for_each(|snapshot| snapshot.on_capacity_tier = snapshot.epoch <= written_back);
        Ok(snapshots)
    }

    fn clones(&self) -> Result<Vec<CloneInfo>, ControlError> {
        Ok(vec![CloneInfo {
            uuid: "u".to_owned(),
            name: "copy".to_owned(),
            address: "/srv/copy".to_owned(),
            epoch: Epoch(1),
            created_us: 7,
        }])
    }

    fn promote(&self) -> Result<Vec<OriginStatus>, ControlError> {
        let (uuid, address) = ("o".to_owned(), "/srv/origin".to_owned());
        Ok(vec![OriginStatus { uuid, address, shared_bytes: 1 << 20, promoting: true }])
    }

    fn delete_snapshot(&self, name: &SnapshotName) -> Result<Deletion, ControlError> {
        let epoch = self.find(name)?.epoch;
        if self.written_back.borrow().epoch < epoch {
            return Ok(Deletion::After(epoch));
        }
        self.state.lock().expect("the state").snapshots.retain(|snapshot| snapshot.name != *name);
        Ok(Deletion::Done)
    }

    fn write_back(&self) -> watch::Receiver<WriteBack> {
        self.written_back.subscribe()
    }

    fn diff(
        &self,
        from: Option<Epoch>,
        to: Epoch,
        first_block: BlockIndex,
        limit: usize,
    ) -> Result<Vec<Change>, ControlError> {
        assert!(from < Some(to), "checked by the server");
        assert!((1..=100_000).contains(&limit), "checked by the server");
        let state = self.state.lock().expect("the state");
        let sealed = &state.vectors[usize::try_from(to.0).expect("small") - 1];
        let changes = sealed.vector.changes().iter().filter(|change| change.block >= first_block);
        Ok(changes.take(limit).copied().collect())
    }

    fn sealed(&self) -> watch::Receiver<Epoch> {
        self.sealed.subscribe()
    }

    fn change_vector(&self, from: Epoch) -> Result<Option<SealedEpoch>, ControlError> {
        self.vectors_read.fetch_add(1, Ordering::SeqCst);
        let state = self.state.lock().expect("the state");
        Ok(state.vectors.iter().find(|sealed| sealed.vector.epoch >= from).cloned())
    }

    fn horizon(&self) -> Horizon {
        self.state.lock().expect("the state").horizon.unwrap_or(Horizon::DEFAULT)
    }

    fn volume_status(&self) -> Result<VolumeStatus, ControlError> {
        Ok(VolumeStatus { device: "/dev/ublkb7".into(), health: "healthy".into(), ..VolumeStatus::default() })
    }

    fn prefetch_status(&self) -> Result<PrefetchStatus, ControlError> {
        let threshold = self.state.lock().expect("the state").threshold.unwrap_or(Threshold::DEFAULT);
        Ok(PrefetchStatus { threshold, state: "on".into(), redirects: 9, ..PrefetchStatus::default() })
    }

    fn set_threshold(&self, threshold: Threshold) -> Result<Threshold, ControlError> {
        let mut state = self.state.lock().expect("the state");
        Ok(state.threshold.replace(threshold).unwrap_or(Threshold::DEFAULT))
    }

    fn garbage(&self) -> Result<Garbage, ControlError> {
        Ok(Garbage {
            segment_bytes: 100,
            live_bytes: 60,
            queued_objects: 2,
            queued_bytes: 7,
            ..Garbage::default()
        })
    }

    fn collect_garbage(&self) -> Result<(Garbage, Collected), ControlError> {
        Ok((self.garbage()?, Collected { deleted_objects: 2, deleted_bytes: 7, ..Collected::default() }))
    }

    fn grow(&self, size_bytes: u64) -> Result<Grown, ControlError> {
        let geometry = Geometry::new(64 << 20, 4096).expect("a geometry");
        let refused = |error: GeometryError| ControlError::new(ErrorKind::Invalid, error.to_string());
        geometry.grown_to(size_bytes).map_err(refused)?;
        Ok(Grown { previous_size_bytes: geometry.size_bytes(), size_bytes })
    }

    fn grow_fast(&self, growth: FastGrowth) -> Result<FastGrown, ControlError> {
        let previous_size_bytes = 64 << 20;
        let size_bytes = match growth {
            FastGrowth::To(bytes) => bytes,
            FastGrowth::By(more) => previous_size_bytes + more,
            FastGrowth::All => 1 << 30,
        };
        Ok(FastGrown { previous_size_bytes, size_bytes, block_bytes: size_bytes - (1 << 20) })
    }

    fn report_trainer(&self, report: &Arc<TrainerReport>) {
        self.reports.lock().expect("the reports").push(Arc::clone(report));
    }
}
