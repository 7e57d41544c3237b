//! The pages for people: what needs somebody first, then everything; and of each operation its
//! whole story, with what a person can do about it.
//!
//! They are rendered here and are whole without the one script, which keeps them up to date. Everything
//! that came from outside is text: maud escapes it, and the policy that goes with every page lets nothing
//! else run and loads nothing from elsewhere. Every change is a form of this origin's own; `access` refuses any other, and in a session
//! each form carries what only its pages know (`viewer`).

mod acts;
mod again;
mod alerts;
mod audit;
mod bulk;
mod chart;
mod contract;
mod dead;
mod docs;
mod doubt;
mod duplicates;
mod events;
mod filter;
mod frame;
mod icons;
mod keys;
mod lists;
mod login;
mod needs;
mod oidc;
mod outboxes;
mod overview;
mod payload;
mod profile;
mod resend;
mod rows;
mod sagas;
mod saved;
mod send;
mod since;
mod sources;
mod stats;
mod story;
mod subscriptions;
mod suspects;
mod theme;
mod timeline;
mod track;
mod upstreams;
mod verdict;
mod viewer;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use onceward::core::hex;
use onceward::secret::sha256;

use crate::body::Body;
use crate::node::Node;
use crate::problem::Problem;

pub(crate) use self::upstreams::place as upstream_place;

/// What goes with every page. The referrer policy is not `no-referrer`: under that, a browser
/// says `Origin: null` of our own forms, and they could not be told from another site's.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// One sheet: what all pages share, then what those of operations have.
const STYLE: &str = concat!(include_str!("page/style.css"), include_str!("page/operations.css"));
const SCRIPT: &str = include_str!("page/script.js");
const ICON: &str = include_str!("page/icon.svg");

/// The pages' paths, and what every unknown path gets.
pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/alerts", get(alerts::show))
        .route("/operations", get(lists::operations))
        .route("/dead", get(dead::show))
        .route("/in-doubt", get(lists::in_doubt))
        .route("/audit", get(audit::show))
        .route("/bulk", get(bulk::list).post(bulk::plan::begin))
        .route("/bulk/plan", get(bulk::plan::of_filter).post(bulk::plan::of_selected))
        .route("/bulk/{bulk}", get(bulk::show))
        .route("/bulk/{bulk}/stop", post(bulk::stop))
        .route("/filters", post(saved::save))
        .route("/filters/delete", post(saved::delete))
        .route("/operations/{id}", get(story::show))
        .route("/operations/{id}/request", get(story::request_file))
        .route("/operations/{id}/response", get(story::response_file))
        .route("/operations/{id}/redeliver", get(acts::back).post(acts::redeliver))
        .route("/operations/{id}/resend", get(resend::form).post(resend::resend))
        .route("/operations/{id}/cancel", get(acts::back).post(acts::cancel))
        .route("/operations/{id}/retry", get(acts::back).post(acts::retry))
        .route("/operations/{id}/resolve", get(acts::back).post(acts::resolve))
        .route("/operations/{id}/forget", get(acts::back).post(acts::forget))
        .route("/operations/{id}/lookup", get(acts::back).post(doubt::look))
        .route("/sagas", get(sagas::list))
        .route("/sagas/{id}", get(sagas::show))
        .route("/sagas/{id}/pause", post(sagas::acts::pause))
        .route("/sagas/{id}/resume", post(sagas::acts::resume))
        .route("/sagas/{id}/retry", post(sagas::acts::retry))
        .route("/sagas/{id}/cancel", post(sagas::acts::cancel))
        .route("/sagas/{id}/resolve", post(sagas::acts::resolve))
        .route("/sources", get(sources::show))
        .route("/events", get(events::list))
        .route("/events/{event}", get(events::show))
        .route("/subscriptions", get(subscriptions::show))
        .route("/subscriptions/{sub}/pause", post(subscriptions::pause))
        .route("/subscriptions/{sub}/resume", post(subscriptions::resume))
        .route("/subscriptions/{sub}/recover", post(subscriptions::recover))
        .route("/subscriptions/{sub}/test", post(subscriptions::test))
        .route("/outboxes", get(outboxes::show))
        .route("/keys", get(keys::show))
        .route("/duplicates", get(duplicates::show))
        .route("/upstreams", get(upstreams::show))
        .route("/upstreams/{route}/pause", post(upstreams::pause))
        .route("/upstreams/{route}/resume", post(upstreams::resume))
        .route("/upstreams/{route}/probe", post(upstreams::probe))
        .route("/send", get(send::form).post(send::send))
        .route("/contract/{route}", get(contract::show))
        .route("/docs", get(docs::index))
        .route("/docs/problems", get(docs::problems))
        .route("/docs/on-call/{alert}", get(docs::on_call))
        .route("/docs/{part}", get(docs::part))
        .route("/login", get(login::form).post(login::log_in))
        .route("/login/oidc", get(oidc::begin))
        .route("/login/oidc/callback", get(oidc::callback))
        .route("/logout", post(login::log_out))
        .route("/style.css", get(style))
        .route("/script.js", get(script))
        .route("/docs.css", get(docs::style))
        .route("/icon.svg", get(icon))
        .route("/favicon.ico", get(icon))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(dress))
}

