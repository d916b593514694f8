//! From asked ranges to names: structures first, then free space, then every inode's blocks, then the names of those that
//! have some of what was asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{ControlFlow, Range};

use super::claims::{Claims, Holder};
use super::error::{FilesError, Result};
use super::file_system::{Budget, FileSystem, Free, GROWTH_BYTES, Inode, Mapped, Which};
use super::ranges::Ranges;
use super::source::{ReadAt, Source};
use super::{ByteRange, Kind, Named, Owner, Part, Piece, What, ext4, names, xfs};

/// The most pieces that are told apart in one call; what lies beyond is unnamed. It bounds memory where millions of small
/// files are asked for at once.
pub const PIECES_MAX: usize = 1 << 20;

/// How long all paths together may be, in bytes; inodes beyond that have none.
const PATHS_BYTES_MAX: usize = 256 << 20;

/// Names what lies in `asked`, ranges of a device of `size_bytes` bytes that holds a file system from its first byte on.
///
/// Ranges may be in any order and overlap; the answer has their union.
///
/// # Errors
/// No file system that is known, one with a feature that is not supported, one whose superblock cannot be or whose maps lead
/// in circles; the device cannot be read. Damage elsewhere is no error: it is counted in [`Named::damaged`].
pub fn name_ranges(device: &dyn ReadAt, size_bytes: u64, asked: &[ByteRange]) -> Result<Named> {
    let source = Source::new(device, size_bytes);
    if let Some(file_system) = ext4::open(source)? {
        return Finder::new(&file_system, asked, size_bytes).run();
    }
    match xfs::open(source)? {
        Some(file_system) => Finder::new(&file_system, asked, size_bytes).run(),
        None => Err(FilesError::Unrecognised),
    }
}

struct Finder<'a> {
    file_system: &'a dyn FileSystem,
    /// In bytes.
    asked: Ranges,
    damaged: u64,
}

/// Where a file ends that free space lies behind.
struct End {
    inode: u64,
    /// The file's first block that is not there.
    at: u64,
}

impl<'a> Finder<'a> {
    fn new(file_system: &'a dyn FileSystem, asked: &[ByteRange], size_bytes: u64) -> Self {
        let run = |range: &ByteRange| {
            let end = range.offset_bytes.saturating_add(range.length_bytes).min(size_bytes);
            range.offset_bytes..end
        };
        Self { file_system, asked: Ranges::new(asked.iter().map(run).collect()), damaged: 0 }
    }

    fn run(mut self) -> Result<Named> {
        let file_system = self.file_system;
        let block = file_system.block_bytes();
        let whole_blocks =
            |run: Range<u64>| run.start / block..run.end.div_ceil(block).min(file_system.blocks());
        let asked = Ranges::new(self.asked.iter().map(whole_blocks).collect());
        let mut claims = Claims::new(&asked, PIECES_MAX);

        let damaged = &mut self.damaged;
        file_system.structures(&asked, &mut budget(file_system), &mut |found| {
            if let Some((run, metadata)) = ok_or_count(found, damaged)? {
                claims.claim(run, Holder::Metadata(metadata));
            }
            Ok(())
        })?;
        let mut free: Vec<Free> = Vec::new();
        file_system.free(&asked, &mut budget(file_system), &mut |found| {
            if let Some(found) = ok_or_count(found, damaged)?
                && free.len() < PIECES_MAX
            {
                free.push(found);
            }
            Ok(())
        })?;
        let (mut owners, ends) = self.scan(&mut claims, &free)?;
        for free in &free {
            fill(&mut claims, free, &ends, GROWTH_BYTES / block);
        }

        let wanted: BTreeSet<u64> = owners.keys().copied().collect();
        let found = names::find(file_system, &wanted, &mut self.damaged)?;
        let mut room_bytes = PATHS_BYTES_MAX;
        for (inode, owner) in &mut owners {
            owner.path = found.path(*inode).filter(|path| path.len() <= room_bytes);
            room_bytes -= owner.path.as_ref().map_or(0, String::len);
        }
        let pieces = self.pieces(&claims, &owners);
        // Only those that a piece belongs to.
        let of = |piece: &Piece| match piece.what {
            What::Inode { inode, .. } => Some(inode),
            _ => None,
        };
        let used: BTreeSet<u64> = pieces.iter().filter_map(of).collect();
        owners.retain(|inode, _| used.contains(inode));
        Ok(Named { file_system: file_system.name(), pieces, owners, damaged: self.damaged })
    }

