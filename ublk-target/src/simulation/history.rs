//! What happens in a run, made from a seed: requests, snapshots, predictions, faults, crashes.

use crate::fast_tier::sim::Random;
use crate::request::Operation;

/// Sectors of 512 bytes in a block.
pub const BLOCK_SECTORS: usize = 128;

/// The volume and the machine of a run.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Blocks at the volume's start that are used.
    pub blocks: usize,
    /// Slots of the fast tier: fewer than there are blocks, or more.
    pub slots: u32,
    /// Bytes of the journal's ring.
    pub journal_bytes: u64,
    /// Sectors of a logical block: 1 or 8.
    pub logical: usize,
    pub sync_interval_seconds: u32,
    /// Whether predictions are acted on.
    pub prediction: bool,
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The process is killed; the machine goes on.
    Kill,
    /// The power goes.
    Cut,
}

/// When it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    Now,
    /// During the so-manieth write or sync of the fast tier from now on.
    DiskStep(u64),
    /// At the so-manieth operation of the capacity tier from now on.
    StoreOperation(u64),
}

/// What a prediction table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prediction {
    Absent,
    /// The blocks that are written next.
    Right,
    Random(u64),
    /// Bytes that were never a table.
    Hostile(u64),
    /// The blocks that change next, before the next table, and how.
    Oracle,
    /// Most blocks are certain to change, in ways that cannot be.
    Certain(u64),
    /// A block that the volume does not have.
    OutOfRange,
}

/// One step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    Request {
        operation: Operation,
        sector: usize,
        sectors: usize,
    },
    Snapshot,
    DeleteSnapshot(usize),
    /// Reads all of a snapshot, while the rest goes on.
    Attach(usize),
    Predict(Prediction),
    Checkpoint,
    /// Lets so many microseconds pass.
    Pause(u64),
    /// Waits for all requests.
    Settle,
    /// The disk fails once in so many operations from now on.
    DiskFaults {
        read: u64,
        write: u64,
        metadata_write: u64,
        sync: u64,
    },
    /// The capacity tier does.
    StoreFaults {
        fail: u64,
        lost_reply: u64,
        corrupt: u64,
    },
    /// The capacity tier is full, from its so-manieth operation from now on.
    StoreFullAt(u64),
    Heal,
    Crash {
        end: End,
        when: When,
    },
    /// The next openings are cut off as well, each so many steps in.
    CrashWhileOpening(u64),
    /// A clean stop, and perhaps a power cut while nothing runs.
    Restart {
        cut: bool,
    },
}

/// A run.
#[derive(Clone, Debug)]
pub struct History {
    pub seed: u64,
    pub shape: Shape,
    pub steps: Vec<Step>,
}

impl History {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let blocks = 4 + random.below(12) as usize;
        let slots = if random.one_in(2) { blocks as u64 / 2 + 5 } else { 2 * blocks as u64 };
        let slots = (slots + random.below(blocks as u64)) as u32;
        let logical = if random.one_in(2) { 1 } else { 8 };
        let shape = Shape {
            blocks,
            slots,
            // From the smallest that is sound: it goes round often, and is full now and then.
            journal_bytes: 4096 * (16 << random.below(4)),
            logical,
            sync_interval_seconds: 1 + random.below(4) as u32,
            prediction: true,
        };
        let count = 10 + random.below(160);
        // Each run has a mood: some are calm, some are all faults or all crashes.
        let mood = Mood {
            crashes: [0, 4, 12][random.below(3) as usize],
            disk: random.one_in(3),
            store: random.one_in(3),
            sync: random.one_in(12),
            pauses: [1, 10, 30][random.below(3) as usize],
        };
        let steps = (0..count).map(|_| step(&mut random, &shape, &mood)).collect();
        Self { seed, shape, steps }
    }
}

struct Mood {
    /// Of a hundred steps.
    crashes: u64,
    disk: bool,
    store: bool,
    sync: bool,
    pauses: u64,
}

