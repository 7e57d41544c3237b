//! The JSON API for people and for the command line: what the ledger holds, and what a person
//! does about it.
//!
//! A handler is told who acts and what is said by `handler`, which also shapes lists; each story of
//! the API has its paths, its documents and its handlers in a file of its own.

use std::sync::Arc;

use axum::Router;

use crate::node::Node;
use crate::page;

mod access;
mod advice;
mod alerts;
pub(crate) mod audit;
pub(crate) mod bulk;
mod changes;
mod claims;
mod contract;
pub(crate) mod dead_letters;
mod doubt;
mod erase;
pub(crate) mod events;
mod evidence;
mod filter;
pub(crate) mod filters;
mod handler;
pub(crate) mod kept;
mod keys;
mod ledger;
mod openapi;
mod operations;
mod outbox;
mod resend;
mod routes;
pub(crate) mod sagas;
mod sessions;
mod sources;
mod stats;
pub(crate) mod subscriptions;

pub(crate) use self::advice::{WindowSaid, window_of};
pub(crate) use self::contract::{METHODS, contract_of};
pub(crate) use self::filter::{Filter, Statuses, cursor, moment, standing_name};
pub(crate) use self::handler::{
    Asked, Because, Filled, LIMIT_MAX, REASON_BYTES_MAX, Reasoned, Sent, from_axum, given, id_of,
    invalid, reasoned,
};
pub(crate) use self::keys::then_of;
pub(crate) use self::operations::{resolution, risks};
pub(crate) use self::resend::check_target;
pub(crate) use self::routes::NOT_ASKED;
pub(crate) use self::stats::{cursor_at, place_of, span_of};

/// The API's paths.
pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
        .merge(operations::router())
        .merge(bulk::router())
        .merge(filters::router())
        .merge(events::router())
        .merge(subscriptions::router())
        .merge(changes::router())
        .merge(audit::router())
        .merge(keys::router())
        .merge(claims::router())
        .merge(sagas::router())
        .merge(routes::router())
        .merge(doubt::router())
        .merge(dead_letters::router())
        .merge(erase::router())
        .merge(outbox::router())
        .merge(sources::router())
        .merge(alerts::router())
        .merge(ledger::router())
        .merge(stats::router())
        .merge(access::router())
        .merge(sessions::router())
        .merge(openapi::router())
        .method_not_allowed_fallback(page::not_allowed)
}

#[cfg(test)]
mod fuzz;
