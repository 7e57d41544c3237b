//! What puts the promise to the test, and shares no code with what it tests: the compiler sees to
//! it that this crate does not depend on the gateway.
//!
//! [`mod@line`] speaks HTTP and never sends anything twice by itself; [`auditor`] is an upstream that
//! misbehaves by a seed and records all that arrives; [`check`] holds what callers were told, what
//! the auditor saw and what the ledger says against the promises.

pub mod auditor;
pub mod chance;
pub mod check;
pub mod line;
