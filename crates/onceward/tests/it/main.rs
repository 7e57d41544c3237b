//! What the library promises, one file for each behaviour.

mod dead;
mod duplicates;
mod in_doubt;
mod ledger;
mod lifecycle;
mod mismatch;
mod replay_bytes;
mod retries;
mod world;
