//! What an upstream was asked about an operation in doubt, and the button that asks it again.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::lookup::LookupRule;
use onceward::core::operation::{Operation, State as Life};
use onceward::core::time::Timestamp;

use super::{viewer, words};
use crate::node::Node;
use crate::operator::find;
use crate::problem::Problem;

/// Asks the upstream now, and goes back to the story, which tells what came of it.
pub(super) async fn look(
    State(node): State<Arc<Node>>,
    Path(id): Path<String>,
) -> Result<Redirect, Problem> {
    let id = find(&node, &id).await?.id;
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
