//! `/sagas`: several effects of one cause, and of each how far it came, step by step, with what a person
//! can do about it.

use axum::extract::{Extension, Path};
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::operation::Operation;
use onceward::core::risk::risk;
use onceward::core::saga::{Leg, Standing};
use onceward::core::time::Timestamp;
use onceward::store::Query;
use onceward::{Kept, Saga};
use serde::Deserialize;

use super::acts::Done;
use super::frame::{self, Frame, Here, Html, heading, reason};
use super::icons::Icon;
use super::words::{self, sign};
use crate::access::{Caller, Roles};
use crate::operator::sagas::{page, state_of, word_of};
use crate::operator::{Asked, Because, Sent, id_of, reasoned, risks};
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// On a page of the list.
const SHOWN_MAX: usize = 50;

/// What the list is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    state: Option<String>,
    cursor: Option<String>,
    /// Read by whoever looks at the ledger.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
}

pub(super) async fn list(node: View, Asked(wanted): Asked<Wanted>) -> Result<Html, Problem> {
    let state = state_of(wanted.state.as_deref().filter(|word| !word.is_empty()))?;
    let before = wanted.cursor.as_deref().filter(|word| !word.is_empty());
    let before = before.map(id_of).transpose()?;
    let query = Query { before, limit: SHOWN_MAX, ..Query::default() };
    let (sagas, next) = page(&node, state, query).await?;
    let (frame, now) = (Frame::of(&node).await?, shape::now());
    let narrowed = state.map(|state| format!("state={}", state.name())).unwrap_or_default();
    let lead = html! {
        "Several effects of one cause, one after the other; where one fails, what was done is undone in reverse."
    };
    let content = html! {
        (heading("Sagas", &lead, &format!("/v1/sagas?{narrowed}")))
        p.narrowed {
            a href="/sagas" aria-current=[state.is_none().then_some("true")] { "all" }
            @for one in Standing::ALL {
                " " a href={ "/sagas?state=" (one.name()) } aria-current=[(state == Some(one)).then_some("true")] {
                    (word(one))
                }
            }
        }
        @if sagas.is_empty() {
            div.empty.card { p { strong {
                "No sagas" @if state.is_some() { " stand here" } @if next.is_some() { " among these" } "."
            } } }
        } @else { (table(&sagas, now)) }
        @if let Some(next) = next {
            p.more { a href={ "/sagas?" (narrowed) "&cursor=" (next) } { "Older ones" } }
        }
    };
    Ok(Html(frame.page(Here::Sagas, "Sagas", &content)))
}

fn word(standing: Standing) -> String {
    standing.name().replace('_', " ")
}

/// Where a saga stands.
fn chip(standing: Standing) -> Markup {
    let (class, icon) = match standing {
        Standing::Running => ("delivering", Icon::Delivering),
        Standing::InDoubt => ("doubt", Icon::Doubt),
        Standing::Paused => ("pending", Icon::Paused),
        Standing::Unwinding => ("refused", Icon::Warning),
        Standing::Stuck => ("dead", Icon::Dead),
        Standing::Done => ("done", Icon::Done),
        Standing::Unwound => ("told", Icon::Gone),
    };
    sign(class, icon, &word(standing))
}

fn table(sagas: &[Saga], now: Timestamp) -> Markup {
    let head = html! {
        th scope="col" { "State" }
        th scope="col" { "Key" }
        th scope="col" { "Steps" }
        th scope="col" { "At hand" }
        th scope="col" { "Came" }
    };
    let rows = html! { @for saga in sagas { (row(saga, now)) } };
    frame::stacked("Sagas", &head, &rows)
}

fn row(saga: &Saga, now: Timestamp) -> Markup {
    let operation = &saga.operation;
    let legs = saga.kept.as_ref().map_or(&[][..], |kept| &kept.progress.legs);
    let done = legs.iter().filter(|leg| **leg == Leg::Done).count();
    html! {
        tr data-key=(operation.id) {
            td.state data-label="State" { (chip(saga.standing())) }
            td.what {
                a.key href=(url_of(saga)) { (operation.key.as_str()) }
                @if let Some(label) = &operation.label { span.label { (label) } }
            }
            td data-label="Steps" {
                @if legs.is_empty() { span.soft { "forgotten" } }
                @else { (done) span.soft { "/" (legs.len()) " done" } }
            }
            td data-label="At hand" { (saga.at_hand().unwrap_or_default()) }
            td data-label="Came" { (words::time(operation.created_at, now)) }
        }
    }
}

