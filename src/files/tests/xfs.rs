//! XFS images against xfs_db, which tells of every block.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;

use super::{Image, by_block, parts_agree_with_the_whole, path_of, tool, write_file};
use crate::files::{Named, Part, What};

/// The smallest that mkfs.xfs makes.
const SIZE_BYTES: u64 = 304 << 20;

/// A tree as mkfs.xfs reads it: small directories, large ones of each form, files, links, a pipe for each other file.
pub fn make(options: &[&str]) -> Image {
    let image = Image::new(SIZE_BYTES);
    let source = |name: &str, bytes: usize| {
        let path = image.directory.path().join(name);
        write_file(&path, &vec![0xa5; bytes]);
        path.display().to_string()
    };
    let (small, middle, large) =
        (source("small", 3_000), source("middle", 40_000), source("large", 3_000_000));
    let mut tree = String::from("/stand/diag\n0 0\nd--755 0 0\n");
    // In the inode, in one block, in several, with an index of more than one block.
    for (directory, files) in [("short", 3), ("block", 40), ("leaf", 300), ("node", 5_000)] {
        writeln!(tree, "{directory} d--755 0 0").expect("text");
        for index in 0..files {
            let (kind, of) = match index % 10 {
                0 => ("---644", small.as_str()),
                1 if index % 50 == 1 => ("---644", middle.as_str()),
                2 => ("l--777", "somewhere"),
                _ => ("p--644", ""),
            };
            writeln!(tree, "a-name-that-takes-room-{index:05} {kind} 0 0 {of}").expect("text");
        }
        tree.push_str("$\n");
    }
    for level in 0..30 {
        writeln!(tree, "level-{level} d--755 0 0").expect("text");
    }
    writeln!(tree, "deepest ---644 0 0 {middle}").expect("text");
    tree.push_str(&"$\n".repeat(30));
    writeln!(tree, "long-link l--777 0 0 {}", "x/".repeat(400)).expect("text");
    writeln!(tree, "large ---644 0 0 {large}\n$").expect("text");
    let proto = image.directory.path().join("proto");
    write_file(&proto, tree.as_bytes());
    let proto = proto.display().to_string();
    tool("mkfs.xfs", &[&["-q", "-f", "-p", &proto], options, &[&image.text()]].concat(), "");
    // An attribute that an inode has no room for.
    let made = image.name_all();
    let large = made.owners.iter().find(|(_, owner)| owner.path.as_deref() == Some("/large"));
    let inode = format!("inode {}", large.expect("told of").0);
    tool("xfs_db", &["-x", "-c", &inode, "-c", "attr_set -u -v 3000 note", &image.text()], "");
    image
}

fn field(image: &Image, name: &str) -> u64 {
    let text = tool("xfs_db", &["-r", "-c", "sb 0", "-c", &format!("print {name}"), &image.text()], "");
    text.split(" = ").nth(1).expect("a value").trim().parse().expect("a number")
}

/// What xfs_db says of a block: its type, and the inode with its path where it has one.
struct Said {
    kind: String,
    inode: Option<(u64, String)>,
}

/// All blocks, counted through.
fn all_blocks(image: &Image) -> Vec<Said> {
    let (groups, group_blocks) = (field(image, "agcount"), field(image, "agblocks"));
    let (bits, blocks) = (field(image, "agblklog"), field(image, "dblocks"));
    let mut script = String::from("blockget -n\n");
    for group in 0..groups {
        let count = group_blocks.min(blocks - group * group_blocks);
        writeln!(script, "fsblock {}\nblockuse -n -c {count}", group << bits).expect("text");
    }
    let text = tool("xfs_db", &["-r", &image.text()], &script);
    let mut said = Vec::new();
    for line in text.lines() {
        // block 24 (0/24) type data inode 131 dir/file, after a prompt.
        let Some((_, rest)) = line.split_once(") type ") else { continue };
        let mut words = rest.splitn(4, ' ');
        let kind = words.next().expect("a type").to_owned();
        let inode = match (words.next(), words.next()) {
            (Some("inode"), Some(number)) => {
                let path = words.next().map_or(String::new(), |path| format!("/{path}"));
                Some((number.parse().expect("a number"), path))
            }
            _ => None,
        };
        said.push(Said { kind, inode });
    }
    assert_eq!(said.len() as u64, blocks);
    said
}

/// Where each inode's content is, as xfs_db's bmap says: by block, the file's block.
fn all_maps(image: &Image, inodes: &[u64]) -> HashMap<u64, u64> {
    let (group_blocks, bits) = (field(image, "agblocks"), field(image, "agblklog"));
    let script: String = inodes.iter().map(|inode| format!("inode {inode}\nbmap -d\n")).collect();
    let mut maps = HashMap::new();
    for line in tool("xfs_db", &["-r", &image.text()], &script).lines() {
        // data offset 0 startblock 24 (0/24) count 25 flag 0
        let Some((_, rest)) = line.split_once("data offset ") else { continue };
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |index: usize| words[index].parse::<u64>().expect("a number");
        let (at, start, count) = (number(0), number(2), number(5));
        let start = (start >> bits) * group_blocks + (start & ((1 << bits) - 1));
        maps.extend((0..count).map(|block| (start + block, at + block)));
    }
    maps
}

