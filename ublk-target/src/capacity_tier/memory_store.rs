//! A store in memory that counts its operations, fails or crashes at any of them, and forgets what was not
//! synchronised.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use forerun::geometry::{Epoch, Generation};
use nix::errno::Errno;

use super::{HeadNumber, ObjectKind, ObjectName, ReplaceError, Store, StoreSpace, Upload, VolumeUuid};
use crate::fast_tier::sim::Power;

#[derive(Clone, Default)]
struct Object {
    bytes: Vec<u8>,
    durable: bool,
}

/// What happens at the operation with a given number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It fails, once.
    Fail(Errno),
    /// It and all that write after it fail, until healed.
    Full,
    /// Nothing works any more from there on.
    Crash,
}

/// What may go wrong by itself, and whether time passes: each once in so many operations, 0 for never.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// Operations take time.
    pub latency: bool,
    /// Operations that fail and do nothing.
    pub fail: u64,
    /// Operations that are done and say that they failed.
    pub lost_reply: u64,
    /// Reads that give something else than what is there.
    pub corrupt: u64,
    /// How long each read of a range takes besides.
    pub slow_read: Duration,
    /// How long each deletion takes besides.
    pub slow_delete: Duration,
    /// How long each list takes besides.
    pub slow_list: Duration,
    /// Lists fail.
    pub no_lists: bool,
}

/// A pin that is there, and what a power cut leaves; `None` for nothing.
type PinFile = (Option<Vec<u8>>, Option<Vec<u8>>);

#[derive(Default)]
struct Disk {
    faults: Faults,
    power: Arc<Power>,
    objects: BTreeMap<ObjectName, Object>,
    deleted: BTreeMap<ObjectName, Object>,
    head: Option<Vec<u8>>,
    durable_head: Option<Vec<u8>>,
    pins: BTreeMap<VolumeUuid, PinFile>,
    /// Its address, and the stores at others.
    address: String,
    others: Addresses,
    leases: BTreeMap<Epoch, u32>,
    operations: u64,
    /// Deletions under way.
    deleting: u32,
    /// Whether it says that hardly anything is free.
    short: bool,
    trouble: Option<(u64, Trouble)>,
    full: bool,
    crashed: bool,
    random: u64,
}

impl Disk {
    fn random(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }
}

/// Stores by their addresses.
pub type Addresses = Rc<RefCell<BTreeMap<String, MemoryStore>>>;

/// The store; clones are the same one.
#[derive(Clone, Default)]
pub struct MemoryStore(Rc<RefCell<Disk>>);

impl MemoryStore {
    pub fn new(seed: u64) -> Self {
        let store = Self::default();
        store.0.borrow_mut().random = seed;
        store
    }

    /// A store that others find by its address, in the place of the one that was there.
    pub fn at(self, address: &str, others: &Addresses) -> Self {
        {
            let mut disk = self.0.borrow_mut();
            (disk.address, disk.others) = (address.to_owned(), Rc::clone(others));
        }
        others.borrow_mut().insert(address.to_owned(), self.clone());
        self
    }

    /// The clones that have a pin here.
    pub fn pinned(&self) -> Vec<VolumeUuid> {
        let disk = self.0.borrow();
        disk.pins.iter().filter(|(_, (now, _))| now.is_some()).map(|(clone, _)| *clone).collect()
    }

    /// Lets the operation that comes after `later` others meet `trouble`.
    pub fn trouble(&self, later: u64, trouble: Trouble) {
        let mut disk = self.0.borrow_mut();
        disk.trouble = Some((disk.operations + later, trouble));
    }

    /// Says from here on that hardly anything is free: upkeep presses for space.
    pub fn short_of_space(self) -> Self {
        self.0.borrow_mut().short = true;
        self
    }

    /// Slow deletions that are under way.
    pub fn deleting(&self) -> u32 {
        self.0.borrow().deleting
    }

    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    pub fn crashed(&self) -> bool {
        self.0.borrow().crashed
    }

    pub fn is_full(&self) -> bool {
        let disk = self.0.borrow();
        disk.full || matches!(disk.trouble, Some((_, Trouble::Full)))
    }

