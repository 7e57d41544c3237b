//! The way in and out: a form that takes an access key, and gives a session for it.

use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, StatusCode};
use maud::{Markup, html};
use onceward::Person;
use serde::Deserialize;
use url::form_urlencoded::byte_serialize;

use super::frame::{Html, base_of, document};
use crate::access::{Arrival, By, Cookie, Opened};
use crate::node::Node;
use crate::oidc::BEGIN;
use crate::operator::{Asked, invalid};
use crate::problem::Problem;
use crate::view::View;

/// Of whoever logged out: that the identity provider said who that was.
const PROVIDER: &str = "provider";

/// Who failed to log in, in the audit; no access key is called so.
const NOBODY: &str = "(nobody)";

/// Where a person wants to go, and why they are here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Way {
    next: Option<String>,
    /// They have just logged out; `provider` where that still knows them.
    out: Option<String>,
}

impl Way {
    /// Where they go on to.
    pub(super) fn back(&self) -> &str {
        back(self.next.as_deref())
    }
}

/// The form as it is sent. It has a key in it, so it never shows itself.
#[derive(Deserialize)]
pub(super) struct Sent {
    key: String,
    next: Option<String>,
}

/// The address of the form, from which somebody goes on to `next`.
pub(super) fn place(next: &str) -> String {
    place_at("/login", back(Some(next)))
}

fn place_at(way: &str, next: &str) -> String {
    match next {
        "/" => way.to_owned(),
        next => format!("{way}?next={}", byte_serialize(next.as_bytes()).collect::<String>()),
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
    node: View,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    Asked(way): Asked<Way>,
) -> Result<Response, Problem> {
    let next = way.back();
    let is_in = match arrival.token() {
        Some(token) => node.access.is_logged_in(token).await?,
        None => false,
    };
    if is_in || !node.access.is_needed() {
        return Ok(Redirect::to(next).into_response());
    }
    let provider = match way.out.as_deref() {
        Some(PROVIDER) => node.oidc.way_out(&base_of(&headers)).await,
        _ => None,
    };
    let notice = html! {
        @if way.out.is_some() {
            p.notice role="status" {
                "You are logged out."
                @if let Some(provider) = provider {
                    " " a href=(provider) { "Log out at " (provider.host_str().unwrap_or_default()) ", too" }
                }
            }
        }
    };
    Ok(page(&node, next, &notice, &arrival).into_response())
}

pub(super) async fn log_in(
    node: View,
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
            let wrong = html! { p.notice.warn role="alert" { (problem.detail) } };
            let page = page(&node, next, &wrong, &arrival);
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
    node.engine.note(&person(NOBODY), "failed to log in", &about).await?;
    Ok(())
}

fn person(who: &str) -> Person {
    Person { who: who.to_owned(), reason: String::new() }
}

pub(super) async fn log_out(
    node: View,
    Extension(arrival): Extension<Arrival>,
) -> Result<Response, Problem> {
    if let (Some(token), Some(visit)) = (arrival.token(), &arrival.visit) {
        let about = format!("session {}", visit.id);
        node.engine.note(&person(&visit.who), "logged out", &about).await?;
        node.access.log_out(token).await?;
    }
    let is_by_provider = arrival.visit.as_ref().is_some_and(|visit| visit.is_by_provider);
    let out = format!("/login?out={}", if is_by_provider { PROVIDER } else { "1" });
    let out = Redirect::to(&out).into_response();
    Ok(with_cookie(out, Cookie::Session.clear(arrival.is_secured)))
}

fn page(node: &Node, next: &str, notice: &Markup, arrival: &Arrival) -> Html {
    let body = html! {
        section.card.message.login {
            h1 { "Log in" }
            (notice)
            @if !arrival.is_secured && !arrival.is_here() {
                p.notice.warn {
                    "This connection is not encrypted: whoever is on the way can read your key."
                }
            }
            @if let Some(name) = node.oidc.name() {
                a.button href=(place_at(BEGIN, next)) { "Log in with " (name) }
                p.or { "or" }
            }
            (by_key(next))
        }
    };
    Html(document("Log in", None, &body))
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
