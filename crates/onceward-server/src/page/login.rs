//! The way in and out: a form that takes an access key, and gives a session for it.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::header::SET_COOKIE;
use http::{HeaderValue, StatusCode};
use maud::{Markup, html};
use onceward::Person;
use serde::Deserialize;
use url::form_urlencoded::byte_serialize;

use super::frame::{Html, document};
use crate::access::{Arrival, By, Cookie, Opened};
use crate::node::Node;
use crate::operator::{Asked, invalid};
use crate::problem::Problem;

/// Where a person wants to go, and why they are here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Way {
    next: Option<String>,
    /// Whether they have just logged out.
    #[serde(default)]
    out: Option<String>,
}

/// The form as it is sent. It has a key in it, so it never shows itself.
#[derive(Deserialize)]
pub(super) struct Sent {
    key: String,
    next: Option<String>,
}

/// The address of the form, from which somebody goes on to `next`.
pub(super) fn place(next: &str) -> String {
    match back(Some(next)) {
        "/" => "/login".to_owned(),
        next => format!("/login?next={}", byte_serialize(next.as_bytes()).collect::<String>()),
    }
}

/// Where to go then: a place of ours, and nowhere else.
fn back(next: Option<&str>) -> &str {
    let is_ours = |next: &&str| {
        let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        let leads_out = next.starts_with("//") || !next.starts_with('/');
        plain && !leads_out && !next.starts_with("/login") && !next.starts_with("/logout")
    };
    next.filter(is_ours).unwrap_or("/")
}

pub(super) async fn form(
    State(node): State<Arc<Node>>,
    Extension(arrival): Extension<Arrival>,
    Asked(way): Asked<Way>,
) -> Result<Response, Problem> {
    let next = back(way.next.as_deref());
    let is_in = match arrival.token() {
        Some(token) => node.access.is_logged_in(token).await?,
        None => false,
    };
    if is_in || !node.access.is_needed() {
        return Ok(Redirect::to(next).into_response());
    }
    let notice = way.out.is_some().then_some("You are logged out.");
    Ok(page(next, notice, None, &arrival).into_response())
}

pub(super) async fn log_in(
    State(node): State<Arc<Node>>,
    Extension(arrival): Extension<Arrival>,
    sent: Result<Form<Sent>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(sent) = sent.map_err(|rejection| invalid(rejection.body_text()))?;
    let next = back(sent.next.as_deref());
    node.access.may_try(arrival.address)?;
    let (by, who) = match node.access.recognise(sent.key.trim()) {
        Ok((by, caller)) => (by, caller.who()),
        Err(problem) => {
            failed(&node, &arrival, &problem.detail).await?;
            let page = page(next, None, Some(&problem.detail), &arrival);
            return Ok((StatusCode::UNAUTHORIZED, page).into_response());
        }
    };
    node.access.tried_well(arrival.address);
    let opened = open(&node, &arrival, by, &who).await?;
    Ok(enter(&opened, &arrival, next))
}

/// Begins a session, and has it in the audit.
pub(super) async fn open(
    node: &Node,
    arrival: &Arrival,
    by: By,
    who: &str,
) -> Result<Opened, Problem> {
    let opened = node.access.log_in(by, arrival.address, arrival.token()).await?;
    let session = &opened.session;
    let about =
        format!("session {} {}, from {}", session.id(), session.by.described(), session.from);
    node.engine.note(&person(who), "logged in", &about).await?;
    Ok(opened)
}

/// Goes on with the cookie of a session.
pub(super) fn enter(opened: &Opened, arrival: &Arrival, next: &str) -> Response {
    let cookie = Cookie::Session.set(&opened.token, arrival.is_secured);
    with_cookie(Redirect::to(next).into_response(), cookie)
}

pub(super) fn with_cookie(mut response: Response, cookie: HeaderValue) -> Response {
    response.headers_mut().append(SET_COOKIE, cookie);
    response
}

/// A failure is in the audit, as long as there are few.
pub(super) async fn failed(node: &Node, arrival: &Arrival, why: &str) -> Result<(), Problem> {
    let Some(others) = node.access.notes_failure() else { return Ok(()) };
    let more = if others == 0 { String::new() } else { format!(" And {others} more before.") };
    let about = format!("from {}: {why}{more}", arrival.address);
    node.engine.note(&person("nobody"), "failed to log in", &about).await?;
    Ok(())
}

fn person(who: &str) -> Person {
    Person { who: who.to_owned(), reason: String::new() }
}

pub(super) async fn log_out(
    State(node): State<Arc<Node>>,
    Extension(arrival): Extension<Arrival>,
) -> Result<Response, Problem> {
    if let (Some(token), Some(visit)) = (arrival.token(), &arrival.visit) {
        let about = format!("session {}", visit.id);
        node.engine.note(&person(&visit.who), "logged out", &about).await?;
        node.access.log_out(token).await?;
    }
    let out = Redirect::to("/login?out=1").into_response();
    Ok(with_cookie(out, Cookie::Session.clear(arrival.is_secured)))
}

fn page(next: &str, notice: Option<&str>, wrong: Option<&str>, arrival: &Arrival) -> Html {
    let body = html! {
        section.card.message.login {
            h1 { "Log in" }
            @if let Some(notice) = notice { p.notice role="status" { (notice) } }
            @if let Some(wrong) = wrong { p.notice.warn role="alert" { (wrong) } }
            @if !arrival.is_secured && !arrival.is_here() {
                p.notice.warn {
                    "This connection is not encrypted: whoever is on the way can read your key."
                }
            }
            (by_key(next))
        }
    };
    Html(document("Log in", &html! {}, &body))
}

fn by_key(next: &str) -> Markup {
    html! {
        form method="post" action="/login" {
            input type="hidden" name="next" value=(next);
            // Whatever keeps passwords wants a name to keep it by.
            input type="text" name="username" value="onceward" autocomplete="username" hidden;
            label { "Access key"
                input type="password" name="key" required autocomplete="current-password"
                    autofocus spellcheck="false" placeholder="ow_…";
            }
            button { "Log in" }
        }
        p.soft.small {
            "Whoever runs this gateway makes one: " code { "onceward access create NAME" }
            ". You are logged out after 30 minutes without a look, and after 12 hours."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere_by_logging_in() {
        for ours in ["/operations?state=dead&key=a%2Fb", "/bulk/bulk_1", "/"] {
            assert_eq!(back(Some(ours)), ours);
        }
        for other in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "\\evil.example",
            "evil",
            "",
            "/a b",
            "/\u{7f}",
            "/login?next=/",
            "/logout",
            "javascript:alert(1)",
            "/\r\nx: y",
        ] {
            assert_eq!(back(Some(other)), "/", "{other:?}");
        }
        assert_eq!(place("/dead?x=1&y=2"), "/login?next=%2Fdead%3Fx%3D1%26y%3D2");
        assert_eq!(place("//evil.example"), "/login");
    }
}
