//! A capacity directory in which somebody else has put things: links, FIFOs, devices, names of no object.
//!
//! Whoever can write to it can spoil what is in it, and no more: nothing outside is written, read or waited for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, Geometry};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::super::*;

const VOLUME: VolumeUuid = VolumeUuid([7; 16]);
const SECRET: &[u8] = b"not of this volume";

fn geometry() -> Geometry {
    Geometry::new(1 << 30, 4096).unwrap()
}

/// A directory with one epoch, and a file beside it that is none of the volume's.
fn volume() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (path, precious) = (dir.path().join("capacity"), dir.path().join("precious"));
    fs::write(&precious, SECRET).unwrap();
    tokio_uring::start(async {
        CapacityTier::create(&path, VOLUME, geometry()).await.unwrap();
        let tier = open(&path).await.unwrap();
        put(&tier, 1).await.unwrap();
    });
    (dir, path, precious)
}

async fn open(path: &Path) -> Result<CapacityTier> {
    CapacityTier::open_writer(path, VOLUME, geometry()).await
}

async fn put(tier: &CapacityTier, epoch: u32) -> Result<Vec<(BlockIndex, Option<Place>)>> {
    let mut layer = tier.begin_layer(Epoch(epoch), 1, 2)?;
    layer.put(BlockIndex(3), ChangeKind::Added, 16, &[epoch as u8; BLOCK_BYTES as usize]).await?;
    layer.commit(None, 1).await
}

/// The only file of a folder.
fn only(folder: &Path) -> PathBuf {
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

/// Runs what must not wait for anybody.
fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio_uring::start(async {
        tokio::time::timeout(Duration::from_secs(20), future).await.expect("it waits for nobody")
    })
}

/// Puts what is no file in the place of one: a link to a file, a link to a device, a FIFO, a folder.
fn traps(at: &Path, precious: &Path) -> [Box<dyn Fn()>; 4] {
    let clear = |at: &Path| drop(fs::remove_file(at).or_else(|_| fs::remove_dir(at)));
    let (a, b, c, d, precious) =
        (at.to_owned(), at.to_owned(), at.to_owned(), at.to_owned(), precious.to_owned());
    [
        Box::new(move || (clear(&a), symlink(&precious, &a).unwrap()).1),
        Box::new(move || (clear(&b), symlink("/dev/zero", &b).unwrap()).1),
        Box::new(move || (clear(&c), mkfifo(&c, Mode::S_IRWXU).unwrap()).1),
        Box::new(move || (clear(&d), fs::create_dir(&d).unwrap()).1),
    ]
}

#[test]
fn nothing_is_written_through_a_link() {
    let (_dir, path, precious) = volume();
    // The names of the next HEADs can be known: generation and sequence are in the one that is there.
    for generation in 0..6 {
        for sequence in 0..12 {
            symlink(&precious, path.join(format!("HEAD.tmp-{generation}-{sequence}"))).unwrap();
        }
    }
    let head = fs::read(path.join("HEAD")).unwrap();
    tokio_uring::start(async {
        let tier = open(&path).await.unwrap();
        for generation in 0..6 {
            for sequence in 0..12 {
                let _ = symlink(&precious, path.join(format!("HEAD.tmp-{generation}-{sequence}")));
            }
        }
        put(&tier, 2).await.unwrap();
    });
    assert_ne!(fs::read(path.join("HEAD")).unwrap(), head, "HEAD was replaced");
    for name in ["LOCK", "RESERVE"] {
        let (_dir, path, precious) = volume();
        let _ = fs::remove_file(path.join(name));
        symlink(&precious, path.join(name)).unwrap();
        in_time(async {
            // Without the lock nothing is done; without the reserve everything else is.
            let opened = open(&path).await;
            assert_eq!(opened.is_err(), name == "LOCK");
            if let Ok(tier) = opened {
                let _ = tier.maintain(Urgency::SpaceShort).await;
            }
        });
        assert_eq!(fs::read(&precious).unwrap(), SECRET, "{name}");
    }
    assert_eq!(fs::read(&precious).unwrap(), SECRET);
}

#[test]
fn what_is_no_file_is_neither_read_nor_waited_for() {
    for object in ["HEAD", "layers", "segments"] {
        let (_dir, path, precious) = volume();
        let at = if object == "HEAD" { path.join(object) } else { only(&path.join(object)) };
        for (number, trap) in traps(&at, &precious).iter().enumerate() {
            trap();
            in_time(async {
                let opened = open(&path).await;
                if object == "segments" {
                    let tier = opened.unwrap();
                    let mut places = Vec::new();
                    tier.load_places(None, &mut |block, _, place| places.push((block, place))).await.unwrap();
                    let (block, place) = places[0];
                    let read = tier.read_block(place.unwrap(), block, &mut [0; BLOCK_BYTES as usize]).await;
                    let error = read.err().unwrap().to_string();
                    assert!(error.contains("no regular file"), "{number}: {error}");
                } else {
                    let error = opened.err().unwrap().to_string();
                    assert!(error.contains("no regular file"), "{number}: {error}");
                }
                let report = CapacityTier::check(&path, Some(VOLUME), &mut |_| ()).await;
                match report {
                    Ok(report) => assert!(!report.is_clean(), "{object} {number}"),
                    Err(error) => assert_eq!(object, "HEAD", "{error}"),
                }
            });
        }
        assert_eq!(fs::read(&precious).unwrap(), SECRET);
    }
}

#[test]
fn leases_that_are_no_files_hold_nothing() {
    let (_dir, path, precious) = volume();
    let lease = path.join("leases/00000001");
    for trap in traps(&lease, &precious) {
        trap();
        in_time(async {
            let tier = open(&path).await.unwrap();
            tier.maintain(Urgency::SpaceShort).await.unwrap();
        });
    }
    assert_eq!(fs::read(&precious).unwrap(), SECRET);
}

#[test]
fn names_of_no_object_are_left_alone() {
    let (_dir, path, precious) = volume();
    let folder = path.join("segments");
    let foreign = ["..data", "0000000000000001.bak", "ZZZZZZZZZZZZZZZZ", "-rf", "00000000000000AA"];
    for name in foreign {
        fs::write(folder.join(name), "x").unwrap();
    }
    symlink(&precious, folder.join("link")).unwrap();
    in_time(async {
        let tier = open(&path).await.unwrap();
        put(&tier, 2).await.unwrap();
        tier.maintain(Urgency::SpaceShort).await.unwrap();
        let report = CapacityTier::check(&path, Some(VOLUME), &mut |_| ()).await.unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
    });
    assert!(foreign.iter().all(|name| folder.join(name).exists()));
    assert_eq!(fs::read(&precious).unwrap(), SECRET);
}

#[test]
fn a_head_that_is_longer_than_any_can_be_is_not_taken_into_memory() {
    let (_dir, path, _) = volume();
    // Sparse: a terabyte that costs whoever made it nothing.
    fs::OpenOptions::new().write(true).open(path.join("HEAD")).unwrap().set_len(1 << 40).unwrap();
    let error = in_time(open(&path)).err().unwrap().to_string();
    assert!(error.contains("longer than any HEAD"), "{error}");
    let (_dir, path, _) = volume();
    let segment = only(&path.join("segments"));
    fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(1 << 40).unwrap();
    let report = in_time(CapacityTier::check(&path, Some(VOLUME), &mut |_| ())).unwrap();
    assert!(report.findings[0].what.contains("more than any segment has"), "{:?}", report.findings);
}
