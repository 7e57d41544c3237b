//! The plan of a bulk: what it would do, and the forms that have it done. Its address says what is to be done,
//! and to which operations; those that were selected in a list come as a form.

use axum::extract::{Extension, FromRequestParts};
use axum::response::Redirect;
use http::request::Parts;
use maud::{Markup, html};
use onceward::BulkPlan;
use onceward::core::id::OperationId;
use onceward::core::operation::Operation;
use onceward::core::risk::Risk;
use serde::Deserialize;

use super::super::acts::Done;
use super::super::filter::{narrowing, said_in};
use super::super::frame::{Frame, Here, Html, heading, number, reason};
use super::super::rows::{self, Table};
use super::many::{Act, BOX};
use crate::access::Caller;
use crate::operator::bulk::{RATE, Wanted, Words, begun};
use crate::operator::{Filled, Filter, Sent, invalid, reasoned};
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// Whoever does something to more than these types how many they are.
const TYPED_OVER: u64 = 100;

/// What is planned, and for what.
pub(in crate::page) struct Planned {
    act: Act,
    filter: Filter,
}

impl<S: Send + Sync> FromRequestParts<S> for Planned {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let (action, words): (Vec<_>, Vec<_>) =
            said_in(parts).into_iter().partition(|(name, _)| name == "action");
        let act = action.first().map_or(Some(Act::Redeliver), |(_, name)| Act::named(name));
        let act =
            act.ok_or_else(|| invalid("action: `redeliver`, `retry`, `cancel` or `resolve`"))?;
        Ok(Self { act, filter: Filter::read(&words)? })
    }
}

impl Planned {
    /// What the API is asked for, but for why and how.
    fn wanted(&self, ids: Option<Vec<String>>) -> Wanted {
        let action = self.act.name().to_owned();
        let filter = Some(self.filter.clone()).filter(|_| ids.is_none());
        Wanted { action, filter, ids, ..Wanted::default() }
    }
}

/// `GET /bulk/plan`: for all that match.
pub(in crate::page) async fn of_filter(
    node: View,
    Extension(caller): Extension<Caller>,
    planned: Planned,
) -> Result<Html, Problem> {
    show(&node, &caller, planned, None).await
}

/// `POST /bulk/plan`: for those that were selected.
pub(in crate::page) async fn of_selected(
    node: View,
    Extension(caller): Extension<Caller>,
    planned: Planned,
    Filled(fields): Filled<Vec<(String, String)>>,
) -> Result<Html, Problem> {
    let selected = fields.into_iter().filter(|(name, _)| name == BOX).map(|(_, id)| id);
    let ids: Vec<String> = selected.collect();
    if ids.is_empty() {
        return Err(invalid("Nothing was selected: go back, and tick the rows that are meant."));
    }
    show(&node, &caller, planned, Some(ids)).await
}

/// What it would do, and the forms that do it.
async fn show(
    node: &View,
    caller: &Caller,
    planned: Planned,
    ids: Option<Vec<String>>,
) -> Result<Html, Problem> {
    let Planned { act, filter } = &planned;
    let (act, written) = (*act, filter.written());
    let wanted = Wanted {
        dry_run: true,
        // Whatever became of them, the plan is the same.
        r#as: (act == Act::Resolve).then(|| "done".to_owned()),
        ..planned.wanted(ids)
    };
    let order = wanted.order(node, caller)?;
    let plan = node.engine.plan_bulk(&order).await?;
    let frame = Frame::of(node).await?;
    let lead = html! { "A plan: nothing has been done yet." };
    let found = format!("/v1/operations?{written}");
    let ids = &*order.selected;
    let (title, json, which) = if ids.is_empty() {
        (act.all(), &*found, matching(act, filter, &written))
    } else {
        (act.selected(), "/v1/bulk", selected(node, act, ids, &plan).await?)
    };
    let forms = Forms { act, written: &written, ids, plan: &plan };
    let content = html! {
        (heading(title, &lead, json))
        div.plan {
            (which)
            (counts(act, &plan))
            @if plan.matched > 0 { (forms.show()) }
        }
    };
    Ok(Html(frame.page(Here::Operations, title, &content)))
}

/// What the filter says, and what else could be done to what it finds.
fn matching(act: Act, filter: &Filter, written: &str) -> Markup {
    let acts = Act::for_state(filter.state.as_deref());
    html! {
        @if acts.len() > 1 {
            nav.tabs aria-label="What to do" {
                @for other in acts {
                    a href=(other.place("/bulk/plan", written)) aria-current=[(*other == act).then_some("true")] { (other.word()) }
                }
            }
        }
        p.narrowed {
            (narrowing(filter.words().iter()))
            a href={ "/operations?" (written) } { "Show them" }
        }
    }
}

/// Those that were selected, as they stand now.
async fn selected(
    node: &View,
    act: Act,
    ids: &[OperationId],
    plan: &BulkPlan,
) -> Result<Markup, Problem> {
    let mut operations: Vec<Operation> = Vec::new();
    for id in ids.iter().take(super::SHOWN_MAX) {
        match node.find(&id.to_string()).await {
            Ok(operation) => operations.push(operation),
            Err(problem) if problem.code == "not-found" => {}
            Err(problem) => return Err(problem),
        }
    }
    let others = (ids.len() as u64).saturating_sub(plan.matched);
    Ok(html! {
        @if others > 0 {
            p.notice.warn {
                (number(others)) " of the " (number(ids.len() as u64)) " that were selected "
                @if others == 1 { "is" } @else { "are" }
                " left out: this is for what is " (act.fits()) "."
            }
        }
        section {
            (rows::table(node, Table::All, &operations, shape::now()))
            @if ids.len() > operations.len() {
                p.soft.small { "The first " (operations.len()) " that are there." }
            }
        }
    })
}

