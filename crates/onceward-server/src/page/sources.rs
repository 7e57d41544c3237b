//! `/sources`: where webhooks come in, and the last ones of each that were not taken, with the reason.

use http::HeaderMap;
use maud::{Markup, html};
use onceward::webhook::Scheme;

use super::frame::{Frame, Here, Html, base_of};
use super::words;
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
        h1 { "Sources" }
        p.lead {
            "Where webhooks come in. Each is verified, remembered and answered at once; its provider's own "
            "id is its key, so that it is delivered once."
        }
        @if cards.is_empty() {
            div.empty.card {
                p { strong { "No sources are configured." } }
                pre { (EXAMPLE) }
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
    html! {
        section.card aria-label=(source.name) {
            h2 { (source.name) }
            dl.facts {
                dt { "Address" } dd { code { (base) "/in/" (source.name) } }
                dt { "Verified by" }
                dd {
                    @if *scheme == Scheme::None { "nothing: whoever knows the address can send" }
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
                dt { "Goes to" }
                dd {
                    @if let Some(route) = &source.route {
                        a href={ "/operations?route=" (route.replace('/', "%2F")) } { (route) }
                        " " code { (source.target) }
                    } @else { "nowhere: it is evidence" }
                }
                @if let Some(resolve) = &source.resolve {
                    dt { "Resolves" } dd { "operations in doubt of " (resolve.route) }
                }
            }
            h3 { "Not taken" }
            @if rejected.is_empty() { p.soft { "None is kept." } }
            @for reject in rejected { (row(source, reject, now)) }
        }
    }
}

fn row(source: &Source, reject: &Reject, now: onceward::core::time::Timestamp) -> Markup {
    let body = reject.body();
    let text = String::from_utf8_lossy(&body);
    html! {
        details {
            summary {
                (words::time(reject.at(), now)) " "
                span.chip.dead { (reject.reason.replace('_', " ")) } " "
                span { (reject.why) }
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
