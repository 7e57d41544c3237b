//! One operation: where it stands, what a person can do, and everything that happened.

use axum::extract::{Extension, Path, Query};
use axum::response::{IntoResponse as _, Redirect, Response};
use bytes::Bytes;
use http::{HeaderMap, header};
use maud::{Markup, html};
use onceward::InLine;
use onceward::core::exchange;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Forgotten, Operation, State};
use onceward::core::time::Timestamp;
use onceward::store::Query as StoreQuery;
use serde::Deserialize;

use super::frame::{Frame, Here, Html, base_of};
use super::payload::{Again, Bodies, Shown, copies};
use super::timeline::Tried;
use super::{acts, again, doubt, payload, timeline, verdict, words};
use crate::access::{Caller, Roles};
use crate::node::Node;
use crate::operator::kept;
use crate::problem::Problem;
use crate::shape;
use crate::telemetry::traces;
use crate::view::View;

/// How many of those that were born of an operation its page names.
const KIN_MAX: usize = 20;

/// What stands in the place of headers and bodies.
const UNSEEN: &str = "Your access key has not the role payloads, which shows headers and bodies.";

#[derive(Debug, Deserialize)]
pub(super) struct Told {
    /// Present after an act: the page then says what was done.
    told: Option<String>,
    /// How bodies are shown: `raw`, or to be read.
    bodies: Option<String>,
}

pub(super) async fn show(
    node: View,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(told): Query<Told>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let operation = node.find(&id).await?;
    if operation.scope.kind == ScopeKind::Saga {
        // How it stands, its steps tell.
        return Ok(Redirect::to(&format!("/sagas/{}", operation.id)).into_response());
    }
    let frame = Frame::of(&node).await?;
    let store = node.engine.store();
    let place = node.engine.in_line(&operation).await?;
    let asked = store.asked(operation.id).await?;
    let again = again::of(&node, &operation, &asked).await?;
    let sees = caller.roles.has(Roles::PAYLOADS);
    let request = if sees { kept::request(&node, &operation).await? } else { None };
    let request = request.map(|(request, _)| request);
    let mut attempts: Vec<Tried<'_>> = Vec::with_capacity(operation.attempts.len());
    for attempt in &operation.attempts {
        let excerpt = if sees { kept::excerpt(&node, &operation, attempt).await? } else { None };
        attempts.push((attempt, excerpt));
    }
    let answer = if sees { kept::answer(&node, &operation).await? } else { None };
    let rule = node.engine.lookup_of(&operation);
    let born = StoreQuery { parent: Some(operation.id), limit: KIN_MAX, ..StoreQuery::default() };
    // A child is no older than its parent, so the list ends there.
    let born = StoreQuery { since: Some(operation.created_at), ..born };
    let children = node.list(born).await?.operations;
    let now = shape::now();
    let is_told = told.told.is_some();
    let bodies = Bodies::of(told.bodies.as_deref());
    let (base, needs_key) = (base_of(&headers), node.access.is_needed());
    let can_be_called = can_be_called(&node, &operation);
    let content = html! {
        div #story data-live="all" data-about=(operation.id) {
            (head(&node, &operation, is_told, now))
            div.story {
                div {
                    (doubt::looks(&operation, rule.as_deref(), now))
                    @if caller.roles.has(Roles::OPERATE) { (acts::forms(&operation, &caller)) }
                    (timeline::show(&node, &operation, &attempts, &asked, bodies, now))
                    (outcome(&operation, answer.as_ref(), sees, bodies))
                    @if operation.scope.kind != ScopeKind::Claim { (sent(&operation, request.as_ref(), sees, bodies)) }
                    @if let Some(request) = request.as_ref().filter(|_| can_be_called) {
                        (as_curl(&payload::curl(&Again::of(&operation, request), &base, needs_key)))
                    }
                }
                aside { (facts(&operation, place, node.sees_request(&operation))) (kin(&operation, &children)) (again::show(&operation, &asked, &again, now)) }
            }
        }
    };
    Ok(Html(frame.page(Here::Operations, operation.key.as_str(), &content)).into_response())
}

fn as_curl(line: &str) -> Markup {
    html! {
        section #curl {
            div.titled {
                h2 { "As a line for a shell" }
                (copies("curl-line", "Copy as curl"))
            }
            p.soft {
                "It has the same key: what is done is answered from the ledger, and not done again. \
                 Credentials are not in it."
            }
            pre tabindex="0" { code #curl-line { (line) } }
        }
    }
}