fn counts(act: Act, plan: &BulkPlan) -> Markup {
    html! {
        section.card {
            h2 {
                @if !plan.is_exact { "At least " }
                (plan.matched) @if plan.matched == 1 { " operation" } @else { " operations" }
            }
            @if plan.matched == 0 { p { "None of them is " (act.fits()) "." } }
            dl {
                @for (risk, count) in &plan.by_risk {
                    dt { (count) " " (risk.name()) }
                    dd { (risk.words()) }
                }
            }
            dl {
                @for (route, count) in &plan.by_route { dt { (count) } dd { "on " bdi { (route) } } }
            }
        }
    }
}

/// The forms of a plan.
struct Forms<'a> {
    act: Act,
    written: &'a str,
    /// Those that were selected, or none.
    ids: &'a [OperationId],
    plan: &'a BulkPlan,
}

impl Forms<'_> {
    fn show(&self) -> Markup {
        let (plan, about) = (self.plan, number(self.plan.matched));
        let at_least = if plan.is_exact { "" } else { "at least " };
        match self.act {
            Act::Redeliver => {
                let button = format!("Redeliver {at_least}{}", number(plan.matched - plan.left_out));
                self.form(&self.risks(), &button, true)
            }
            Act::Retry => self.form(
                &html! { p { "Brings the next attempt of each forward: the same call under the same key, once. A pause or an open breaker holds it all the same." } },
                &format!("Try {at_least}{about} now"),
                false,
            ),
            Act::Cancel => self.form(
                &html! { p { "Gives them up: no further attempt is made, and their keys answer 410." } },
                &format!("Cancel {at_least}{about}"),
                true,
            ),
            Act::Resolve => html! {
                div.choices {
                    (self.form(
                        &html! {
                            p { "You saw each of them at the upstream. What it answered is not known here: their duplicates are told that it was done." }
                            input type="hidden" name="as" value="done";
                        },
                        &format!("They were done: resolve {at_least}{about}"),
                        false,
                    ))
                    (self.form(
                        &html! {
                            p.warn { "You looked, and the upstream has done none of them. Any that it has done is done twice. Claims are freed for whoever begins them next." }
                            input type="hidden" name="as" value="not-sent";
                        },
                        &format!("They were not sent: send {at_least}{about} now"),
                        true,
                    ))
                }
            },
        }
    }

    /// The risks that somebody may take.
    fn risks(&self) -> Markup {
        let risky = |risk: &&Risk| risk.wants_a_word() && risk.can_be_taken();
        html! {
            @for risk in self.plan.by_risk.keys().filter(risky) {
                label.choice {
                    input type="checkbox" name=(risk.name()) value="yes";
                    " Also those whose risk is " strong { (risk.name()) } ", whatever comes of it"
                }
            }
        }
    }

    fn named(&self) -> String {
        let ids: Vec<_> = self.ids.iter().map(OperationId::to_string).collect();
        ids.join(" ")
    }

    fn form(&self, fields: &Markup, button: &str, careful: bool) -> Markup {
        html! {
            form.card method="post" action=(self.act.place("/bulk", self.written)) {
                (fields)
                @if !self.ids.is_empty() { input type="hidden" name="ids" value=(self.named()); }
                label { "Operations a second, at most"
                    input name="rate" inputmode="numeric" pattern="[0-9]+" value=(RATE) required;
                }
                @if self.plan.matched > TYPED_OVER { (typed(self.plan.matched)) }
                (reason("Reason"))
                button.careful[careful] { (button) }
            }
        }
    }
}

/// How many they are, typed: that is read, and a button may be pressed in passing.
fn typed(matched: u64) -> Markup {
    html! {
        input type="hidden" name="planned" value=(matched);
        label { "So many are meant: type " strong { (matched) }
            input name="count" inputmode="numeric" pattern=(matched) required autocomplete="off"
                title={ "Type " (matched) };
        }
    }
}

/// The form, as a browser sends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::page) struct Ordered {
    reason: String,
    rate: u32,
    unknown: Option<String>,
    #[serde(rename = "window-over")]
    window_over: Option<String>,
    r#as: Option<String>,
    /// Those that were selected.
    ids: Option<String>,
    /// How many the plan had, and what was typed of it.
    planned: Option<u64>,
    #[serde(default)]
    count: String,
}

reasoned!(Ordered);

/// `POST /bulk`: begins what its plan showed.
pub(in crate::page) async fn begin(
    node: View,
    Extension(caller): Extension<Caller>,
    planned: Planned,
    Sent(_, form): Sent<Ordered>,
) -> Done {
    let many = form.planned.filter(|many| *many > TYPED_OVER);
    if let Some(many) = many.filter(|many| form.count.trim() != many.to_string()) {
        return Err(invalid(format!("Nothing was done: type {many}, for so many are meant.")));
    }
    let risks = [(Risk::Unknown, form.unknown), (Risk::WindowOver, form.window_over)];
    let taken = risks.into_iter().filter_map(|(risk, yes)| yes.map(|_| risk.name().to_owned()));
    let ids = form.ids.map(|ids| ids.split(' ').map(str::to_owned).collect());
    let wanted = Wanted {
        reason: form.reason,
        rate: Some(form.rate),
        accept_risk: Words::Many(taken.collect()),
        r#as: form.r#as,
        ..planned.wanted(ids)
    };
    let bulk = begun(&node, wanted.order(&node, &caller)?).await?;
    Ok(Redirect::to(&format!("/bulk/{}", bulk.name())))
}
