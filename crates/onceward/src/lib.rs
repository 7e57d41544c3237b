//! Every post lands, once.

pub use onceward_core as core;

pub mod store;
pub mod upstream;
