//! Writers' claims: at most one writer at a time believes that it has replaced HEAD, whatever the server does with
//! conditional writes.
//!
//! Needed of the server are only lists that show what was written and do not show what was deleted before the list
//! was asked for, and an object that is whole once its writing was answered. `ability` looks at the first.
//!
//! # Opening
//! 1. List `writers/` and `heads/`. A claim below the newest HEAD's generation is of somebody who was superseded. The others
//!    are judged: dead (closed, a process of this machine that is gone, or nothing shown for [`Timing::claim_expiry`]),
//!    or alive, which ends it here. Whoever was told to fence ([`Unclosed::Fence`]) counts as dead what it would have to watch.
//!    Meanwhile the server is tried out (`ability`).
//! 2. Write a claim of a generation above all that was seen.
//! 3. List `writers/`. Any claim but ours and those judged dead: take ours back, and begin again. Of two writers with
//!    the same generation whoever lists last sees both, so that at most one goes on.
//! 4. List `heads/`. One of our generation or a higher one: take ours back, and begin again.
//!
//! Only now the newest HEAD is read, by whoever called.
//!
//! # Replacing HEAD
//! Write the new one, list `writers/`, **then** list `heads/`. It counts only if our claim is there, no higher
//! one is, and ours is the greatest HEAD.
//!
//! # Why that is enough
//! Let O be an older writer and N one with a higher generation. O: writes its HEAD, lists claims. N: writes its claim, lists
//! HEADs. Either N's claim came before O's list, and O sees it; or O's HEAD was written before N's list, and N
//! builds on it. If O does not see N's claim because it is gone again, N had either never written a HEAD and never will
//! (it took the claim back), or it left a HEAD of its generation, before its claim went: O lists HEADs
//! after claims and sees that. So a claim whose writer has tried a HEAD is only deleted when a HEAD of that generation
//! or a higher one is known to be there, above everything that was tried: else it stays with `.closed` beside it.
//! And a HEAD of an older writer that arrives late, from a request that was given up, is below N's first one: it never
//! counts.
//!
//! N deletes older claims when its first HEAD is verified. A writer whose own claim is gone was superseded. Claims
//! themselves are never written again, so that a sleeper cannot bring its own back.
//!
//! What clocks tell decides only who is asked to wait: taking over from a writer that was alive after all fences it off,
//! and loses nothing that is on the store.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use forerun::geometry::Generation;
use futures_util::future::{Either, select};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::store::HeadNumber;
use super::bucket::{Bucket, Mark, Write};
use super::heads;
use super::holder::{HeldHere, Holder, Life, MAX_CLAIM_BYTES};
use super::keys::{ClaimName, ClaimPart, WRITERS, parse_claim};

/// So often an opener gives way to others that open at the same time.
const ATTEMPTS: u32 = 8;
/// The first wait before another attempt; each later one may be twice as long.
const BACK_OFF: Duration = Duration::from_millis(200);

/// What lies below `writers/`.
#[derive(Default)]
struct Seen {
    claims: BTreeSet<ClaimName>,
    alive: BTreeMap<ClaimName, Mark>,
    closed: BTreeSet<ClaimName>,
}

async fn look(bucket: &Bucket) -> io::Result<Seen> {
    let mut seen = Seen::default();
    for object in bucket.list(WRITERS).await? {
        match parse_claim(&object.name) {
            Some((name, ClaimPart::Claim)) => drop(seen.claims.insert(name)),
            Some((name, ClaimPart::Alive)) => drop(seen.alive.insert(name, object.mark)),
            Some((name, ClaimPart::Closed)) => drop(seen.closed.insert(name)),
            None => {}
        }
    }
    Ok(seen)
}

/// What becomes of a writer on another machine that did not close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unclosed {
    /// It is watched, and left alone if it shows that it lives.
    Watch,
    /// It counts as dead.
    Fence,
}

/// What came of a replacement of HEAD.
#[derive(Debug)]
pub enum Verdict {
    /// It counts. All HEADs, sorted.
    Ours(Vec<HeadNumber>),
    /// Another writer, of this generation or about it, has taken over.
    Superseded(Generation),
}

/// A writer's claim.
pub struct Claim {
    name: ClaimName,
    renewal: AbortHandle,
    /// A HEAD of this generation was tried and no later one is known to be there.
    unsettled: Cell<bool>,
    /// The older claims have been deleted.
    alone: Cell<bool>,
    _held: HeldHere,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// What somebody who wants to claim has found.
enum Looked {
    /// All others are dead: the next generation, and their claims.
    Free { generation: Generation, dead: BTreeSet<ClaimName> },
    /// Somebody has it.
    Held(String),
    /// Something changed meanwhile.
    Changed,
}

impl Claim {
    /// Claims the next generation, or tells who holds it. `able` says whether the server can be relied on: it is asked while
    /// others are looked for, and nothing is written before it has said so.
    pub async fn establish<T>(
        bucket: &Bucket,
        here: &Holder,
        unclosed: Unclosed,
        able: impl Future<Output = io::Result<T>>,
    ) -> io::Result<(T, Result<Self, String>)> {
        let first = look_around(bucket, here, unclosed);
        let (able, mut looked) = match select(pin!(able), pin!(first)).await {
            Either::Left((able, first)) => (able?, first.await?),
            Either::Right((looked, able)) => (able.await?, looked?),
        };
        let mut wait = BACK_OFF;
        for _ in 0..ATTEMPTS {
            match looked {
                Looked::Held(holder) => return Ok((able, Err(holder))),
                Looked::Free { generation, dead } => {
                    if let Some(claim) = attempt(bucket, here, generation, &dead).await? {
                        return Ok((able, Ok(claim)));
                    }
                }
                Looked::Changed => {}
            }
            // Two that meet must not meet again.
            let part = u32::from(Uuid::new_v4().as_bytes()[0]);
            tokio::time::sleep(wait / 2 + wait * part / 256).await;
            wait *= 2;
            looked = look_around(bucket, here, unclosed).await?;
        }
        Ok((able, Err("somebody who opens it at the same time".to_owned())))
    }

