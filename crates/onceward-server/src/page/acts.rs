//! What a person does on a page: a form with a reason, one write through the engine, and back to
//! the story, which tells what was done.

use std::time::Duration;

use axum::extract::Path;
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Operation, State as Life};
use onceward::core::policy::Mode;
use onceward::core::risk::{Risk, risk};
use serde::Deserialize;

use super::frame::reason;
use super::words;
use crate::access::Caller;
use crate::operator::{Because, Sent, invalid, reasoned, resolution, risks, then_of};
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// How long the answer to a redelivery waits for its end, so that the page shows how it ended:
/// most upstreams answer in less, and a person does not mind.
const LOOK_AFTER: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) type Done = Result<Redirect, Problem>;

/// Back to the story, which tells of the last act.
pub(super) fn told(operation: &Operation) -> Redirect {
    Redirect::to(&format!("{}?told=1", words::url_of(operation.id)))
}

/// The address of a form, opened again by hand.
pub(super) async fn back(Path(id): Path<String>, node: View) -> Done {
    Ok(Redirect::to(&words::url_of(node.find(&id).await?.id)))
}

#[derive(Debug, Deserialize)]
pub(super) struct Redeliver {
    reason: String,
    /// The risk that is taken, by its name.
    risk: Option<String>,
}

pub(super) async fn redeliver(
    node: View,
    Path(id): Path<String>,
    Sent(person, form): Sent<Redeliver>,
) -> Done {
    let taken = risks(form.risk.as_deref())?;
    let id = node.find(&id).await?.id;
    let operation = node.engine.redeliver_at_risk(id, &person, &taken).await?;
    look_after(&node, &operation).await?;
    Ok(told(&operation))
}

/// Waits until what was sent again has ended or waits for its next attempt, but not for long.
async fn look_after(node: &View, sent: &Operation) -> Result<(), Problem> {
    let mut waited = Duration::ZERO;
    while waited < LOOK_AFTER && !node.is_quarantined() {
        tokio::time::sleep(LOOK_EVERY).await;
        waited += LOOK_EVERY;
        let now = node.find(&sent.id.to_string()).await?;
        let is_under_way =
            now.state == Life::Delivering || now.attempts_made() == sent.attempts_made();
        if !is_under_way {
            break;
        }
    }
    Ok(())
}

pub(super) async fn retry(
    node: View,
    Path(id): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let operation = node.engine.retry(node.find(&id).await?.id, &person).await?;
    look_after(&node, &operation).await?;
    Ok(told(&operation))
}

pub(super) async fn cancel(
    node: View,
    Path(id): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let operation = node.engine.cancel(node.find(&id).await?.id, &person).await?;
    Ok(told(&operation))
}

#[derive(Debug, Deserialize)]
pub(super) struct Resolve {
    r#as: String,
    reason: String,
    /// Text, because a field that is left empty comes as an empty text.
    #[serde(default)]
    status: String,
    #[serde(default)]
    body: String,
}

