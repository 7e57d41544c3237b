//! `/send`: a call from the page, and the same call as a program makes it. The form has its key from the
//! beginning, so that sent twice it is one operation.

mod code;

use std::collections::BTreeMap;

use axum::extract::Extension;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::HeaderMap;
use maud::{Markup, html};
use onceward::core::policy::Mode;
use onceward::secret::random;
use serde::Deserialize;
use serde_json::{Value, json};

use super::frame::{Frame, Here, Html, base_of};
use super::{viewer, words};
use crate::access::Caller;
use crate::gateway::Document;
use crate::operator::{Asked, Filled, METHODS, invalid};
use crate::problem::Problem;
use crate::view::{View, is_callable};

/// What the form begins with.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Begin {
    route: Option<String>,
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
}

/// The form as it is sent.
#[derive(Debug, Deserialize)]
pub(super) struct Call {
    to: String,
    method: String,
    path: String,
    #[serde(default)]
    content_type: String,
    #[serde(default)]
    body: String,
    key: String,
    mode: String,
    /// Present where it is only to be shown as code.
    show: Option<String>,
}

impl Call {
    fn begin(to: String) -> Self {
        Self {
            to,
            method: METHODS[0].to_owned(),
            path: "/".to_owned(),
            content_type: "application/json".to_owned(),
            body: "{}".to_owned(),
            key: format!("try-{:032x}", u128::from_be_bytes(random())),
            mode: Mode::Held.name().to_owned(),
            show: None,
        }
    }

    fn is_accepted(&self) -> bool {
        self.mode == Mode::Accepted.name()
    }

    /// The header that goes with its body.
    fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let has_type = !self.content_type.is_empty() && !self.body.is_empty();
        has_type.then_some(("content-type", &*self.content_type)).into_iter()
    }

    /// The document that `POST /v1/operations` takes.
    fn document(&self) -> Value {
        let headers: BTreeMap<_, _> = self.headers().collect();
        let mut document = json!({
            "to": self.to, "method": self.method, "path": self.path, "key": self.key,
            "mode": self.mode, "headers": headers,
        });
        if !self.body.is_empty() {
            document["body"] = json!(self.body);
        }
        document
    }
}

pub(super) async fn form(
    node: View,
    headers: HeaderMap,
    Asked(begin): Asked<Begin>,
) -> Result<Html, Problem> {
    let routes = callable(&node);
    let wanted = begin.route.filter(|route| routes.contains(route));
    let to = wanted.or_else(|| routes.first().cloned()).unwrap_or_default();
    shown(&node, &headers, &routes, &Call::begin(to)).await
}

/// Sends it, and shows the operation; or shows the form again, with what it says as code.
pub(super) async fn send(
    node: View,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Filled(mut call): Filled<Call>,
) -> Result<Response, Problem> {
    // A form sends every line break as two letters, whatever was typed.
    call.body = call.body.replace("\r\n", "\n");
    if call.show.is_some() {
        return Ok(shown(&node, &headers, &callable(&node), &call).await?.into_response());
    }
    node.check_released("Nothing was sent; `onceward restore --release` lets it send.")?;
    node.find_called(&call.to)?;
    let document: Document =
        serde_json::from_value(call.document()).map_err(|error| invalid(error.to_string()))?;
    let answer = Box::pin(node.gateway.send(document, node.acting(caller), None)).await?;
    let id = answer.headers().get("onceward-operation").and_then(|id| id.to_str().ok());
    Ok(Redirect::to(&format!("/operations/{}", id.unwrap_or_default())).into_response())
}

/// The routes that a caller can name.
fn callable(node: &View) -> Vec<String> {
    let names = node.routes().into_iter().map(|route| route.name.clone());
    names.filter(|name| is_callable(name)).collect()
}

async fn shown(
    node: &View,
    headers: &HeaderMap,
    routes: &[String],
    call: &Call,
) -> Result<Html, Problem> {
    let frame = Frame::of(node).await?;
    let content = html! {
        h1 { "Send a call" }
        p.lead {
            "A call as a program makes it, under your name: it is in the ledger before it is sent, and its page tells what became of it. "
            "Its key was made with this form, so that sent twice it is one operation."
        }
        @if let Some(tenant) = node.named() { p.notice #for { "It is sent for the tenant " strong { bdi { (tenant) } } "." } }
        @if routes.is_empty() {
            p.empty.card { "No routes are configured." }
        } @else {
            div.send {
                (fields(call, routes, node.named()))
                (code::show(call, &base_of(headers), node.access.is_needed()))
            }
        }
    };
    Ok(Html(frame.page(Here::Upstreams, "Send a call", &content)))
}

/// The form for a route, of a tenant that was named.
pub(super) fn place(tenant: Option<&str>, route: &str) -> String {
    let route = words::in_query(route);
    let tenant = tenant.map(|tenant| format!("&tenant={}", words::in_query(tenant)));
    format!("/send?route={route}{}", tenant.unwrap_or_default())
}

fn fields(call: &Call, routes: &[String], tenant: Option<&str>) -> Markup {
    let tenant = tenant.map(|tenant| format!("?tenant={}", words::in_query(tenant)));
    html! {
        form #send.card method="post" action={ "/send" (tenant.unwrap_or_default()) } {
            (viewer::token())
            label { "Route"
                select name="to" { @for route in routes { option value=(route) selected[*route == call.to] { (route) } } }
            }
            label { "Method"
                select name="method" { @for method in METHODS { option selected[method == call.method] { (method) } } }
            }
            label { "Path and query"
                input name="path" required value=(call.path) autocomplete="off" spellcheck="false";
            }
            label { "Content type " span.soft { "(of a body)" }
                input name="content_type" value=(call.content_type) autocomplete="off" spellcheck="false";
            }
            label { "Body " span.soft { "(optional)" }
                textarea name="body" rows="6" spellcheck="false" { "\n" (call.body) }
            }
            label { "Key"
                input name="key" required value=(call.key) maxlength="255" autocomplete="off" spellcheck="false";
            }
            fieldset {
                legend { "Who waits for the answer" }
                @for (mode, says) in [(Mode::Held, " I do: the page comes once it is there"), (Mode::Accepted, " nobody: it is delivered, and tried again, by itself")] {
                    label.choice {
                        input type="radio" name="mode" value=(mode.name()) checked[call.mode == mode.name()];
                        (says)
                    }
                }
            }
            div.tools {
                button { "Send" }
                button.quiet name="show" value="1" { "Only show it as code" }
            }
        }
    }
}
