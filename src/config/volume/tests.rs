//! Configurations: there and back, and everything that must be refused.

use proptest::prelude::*;

use super::super::Paths;
use super::*;

fn example() -> VolumeConfig {
    VolumeConfig {
        name: VolumeName::new("data").expect("a name"),
        uuid: Uuid::from_u128(7),
        geometry: Geometry::new(10 << 30, 4096).expect("a geometry"),
        fast: FastTierConfig { path: "/fast.img".into(), size_bytes: Some(1 << 30) },
        capacity: CapacityTierConfig { address: Path::new("/capacity").into() },
        sync_interval: SyncInterval::DEFAULT,
        threshold: Threshold::new(0.7).expect("a threshold"),
        horizon: Horizon::DEFAULT,
        prediction: true,
        hydrate: HydrateOrder::Hot,
        created_us: 1_795_426_800_000_000,
    }
}

#[test]
fn a_configuration_comes_back_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = example();
    let paths = Paths::new(dir.path().join("state"), dir.path().join("run")).volume(&config.name);
    config.store(&paths).expect("stored");
    assert_eq!(VolumeConfig::load(&config.name, &paths).expect("loaded"), config);
    let text = fs::read_to_string(paths.config_file()).expect("read");
    assert!(text.contains("threshold = 0.7\n"), "what was given is what the file shows:\n{text}");
}

#[test]
fn an_order_is_typed_as_the_file_shows_it() {
    for (text, order) in [
        ("expected", HydrateOrder::Expected),
        ("hot", HydrateOrder::Hot),
        ("address", HydrateOrder::Address),
        ("off", HydrateOrder::Off),
    ] {
        assert_eq!(text.parse(), Ok(order));
        let file = VolumeConfig { hydrate: order, ..example() }.to_toml().expect("text");
        assert!(file.contains(&format!("hydrate = \"{text}\"")), "{file}");
    }
    let error = "Hot".parse::<HydrateOrder>().expect_err("not as it is written");
    assert!(error.contains("expected, hot, address and off"), "{error}");
}

#[test]
fn an_unknown_volume_and_anothers_file_are_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let all = Paths::new(dir.path(), "/r");
    let other = VolumeName::new("other").expect("a name");
    let error = VolumeConfig::load(&other, &all.volume(&other)).expect_err("not there");
    assert!(matches!(error, ConfigError::Unknown { .. }), "{error}");
    example().store(&all.volume(&other)).expect("stored in the wrong place");
    let error = VolumeConfig::load(&other, &all.volume(&other)).expect_err("another's");
    assert!(error.to_string().contains("the configuration of volume data, not of other"), "{error}");
}

#[test]
fn hostile_files_are_refused_with_the_reason() {
    let good = example().to_toml().expect("text");
    for (from, to, expected) in [
        ("version = 1", "version = 2", "version 2; this program knows version 1"),
        ("version = 1", "", "missing field `version`"),
        ("version = 1", "version = 1\nturbo = true", "unknown field `turbo`"),
        ("\"data\"", "\"../data\"", "it contains '/'"),
        ("size_bytes = 10737418240", "size_bytes = 10", "64 MiB to 64 TiB"),
        ("size_bytes = 10737418240", "size_bytes = -10", "invalid value"),
        ("size_bytes = 10737418240", "size_bytes = \"10G\"", "invalid type"),
        ("= 4096", "= 1024", "512 or 4096"),
        ("= 60", "= 0", "the range is 1 to 3600"),
        ("= 60", "= 3601", "the range is 1 to 3600"),
        ("threshold = 0.7", "threshold = nan", "the range is 0.05 to 1"),
        ("threshold = 0.7", "threshold = 0.01", "the range is 0.05 to 1"),
        ("prediction_horizon = 1", "prediction_horizon = 65", "the range is 1 to 64"),
        ("prediction = true", "prediction = \"yes\"", "invalid type"),
        ("00000000-0000-0000-0000-000000000007", "7", "\"7\" is not a uuid"),
        ("\"/fast.img\"", "\"fast.img\"", "fast tier's path \"fast.img\" is not absolute"),
        ("[capacity]", "[capacity]\nbucket = \"b\"", "unknown field `bucket`"),
        ("version = 1", "version = 1 1", "TOML parse error"),
    ] {
        assert!(good.contains(from), "{from} is in\n{good}");
        let error = VolumeConfig::from_toml(&good.replacen(from, to, 1)).expect_err(to);
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn what_is_no_configuration_at_all_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("volume.toml");
    for content in [&b""[..], b"\xff\xfe", b"[[[", &[b'#'; 65 * 1024]] {
        fs::write(&path, content).expect("written");
        assert!(VolumeConfig::load_file(&path).is_err());
    }
    assert!(VolumeConfig::load_file(dir.path()).is_err());
}

proptest! {
    #[test]
    fn every_valid_configuration_comes_back(
        blocks in 1024u64..1 << 30, small in any::<bool>(), seconds in 1u32..=3600,
        threshold in 0.05f64..=1.0, horizon in 1u32..=64, prediction in any::<bool>(),
        created_us in 0u64..1 << 62, uuid in any::<u128>(), path in "/[^\\p{C}]{0,30}",
        fast_bytes in proptest::option::of(0u64..1 << 62),
        on_objects in any::<bool>(), bucket in "[a-z][a-z0-9.-]{2,20}", prefix in "([a-zA-Z0-9_.=-]{3,9}/){0,3}",
    ) {
        let address = format!("s3://{bucket}/{prefix}").parse().expect("an address");
        let config = VolumeConfig {
            geometry: Geometry::new(blocks << 16, if small { 512 } else { 4096 }).expect("in range"),
            sync_interval: SyncInterval::new(seconds).expect("in range"),
            threshold: Threshold::new(threshold).expect("in range"),
            horizon: Horizon::new(horizon).expect("in range"),
            uuid: Uuid::from_u128(uuid),
            fast: FastTierConfig { path: path.clone().into(), size_bytes: fast_bytes },
            capacity: CapacityTierConfig {
                address: if on_objects { address } else { PathBuf::from(path).into() },
            },
            prediction,
            created_us,
            ..example()
        };
        let text = config.to_toml().expect("text");
        prop_assert_eq!(VolumeConfig::from_toml(&text), Ok(config));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}|(version = [0-9]{1,3}\n)?(name = \"[a-z]*\"\n)?(\\[fast\\]\n)?") {
        let _ = VolumeConfig::from_toml(&text);
    }
}
