//! `/sources`: where webhooks come in, and the last ones of each that were not taken, with the reason.

use std::time::Duration;

use http::HeaderMap;
use maud::{Markup, html};
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::store::Query;
use onceward::webhook::Scheme;

use super::frame::{Frame, Here, Html, base_of, heading};
use super::icons::Icon;
use super::words::{self, sign};
use crate::problem::Problem;
use crate::source::Source;
use crate::source::rejects::{self, Reject};
use crate::units;
use crate::view::View;

/// Of each source: those that were refused, and the last that were taken.
const SHOWN_MAX: usize = 20;
const TAKEN_READ: usize = 50;

/// Over what time it is counted how many were taken.
const LATELY: Duration = Duration::from_hours(24);

pub(super) async fn show(node: View, headers: HeaderMap) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let base = base_of(&headers);
    let sources = node.sources();
    let mut cards = Vec::new();
    for source in &sources {
        let rejected = rejects::list(&node, source, SHOWN_MAX).await?;
        let taken = match &source.route {
            Some(route) => Some(taken(&node, source, route).await?),
            None => None,
        };
        cards.push(card(source, &rejected, taken.as_deref(), &base));
    }
    let content = html! {
        (heading("Sources", &html! {
            "Where webhooks come in. Each is verified, remembered and answered at once; its provider's own "
            "id is its key, so that it is delivered once."
        }, "/v1/sources"))
        @if cards.is_empty() {
            div.empty.card {
                p { strong { "No sources are configured." } " One names who sends, and where it goes on to:" }
                pre tabindex="0" { code { (EXAMPLE) } }
                p.soft { "With this in onceward.toml, its provider is given the address "
                    code { (base) "/in/github" } "." }
            }
        }
        @for card in &cards { (card) }
    };
    Ok(Html(frame.page(Here::Sources, "Sources", &content)))
}

