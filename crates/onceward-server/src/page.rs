//! The page.

use std::sync::Arc;

use axum::Router;

use crate::node::Node;

pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
}
