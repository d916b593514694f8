//! ext2 and ext4 images against debugfs, which tells of every inode, and dumpe2fs, which tells of every group.

use std::collections::{HashMap, HashSet};

use super::population::populate;
use super::{Image, by_block, parts_agree_with_the_whole, path_of, tool};
use crate::files::{ByteRange, Kind, Named, Part, What};

/// What debugfs and dumpe2fs say.
#[derive(Default)]
struct Truth {
    block_bytes: u64,
    cluster_blocks: u64,
    /// By block: the inode, the part, and the file's block.
    of_inodes: HashMap<u64, (u64, Part, u64)>,
    /// By inode: where its last block lies, and which of the file's that is.
    last: HashMap<u64, (u64, u64)>,
    paths: HashMap<u64, HashSet<String>>,
    types: HashMap<u64, String>,
    free: HashSet<u64>,
    structures: HashMap<u64, &'static str>,
}

fn numbers(text: &str) -> (u64, u64) {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    (first.parse().expect("a number"), last.parse().expect("a number"))
}

impl Truth {
    fn of(image: &Image) -> Self {
        let mut truth = Self::default();
        truth.groups(&tool("dumpe2fs", &[&image.text()], ""));
        let inodes = truth.inodes_in_use(image);
        let stats: String = inodes.iter().map(|inode| format!("stat <{inode}>\n")).collect();
        truth.inodes(&tool("debugfs", &["-f", "-", &image.text()], &stats));
        let checks: Vec<String> = inodes
            .chunks(400)
            .map(|inodes| {
                let words: Vec<String> = inodes.iter().map(ToString::to_string).collect();
                format!("ncheck {}\n", words.join(" "))
            })
            .collect();
        for line in tool("debugfs", &["-f", "-", &image.text()], &checks.concat()).split_inclusive('\n') {
            truth.name(line);
        }
        truth
    }

    fn is_rest_of_cluster(&self, block: u64, last: u64) -> bool {
        block / self.cluster_blocks == last / self.cluster_blocks && !self.of_inodes.contains_key(&block)
    }

    fn name(&mut self, line: &str) {
        let Some((inode, path)) = line.trim_end_matches('\n').split_once('\t') else { return };
        let Ok(inode) = inode.parse() else { return };
        // debugfs prints the root as "/", and then the rest from the root on.
        let path = path.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(path);
        self.paths.entry(inode).or_default().insert(path.to_owned());
    }

    /// Group by group: its structures, its free blocks.
    fn groups(&mut self, text: &str) {
        self.block_bytes = field(text, "Block size:");
        let has_clusters = text.contains("\nCluster size:");
        self.cluster_blocks = if has_clusters { field(text, "Cluster size:") / self.block_bytes } else { 1 };
        for line in text.lines() {
            if let Some(runs) = line.strip_prefix("  Free blocks: ") {
                for run in runs.split(", ").filter(|run| !run.is_empty()) {
                    let (first, last) = numbers(run);
                    // Of a run of clusters the last one's first block is named.
                    self.free.extend(first..last + self.cluster_blocks);
                }
            }
            for part in line.split(", ") {
                let Some((what, place)) = part.trim().split_once(" at ") else { continue };
                let what = match what {
                    "Primary superblock" | "Backup superblock" => "superblock",
                    "Group descriptors" | "Group descriptor" => "group descriptors",
                    "Reserved GDT blocks" => "reserved group descriptors",
                    "Block bitmap" => "block bitmap",
                    "Inode bitmap" => "inode bitmap",
                    "Inode table" => "inode table",
                    _ => continue,
                };
                let place = place.split(' ').next().expect("a place").trim_end_matches(',');
                let (first, last) = numbers(place);
                self.structures.extend((first..=last).map(|block| (block, what)));
            }
        }
    }

