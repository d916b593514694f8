//! Images with bytes changed at random: whatever they say, the answer covers what was asked for, and comes in time.

use std::fs;
use std::time::{Duration, Instant};

use super::population::populate;
use super::{Image, tool};
use crate::files::{ByteRange, FilesError, Named, Part, What, name_ranges};

/// Numbers that look random and are the same each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// How long an image of 16 MiB may take, also on a machine with much else to do.
const TIME_LIMIT: Duration = Duration::from_secs(20);

fn look(image: &Vec<u8>) -> Option<Named> {
    let size_bytes = image.len() as u64;
    // Two ranges, most of the image.
    let asked = [
        ByteRange { offset_bytes: 0, length_bytes: size_bytes / 2 - 3_000 },
        ByteRange { offset_bytes: size_bytes / 2, length_bytes: u64::MAX },
    ];
    let started = Instant::now();
    let result = name_ranges(image, size_bytes, &asked);
    assert!(started.elapsed() < TIME_LIMIT, "{:?}", started.elapsed());
    let named = match result {
        Ok(named) => named,
        Err(FilesError::Read { .. }) => panic!("all of it can be read"),
        Err(_) => return None,
    };
    let told: u64 = named.pieces.iter().map(|piece| piece.range.length_bytes).sum();
    assert_eq!(told, size_bytes - 3_000, "all that was asked for, and once");
    assert!(named.pieces.is_sorted_by(|a, b| a.end_bytes() <= b.range.offset_bytes));
    for piece in &named.pieces {
        if let What::Inode { inode, .. } = piece.what {
            assert!(named.owners.contains_key(&inode));
        }
    }
    Some(named)
}

/// Changes bytes within structures, looks, and puts them back; `rounds` times.
fn survives(mut image: Vec<u8>, rounds: usize, seed: u64) {
    let named = look(&image).expect("it is whole");
    let is_structure = |what: &What| {
        matches!(what, What::Metadata(metadata) if metadata.what != "journal" && metadata.what != "log")
            || matches!(what, What::Inode { part: Part::Map, .. })
            || matches!(what, What::Inode { inode, part: Part::Data, .. }
                if named.owners[inode].kind == crate::files::Kind::Directory)
    };
    // Only what is not zero: most of a table of inodes is empty.
    let mut places = Vec::new();
    for piece in named.pieces.iter().filter(|piece| is_structure(&piece.what)) {
        let range = piece.range.offset_bytes as usize..piece.end_bytes() as usize;
        places.extend(range.filter(|place| image[*place] != 0));
    }
    assert!(places.len() > 1_000, "{}", places.len());
    let mut numbers = Numbers(seed);
    let (mut refused, mut damaged, mut round) = (0, 0, 0);
    // Each image is another one (its uuid, its times): where little of it is ever looked at, sixty rounds may all miss that.
    while round < rounds || (refused + damaged == 0 && round < 50 * rounds) {
        round += 1;
        let mut before = Vec::new();
        for _ in 0..=numbers.below(12) {
            let place = places[numbers.below(places.len())];
            before.push((place, image[place]));
            image[place] = match numbers.below(4) {
                0 => u8::MAX,
                1 => 0,
                2 => image[place] ^ 1 << numbers.below(8),
                _ => numbers.below(256) as u8,
            };
        }
        match look(&image) {
            None => refused += 1,
            Some(named) if named.damaged > 0 => damaged += 1,
            Some(_) => {}
        }
        for (place, byte) in before.into_iter().rev() {
            image[place] = byte;
        }
    }
    println!("{round} rounds from seed {seed}: {refused} refused, {damaged} with damage that was found");
    // A file system that is refused was noticed to be damaged as well.
    assert!(refused + damaged > 0, "damage is noticed");
}

fn rounds() -> usize {
    std::env::var("FORERUN_FILES_ROUNDS").map_or(60, |rounds| rounds.parse().expect("a number"))
}

fn ext4(options: &[&str]) -> Vec<u8> {
    let image = Image::new(16 << 20);
    let root = image.directory.path().join("root");
    fs::create_dir(&root).expect("made");
    populate(&root, 120);
    let (root, path) = (root.display().to_string(), image.text());
    tool("mkfs.ext4", &[&["-q", "-F", "-b", "1024", "-d", &root], options, &[&path]].concat(), "");
    fs::read(image.path()).expect("the image")
}

#[test]
fn ext4_with_extents() {
    survives(ext4(&[]), rounds(), 1);
}

#[test]
fn ext3_with_indirect_blocks() {
    survives(ext4(&["-O", "^extent,^64bit,^metadata_csum"]), rounds(), 2);
}

#[test]
fn xfs() {
    let image = super::xfs::make(&[]);
    // Two of four groups, with all files.
    let bytes = fs::read(image.path()).expect("the image");
    survives(bytes, rounds() / 6, 3);
}

#[test]
fn images_cut_short_are_refused() {
    let mut image = ext4(&[]);
    image.truncate(image.len() - 1024);
    assert!(look(&image).is_none());
    for length in [0, 1, 512, 1_024, 1_500, 2_048] {
        image.truncate(length);
        assert!(name_ranges(&image, length as u64, &[]).is_err(), "{length}");
    }
}
