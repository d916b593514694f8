//! A capacity tier on a real S3 server: written, read, fought for, checked.
//!
//! Where the server is comes from the environment, as for a volume: `FORERUN_TEST_STORE=s3://bucket/prefix` and the `AWS_`
//! variables. `tests/s3_server/run` starts a server and runs this.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forerun::change_vector::ChangeKind;
use forerun::config::CapacityAddress;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, Geometry};
use ublk_target::capacity_tier::{AnyStore, Place};
use ublk_target::capacity_tier::{
    CapacityError, CapacityTier, SnapshotName, Urgency, VolumeUuid, check_store,
};

const VOLUME: VolumeUuid = VolumeUuid([5; 16]);

fn address(name: &str) -> CapacityAddress {
    let base = std::env::var("FORERUN_TEST_STORE").expect("FORERUN_TEST_STORE names a bucket");
    let unique = uuid::Uuid::new_v4().simple().to_string();
    format!("{base}/{name}-{unique}").parse().expect("an address")
}

fn geometry() -> Geometry {
    Geometry::new(1 << 30, 4096).expect("a geometry")
}

/// Incompressible, so that segments fill up.
fn content(block: u32, epoch: u32) -> Vec<u8> {
    let mut state = u64::from(block) << 32 | u64::from(epoch) | 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    };
    (0..BLOCK_BYTES).map(|_| next()).collect()
}

async fn write(
    tier: &CapacityTier,
    epoch: u32,
    blocks: std::ops::Range<u32>,
    name: Option<&str>,
) -> Result<(), CapacityError> {
    let mut layer = tier.begin_layer(Epoch(epoch), 1, 2)?;
    for block in blocks.clone() {
        layer.put(BlockIndex(block), ChangeKind::Added, 16, &content(block, epoch)).await?;
    }
    let name = name.map(|name| SnapshotName::new(name).expect("a name"));
    layer.commit(name.as_ref(), blocks.len() as u32).await.map(|_| ())
}

async fn places(tier: &CapacityTier, upto: Option<Epoch>) -> BTreeMap<u32, Place> {
    let mut places = BTreeMap::new();
    let mut tell = |block: BlockIndex, _, place| {
        if let Some(place) = place {
            places.insert(block.0, place);
        }
    };
    tier.load_places(upto, &mut tell).await.expect("places");
    places
}

/// Through failures: what fails is tried again, as write-back does.
async fn persistently<T, F: Future<Output = Result<T, CapacityError>>>(
    what: &str,
    mut act: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        match act().await {
            Ok(done) => return done,
            Err(error @ CapacityError::Io { .. }) if begun.elapsed() < Duration::from_secs(300) => {
                println!("{what}: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

#[test]
#[ignore = "needs an S3 server: tests/s3_server/run starts one"]
fn a_volume_lives_on_a_real_server() {
    let address = address("life");
    tokio_uring::start(async {
        persistently("create", || CapacityTier::create(&address, VOLUME, geometry())).await;
        let again = CapacityTier::create(&address, VOLUME, geometry()).await.unwrap_err();
        assert!(matches!(again, CapacityError::NotEmpty { .. } | CapacityError::Io { .. }), "{again}");
        let tier = persistently("open", || CapacityTier::open_writer(&address, VOLUME, geometry())).await;
        // 24 MiB each: several segments.
        let begun = Instant::now();
        for epoch in 1..=4 {
            let blocks = epoch * 100..epoch * 100 + 384;
            let name = (epoch == 2).then_some("two");
            persistently("write", || write(&tier, epoch, blocks.clone(), name)).await;
        }
        let took = begun.elapsed();
        println!("96 MiB written in {took:?}");
        let other = CapacityTier::open_writer(&address, VOLUME, geometry()).await.err().expect("in use");
        assert!(matches!(other, CapacityError::InUse { .. } | CapacityError::Io { .. }), "{other}");
        let mut out = vec![0; BLOCK_BYTES as usize];
        let begun = Instant::now();
        let now = places(&tier, None).await;
        for (block, place) in &now {
            let newest = (*block / 100).min(4);
            persistently("read", || async {
                let mut out = vec![0; BLOCK_BYTES as usize];
                tier.read_block(*place, BlockIndex(*block), &mut out).await?;
                assert!(out == content(*block, newest), "block {block}");
                Ok(())
            })
            .await;
        }
        println!("{} blocks read in {:?}", now.len(), begun.elapsed());
        let two = SnapshotName::new("two").expect("a name");
        let (snapshot, epoch) =
            persistently("snapshot", || CapacityTier::open_snapshot(&address, Some(VOLUME), &two)).await;
        let in_use = tier.delete_snapshot(&two).await.unwrap_err();
        assert!(matches!(in_use, CapacityError::SnapshotInUse { .. } | CapacityError::Io { .. }), "{in_use}");
        let then = places(&snapshot, Some(epoch)).await;
        persistently("read", || async {
            let mut out = vec![0; BLOCK_BYTES as usize];
            snapshot.read_block(then[&450], BlockIndex(450), &mut out).await?;
            assert!(out == content(450, 2));
            Ok(())
        })
        .await;
        drop(snapshot);
        tokio::time::sleep(Duration::from_millis(300)).await;
        persistently("delete", || tier.delete_snapshot(&two)).await;
        persistently("maintain", || async {
            while tier.maintain(Urgency::SpaceShort).await?.more {}
            Ok(())
        })
        .await;
        let after = places(&tier, None).await;
        assert_eq!(after.len(), now.len());
        tier.read_block(after[&450], BlockIndex(450), &mut out).await.ok();
        tier.close().await;
        let report = persistently("check", || async {
            let store = AnyStore::at(&address)?;
            check_store(store, Some(VOLUME), &mut |_| ()).await
        })
        .await;
        assert!(report.is_clean(), "{:?}", report.findings);
        println!("checked {} objects, {} blocks, {} bytes", report.objects, report.blocks, report.bytes);
        let begun = Instant::now();
        let next = persistently("open", || CapacityTier::open_writer(&address, VOLUME, geometry())).await;
        println!("opened anew in {:?}", begun.elapsed());
        persistently("write", || write(&next, 9, 0..3, None)).await;
        next.close().await;
    });
}