    fn inodes_in_use(&self, image: &Image) -> Vec<u64> {
        let text = tool("dumpe2fs", &[&image.text()], "");
        let per_group: u64 = field(&text, "Inodes per group:");
        let mut free = HashSet::new();
        for line in text.lines() {
            for run in
                line.strip_prefix("  Free inodes: ").unwrap_or("").split(", ").filter(|run| !run.is_empty())
            {
                let (first, last) = numbers(run);
                free.extend(first..=last);
            }
        }
        let inodes: u64 = field(&text, "Inode count:");
        assert!(per_group > 0 && inodes > 0);
        (1..=inodes).filter(|inode| !free.contains(inode)).collect()
    }

    fn inodes(&mut self, text: &str) {
        let (mut inode, mut in_map) = (0, false);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("Inode: ") {
                inode = rest.split(' ').next().expect("a number").parse().expect("a number");
                let kind =
                    rest.split("Type: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a type");
                self.types.insert(inode, kind.to_owned());
                in_map = false;
            } else if let Some(block) = line.strip_prefix("File ACL: ") {
                let block: u64 = block.trim().parse().expect("a block");
                if block != 0 {
                    self.of_inodes.entry(block).or_insert((inode, Part::Attributes, 0));
                }
            } else if line.starts_with("EXTENTS:") || line.starts_with("BLOCKS:") {
                in_map = true;
            } else if in_map && line.starts_with('(') {
                self.map(inode, line);
            } else {
                in_map = false;
            }
        }
    }

    /// `(0-11):100-111, (IND):112, (12):113`, with `(ETB0):` for the blocks of an extent tree.
    fn map(&mut self, inode: u64, line: &str) {
        for part in line.split(", ") {
            let Some((logical, blocks)) = part.trim_start_matches('(').split_once("):") else { continue };
            let (first, last) = numbers(blocks);
            let is_map = logical.starts_with(|letter: char| letter.is_ascii_uppercase());
            let at = if is_map { 0 } else { numbers(logical.trim_end_matches("[u]")).0 };
            for block in first..=last {
                let (part, at) = if is_map { (Part::Map, 0) } else { (Part::Data, at + block - first) };
                self.of_inodes.insert(block, (inode, part, at));
                if part == Part::Data && self.last.get(&inode).is_none_or(|(_, last)| *last < at) {
                    self.last.insert(inode, (block, at));
                }
            }
        }
    }
}

fn field(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label)).expect("a line");
    line.trim().parse().expect("a number")
}

/// debugfs prints names as they are; ours are safe to print.
fn unescaped(path: &str) -> String {
    path.replace("\\x07", "\u{7}")
}