/// Compares every block; says how many were of files' content and of files' maps.
fn every_block_is_named_right(image: &Image, named: &Named) -> (usize, usize) {
    let said = all_blocks(image);
    let block_bytes = field(image, "blocksize");
    let mut inodes: Vec<u64> =
        said.iter().filter_map(|said| said.inode.as_ref().map(|(inode, _)| *inode)).collect();
    inodes.sort_unstable();
    inodes.dedup();
    let maps = all_maps(image, &inodes);
    let (mut of_files, mut of_maps, mut of_attributes) = (0, 0, 0);
    for ((block, what), said) in (0..).zip(by_block(named, SIZE_BYTES, block_bytes)).zip(&said) {
        match what {
            What::Inode { part: Part::End, .. } | What::Free => {
                assert!(said.kind.starts_with("free") && said.kind != "freelist", "{block}: {}", said.kind);
            }
            What::Inode { inode, part, offset_bytes } => {
                let (expected, path) = said.inode.as_ref().expect("of an inode");
                assert_eq!((inode, path_of(named, inode)), (*expected, path.as_str()), "{block}");
                if part == Part::Data {
                    assert!(
                        matches!(said.kind.as_str(), "data" | "dir" | "symlink"),
                        "{block}: {}",
                        said.kind
                    );
                    assert_eq!(offset_bytes, maps[&block] * block_bytes, "{block}");
                    of_files += 1;
                } else if part == Part::Attributes {
                    assert_eq!(said.kind, "attr", "{block}");
                    of_attributes += 1;
                } else {
                    // xfs_db calls a block of an inode's map what the inode is.
                    assert!(part == Part::Map && !maps.contains_key(&block), "{block}: {part:?}");
                    of_maps += 1;
                }
            }
            What::Metadata(metadata) => {
                let kinds: &[&str] = match metadata.what {
                    "headers" => &["sb", "agf", "agi", "agfl"],
                    "free space tree" => &["btbno", "btcnt"],
                    "inode tree" => &["btino"],
                    "free inode tree" => &["btfino"],
                    "reference counts" => &["btrefcnt"],
                    "reverse map" => &["btrmap"],
                    "reserve of blocks" => &["freelist"],
                    "inodes" => &["inode"],
                    "log" => &["log"],
                    "realtime bitmaps" => &["rtbitmap", "rtsummary", "data"],
                    other => panic!("{other}"),
                };
                assert!(kinds.contains(&said.kind.as_str()), "{block}: {metadata} is {}", said.kind);
            }
            What::Unknown => panic!("{block}: {} {:?}", said.kind, said.inode),
        }
    }
    assert_eq!(of_files, maps.len(), "all that xfs_db tells of");
    assert_eq!(of_attributes, said.iter().filter(|said| said.kind == "attr").count());
    assert!(of_attributes > 0, "a file has attributes outside of its inode");
    (of_files, of_maps)
}

#[test]
fn every_block_is_named_as_xfs_db_names_it() {
    let image = make(&["-m", "rmapbt=0"]);
    let named = image.name_all();
    assert_eq!(named.file_system, "XFS");
    let (of_files, of_maps) = every_block_is_named_right(&image, &named);
    assert!(of_maps > 0, "the largest directory is in more pieces than an inode has room for");
    println!("{of_files} blocks of {} inodes, each named as xfs_db does", named.owners.len());
    assert!(of_files > 1_000 && named.owners.len() > 300, "{of_files} of {}", named.owners.len());
    parts_agree_with_the_whole(&image, &named);
}

#[test]
fn with_other_trees_inodes_and_directory_blocks() {
    let image = make(&["-m", "rmapbt=1,reflink=0,finobt=0", "-i", "size=1024,sparse=0", "-n", "size=16384"]);
    every_block_is_named_right(&image, &image.name_all());
}

#[test]
fn trees_of_two_levels_and_directory_blocks_in_pieces() {
    let image = make(&["-b", "size=1024", "-n", "size=4096", "-d", "agcount=2"]);
    // The tree of inodes of the group with the largest directory.
    let text = tool(
        "xfs_db",
        &["-r", "-c", "agi 0", "-c", "print level", "-c", "agi 1", "-c", "print level", &image.text()],
        "",
    );
    assert!(text.contains("level = 2"), "{text}");
    every_block_is_named_right(&image, &image.name_all());
}

#[test]
fn an_older_version_is_refused() {
    let image = Image::new(SIZE_BYTES);
    tool("mkfs.xfs", &["-q", "-f", "-m", "crc=0", &image.text()], "");
    let file = File::open(image.path()).expect("the image");
    let error = crate::files::name_ranges(&file, SIZE_BYTES, &[]).expect_err("version 4");
    assert_eq!(error.to_string(), "XFS with format version 4 is not supported");
}
