//! What the library promises, one file for each behaviour.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod bulk;
mod callbacks;
mod dead;
mod duplicates;
mod gates;
mod ids;
mod in_doubt;
mod ledger;
mod ledger_flips;
mod ledger_images;
mod ledger_torn;
mod lifecycle;
mod misbehave;
mod mismatch;
mod moving;
mod postgres;
mod postgres_nodes;
mod postgres_options;
mod redeliver;
mod releases;
mod replay_bytes;
mod retention;
mod retries;
mod sessions;
mod upstream_egress;
mod upstream_endings;
mod upstream_http2;
mod upstream_leftover;
mod upstream_tls;
mod world;
