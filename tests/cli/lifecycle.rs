//! From `create` to `del`, with a target that is not real.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use forerun::config::{DeviceRecord, VolumeConfig};

use super::fake_target::{self, calls, good_target, target};
use super::rig::{Rig, copy_program, golden, run};

const CREATE: &str = "create data --size 1G --fast fast.img --fast-size 128M --capacity cap --threshold 0.7";

#[test]
fn create_formats_first_and_notes_the_configuration_last() {
    let rig = Rig::new();
    target(&rig, "test ! -e $FORERUN_STATE_DIR/data/volume.toml && cp $3 seen.toml");
    let printed = run(&mut rig.forerun(CREATE)).ok();
    assert!(printed.contains("created volume data of 1.0 GiB"), "{printed}");
    let files = rig.volume("data");
    let config = VolumeConfig::load_file(&files.config_file()).unwrap();
    assert_eq!(VolumeConfig::load_file(&rig.path().join("seen.toml")).unwrap(), config);
    assert_eq!(config.fast.path, rig.path().join("fast.img"));
    assert_eq!(config.fast.size_bytes, Some(128 << 20));
    assert!(config.prediction);
    assert_eq!(fs::read_dir(files.state_dir()).unwrap().count(), 1, "no draft is left");
    assert_eq!(fs::metadata(files.state_dir()).unwrap().permissions().mode() & 0o777, 0o700);
    run(&mut rig.forerun(CREATE)).failed(1, "volume data is there already");
    assert_eq!(VolumeConfig::load_file(&files.config_file()).unwrap(), config);
}

#[test]
fn a_create_that_fails_leaves_no_volume() {
    let rig = Rig::new();
    target(&rig, "echo 'the fast tier holds another volume' >&2; exit 1");
    run(&mut rig.forerun(CREATE)).failed(1, "the fast tier holds another volume");
    assert!(!rig.volume("data").state_dir().exists());
    let created = {
        target(&rig, "");
        run(&mut rig.forerun(&format!("{CREATE} --prediction off --json"))).json()
    };
    assert_eq!(created["size_bytes"], 1 << 30);
    assert_eq!(created["threshold"], 0.7);
    assert_eq!(created["prediction"], false);
}

#[test]
fn add_waits_for_the_target_and_prints_the_device() {
    let rig = Rig::new();
    rig.configure("data");
    good_target(&rig);
    assert_eq!(run(&mut rig.forerun("add data --no-trainer")).ok(), "/dev/ublkb7\n");
    let started = run(&mut rig.forerun("add data -n 7 -q 2 -d 64 --no-trainer --json")).json();
    assert_eq!((&started["device"], &started["dev_id"]), (&"/dev/ublkb7".into(), &7.into()));
    let calls = calls(&rig);
    assert!(calls.starts_with("add -t forerun --volume data --eventfd "), "{calls}");
    assert!(calls.contains("add -t forerun --volume data -n 7 -q 2 -d 64 --eventfd "), "{calls}");
}

#[test]
fn add_shows_why_a_target_did_not_start() {
    let rig = Rig::new();
    rig.configure("data");
    target(&rig, "echo 'the kernel has no ublk; load ublk_drv' >&2; exit 1");
    run(&mut rig.forerun("add data")).failed(1, "the kernel has no ublk; load ublk_drv");
    target(&rig, "eval \"printf '\\\\376\\\\377\\\\377\\\\377\\\\377\\\\377\\\\377\\\\377' >&$fd\"; exit 1");
    run(&mut rig.forerun("add data")).failed(1, "said nothing; try --foreground");
    let log = fs::read_to_string(rig.volume("data").target_log()).unwrap();
    assert_eq!(log.matches("no ublk").count(), 1);
}