    pub fn heal(&self) {
        let mut disk = self.0.borrow_mut();
        (disk.full, disk.trouble) = (false, None);
    }

    /// Whether a power cut may bring an older HEAD back.
    pub fn durable_head_differs(&self) -> bool {
        let disk = self.0.borrow();
        disk.head != disk.durable_head
    }

    /// Power comes back: what was not durable is there, there in part, or gone.
    pub fn after_crash(&self) -> Self {
        let mut disk = self.0.borrow_mut();
        let mut next = Disk { random: disk.random, short: disk.short, ..Disk::default() };
        let deleted = std::mem::take(&mut disk.deleted);
        for (name, object) in std::mem::take(&mut disk.objects) {
            let mut bytes = object.bytes;
            if !object.durable {
                match disk.random(3) {
                    0 => continue,
                    1 => {
                        let len = disk.random(bytes.len() as u64 + 1);
                        bytes.truncate(len as usize);
                    }
                    _ => {}
                }
            }
            next.objects.insert(name, Object { bytes, durable: true });
        }
        for (name, object) in deleted {
            if disk.random(2) == 0 {
                next.objects.insert(name, object);
            }
        }
        let both = [disk.head.clone(), disk.durable_head.clone()];
        next.head = both[disk.random(2) as usize].clone();
        next.durable_head = next.head.clone();
        for (clone, (now, durable)) in std::mem::take(&mut disk.pins) {
            let left = if disk.random(2) == 0 { now } else { durable };
            next.pins.insert(clone, (left.clone(), left));
        }
        next.random = disk.random(u64::MAX);
        let (address, others) = (std::mem::take(&mut disk.address), Rc::clone(&disk.others));
        drop(disk);
        let next = Self(Rc::new(RefCell::new(next)));
        if address.is_empty() { next } else { next.at(&address, &others) }
    }

    /// The process was killed: what it had done is there, what it held is not held any more.
    pub fn after_kill(&self) -> Self {
        let next = Self::default();
        {
            let mut disk = self.0.borrow_mut();
            let mut found = next.0.borrow_mut();
            found.random = disk.random(u64::MAX);
            found.short = disk.short;
            found.objects = std::mem::take(&mut disk.objects);
            found.deleted = std::mem::take(&mut disk.deleted);
            found.head = disk.head.take();
            found.durable_head = disk.durable_head.take();
            found.pins = std::mem::take(&mut disk.pins);
        }
        next
    }

    /// Of the machine with this power.
    pub fn of(self, power: &Arc<Power>) -> Self {
        self.0.borrow_mut().power = Arc::clone(power);
        self
    }

    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    pub fn faults(&self) -> Faults {
        self.0.borrow().faults
    }

    async fn pause(&self) {
        let wait = {
            let mut disk = self.0.borrow_mut();
            disk.faults.latency.then(|| match disk.random(64) {
                0 => Duration::from_millis(disk.random(2000)),
                _ => Duration::from_micros(1 + disk.random(3000)),
            })
        };
        match wait {
            Some(wait) => tokio::time::sleep(wait).await,
            None => tokio::task::yield_now().await,
        }
    }

