//! What the library promises, one file for each behaviour.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod dead;
mod duplicates;
mod in_doubt;
mod ledger;
mod lifecycle;
mod misbehave;
mod mismatch;
mod moving;
mod postgres;
mod postgres_options;
mod replay_bytes;
mod retries;
mod sessions;
mod upstream_egress;
mod upstream_endings;
mod upstream_http2;
mod upstream_tls;
mod world;
