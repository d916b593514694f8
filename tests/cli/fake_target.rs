//! A `ublk-target` that notes how it was called and answers as it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::rig::{Rig, copy_program};

fn install(rig: &Rig, name: &str, script: &str) {
    let draft = rig.path().join("draft");
    fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    let path = rig.libexec().join(name);
    // A new file each time: the one before may still run.
    let _ = fs::remove_file(&path);
    copy_program(&draft, &path);
}

/// Every call is added to `calls`; then the script runs.
pub fn target(rig: &Rig, script: &str) {
    let calls = rig.path().join("calls").display().to_string();
    install(rig, "ublk-target", &format!("echo \"$@\" >> {calls}\nfor fd in \"$@\"; do :; done\n{script}"));
}

/// A target whose device becomes /dev/ublkb7; 8 is its answer on the last argument's descriptor.
pub fn good_target(rig: &Rig) {
    target(
        rig,
        "case \"$*\" in *--eventfd*) eval \"printf '\\\\010\\\\0\\\\0\\\\0\\\\0\\\\0\\\\0\\\\0' >&$fd\";; esac",
    );
}

pub fn trainer(rig: &Rig) {
    // A script's own name is not in its command line: the interpreter's is.
    let calls = rig.path().join("trainer-calls").display().to_string();
    install(rig, "forerun-trainer", &format!("echo \"$@\" >> {calls}\nexec sleep 20"));
}

/// How the target was called, a line a call.
pub fn calls(rig: &Rig) -> String {
    fs::read_to_string(rig.path().join("calls")).unwrap_or_default()
}
