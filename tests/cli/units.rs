//! The systemd units: sound by systemd's own check, also with a file system that is mounted from the volume.

use std::fs;
use std::path::Path;

use super::rig::{Rig, run};

const UNITS: [&str; 2] = ["forerun@.service", "forerun-trainer@.service"];

fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/systemd").join(name);
    fs::read_to_string(path).unwrap()
}

/// What an entry of /etc/fstab with `_netdev,x-systemd.requires=forerun@data.service` becomes.
const MOUNT: &str = "\
[Unit]
Before=remote-fs.target
Requires=forerun@data.service
After=forerun@data.service
[Mount]
What=/dev/ublkb0
Where=/data
Type=ext4
Options=_netdev,x-systemd.requires=forerun@data.service
[Install]
WantedBy=remote-fs.target
";

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    let rig = Rig::new();
    let folder = rig.path().join("units");
    fs::create_dir(&folder).unwrap();
    // Of the programs only systemd asks whether they are there.
    for name in UNITS {
        let text = unit(name).replace("@BINDIR@/forerun-trainer", "/bin/true");
        let text = text.replace("@BINDIR@/forerun", "/bin/true");
        assert!(!text.contains("@BINDIR@"), "{name}");
        for instance in ["", "data"] {
            fs::write(folder.join(name.replace('@', &format!("@{instance}"))), &text).unwrap();
        }
    }
    fs::write(folder.join("data.mount"), MOUNT).unwrap();
    let mut command = assert_cmd::Command::new("systemd-analyze");
    command.arg("verify").arg("--man=no").current_dir(&folder);
    command.args(["forerun@data.service", "forerun-trainer@data.service", "data.mount"]);
    assert_eq!(run(&mut command).ok(), "");
}

#[test]
fn the_target_may_do_what_it_has_to() {
    let text = unit(UNITS[0]);
    let lines: Vec<&str> = text.lines().collect();
    // It unshares its mounts, and opens devices that do not exist when it starts.
    assert!(lines.contains(&"RestrictNamespaces=mnt"));
    for implies_a_device_list in ["ProtectClock=", "PrivateDevices=", "DeviceAllow=", "DevicePolicy="] {
        assert!(!lines.iter().any(|line| line.starts_with(implies_a_device_list)), "{implies_a_device_list}");
    }
    assert!(lines.contains(&"Before=remote-fs-pre.target"), "mounts of it come later and go earlier");
}
