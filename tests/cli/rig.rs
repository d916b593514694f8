//! A machine of its own for each test: state, run and program directories.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use forerun::config::{Paths, VolumeConfig, VolumePaths};

/// The directories; gone when the test ends.
pub struct Rig {
    directory: tempfile::TempDir,
    pub paths: Paths,
}

impl Rig {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        fs::create_dir(directory.path().join("libexec")).unwrap();
        Self { directory, paths }
    }

    /// `forerun` with these words, separated by blanks.
    pub fn forerun(&self, words: &str) -> Command {
        let mut command = Command::new(self.program());
        command
            .args(words.split_whitespace())
            .env_clear()
            .env("FORERUN_STATE_DIR", self.paths.state_dir())
            .env("FORERUN_RUN_DIR", self.paths.run_dir())
            .env("FORERUN_LIBEXEC", self.libexec())
            .env("PATH", "/usr/bin:/bin")
            .env("COLUMNS", "100")
            .current_dir(self.directory.path())
            .timeout(std::time::Duration::from_secs(60));
        command
    }

    /// `forerun` alone in a directory, so that no real `ublk-target` is found beside it.
    fn program(&self) -> PathBuf {
        let alone = self.directory.path().join("bin/forerun");
        if !alone.exists() {
            fs::create_dir_all(alone.parent().unwrap()).unwrap();
            // A link would not do: the program looks beside what it really is.
            copy_program(assert_cmd::cargo::cargo_bin!("forerun"), &alone);
        }
        alone
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn libexec(&self) -> PathBuf {
        self.directory.path().join("libexec")
    }

    pub fn volume(&self, name: &str) -> VolumePaths {
        self.paths.volume(&name.parse().unwrap())
    }

    /// A volume that is configured and not running.
    pub fn configure(&self, name: &str) {
        let text = format!(
            "version = 1\nname = \"{name}\"\nuuid = \"00000000-0000-0000-0000-000000000007\"\n\
             size_bytes = 1073741824\nlogical_block_bytes = 4096\nsync_interval_seconds = 60\n\
             threshold = 0.5\nprediction_horizon = 1\nprediction = true\ncreated_us = 0\n\
             [fast]\npath = \"/fast.img\"\n[capacity]\npath = \"/capacity\"\n"
        );
        VolumeConfig::from_toml(&text).unwrap().store(&self.volume(name)).unwrap();
    }
}

/// Copies a program. Another process does it: while this one had the copy open for writing, a program
/// that another test starts could inherit that, and the kernel would refuse to run the copy ("text
/// file busy").
pub fn copy_program(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// What a command did.
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn run(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    Done {
        code: output.status.code().expect("not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "printed: {}", self.out);
        self.out
    }

    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Failed with this code, nothing on standard output, and these words in the message.
    #[track_caller]
    pub fn failed(self, code: i32, words: &str) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        assert!(self.err.contains(words), "{words:?} is not in: {}", self.err);
    }
}

/// Compares a text with the one in `tests/cli/golden`.
#[track_caller]
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name);
    if std::env::var_os("FORERUN_BLESS").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; FORERUN_BLESS=1 writes it anew", path.display());
}
