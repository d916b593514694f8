//! Whole images, made by the file systems' own tools without root and compared with what these say of every block.

mod damage;
mod ext4;
mod population;
mod xfs;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{ByteRange, Named, Piece, What, name_ranges};

/// Runs a tool of e2fsprogs or xfsprogs, which are where root's programs are; gives what it prints.
fn tool(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command
        .args(arguments)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("{program}: {error}; ci/setup installs e2fsprogs and xfsprogs, which these tests need")
    });
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("waited");
    // A tool that ended early has said why.
    let _ = writer.join().expect("written");
    // e2fsck says 1 where it has changed something, as it is asked to.
    let is_fine = output.status.success() || (program == "e2fsck" && output.status.code() == Some(1));
    assert!(is_fine, "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An image in a directory of its own.
struct Image {
    directory: tempfile::TempDir,
    size_bytes: u64,
}

impl Image {
    fn new(size_bytes: u64) -> Self {
        let image = Self { directory: tempfile::tempdir().expect("a directory"), size_bytes };
        File::create(image.path()).and_then(|file| file.set_len(size_bytes)).expect("an image");
        image
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn text(&self) -> String {
        self.path().display().to_string()
    }

    fn name(&self, asked: &[ByteRange]) -> Named {
        let file = File::open(self.path()).expect("the image");
        name_ranges(&file, self.size_bytes, asked).expect("named")
    }

    fn name_all(&self) -> Named {
        let named = self.name(&[ByteRange { offset_bytes: 0, length_bytes: self.size_bytes }]);
        assert_eq!(named.damaged, 0, "nothing is damaged");
        named
    }
}

/// What lies in each block.
fn by_block(named: &Named, size_bytes: u64, block_bytes: u64) -> Vec<What> {
    let mut blocks = Vec::new();
    for offset_bytes in (0..size_bytes).step_by(block_bytes as usize) {
        let range = ByteRange { offset_bytes, length_bytes: block_bytes };
        let pieces: Vec<Piece> = named.within(range).collect();
        assert_eq!(pieces.len(), 1, "a block is of one kind: {pieces:?}");
        assert_eq!(pieces[0].range, range, "all of it");
        blocks.push(pieces[0].what);
    }
    blocks
}

/// The path of the inode that a piece belongs to.
fn path_of(named: &Named, inode: u64) -> &str {
    let owner = named.owners.get(&inode).unwrap_or_else(|| panic!("inode {inode} is told of"));
    owner.path.as_deref().unwrap_or("")
}

/// Asking for some ranges gives what asking for all gave of them.
fn parts_agree_with_the_whole(image: &Image, whole: &Named) {
    let mut asked = Vec::new();
    let mut offset_bytes = 0;
    // Ranges of all alignments, none next to another.
    for step in 0u64.. {
        offset_bytes += 65_536 * (step % 7 + 2) + 512 * (step % 5);
        if offset_bytes >= image.size_bytes {
            break;
        }
        asked.push(ByteRange { offset_bytes, length_bytes: 65_536 + 512 * (step % 3) });
    }
    let named = image.name(&asked);
    let pieces_of = |named: &Named, range: ByteRange| -> Vec<(Piece, String)> {
        let path = |piece: &Piece| match piece.what {
            What::Inode { inode, .. } => path_of(named, inode).to_owned(),
            _ => String::new(),
        };
        named.within(range).map(|piece| (piece, path(&piece))).collect()
    };
    for range in asked {
        assert_eq!(pieces_of(&named, range), pieces_of(whole, range), "{range:?}");
    }
}

fn write_file(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