/// Compares every block; says how many were of files.
fn every_block_is_named_right(image: &Image, named: &Named) -> usize {
    let truth = Truth::of(image);
    let blocks = by_block(named, image.size_bytes, truth.block_bytes);
    let mut of_files = 0;
    for (block, what) in (0..).zip(&blocks) {
        let of_inode = truth.of_inodes.get(&block);
        match *what {
            What::Inode { inode, part: Part::End, offset_bytes } => {
                let (last, at) = truth.last[&inode];
                // The rest of a cluster is not free, and nobody's.
                let is_room = |block| truth.free.contains(&block) || truth.is_rest_of_cluster(block, last);
                assert!(last < block && (last + 1..=block).all(is_room), "{block} is not behind {last}");
                assert_eq!(offset_bytes, (at + block - last) * truth.block_bytes, "{block}");
            }
            What::Inode { inode, part, offset_bytes } => {
                let (owner, expected, at) =
                    of_inode.unwrap_or_else(|| panic!("{block} is of no inode: {what:?}"));
                assert_eq!(
                    (inode, part, offset_bytes),
                    (*owner, *expected, at * truth.block_bytes),
                    "{block}"
                );
                let path = unescaped(path_of(named, inode));
                // The root is in no directory, which is where debugfs looks.
                let is_right =
                    truth.paths.get(&inode).is_some_and(|paths| paths.contains(&path)) || path == "/";
                assert!(is_right, "{block}: {path} of {:?}", truth.paths.get(&inode));
                let kind = match truth.types[&inode].as_str() {
                    "regular" => Kind::File,
                    "directory" => Kind::Directory,
                    "symlink" => Kind::Symlink,
                    _ => Kind::Other,
                };
                assert_eq!(named.owners[&inode].kind, kind);
                of_files += 1;
            }
            What::Metadata(metadata) => {
                let expected = match (truth.structures.get(&block), of_inode) {
                    (Some(expected), _) => *expected,
                    (None, Some((7, ..))) => "reserved group descriptors",
                    (None, Some((8, ..))) => "journal",
                    (None, Some(_)) => "of another inode",
                    (None, None) => "boot block",
                };
                assert_eq!(metadata.what, expected, "{block}: {of_inode:?}");
            }
            What::Free => assert!(truth.free.contains(&block), "{block} is free"),
            What::Unknown => {
                assert!(!truth.free.contains(&block) && of_inode.is_none(), "{block}: {of_inode:?}");
            }
        }
    }
    let ours = |part| {
        blocks.iter().filter(|what| matches!(what, What::Inode { part: own, .. } if *own == part)).count()
    };
    let theirs = |part| {
        let users = |inode: &u64| *inode == 2 || truth.paths.contains_key(inode);
        truth.of_inodes.values().filter(|(inode, own, _)| *own == part && users(inode)).count()
    };
    for part in [Part::Data, Part::Map, Part::Attributes] {
        assert_eq!(ours(part), theirs(part), "{part:?}: all that debugfs tells of");
    }
    assert_eq!(ours(Part::Attributes), 1, "a file has attributes outside of its inode");
    assert!(ours(Part::End) > 0, "some file has room to grow");
    of_files
}

fn make(files: usize, size_bytes: u64, options: &[&str]) -> Image {
    let image = Image::new(size_bytes);
    let root = image.directory.path().join("root");
    std::fs::create_dir(&root).expect("made");
    populate(&root, files);
    let (root, path) = (root.display().to_string(), image.text());
    tool("mkfs.ext4", &[&["-q", "-F", "-d", &root, "-N", "16384"], options, &[&path]].concat(), "");
    // Room behind files: mkfs packs them.
    let gaps: String =
        (0..files / 2).step_by(25).map(|index| format!("rm /d{:03}/f{index}\n", index / 80)).collect();
    tool("debugfs", &["-w", "-f", "-", &path], &gaps);
    // An attribute that an inode has no room for.
    tool("debugfs", &["-w", "-R", &format!("ea_set /d000/f2 user.note {}", "x".repeat(400)), &path], "");
    // What mkfs fills has plain directories; large ones get an index.
    tool("e2fsck", &["-fyD", &path], "");
    image
}

#[test]
fn ten_thousand_files_are_named_as_debugfs_names_them() {
    let image = make(11_500, 300 << 20, &["-b", "4096"]);
    let named = image.name_all();
    assert_eq!(named.file_system, "ext4");
    let of_files = every_block_is_named_right(&image, &named);
    let files = named.owners.values().filter(|owner| owner.kind == Kind::File).count();
    println!("{of_files} blocks of {files} files with content, each named as debugfs does");
    assert!(files > 10_000, "{files}");
    parts_agree_with_the_whole(&image, &named);
}

#[test]
fn blocks_of_1_kib() {
    let image = make(1_500, 160 << 20, &["-b", "1024"]);
    every_block_is_named_right(&image, &image.name_all());
}

#[test]
fn indirect_blocks_of_three_levels() {
    let image = make(1_500, 160 << 20, &["-b", "1024", "-O", "^extent,^64bit,^metadata_csum,^uninit_bg"]);
    let named = image.name_all();
    assert_eq!(named.file_system, "ext3");
    every_block_is_named_right(&image, &named);
    parts_agree_with_the_whole(&image, &named);
}

