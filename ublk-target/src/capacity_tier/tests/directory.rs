//! The whole of it in a real directory, by io_uring.

use std::path::Path;

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, Geometry};

use super::super::*;

const VOLUME: VolumeUuid = VolumeUuid([7; 16]);
const BLOCK: usize = BLOCK_BYTES as usize;

fn geometry() -> Geometry {
    Geometry::new(1 << 30, 4096).unwrap()
}

/// A block that says which it is and in which epoch it was written; some shrink, some do not.
fn content(block: u32, epoch: u32) -> Vec<u8> {
    let mut state = u64::from(block) << 32 | u64::from(epoch);
    let noisy = if block.is_multiple_of(3) { BLOCK } else { BLOCK / 4 };
    let mut data = vec![block as u8; BLOCK];
    for byte in &mut data[..noisy] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 33) as u8;
    }
    data
}

async fn create(path: &Path) -> CapacityTier {
    CapacityTier::create(path, VOLUME, geometry()).await.unwrap();
    CapacityTier::open_writer(path, VOLUME, geometry()).await.unwrap()
}

async fn write(tier: &CapacityTier, epoch: u32, blocks: &[u32], snapshot: Option<&str>) {
    let mut layer = tier.begin_layer(Epoch(epoch), u64::from(epoch), u64::from(epoch) + 1).unwrap();
    for block in blocks {
        layer.put(BlockIndex(*block), ChangeKind::Added, 16, &content(*block, epoch)).await.unwrap();
    }
    let name = snapshot.map(|name| SnapshotName::new(name).unwrap());
    let places = layer.commit(name.as_ref(), blocks.len() as u32).await.unwrap();
    assert_eq!(places.len(), blocks.len());
}

#[test]
fn blocks_come_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capacity");
    tokio_uring::start(async {
        let tier = create(&path).await;
        let all: Vec<u32> = (0..400).collect();
        write(&tier, 1, &all, Some("first")).await;
        write(&tier, 3, &[5, 9], None).await;
        drop(tier);

        let tier = CapacityTier::open_writer(&path, VOLUME, geometry()).await.unwrap();
        assert_eq!(tier.head().written_back_epoch(), Epoch(3));
        for (upto, changed) in [(Some(Epoch(1)), 1), (None, 3)] {
            let mut places = vec![None; 500];
            tier.load_places(upto, &mut |block, _, place| places[block.0 as usize] = place).await.unwrap();
            let mut out = vec![0; BLOCK];
            for block in 0..400 {
                let epoch = if block == 5 || block == 9 { changed } else { 1 };
                tier.read_block(places[block as usize].unwrap(), BlockIndex(block), &mut out).await.unwrap();
                assert!(out == content(block, epoch), "block {block}");
            }
        }
        let missing = tier.load_places(Some(Epoch(2)), &mut |_, _, _| ()).await;
        assert!(matches!(missing, Err(CapacityError::NoSuchEpoch { .. })));
    });
}

#[test]
fn what_is_refused_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capacity");
    tokio_uring::start(async {
        let missing = CapacityTier::open_writer(&path, VOLUME, geometry()).await.err().unwrap();
        assert!(missing.is_not_found(), "{missing}");
        let tier = create(&path).await;
        let message = |error: CapacityError| error.to_string();

        let second = CapacityTier::open_writer(&path, VOLUME, geometry()).await.err().unwrap();
        assert!(message(second).contains(&format!("process {}", std::process::id())));
        let again = CapacityTier::create(&path, VOLUME, geometry()).await.err().unwrap();
        assert!(message(again).contains("not empty"));
        let other = CapacityTier::open_reader(&path, Some(VolumeUuid([8; 16]))).await.err().unwrap();
        assert!(matches!(other, CapacityError::OtherVolume { .. }));

        let reader = CapacityTier::open_reader(&path, None).await.unwrap();
        assert!(reader.begin_layer(Epoch(1), 0, 0).err().unwrap().is_read_only());
        drop(tier);
        // A larger one would be its growth.
        let wrong = Geometry::new(512 << 20, 4096).unwrap();
        let wrong = CapacityTier::open_writer(&path, VOLUME, wrong).await.err().unwrap();
        assert!(message(wrong).contains("536870912"));

        let foreign = dir.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("letter.txt"), "dear").unwrap();
        let refused = CapacityTier::create(&foreign, VOLUME, geometry()).await.err().unwrap();
        assert!(message(refused).contains("letter.txt"));
        assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1, "nothing was changed");
        let none = CapacityTier::open_writer(&foreign, VOLUME, geometry()).await.err().unwrap();
        assert!(matches!(none, CapacityError::NoVolume { .. }));
        assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1, "nothing was changed");
    });
}

