//! What an operator can set, as TOML. Everything has a default; an unknown key is refused.

use std::path::{Path, PathBuf};

use forerun::config::read_small_file;
use serde::Deserialize;
use thiserror::Error;

/// The largest file that is read at all, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The trainer's settings.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// CPU time for scoring and training together, in seconds an epoch (0.05 to 600).
    pub cpu_seconds_per_epoch: f64,
    /// Training steps of the network an epoch, where the CPU time allows them (0 to 1,000).
    pub steps_per_epoch: u32,
    /// Blocks whose history is held in memory; the longest unchanged go first (1,024 to 16,777,216).
    pub tracked_blocks: usize,
    /// Candidates that were never changed but lie where growth may come next (0 to 1,048,576).
    pub frontier_candidates: usize,
    /// Epochs kept in the history on disk (16 to 100,000).
    pub history_epochs: u32,
    /// Below this mean average precision of the best predictor, predictions are said not to pay (0 to 1).
    pub pays_from_mean_average_precision: f64,
    /// From this probability on, something counts as predicted in precision and recall (0 to 1). What the target acts on
    /// is the volume's own threshold.
    pub threshold: f64,
    /// The seed of first weights and of the choice of samples.
    pub seed: u64,
    /// How epochs are linked into chains.
    pub chain: ChainConfig,
}

/// How epochs are linked into chains, and when they leave them.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ChainConfig {
    /// An epoch joins the chain it is most like from this similarity on (0 to 1).
    pub link_from_similarity: f64,
    /// A member less like the newest than this is pruned (0 to 1, below `link_from_similarity`).
    pub prune_below_similarity: f64,
    /// A member older than this is pruned, in hours (1 to 87,600).
    pub max_age_hours: u32,
    /// Chains at a time; the longest unused goes (1 to 256).
    pub max_chains: usize,
    /// Epochs a chain holds; the oldest goes (2 to 1,000).
    pub max_epochs: usize,
    /// Whether what followed alike epochs is predicted from; chains are made in any case.
    pub predict: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cpu_seconds_per_epoch: 2.0,
            steps_per_epoch: 16,
            tracked_blocks: 1 << 20,
            frontier_candidates: 64 << 10,
            history_epochs: 4096,
            pays_from_mean_average_precision: 0.1,
            threshold: 0.5,
            seed: 1,
            chain: ChainConfig::default(),
        }
    }
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            link_from_similarity: 0.6,
            prune_below_similarity: 0.45,
            max_age_hours: 35 * 24,
            max_chains: 32,
            max_epochs: 1000,
            predict: true,
        }
    }
}

/// A configuration that was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, has an unknown key or a value of another type.
    #[error("the configuration {} is wrong: {message}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// A value is out of range.
    #[error("{key} is {value}; the range is {min} to {max}")]
    Range {
        /// Which setting.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The smallest allowed.
        min: f64,
        /// The largest allowed.
        max: f64,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A file that cannot be read, that is not such a configuration, or a value out of range.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_small_file(path, FILE_BYTES_MAX)
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_path_buf(), message: error.to_string() })?;
        config.checked()
    }

    /// Gives the configuration back if every value is in its range.
    ///
    /// # Errors
    /// The first value that is not.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let chain = &self.chain;
        let checks = [
            ("cpu_seconds_per_epoch", self.cpu_seconds_per_epoch, 0.05, 600.0),
            ("steps_per_epoch", f64::from(self.steps_per_epoch), 0.0, 1000.0),
            ("tracked_blocks", self.tracked_blocks as f64, 1024.0, 16_777_216.0),
            ("frontier_candidates", self.frontier_candidates as f64, 0.0, 1_048_576.0),
            ("history_epochs", f64::from(self.history_epochs), 16.0, 100_000.0),
            ("pays_from_mean_average_precision", self.pays_from_mean_average_precision, 0.0, 1.0),
            ("threshold", self.threshold, 0.0, 1.0),
            ("chain.link_from_similarity", chain.link_from_similarity, 0.0, 1.0),
            ("chain.prune_below_similarity", chain.prune_below_similarity, 0.0, chain.link_from_similarity),
            ("chain.max_age_hours", f64::from(chain.max_age_hours), 1.0, 87_600.0),
            ("chain.max_chains", chain.max_chains as f64, 1.0, 256.0),
            ("chain.max_epochs", chain.max_epochs as f64, 2.0, 1000.0),
        ];
        for (key, value, min, max) in checks {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { key, value, min, max });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("written");
        Config::read(file.path())
    }

    #[test]
    fn defaults_hold_and_mistakes_are_named() {
        assert_eq!(read("").expect("empty is fine"), Config::default());
        assert_eq!(read("[chain]\nmax_chains = 3").expect("valid").chain.max_chains, 3);
        assert!(read("cpu_second_per_epoch = 1").expect_err("typo").to_string().contains("unknown field"));
        assert!(read("steps_per_epoch = 5000").expect_err("too many").to_string().contains("0 to 1000"));
        assert!(read("cpu_seconds_per_epoch = nan").is_err());
        assert!(Config::read(Path::new("/nonexistent/trainer.toml")).is_err());
    }
}
