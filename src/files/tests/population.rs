//! A directory tree with what file systems store in different ways.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use super::write_file;

/// Fills `root` with about `files` files: small and larger ones, a large directory, deep ones, links, holes.
pub fn populate(root: &Path, files: usize) {
    let bytes = vec![0xa5_u8; 1 << 20];
    let large = root.join("large");
    fs::create_dir(&large).expect("made");
    let in_large = files / 5;
    for index in 0..in_large {
        let name = format!("a-name-that-is-somewhat-longer-{index:05}");
        write_file(&large.join(name), &bytes[..index % 3 * 1_000]);
    }
    for index in 0..files - in_large {
        let directory = root.join(format!("d{:03}", index / 80));
        if index % 80 == 0 {
            fs::create_dir(&directory).expect("made");
        }
        // From nothing to 17 KiB; a few larger, to have indirect blocks everywhere.
        let length = if index % 200 == 7 { 300_000 } else { index * 37 % 17_000 };
        write_file(&directory.join(format!("f{index}")), &bytes[..length]);
    }
    fs::hard_link(root.join("d000/f1"), root.join("d000/f1-again")).expect("linked");
    symlink("d000/f1", root.join("short-link")).expect("linked");
    symlink("x/".repeat(60), root.join("long-link")).expect("linked");
    let mut deep = root.to_path_buf();
    // debugfs follows no more than 33.
    for level in 0..30 {
        deep.push(format!("level-{level}"));
        fs::create_dir(&deep).expect("made");
    }
    write_file(&deep.join("the deepest"), &bytes[..5_000]);
    write_file(&root.join("m\u{fc}ll\u{7}.bin"), &bytes[..5_000]);
    // Holes: more pieces than an inode has room for.
    let sparse = File::create(root.join("sparse")).expect("made");
    for piece in 0..700_u64 {
        sparse.write_all_at(&bytes[..4_096], piece * 16_384).expect("written");
    }
    // So far into the file that it takes all three levels of indirect blocks of 1 KiB.
    let far = File::create(root.join("far")).expect("made");
    far.write_all_at(&bytes[..9_000], 80 << 20).expect("written");
    far.write_all_at(&bytes[..9_000], 3 << 20).expect("written");
}