/// A file of the binary's own; asked for again each time, so that a new release shows at once, and sent
/// where it is another one than the browser has. Pages are not: in each stand what whoever wrote its address
/// chose and what only its session knows, so that they are not packed either, lest the length of the one
/// tell of the other.
fn file(asked: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let tag = format!("\"{}\"", hex::encode(&sha256(text.as_bytes())[..16]));
    let known = asked.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|it| it.trim() == tag));
    let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn style(asked: HeaderMap) -> Response {
    file(&asked, "text/css; charset=utf-8", STYLE)
}

async fn script(asked: HeaderMap) -> Response {
    file(&asked, "text/javascript; charset=utf-8", SCRIPT)
}

async fn icon(asked: HeaderMap) -> Response {
    file(&asked, "image/svg+xml", ICON)
}

async fn unknown() -> Problem {
    Problem::new("not-found", "Nothing is at this address.")
}

/// What a path answers that knows the method not.
pub(crate) async fn not_allowed() -> Problem {
    Problem::new("method-not-allowed", "This address takes other methods.")
}

/// Looks that a change comes from a page of the same session, puts the headers on, and shows a problem to
/// a browser as a page.
async fn dress(request: Request, next: Next) -> Response {
    let is_browser = wants_html(request.headers());
    let theme = theme::of(request.headers());
    let mut response = theme::during(theme, viewer::answer(request, next)).await;
    if is_browser && let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = theme::within(theme, || problem_page(&problem)).map(axum::body::Body::new);
    }
    put_headers(response.headers_mut());
    response
}

/// A refusal that came before any page: to a browser that wanted a page, as one; where nobody has logged
/// in, it is led to where one does.
pub(crate) fn refused(head: &Parts, problem: &Problem) -> http::Response<Body> {
    let path = head.uri.path();
    let is_api = ["/v1/", "/to/", "/in/", "/metrics"].iter().any(|api| path.starts_with(api));
    if is_api || !wants_html(&head.headers) {
        return problem.response();
    }
    let is_look = matches!(head.method, Method::GET | Method::HEAD);
    let mut response = if problem.code == "unauthenticated" && is_look {
        to_login(head)
    } else {
        theme::within(theme::of(&head.headers), || problem_page(problem))
    };
    put_headers(response.headers_mut());
    response
}

fn problem_page(problem: &Problem) -> http::Response<Body> {
    let mut response = problem.response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    *response.body_mut() = Body::full(frame::problem(problem).into_string().into());
    response
}

/// The way to the login, and back to what was asked for.
fn to_login(head: &Parts) -> http::Response<Body> {
    let mut response = http::Response::new(Body::full(Bytes::new()));
    *response.status_mut() = StatusCode::SEE_OTHER;
    let asked = head.uri.path_and_query().map_or("/", |asked| asked.as_str());
    if let Ok(place) = HeaderValue::from_str(&login::place(asked)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

fn put_headers(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
