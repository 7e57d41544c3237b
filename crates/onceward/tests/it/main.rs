//! What the library promises, one file for each behaviour.

mod ledger;
mod misbehave;
mod upstream_egress;
mod upstream_endings;
mod upstream_http2;
mod upstream_tls;
