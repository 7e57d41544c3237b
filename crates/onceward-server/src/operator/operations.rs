//! Operations over the API: listed, told whole, sent, and what a person does about one.

use std::sync::Arc;

use axum::extract::{Extension, Path};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Response};
use onceward::Resolution;
use onceward::core::exchange::{Headers, Response as Given};
use onceward::core::operation::Operation;
use onceward::core::risk::Risk;
use serde::Deserialize;
use serde_json::{Value, json};

use super::filter::Filter;
use super::handler::{Act, Answer, Asked, Because, Said, invalid, reasoned, some};
use super::{evidence, kept, resend};
use crate::access::Caller;
use crate::gateway::{Document, lines, refuse_options, response_document};
use crate::node::Node;
use crate::problem::Problem;
use crate::telemetry::traces::Traced;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/operations", get(list).post(send))
        .route("/v1/operations/{id}", get(show))
        .route("/v1/operations/{id}/request", get(show_request))
        .route("/v1/operations/{id}/response", get(show_response))
        .route("/v1/operations/{id}/evidence", get(evidence::show))
        .route("/v1/operations/{id}/redeliver", post(redeliver))
        .route("/v1/operations/{id}/resend", post(resend::resend))
        .route("/v1/operations/{id}/cancel", post(cancel))
        .route("/v1/operations/{id}/retry", post(retry))
        .route("/v1/operations/{id}/resolve", post(resolve))
        .route("/v1/explain", post(explain))
}

async fn list(
    node: View,
    Extension(caller): Extension<Caller>,
    Asked(filter): Asked<Filter>,
) -> Answer {
    let page = node.list(filter.query()?).await?;
    // A page may have few and still a next, so what is left out of it costs no more.
    let reached = page.operations.iter().filter(|operation| caller.reaches(&operation.route));
    let data = reached.map(|operation| node.told(operation, None));
    Ok(some(data, page.next))
}

pub(super) async fn shown(node: &View, operation: &Operation) -> Answer {
    let asked = node.engine.store().asked(operation.id).await?;
    let mut shown = node.told(operation, Some(&asked));
    if let Some(place) = node.engine.in_line(operation).await? {
        shown["blocked_by"] = json!(place.blocked_by.map(|id| id.to_string()));
        shown["blocks"] = json!(place.behind);
    }
    Ok(Json(shown))
}

async fn show(node: View, Path(id): Path<String>) -> Answer {
    let operation = node.find(&id).await?;
    shown(&node, &operation).await
}

async fn show_request(node: View, Path(id): Path<String>) -> Answer {
    let operation = node.find(&id).await?;
    let request = kept::request(&node, &operation).await?;
    let (request, is_less) = request
        .ok_or_else(|| Problem::new("no-outcome", "The request was forgotten with its window."))?;
    let shown = response_document(0, &request.headers, &request.body);
    Ok(Json(json!({
        "method": request.method, "path": request.target, "headers": lines(&request.headers),
        "body": shown["body"], "body_base64": shown["body_base64"], "redacted": is_less,
    })))
}

async fn show_response(node: View, Path(id): Path<String>) -> Answer {
    let operation = node.find(&id).await?;
    let shown = response_of(&node, &operation).await?;
    shown.map(Json).ok_or_else(|| {
        Problem::new("no-outcome", "No answer is kept: it has not come, or it is not retained.")
    })
}

/// The outcome's answer, or else what the last attempt brought.
async fn response_of(node: &Node, operation: &Operation) -> Result<Option<Value>, Problem> {
    Ok(kept::brought(node, operation).await?.map(|(response, is_cut)| {
        let mut shown = response_document(response.status, &response.headers, &response.body);
        if let Some(cut) = is_cut {
            shown["excerpt"] = json!(true);
            shown["cut"] = json!(cut);
        }
        shown
    }))
}

/// Why, and which risk is taken.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redeliver {
    reason: String,
    /// `accepted`, or the name of one.
    risk: Option<String>,
}

