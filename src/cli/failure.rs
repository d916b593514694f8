//! How a command fails: what is printed and the exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed, for the reason printed |
//! | 2 | wrong usage, or a value that was refused; the message names the allowed range |
//! | 3 | no such volume, snapshot or device |
//! | 4 | the volume is not running: nothing answers on its socket |
//! | 5 | `check` found damage, `dump` could not read all |
//! | 6 | `repair` is done, and something is lost |

use std::io;
use std::process::ExitCode;

use thiserror::Error;

/// A failure with an exit code of its own; every other error has code 1.
#[derive(Debug, Error)]
pub enum Failure {
    /// A value that was refused.
    #[error("{0}")]
    Refused(String),
    /// Something that is not there.
    #[error("{0}")]
    NotFound(String),
    /// A volume that is not running.
    #[error("{0}")]
    NotRunning(String),
    /// A program that was run for this command failed, and has said why.
    #[error("the program exited with code {0}")]
    Program(u8),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Refused(_) => 2,
            Self::NotFound(_) => 3,
            Self::NotRunning(_) => 4,
            Self::Program(code) => *code,
        }
    }
}

/// Prints a failure and gives the exit code for it. A reader that went away is no failure.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let reader_is_gone = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
    if reader_is_gone {
        return ExitCode::SUCCESS;
    }
    let failure = error.downcast_ref::<Failure>();
    if !matches!(failure, Some(Failure::Program(_))) {
        eprintln!("error: {}", forerun::told(error));
    }
    ExitCode::from(failure.map_or(1, Failure::code))
}