    /// What has been done is answered, or the answer is lost.
    fn reply(&self) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        let rate = disk.faults.lost_reply;
        if rate > 0 && disk.random(rate) == 0 { Err(Errno::ETIMEDOUT.into()) } else { Ok(()) }
    }

    pub fn names(&self) -> Vec<ObjectName> {
        self.0.borrow().objects.keys().copied().collect()
    }

    /// Changes an object (`None`: HEAD) behind the tier's back.
    pub fn tamper(&self, name: Option<ObjectName>, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.0.borrow_mut();
        match name {
            Some(name) => change(&mut disk.objects.get_mut(&name).unwrap().bytes),
            None => {
                change(disk.head.as_mut().unwrap());
                disk.durable_head = disk.head.clone();
            }
        }
    }

    pub fn remove(&self, name: ObjectName) {
        self.0.borrow_mut().objects.remove(&name);
    }

    pub fn len(&self, name: Option<ObjectName>) -> usize {
        let disk = self.0.borrow();
        name.map_or_else(|| disk.head.as_ref().unwrap().len(), |name| disk.objects[&name].bytes.len())
    }

    async fn operation(&self, writes: bool) -> io::Result<()> {
        // Others get their turn before and in the middle of everything.
        self.pause().await;
        let mut disk = self.0.borrow_mut();
        disk.operations += 1;
        if disk.crashed || disk.power.is_off() {
            return Err(Errno::EIO.into());
        }
        let rate = disk.faults.fail;
        if rate > 0 && disk.random(rate) == 0 {
            return Err(Errno::EIO.into());
        }
        if let Some((at, trouble)) = disk.trouble
            && disk.operations > at
        {
            match trouble {
                Trouble::Fail(errno) => {
                    disk.trouble = None;
                    return Err(errno.into());
                }
                Trouble::Full => disk.full = true,
                Trouble::Crash => {
                    disk.crashed = true;
                    disk.power.cut();
                    return Err(Errno::EIO.into());
                }
            }
        }
        if disk.full && writes { Err(Errno::ENOSPC.into()) } else { Ok(()) }
    }
}

pub struct MemoryUpload {
    store: MemoryStore,
    name: ObjectName,
}

impl Upload for MemoryUpload {
    async fn append(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let done = self.store.operation(true).await;
        if done.is_ok() {
            let mut disk = self.store.0.borrow_mut();
            disk.objects.get_mut(&self.name).unwrap().bytes.extend_from_slice(&bytes);
        }
        (done.and_then(|()| self.store.reply()), bytes)
    }

    async fn finish(self) -> io::Result<()> {
        // The file, then its folder.
        self.store.operation(true).await?;
        self.store.operation(true).await?;
        self.store.0.borrow_mut().objects.get_mut(&self.name).unwrap().durable = true;
        self.store.reply()
    }
}

pub struct MemoryLease(MemoryStore, Epoch);

impl Drop for MemoryLease {
    fn drop(&mut self) {
        let mut disk = self.0.0.borrow_mut();
        let count = disk.leases.get_mut(&self.1).unwrap();
        *count -= 1;
        if *count == 0 {
            disk.leases.remove(&self.1);
        }
    }
}

impl Store for MemoryStore {
    type Upload = MemoryUpload;
    type Lease = MemoryLease;

    fn place(&self) -> String {
        let disk = self.0.borrow();
        if disk.address.is_empty() { "memory".to_owned() } else { disk.address.clone() }
    }

    fn other(&self, address: &str) -> io::Result<Self> {
        let others = Rc::clone(&self.0.borrow().others);
        let found = others.borrow().get(address).cloned();
        found.ok_or_else(|| Errno::ENOENT.into())
    }

    async fn put_pin(&self, clone: VolumeUuid, bytes: Vec<u8>) -> io::Result<()> {
        self.operation(true).await?;
        self.0.borrow_mut().pins.entry(clone).or_default().0 = Some(bytes);
        self.operation(true).await?;
        let mut disk = self.0.borrow_mut();
        let pin = disk.pins.entry(clone).or_default();
        pin.1.clone_from(&pin.0);
        drop(disk);
        self.reply()
    }

    async fn pins(&self) -> io::Result<Vec<(VolumeUuid, Vec<u8>)>> {
        self.operation(false).await?;
        let disk = self.0.borrow();
        let pins = disk.pins.iter().filter_map(|(clone, (now, _))| Some((*clone, now.clone()?)));
        Ok(pins.collect())
    }

    async fn remove_pin(&self, clone: VolumeUuid) -> io::Result<()> {
        self.operation(true).await?;
        self.0.borrow_mut().pins.entry(clone).or_default().0 = None;
        self.operation(true).await?;
        self.0.borrow_mut().pins.remove(&clone);
        self.reply()
    }

    // Several writers can meet here: fencing has to hold without the lock.
    async fn lock_writer(&self) -> io::Result<Result<Generation, String>> {
        Ok(Ok(Generation(0)))
    }