/// The risks that a word takes: all that can be, or the one that it names.
pub(crate) fn risks(word: Option<&str>) -> Result<Vec<Risk>, Problem> {
    let can_be = Risk::ALL.into_iter().filter(|risk| risk.wants_a_word() && risk.can_be_taken());
    match word {
        None | Some("") => Ok(Vec::new()),
        Some("accepted") => Ok(can_be.collect()),
        Some(name) => {
            let named: Vec<Risk> = can_be.filter(|risk| risk.name() == name).collect();
            if named.is_empty() {
                let why = format!("risk {name:?}: unknown, window-over or accepted");
                return Err(invalid(why));
            }
            Ok(named)
        }
    }
}

async fn redeliver(
    node: View,
    Path(id): Path<String>,
    Act(person, said): Act<Redeliver>,
) -> Answer {
    let taken = risks(said.risk.as_deref())?;
    let id = node.find(&id).await?.id;
    let operation = node.engine.redeliver_at_risk(id, &person, &taken).await?;
    shown(&node, &operation).await
}

async fn retry(node: View, Path(id): Path<String>, Act(person, _): Act<Because>) -> Answer {
    let operation = node.engine.retry(node.find(&id).await?.id, &person).await?;
    shown(&node, &operation).await
}

async fn cancel(node: View, Path(id): Path<String>, Act(person, _): Act<Because>) -> Answer {
    let operation = node.engine.cancel(node.find(&id).await?.id, &person).await?;
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    /// `done` or `not-sent`.
    r#as: String,
    reason: String,
    /// The answer that duplicates shall get.
    status: Option<u16>,
    body: Option<String>,
    body_base64: Option<String>,
}

reasoned!(Redeliver, Resolve);

async fn resolve(node: View, Path(id): Path<String>, Act(person, said): Act<Resolve>) -> Answer {
    let has_answer = said.status.is_some() || said.body.is_some() || said.body_base64.is_some();
    if has_answer && said.r#as == "not-sent" {
        return Err(invalid("status and body belong to `done`"));
    }
    let resolution = resolution(&said.r#as, said.status, said.body, said.body_base64)?;
    let operation = node.engine.resolve(node.find(&id).await?.id, &resolution, &person).await?;
    shown(&node, &operation).await
}

/// The answer that a person gave, with the type that its body has.
fn given(status: u16, body: bytes::Bytes) -> Given {
    let mut headers = Headers::default();
    if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() {
        headers.set("content-type", "application/json");
    } else if !body.is_empty() && std::str::from_utf8(&body).is_ok() {
        headers.set("content-type", "text/plain; charset=utf-8");
    }
    Given { status, headers, body, trailers: Headers::default() }
}

/// What a person said became of it.
pub(crate) fn resolution(
    word: &str,
    status: Option<u16>,
    body: Option<String>,
    base64: Option<String>,
) -> Result<Resolution, Problem> {
    match word {
        "not-sent" => Ok(Resolution::NotSent),
        "done" => {
            if status.is_some_and(|status| !(200..600).contains(&status)) {
                return Err(invalid("status lies between 200 and 599"));
            }
            if status.is_none() && (body.is_some() || base64.is_some()) {
                return Err(invalid("a body needs a status"));
            }
            let body = match base64 {
                Some(coded) => Some(
                    STANDARD.decode(coded).map_err(|_| invalid("body_base64 is no base64"))?.into(),
                ),
                None => body.map(Into::into),
            };
            Ok(Resolution::Done(status.map(|status| given(status, body.unwrap_or_default()))))
        }
        _ => Err(invalid("as: `done` or `not-sent`")),
    }
}

async fn send(
    node: View,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    traced: Option<Extension<Traced>>,
    Said(mut document): Said<Document>,
) -> Result<Response<axum::body::Body>, Problem> {
    refuse_options(&headers)?;
    document.take_key(&headers)?;
    document.take_trace(&headers);
    let traced = traced.map(|Extension(traced)| traced);
    Ok(node.gateway.send(document, node.acting(caller), traced).await?.map(axum::body::Body::new))
}

async fn explain(
    node: View,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Said(document): Said<Document>,
) -> Answer {
    refuse_options(&headers)?;
    Ok(Json(node.gateway.explain(document, node.acting(caller))?))
}
