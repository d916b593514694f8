//! One case: a copy of the volume, damage, check, repair, and the comparison.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forerun::config::{CapacityAddress, FastTierConfig, Paths, VolumeConfig};
use forerun::geometry::BlockIndex;
use ublk_target::capacity_tier::{CapacityTier, Place, SnapshotName, VolumeUuid};
use ublk_target::control::ControlPlane;
use ublk_target::engine::{Open, Opened, VolumeControl};
use ublk_target::offline::check::{Outcome, Places, Quiet, check};
use ublk_target::offline::dump::{DumpOptions, dump};
use ublk_target::offline::repair::{RepairOptions, Report, repair};

use crate::support::*;
use crate::template::*;

/// Blocks that are read with one request.
const BLOCKS_A_READ: u64 = 16;

/// A copy of the volume to be damaged.
pub struct Case {
    _folder: tempfile::TempDir,
    pub root: PathBuf,
    pub config: VolumeConfig,
    pub paths: Paths,
    pub image: Image,
    pub template: &'static Template,
}

impl Case {
    pub fn of(image: &Image) -> Self {
        let template = Template::get();
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        let paths = Paths::new(root.join("state"), root.join("run"));
        let mut config = template.config().clone();
        config.fast = FastTierConfig { path: root.join("fast"), size_bytes: Some(FAST_BYTES) };
        let capacity = root.join("capacity");
        config.capacity.address = capacity.clone().into();
        std::fs::create_dir_all(paths.volume(&config.name).run_dir()).expect("a run folder");
        copy(&image.fast, &config.fast.path);
        copy(&image.capacity, &capacity);
        config.store(&paths.volume(&config.name)).expect("stored");
        Self { _folder: folder, root, config, paths, image: image.clone(), template }
    }

    /// The same, the capacity tier an object store: among files, too.
    pub fn in_objects(image: &Image) -> Self {
        let mut case = Self::of(image);
        let folder = case.folder();
        let (generation, sequence) = tokio_uring::start(async {
            let head = CapacityTier::open_reader(&folder, None).await.expect("a tier").head();
            (head.generation.0, head.sequence)
        });
        std::fs::create_dir(folder.join("heads")).expect("a folder");
        let name = format!("heads/{generation:016x}-{sequence:016x}");
        std::fs::rename(folder.join("HEAD"), folder.join(name)).expect("moved");
        case.config.capacity.address = objects(&folder);
        case.config.store(&case.paths.volume(&case.config.name)).expect("stored");
        case
    }

    /// Where the files of the capacity tier are.
    pub fn folder(&self) -> PathBuf {
        self.config.capacity.address.local_path().expect("files")
    }

    /// The files that are HEAD, or HEADs.
    pub fn heads(&self) -> Vec<PathBuf> {
        match self.config.capacity.address {
            CapacityAddress::Directory(_) => vec![self.folder().join("HEAD")],
            CapacityAddress::Objects(_) => {
                let listed = std::fs::read_dir(self.folder().join("heads")).expect("a folder");
                listed.map(|entry| entry.expect("an entry").path()).collect()
            }
        }
    }

    pub fn check(&self) -> Outcome {
        check(&Places::of(&self.config), &mut Quiet).expect("it can be checked")
    }

    /// Dumps everything. It goes on over any damage; gives how much it could not read.
    pub fn dump(&self, json: bool) -> u64 {
        let all_but_tables = DumpOptions {
            superblocks: true,
            journal: true,
            checkpoint: true,
            map: true,
            segments: Some(None),
            json,
            ..DumpOptions::default()
        };
        let epochs = 1..=self.template.written_back.0;
        let tables =
            epochs.map(|epoch| DumpOptions { layers: Some(Some(epoch)), json, ..DumpOptions::default() });
        std::iter::once(all_but_tables).chain(tables).map(|options| self.dump_of(&options)).sum()
    }

