//! What lies in a range, in words: its pieces put together by file, the largest first.

use forerun::files::{ByteRange, Kind, Metadata, Named, Part, Piece, What};

use super::super::output::count;

/// How many things of a range are told.
const THINGS_MAX: usize = 3;

/// A thing in a range, with all its pieces there.
struct Thing {
    first: What,
    last: What,
    length_bytes: u64,
}

/// The contents of a range in words.
pub fn in_words(named: &Named, range: ByteRange) -> String {
    let mut things: Vec<Thing> = Vec::new();
    // By the thing's identity, to where it is in the list: a range may hold thousands.
    let mut places = std::collections::HashMap::new();
    for piece in named.within(range) {
        let place = *places.entry(identity(piece.what)).or_insert_with(|| {
            things.push(Thing { first: piece.what, last: piece.what, length_bytes: 0 });
            things.len() - 1
        });
        if let Some(thing) = things.get_mut(place) {
            thing.length_bytes += piece.range.length_bytes;
            thing.last = piece.what;
        }
    }
    // A stable sort: of equally large things, the first.
    things.sort_by_key(|thing| std::cmp::Reverse(thing.length_bytes));
    let more = things.len().saturating_sub(THINGS_MAX);
    let mut words: Vec<String> =
        things.iter().take(THINGS_MAX).map(|thing| in_a_word(named, thing)).collect();
    if more > 0 {
        words.push(format!("and {} more", count(more as u64)));
    }
    words.join(", ")
}

/// Equal for pieces that are of the same thing.
fn identity(what: What) -> (u8, u64, &'static str) {
    match what {
        What::Inode { inode, part, .. } => (part as u8, inode, ""),
        // Those of neighbouring groups lie side by side.
        What::Metadata(metadata) => (10, 0, metadata.what),
        What::Free => (11, 0, ""),
        What::Unknown => (12, 0, ""),
    }
}

fn in_a_word(named: &Named, thing: &Thing) -> String {
    let What::Inode { inode, part, offset_bytes } = thing.first else {
        return match (thing.first, thing.last) {
            (
                What::Metadata(Metadata { what, group: Some(first) }),
                What::Metadata(Metadata { group: Some(last), .. }),
            ) if first != last => {
                format!("{what} of groups {first} to {last}")
            }
            (What::Metadata(metadata), _) => metadata.to_string(),
            (What::Free, _) => "free space".into(),
            _ => "unnamed".into(),
        };
    };
    let owner = named.owners.get(&inode);
    let path = match owner.and_then(|owner| owner.path.clone()) {
        Some(path) => path,
        None => format!("inode {inode}, which has no name"),
    };
    match (part, owner.map(|owner| owner.kind)) {
        (Part::End, _) => format!("+{} at the end of {path}", exact_size(thing.length_bytes)),
        (Part::Map, _) => format!("map of {path}"),
        (Part::Attributes, _) => format!("attributes of {path}"),
        (Part::Data, Some(Kind::Directory)) => format!("directory {path}"),
        (Part::Data, Some(Kind::Symlink)) => format!("link {path}"),
        (Part::Data, _) => format!("{path} at {}", exact_size(offset_bytes)),
    }
}

/// A size for people, of which nothing is rounded away: in the largest unit that divides it.
pub fn exact_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{} {unit}", count(bytes >> shift)),
        None if bytes == 0 => "0".into(),
        None => format!("{} B", count(bytes)),
    }
}

/// What a piece is, in JSON.
pub const fn kind_name(piece: &Piece) -> &'static str {
    match piece.what {
        What::Inode { part: Part::Data, .. } => "content",
        What::Inode { part: Part::End, .. } => "growth",
        What::Inode { part: Part::Map, .. } => "map",
        What::Inode { part: Part::Attributes, .. } => "attributes",
        What::Metadata(_) => "structure",
        What::Free => "free",
        What::Unknown => "unnamed",
    }
}

/// What an inode is, in JSON.
pub const fn inode_kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "link",
        Kind::Other => "other",
    }
}