pub(super) async fn resolve(
    node: View,
    Path(id): Path<String>,
    Sent(person, form): Sent<Resolve>,
) -> Done {
    let status = match form.status.trim() {
        "" => None,
        text => {
            let wrong = |_| invalid(format!("status: {text:?} is no status code"));
            Some(text.parse().map_err(wrong)?)
        }
    };
    // A form sends every line break as two letters, whatever was typed.
    let body = Some(form.body.replace("\r\n", "\n")).filter(|body| !body.is_empty());
    let resolution = resolution(&form.r#as, status, body, None)?;
    let operation = node.engine.resolve(node.find(&id).await?.id, &resolution, &person).await?;
    if !operation.state.is_ended() {
        look_after(&node, &operation).await?;
    }
    Ok(told(&operation))
}

#[derive(Debug, Deserialize)]
pub(super) struct Forget {
    reason: String,
    then: String,
}

pub(super) async fn forget(
    node: View,
    Path(id): Path<String>,
    Sent(person, form): Sent<Forget>,
) -> Done {
    let then = then_of(Some(&form.then))?;
    let operation = node.find(&id).await?;
    let operation = node.engine.forget(&operation.scope, &operation.key, then, &person).await?;
    Ok(told(&operation))
}

reasoned!(Redeliver, Resolve, Forget);

/// The forms that fit where the operation stands.
pub(super) fn forms(operation: &Operation, caller: &Caller) -> Markup {
    // A step is retried with its saga, which may have gone on without it.
    let is_over = operation.scope.kind == ScopeKind::Step && operation.state.is_ended();
    let is_sent = !matches!(operation.scope.kind, ScopeKind::Claim | ScopeKind::Saga) && !is_over;
    let can_send = operation.request.is_some() && is_sent;
    let risk = risk(operation, shape::now());
    html! {
        section.acts #acts aria-label="What you can do" {
            @match operation.state {
                Life::Dead(_) if can_send => (redelivery(operation, risk)),
                Life::Pending { due } => div.choices {
                    @if is_sent && operation.mode == Mode::Accepted && operation.is_first() && due > shape::now() {
                        (form(operation, "retry", "Try now", &html! {
                            p { "Brings its next attempt forward: the same call under the same key, once. A pause or an open breaker holds it all the same." }
                        }, false))
                    }
                    (form(operation, "cancel", "Cancel", &html! {
                        p { "Gives it up: no further attempt is made, and its key answers 410." }
                    }, true))
                },
                Life::InDoubt => {
                    (resolutions(operation))
                    @if can_send {
                        details.card data-key="again" {
                            summary { "Send it again all the same" }
                            (redelivery(operation, risk))
                        }
                    }
                }
                Life::Dead(_) | Life::Delivering | Life::Done => {}
            }
            @if can_send {
                p { a href={ (words::url_of(operation.id)) "/resend" } { "Edit and resend" } }
            }
            @if operation.state.is_ended() && operation.forgotten.is_none() {
                details.card data-key="forget" {
                    summary { "Forget its key" }
                    (form(operation, "forget", "Forget", &html! {
                        fieldset {
                            legend { "The same key then" }
                            label.choice {
                                input type="radio" name="then" value="refuse" checked;
                                " is refused, with your reason (410)"
                            }
                            label.choice {
                                input type="radio" name="then" value="new";
                                " is a new operation"
                            }
                        }
                    }, true))
                }
            }
            p.soft.small {
                "What you do stays with the operation: your name (" bdi { (caller.who()) }
                "), the time and your reason."
            }
        }
    }
}

/// What it could do stands above the button; where that is harm, a person has to say yes to it.
fn redelivery(operation: &Operation, risk: Risk) -> Markup {
    let is_risky = risk.wants_a_word();
    form(
        operation,
        "redeliver",
        "Redeliver",
        &html! {
            @if is_risky { (taken(risk)) } @else { p { (risk.words()) } }
        },
        is_risky,
    )
}

/// A risk that a person has to take by its name.
pub(super) fn taken(risk: Risk) -> Markup {
    html! {
        p.warn { (risk.words()) }
        label.choice {
            input type="checkbox" name="risk" value=(risk.name()) required;
            " Send it, whatever comes of it"
        }
    }
}

fn resolutions(operation: &Operation) -> Markup {
    // Nothing of a claim is sent: what was not done is for whoever begins it next.
    let (seen, not_sent, looked) = if operation.scope.kind == ScopeKind::Claim {
        (
            "You know that it was done. Whoever begins it gets the outcome that you give here.",
            "It was not done: free it",
            "You know that it was not done. If it was, whoever begins it next does it twice.",
        )
    } else {
        (
            "You saw it at the upstream. Duplicates get the answer that you give here.",
            "It was not sent: send it now",
            "You looked, and the upstream has not done it. If it has, this does it twice.",
        )
    };
    html! {
        div.choices {
            (form_as(operation, Some("done"), "resolve", "It was done", &html! {
                p { (seen) }
                label { "Status of that answer " span.soft { "(optional)" }
                    input name="status" inputmode="numeric" pattern="[2-5][0-9][0-9]"
                        placeholder="201" autocomplete="off";
                }
                label { "Its body " span.soft { "(optional)" }
                    textarea name="body" rows="3" spellcheck="false" {}
                }
            }, false))
            (form_as(operation, Some("not-sent"), "resolve", not_sent, &html! {
                p { (looked) }
            }, true))
        }
    }
}

fn form(operation: &Operation, verb: &str, button: &str, fields: &Markup, careful: bool) -> Markup {
    form_as(operation, None, verb, button, fields, careful)
}

fn form_as(
    operation: &Operation,
    word: Option<&str>,
    verb: &str,
    button: &str,
    fields: &Markup,
    careful: bool,
) -> Markup {
    html! {
        form.card data-key=(word.unwrap_or(verb)) method="post" action={ (words::url_of(operation.id)) "/" (verb) } {
            (fields)
            @if let Some(word) = word { input type="hidden" name="as" value=(word); }
            (reason("Reason"))
            button.careful[careful] { (button) }
        }
    }
}
