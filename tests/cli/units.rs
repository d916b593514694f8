//! The systemd units: sound by systemd's own check, also with a file system that is mounted from the volume.

use std::fs;
use std::path::Path;

use super::rig::{Rig, run};

const UNITS: [&str; 4] =
    ["forerun@.service", "forerun-trainer@.service", "forerun-snapshot@.service", "forerun-snapshot@.timer"];

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
    command.args(["forerun-snapshot@data.service", "forerun-snapshot@data.timer"]);
    assert_eq!(run(&mut command).ok(), "");
}

/// The value of the only line that sets `key`.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("{key} is not set"));
    assert_eq!(values.next(), None, "{key} is set twice");
    value
}

/// How exposed each may be found, in tenths; 38 and 10 with systemd 252.
const TARGET_EXPOSURE: u32 = 40;
const TRAINER_EXPOSURE: u32 = 12;

/// How exposed systemd finds a unit, in tenths: 0 to 100.
fn exposure(name: &str) -> u32 {
    let rig = Rig::new();
    let path = rig.path().join(name.replace('@', "@data"));
    let text = unit(name).replace("@BINDIR@/forerun-trainer", "/bin/true");
    fs::write(&path, text.replace("@BINDIR@/forerun", "/bin/true")).unwrap();
    let mut command = assert_cmd::Command::new("systemd-analyze");
    command.args(["security", "--offline=yes", "--no-pager"]).arg(&path);
    let said = run(&mut command).ok();
    let line = said.lines().find(|line| line.contains("Overall exposure level")).expect("a result");
    let number = line.split_whitespace().find_map(|word| word.parse::<f64>().ok()).expect("a number");
    (number * 10.0).round() as u32
}

#[test]
fn they_have_the_rights_they_need_and_no_more() {
    let (target, trainer) = (unit(UNITS[0]), unit(UNITS[1]));
    // Of these tests/device/security.py shows that they are enough.
    let rights = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_SYS_NICE CAP_SYS_RESOURCE";
    assert_eq!(value(&target, "CapabilityBoundingSet"), rights);
    assert_eq!(value(&trainer, "CapabilityBoundingSet"), "");
    // What learns from a volume cannot say where its tiers are.
    assert_eq!(value(&trainer, "ReadWritePaths"), "-/run/forerun/%i");
    assert_eq!(value(&trainer, "StateDirectory"), "forerun/%i/trainer");
    for text in [&target, &trainer] {
        assert_eq!(value(text, "NoNewPrivileges"), "yes");
        assert_eq!(value(text, "UMask"), "0077");
        assert!(!value(text, "RestrictAddressFamilies").contains("INET"), "neither talks to the network");
    }
    // A target has a device to make and tiers anywhere; what is left over is said in docs/threat-model.md.
    let (target, trainer) = (exposure(UNITS[0]), exposure(UNITS[1]));
    assert!(target <= TARGET_EXPOSURE, "{target}");
    assert!(trainer <= TRAINER_EXPOSURE, "{trainer}");
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