fn step(random: &mut Random, shape: &Shape, mood: &Mood) -> Step {
    let dice = random.below(100);
    if dice < mood.crashes {
        return crash(random);
    }
    if dice < mood.crashes + mood.pauses {
        let micros = [200, 20_000, 3_000_000][random.below(3) as usize];
        return Step::Pause(random.below(micros));
    }
    match random.below(40) {
        0..=1 => Step::Snapshot,
        2 => Step::DeleteSnapshot(random.below(6) as usize),
        3 => Step::Attach(random.below(6) as usize),
        4 => Step::Predict(match random.below(4) {
            0 => Prediction::Absent,
            1 => Prediction::Right,
            2 => Prediction::Random(random.next()),
            _ => Prediction::Hostile(random.next()),
        }),
        5 => Step::Checkpoint,
        6 => Step::Settle,
        7 if mood.disk => {
            let mut rate = |often: u64| if random.one_in(2) { 0 } else { often + random.below(4 * often) };
            let (read, write, metadata_write) = (rate(20), rate(20), rate(10));
            Step::DiskFaults { read, write, metadata_write, sync: if mood.sync { rate(10) } else { 0 } }
        }
        8 if mood.store => {
            let mut rate = || if random.one_in(2) { 0 } else { 5 + random.below(30) };
            Step::StoreFaults { fail: rate(), lost_reply: rate(), corrupt: rate() }
        }
        9 if mood.store => Step::StoreFullAt(random.below(8)),
        10 => Step::Heal,
        _ => request(random, shape),
    }
}

fn crash(random: &mut Random) -> Step {
    if random.one_in(8) {
        return Step::CrashWhileOpening(1 + random.below(20));
    }
    if random.one_in(6) {
        return Step::Restart { cut: random.one_in(2) };
    }
    let end = if random.one_in(3) { End::Kill } else { End::Cut };
    let when = match random.below(5) {
        0 => When::Now,
        1..=3 => When::DiskStep(1 + random.below(60)),
        _ => When::StoreOperation(random.below(20)),
    };
    Step::Crash { end, when }
}

fn request(random: &mut Random, shape: &Shape) -> Step {
    let all = shape.blocks * BLOCK_SECTORS;
    let any = |random: &mut Random| {
        let sectors = match random.below(8) {
            0..=2 => 1 + random.below(9) as usize,
            3..=4 => 8,
            5 => BLOCK_SECTORS,
            6 => 2 * BLOCK_SECTORS,
            _ => 1 + random.below(400) as usize,
        };
        // Some parts are hotter than others.
        let within = if random.one_in(2) { all / 4 } else { all };
        aligned(shape, random.below(within as u64) as usize, sectors, all)
    };
    let blocks = |random: &mut Random| {
        let block = random.below(shape.blocks as u64) as usize;
        let ragged = if random.one_in(2) { 0 } else { random.below(130) as usize };
        aligned(shape, block * BLOCK_SECTORS + ragged, (1 + random.below(3) as usize) * BLOCK_SECTORS, all)
    };
    let (operation, (sector, sectors)) = match random.below(40) {
        0..=9 => (Operation::Read, any(random)),
        10..=29 => (Operation::Write { fua: random.one_in(12) }, any(random)),
        30..=33 => (Operation::Flush, (0, 0)),
        34..=36 => (Operation::Discard, blocks(random)),
        37 => {
            let at = any(random);
            (Operation::WriteZeroes { no_unmap: random.one_in(2), fua: random.one_in(4) }, at)
        }
        _ => {
            let at = blocks(random);
            (Operation::WriteZeroes { no_unmap: random.one_in(2), fua: random.one_in(4) }, at)
        }
    };
    Step::Request { operation, sector, sectors }
}

fn aligned(shape: &Shape, sector: usize, sectors: usize, all: usize) -> (usize, usize) {
    let from = sector.min(all - 1) / shape.logical * shape.logical;
    let sectors = sectors.div_ceil(shape.logical) * shape.logical;
    (from, sectors.min(all - from))
}
