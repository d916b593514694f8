//! The plain array: what each sector holds, what it may hold while a write is under way, and what a power cut may make of it.
//!
//! A sector is stamped with the number of the write that made it; 0 is zeros.

use std::collections::BTreeMap;

use forerun::geometry::Epoch;

/// What a sealed epoch holds: of each sector what was there, and what was under way.
type Moment = Vec<(u64, Option<u64>)>;

pub struct Truth {
    /// The newest acknowledged write of each sector.
    pub now: Vec<u64>,
    /// The write under way of each sector.
    under_way: Vec<Option<u64>>,
    /// All that each sector may hold after a power cut.
    may: Vec<Vec<u64>>,
    /// Every value put into `may`, in order, so that a flush can tell what came after it began.
    put: Vec<(usize, u64)>,
    last_stamp: u64,
    sealed: BTreeMap<Epoch, Moment>,
    /// The epoch that was open at the last opening.
    opened: Epoch,
    /// All that was read: sectors and their stamps, in order.
    pub read: Vec<(usize, u64)>,
}

/// How all was when something began.
pub struct Begun {
    now: Moment,
    put: usize,
}

impl Truth {
    /// Nothing was written yet to any of so many sectors.
    pub fn new(sectors: usize) -> Self {
        Self {
            now: vec![0; sectors],
            under_way: vec![None; sectors],
            may: vec![vec![0]; sectors],
            put: Vec::new(),
            last_stamp: 0,
            sealed: BTreeMap::new(),
            opened: Epoch::FIRST,
            read: Vec::new(),
        }
    }

    pub fn next_stamp(&mut self) -> u64 {
        self.last_stamp += 1;
        self.last_stamp
    }

    /// A sector is about to get this value.
    pub fn begin(&mut self, sector: usize, value: u64) {
        assert!(self.under_way[sector].replace(value).is_none(), "requests of one batch are disjoint");
        self.may[sector].push(value);
        self.put.push((sector, value));
    }

    /// It has got it; `durable` says that no crash takes it away.
    pub fn end(&mut self, sector: usize, durable: bool) {
        let value = self.under_way[sector].take().expect("a write that ended had begun");
        self.now[sector] = value;
        if durable {
            self.may[sector] = vec![value];
        }
    }

    /// The write failed: what is there now is one of the two, and is found by looking.
    pub fn fail(&mut self, sector: usize, found: u64) {
        let value = self.under_way[sector].take().expect("a write that failed had begun");
        assert!(
            found == value || found == self.now[sector],
            "after a failed write sector {sector} holds {found}, neither {value} nor {}",
            self.now[sector]
        );
        self.now[sector] = found;
    }

    /// Whether a change of any of these sectors is under way.
    pub fn is_busy(&self, sectors: std::ops::Range<usize>) -> bool {
        self.under_way[sectors].iter().any(Option::is_some)
    }

    /// A flush or a read begins.
    pub fn begins(&self) -> Begun {
        Begun { now: self.moment(), put: self.put.len() }
    }

    /// A read that began then has given `read` for this sector: what was there, or what came meanwhile.
    pub fn read_ends(&self, begun: &Begun, sector: usize, read: u64) {
        let (now, under_way) = begun.now[sector];
        let came = || self.put[begun.put..].contains(&(sector, read));
        assert!(
            read == now || Some(read) == under_way || came(),
            "sector {sector} was read as {read}, was {now} or {under_way:?} when the read began, and is {} or {:?}",
            self.now[sector],
            self.under_way[sector]
        );
    }

    pub fn flush_ends(&mut self, begun: &Begun) {
        for (may, (now, under_way)) in self.may.iter_mut().zip(&begun.now) {
            may.clear();
            may.push(*now);
            may.extend(under_way);
        }
        for (sector, value) in &self.put[begun.put..] {
            self.may[*sector].push(*value);
        }
    }

    fn moment(&self) -> Moment {
        self.now.iter().copied().zip(self.under_way.iter().copied()).collect()
    }

    pub fn seal(&mut self, epoch: Epoch) {
        self.sealed.insert(epoch, self.moment());
    }

    /// What a sector of a sealed epoch may be, if the epoch is known.
    pub fn of_epoch(&self, epoch: Epoch) -> Option<&[(u64, Option<u64>)]> {
        self.sealed.get(&epoch).map(Vec::as_slice)
    }

    /// Epochs from `open` on may be sealed again, with another content.
    pub fn open_again(&mut self, open: Epoch) {
        self.sealed.retain(|epoch, _| *epoch < open);
        self.opened = open;
    }

    pub fn check(&self, sector: usize, read: u64) {
        let (now, under_way) = (self.now[sector], self.under_way[sector]);
        assert!(
            read == now || Some(read) == under_way,
            "sector {sector} holds {read}, and should hold {now} or {under_way:?}"
        );
    }

    /// After the process was killed: what was acknowledged, or was under way.
    pub fn survived_kill(&mut self, sector: usize, read: u64) {
        self.check(sector, read);
        self.settle(sector, read);
    }

    /// After a power cut.
    pub fn survived_cut(&mut self, sector: usize, read: u64) {
        let may = &self.may[sector];
        assert!(may.contains(&read), "after a power cut sector {sector} holds {read}; it may hold {may:?}");
        self.settle(sector, read);
    }

    /// A clean stop: no crash takes anything away any more.
    pub fn all_is_durable(&mut self) {
        self.may = self.now.iter().map(|now| vec![*now]).collect();
    }

    fn settle(&mut self, sector: usize, read: u64) {
        self.now[sector] = read;
        self.under_way[sector] = None;
        self.may[sector] = vec![read];
        // The background may have ended epochs before anybody looked at what is there.
        for moment in self.sealed.range_mut(self.opened..).map(|(_, moment)| moment) {
            moment[sector] = (read, None);
        }
    }
}