    /// The writer's generation.
    pub const fn generation(&self) -> Generation {
        self.name.generation
    }

    /// A HEAD is about to be written.
    pub fn trying(&self) {
        self.unsettled.set(true);
    }

    /// Whether the HEAD that was just written counts.
    pub async fn verify(&self, bucket: &Bucket, ours: HeadNumber) -> io::Result<Verdict> {
        debug_assert_eq!(self.name.generation, ours.generation, "a HEAD is of its writer's generation");
        let begun = Instant::now();
        loop {
            // Claims first: see above.
            let seen = look(bucket).await?;
            let heads = heads::list(bucket).await?;
            let greatest = heads.last().copied().unwrap_or(ours);
            if greatest > ours || !seen.claims.contains(&self.name) {
                return Ok(Verdict::Superseded(greatest.generation.max(Generation(ours.generation.0 + 1))));
            }
            let higher = seen.claims.iter().map(|claim| claim.generation).max();
            let Some(theirs) = higher.filter(|higher| *higher > ours.generation) else {
                if !heads.contains(&ours) {
                    return Err(io::Error::other(
                        "the server's list does not show what was just written: its lists are not to be relied on",
                    ));
                }
                self.settled(bucket, &seen).await;
                return Ok(Verdict::Ours(heads));
            };
            // It may be of an opener that gives way, and takes it back without having done anything.
            if begun.elapsed() >= bucket.timing.claim_patience {
                return Ok(Verdict::Superseded(theirs));
            }
            tokio::time::sleep(bucket.timing.claim_patience / 10).await;
        }
    }

    /// A HEAD of ours is there, above all others.
    async fn settled(&self, bucket: &Bucket, seen: &Seen) {
        self.unsettled.set(false);
        if self.alone.replace(true) {
            return;
        }
        // Of this generation too: of an opener that gave way and could not delete all, or is about to give way.
        let of_all = seen.claims.iter().chain(seen.alive.keys()).chain(&seen.closed);
        let older: BTreeSet<_> =
            of_all.filter(|claim| claim.generation <= self.name.generation && **claim != self.name).collect();
        for claim in older {
            // The claim last, so that what is left of a crash is still one of its parts.
            for part in [ClaimPart::Alive, ClaimPart::Closed, ClaimPart::Claim] {
                if let Err(error) = bucket.delete(WRITERS, &part.of(*claim)).await {
                    tracing::debug!(%error, "an older writer's claim is deleted later");
                    self.alone.set(false);
                }
            }
        }
    }

