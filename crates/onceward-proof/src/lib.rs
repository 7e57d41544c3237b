//! What puts the promise to the test, and shares no code with what it tests: the compiler sees to
//! it that this crate does not depend on the gateway.
//!
//! [`line`] speaks HTTP and never sends anything twice by itself; [`auditor`] is an upstream that
//! misbehaves by a seed and records all that arrives; [`check`] holds what callers were told, what
//! the auditor saw and what the ledger says against the promises; [`figures`] tells what a run counted;
//! [`lost`] is a wire to PostgreSQL that loses replies.

pub mod auditor;
pub mod chance;
pub mod check;
pub mod figures;
pub mod line;
pub mod lost;