const EXAMPLE: &str = "[sources.github]
verify  = { scheme = \"github\", secret = \"${GITHUB_WEBHOOK_SECRET}\" }
deliver = \"http://127.0.0.1:3000/hooks/github\"";

/// The last webhooks of a source that were taken, the newest first.
async fn taken(node: &View, source: &Source, route: &str) -> Result<Vec<Operation>, Problem> {
    let query = Query {
        tenant: Some(source.tenant.clone()),
        route: Some(route.to_owned()),
        scope: Some(source.scope.clone()),
        limit: TAKEN_READ,
        ..Query::default()
    };
    Ok(node.list(query).await?.operations)
}

fn card(source: &Source, rejected: &[Reject], taken: Option<&[Operation]>, base: &str) -> Markup {
    let scheme = source.verifier.scheme();
    let now = crate::shape::now();
    let is_open = *scheme == Scheme::None;
    html! {
        article.card id={ "source-" (source.name) } aria-label=(source.name) {
            header.heading {
                div { h2 { (source.name) } code.soft { (base) "/in/" (source.name) } }
                div.tools {
                    @if !rejected.is_empty() {
                        (sign("dead", Icon::Dead, &format!("{} not taken", many(rejected.len(), SHOWN_MAX))))
                    }
                    @if is_open { (sign("doubt", Icon::Warning, "not verified")) }
                    @else { span.label { "checks signatures (" (scheme.name()) ")" } }
                    a.quiet href={ "/v1/sources/" (source.name) } { "JSON" }
                }
            }
            dl.facts.wide {
                @if let Some(taken) = taken {
                    div { dt { "Taken" } dd { (came(taken, now)) } }
                }
                div { dt { "Not taken" } dd { (not_taken(rejected, now)) } }
            }
            dl.facts.wide {
                div {
                    dt { "Verified by" }
                    dd {
                        @if is_open { "nothing: whoever knows the address can send" }
                        @else {
                            (scheme.name()) ", " (source.verifier.secrets())
                            @if source.verifier.secrets() == 1 { " secret" } @else { " secrets" }
                        }
                        @if !scheme.headers().is_empty() {
                            "; expects " @for (n, name) in scheme.headers().iter().enumerate() {
                                @if n > 0 { ", " } code { (name) }
                            }
                        }
                        @if scheme.signs_time() {
                            "; tolerates " (units::show(source.verifier.tolerance()))
                        }
                    }
                }
                div {
                    dt { "Goes to" }
                    dd {
                        @if let Some(route) = &source.route {
                            a href={ "/operations?route=" (words::in_query(route)) } { (route) }
                            " " code { (source.target) }
                        } @else { "nowhere: it is evidence" }
                    }
                }
                @if let Some(resolve) = &source.resolve {
                    div { dt { "Resolves" } dd { "operations in doubt of " (resolve.route) } }
                }
            }
            @if !rejected.is_empty() {
                h3 { "Not taken, by reason" }
                @for of in by_reason(rejected) { (group(source, &of, now)) }
            }
        }
    }
}

/// How many were taken lately, and when the last was.
fn came(taken: &[Operation], now: Timestamp) -> Markup {
    let lately = taken.iter().filter(|it| now.since(it.created_at) <= LATELY).count();
    html! {
        @match taken.first() {
            None => "none yet",
            Some(last) => {
                (many(lately, TAKEN_READ)) " in 24 hours, the last "
                a href=(words::url_of(last.id)) { (words::time(last.created_at, now)) }
            }
        }
    }
}

/// How many of those that are kept were not taken, since when and why.
fn not_taken(rejected: &[Reject], now: Timestamp) -> Markup {
    let reasons = by_reason(rejected);
    html! {
        @match rejected.last() {
            None => "none of late",
            Some(first) => {
                (many(rejected.len(), SHOWN_MAX)) ", the first of them " (words::time(first.at(), now)) ": "
                @for (n, of) in reasons.iter().enumerate() {
                    @if n > 0 { ", " } (of.len()) " " (says(of))
                }
            }
        }
    }
}

/// Those of one reason together, the newest first; what came last comes first.
fn by_reason(rejected: &[Reject]) -> Vec<Vec<&Reject>> {
    let mut all: Vec<Vec<&Reject>> = Vec::new();
    for reject in rejected {
        match all.iter_mut().find(|of| of[0].reason == reject.reason) {
            Some(of) => of.push(reject),
            None => all.push(vec![reject]),
        }
    }
    all
}

/// The reason of a group in words.
fn says(of: &[&Reject]) -> String {
    of.first().map_or_else(String::new, |reject| reject.reason.replace('_', " "))
}

/// Those of one reason; more than one are folded away.
fn group(source: &Source, of: &[&Reject], now: Timestamp) -> Markup {
    html! {
        @match of {
            [] => {},
            [one] => (row(source, one, now)),
            [last, ..] => {
                details.reject {
                    summary {
                        (sign("dead", Icon::Dead, &says(of))) " "
                        strong { (of.len()) " webhooks" } ", the last " (words::time(last.at(), now)) ": "
                        span.says { (last.why) }
                    }
                    @for reject in of { (row(source, reject, now)) }
                }
            }
        }
    }
}

/// Those beyond what is read are not counted.
fn many(read: usize, max: usize) -> String {
    if read == max { format!("{read} or more") } else { read.to_string() }
}

fn row(source: &Source, reject: &Reject, now: Timestamp) -> Markup {
    let body = reject.body();
    let text = String::from_utf8_lossy(&body);
    html! {
        details.reject {
            summary {
                (sign("dead", Icon::Dead, &reject.reason.replace('_', " "))) " "
                span.says { (reject.why) } " "
                span.soft { (words::time(reject.at(), now)) }
            }
            p {
                "Answered " (reject.status) ". "
                @match reject.verifies_now(source) {
                    Some(true) if reject.status < 300 => "It verifies, and nothing was delivered.",
                    Some(true) => strong { "With the secrets of now it verifies: its provider may send it again." },
                    Some(false) => "With the secrets of now it does not verify either.",
                    None => "Not all of it is kept, so that it cannot be verified again.",
                }
            }
            pre tabindex="0" {
                (reject.method) " " (reject.target) "\n"
                @for (name, value) in &reject.headers { (name) ": " (value) "\n" }
                "\n" (text)
                @if reject.body_bytes > body.len() { "\n… of " (reject.body_bytes) " bytes" }
            }
        }
    }
}
