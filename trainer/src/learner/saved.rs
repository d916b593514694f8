//! What a learner keeps across a restart besides the history and the weights: scores and calibrations.
//!
//! They cannot be made again from the history: the network has learned from those epochs since, so that
//! its scores on them would flatter it. They are kept only if they are of the last epoch in the history.

use std::io;
use std::path::{Path, PathBuf};

use forerun::config::read_small_file;
use forerun::geometry::Epoch;
use forerun::prediction::Horizon;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Learner;
use crate::calibrate::Calibration;
use crate::level::Leveled;
use crate::predictors::CALIBRATED;
use crate::select::Scoreboard;

const VERSION: u32 = 6;
/// No scores of ours are nearly as long, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    epoch: u32,
    scoreboard: Scoreboard,
    calibrations: Vec<Leveled>,
    /// The horizon learned, in epochs, what its scores have meant, and over how many epochs that is known.
    horizon: u32,
    horizon_calibration: Calibration,
    formula_calibration: Calibration,
    horizon_epochs: u32,
}

/// Scores that cannot be written or used.
#[derive(Debug, Error)]
pub enum SavedError {
    /// The file system refuses.
    #[error("cannot {action} the scores {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the scores {} cannot be used: {problem}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

impl Learner {
    /// Writes scores and calibrations durably.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn save_scores(&self, path: &Path) -> Result<(), SavedError> {
        let saved = Saved {
            version: VERSION,
            epoch: self.last.map_or(0, |epoch| epoch.0),
            scoreboard: self.scoreboard.clone(),
            calibrations: self.calibrations.clone(),
            horizon: self.horizon.epochs(),
            horizon_calibration: self.horizon_calibration.clone(),
            formula_calibration: self.formula_calibration.clone(),
            horizon_epochs: self.horizon_epochs,
        };
        serde_json::to_vec(&saved)
            .map_err(io::Error::other)
            .and_then(|bytes| crate::files::write_whole(path, &bytes))
            .map_err(|source| SavedError::Io { action: "write", path: path.to_path_buf(), source })
    }

    /// Goes on with the scores in a file; `false` where there is none.
    ///
    /// # Errors
    /// The file cannot be used, or is of another epoch than the last one taken; nothing changes then.
    pub fn load_scores(&mut self, path: &Path) -> Result<bool, SavedError> {
        let unusable = |problem: String| SavedError::Unusable { path: path.to_path_buf(), problem };
        let bytes = match read_small_file(path, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(SavedError::Io { action: "read", path: path.to_path_buf(), source }),
        };
        let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        let sound = saved.version == VERSION
            && saved.scoreboard.is_sound()
            && saved.calibrations.len() == CALIBRATED
            && saved.calibrations.iter().all(Leveled::is_sound)
            && saved.horizon_calibration.is_sound()
            && saved.formula_calibration.is_sound();
        let horizon = Horizon::new(saved.horizon).ok().filter(|_| sound);
        let Some(horizon) = horizon else {
            return Err(unusable("they are not of this version or out of range".to_owned()));
        };
        if Some(Epoch(saved.epoch)) != self.last {
            return Err(unusable(format!("they are of epoch {}, the history is not", saved.epoch)));
        }
        self.scoreboard = saved.scoreboard;
        self.calibrations = saved.calibrations;
        self.horizon = horizon;
        self.state.horizon_epochs = horizon.epochs();
        self.horizon_calibration = saved.horizon_calibration;
        self.formula_calibration = saved.formula_calibration;
        self.horizon_epochs = saved.horizon_epochs;
        Ok(true)
    }
}