#[test]
fn a_snapshot_reader_holds_a_lease() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capacity");
    tokio_uring::start(async {
        let tier = create(&path).await;
        write(&tier, 1, &[1, 2, 3], Some("kept")).await;
        let name = SnapshotName::new("kept").unwrap();
        let (reader, epoch) = CapacityTier::open_snapshot(&path, Some(VOLUME), &name).await.unwrap();
        assert_eq!(epoch, Epoch(1));
        assert!(reader.is_leased());
        let other = SnapshotName::new("other").unwrap();
        let missing = CapacityTier::open_snapshot(&path, None, &other).await.err().unwrap();
        assert!(matches!(missing, CapacityError::NoSuchSnapshot { .. }));
    });
}

#[test]
fn space_comes_back_when_snapshots_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capacity");
    let options =
        Options { deletion_delay: std::time::Duration::ZERO, unmerged_layers: 0, ..Options::default() };
    tokio_uring::start(async {
        CapacityTier::create(&path, VOLUME, geometry()).await.unwrap();
        let store = AnyStore::Directory(DirectoryStore::new(&path));
        let tier = CapacityTier::open_writer_in(store, VOLUME, geometry(), options).await.unwrap();
        let all: Vec<u32> = (0..300).collect();
        for epoch in 1..=8 {
            // Every epoch writes everything anew; the first half of the snapshots is kept for a while.
            let name = format!("s{epoch}");
            write(&tier, epoch, &all, Some(&name)).await;
        }
        let files = || std::fs::read_dir(path.join("segments")).unwrap().count();
        let full = tier.space().await.unwrap();
        let segments = files();
        for epoch in 1..=7 {
            tier.delete_snapshot(&SnapshotName::new(format!("s{epoch}")).unwrap()).await.unwrap();
        }
        while tier.maintain(Urgency::Relaxed).await.unwrap().more {}
        tier.maintain(Urgency::Relaxed).await.unwrap();
        let left = tier.space().await.unwrap();
        assert_eq!(left.deleting_bytes, 0);
        assert!(left.used_bytes * 7 < full.used_bytes, "{left:?} of {full:?}");
        assert!(files() * 7 <= segments, "{} of {segments} segments are left", files());
        assert_eq!(std::fs::read_dir(path.join("layers")).unwrap().count(), 1);
        drop(tier);
        let report = CapacityTier::check(&path, None, &mut |_| ()).await.unwrap();
        assert!(report.is_clean() && report.findings.is_empty(), "{:?}", report.findings);
        assert_eq!(report.blocks, 300);
    });
}

#[test]
fn a_crash_of_the_process_leaves_only_what_is_tidied_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capacity");
    tokio_uring::start(async {
        let tier = create(&path).await;
        write(&tier, 1, &[1, 2], None).await;
        drop(tier);
        // What writers leave that were killed at various points.
        std::fs::write(path.join("HEAD.tmp-9-9"), "half a HEAD").unwrap();
        std::fs::write(path.join("segments/00000000000000ff"), "half a segment").unwrap();
        std::fs::write(path.join("layers/00000000000000fe"), "").unwrap();
        std::fs::write(path.join("leases/00000001"), "").unwrap();
        let report = CapacityTier::check(&path, None, &mut |_| ()).await.unwrap();
        assert!(report.is_clean());
        assert_eq!(report.findings.len(), 2, "{:?}", report.findings);

        let options = Options { deletion_delay: std::time::Duration::ZERO, ..Options::default() };
        let store = AnyStore::Directory(DirectoryStore::new(&path));
        let tier = CapacityTier::open_writer_in(store, VOLUME, geometry(), options).await.unwrap();
        assert_eq!(tier.maintain(Urgency::Relaxed).await.unwrap().deleted.objects, 0, "they are only found");
        assert_eq!(tier.maintain(Urgency::Relaxed).await.unwrap().deleted.objects, 2);
        assert!(!path.join("HEAD.tmp-9-9").exists());
        write(&tier, 2, &[3], None).await;
        drop(tier);
        let report = CapacityTier::check(&path, None, &mut |_| ()).await.unwrap();
        assert!(report.is_clean() && report.findings.is_empty(), "{:?}", report.findings);
    });
}

