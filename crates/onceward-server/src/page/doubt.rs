//! What an upstream was asked about an operation in doubt, and the button that asks it again.

use axum::extract::Path;
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::lookup::LookupRule;
use onceward::core::operation::{Operation, State as Life};
use onceward::core::time::Timestamp;

use super::{viewer, words};
use crate::problem::Problem;
use crate::view::View;

/// Asks the upstream now, and goes back to the story, which tells what came of it.
pub(super) async fn look(node: View, Path(id): Path<String>) -> Result<Redirect, Problem> {
    let id = node.find(&id).await?.id;
    let (operation, _) = node.engine.look_again(id).await?;
    Ok(Redirect::to(&words::url_of(operation.id)))
}

/// The looks made and the next, where the route says how to look.
pub(super) fn looks(operation: &Operation, rule: Option<&LookupRule>, now: Timestamp) -> Markup {
    let Some(rule) = rule.filter(|_| operation.state == Life::InDoubt) else { return html! {} };
    let looks = operation.looks;
    html! {
        section #looks {
            h2 { "Asked at the upstream" }
            form.card method="post" action={ (words::url_of(operation.id)) "/lookup" } {
                (viewer::token())
                p { code { "GET " (rule.get.as_str()) } }
                p {
                    @if looks.made == 0 { "Not asked yet." }
                    @else {
                        "Asked " strong { (looks.made) } @if looks.made == 1 { " time" } @else { " times" }
                        @if looks.absent > 0 { ", and the last time it did not know of it" }
                        ". "
                        @match looks.next {
                            Some(next) if next > now => { "Next " (words::time(next, now)) "." }
                            Some(_) => "Next now.",
                            None => "It is not asked again by itself.",
                        }
                    }
                }
                button { "Look again" }
            }
        }
    }
}
