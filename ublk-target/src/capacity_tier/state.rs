//! What an open capacity tier holds in memory, and the one way HEAD is replaced.
//!
//! Always true: `head` is the newest HEAD known to be durable. A replacement whose outcome is not
//! known is noted in `in_doubt`; it counts as not made, the next replacement finds out which one is there and
//! puts itself over either. Until one has succeeded nothing is deleted: what was sent to a server may arrive there
//! long after the answer was given up, and only a newer HEAD keeps it from being the HEAD. So a crash at any point
//! leaves a HEAD whose objects are all there.
//!
//! A replacement runs as a task of its own: dropping the future that waits for it does not stop it
//! half-way. No borrow of the state lives across an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use forerun::geometry::{Generation, Geometry};
use tokio::sync::Mutex;

use super::checksum::{Salt, checksum};
use super::deletions::Deletions;
use super::error::{CapacityError, Result};
use super::fault::Fault;
use super::head::{Head, MAX_HEAD_BYTES, MAX_LAYERS};
use super::names::{ObjectName, VolumeUuid};
use super::options::Options;
use super::origins::{self, OpenOrigin};
use super::pin::Pin;
use super::place::MAX_SEGMENT;
use super::store::{HeadNumber, ReplaceError, Store};
use super::usage::Usage;

/// How many object numbers a writer takes at a time: each opening of a volume uses up so many of 2^40.
pub const NUMBERS_PER_TAKE: u64 = 1 << 16;

/// Enough to know a HEAD again that this writer has made: a dead store must not fill the memory with whole ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fingerprint {
    len: usize,
    checksum: u32,
}

impl Fingerprint {
    fn of(head: &[u8]) -> Self {
        // HEAD's own checksum covers all before it and none of it is the same twice: each has its sequence.
        Self { len: head.len(), checksum: checksum(Salt::Head, head.len() as u64, &[head]) }
    }
}

pub(super) struct State {
    pub head: Rc<Head>,
    bytes: Rc<Vec<u8>>,
    in_doubt: Vec<Fingerprint>,
    next_number: u64,
    sequence: u64,
    fenced: Option<Generation>,
    pub usage: Usage,
    pub deletions: Deletions,
    /// Objects in which damage was met; maintenance leaves them as they are.
    pub damaged: BTreeSet<ObjectName>,
    /// What clones need of this volume, as it was last looked up.
    pub pins: Vec<Pin>,
    /// When the pins in the stores of origins that are left may be removed.
    pub unpin_due: Option<Duration>,
    /// Below which number there may be objects of earlier writers that nothing refers to; `None` once they were looked for.
    pub unsurveyed_below: Option<u64>,
    /// That failed, and was told of.
    pub survey_fails: bool,
    /// From which number on objects are this volume's own, and its to delete.
    pub own_from: u64,
}

pub(super) struct Inner<S: Store> {
    pub store: S,
    pub volume: VolumeUuid,
    /// Of the volume, as each HEAD from now on has it: a writer's may be larger than in the newest HEAD.
    pub geometry: Cell<Geometry>,
    pub options: Options,
    /// The writer's generation; `None` for a reader.
    pub generation: Option<Generation>,
    pub state: RefCell<State>,
    pub maintaining: Cell<bool>,
    /// The origins of a clone, oldest first.
    pub origins: Vec<OpenOrigin<S>>,
    head_turn: Mutex<()>,
}

impl<S: Store> Inner<S> {
    /// Over a verified HEAD; a writer's `generation` is above the one in it.
    pub fn new(
        store: S,
        head: Head,
        bytes: Vec<u8>,
        options: Options,
        generation: Option<Generation>,
    ) -> Self {
        let (volume, geometry) = (head.volume, head.geometry);
        let origins = origins::open(&store, &head);
        let state = State {
            // A writer's first act is to take numbers of its own, in the HEAD that carries its generation.
            next_number: head.numbers_taken_to,
            sequence: head.sequence,
            head: Rc::new(head),
            bytes: Rc::new(bytes),
            in_doubt: Vec::new(),
            fenced: None,
            usage: Usage::default(),
            deletions: Deletions::default(),
            damaged: BTreeSet::new(),
            pins: Vec::new(),
            unpin_due: None,
            unsurveyed_below: None,
            survey_fails: false,
            own_from: origins.last().map_or(0, OpenOrigin::below),
        };
        Self {
            origins,
            store,
            volume,
            geometry: Cell::new(geometry),
            options,
            generation,
            state: RefCell::new(state),
            maintaining: Cell::new(false),
            head_turn: Mutex::new(()),
        }
    }