    async fn begin_upload(&self, name: ObjectName) -> io::Result<MemoryUpload> {
        self.operation(true).await?;
        let mut disk = self.0.borrow_mut();
        if disk.objects.contains_key(&name) {
            return Err(Errno::EEXIST.into());
        }
        assert!(!disk.deleted.contains_key(&name), "{name} is used twice");
        disk.objects.insert(name, Object::default());
        Ok(MemoryUpload { store: self.clone(), name })
    }

    async fn read_range(
        &self,
        name: ObjectName,
        offset: u64,
        len: usize,
        mut buffer: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let slow = self.faults().slow_read;
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        self.operation(false).await?;
        let mut disk = self.0.borrow_mut();
        let rate = disk.faults.corrupt;
        let corrupt = (rate > 0 && disk.random(rate) == 0).then(|| disk.random(len as u64) as usize);
        let object = disk.objects.get(&name).ok_or(Errno::ENOENT)?;
        let range = object.bytes.get(offset as usize..offset as usize + len);
        buffer.clear();
        buffer.extend_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        if let Some(byte) = corrupt.and_then(|at| buffer.get_mut(at)) {
            *byte ^= 0x10;
        }
        Ok(buffer)
    }

    async fn list(&self, kind: ObjectKind) -> io::Result<Vec<(ObjectName, u64)>> {
        let slow = self.faults().slow_list;
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        self.operation(false).await?;
        if self.faults().no_lists {
            return Err(io::Error::other("no list"));
        }
        let disk = self.0.borrow();
        let objects = disk.objects.iter().filter(|(name, _)| name.kind == kind);
        Ok(objects.map(|(name, object)| (*name, object.bytes.len() as u64)).collect())
    }

    async fn delete(&self, name: ObjectName) -> io::Result<()> {
        let slow = self.faults().slow_delete;
        if !slow.is_zero() {
            self.0.borrow_mut().deleting += 1;
            tokio::time::sleep(slow).await;
            self.0.borrow_mut().deleting -= 1;
        }
        self.operation(false).await?;
        let mut disk = self.0.borrow_mut();
        if let Some(object) = disk.objects.remove(&name) {
            disk.deleted.insert(name, object);
        }
        drop(disk);
        self.reply()
    }

    async fn read_head(&self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        self.operation(false).await?;
        let disk = self.0.borrow();
        assert!(disk.head.as_ref().is_none_or(|head| head.len() <= limit));
        Ok(disk.head.clone())
    }

    async fn replace_head(
        &self,
        expected: &[&[u8]],
        new: Vec<u8>,
        _number: HeadNumber,
    ) -> Result<(), ReplaceError> {
        self.operation(true).await.map_err(ReplaceError::Unchanged)?;
        {
            let mut disk = self.0.borrow_mut();
            let same =
                disk.head.as_ref().map_or(expected.is_empty(), |head| expected.contains(&head.as_slice()));
            if !same {
                return Err(ReplaceError::Conflict);
            }
            disk.head = Some(new.clone());
        }
        self.operation(true).await.map_err(ReplaceError::InDoubt)?;
        self.0.borrow_mut().durable_head = Some(new);
        self.reply().map_err(ReplaceError::InDoubt)
    }

    async fn settle_head(&self) -> io::Result<()> {
        self.operation(true).await?;
        let mut disk = self.0.borrow_mut();
        disk.durable_head = disk.head.clone();
        Ok(())
    }

    async fn space(&self) -> io::Result<StoreSpace> {
        let free_bytes = if self.0.borrow().short { 1 << 20 } else { 1 << 39 };
        Ok(StoreSpace { total_bytes: 1 << 40, free_bytes })
    }

    async fn lease(&self, epoch: Epoch) -> io::Result<MemoryLease> {
        *self.0.borrow_mut().leases.entry(epoch).or_default() += 1;
        Ok(MemoryLease(self.clone(), epoch))
    }

    async fn leased(&self) -> io::Result<Vec<Epoch>> {
        Ok(self.0.borrow().leases.keys().copied().collect())
    }
}
