//! The network: an LSTM over a candidate's last epochs, joined with the wide inputs.
//!
//! [`Network`] is its shape and forward pass, [`Trainer`] learns from samples within a CPU budget,
//! and `weights` keeps them in a safetensors file. One set of weights serves all blocks of a volume.

mod network;
mod replay;
mod training;
mod weights;

pub use network::{HEAD, HIDDEN, Network, OUTPUTS};
pub use replay::{EPOCHS as REPLAY_EPOCHS, LEARNED_HORIZON_EPOCHS, Replay, Sample};
pub use training::{Scores, Trainer, TrainingReport};
pub use weights::WeightsError;
