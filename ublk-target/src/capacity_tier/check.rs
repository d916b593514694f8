//! The offline check: HEAD, every layer, and every record of every segment that a layer refers to.
//!
//! It only reads, and goes on after damage, so that one run tells all of it. It is meant for a volume
//! nobody writes to; with a writer at work it may report objects that were replaced meanwhile.
//! Memory: 24 bytes for each block of the largest layer, and one segment (32 MiB at most).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use forerun::config::CapacityAddress;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, SegmentId};

use super::any_store::AnyStore;
use super::clone::{CloneState, clone_state};
use super::damage::is_of_the_medium;
use super::error::{CapacityError, Result};
use super::fault::Fault;
use super::head::{Head, LayerInfo};
use super::layer_cursor::{LayerCursor, PAGES_PER_READ};
use super::names::{ObjectKind, ObjectName, VolumeUuid};
use super::options::Options;
use super::pin::Pin;
use super::place::{Place, UNIT_BYTES};
use super::record::read_record;
use super::segment::{MAX_SEGMENT_BYTES, RecordWalk, SegmentHeader};
use super::state::Inner;
use super::store::Store;
use super::tier::{CapacityTier, read_head};

/// The most findings a report lists; the rest is counted.
pub const MAX_FINDINGS: usize = 100_000;

/// How grave a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// Something is not as it was written, or missing.
    Damage,
    /// Nothing to worry about.
    Note,
}

/// Something that the check met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// What it is.
    pub what: String,
    /// Which object, and where in it.
    pub place: String,
    /// What it means and what to do.
    pub advice: String,
}

/// How far a check has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckProgress {
    /// Layers checked, with their segments.
    pub layers: u64,
    /// All layers.
    pub layers_total: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// What a check came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Objects read and verified: HEAD, layers and segments.
    pub objects: u64,
    /// Block records read and verified.
    pub blocks: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What was met, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings of damage, those that are not listed included.
    pub damaged: u64,
    /// The records in use that cannot be read, by block and epoch.
    pub damaged_records: BTreeSet<(BlockIndex, Epoch)>,
    /// HEAD, if it is sound.
    pub head: Option<Head>,
}

impl CheckReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.damaged == 0
    }

    fn add(&mut self, severity: Severity, what: String, place: String, advice: &str) {
        self.damaged += u64::from(severity == Severity::Damage);
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { severity, what, place, advice: advice.to_owned() });
        }
    }
}

impl CapacityTier {
    /// Checks the volume at `address`. With `volume`, it has to be that one.
    ///
    /// # Errors
    /// Only what keeps it from looking at all: no volume there, another one, a store that cannot be read. Damage
    /// is in the report.
    pub async fn check(
        address: impl Into<CapacityAddress>,
        volume: Option<VolumeUuid>,
        progress: &mut dyn FnMut(CheckProgress),
    ) -> Result<CheckReport> {
        check_store(AnyStore::at(&address.into())?, volume, progress).await
    }
}

