//! forerun's sidecar: learns from change vectors which blocks will change next, and publishes it.
//!
//! The data path never waits for it: it may be absent, slow, killed or wrong. What it keeps can be rebuilt
//! from the target. In the order in which an epoch passes through:
//!
//! - [`service`] receives change vectors from the target, and goes on for ever
//! - [`history`] keeps them
//! - [`learner`] is one volume's learning: it scores what it predicted, learns, and predicts again, out of
//!   [`state`] ([`activity`] in a [`block_map`], [`association`], [`epochs`], [`frontier`], [`similar`]), [`facts`] and [`inputs`] of each candidate,
//!   the [`predictors`] with [`contexts`], [`logistic`], [`trees`] and [`model`], [`calibrate`] and [`level`], [`score`] and [`select`]
//! - [`chain`] links epochs that are alike
//! - [`publish`] turns probabilities into the prediction table
//!
//! [`evaluate`] runs the same learner over block traces.

pub mod activity;
pub mod association;
pub mod block_map;
pub mod calibrate;
pub mod chain;
pub mod config;
pub mod contexts;
pub mod cpu;
pub mod epochs;
pub mod evaluate;
pub mod facts;
pub mod files;
pub mod frontier;
pub mod history;
pub mod inputs;
pub mod learner;
pub mod level;
pub mod logistic;
pub mod model;
pub mod predictors;
pub mod publish;
pub mod rng;
pub mod score;
pub mod select;
pub mod service;
pub mod similar;
pub mod state;
#[cfg(test)]
mod testing;
pub mod trees;