fn url_of(saga: &Saga) -> String {
    format!("/sagas/{}", saga.operation.id)
}

pub(super) async fn show(
    node: View,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Html, Problem> {
    let saga = node.saga(&id).await?;
    let steps = node.engine.steps_of(&saga).await?;
    let (frame, now) = (Frame::of(&node).await?, shape::now());
    let title = format!("Saga {}", saga.operation.key.as_str());
    let lead = html! { (chip(saga.standing())) " " span.soft { (says(saga.standing())) } };
    let why = saga.kept.as_ref().and_then(Kept::why);
    let is_bad = matches!(saga.standing(), Standing::Stuck | Standing::InDoubt);
    let content = html! {
        (heading(&title, &lead, &format!("/v1/sagas/{}", saga.operation.id)))
        @if let Some(why) = why { p.notice.warn[is_bad] role="status" { (why) "." } }
        (tree(&saga, &steps))
        (facts(&saga, now))
        @if caller.roles.has(Roles::OPERATE) { (forms(&saga, &steps)) }
    };
    Ok(Html(frame.page(Here::Sagas, &title, &content)))
}

fn says(standing: Standing) -> &'static str {
    match standing {
        Standing::Running => "Its steps go on.",
        Standing::InDoubt => {
            "Nobody knows whether the one at hand was done: resolve its operation."
        }
        Standing::Paused => "What is at hand comes to its end, and nothing else is begun.",
        Standing::Unwinding => "What was done is being undone, in reverse.",
        Standing::Stuck => "Only a person can say how to go on.",
        Standing::Done => "All of it is done.",
        Standing::Unwound => "What was done is undone.",
    }
}