#[test]
fn flipped_bytes_in_files_are_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capacity");
    tokio_uring::start(async {
        let tier = create(&path).await;
        write(&tier, 1, &(0..50).collect::<Vec<_>>(), None).await;
        drop(tier);
        let mut files = vec![path.join("HEAD")];
        for folder in ["segments", "layers"] {
            files.extend(std::fs::read_dir(path.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
        }
        let mut random = 99u64;
        for round in 0..300 {
            let file = &files[round % files.len()];
            let good = std::fs::read(file).unwrap();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize % good.len();
            let mut bad = good.clone();
            bad[at] ^= 1 << (random >> 20 & 7);
            std::fs::write(file, &bad).unwrap();
            let report = CapacityTier::check(&path, None, &mut |_| ()).await.unwrap();
            assert!(!report.is_clean(), "byte {at} of {}", file.display());
            let object = file.strip_prefix(&path).unwrap().display().to_string();
            assert!(
                report.findings.iter().any(|finding| finding.place.contains(&object)),
                "{:?}",
                report.findings
            );
            std::fs::write(file, &good).unwrap();
        }
        assert!(CapacityTier::check(&path, None, &mut |_| ()).await.unwrap().is_clean());
    });
}

#[test]
fn a_full_or_read_only_directory_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capacity");
    tokio_uring::start(async {
        let missing_parent =
            CapacityTier::create(&path.join("deeper"), VOLUME, geometry()).await.unwrap_err();
        assert!(missing_parent.is_not_found(), "{missing_parent}");
        let tier = create(&path).await;
        let mut layer = tier.begin_layer(Epoch(1), 0, 0).unwrap();
        layer.put(BlockIndex(1), ChangeKind::Added, 16, &content(1, 1)).await.unwrap();
        std::fs::remove_dir(path.join("segments")).unwrap();
        let gone = layer.commit(None, 1).await.unwrap_err();
        assert!(gone.is_not_found() && gone.to_string().contains("mounted"), "{gone}");
        std::fs::create_dir(path.join("segments")).unwrap();
        write(&tier, 1, &[1], None).await;
    });
}

/// On a file system of 24 MiB (large enough for the reserve, and full soon), which `ci/test` makes.
#[test]
#[ignore = "needs a small file system, in FORERUN_SMALL_DIR: run by ci/test"]
fn a_full_disk() {
    let small = std::env::var("FORERUN_SMALL_DIR").expect("FORERUN_SMALL_DIR");
    let path = Path::new(&small).join("capacity");
    tokio_uring::start(async {
        let tier = create(&path).await;
        write(&tier, 1, &[0, 3, 6], Some("kept")).await;
        let mut errors = 0;
        for epoch in 2..200 {
            let mut layer = tier.begin_layer(Epoch(epoch), 0, 0).unwrap();
            for block in 0..8 {
                if let Err(error) = layer
                    .put(BlockIndex(block * 3), ChangeKind::Modified, 16, &content(block * 3, epoch))
                    .await
                {
                    assert!(error.is_no_space(), "{error}");
                }
            }
            let name = SnapshotName::new(format!("s{epoch}")).unwrap();
            if let Err(error) = layer.commit(Some(&name), 8).await {
                assert!(error.is_no_space(), "{error}");
                println!("epoch {epoch}: {error}");
                errors += 1;
                if errors == 3 {
                    break;
                }
            }
        }
        assert_eq!(errors, 3);
        assert!(path.join("RESERVE").exists(), "the reserve is for HEAD only");
        // Not a byte is left.
        let filler = std::fs::File::create(path.join("../filler")).unwrap();
        for at in 0.. {
            use std::os::unix::fs::FileExt;
            if filler.write_all_at(&[1; 1024], at * 1024).and_then(|()| filler.sync_all()).is_err() {
                break;
            }
        }
        let written = tier.head().written_back_epoch();
        drop(tier);
        assert!(CapacityTier::check(&path, None, &mut |_| ()).await.unwrap().is_clean());
        // Opening writes HEAD; what the failed attempts left has been deleted or is now.
        let options = Options { deletion_delay: std::time::Duration::ZERO, ..Options::default() };
        let tier = CapacityTier::open_writer_in(
            AnyStore::Directory(DirectoryStore::new(&path)),
            VOLUME,
            geometry(),
            options,
        )
        .await
        .unwrap();
        assert_eq!(tier.head().written_back_epoch(), written);
        tier.maintain(Urgency::SpaceShort).await.unwrap();
        for epoch in 2..written.0 {
            tier.delete_snapshot(&SnapshotName::new(format!("s{epoch}")).unwrap()).await.unwrap();
        }
        while tier.maintain(Urgency::SpaceShort).await.unwrap().more {}
        tier.maintain(Urgency::SpaceShort).await.unwrap();
        write(&tier, written.0 + 1, &[0, 3, 6], None).await;
        println!("{:?}", tier.space().await.unwrap());
    });
}
