//! The document of the API, over the API.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, header};

use crate::node::Node;
use crate::openapi;

static TEXT: LazyLock<Bytes> = LazyLock::new(|| openapi::text().into());

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new().route("/v1/openapi.json", get(show)).route("/openapi.json", get(show))
}

async fn show() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], TEXT.clone()).into_response()
}