/// The steps in their order, each with its compensation.
fn tree(saga: &Saga, found: &[(Option<Operation>, Option<Operation>)]) -> Markup {
    let Some(kept) = &saga.kept else {
        return html! { p.soft { "Its steps were forgotten with its window." } };
    };
    let at = saga.at_hand();
    let steps = kept.definition.steps.iter().zip(&kept.progress.legs).zip(found);
    html! {
        section.card {
            h2 { "Steps" }
            ol.steps {
                @for ((step, leg), (ask, undo)) in steps {
                    li {
                        strong { (step.name) } " " (leg_of(*leg)) " "
                        @if at.as_ref() == Some(&step.name) { strong { "at hand" } " " }
                        @if step.is_pivot { span.label { "pivot: behind it nothing is undone" } }
                        (asked(&step.ask.method, step.ask.path.as_str(), &step.ask.route, ask.as_ref()))
                        @if let Some(compensate) = &step.undo {
                            ul {
                                li {
                                    span.soft { "undone by " }
                                    @if at.as_deref() == Some(&format!("{}/undo", step.name)) {
                                        strong { "at hand" } " "
                                    }
                                    (asked(&compensate.method, compensate.path.as_str(), &compensate.route, undo.as_ref()))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn leg_of(leg: Leg) -> Markup {
    match leg {
        Leg::Waiting => html! {},
        Leg::Done => sign("done", Icon::Done, "done"),
        Leg::NotDone => sign("told", Icon::Dead, "not done"),
        Leg::Undone => sign("forgotten", Icon::Gone, "undone"),
        Leg::Left => sign("refused", Icon::Warning, "left as it is"),
    }
}

fn asked(method: &str, path: &str, route: &str, operation: Option<&Operation>) -> Markup {
    html! {
        span.request { (method) " " code { (path) } " on " (route) }
        @if let Some(operation) = operation {
            " " a href=(words::url_of(operation.id)) { "its operation" } " " (words::chip(operation))
        }
    }
}

fn facts(saga: &Saga, now: Timestamp) -> Markup {
    let operation = &saga.operation;
    let deeds = saga.kept.as_ref().map_or(&[][..], |kept| &kept.deeds);
    html! {
        section.card {
            h2 { "Facts" }
            dl {
                dt { "Id" } dd { a href=(words::url_of(operation.id)) { code { (operation.id) } } }
                @if let Some(label) = &operation.label { dt { "Label" } dd { bdi { (label) } } }
                @if let Some(subject) = &operation.subject {
                    dt { "Subject" } dd { bdi { (subject.name) } }
                }
                @if !operation.scope.principal.is_empty() {
                    dt { "Asked by" } dd { bdi { (operation.scope.principal) } }
                }
                dt { "Came" } dd { (words::exact(operation.created_at)) }
                @if let Some(at) = operation.ended_at { dt { "Ended" } dd { (words::exact(at)) } }
                @if let Some(at) = operation.key_expires_at() {
                    dt { "Key until" } dd { (words::exact(at)) }
                }
            }
            @if !deeds.is_empty() {
                h3 { "What people did" }
                ol.plain {
                    @for deed in deeds {
                        li {
                            strong { (deed.deed.replace('_', " ")) } " by " bdi { (deed.who) } " "
                            (words::time(deed.at, now)) ": " bdi { (deed.reason) }
                        }
                    }
                }
            }
        }
    }
}

/// The forms that fit where the saga stands.
fn forms(saga: &Saga, found: &[(Option<Operation>, Option<Operation>)]) -> Markup {
    let standing = saga.standing();
    if standing.is_ended() {
        return html! {};
    }
    let is_paused = saga.kept.as_ref().is_some_and(|kept| kept.progress.is_paused);
    let at = saga.kept.as_ref().and_then(|kept| kept.progress.at);
    let step = at.and_then(|at| found.get(at.step).map(|it| if at.undo { &it.1 } else { &it.0 }));
    let risk = step.and_then(Option::as_ref).map(|step| risk(step, shape::now()));
    let risk = risk.filter(|risk| risk.wants_a_word());
    let is_past =
        saga.kept.as_ref().is_some_and(|kept| kept.definition.plan().is_past_pivot(&kept.progress));
    html! {
        section.acts #acts aria-label="What you can do" {
            @if standing == Standing::Stuck {
                (form(saga, "retry", "Retry", &html! {
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
                    (form(saga, "resolve", "Say so", &html! {
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
            @if is_paused { (form(saga, "resume", "Resume", &html! { p { "Lets it go on." } })) }
            @else {
                (form(saga, "pause", "Pause", &html! {
                    p { "What is at hand comes to its end; nothing else is begun." }
                }))
            }
            @if standing != Standing::Unwinding && !is_past {
                (form(saga, "cancel", "Cancel", &html! { p { "Undoes in reverse what was done." } }))
            }
        }
    }
}

fn form(saga: &Saga, deed: &str, says: &str, inside: &Markup) -> Markup {
    html! {
        form.card method="post" action={ (url_of(saga)) "/" (deed) } {
            (inside)
            (reason("Reason"))
            button { (says) }
        }
    }
}

fn told(saga: &Saga) -> Redirect {
    Redirect::to(&url_of(saga))
}

pub(super) async fn pause(
    node: View,
    Path(id): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.pause_saga(id, &person).await?))
}

pub(super) async fn resume(
    node: View,
    Path(id): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.resume_saga(id, &person).await?))
}

pub(super) async fn cancel(
    node: View,
    Path(id): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.cancel_saga(id, &person).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    reason: String,
    risk: Option<String>,
}

pub(super) async fn retry(
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
pub(super) struct Resolve {
    reason: String,
    step: String,
    r#as: String,
}

reasoned!(Retry, Resolve);

pub(super) async fn resolve(
    node: View,
    Path(id): Path<String>,
    Sent(person, form): Sent<Resolve>,
) -> Done {
    let word = word_of(&form.r#as)?;
    let id = node.saga(&id).await?.operation.id;
    Ok(told(&node.engine.settle_saga(id, &person, &form.step, word).await?))
}
