//! Whole worlds from a seed: callers, workers, nodes, the ledger and upstreams on one thread, with time
//! that passes only when nothing else can happen.
//!
//! The nodes are the real engine on the reference ledger. Faults come in at its three doors, which
//! are all there is: a node dies at a store call, before or after the write; the store refuses, or
//! its answer is lost; a node is paused for longer than its lease and goes on; a clock jumps; an
//! answer is lost, late, cut off, or tells nothing. The auditor counts what arrives at the
//! upstreams and holds the promises against it. One seed is one world, always the same.

mod audit;
mod callers;
mod claims;
mod ledger;
mod life;
mod node;
mod people;
mod plan;
mod publishers;
mod routes;
mod tally;
mod upstream;
mod workers;
mod world;

pub use tally::{Amount, Tally, run_many};
pub use world::{Report, run};