    fn dump_of(&self, options: &DumpOptions) -> u64 {
        let (places, shape) = (Places::of(&self.config), Some((self.config.uuid, self.config.geometry)));
        let mut out = Vec::new();
        let broken = dump(&places, shape, options, &mut out).expect("a dump goes on");
        let text = String::from_utf8(out).expect("text");
        let told = if options.json {
            let lines =
                text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
            lines.filter(|line| line["kind"] == "broken").count()
        } else {
            text.lines().filter(|line| line.starts_with("BROKEN")).count()
        };
        assert_eq!(told as u64, broken);
        broken
    }

    /// Changes the bytes of the fast tier.
    pub fn fast(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(&self.config.fast.path).expect("the fast tier");
        change(&mut bytes);
        std::fs::write(&self.config.fast.path, bytes).expect("damaged");
    }

    pub fn both(&self) -> RepairOptions {
        RepairOptions { to_capacity: Some(self.new_place()), ..self.new_fast() }
    }

    pub fn new_fast(&self) -> RepairOptions {
        let to_fast = Some(self.root.join("new-fast"));
        RepairOptions { to_fast, fast_bytes: Some(FAST_BYTES), ..RepairOptions::default() }
    }

    pub fn new_capacity(&self) -> RepairOptions {
        RepairOptions { to_capacity: Some(self.new_place()), ..RepairOptions::default() }
    }

    /// A new capacity tier of the same kind.
    fn new_place(&self) -> CapacityAddress {
        let path = self.root.join("new-capacity");
        match self.config.capacity.address {
            CapacityAddress::Directory(_) => path.into(),
            CapacityAddress::Objects(_) => objects(&path),
        }
    }

    pub fn try_repair(&mut self, options: &RepairOptions) -> anyhow::Result<Report> {
        let files = self.paths.volume(&self.config.name);
        let report = repair(&self.config, &files, options, &mut Quiet)?;
        self.config = VolumeConfig::load(&self.config.name, &files)?;
        Ok(report)
    }

    /// Repairs, checks, opens, compares everything, and checks again.
    pub fn repaired(&mut self, options: &RepairOptions) -> Report {
        let report = self.try_repair(options).unwrap_or_else(|error| panic!("not repaired: {error:#}"));
        self.compare(&report);
        report
    }

    /// What the volume is to hold after a repair with this report.
    fn expected(&self, report: &Report) -> Truth {
        let Some(writes) = &report.lost.writes else { return self.image.now.clone() };
        let point = self.template.snapshots.iter().find(|(_, epoch, _)| epoch.0 == writes.as_of_epoch);
        point.unwrap_or_else(|| panic!("as of no point that was: {writes:?}")).2.clone()
    }

    pub fn compare(&self, report: &Report) {
        let outcome = self.check();
        assert!(outcome.findings.iter().all(|finding| !finding.is_damage()), "{}", outcome.text());
        let files = self.paths.volume(&self.config.name);
        let opened = Opened::open(&self.config, &files, Open::Fresh).expect("the repaired volume opens");
        let control = VolumeControl::new(self.config.clone(), self.paths.clone(), opened.backend.clone());
        let volume = opened.backend.clone();
        // Many blocks a request: requests are not what is tested here.
        let step = BLOCKS_A_READ as usize * BLOCK;
        let mut data = Vec::with_capacity(VOLUME_BYTES as usize);
        for offset in (0..VOLUME_BYTES).step_by(step) {
            data.extend_from_slice(&read(&*volume, offset, step));
        }
        let block = |number: u64| data[number as usize * BLOCK..(number as usize + 1) * BLOCK].to_vec();
        compare(&block, &self.expected(report), report, None);
        drop(data);
        self.compare_snapshots(&control, report);
        // It works on: what is written is there, and everything reaches the capacity tier.
        write(&*volume, 4096, 0xE5, 4096);
        control.create_snapshot(&name("after"), None).expect("a snapshot");
        written_back(&control, "after");
        assert!(all_are(&read(&*volume, 4096, 4096), 0xE5));
        drop((volume, control));
        opened.close().expect("a clean stop");
        let outcome = self.check();
        assert!(outcome.is_clean(), "{}", outcome.text());
    }

