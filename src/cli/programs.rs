//! The sibling programs: where they are, and running one of them for a command.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, anyhow};

use super::failure::Failure;

/// The data path.
pub const TARGET: &str = "ublk-target";
/// The sidecar that learns.
pub const TRAINER: &str = "forerun-trainer";
/// The variable that names the directory of the two.
const LIBEXEC_VARIABLE: &str = "FORERUN_LIBEXEC";

/// Finds a program: beside this one, then in `$FORERUN_LIBEXEC`, then in `$PATH`.
///
/// # Errors
/// It is in none of them.
pub fn find(name: &str) -> anyhow::Result<PathBuf> {
    let own = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let libexec = env::var_os(LIBEXEC_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(libexec)
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            anyhow!("cannot find {name} beside this program, in ${LIBEXEC_VARIABLE} or in $PATH; install it, or set {LIBEXEC_VARIABLE}")
        })
}

/// Runs `ublk-target` with these arguments to its end, with this program's input and output.
///
/// # Errors
/// It cannot be started; it fails, and has said why.
pub fn run_target<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> anyhow::Result<()> {
    let program = find(TARGET)?;
    let status = Command::new(&program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if status.success() { Ok(()) } else { Err(failed(status)) }
}

/// Runs `ublk-target` with these arguments to its end and gives what it printed; its messages go to standard error.
///
/// # Errors
/// As [`run_target`].
pub fn ask_target<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> anyhow::Result<Vec<u8>> {
    let program = find(TARGET)?;
    let output = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if output.status.success() { Ok(output.stdout) } else { Err(failed(output.status)) }
}

/// Becomes `ublk-target` with these arguments; returns only if that fails.
pub fn become_target(mut command: Command) -> anyhow::Error {
    let error = command.exec();
    anyhow!(error).context(format!("cannot run {}", Path::new(command.get_program()).display()))
}

fn failed(status: ExitStatus) -> anyhow::Error {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Failure::Program(code).into(),
        None => anyhow!("{TARGET} ended by itself: {status}"),
    }
}
