//! Commands that ask a running volume.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forerun::config::VolumeConfig;

use super::fake_server::{CHANGES, serve};
use super::fake_target::{calls, good_target};
use super::rig::{Rig, golden, run};

#[test]
fn texts_are_as_written() {
    let rig = Rig::new();
    serve(&rig, "data");
    serve(&rig, "empty");
    for (words, name) in [
        ("snapshot create data", "snapshot-create.txt"),
        ("snapshot create data there", "snapshot-there.txt"),
        ("snapshot list data", "snapshot-list.txt"),
        ("snapshot list empty", "snapshot-list-empty.txt"),
        ("snapshot diff data monday tuesday", "snapshot-diff.txt"),
        ("snapshot diff data monday --summary", "snapshot-diff-summary.txt"),
        ("snapshot diff data monday monday", "snapshot-diff-empty.txt"),
        ("snapshot delete data monday", "snapshot-delete.txt"),
        ("threshold data 0.7", "threshold.txt"),
        ("chain list data", "chain-list.txt"),
        ("chain list data --explain", "chain-list-explain.txt"),
        ("chain list empty", "chain-list-empty.txt"),
        ("history data", "history.txt"),
    ] {
        golden(name, &run(&mut rig.forerun(words)).ok());
    }
}

#[test]
fn json_has_the_schemas_names() {
    let rig = Rig::new();
    serve(&rig, "data");
    let json = |words: &str| run(&mut rig.forerun(words)).json();
    let created = json("snapshot create data mon --horizon 3 --json");
    assert_eq!(created["snapshot"]["name"], "mon");
    assert_eq!(created["prediction_horizon"], 3);
    assert_eq!(json("snapshot list data --json")["snapshots"].as_array().unwrap().len(), 3);
    assert_eq!(json("history data --json")["history"][0]["added_blocks"], 1_200);
    assert_eq!(json("chain list data --json")["chains"][0]["epochs"][5], 13);
    assert_eq!(json("chain list data --explain --json")["chains"][0]["likeness"]["run_lengths"], 0.85);
    assert_eq!(json("threshold data 0.7 --json")["previous_threshold"], 0.5);
    let status = json("status data --json");
    assert_eq!(status["volume"]["device"], "/dev/ublkb7");
    assert_eq!(status["prefetch"]["state"], "on");
    let diff = json("snapshot diff data monday tuesday --json");
    let changes = diff["changes"].as_array().unwrap();
    assert_eq!(changes.len(), usize::try_from(CHANGES).unwrap());
    assert_eq!(
        changes[1],
        serde_json::json!({"block": 3, "offset_bytes": 196_608, "kind": "modified", "sub_blocks": 2})
    );
    assert_eq!(diff["summary"], serde_json::json!({"added": 9, "modified": 8, "deleted": 8}));
    let empty = json("snapshot diff data monday monday --json");
    assert!(empty["changes"].as_array().unwrap().is_empty());
}

