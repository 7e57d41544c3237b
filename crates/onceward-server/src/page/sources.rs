//! `/sources`: where webhooks come in, and the last ones of each that were not taken, with the reason.

use http::HeaderMap;
use maud::{Markup, html};
use onceward::webhook::Scheme;

use super::frame::{Frame, Here, Html, base_of, heading};
use super::icons::Icon;
use super::words::{self, sign};
use crate::problem::Problem;
use crate::source::Source;
use crate::source::rejects::{self, Reject};
use crate::units;
use crate::view::View;

/// Of each source.
const SHOWN_MAX: usize = 20;

pub(super) async fn show(node: View, headers: HeaderMap) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let base = base_of(&headers);
    let sources = node.sources();
    let mut cards = Vec::new();
    for source in &sources {
        let rejected = rejects::list(&node, source, SHOWN_MAX).await?;
        cards.push(card(source, &rejected, &base));
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

fn card(source: &Source, rejected: &[Reject], base: &str) -> Markup {
    let scheme = source.verifier.scheme();
    let now = crate::shape::now();
    let is_open = *scheme == Scheme::None;
    html! {
        article.card aria-label=(source.name) {
            header.heading {
                div { h2 { (source.name) } code.soft { (base) "/in/" (source.name) } }
                div.tools {
                    @if is_open { (sign("doubt", Icon::Warning, "not verified")) }
                    @else { (sign("done", Icon::Done, "verified")) }
                    @if !rejected.is_empty() {
                        (sign("dead", Icon::Dead, &format!("{} not taken", many(rejected.len()))))
                    }
                    a.quiet href={ "/v1/sources/" (source.name) } { "JSON" }
                }
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
            @if rejected.is_empty() { p.calm { (Icon::Done.show()) " Nothing was refused of late." } }
            @else {
                h3 { "Not taken, the newest first" }
                @for reject in rejected { (row(source, reject, now)) }
            }
        }
    }
}

/// Those beyond what is shown are not counted.
fn many(shown: usize) -> String {
    if shown == SHOWN_MAX { format!("{shown} or more") } else { shown.to_string() }
}

fn row(source: &Source, reject: &Reject, now: onceward::core::time::Timestamp) -> Markup {
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
