//! The targets that need no inside of a crate: one file for each. The others stand beside what
//! they are for; `fuzz/README.md` has them all.

mod body;
mod egress;
mod exchange;
mod id;
mod key;
mod retry_after;
