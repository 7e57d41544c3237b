//! What a person does about a saga: the forms that fit where it stands, the likeliest first, and what comes
//! of them.

use axum::extract::Path;
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::Saga;
use onceward::core::operation::Operation;
use onceward::core::risk::{Risk, risk};
use onceward::core::saga::Standing;
use serde::Deserialize;

use super::super::acts::{self, Done};
use super::super::frame::reason;
use super::url_of;
use crate::access::Caller;
use crate::operator::sagas::word_of;
use crate::operator::{Because, Sent, reasoned, risks};
use crate::shape;
use crate::view::View;

/// What became of its steps, as far as they are in the ledger: each with its compensation.
type Found = [(Option<Operation>, Option<Operation>)];

/// The forms that fit where the saga stands.
pub(super) fn forms(saga: &Saga, found: &Found, caller: &Caller) -> Markup {
    let standing = saga.standing();
    if standing.is_ended() {
        return acts::forms(&saga.operation, caller);
    }
    let is_paused = saga.kept.as_ref().is_some_and(|kept| kept.progress.is_paused);
    let is_past =
        saga.kept.as_ref().is_some_and(|kept| kept.definition.plan().is_past_pivot(&kept.progress));
    html! {
        section.acts #acts aria-label="What you can do" {
            @if standing == Standing::Stuck { (ways_out(saga, found)) }
            @if standing == Standing::InDoubt {
                @if let Some(step) = at_hand(saga, found) {
                    p { a.button href={ "/operations/" (step.id) "#acts" } { "Resolve the step at hand" } }
                }
            }
            @if is_paused {
                (form(saga, "resume", "Resume", "", &html! { p { "Lets it go on." } }))
            } @else {
                details.card data-key="pause" {
                    summary { "Pause it" }
                    (form(saga, "pause", "Pause", "", &html! {
                        p { "What is at hand comes to its end; nothing else is begun." }
                    }))
                }
            }
            @if standing != Standing::Unwinding && !is_past {
                details.card data-key="cancel" {
                    summary { "Cancel it: undo what was done" }
                    (form(saga, "cancel", "Cancel", "careful", &html! {
                        p { "Undoes in reverse what was done." }
                    }))
                }
            }
        }
    }
}

/// Out of what it is stuck at: it is tried anew, or somebody knows.
fn ways_out(saga: &Saga, found: &Found) -> Markup {
    let risk = at_hand(saga, found).map(|step| risk(step, shape::now()));
    let risk = risk.filter(|risk: &Risk| risk.wants_a_word());
    html! {
        div.choices {
            (form(saga, "retry", "Retry", if risk.is_some() { "careful" } else { "" }, &html! {
                p { "Tries the step at hand anew." }
                @if let Some(risk) = risk {
                    p.warn { (risk.words()) }
                    label.choice {
                        input type="checkbox" name="risk" value=(risk.name()) required;
                        " Try it, whatever comes of it"
                    }
                }
            }))
            @if let Some(step) = saga.at_hand() {
                (form(saga, "resolve", "Say so", "", &html! {
                    p { "You know what became of " strong { (step) } ", or did it by hand." }
                    input type="hidden" name="step" value=(step);
                    label { "It is"
                        select name="as" {
                            option value="done" { "done" }
                            option value="not-done" { "not done, and is not going to be" }
                        }
                    }
                }))
            }
        }
    }
}

/// The operation of the step at hand.
fn at_hand<'a>(saga: &Saga, found: &'a Found) -> Option<&'a Operation> {
    let at = saga.kept.as_ref().and_then(|kept| kept.progress.at)?;
    let (ask, undo) = found.get(at.step)?;
    if at.undo { undo.as_ref() } else { ask.as_ref() }
}

fn form(saga: &Saga, deed: &str, says: &str, class: &str, inside: &Markup) -> Markup {
    html! {
        form.card data-key=(deed) method="post" action={ (url_of(saga)) "/" (deed) } {
            (inside)
            (reason("Reason"))
            button.(class) { (says) }
        }
    }
}

fn told(saga: &Saga) -> Redirect {
    Redirect::to(&url_of(saga))
}

pub(in crate::page) async fn pause(
    node: View,
    Path(id): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.pause_saga(id, &person).await?))
}

pub(in crate::page) async fn resume(
    node: View,
    Path(id): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.resume_saga(id, &person).await?))
}

pub(in crate::page) async fn cancel(
    node: View,
    Path(id): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.cancel_saga(id, &person).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::page) struct Retry {
    reason: String,
    risk: Option<String>,
}

pub(in crate::page) async fn retry(
    node: View,
    Path(id): Path<String>,
    Sent(person, form): Sent<Retry>,
) -> Done {
    let taken = risks(form.risk.as_deref())?;
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.retry_saga(id, &person, &taken).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::page) struct Resolve {
    reason: String,
    step: String,
    r#as: String,
}

reasoned!(Retry, Resolve);

pub(in crate::page) async fn resolve(
    node: View,
    Path(id): Path<String>,
    Sent(person, form): Sent<Resolve>,
) -> Done {
    let word = word_of(&form.r#as)?;
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.settle_saga(id, &person, &form.step, word).await?))
}