#[test]
fn add_starts_the_trainer_and_does_without_it() {
    let rig = Rig::new();
    rig.configure("data");
    good_target(&rig);
    let done = run(&mut rig.forerun("add data"));
    assert_eq!((done.code, done.out.as_str()), (0, "/dev/ublkb7\n"));
    assert!(done.err.contains("runs without predictions: cannot find forerun-trainer"), "{}", done.err);
    fake_target::trainer(&rig);
    run(&mut rig.forerun("add data")).ok();
    let pid = fs::read_to_string(rig.volume("data").trainer_pid()).unwrap();
    assert_eq!(fs::read_to_string(rig.path().join("trainer-calls")).unwrap(), "run data\n");
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn foreground_becomes_the_target() {
    let rig = Rig::new();
    rig.configure("data");
    target(&rig, "echo foreground; exit 9");
    let done = run(&mut rig.forerun("add data --foreground"));
    assert_eq!((done.code, done.out.as_str()), (9, "foreground\n"));
    assert_eq!(calls(&rig), "add -t forerun --volume data\n");
}

#[test]
fn records_of_devices_that_are_gone_do_not_stand_in_the_way() {
    let rig = Rig::new();
    rig.configure("data");
    good_target(&rig);
    let files = rig.volume("data");
    fs::create_dir_all(files.run_dir()).unwrap();
    let record = DeviceRecord { dev_id: 987_654, pid: u32::MAX, snapshot: None };
    record.store(&files.device_file(None)).unwrap();
    run(&mut rig.forerun("recover data")).failed(3, "is gone, as after a reboot");
    assert!(run(&mut rig.forerun("list")).ok().contains("stopped"));
    run(&mut rig.forerun("del data")).ok();
    assert_eq!(calls(&rig), "", "that number may be another's device by now");
    assert!(!files.device_file(None).exists());
    run(&mut rig.forerun("add data --no-trainer --or-recover")).ok();
}

#[test]
fn list_shows_volumes_without_a_target_installed() {
    let rig = Rig::new();
    let empty = run(&mut rig.forerun("list")).ok();
    assert!(empty.contains("no volumes in"), "{empty}");
    rig.configure("data");
    rig.configure("b-2");
    golden("list.txt", &run(&mut rig.forerun("list")).ok());
    let json = run(&mut rig.forerun("list --json")).json();
    assert_eq!(json["volumes"][1]["volume"], "data");
    assert_eq!(json["volumes"][1]["state"], "stopped");
    assert_eq!(json["volumes"][1]["device"], serde_json::Value::Null);
}

#[test]
fn del_stops_the_trainer_that_add_started_and_no_other_process() {
    let rig = Rig::new();
    rig.configure("data");
    let files = rig.volume("data");
    fs::create_dir_all(files.run_dir()).unwrap();
    let gone = DeviceRecord { dev_id: 987_654, pid: u32::MAX, snapshot: None };
    // Looks like a trainer of the volume, and like something else.
    for (name, is_stopped) in [("/forerun-trainer", true), ("/editor", false)] {
        let program = rig.path().join("bin").join(name.trim_start_matches('/'));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        copy_program("/bin/sh".as_ref(), &program);
        let mut child = std::process::Command::new(&program)
            .args(["-c", "read line", "data"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        gone.store(&files.device_file(None)).unwrap();
        fs::write(files.trainer_pid(), child.id().to_string()).unwrap();
        run(&mut rig.forerun("del data")).ok();
        assert!(!files.trainer_pid().exists());
        if !is_stopped {
            assert!(child.try_wait().unwrap().is_none(), "still there");
            child.kill().unwrap();
        }
        child.wait().unwrap();
    }
}

/// A process that looks like the trainer of a volume, noted as the one that `add` started.
fn noted_trainer(rig: &Rig, name: &str) -> std::process::Child {
    let files = rig.volume(name);
    let program = rig.path().join("bin/forerun-trainer");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    if !program.exists() {
        copy_program("/bin/sh".as_ref(), &program);
    }
    let child = std::process::Command::new(&program)
        .args(["-c", "read line", name])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    fs::create_dir_all(files.run_dir()).unwrap();
    fs::write(files.trainer_pid(), child.id().to_string()).unwrap();
    child
}

#[test]
fn del_by_number_and_of_all_leave_no_record_and_no_trainer() {
    for (words, dev_ids) in [("del -n 987654", &[987_654][..]), ("del -a", &[987_654, 987_655])] {
        let rig = Rig::new();
        let names = ["data", "other"];
        let mut trainers = Vec::new();
        for (name, dev_id) in names.iter().zip([987_654, 987_655]) {
            rig.configure(name);
            trainers.push((noted_trainer(&rig, name), dev_ids.contains(&dev_id)));
            let record = DeviceRecord { dev_id, pid: u32::MAX, snapshot: None };
            record.store(&rig.volume(name).device_file(None)).unwrap();
        }
        target(&rig, "");
        run(&mut rig.forerun(words)).ok();
        assert_eq!(calls(&rig), format!("{words}\n"));
        for ((mut trainer, deleted), name) in trainers.into_iter().zip(names) {
            assert_eq!(rig.volume(name).device_file(None).exists(), !deleted, "{words}: {name}");
            if !deleted {
                assert!(trainer.try_wait().unwrap().is_none(), "{words}: the trainer of {name}");
                trainer.kill().unwrap();
            }
            trainer.wait().unwrap();
        }
    }
}

#[test]
fn del_of_all_goes_on_after_a_failure_and_says_so() {
    let rig = Rig::new();
    rig.configure("data");
    let mut trainer = noted_trainer(&rig, "data");
    target(&rig, "echo 'device 3: in use' >&2; exit 1");
    run(&mut rig.forerun("del -a --force")).failed(1, "device 3: in use");
    assert_eq!(calls(&rig), "del -a --force\n");
    trainer.wait().unwrap();
}

#[test]
fn a_target_and_a_trainer_get_a_session_of_their_own() {
    let rig = Rig::new();
    rig.configure("data");
    // The session's number is the sixth field; a script's own number is its parent's last line.
    let note = rig.path().join("sessions").display().to_string();
    let noting = format!("set -- $(cat /proc/$$/stat); echo \"$1 $6\" >> {note}; set -- \"$args\"");
    target(
        &rig,
        &format!("args=\"$*\"; {noting}\neval \"printf '\\\\010\\\\0\\\\0\\\\0\\\\0\\\\0\\\\0\\\\0' >&$fd\""),
    );
    fake_target::trainer(&rig);
    run(&mut rig.forerun("add data")).ok();
    let noted = fs::read_to_string(&note).unwrap();
    let words: Vec<&str> = noted.split_whitespace().collect();
    assert!(matches!(words[..], [pid, session] if pid == session), "of the target: {noted}");
    let pid = fs::read_to_string(rig.volume("data").trainer_pid()).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap();
    assert_eq!(session, pid.trim(), "of the trainer: {stat}");
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn options_of_list_and_del_go_on_to_the_target() {
    let rig = Rig::new();
    target(&rig, "");
    for words in [
        "list -n 3 --json",
        "list --json",
        "list -a --json",
        "list -a",
        "del -n 3 --force",
        "del -n 3 --wait 5",
    ] {
        run(&mut rig.forerun(words)).ok();
    }
    assert_eq!(calls(&rig), "list -n 3 --json\nlist --json\nlist\ndel -n 3 --force\ndel -n 3 --wait 5\n");
}

#[test]
fn create_goes_on_where_it_was_killed() {
    let rig = Rig::new();
    let seen = rig.path().join("seen").display().to_string();
    let words = "create data --size 1G --fast fast.img --fast-size 256M --capacity tier";
    let uuids = || {
        let seen = fs::read_to_string(&seen).unwrap_or_default();
        seen.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let noting = format!("grep uuid \"$fd\" >> {seen}");
    let draft = rig.volume("data").state_dir().join("creating.toml");
    // Killed while the tiers are made.
    target(&rig, &format!("{noting}\nkill -9 $$"));
    run(&mut rig.forerun(words)).failed(1, "ublk-target ended by itself");
    assert!(draft.exists() && !rig.volume("data").config_file().exists());
    // Other options would be another volume.
    run(&mut rig.forerun("create data --size 2G --fast fast.img --fast-size 256M --capacity tier"))
        .failed(2, "Repeat it as it was");
    // A failure is undone by the target, and forgotten.
    target(&rig, &format!("{noting}\nexit 1"));
    run(&mut rig.forerun(words)).failed(1, "");
    assert!(!draft.exists());
    target(&rig, &format!("{noting}\nkill -9 $$"));
    run(&mut rig.forerun(words)).failed(1, "ublk-target ended by itself");
    target(&rig, &noting);
    run(&mut rig.forerun(words)).ok();
    assert!(!draft.exists() && rig.volume("data").config_file().exists());
    let uuids = uuids();
    assert_eq!(uuids.len(), 4, "{uuids:?}");
    assert_eq!((&uuids[0], &uuids[2]), (&uuids[1], &uuids[3]), "the same volume is gone on with");
    assert_ne!(uuids[1], uuids[2], "a volume that was taken back does not come again");
}
