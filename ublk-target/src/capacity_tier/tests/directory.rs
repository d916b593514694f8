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
            tier.load_places(upto, &mut |block, place| places[block.0 as usize] = place).await.unwrap();
            let mut out = vec![0; BLOCK];
            for block in 0..400 {
                let epoch = if block == 5 || block == 9 { changed } else { 1 };
                tier.read_block(places[block as usize].unwrap(), BlockIndex(block), &mut out).await.unwrap();
                assert!(out == content(block, epoch), "block {block}");
            }
        }
        let missing = tier.load_places(Some(Epoch(2)), &mut |_, _| ()).await;
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
        let wrong = Geometry::new(2 << 30, 4096).unwrap();
        let wrong = CapacityTier::open_writer(&path, VOLUME, wrong).await.err().unwrap();
        assert!(message(wrong).contains("2147483648"));

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
