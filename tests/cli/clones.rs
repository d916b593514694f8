//! `restore`, `clone`, `promote` and `forget`, with a target that is not real.

use std::fs;

use forerun::config::VolumeConfig;

use super::fake_server::serve;
use super::fake_target::{calls, target};
use super::rig::{Rig, golden, run};

const SEEN: &str = r#"{"uuid":"00000000-0000-0000-0000-000000000008","size_bytes":1073741824,"logical_block_bytes":4096,"epoch":41,"sealed_us":1795427400000000,"snapshots":["monday","tuesday"]}"#;
const RESTORE: &str = "restore cap --as data --fast fast.img --fast-size 128M";
const CLONE: &str = "clone data@monday try --fast try.img --fast-size 128M --capacity try";

fn seeing(rig: &Rig) {
    target(rig, &format!("echo '{SEEN}'"));
}

/// The text without what differs from test to test.
fn same(rig: &Rig, text: &str) -> String {
    text.replace(&rig.path().display().to_string(), "DIR")
}

#[test]
fn a_volume_is_restored_under_a_name() {
    let rig = Rig::new();
    seeing(&rig);
    golden("restore.txt", &same(&rig, &run(&mut rig.forerun(RESTORE)).ok()));
    let files = rig.volume("data");
    let config = VolumeConfig::load_file(&files.config_file()).unwrap();
    assert_eq!(config.uuid.as_u128(), 8);
    assert_eq!(config.geometry.size_bytes(), 1 << 30);
    assert_eq!(config.capacity.address, rig.path().join("cap").into());
    assert_eq!(fs::read_dir(files.state_dir()).unwrap().count(), 1, "no draft is left");
    let asked = same(&rig, &calls(&rig));
    assert_eq!(asked, "look --capacity DIR/cap\nrestore --config-file DIR/state/data/restoring.toml\n");
    run(&mut rig.forerun(RESTORE)).failed(1, "volume data is there already");
    run(&mut rig.forerun("restore cap --as other --fast f.img --fast-size 128M"))
        .failed(1, "volume data of this machine has this capacity tier");
}

#[test]
fn a_restore_that_fails_leaves_no_volume() {
    let rig = Rig::new();
    target(
        &rig,
        &format!("case $1 in look) echo '{SEEN}';; *) echo 'in use by process 7' >&2; exit 1;; esac"),
    );
    run(&mut rig.forerun(RESTORE)).failed(1, "in use by process 7");
    assert!(!rig.volume("data").state_dir().exists());
    run(&mut rig.forerun("restore cap@monday --as data --fast f.img --fast-size 128M"))
        .failed(2, "give --capacity PLACE");
    run(&mut rig.forerun(&format!("{RESTORE} --capacity other"))).failed(2, "a restored one keeps its own");
    run(&mut rig.forerun(&format!("{RESTORE} --horizon 65"))).failed(2, "1 to 64");
}

#[test]
fn a_snapshot_becomes_a_volume() {
    let rig = Rig::new();
    serve(&rig, "data");
    seeing(&rig);
    golden("clone.txt", &same(&rig, &run(&mut rig.forerun(CLONE)).ok()));
    let config = VolumeConfig::load_file(&rig.volume("try").config_file()).unwrap();
    assert!(config.uuid.as_u128() != 8 && config.capacity.address == rig.path().join("try").into());
    let asked = same(&rig, &calls(&rig));
    assert_eq!(
        asked,
        "look --capacity /capacity\n\
         clone --config-file DIR/state/try/cloning.toml --origin /capacity --snapshot monday\n"
    );
    run(&mut rig.forerun(CLONE)).failed(1, "volume try is there already");
    run(&mut rig.forerun("clone data x --fast f --fast-size 128M --capacity c")).failed(2, "which snapshot?");
    run(&mut rig.forerun("clone data@none x --fast f --fast-size 128M --capacity c"))
        .failed(3, "no snapshot none");
    // From the directory, without the volume.
    let words = "restore cap@tuesday --as late --fast late.img --fast-size 128M --capacity late --json";
    let made = run(&mut rig.forerun(words)).json();
    assert_eq!((&made["volume"], &made["snapshot"]), (&"late".into(), &"tuesday".into()));
    let words = "restore cap@friday --as x --fast x.img --fast-size 128M --capacity x";
    run(&mut rig.forerun(words)).failed(3, "there is no snapshot friday");
}

#[test]
fn a_clone_that_was_interrupted_goes_on() {
    let rig = Rig::new();
    rig.configure("data");
    target(&rig, &format!("case $1 in look) echo '{SEEN}';; *) kill -9 $$;; esac"));
    run(&mut rig.forerun(CLONE)).failed(1, "ended by itself");
    let draft = rig.volume("try").state_dir().join("cloning.toml");
    let begun = VolumeConfig::load_file(&draft).unwrap();
    seeing(&rig);
    run(&mut rig.forerun(CLONE)).ok();
    assert_eq!(VolumeConfig::load_file(&rig.volume("try").config_file()).unwrap().uuid, begun.uuid);
    assert!(!draft.exists());
}

#[test]
fn clones_are_listed_promoted_and_forgotten() {
    let rig = Rig::new();
    serve(&rig, "cloned");
    serve(&rig, "empty");
    golden("snapshot-list-clones.txt", &run(&mut rig.forerun("snapshot list cloned")).ok());
    let listed = run(&mut rig.forerun("snapshot list cloned --json")).json();
    assert_eq!(listed["clones"][0]["name"], "try");
    let promoted = run(&mut rig.forerun("promote cloned")).ok();
    assert!(promoted.starts_with("3.0 GiB that volume cloned shares are being copied"), "{promoted}");
    assert_eq!(run(&mut rig.forerun("promote empty")).ok(), "volume empty shares nothing with another one\n");
    target(&rig, "echo '{}'");
    let clone = "00000000-0000-0000-0000-000000000009";
    let forgotten = run(&mut rig.forerun(&format!("forget cloned {clone} --force"))).ok();
    assert!(forgotten.contains("keeps nothing for the clone"), "{forgotten}");
    assert_eq!(calls(&rig), format!("forget --capacity /capacity --clone {clone} --force\n"));
    run(&mut rig.forerun("forget cloned x")).failed(2, "<CLONE>");
}