    /// Over a store in which a tier is made anew, with numbers enough for all of it: HEAD is not written before the end.
    pub fn for_rebuild(store: S, volume: VolumeUuid, geometry: Geometry, generation: Generation) -> Self {
        let head = Head { numbers_taken_to: MAX_SEGMENT, ..Head::new(volume, geometry) };
        let inner = Self::new(store, head, Vec::new(), Options::default(), Some(generation));
        inner.state.borrow_mut().next_number = 1;
        inner
    }

    /// Waits until no replacement of HEAD is under way.
    pub async fn head_settled(&self) {
        drop(self.head_turn.lock().await);
    }

    /// Above every number that was taken here.
    pub fn next_number(&self) -> u64 {
        self.state.borrow().next_number
    }

    pub fn head(&self) -> Rc<Head> {
        Rc::clone(&self.state.borrow().head)
    }

    pub fn io_error(&self, operation: &'static str, what: impl Display, source: io::Error) -> CapacityError {
        CapacityError::Io { operation, place: format!("{}/{what}", self.store.place()), source }
    }

    /// An error about an object, wherever that is.
    pub fn object_error(
        &self,
        operation: &'static str,
        name: ObjectName,
        source: io::Error,
    ) -> CapacityError {
        CapacityError::Io { operation, place: format!("{}/{name}", self.place_of(name.number)), source }
    }

    pub fn corrupt(&self, what: impl Display, fault: Fault) -> CapacityError {
        CapacityError::faulty(format!("{}/{what}", self.store.place()), fault)
    }

    /// Remembers what is damaged, so that maintenance goes on with the rest.
    pub fn note_damage(&self, name: ObjectName, error: CapacityError) -> CapacityError {
        if error.is_corrupt() || error.is_not_found() {
            self.state.borrow_mut().damaged.insert(name);
        }
        error
    }

