//! The core as its users see it: one file for each of its stories.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod claims;
mod laws;
mod life;
mod line;
mod made;
mod saga;
