//! What puts the promise to the test, and shares no code with what it tests: the compiler sees to
//! it that this crate does not depend on the gateway.
//!
//! [`mod@line`] speaks HTTP and never sends anything twice by itself; [`auditor`] is an upstream that
//! misbehaves by a seed and records all that arrives; [`check`] holds what callers were told, what
//! the auditor saw and what the ledger says against the promises; [`figures`] tells what a run counted.
//!
//! [`storm`] puts them together to a whole run: [`plan`] says what goes wrong, [`load`] are the
//! callers, [`process`] is the gateway that is killed, [`tally`] adds up post by post, [`counted`]
//! holds the gateway's [`metrics`] beside what others counted, and [`cold`] asks again with cold
//! caches.
//!
//! [`lost`] is a wire to PostgreSQL that loses replies.

pub mod auditor;
pub mod chance;
pub mod check;
pub mod cold;
pub mod counted;
pub mod cut;
mod cut_frames;
pub mod figures;
pub mod line;
pub mod load;
pub mod lost;
pub mod metrics;
pub mod plan;
pub mod process;
pub mod report;
pub mod storm;
pub mod tally;
mod world;
