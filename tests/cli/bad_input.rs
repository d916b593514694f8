//! What is typed wrong, what is not there, what does not answer: message and exit code of each.

use std::fs;
use std::os::unix::net::UnixListener;

use super::fake_target;
use super::rig::{Rig, run};

#[test]
fn usage_and_ranges_are_code_2() {
    let rig = Rig::new();
    for (words, message) in [
        ("", "Usage: forerun <COMMAND>"),
        ("frobnicate", "unrecognized subcommand"),
        ("status", "<VOLUME>"),
        ("status ../etc", "it contains '/'"),
        ("status Data", "it contains 'D'"),
        ("snapshot create data .hidden", "it begins with '.'"),
        ("snapshot create data mon --horizon 0", "the range is 1 to 64"),
        ("add data -q 0", "1..=64"),
        ("add data -d 1025", "1..=1024"),
        ("add data -n x", "invalid digit"),
        ("del", "<VOLUME|--number <ID>|--all>"),
        ("del data -n 1", "cannot be used with"),
        ("del --force", "<VOLUME|--number <ID>|--all>"),
        ("del -n 1 -a", "cannot be used with"),
        ("del data --wait 1 --force", "cannot be used with"),
        ("del data --wait 3601", "3601 is not in"),
        ("recover data -n 1", "cannot be used with"),
        ("recover data --json --foreground", "cannot be used with"),
        ("list -a -n 1", "cannot be used with"),
        ("predict", "<VOLUME>"),
        ("predict data --limit -1", "unexpected argument"),
        ("predict data --plot data.jpg", "the file's name has to end in .svg or .png"),
        ("predict data --plot data.svg --epochs 401", "1..=400"),
        ("predict data --epochs 4", "--plot <FILE>"),
        ("check", "<VOLUME>"),
        ("check data --fast /x", "cannot be used with"),
        ("dump", "<VOLUME>"),
        ("dump data --layers x", "invalid digit"),
        ("repair data", "--to-fast <PATH>"),
        ("repair data --to-capacity /c --fast-size 1G", "--to-fast <PATH>"),
        ("repair data --to-capacity /c --without-fast", "--to-fast <PATH>"),
        ("repair data --to-fast /f --without-capacity", "--to-capacity <PLACE>"),
        (
            "repair data --to-fast /f --to-capacity /c --without-fast --without-capacity",
            "cannot be used with",
        ),
        ("status data --watch --interval 0", "1..=3600"),
        ("create v --size 10GB --fast /f --capacity /c", "read as 1000 by some and as 1024 by others"),
        ("create v --size 1.5G --fast /f --capacity /c", "use the next smaller unit"),
        ("create v --size 1G --fast /f --capacity /c --logical-block-size 1024", "512"),
        ("create v --size 1M --fast-size 1G --fast f --capacity c", "64 MiB to 64 TiB"),
        ("create v --size 65T --fast-size 1G --fast f --capacity c", "64 MiB to 64 TiB"),
        ("create v --size 67108865 --fast-size 1G --fast f --capacity c", "a multiple of 64 KiB"),
        ("create v --size 1G --fast-size 1G --fast f --capacity c --sync-interval 0", "1 to 3600"),
        ("create v --size 1G --fast-size 1G --fast f --capacity c --threshold 2", "0.05 to 1"),
        ("create v --size 1G --fast-size 1G --fast f --capacity c --horizon 65", "1 to 64"),
        ("create v --size 1G --fast f --capacity c", "give --fast-size to have it made"),
        ("create v --size 1G --fast bin --capacity c", "neither a block device nor a file"),
        ("create v --size 1G --fast-size 1G --fast f --capacity bin/forerun", "is not a directory"),
    ] {
        run(&mut rig.forerun(words)).failed(2, message);
    }
    assert!(!rig.paths.state_dir().exists(), "nothing was changed");
}

#[test]
fn what_is_not_there_is_code_3() {
    let rig = Rig::new();
    for words in
        ["status none", "snapshot list none", "history none", "threshold none 0.5", "chain list none"]
    {
        run(&mut rig.forerun(words)).failed(3, "there is no volume none here");
    }
    run(&mut rig.forerun("check none")).failed(3, "there is no volume \"none\" here");
    run(&mut rig.forerun("dump none")).failed(3, "there is no volume \"none\" here");
    run(&mut rig.forerun("repair none --to-fast /f")).failed(3, "there is no volume \"none\" here");
    run(&mut rig.forerun("add none")).failed(3, "there is no volume \"none\" here");
    rig.configure("data");
    run(&mut rig.forerun("del data")).failed(3, "volume data has no device");
    run(&mut rig.forerun("del data@mon")).failed(3, "snapshot mon of volume data has no device");
    run(&mut rig.forerun("recover data")).failed(3, "volume data has no device");
    run(&mut rig.forerun("recover -n 5")).failed(3, "no volume has /dev/ublkb5");
    let words = "create v --size 1G --fast /dev/not-a-device --capacity c";
    run(&mut rig.forerun(words)).failed(3, "/dev/not-a-device is not there");
}

#[test]
fn a_volume_that_is_not_running_is_code_4() {
    let rig = Rig::new();
    rig.configure("data");
    for words in ["status data", "snapshot create data", "history data", "threshold data 0.5"] {
        run(&mut rig.forerun(words)).failed(4, "volume data is not running");
    }
    fs::create_dir_all(rig.volume("data").run_dir()).unwrap();
    drop(UnixListener::bind(rig.volume("data").api_socket()).unwrap());
    run(&mut rig.forerun("status data")).failed(4, "start it with `forerun add data`");
}

#[test]
fn a_broken_configuration_is_named() {
    let rig = Rig::new();
    rig.configure("data");
    fs::write(rig.volume("data").config_file(), "version = 9\n").unwrap();
    run(&mut rig.forerun("add data")).failed(1, "this program knows version 1");
    assert!(run(&mut rig.forerun("list")).ok().contains("broken: "));
}

#[test]
fn a_target_that_is_not_installed_is_said() {
    let rig = Rig::new();
    rig.configure("data");
    run(&mut rig.forerun("add data --no-trainer")).failed(1, "cannot find ublk-target");
    run(&mut rig.forerun("check data")).failed(1, "cannot find ublk-target");
}

#[test]
fn a_targets_exit_code_is_kept() {
    let rig = Rig::new();
    rig.configure("data");
    fake_target::target(&rig, "echo 'segment 3: wrong checksum' >&2; exit 5");
    run(&mut rig.forerun("check data")).failed(5, "segment 3: wrong checksum");
    run(&mut rig.forerun("check --fast /f --capacity /c --json")).failed(5, "segment 3");
    run(&mut rig.forerun("check --capacity /c")).failed(5, "segment 3");
    run(&mut rig.forerun("dump data --map --layers 4 --segments --blocks 1..9 --json"))
        .failed(5, "segment 3");
    run(&mut rig.forerun("repair data --to-fast f --fast-size 1G --to-capacity /c --dry-run"))
        .failed(5, "segment 3");
    run(&mut rig.forerun("del -n 3")).failed(5, "segment 3");
    run(&mut rig.forerun("list -a")).failed(5, "segment 3");
    let new_fast = rig.path().join("f");
    let calls = format!(
        "check --volume data\ncheck --fast /f --capacity /c --json\ncheck --capacity /c\n\
         dump --volume data --map --layers 4 --json --segments --blocks 1..9\n\
         repair --volume data --to-fast {} --to-capacity /c --fast-size 1073741824 --dry-run\ndel -n 3\nlist\n",
        new_fast.display()
    );
    assert_eq!(fake_target::calls(&rig), calls);
}
