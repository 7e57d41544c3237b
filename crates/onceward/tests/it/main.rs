//! What the library promises, one file for each behaviour.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod advice;
mod bodies;
mod bulk;
mod callbacks;
mod dead;
mod duplicates;
mod gates;
mod hours;
mod identity;
mod ids;
mod in_doubt;
mod keys;
mod ledger;
mod ledger_flips;
mod ledger_images;
mod ledger_torn;
mod lifecycle;
mod listed;
mod lookup;
mod misbehave;
mod mismatch;
mod moving;
mod order;
mod postgres;
mod postgres_nodes;
mod postgres_options;
mod reconcile;
mod redeliver;
mod releases;
mod replay_bytes;
mod retention;
mod retries;
mod sessions;
mod upstream_egress;
mod upstream_endings;
mod upstream_http2;
mod upstream_key;
mod upstream_leftover;
mod upstream_pass;
mod upstream_tls;
mod world;