#[test]
fn what_a_policy_keeps_is_explained_and_the_rest_goes() {
    let rig = Rig::new();
    serve(&rig, "old");
    serve(&rig, "empty");
    golden("retention-default.txt", &run(&mut rig.forerun("retention old")).ok());
    let set = "retention old --keep-last 3 --hourly 6 --daily 3 --weekly 0 --monthly 0 --max-size 1T";
    golden("retention.txt", &run(&mut rig.forerun(set)).ok());
    let explained = run(&mut rig.forerun("prune old --dry-run --explain")).ok();
    golden("prune-explain.txt", &explained);
    let pruned = run(&mut rig.forerun("prune old")).ok();
    golden("prune.txt", &pruned);
    let json = run(&mut rig.forerun("prune old --json")).json();
    assert_eq!(json["in_use"], serde_json::json!(["auto-9"]));
    let snapshots = json["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 60);
    assert_eq!((&snapshots[4]["what"], &snapshots[59]["what"]), (&"keep".into(), &"keep".into()));
    let nothing = run(&mut rig.forerun("prune empty --explain")).ok();
    assert!(
        nothing.ends_with("volume empty: 0 snapshots went, 0 kept, by the default policy\n"),
        "{nothing}"
    );

    let none = "retention old --keep-last 0 --hourly 0 --daily 0";
    run(&mut rig.forerun(none)).failed(2, "it would keep nothing");
    run(&mut rig.forerun("retention nowhere --daily 3")).failed(3, "there is no volume");
    run(&mut rig.forerun("retention old --max-size plenty")).failed(2, "plenty");
    let back = run(&mut rig.forerun("retention old --default --json")).json();
    assert_eq!((&back["hourly"], &back["max_count"]), (&48.into(), &2000.into()));
    std::fs::write(rig.volume("old").retention_file(), "dayly = 3").unwrap();
    run(&mut rig.forerun("prune old")).failed(1, "dayly");
}

#[test]
fn garbage_is_told_and_given_back() {
    let rig = Rig::new();
    serve(&rig, "data");
    serve(&rig, "empty");
    golden("gc-dry-run.txt", &run(&mut rig.forerun("gc data --dry-run")).ok());
    golden("gc.txt", &run(&mut rig.forerun("gc data")).ok());
    let told = run(&mut rig.forerun("gc data --dry-run --json")).json();
    assert_eq!((&told["gained_bytes"], &told["deleted_bytes"]), (&(42u64 << 20).into(), &0.into()));
    let none = run(&mut rig.forerun("gc empty --dry-run")).ok();
    assert!(none.ends_with("nothing to be merged or copied together\n"), "{none}");
    run(&mut rig.forerun("gc nowhere")).failed(3, "there is no volume nowhere");
}

#[test]
fn a_volume_grows_running_or_stopped() {
    let rig = Rig::new();
    serve(&rig, "data");
    golden("grow.txt", &run(&mut rig.forerun("grow data 2G")).ok());
    let grown = run(&mut rig.forerun("grow data +1G --json")).json();
    assert_eq!(
        (&grown["previous_size_bytes"], &grown["size_bytes"]),
        (&(1u64 << 30).into(), &(2u64 << 30).into())
    );
    assert_eq!(grown["device"], "/dev/ublkb7");
    assert_eq!(run(&mut rig.forerun("grow data 1G")).ok(), "volume data has 1.0 GiB already\n");
    run(&mut rig.forerun("grow data 512M")).failed(2, "does not shrink");
    run(&mut rig.forerun("grow data -1G")).failed(2, "-1G");
    serve(&rig, "old");
    run(&mut rig.forerun("grow old 2G")).failed(1, "cannot grow while its device is there");

    rig.configure("still");
    assert_eq!(
        run(&mut rig.forerun("grow still +1G")).ok(),
        "volume still has 2.0 GiB, had 1.0 GiB\n`forerun add still` shows it\n"
    );
    let size = || VolumeConfig::load_file(&rig.volume("still").config_file()).unwrap().geometry.size_bytes();
    assert_eq!(size(), 2 << 30);
    run(&mut rig.forerun("grow still 1G")).failed(2, "does not shrink");
    run(&mut rig.forerun("grow still 100T")).failed(2, "64 TiB");
    run(&mut rig.forerun("grow still +1000")).failed(2, "multiple of 64 KiB");
    assert_eq!(size(), 2 << 30);
    run(&mut rig.forerun("grow nowhere 2G")).failed(3, "there is no volume nowhere");

    golden("grow-fast.txt", &run(&mut rig.forerun("grow data --fast +1G")).ok());
    let grown = run(&mut rig.forerun("grow data --fast all --json")).json();
    assert_eq!(grown["size_bytes"], 4u64 << 30);
    assert!(run(&mut rig.forerun("grow data --fast 1G")).ok().contains("has 1.0 GiB already"));
    run(&mut rig.forerun("grow data --fast 512M")).failed(2, "does not shrink");
    run(&mut rig.forerun("grow data --fast 0")).failed(2, "more than 0");
    run(&mut rig.forerun("grow data 2G --fast 2G")).failed(2, "cannot be used with");
    run(&mut rig.forerun("grow data")).failed(2, "SIZE");
    run(&mut rig.forerun("grow still --fast +1G")).failed(4, "forerun add still");
}

#[test]
fn refusals_keep_their_words_and_codes() {
    let rig = Rig::new();
    serve(&rig, "data");
    run(&mut rig.forerun("threshold data 1.5"))
        .failed(2, "error: the prediction threshold is 1.5; the range is 0.05 to 1");
    run(&mut rig.forerun("threshold data -1")).failed(2, "the range is 0.05 to 1");
    run(&mut rig.forerun("snapshot create data mon --horizon 65")).failed(2, "the range is 1 to 64");
    run(&mut rig.forerun("snapshot delete data none")).failed(3, "volume data has no snapshot none");
    run(&mut rig.forerun("snapshot attach data none")).failed(3, "volume data has no snapshot none");
}

#[test]
fn attach_writes_back_first_and_then_starts_a_read_only_device() {
    let rig = Rig::new();
    serve(&rig, "data");
    good_target(&rig);
    assert_eq!(run(&mut rig.forerun("snapshot attach data monday -n 7")).ok(), "/dev/ublkb7\n");
    let calls = calls(&rig);
    assert!(calls.starts_with("add -t forerun --volume data -n 7 --snapshot monday --eventfd "), "{calls}");
    rig.configure("stopped");
    run(&mut rig.forerun("snapshot attach stopped monday")).ok();
}

#[test]
fn a_watch_goes_on_and_ends_with_its_reader() {
    let rig = Rig::new();
    serve(&rig, "data");
    let mut watch = Command::new(assert_cmd::cargo::cargo_bin!("forerun"))
        .args(["status", "data", "--watch", "--json"])
        .env("FORERUN_STATE_DIR", rig.paths.state_dir())
        .env("FORERUN_RUN_DIR", rig.paths.run_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = watch.stdout.take().unwrap();
    let (mut seen, mut byte) = (0, [0]);
    while seen < 2 {
        reader.read_exact(&mut byte).unwrap();
        seen += u32::from(byte == *b"\n");
    }
    drop(reader);
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match watch.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => break watch.kill().and_then(|()| watch.wait()).unwrap(),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let mut said = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}
