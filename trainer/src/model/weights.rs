//! The weights in a safetensors file.
//!
//! The file is written beside, synced and renamed: it is there whole or not at all. A tensor `layout`
//! says which inputs the weights are for; a file with other inputs, names, shapes or with numbers that
//! are not finite is refused, and the caller starts afresh.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use forerun::config::read_small_file;
use thiserror::Error;

use super::network::Network;
use crate::epochs::SEQUENCE_EPOCHS;
use crate::inputs::{LAYOUT_VERSION, PER_EPOCH, WIDE};

const LAYOUT: &str = "layout";
/// No file of ours is nearly this long, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Weights that cannot be written or used.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The file system refuses.
    #[error("cannot {action} the weights {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the weights {} cannot be used: {problem}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// candle refuses.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

fn layout() -> [u32; 4] {
    [LAYOUT_VERSION, SEQUENCE_EPOCHS as u32, PER_EPOCH as u32, WIDE as u32]
}

impl Network {
    /// Writes the weights durably, in place of the file at `path`.
    ///
    /// # Errors
    /// The file system refuses; the file before is then still there.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        let mut tensors = self.snapshot()?;
        tensors.insert(LAYOUT.to_owned(), Tensor::new(&layout(), &Device::Cpu)?);
        let beside = path.with_extension("new");
        candle_core::safetensors::save(&tensors, &beside)?;
        crate::files::put_in_place(&beside, path).map_err(|source| WeightsError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        })
    }

    /// A network with the weights from `path`; `None` where there is no file.
    ///
    /// # Errors
    /// The file cannot be read or is not of this network.
    pub fn load(path: &Path) -> Result<Option<Self>, WeightsError> {
        let io = |source| WeightsError::Io { action: "read", path: path.to_path_buf(), source };
        let unusable = |problem: String| WeightsError::Unusable { path: path.to_path_buf(), problem };
        let bytes = match read_small_file(path, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let tensors: HashMap<String, Tensor> = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| unusable(error.to_string()))?;
        let found: Option<Vec<u32>> = tensors.get(LAYOUT).and_then(|tensor| tensor.to_vec1().ok());
        if found.as_deref() != Some(&layout()) {
            return Err(unusable("they are for other inputs".to_owned()));
        }
        let network = Self::new(0)?;
        for (name, variable) in network.named() {
            let tensor = tensors.get(&name).ok_or_else(|| unusable(format!("{name} is missing")))?;
            if tensor.shape() != variable.shape() || tensor.dtype() != DType::F32 {
                return Err(unusable(format!("{name} has another shape")));
            }
            let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            if !values.iter().all(|value| value.is_finite()) {
                return Err(unusable(format!("{name} has numbers that are not finite")));
            }
            variable.set(tensor)?;
        }
        Ok(Some(network))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn weights_come_back_and_everything_else_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("weights.safetensors");
        assert!(Network::load(&path).expect("no file").is_none());
        let network = Network::new(9).expect("made");
        network.save(&path).expect("saved");
        let again = Network::load(&path).expect("readable").expect("there");
        for ((name, a), (_, b)) in network.named().iter().zip(again.named()) {
            let numbers = |var: &Tensor| var.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
            assert_eq!(numbers(a).expect("numbers"), numbers(&b).expect("numbers"), "{name}");
        }
        let good = fs::read(&path).expect("readable");
        let mut rng = Rng::new(2);
        for _ in 0..200 {
            let mut bad = good.clone();
            bad.truncate(rng.below(good.len()));
            fs::write(&path, &bad).expect("written");
            assert!(Network::load(&path).is_err(), "cut to {}", bad.len());
        }
        let mut tensors = network.snapshot().expect("copied");
        candle_core::safetensors::save(&tensors, &path).expect("saved");
        assert!(Network::load(&path).err().expect("no layout").to_string().contains("other inputs"));
        tensors.insert(LAYOUT.to_owned(), Tensor::new(&layout(), &Device::Cpu).expect("made"));
        tensors.insert(
            "out.bias".to_owned(),
            Tensor::new(&[f32::NAN; crate::model::OUTPUTS], &Device::Cpu).expect("made"),
        );
        candle_core::safetensors::save(&tensors, &path).expect("saved");
        assert!(Network::load(&path).err().expect("NaN").to_string().contains("not finite"));
    }
}
