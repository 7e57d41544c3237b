//! Refusals on the wire: the library's table, and the shape that a route's callers read.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use onceward::Refusal;
use onceward::core::policy::ErrorShape;
use onceward::problem;
use onceward::store::StoreError;
use serde_json::{Value, json};

use crate::body::Body;

/// A refusal, as handlers return it.
#[derive(Debug, Clone)]
pub(crate) struct Problem(problem::Problem);

impl Problem {
    /// The problem of this code, with its detail.
    pub(crate) fn new(code: &str, detail: impl Into<String>) -> Self {
        Self(problem::Problem::new(code, detail))
    }
}

impl Deref for Problem {
    type Target = problem::Problem;

    fn deref(&self) -> &problem::Problem {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut problem::Problem {
        &mut self.0
    }
}

impl From<problem::Problem> for Problem {
    fn from(problem: problem::Problem) -> Self {
        Self(problem)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.into())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

/// Makes a refusal of ours one that is told where no path of ours exists; tells whether it is one.
pub(crate) fn tell_outside(response: &mut Response<Body>) -> bool {
    let Some(problem) = response.extensions().get::<Arc<problem::Problem>>() else { return false };
    if problem.operation.is_some() && problem.has_page {
        let outside = problem::Problem { has_page: false, ..(**problem).clone() };
        let body = serde_json::to_vec(&outside.document()).unwrap_or_default();
        put(response, body);
        response.extensions_mut().insert(Arc::new(outside));
    }
    true
}

/// Gives a refusal of ours the shape that its route's callers read; any other answer stays.
pub(crate) fn dress(
    response: &mut Response<Body>,
    shape: impl FnOnce(&problem::Problem) -> ErrorShape,
) {
    let problem = response.extensions_mut().remove::<Arc<problem::Problem>>();
    let stripe = |problem: &Arc<problem::Problem>| shape(problem) == ErrorShape::Stripe;
    let Some(problem) = problem.filter(stripe) else { return };
    let mut document = problem.document();
    document["error"] = stripe_error(&problem);
    // A call without a key of the caller's would be another one when it is sent again.
    let has_key = !response.headers().contains_key("onceward-key-made");
    let again = has_key && matches!(problem.advice, "same-key" | "wait");
    let again = HeaderValue::from_static(if again { "true" } else { "false" });
    response.headers_mut().insert("stripe-should-retry", again);
    put(response, serde_json::to_vec(&document).unwrap_or_default());
}

/// Another body; the router has told the length of the one before.
fn put(response: &mut Response<Body>, body: Vec<u8>) {
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::full(body.into());
}

/// The error object that Stripe's SDKs throw on (docs.stripe.com/api/errors). Without one they
/// take any answer, whatever its status, for what was asked for.
fn stripe_error(problem: &problem::Problem) -> Value {
    let kind = match (problem.code, problem.advice) {
        ("in-progress", _) | (_, "new-key") => "idempotency_error",
        (_, "fix-request") => "invalid_request_error",
        _ => "api_error",
    };
    let code = if problem.code == "in-progress" { "idempotency_key_in_use" } else { problem.code };
    let message = format!("{}. {}", problem.title(), problem.detail);
    json!({"type": kind, "code": code, "message": message})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dressed(mut response: Response<Body>, shape: ErrorShape) -> Response<Body> {
        dress(&mut response, |_| shape);
        response
    }

    #[tokio::test]
    async fn on_a_stripe_route_an_unchanged_sdk_throws_on_every_refusal_and_knows_whether_to_retry()
    {
        for (code, status, advice, title) in problem::Problem::all() {
            let plain = dressed(Problem::new(code, "why").response(), ErrorShape::Problem);
            assert!(!plain.headers().contains_key("stripe-should-retry"), "{code}");
            let stripe = dressed(Problem::new(code, "why").response(), ErrorShape::Stripe);
            let again = matches!(advice, "same-key" | "wait");
            assert_eq!(stripe.headers()["stripe-should-retry"], again.to_string(), "{code}");
            assert_eq!(stripe.status(), status, "{code}");
            let body = http_body_util::BodyExt::collect(stripe.into_body()).await.unwrap();
            let document: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
            assert_eq!(document["code"], code, "the problem's members stay");
            assert_eq!(document["error"]["message"], format!("{title}. why"));
            let known = ["idempotency_error", "invalid_request_error", "api_error"];
            assert!(known.contains(&document["error"]["type"].as_str().unwrap()), "{document}");
        }
        let mut routed = Problem::new("not-found", "why").response();
        routed.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(7));
        let routed = dressed(routed, ErrorShape::Stripe);
        assert!(!routed.headers().contains_key(header::CONTENT_LENGTH), "it was another body's");
        let mut made = Problem::new("no-answer", "why").response();
        made.headers_mut().insert("onceward-key-made", HeaderValue::from_static("true"));
        let made = dressed(made, ErrorShape::Stripe);
        assert_eq!(made.headers()["stripe-should-retry"], "false", "it would be another call");
    }
}
