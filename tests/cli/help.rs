//! Help texts and completions.

use super::rig::{Rig, golden, run};

#[test]
fn help_is_as_written() {
    let rig = Rig::new();
    for (words, name) in [
        ("--help", "help.txt"),
        ("-h", "help-short.txt"),
        ("create --help", "help-create.txt"),
        ("add --help", "help-add.txt"),
        ("del --help", "help-del.txt"),
        ("recover --help", "help-recover.txt"),
        ("list --help", "help-list.txt"),
        ("snapshot --help", "help-snapshot.txt"),
        ("snapshot create --help", "help-snapshot-create.txt"),
        ("snapshot diff --help", "help-snapshot-diff.txt"),
        ("snapshot attach --help", "help-snapshot-attach.txt"),
        ("status --help", "help-status.txt"),
        ("predict --help", "help-predict.txt"),
        ("threshold --help", "help-threshold.txt"),
        ("export --help", "help-export.txt"),
        ("import --help", "help-import.txt"),
        ("prune --help", "help-prune.txt"),
        ("retention --help", "help-retention.txt"),
        ("check --help", "help-check.txt"),
        ("dump --help", "help-dump.txt"),
        ("repair --help", "help-repair.txt"),
        ("restore --help", "help-restore.txt"),
        ("clone --help", "help-clone.txt"),
        ("gc --help", "help-gc.txt"),
        ("grow --help", "help-grow.txt"),
        ("promote --help", "help-promote.txt"),
        ("rollback --help", "help-rollback.txt"),
        ("forget --help", "help-forget.txt"),
    ] {
        golden(name, &run(&mut rig.forerun(words)).ok());
    }
}

#[test]
fn every_shell_gets_completions() {
    let rig = Rig::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&mut rig.forerun(&format!("completions {shell}"))).ok();
        assert!(script.contains("snapshot") && script.contains("threshold"), "{shell}");
    }
}