/// Whether a call on `/to/…` with its key is this operation, and not another one that is sent.
fn can_be_called(node: &Node, operation: &Operation) -> bool {
    // A guard's callers are told apart by the way in which they are known.
    let is_guarded =
        operation.scope.principal.contains(':') && node.guards.all().contains_key(&operation.route);
    operation.scope.kind == ScopeKind::Call && operation.via.is_none() && !is_guarded
}

fn head(node: &View, operation: &Operation, is_told: bool, now: Timestamp) -> Markup {
    let notice = operation.acts.last().filter(|_| is_told);
    // What was sent again may have ended badly again.
    let is_bad = operation.is_dead_letter() || operation.state == State::InDoubt;
    let last = words::last(operation);
    html! {
        @if let Some(act) = notice {
            p.notice.warn[is_bad] role="status" {
                strong { (words::deed(act.deed)) } " " (words::time(act.at, now))
                @if is_bad { ", and now it is " (operation.state.name().replace('_', " ")) }
                ". Reason: " bdi { (act.reason) }
            }
        }
        header.operation {
            div.titled {
                h1 { span.soft { "Key " } bdi #key { (operation.key.as_str()) } }
                (copies("key", "Copy"))
            }
            p.place { (words::chip(operation)) " " span.soft { (words::state(operation, now)) }
                @if operation.forgotten.is_some() { " " span.soft { "Its key was forgotten by a person." } }
            }
            p.call {
                strong { (operation.method) } " " code { (operation.target) }
                " on " strong { (words::place(node, operation)) }
            }
            p.advice { (verdict::show(node, operation, now)) }
            @if is_bad && !last.is_empty() { p { span.soft { "Last result: " } bdi { (last) } } }
            @if !operation.state.is_ended() && operation.looks.made == 0 {
                p { a href=(words::url_of(operation.id)) { "Look again" } }
            }
        }
    }
}

fn facts(operation: &Operation, place: Option<InLine>, sees: bool) -> Markup {
    let fact = |name: &str, value: Markup| html! { dt { (name) } dd { (value) } };
    let is_claim = operation.scope.kind == ScopeKind::Claim;
    html! {
        section.card {
            h2 { "Facts" }
            dl {
                (fact("Id", html! { code { (operation.id) } }))
                @if let (ScopeKind::Step, Some(saga)) = (operation.scope.kind, operation.parent) {
                    (fact("Step of", html! { a href={ "/sagas/" (saga) } { code { (saga) } } }))
                }
                (fact("Effects", html! { (words::effects(operation.effects)) }))
                @if !is_claim { (fact("Mode", html! { (operation.mode.name()) })) }
                @if let Some(via) = &operation.via { (fact("Came by", html! { (via) })) }
                @if let Some(trace) = traces::trace_of(operation) {
                    (fact("Trace", html! {
                        @match traces::url_of(&trace) {
                            Some(url) => a href=(url) { code { (trace.trace_id()) } },
                            None => code { (trace.trace_id()) },
                        }
                    }))
                }
                @if let Some(label) = &operation.label {
                    (fact(if is_claim { "Holder" } else { "Label" }, html! { bdi { (label) } }))
                }
                @if let Some(flow) = &operation.flow {
                    (fact("Flow", html! { bdi { (flow) } }))
                }
                @if let Some(subject) = &operation.subject {
                    (fact("About", html! {
                        bdi { (subject.name) }
                        @if let Some(sequence) = subject.sequence { ", number " (sequence) }
                    }))
                    @if let Some(newer) = subject.superseded_by {
                        (fact("Superseded by", html! {
                            a href=(words::url_of(newer)) { code { (newer) } }
                        }))
                    }
                }
                @if let Some(place) = place {
                    @if let Some(before) = place.blocked_by {
                        (fact("Waits for", html! {
                            a href=(words::url_of(before)) { code { (before) } }
                        }))
                    }
                    @if place.behind > 0 {
                        (fact("Keeps waiting", html! { (place.behind) " about the same" }))
                    }
                }
                @if !operation.scope.principal.is_empty() {
                    (fact("Asked by", html! { bdi { (operation.scope.principal) } }))
                }
                (fact("Came", words::exact(operation.created_at)))
                @if let Some(at) = operation.ended_at { (fact("Ended", words::exact(at))) }
                @if let Some(at) = operation.send_by { (fact("Sent again until", words::exact(at))) }
                @if let Some(at) = operation.key_expires_at() {
                    (fact("Key remembered until", words::exact(at)))
                }
                @if let Some(then) = operation.forgotten {
                    (fact("The same key now", html! {
                        @match then {
                            Forgotten::Refuse => "is refused",
                            Forgotten::New => "is a new operation",
                        }
                    }))
                }
                @for (name, id) in shape::ids(operation, sees) {
                    (fact(name, html! { bdi { (id) } }))
                }
                @if let Some(key) = &operation.upstream_key {
                    (fact("Key at the upstream", html! { code { (key.place) ": " (key.value) } }))
                }
            }
            p { a href=(shape::url_of(operation.id)) { "As JSON" } }
        }
    }
}

/// What it was born of, and what was born of it.
fn kin(operation: &Operation, children: &[Operation]) -> Markup {
    html! {
        @if operation.parent.is_some() || !children.is_empty() {
            section.card {
                h2 { "Related" }
                @if let Some(parent) = operation.parent {
                    p { "Born of " a href=(words::url_of(parent)) { code { (parent) } } }
                }
                @if !children.is_empty() {
                    p { "Born of it:" }
                    ol.plain {
                        @for child in children {
                            li {
                                a.key href=(words::url_of(child.id)) { bdi { (child.key.as_str()) } }
                                " " (words::chip(child))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn outcome(
    operation: &Operation,
    answer: Option<&exchange::Response>,
    sees: bool,
    bodies: Bodies,
) -> Markup {
    let Some(outcome) = &operation.outcome else { return html! {} };
    let whole = format!("{}/response", words::url_of(operation.id));
    let as_shown = Shown { name: "response", whole: &whole, bodies };
    html! {
        section #outcome {
            h2 { "Outcome" }
            div.card {
                p {
                    @if let Some(status) = outcome.status { strong { (words::status(status)) } " · " }
                    (words::source(outcome.source))
                    @if !outcome.ok { " · " strong { "not a success" } }
                }
                @match answer {
                    Some(answer) => {
                        (payload::headers(&answer.headers))
                        (payload::body(&answer.body, as_shown))
                    }
                    None if !sees => p.soft { (UNSEEN) },
                    None => p.soft { "No answer is kept: duplicates are told so, with the state." },
                }
            }
        }
    }
}

fn sent(
    operation: &Operation,
    request: Option<&exchange::Request>,
    sees: bool,
    bodies: Bodies,
) -> Markup {
    let whole = format!("{}/request", words::url_of(operation.id));
    let as_shown = Shown { name: "request", whole: &whole, bodies };
    html! {
        section #request {
            h2 { "Request" }
            @match request {
                Some(request) => div.card {
                    p.call { strong { (request.method) } " " code { (request.target) } }
                    (payload::headers(&request.headers))
                    (payload::body(&request.body, as_shown))
                    p.soft.small { "Credentials stay sealed in the ledger and are shown to nobody." }
                },
                None if !sees => p.soft { (UNSEEN) },
                None if operation.state.is_ended() => p.soft { "Forgotten with its window." },
                None => p.soft { "None is kept." },
            }
        }
    }
}

/// What was asked, as a file.
pub(super) async fn request_file(node: View, Path(id): Path<String>) -> Result<Response, Problem> {
    let operation = node.find(&id).await?;
    let request = kept::request(&node, &operation).await?;
    let body = request.map(|(request, _)| request.body);
    body.map(|body| file(&operation, "request", body)).ok_or_else(forgotten)
}

/// The answer, or what the last attempt brought, as a file.
pub(super) async fn response_file(node: View, Path(id): Path<String>) -> Result<Response, Problem> {
    let operation = node.find(&id).await?;
    let answer = kept::brought(&node, &operation).await?.map(|(answer, _)| answer.body);
    answer.map(|body| file(&operation, "response", body)).ok_or_else(forgotten)
}

fn forgotten() -> Problem {
    Problem::new("no-outcome", "It was forgotten with its window, or never came.")
}

/// Whatever it is, a browser keeps it and shows it not.
fn file(operation: &Operation, what: &str, body: Bytes) -> Response {
    let name = format!("attachment; filename=\"{}-{what}\"", operation.id);
    let kind = (header::CONTENT_TYPE, "application/octet-stream".to_owned());
    ([kind, (header::CONTENT_DISPOSITION, name)], body).into_response()
}
