//! Who looks at a page: named at its top, and the only one whose forms change anything.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{Method, header};
use maud::{Markup, html};
use onceward::sabotage::Sabotage;
use onceward::secret::is_same;

use crate::access::{Arrival, Visit};
use crate::operator::invalid;
use crate::problem::Problem;

/// The field of a form that says which session's page it was on.
const FIELD: &str = "token";

/// The largest form; the field for a body is the largest of one.
const FORM_BYTES_MAX: usize = 2 << 20;

tokio::task_local! {
    /// How the request came whose page is made.
    static VIEWER: Arrival;
}

/// Answers a request with its viewer at hand, once it is known that a change is theirs.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let Some(arrival) = request.extensions().get::<Arrival>().cloned() else {
        return next.run(request).await;
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let request = match &arrival.visit {
        // Who logs in has no page of a session yet.
        Some(visit) if changes && request.uri().path() != "/login" => {
            match without_token(request, visit).await {
                Ok(request) => request,
                Err(problem) => {
                    return VIEWER.scope(arrival, async { problem.into_response() }).await;
                }
            }
        }
        _ => request,
    };
    VIEWER.scope(arrival, next.run(request)).await
}

/// Takes the field out of a form, which has to be the session's.
async fn without_token(request: Request, visit: &Visit) -> Result<Request, Problem> {
    let (mut head, body) = request.into_parts();
    let body = to_bytes(body, FORM_BYTES_MAX).await;
    let body = body.map_err(|_| invalid("The form is not whole, or too large."))?;
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let value = |field: &&str| field.strip_prefix(FIELD).is_some_and(|rest| rest.starts_with('='));
    // Its letters are never percent-encoded.
    let (tokens, fields): (Vec<&str>, Vec<&str>) = text.split('&').partition(value);
    let given = tokens.first().map_or("", |field| &field[FIELD.len() + 1..]);
    let is_own = is_same(given.as_bytes(), visit.form_token.as_bytes());
    if !is_own && !Sabotage::FormUnchecked.is_on() {
        return Err(Problem::new(
            "forbidden",
            "The form is not of a page of this session: open the page again and send it from there. Nothing was done.",
        ));
    }
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Request::from_parts(head, Body::from(fields.join("&"))))
}

fn now<T>(read: impl FnOnce(&Arrival) -> Option<T>) -> Option<T> {
    VIEWER.try_with(read).ok().flatten()
}

/// What every form has that changes anything.
pub(super) fn token() -> Markup {
    let token = now(|arrival| Some(arrival.visit.as_ref()?.form_token.clone()));
    html! {
        @if let Some(token) = token { input type="hidden" name=(FIELD) value=(token); }
    }
}

/// Who is logged in, and the way out.
pub(super) fn shown() -> Markup {
    let Some(who) = now(|arrival| Some(arrival.visit.as_ref()?.who.clone())) else {
        return html! {};
    };
    html! {
        form.viewer method="post" action="/logout" {
            (token())
            bdi title="Logged in" { (who) }
            button { "Log out" }
        }
    }
}

/// What this page was asked for by.
pub(super) fn scheme() -> &'static str {
    let is_secured = now(|arrival| Some(arrival.is_secured)).unwrap_or_default();
    if is_secured { "https" } else { "http" }
}