    /// Ends the claim, so that the next writer need not wait.
    pub async fn release(self, bucket: &Bucket) -> io::Result<()> {
        self.renewal.abort();
        if self.unsettled.get() {
            let name = ClaimPart::Closed.of(self.name);
            return bucket.put(WRITERS, &name, Bytes::from_static(b"closed\n"), Write::Replace).await;
        }
        // In this order: a claim whose `.alive` changes lives.
        bucket.delete(WRITERS, &ClaimPart::Claim.of(self.name)).await?;
        bucket.delete(WRITERS, &ClaimPart::Alive.of(self.name)).await
    }
}

/// Looks who else is there. Writes nothing.
async fn look_around(bucket: &Bucket, here: &Holder, unclosed: Unclosed) -> io::Result<Looked> {
    let seen = look(bucket).await?;
    let superseded_below = heads::list(bucket).await?.last().map(|head| head.generation);
    let counts = |claim: &ClaimName| superseded_below.is_none_or(|newest| claim.generation >= newest);
    let dead: BTreeSet<_> = seen.claims.iter().copied().filter(counts).collect();
    match judge(bucket, here, unclosed, &seen, &dead).await? {
        Judged::Dead => {}
        Judged::Lives(holder) => return Ok(Looked::Held(holder)),
        Judged::Changed => return Ok(Looked::Changed),
    }
    let highest = seen.claims.iter().map(|claim| claim.generation).chain(superseded_below).max();
    let generation = Generation(highest.map_or(0, |highest| highest.0 + 1));
    debug_assert!(superseded_below.is_none_or(|newest| newest < generation), "above all that was seen");
    Ok(Looked::Free { generation, dead })
}

/// Claims this generation; `None` where somebody else is at it.
async fn attempt(
    bucket: &Bucket,
    here: &Holder,
    generation: Generation,
    dead: &BTreeSet<ClaimName>,
) -> io::Result<Option<Claim>> {
    let name = ClaimName { generation, uuid: Uuid::new_v4() };
    let held = HeldHere::new(name.uuid);
    let written = bucket.put(WRITERS, &ClaimPart::Claim.of(name), here.encode().into(), Write::Create).await;
    let stands = match written {
        Ok(()) => stands(bucket, name, dead).await,
        // An attempt whose answer was lost: nobody else has this name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => stands(bucket, name, dead).await,
        // It may be there all the same, or get there later: nobody uses it, and the next opener finds nobody behind it.
        Err(error) => Err(error),
    };
    if !matches!(stands, Ok(true)) {
        // No HEAD was tried under it.
        let taken_back = bucket.delete(WRITERS, &ClaimPart::Claim.of(name)).await;
        return stands.and(taken_back).map(|()| None);
    }
    let renewal = tokio::spawn(keep_renewing(bucket.clone(), name)).abort_handle();
    let (unsettled, alone) = (Cell::new(false), Cell::new(false));
    Ok(Some(Claim { name, renewal, unsettled, alone, _held: held }))
}

/// Whether the claim that was just written is the only one that counts.
async fn stands(bucket: &Bucket, name: ClaimName, dead: &BTreeSet<ClaimName>) -> io::Result<bool> {
    let seen = look(bucket).await?;
    let newest = heads::list(bucket).await?.last().map(|head| head.generation);
    if !seen.claims.contains(&name) {
        // A higher writer deletes lower claims; it or its HEAD is to be seen then.
        let highest = seen.claims.iter().map(|claim| claim.generation).chain(newest).max();
        return if highest.is_some_and(|highest| highest >= name.generation) {
            Ok(false)
        } else {
            Err(io::Error::other(
                "the server's list does not show what was just written; a volume cannot be kept safe on it",
            ))
        };
    }
    let others = seen.claims.iter().filter(|claim| **claim != name && !dead.contains(claim));
    // Claims that a HEAD has superseded count no more, and that was so before ours.
    let mut rivals = others.filter(|claim| newest.is_none_or(|newest| claim.generation >= newest));
    Ok(rivals.next().is_none() && newest.is_none_or(|newest| newest < name.generation))
}

enum Judged {
    /// All of them.
    Dead,
    /// One of them lives.
    Lives(String),
    /// Something changed while they were watched.
    Changed,
}

/// Finds out whether anybody of `rivals` lives; waits for a sign where there is no other way.
async fn judge(
    bucket: &Bucket,
    here: &Holder,
    unclosed: Unclosed,
    seen: &Seen,
    rivals: &BTreeSet<ClaimName>,
) -> io::Result<Judged> {
    let mut watched = BTreeMap::new();
    for rival in rivals.iter().filter(|rival| !seen.closed.contains(rival)) {
        let content = match bucket.get(WRITERS, &ClaimPart::Claim.of(*rival), MAX_CLAIM_BYTES).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Judged::Changed),
            content => content?,
        };
        let holder = Holder::decode(&content);
        let name = holder
            .as_ref()
            .map_or_else(|| "a process that did not leave its name".to_owned(), Holder::to_string);
        match holder.map_or(Life::Unknown, |holder| holder.life(here, rival.uuid)) {
            Life::Dead => {}
            Life::Alive => return Ok(Judged::Lives(name)),
            Life::Unknown if unclosed == Unclosed::Fence => {
                tracing::info!(
                    holder = name,
                    "the volume was not closed; its writer is fenced off, as asked"
                );
            }
            Life::Unknown => drop(watched.insert(*rival, name)),
        }
    }
    if watched.is_empty() {
        return Ok(Judged::Dead);
    }
    let seconds = bucket.timing.claim_expiry.as_secs();
    tracing::info!(holders = ?watched.values(), seconds, "the volume was not closed; waiting whether its writer shows that it lives");
    let begun = Instant::now();
    loop {
        tokio::time::sleep(bucket.timing.claim_renewal / 4).await;
        let now = look(bucket).await?;
        for (rival, name) in &watched {
            if !now.claims.contains(rival) {
                return Ok(Judged::Changed);
            }
            if now.alive.get(rival) != seen.alive.get(rival) {
                return Ok(Judged::Lives(name.clone()));
            }
        }
        if begun.elapsed() >= bucket.timing.claim_expiry {
            return Ok(Judged::Dead);
        }
    }
}

/// Shows that the writer lives.
async fn keep_renewing(bucket: Bucket, name: ClaimName) {
    let key = ClaimPart::Alive.of(name);
    for count in 1u64.. {
        let bytes = Bytes::from(format!("{count}\n"));
        if let Err(error) = bucket.put(WRITERS, &key, bytes, Write::Replace).await {
            tracing::debug!(%error, "the claim was not renewed; tried again");
        }
        tokio::time::sleep(bucket.timing.claim_renewal).await;
    }
}