    fn compare_snapshots(&self, control: &VolumeControl, report: &Report) {
        let there: Vec<String> =
            control.snapshots().expect("a list").iter().map(|found| found.name.to_string()).collect();
        for (snapshot, epoch, truth) in &self.template.snapshots {
            let change = report.lost.snapshots.iter().find(|change| {
                change.name.as_ref() == Some(snapshot) || (change.name.is_none() && change.epoch == epoch.0)
            });
            let shown = match change {
                None => snapshot.clone(),
                Some(change) => match &change.kept_as {
                    Some(kept) => kept.clone(),
                    None => {
                        assert!(!there.contains(snapshot), "{snapshot} is told to be lost, and is there");
                        continue;
                    }
                },
            };
            let as_of = report.lost.writes.as_ref().map(|writes| writes.as_of_epoch);
            if !there.contains(&shown) && as_of.is_some_and(|as_of| epoch.0 > as_of) {
                // Told with all that was written after that point.
                continue;
            }
            // The newest point of a tier without HEAD has no name any more: it is the volume itself.
            if !there.contains(&shown)
                && report.capacity.used.contains("without HEAD")
                && *epoch == self.template.written_back
            {
                continue;
            }
            assert!(there.contains(&shown), "{shown} is not among {there:?}: {report:?}");
            written_back(control, &shown);
            let blocks = self.snapshot(&shown);
            compare(
                &|block| blocks.get(&block).cloned().unwrap_or_else(|| vec![0; BLOCK]),
                truth,
                report,
                Some(&shown),
            );
        }
    }

    /// The blocks of a snapshot, read as its device reads them.
    fn snapshot(&self, shown: &str) -> BTreeMap<u64, Vec<u8>> {
        let volume = VolumeUuid(*self.config.uuid.as_bytes());
        let name = SnapshotName::new(shown).expect("a name");
        tokio_uring::start(async {
            let opened =
                CapacityTier::open_snapshot(&self.config.capacity.address, Some(volume), &name).await;
            let (tier, epoch) = opened.expect("the snapshot opens");
            let mut places = BTreeMap::new();
            let mut sink = |block: BlockIndex, _, place: Option<Place>| {
                places.insert(block, place);
            };
            tier.load_places(Some(epoch), &mut sink).await.expect("its layers are sound");
            let mut blocks = BTreeMap::new();
            for (block, place) in places {
                let mut data = vec![0; BLOCK];
                if let Some(place) = place {
                    tier.read_block(place, block, &mut data).await.expect("its records are sound");
                }
                blocks.insert(u64::from(block.0), data);
            }
            blocks
        })
    }
}

/// A folder as an object store.
pub fn objects(folder: &Path) -> CapacityAddress {
    format!("file://{}", folder.display()).parse().expect("an address")
}

/// Compares every sub-block; what differs has to be told: of the volume, or of a snapshot.
fn compare(read: &dyn Fn(u64) -> Vec<u8>, truth: &Truth, report: &Report, snapshot: Option<&str>) {
    let concerns = |in_volume: bool, snapshots: &[String]| match snapshot {
        None => in_volume,
        Some(name) => snapshots.iter().any(|told| told == name),
    };
    let mut lost: BTreeMap<u64, u16> = BTreeMap::new();
    for loss in report.lost.blocks.iter().filter(|loss| concerns(loss.in_volume, &loss.snapshots)) {
        *lost.entry(loss.block.into()).or_default() |= loss.sub_blocks;
    }
    let doubtful = |block: u64| {
        let ranges = report.lost.doubtful.iter().filter(|doubt| concerns(doubt.in_volume, &doubt.snapshots));
        ranges.into_iter().any(|doubt| (u64::from(doubt.first)..=u64::from(doubt.last)).contains(&block))
    };
    for block in 0..BLOCKS {
        let data = read(block);
        for (sub, have) in (0u64..).zip(data.chunks(SUB)) {
            let told = lost.get(&block).is_some_and(|mask| mask >> sub & 1 == 1);
            if truth.is(block * 16 + sub, have) || doubtful(block) {
                continue;
            }
            assert!(
                told,
                "block {block}, sub-block {sub} of {snapshot:?} differs without a word: {report:?}"
            );
            assert!(all_are(have, 0), "what is lost reads as zeros: block {block}, sub-block {sub}");
        }
    }
}