/// Checks the volume in any store.
///
/// # Errors
/// As [`CapacityTier::check`].
pub async fn check_store<S: Store>(
    store: S,
    volume: Option<VolumeUuid>,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let (head, bytes) = match read_head(&store, volume).await {
        Ok(read) => read,
        Err(error) if is_lost_head(&error, &store).await => {
            let (what, place) = match error {
                CapacityError::Corrupt { place, fault } => (fault.to_string(), place),
                error => (error.to_string(), format!("{}/HEAD", store.place())),
            };
            report.add(Severity::Damage, what, place, HEAD_ADVICE);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    report.objects += 1;
    report.bytes += bytes.len() as u64;
    report.head = Some(head.clone());
    let tier = Rc::new(Inner::new(store, head.clone(), bytes, Options::default(), None));
    let mut check = Check {
        tier,
        report,
        pins: Vec::new(),
        used: BTreeSet::new(),
        sizes: BTreeMap::new(),
        unused: Vec::new(),
    };
    check.list(&head).await?;
    check.clones().await?;
    check.origins(&head).await?;
    let layers_total = head.layers().len() as u64;
    for (layers, layer) in (0..).zip(head.layers()) {
        progress(CheckProgress { layers, layers_total, bytes: check.report.bytes });
        check.layer(layer).await?;
    }
    progress(CheckProgress { layers: layers_total, layers_total, bytes: check.report.bytes });
    check.note_orphans().await?;
    check.warm_list().await?;
    Ok(check.report)
}

/// Whether HEAD is gone, and not the whole tier: folders of objects without a HEAD are what is left of a volume.
async fn is_lost_head<S: Store>(error: &CapacityError, store: &S) -> bool {
    match error {
        CapacityError::NoVolume { .. } => {
            let place = std::path::PathBuf::from(store.place());
            for kind in [ObjectKind::Segment, ObjectKind::Layer] {
                // On an object store a folder is there as long as something is in it.
                let there = place.join(kind.folder()).is_dir();
                if there || store.list(kind).await.is_ok_and(|objects| !objects.is_empty()) {
                    return true;
                }
            }
            false
        }
        CapacityError::Io { source, .. } => is_of_the_medium(source),
        error => error.is_corrupt(),
    }
}

struct Reference {
    place: Place,
    block: BlockIndex,
    epoch: Epoch,
}

struct Check<S: Store> {
    tier: Rc<Inner<S>>,
    report: CheckReport,
    pins: Vec<Pin>,
    used: BTreeSet<SegmentId>,
    sizes: BTreeMap<SegmentId, u64>,
    /// Tables that HEAD does not name.
    unused: Vec<(ObjectName, u64)>,
}

impl<S: Store> Check<S> {
    async fn list(&mut self, head: &Head) -> Result<()> {
        for kind in [ObjectKind::Segment, ObjectKind::Layer] {
            let listed = match self.tier.list_all(kind).await {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let (what, place) = ("the folder is missing".to_owned(), kind.folder().to_owned());
                    self.report.add(Severity::Damage, what, place, SEGMENT_ADVICE);
                    continue;
                }
                listed => listed.map_err(|error| self.tier.io_error("list", kind.folder(), error))?,
            };
            for (name, bytes) in listed {
                match kind {
                    ObjectKind::Segment => {
                        self.sizes.insert(SegmentId(name.number), bytes);
                    }
                    ObjectKind::Layer if head.layers().iter().any(|layer| layer.id.0 == name.number) => {}
                    ObjectKind::Layer => {
                        self.unused.push((name, bytes));
                    }
                    ObjectKind::Warm => {}
                }
            }
        }
        Ok(())
    }

    /// A warm list that cannot be read costs no data.
    async fn warm_list(&mut self) -> Result<()> {
        match super::warm::warm_list(&self.tier).await {
            Ok(_) => Ok(()),
            Err(CapacityError::Corrupt { place, fault }) => {
                let what = format!("the order in which a restored volume warms up is not known: {fault}");
                let advice = "No data is lost; the target writes a new one within some minutes.";
                self.report.add(Severity::Note, what, place, advice);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn note_orphan(&mut self, name: ObjectName, bytes: u64) {
        let what = format!("{bytes} bytes that nothing refers to");
        let advice = "Left by a crash, or not deleted yet; the next target on this volume deletes it.";
        self.report.add(Severity::Note, what, name.to_string(), advice);
    }

    /// Notes what nothing refers to and no clone needs; the origins' objects are theirs to note.
    async fn note_orphans(&mut self) -> Result<()> {
        let own_from = self.tier.own_from();
        let segments = std::mem::take(&mut self.sizes).into_iter();
        let segments = segments.filter(|(segment, _)| !self.used.contains(segment));
        let segments = segments.map(|(segment, bytes)| (ObjectName::segment(segment), bytes));
        let unused: Vec<_> = std::mem::take(&mut self.unused).into_iter().chain(segments).collect();
        for (name, bytes) in unused.into_iter().filter(|(name, _)| name.number >= own_from) {
            if !self.tier.is_needed_by(&self.pins, name).await? {
                self.note_orphan(name, bytes);
            }
        }
        Ok(())
    }

    /// Tells of the clones that this volume keeps something for.
    async fn clones(&mut self) -> Result<()> {
        self.pins = self.tier.read_pins().await?;
        for pin in self.pins.clone() {
            let place = format!("clones/{}", pin.clone);
            let of = format!("clone {} at {}", pin.name, pin.address);
            let epoch = pin.epoch;
            let (severity, what, advice) = match clone_state(&self.tier.store, &pin).await {
                CloneState::Unknown(why) if pin.broken.is_some() => (Severity::Damage, why, PIN_ADVICE),
                CloneState::There => (
                    Severity::Note,
                    format!("{of} shares what this volume held up to epoch {epoch}"),
                    CLONE_ADVICE,
                ),
                CloneState::Missing => {
                    let what = format!("data up to epoch {epoch} is kept for {of}, which is not there");
                    (Severity::Note, what, FORGET_ADVICE)
                }
                CloneState::Released => {
                    let what =
                        format!("data up to epoch {epoch} is kept for {of}, which does not need it any more");
                    (Severity::Note, what, FORGET_ADVICE)
                }
                CloneState::Unknown(why) => {
                    let what = format!(
                        "data up to epoch {epoch} is kept for {of}, which cannot be looked at: {why}"
                    );
                    (Severity::Note, what, FORGET_ADVICE)
                }
            };
            self.report.add(severity, what, place, advice);
        }
        Ok(())
    }

    /// Sees whether the origins of a clone know that it needs them.
    async fn origins(&mut self, head: &Head) -> Result<()> {
        let tier = Rc::clone(&self.tier);
        for (origin, open) in head.origins.iter().zip(&tier.origins).filter(|(origin, _)| !origin.left) {
            let place = format!("{}/clones/{}", origin.address, head.volume);
            let pins = match open.store() {
                Ok(store) => store.pins().await,
                Err(error) => Err(error),
            };
            let there = match pins {
                Ok(pins) => pins.into_iter().find(|(clone, _)| *clone == head.volume),
                Err(error) => {
                    self.report.add(Severity::Damage, error.to_string(), place, ORIGIN_ADVICE);
                    continue;
                }
            };
            let pin = there.map(|(_, bytes)| Pin::read(&bytes, origin.volume, head.volume));
            if !pin.is_some_and(|pin| pin.below >= origin.below && pin.epoch >= origin.epoch) {
                let what = "the origin of this clone does not know that it is needed".to_owned();
                self.report.add(Severity::Damage, what, place, ORIGIN_ADVICE);
            }
        }
        Ok(())
    }

    async fn layer(&mut self, layer: &LayerInfo) -> Result<()> {
        let mut cursor = LayerCursor::new(&self.tier, layer, PAGES_PER_READ);
        let mut references = Vec::new();
        loop {
            match cursor.next().await {
                Ok(Some(entry)) => {
                    let (block, epoch) = (entry.block, entry.epoch);
                    references.extend(entry.place.map(|place| Reference { place, block, epoch }));
                }
                Ok(None) => break,
                Err(error) => {
                    self.damage_of(error, ObjectName::layer(layer.id), LAYER_ADVICE)?;
                    break;
                }
            }
        }
        self.report.objects += 1;
        self.report.bytes += u64::from(layer.pages) * super::layer_page::PAGE_BYTES as u64;
        references.sort_unstable_by_key(|reference| reference.place);
        for run in references.chunk_by(|a, b| a.place.segment() == b.place.segment()) {
            let Some(first) = run.first() else { continue };
            self.used.insert(first.place.segment());
            self.segment(first.place.segment(), run).await?;
        }
        Ok(())
    }

    fn damage_of(&mut self, error: CapacityError, name: ObjectName, advice: &str) -> Result<()> {
        match error {
            CapacityError::Corrupt { place, fault } => {
                self.report.add(Severity::Damage, fault.to_string(), place, advice);
                Ok(())
            }
            error if error.is_not_found() => {
                self.report.add(
                    Severity::Damage,
                    "the object is missing".to_owned(),
                    name.to_string(),
                    advice,
                );
                Ok(())
            }
            // Unreadable sectors are damage like any other, and so is what is no file.
            CapacityError::Io { source, .. } if is_of_the_medium(&source) => {
                self.report.add(Severity::Damage, source.to_string(), name.to_string(), advice);
                Ok(())
            }
            error => Err(error),
        }
    }

    async fn segment(&mut self, segment: SegmentId, references: &[Reference]) -> Result<()> {
        let name = ObjectName::segment(segment);
        let Some(len) = self.sizes.get(&segment).copied() else {
            let what = format!("the segment is missing with {} blocks", references.len());
            self.all_damaged(references);
            self.report.add(Severity::Damage, what, name.to_string(), SEGMENT_ADVICE);
            return Ok(());
        };
        if len > MAX_SEGMENT_BYTES {
            let what = format!("{len} bytes are more than any segment has");
            self.all_damaged(references);
            self.report.add(Severity::Damage, what, name.to_string(), SEGMENT_ADVICE);
            return Ok(());
        }
        let bytes = match self.tier.read_range(name, 0, len as usize, Vec::new()).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.all_damaged(references);
                return self.damage_of(error, name, SEGMENT_ADVICE);
            }
        };
        self.report.objects += 1;
        self.report.bytes += len;
        let mut lost = BTreeSet::new();
        let mut block = vec![0; BLOCK_BYTES as usize];
        for reference in references {
            self.report.blocks += 1;
            if let Err(fault) = self.reference(&bytes, reference, &mut block) {
                lost.insert(reference.place.offset_units());
                self.report.damaged_records.insert((reference.block, reference.epoch));
                let (what, place) = (fault.to_string(), reference.place.to_string());
                let what = format!("block {} of epoch {}: {what}", reference.block, reference.epoch);
                self.report.add(Severity::Damage, what, place, BLOCK_ADVICE);
            }
        }
        // What an origin does not need any more is its own affair.
        if segment.0 >= self.tier.own_from() {
            self.walk(name, segment, &bytes, &lost);
        }
        Ok(())
    }

    fn all_damaged(&mut self, references: &[Reference]) {
        let all = references.iter().map(|reference| (reference.block, reference.epoch));
        self.report.damaged_records.extend(all);
    }

    fn reference(
        &self,
        bytes: &[u8],
        reference: &Reference,
        block: &mut [u8],
    ) -> std::result::Result<(), Fault> {
        let (have, place) = (bytes.len() as u64, reference.place);
        let need = place.offset_bytes() + place.len_bytes() as u64;
        let record = bytes.get(place.offset_bytes() as usize..need as usize);
        let record = record.ok_or(Fault::Short { what: "the segment", have, need })?;
        let header = read_record(record, self.tier.owner(place.segment().0), place, reference.block, block)?;
        if header.epoch == reference.epoch {
            return Ok(());
        }
        let (found, expected) = (header.epoch.0.into(), reference.epoch.0.into());
        Err(Fault::Field { what: "the block's record", field: "epoch", found, expected })
    }

    /// Goes through all records, those that are not referred to any more included.
    fn walk(&mut self, name: ObjectName, segment: SegmentId, bytes: &[u8], lost: &BTreeSet<u32>) {
        let mut damage = |what: String, at: Option<u32>| {
            let place = at.map_or(name.to_string(), |at| format!("{name} at {}", u64::from(at) * UNIT_BYTES));
            self.report.add(Severity::Damage, what, place, UNUSED_ADVICE);
        };
        let header = match SegmentHeader::decode(bytes, self.tier.volume, segment) {
            Ok(header) => header,
            Err(fault) => return damage(fault.to_string(), None),
        };
        let have = bytes.len() as u64;
        if u64::from(header.units) * UNIT_BYTES != have {
            let need = u64::from(header.units) * UNIT_BYTES;
            return damage(Fault::Short { what: "the segment", have, need }.to_string(), None);
        }
        let mut walk = RecordWalk::new(header);
        while let Some(at) = walk.next_at() {
            let rest = bytes.get((u64::from(at) * UNIT_BYTES) as usize..).unwrap_or_default();
            let (record, place) = match walk.step(rest) {
                Ok(met) => met,
                // Where the next record begins is not known; those that matter have been read by their places.
                Err(_) if lost.contains(&at) => return,
                Err(fault) => return damage(fault.to_string(), Some(at)),
            };
            let data = rest.get(..place.len_bytes()).unwrap_or_default();
            if let Err(fault) = record.verify_data(data)
                && !lost.contains(&at)
            {
                damage(format!("block {}, not in use any more: {fault}", record.block), Some(at));
            }
        }
        if let Err(fault) = walk.finish() {
            damage(fault.to_string(), None);
        }
    }
}

const HEAD_ADVICE: &str = "Without HEAD no layer is reachable; layers and segments tell their own volume, number and \
    epoch. `forerun repair --to-fast --to-capacity` makes a new tier of them; or restore HEAD from a copy, if it is the newest.";
const LAYER_ADVICE: &str = "What this layer changed cannot be found, and later states build on it. \
    Restore the object from a copy of the capacity tier, or run `forerun repair --to-capacity`, which pieces it together from \
    segments.";
const SEGMENT_ADVICE: &str = "The blocks in it cannot be read. Restore the object from a copy of the capacity tier, or \
    run `forerun repair --to-capacity`, which takes from the fast tier what that has of them.";
const BLOCK_ADVICE: &str = "Reading this block in the states that include it gives an I/O error. Restore the segment from a \
    copy of the capacity tier, write the block anew, or run `forerun repair --to-capacity`.";
const CLONE_ADVICE: &str =
    "Keep this capacity tier where it is. `forerun promote` makes the clone stand alone.";
const FORGET_ADVICE: &str = "If it was deleted, or its making never came to its end, `forerun forget` lets go of the data; if \
    only its file system is not mounted, mount it.";
const PIN_ADVICE: &str = "Nothing is deleted here until this is resolved. Starting the clone writes it anew; if the clone is \
    gone for good, `forerun forget --force` removes it.";
const ORIGIN_ADVICE: &str = "See that the origin's capacity tier is there, as it was. If it does not know this clone any more it may \
    delete what is shared; `forerun repair --to-capacity` copies what can still be read.";
const UNUSED_ADVICE: &str = "No block in use is affected as far as none is named here. Watch the disk: damage seldom \
    comes alone. `forerun repair --to-capacity` leaves it behind.";
