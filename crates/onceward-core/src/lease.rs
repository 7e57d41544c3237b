//! Who may attempt: a right belongs to a session, not to an operation.
//!
//! A session is one life of a process. It keeps its right by beating; the store's clock decides
//! when it has lapsed. What a lapsed session had under way is judged by whoever notices, and its
//! own late writes are refused by their fences. A lapse alone never sends anything again.

use std::time::Duration;

/// How long a session's right lasts after a beat.
pub const LEASE: Duration = Duration::from_secs(15);

/// How often a session beats: two may be missed.
pub const BEAT: Duration = Duration::from_secs(5);

/// One life of a process: drawn anew at each start, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

impl Session {
    /// The tail of the id that this session gives at place `sequence`: spread evenly, and another
    /// one in every session (the finaliser of splitmix64).
    pub fn tail(self, sequence: u64) -> u64 {
        let mut x = self.0 ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}
