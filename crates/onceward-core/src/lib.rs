//! The pure core of Onceward: what a key, an operation and an attempt are, and every decision
//! about them. No clock, no randomness, no I/O; time is an argument. Use the crate `onceward`,
//! which re-exports this one.
//!
//! In reading order:
//! [`key`] and [`fingerprint`] say what "the same request" is; [`exchange`] is what the ledger
//! keeps of the wire; [`policy`] is what a route says; [`operation`] has the one function from
//! state to state; [`admission`] decides on arrival; [`lease`] says who may attempt;
//! [`attempt`], [`verdict`] and [`backoff`] decide after an attempt; [`breaker`] and [`rate`] say what
//! an upstream is spared; [`risk`] says what sending again by hand could do,
//! [`ids`] what an answer made.
//!
//! Invariants held here: an illegal transition is an error and changes nothing; a fence only
//! grows; an attempt that may have been executed is never followed by another on a
//! non-idempotent operation; a mismatch is decided before the state is looked at.

pub mod admission;
pub mod attempt;
pub mod backoff;
pub mod breaker;
pub mod exchange;
pub mod fingerprint;
pub mod id;
pub mod ids;
pub mod key;
pub mod lease;
pub mod operation;
pub mod policy;
pub mod rate;
pub mod risk;
pub mod time;
pub mod verdict;