    /// Looks at every inode: claims its blocks, and notes who ends where free space begins.
    fn scan(
        &mut self,
        claims: &mut Claims<'_>,
        free: &[Free],
    ) -> Result<(BTreeMap<u64, Owner>, HashMap<u64, End>)> {
        let file_system = self.file_system;
        let block = file_system.block_bytes();
        let begins: BTreeSet<u64> = free.iter().map(|free| free.begins).collect();
        let (mut owners, mut ends) = (BTreeMap::new(), HashMap::new());
        let mut maps = budget(file_system);
        let damaged = &mut self.damaged;
        file_system.inodes(Which::All, &mut budget(file_system), &mut |inode| {
            let Some(inode) = ok_or_count(inode, damaged)? else { return Ok(ControlFlow::Continue(())) };
            let special = file_system.special(inode.number);
            let past_end = inode.size_bytes.div_ceil(block);
            let (mut any, mut last) = (false, 0..0);
            let told = file_system.mapping(inode, &mut maps, &mut |mapped| {
                let holder = |part, at| match special {
                    Some(metadata) => Holder::Metadata(metadata),
                    None => Holder::Inode { inode: inode.number, part, at },
                };
                match mapped {
                    Mapped::Map(block) => any |= claims.claim(block..block + 1, holder(Part::Map, 0)),
                    Mapped::Attributes(run) => any |= claims.claim(run, holder(Part::Attributes, 0)),
                    Mapped::Data { at, run } => {
                        // What is past a file's size is set aside for its growth. A directory's index is, too.
                        let within =
                            if inode.kind == Kind::File { past_end.saturating_sub(at) } else { u64::MAX };
                        let border = run.start.saturating_add(within).min(run.end);
                        any |= claims.claim(run.start..border, holder(Part::Data, at));
                        any |= claims.claim(border..run.end, holder(Part::End, at.saturating_add(within)));
                        last = at.saturating_add(run.end - run.start)..run.end;
                    }
                }
                Ok(())
            });
            ok_or_count(told, damaged)?;
            let grows =
                special.is_none() && inode.kind == Kind::File && 0 < last.start && past_end <= last.start;
            if grows {
                let until = file_system.allocated_until(last.end);
                let holder = Holder::Inode { inode: inode.number, part: Part::End, at: last.start };
                any |= claims.claim(last.end..until, holder);
                if begins.contains(&until) {
                    let at = last.start.saturating_add(until - last.end);
                    ends.entry(until).or_insert(End { inode: inode.number, at });
                    any = true;
                }
            }
            if any && special.is_none() {
                owners.insert(inode.number, owner(inode));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((owners, ends))
    }

    /// The asked ranges, piece by piece, in bytes.
    fn pieces(&self, claims: &Claims<'_>, owners: &BTreeMap<u64, Owner>) -> Vec<Piece> {
        let block = self.file_system.block_bytes();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut add = |start: u64, end: u64, what: What| {
            if start < end {
                let range = ByteRange { offset_bytes: start, length_bytes: end - start };
                pieces.push(Piece { range, what });
            }
        };
        let mut claims = claims.iter().peekable();
        for asked in self.asked.iter() {
            let mut from = asked.start;
            while let Some((run, holder)) = claims.peek().cloned() {
                let (start, end) = (run.start * block, run.end * block);
                if start >= asked.end {
                    break;
                }
                add(from, start, What::Unknown);
                let from_here = start.max(asked.start);
                add(from_here, end.min(asked.end), what(holder, block, owners).advanced(from_here - start));
                from = end.min(asked.end).max(from);
                if end > asked.end {
                    break;
                }
                claims.next();
            }
            add(from, asked.end, What::Unknown);
        }
        pieces
    }
}

fn budget(file_system: &dyn FileSystem) -> Budget {
    Budget::new(file_system.blocks())
}

fn owner(inode: &Inode) -> Owner {
    Owner { kind: inode.kind, size_bytes: inode.size_bytes, path: None }
}

/// Names free space after the file that ends where it begins.
fn fill(claims: &mut Claims<'_>, free: &Free, ends: &HashMap<u64, End>, growth_blocks: u64) {
    // What an inode holds is in use, whatever the bitmap says: behind that, no file's end is known.
    if let Some(End { inode, at }) = ends.get(&free.begins)
        && let Some(gap) = claims.gaps(free.run.clone()).first()
        && gap.start == free.run.start
    {
        let at = at.saturating_add(free.run.start - free.begins);
        let until = gap.end.min(free.begins.saturating_add(growth_blocks));
        claims.claim(gap.start..until.max(gap.start), Holder::Inode { inode: *inode, part: Part::End, at });
    }
    claims.claim(free.run.clone(), Holder::Free);
}

fn what(holder: Holder, block: u64, owners: &BTreeMap<u64, Owner>) -> What {
    match holder {
        Holder::Metadata(metadata) => What::Metadata(metadata),
        Holder::Free => What::Free,
        Holder::Inode { inode, part, at } if owners.contains_key(&inode) => {
            What::Inode { inode, part, offset_bytes: at.saturating_mul(block) }
        }
        Holder::Inode { .. } => What::Unknown,
    }
}

/// The value; nothing and a count where a structure is damaged; an error where looking on makes no sense.
pub fn ok_or_count<T>(result: Result<T>, damaged: &mut u64) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_final() => Err(error),
        Err(_) => {
            *damaged += 1;
            Ok(None)
        }
    }
}