    /// Reads a range of an object; one that is too short is damaged.
    pub async fn read_range(
        &self,
        name: ObjectName,
        offset: u64,
        len: usize,
        buffer: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let store = self.store_of(name.number).map_err(|error| self.object_error("read", name, error))?;
        store.read_range(name, offset, len, buffer).await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let need = offset + len as u64;
                self.corrupt(name, Fault::Short { what: "the object", have: offset, need })
            }
            _ => self.object_error("read", name, error),
        })
    }

    /// This writer's generation, as long as it may write.
    pub fn writer(&self) -> Result<Generation> {
        let place = || self.store.place();
        let Some(ours) = self.generation else { return Err(CapacityError::ReadOnly { place: place() }) };
        match self.state.borrow().fenced {
            Some(theirs) => Err(CapacityError::Fenced { place: place(), ours, theirs }),
            None => Ok(ours),
        }
    }

    /// A number that no object of this volume has had or will have.
    pub async fn take_number(self: &Rc<Self>) -> Result<u64> {
        self.writer()?;
        loop {
            {
                let mut state = self.state.borrow_mut();
                if state.next_number < state.head.numbers_taken_to {
                    state.next_number += 1;
                    return Ok(state.next_number - 1);
                }
            }
            self.update_head(take_numbers, |_| ()).await?;
        }
    }

    /// Replaces HEAD by a changed one, durably, and then notes what follows from it in the state, in one step.
    ///
    /// # Errors
    /// What `change` refuses, a fenced writer, a failing store. HEAD is then as before for everyone who asks
    /// here.
    pub async fn update_head<C, N>(self: &Rc<Self>, change: C, note: N) -> Result<Rc<Head>>
    where
        C: FnOnce(&mut Head) -> Result<()> + 'static,
        N: FnOnce(&mut State) + 'static,
    {
        let inner = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            let _turn = inner.head_turn.lock().await;
            inner.update_head_in_turn(change, note).await
        });
        task.await.map_err(|error| CapacityError::Misuse(format!("replacing HEAD stopped: {error}")))?
    }

    async fn update_head_in_turn<C, N>(&self, change: C, note: N) -> Result<Rc<Head>>
    where
        C: FnOnce(&mut Head) -> Result<()>,
        N: FnOnce(&mut State),
    {
        let generation = self.writer()?;
        let mut head = (*self.head()).clone();
        change(&mut head)?;
        let expected = self.find_current().await?;
        head.generation = generation;
        head.geometry = self.geometry.get();
        let bytes = {
            let mut state = self.state.borrow_mut();
            state.sequence += 1;
            head.sequence = state.sequence;
            let bytes = Rc::new(head.encode());
            // In doubt from the moment it is tried.
            state.in_doubt.push(Fingerprint::of(&bytes));
            bytes
        };
        let replaced = self.replace(&head, &expected, &bytes).await;
        let mut state = self.state.borrow_mut();
        match replaced {
            Ok(()) => {
                state.head = Rc::new(head);
                state.bytes = bytes;
                state.in_doubt.clear();
                note(&mut state);
                Ok(Rc::clone(&state.head))
            }
            Err((in_doubt, error)) => {
                if !in_doubt {
                    state.in_doubt.pop();
                }
                if let CapacityError::Fenced { theirs, .. } = error {
                    state.fenced = Some(theirs);
                }
                Err(error)
            }
        }
    }

    /// Tries the replacement; the error comes with whether it may have happened all the same.
    async fn replace(
        &self,
        head: &Head,
        expected: &[u8],
        bytes: &Rc<Vec<u8>>,
    ) -> Result<(), (bool, CapacityError)> {
        if head.layers.len() > MAX_LAYERS {
            let advice = "delete snapshots that are no longer needed";
            return Err((false, CapacityError::Limit { what: "layers", limit: MAX_LAYERS as u64, advice }));
        }
        // Nothing is written that could not be read again.
        if let Err(fault) = Head::verify(bytes) {
            return Err((false, CapacityError::Misuse(format!("a HEAD that cannot be: {fault}"))));
        }
        let number = HeadNumber { generation: head.generation, sequence: head.sequence };
        match self.store.replace_head(&[expected], bytes.to_vec(), number).await {
            Ok(()) => Ok(()),
            Err(ReplaceError::Unchanged(error)) => Err((false, self.io_error("replace", "HEAD", error))),
            Err(ReplaceError::InDoubt(error)) => Err((true, self.io_error("replace", "HEAD", error))),
            Err(ReplaceError::Fenced(theirs)) => {
                let (place, ours) = (self.store.place(), head.generation);
                Err((true, CapacityError::Fenced { place, ours, theirs }))
            }
            Err(ReplaceError::Conflict) => Err((false, self.explain_conflict().await)),
        }
    }

    /// The HEAD that is in the store now, which is ours or one of those in doubt.
    async fn find_current(&self) -> Result<Rc<Vec<u8>>> {
        let bytes = Rc::clone(&self.state.borrow().bytes);
        if !self.in_doubt() {
            return Ok(bytes);
        }
        let read = self.store.read_head(MAX_HEAD_BYTES).await;
        let now = read.map_err(|error| self.io_error("read", "HEAD", error))?;
        match now {
            Some(now) if now == *bytes => Ok(bytes),
            Some(now) if self.state.borrow().in_doubt.contains(&Fingerprint::of(&now)) => Ok(Rc::new(now)),
            _ => Err(self.explain_conflict().await),
        }
    }

    async fn explain_conflict(&self) -> CapacityError {
        let read = match self.store.read_head(MAX_HEAD_BYTES).await {
            Ok(read) => read,
            Err(error) => return self.io_error("read", "HEAD", error),
        };
        let place = self.store.place();
        let Some(bytes) = read else { return CapacityError::NoVolume { place } };
        let ours = self.generation.unwrap_or_default();
        match Head::verify(&bytes) {
            Ok(head) if head.generation > ours => {
                CapacityError::Fenced { place, ours, theirs: head.generation }
            }
            Ok(head) => {
                let (found, expected) = (head.sequence, self.state.borrow().sequence);
                self.corrupt("HEAD", Fault::Field { what: "HEAD", field: "sequence", found, expected })
            }
            Err(fault) => self.corrupt("HEAD", fault),
        }
    }

    /// Whether a replacement of HEAD ended without telling whether it happened.
    pub fn in_doubt(&self) -> bool {
        !self.state.borrow().in_doubt.is_empty()
    }

    /// Whether HEAD in the store is still the one known here, so that deleting by it is right.
    pub async fn head_is_ours(&self) -> Result<bool> {
        self.writer()?;
        if self.in_doubt() {
            return Ok(false);
        }
        let read = self.store.read_head(MAX_HEAD_BYTES).await;
        let now = read.map_err(|error| self.io_error("read", "HEAD", error))?;
        // Between the two a replacement of our own may have come; the caller tries again later.
        let state = self.state.borrow();
        Ok(now.as_ref() == Some(&*state.bytes) && state.in_doubt.is_empty())
    }
}

/// Takes more object numbers for this writer.
pub(super) fn take_numbers(head: &mut Head) -> Result<()> {
    let limit = MAX_SEGMENT + 1;
    if head.numbers_taken_to >= limit {
        let advice = "copy the volume to a new capacity tier";
        return Err(CapacityError::Limit { what: "objects of a volume", limit: MAX_SEGMENT, advice });
    }
    head.numbers_taken_to = limit.min(head.numbers_taken_to + NUMBERS_PER_TAKE);
    Ok(())
}
