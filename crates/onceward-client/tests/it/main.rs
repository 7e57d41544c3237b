//! The client against a gateway, its double and gateways that answer as they are told.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

mod contract_calls;
mod contract_claims;
mod double;
mod handlers;
mod kill;
mod retry;
#[cfg(feature = "tls")]
mod tls;
mod webhooks;
mod world;
