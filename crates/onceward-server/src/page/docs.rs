//! `/docs`: the reference of the API, made of the API's own document. A page for each part of it, one for the
//! problems, and one that leads to all of them; each endpoint, shape and code has an anchor of its name. None of
//! them reads the ledger, so they are there when it is not.

mod endpoint;
mod example;
mod on_call;
mod problems;
mod schema;
mod text;

use axum::extract::Path;
use axum::response::Response;
use http::HeaderMap;
use maud::{Markup, html};
use serde_json::Value;

use self::endpoint::Told;
use self::example::Base;
use self::schema::Shapes;
use super::frame::{Here, Html, Ways, base_of, document as page_of};
use crate::openapi::document;
use crate::problem::Problem;
use crate::view::View;

const STYLE: &str = include_str!("docs.css");

/// Where the document itself is.
const DOCUMENT: &str = "/v1/openapi.json";

/// A part of the API, as the document names it.
struct Part {
    name: &'static str,
    about: &'static str,
}

impl Part {
    fn all() -> impl Iterator<Item = Self> {
        let tags = document()["tags"].as_array().into_iter().flatten();
        tags.map(|tag| Self { name: said(tag, "name"), about: said(tag, "description") })
    }

    /// What its address ends in.
    fn word(&self) -> String {
        self.name.to_lowercase()
    }

    fn place(&self) -> String {
        format!("/docs/{}", self.word())
    }
}

/// A member that is text; the document's own, so that it is there for good.
fn said(value: &'static Value, member: &str) -> &'static str {
    value[member].as_str().unwrap_or_default()
}

/// What `value` refers to, or itself.
fn followed(value: &'static Value) -> &'static Value {
    let to = value["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
    to.and_then(|place| document().pointer(place)).unwrap_or(value)
}

/// The last part of what `value` refers to.
fn name_of(value: &'static Value) -> Option<&'static str> {
    value["$ref"].as_str()?.rsplit('/').next()
}

/// How they look, beside the sheet of all pages.
pub(super) async fn style(asked: HeaderMap) -> Response {
    super::file(&asked, "text/css; charset=utf-8", STYLE)
}

/// Everything, in a line each.
pub(super) async fn index() -> Html {
    let info = &document()["info"];
    let content = html! {
        h1 { "The HTTP API" }
        div.lead { (text::paragraphs(said(info, "description"))) }
        p {
            "For programs: " a href=(DOCUMENT) { "the same as a document (OpenAPI 3.1)" } ". "
            a href="/docs/problems" { "All problems" } ", by their codes."
        }
        @for part in Part::all() {
            h2 { a href=(part.place()) { (part.name) } }
            p.soft { (text::line(part.about)) }
            ul.index { @for told in endpoint::of(part.name) { (told.lines(&part.place())) } }
        }
    };
    Html(framed("API", "", &content))
}

/// One part of it, whole.
pub(super) async fn part(
    node: View,
    headers: HeaderMap,
    Path(word): Path<String>,
) -> Result<Html, Problem> {
    let part = Part::all().find(|part| part.word() == word);
    let part = part.ok_or_else(|| {
        Problem::new("not-found", format!("The API has no part {word:?}; /docs has them all."))
    })?;
    let base = Base { address: base_of(&headers), wants_key: node.access.is_needed() };
    Ok(Html(page(&part, &base)))
}

fn page(part: &Part, base: &Base) -> Markup {
    let all: Vec<Told> = endpoint::of(part.name).collect();
    let mut shapes = Shapes::default();
    let common = endpoint::common(&all);
    let endpoints: Vec<Markup> =
        all.iter().map(|told| told.section(base, &common, &mut shapes)).collect();
    let shapes = shapes.sections();
    let content = html! {
        h1 { (part.name) }
        p.lead { (text::line(part.about)) "." }
        nav aria-label="On this page" {
            ul.index { @for told in &all { (told.lines("")) } }
        }
        @for endpoint in &endpoints { (endpoint) }
        @if !common.is_empty() {
            section.card.endpoint {
                h2 #refusals { "What every endpoint of this page may refuse with" }
                dl.answers { (endpoint::refused(&common)) }
            }
        }
        @if !shapes.is_empty() {
            h2 { "Shapes" }
            @for shape in &shapes { (shape) }
        }
    };
    framed(part.name, &part.word(), &content)
}

/// All codes.
pub(super) async fn problems() -> Html {
    Html(framed("Problems", "problems", &problems::content()))
}

/// What an alert means, and what to do.
pub(super) async fn on_call(Path(alert): Path<String>) -> Result<Html, Problem> {
    let page = on_call::page(&alert);
    let page = page.ok_or_else(|| {
        Problem::new(
            "not-found",
            format!("No alert is called {alert:?}; /alerts has those that fire."),
        )
    })?;
    Ok(Html(framed(&alert, &alert, &page)))
}

/// The frame of all pages of the reference: no counts, so no ledger.
fn framed(title: &str, here: &str, content: &Markup) -> Markup {
    let link = |place: &str, word: &str, name: &str| {
        html! { a href=(place) aria-current=[(word == here).then_some("page")] { (name) } }
    };
    let body = html! {
        link rel="stylesheet" href="/docs.css";
        div.docs {
            nav.parts aria-label="Parts of the API" {
                (link("/docs", "", "All of it"))
                @for part in Part::all() { (link(&part.place(), &part.word(), part.name)) }
                (link("/docs/problems", "problems", "Problems"))
                a href=(DOCUMENT) { "OpenAPI" }
            }
            article { (content) }
        }
    };
    page_of(title, Some(&Ways::few(Some(Here::Docs))), &body)
}

#[cfg(test)]
mod tests;