#[test]
fn without_journal_and_flexible_groups_and_with_a_copy_in_every_group() {
    let features =
        "^has_journal,^extent,^64bit,^flex_bg,^metadata_csum,^sparse_super,^resize_inode,^uninit_bg";
    let image = make(500, 160 << 20, &["-b", "2048", "-O", features]);
    let named = image.name_all();
    assert_eq!(named.file_system, "ext2");
    every_block_is_named_right(&image, &named);
}

#[test]
fn descriptors_in_meta_groups() {
    let image = make(500, 1 << 30, &["-b", "1024", "-O", "meta_bg,^resize_inode,^flex_bg"]);
    every_block_is_named_right(&image, &image.name_all());
}

#[test]
fn clusters() {
    let image = make(500, 160 << 20, &["-b", "4096", "-O", "bigalloc", "-C", "16384"]);
    every_block_is_named_right(&image, &image.name_all());
}

#[test]
fn content_within_inodes() {
    let image = make(500, 160 << 20, &["-b", "4096", "-O", "inline_data"]);
    every_block_is_named_right(&image, &image.name_all());
}

#[test]
fn a_growing_log_is_said_to_grow() {
    let image = Image::new(64 << 20);
    let root = image.directory.path().join("root");
    std::fs::create_dir_all(root.join("var/log")).expect("made");
    super::write_file(&root.join("var/log/app.log"), &[7; 100_000]);
    tool("mkfs.ext4", &["-q", "-F", "-b", "4096", "-d", &root.display().to_string(), &image.text()], "");
    let whole = image.name_all();
    let is_data = |what: &What| {
        matches!(what, What::Inode { part: Part::Data, inode, .. }
        if path_of(&whole, *inode) == "/var/log/app.log")
    };
    let log = whole.pieces.iter().find(|piece| is_data(&piece.what)).expect("the log's content");
    assert_eq!(log.range.length_bytes, 102_400);
    // The next whole blocks of a volume, not touching what is there.
    let offset_bytes = log.end_bytes().next_multiple_of(65_536) + 65_536;
    let named = image.name(&[
        ByteRange { offset_bytes, length_bytes: 1 << 20 },
        ByteRange { offset_bytes: offset_bytes + (3 << 20), length_bytes: 65_536 },
    ]);
    let expected = [(offset_bytes, 1 << 20), (offset_bytes + (3 << 20), 65_536)];
    assert_eq!(named.pieces.len(), expected.len());
    for (piece, (start, length_bytes)) in named.pieces.iter().zip(expected) {
        let What::Inode { inode, part: Part::End, offset_bytes: at } = piece.what else {
            panic!("{piece:?}")
        };
        assert_eq!(path_of(&named, inode), "/var/log/app.log");
        assert_eq!(at, 102_400 + start - log.end_bytes());
        assert_eq!(piece.range, ByteRange { offset_bytes: start, length_bytes });
    }
    // Too far away to be said to be the log's.
    let far = image.name(&[ByteRange { offset_bytes: offset_bytes + (17 << 20), length_bytes: 65_536 }]);
    assert_eq!(far.pieces[0].what, What::Free);
}

#[test]
fn what_is_not_supported_is_said() {
    let image = Image::new(8 << 20);
    tool("mkfs.ext4", &["-q", "-F", "-O", "journal_dev", &image.text()], "");
    let file = std::fs::File::open(image.path()).expect("the image");
    let error = crate::files::name_ranges(&file, image.size_bytes, &[]).expect_err("no files there");
    assert_eq!(error.to_string(), "ext4 with nothing but a journal on it is not supported");
    let error = crate::files::name_ranges(&vec![0_u8; 4096], 4096, &[]).expect_err("nothing there");
    assert_eq!(error.to_string(), "no ext2, ext3, ext4 or XFS file system begins at the device's first byte");
}
