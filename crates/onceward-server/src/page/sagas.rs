//! `/sagas`: several effects of one cause, and of each how far it came, step by step, with what a person
//! can do about it.

use axum::extract::{Extension, Path};
use maud::{Markup, html};
use onceward::core::operation::Operation;
use onceward::core::saga::{Ask, Leg, Standing};
use onceward::core::time::Timestamp;
use onceward::store::{Query, Standing as Stands};
use onceward::{Kept, Saga};
use serde::Deserialize;

use super::frame::{self, Frame, Here, Html, heading, number, sentence};
use super::icons::Icon;
use super::words::{self, sign};
use crate::access::{Caller, Roles};
use crate::operator::sagas::{page, state_of};
use crate::operator::{Asked, id_of};
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

pub(super) mod acts;

/// On a page of the list.
const SHOWN_MAX: usize = 50;

/// Open ones that are looked at for those that wait for a person.
const LOOKED_AT: usize = 200;

/// A saga to begin with.
const FIRST: &str = r#"echo '{"key": "trip-1", "steps": [
  {"name": "hotel", "to": "demo", "path": "/hotels", "compensate": {"method": "DELETE", "path": "/hotels/1"}},
  {"name": "flight", "to": "demo", "path": "/flights?script=422"}]}' > trip.json
onceward saga start trip.json"#;

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
    let open = node.open_sagas().await?;
    let of = |state: Standing| open.get(&state).copied().unwrap_or_default();
    let is_first = state.is_none() && before.is_none();
    let urgent = if is_first && NEEDY.into_iter().any(|state| of(state) > 0) {
        needy(&node).await?
    } else {
        Vec::new()
    };
    let content = html! {
        (heading("Sagas", &lead, &format!("/v1/sagas?{narrowed}")))
        nav.tabs aria-label="Where they stand" {
            a href="/sagas" aria-current=[state.is_none().then_some("true")] { "all" }
            @for one in Standing::ALL {
                a href={ "/sagas?state=" (one.name()) } aria-current=[(state == Some(one)).then_some("true")] {
                    (word(one)) @if of(one) > 0 { " " (number(of(one))) }
                }
            }
        }
        @if !urgent.is_empty() {
            section #needy {
                h2 { "Wait for a person" }
                (table(&urgent, now))
            }
            h2 { "All, the newest first" }
        }
        @if sagas.is_empty() { (nothing(state, next.is_some())) } @else { (table(&sagas, now)) }
        @if let Some(next) = next {
            p.more { a href={ "/sagas?" (narrowed) "&cursor=" (next) } { "Older ones" } }
        }
    };
    Ok(Html(frame.page(Here::Sagas, "Sagas", &content)))
}

/// Where sagas stand that go on by a person's word alone.
const NEEDY: [Standing; 2] = [Standing::Stuck, Standing::InDoubt];

/// Those of the newest open ones that wait for a person.
async fn needy(node: &View) -> Result<Vec<Saga>, Problem> {
    let standing = vec![Stands::Delivering];
    let query = Query { standing, limit: LOOKED_AT, ..Query::default() };
    let (mut sagas, _) = node.sagas(query).await?;
    sagas.retain(|saga| NEEDY.contains(&saga.standing()));
    sagas.sort_by_key(|saga| NEEDY.iter().position(|state| *state == saga.standing()));
    sagas.truncate(SHOWN_MAX);
    Ok(sagas)
}

/// An empty list, which teaches where nothing was asked for in particular.
fn nothing(state: Option<Standing>, is_more: bool) -> Markup {
    html! {
        div.empty.card {
            p { strong {
                "No sagas" @if state.is_some() { " stand here" } @if is_more { " among these" } "."
            } }
            @if state.is_none() && !is_more {
                p { "This starts one of two steps: the second is refused, so the first is undone." }
                pre tabindex="0" { code { (FIRST) } }
            }
        }
    }
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
        div #saga data-live="all" data-about=(saga.operation.id) {
            @if let Some(why) = why { p.notice.warn[is_bad] role="status" { (sentence(&why)) } }
            @if caller.roles.has(Roles::OPERATE) { (acts::forms(&saga, &steps, &caller)) }
            (tree(&saga, &steps))
            (facts(&saga, now))
        }
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
    let is_over = saga.standing().is_ended();
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
                        (asked(&step.ask, ask.as_ref(), *leg == Leg::Waiting))
                        @if let Some(compensate) = &step.undo {
                            ul {
                                li {
                                    @let is_at_hand = at.as_deref() == Some(&format!("{}/undo", step.name));
                                    span.soft {
                                        @if *leg == Leg::Undone { "undone by " }
                                        @else if is_at_hand { "to be undone by " }
                                        @else if is_over { "not undone by " }
                                        @else { "would be undone by " }
                                    }
                                    @if is_at_hand { strong { "at hand" } " " }
                                    (asked(compensate, undo.as_ref(), *leg != Leg::Undone))
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

/// What is asked for a step, and how that stands where the step's own sign does not say it.
fn asked(ask: &Ask, operation: Option<&Operation>, is_told: bool) -> Markup {
    html! {
        span.request { (ask.method) " " code { (ask.path.as_str()) } " on " (ask.route) }
        @if let Some(operation) = operation {
            " " a href=(words::url_of(operation.id)) { "its operation" }
            @if is_told { " " (words::chip(operation)) }
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
                dt { "Id" } dd { code { (operation.id) } }
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
