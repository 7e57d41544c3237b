//! Bulk over the API: a plan, a run, how far it is, and its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Extension, Path};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use onceward::core::id::OperationId;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Death, State};
use onceward::core::risk::Risk;
use onceward::store::Query;
use onceward::{Bulk, BulkDeed, BulkOrder, BulkOutcomes, BulkPlan, Person};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::filter::{Filter, Statuses, standing_name};
use super::handler::{Act, Answer, Because, Said, all, id_of, invalid, person};
use super::keys::then_of;
use super::operations::risks;
use crate::access::Caller;
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// Acts a second where nothing says, and at most.
pub(crate) const RATE: u32 = 10;
pub(crate) const RATE_MAX: u32 = 1000;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/bulk", get(list).post(begin))
        .route("/v1/bulk/{bulk}", get(show))
        .route("/v1/bulk/{bulk}/stop", post(stop))
}

/// What is wanted of all that match.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// `redeliver`, `retry`, `cancel`, `resolve` or `forget`.
    pub(crate) action: String,
    #[serde(default, deserialize_with = "said")]
    pub(crate) filter: Option<Filter>,
    /// Of those that match only these; without a filter, these.
    #[serde(default, deserialize_with = "said")]
    pub(crate) ids: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Acts a second.
    pub(crate) rate: Option<u32>,
    /// `accepted`, or the names of the risks that are taken.
    #[serde(default)]
    pub(crate) accept_risk: Words,
    /// Of `resolve`: `done` or `not-sent`.
    pub(crate) r#as: Option<String>,
    /// Of `forget`: `refuse` or `new`.
    pub(crate) then: Option<String>,
}

/// What is there: to say nothing is to leave it out.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// One word or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Words {
    One(String),
    Many(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Words {
    fn risks(&self) -> Result<Vec<Risk>, Problem> {
        let words = match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Many(words) => words,
        };
        let mut taken = Vec::new();
        for word in words {
            taken.extend(risks(Some(word))?);
        }
        Ok(taken)
    }
}

impl Wanted {
    /// The order, where it can be carried out.
    pub(crate) fn order(&self, node: &View, caller: &Caller) -> Result<BulkOrder, Problem> {
        let filter = self.filter.clone().unwrap_or_default();
        if filter.cursor.is_some() || filter.limit.is_some() {
            return Err(invalid(
                "filter: a bulk goes through all that match; leave cursor and limit out",
            ));
        }
        let selected = self.selected()?;
        if !filter.is_set() && (self.filter.is_some() || selected.is_empty()) {
            return Err(invalid(
                "filter: say which operations; an empty one would mean everything",
            ));
        }
        let rate = self.rate.unwrap_or(RATE);
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(invalid(format!("rate: acts a second, between 1 and {RATE_MAX}")));
        }
        // A plan does nothing, so it needs no reason.
        let person = if self.dry_run {
            Person { who: caller.who(), reason: String::new() }
        } else {
            person(caller, &self.reason)?
        };
        let (deed, filter, taken) =
            (self.deed()?, node.lay(filter.query()?)?, self.accept_risk.risks()?);
        Ok(BulkOrder { deed, filter, selected, taken, rate, person })
    }

    /// The operations that are named.
    fn selected(&self) -> Result<Vec<OperationId>, Problem> {
        let Some(ids) = &self.ids else { return Ok(Vec::new()) };
        // A list that came out empty means none, and never all that match.
        if ids.is_empty() || ids.len() > BulkOrder::SELECTED_MAX {
            return Err(invalid(format!(
                "ids: name between 1 and {} operations",
                BulkOrder::SELECTED_MAX
            )));
        }
        let mut named = BTreeSet::new();
        let ids: Result<Vec<_>, _> = ids.iter().map(|id| id_of(id)).collect();
        // One that is named twice is one.
        Ok(ids?.into_iter().filter(|id| named.insert(*id)).collect())
    }

    fn deed(&self) -> Result<BulkDeed, Problem> {
        match (self.action.as_str(), self.r#as.as_deref(), self.then.as_deref()) {
            ("redeliver", None, None) => Ok(BulkDeed::Redeliver),
            ("cancel", None, None) => Ok(BulkDeed::Cancel),
            ("retry", None, None) => Ok(BulkDeed::Retry),
            ("resolve", Some("done"), None) => Ok(BulkDeed::ResolveDone),
            ("resolve", Some("not-sent"), None) => Ok(BulkDeed::ResolveNotSent),
            ("resolve", ..) => Err(invalid("as: `done` or `not-sent`")),
            ("forget", None, then) => Ok(BulkDeed::Forget(then_of(then)?)),
            ("redeliver" | "retry" | "cancel" | "forget", ..) => {
                Err(invalid("`as` belongs to resolve and `then` to forget"))
            }
            _ => Err(invalid("action: `redeliver`, `retry`, `cancel`, `resolve` or `forget`")),
        }
    }
}

/// What a bulk would do.
pub(crate) fn plan(plan: &BulkPlan) -> Value {
    let by_risk: serde_json::Map<_, _> =
        plan.by_risk.iter().map(|(risk, count)| (risk.name().to_owned(), json!(count))).collect();
    json!({
        "matched": plan.matched,
        "by_risk": by_risk,
        "by_route": plan.by_route,
        "left_out": plan.left_out,
        "exact": plan.is_exact,
    })
}

/// A bulk and how far it is.
pub(crate) fn shown(bulk: &Bulk) -> Value {
    let order = &bulk.order;
    json!({
        "id": bulk.name(),
        "action": order.deed.name(),
        "state": bulk.standing.name(),
        "filter": which(&order.filter),
        "selected": Some(order.selected.len()).filter(|selected| *selected > 0),
        "who": order.person.who,
        "reason": order.person.reason,
        "rate": order.rate,
        "accept_risk": order.taken.iter().map(|risk| risk.name()).collect::<Vec<_>>(),
        "matched": bulk.matched,
        "exact": bulk.is_exact,
        "done": bulk.done,
        "failed": bulk.failed,
        "left_out": bulk.left_out,
        "last_failure": bulk.trouble,
        "began_at": shape::time(bulk.began_at),
        "ended_at": bulk.ended_at.map(shape::time),
    })
}

/// Which operations a bulk goes through: all members are named, so that none can be forgotten.
fn which(query: &Query) -> Value {
    let Query {
        standing,
        tenant,
        route,
        kind,
        scope,
        principal,
        key,
        label,
        subject,
        text,
        status,
        attempts_min,
        no_status,
        reason,
        error,
        error_is,
        no_error,
        parent,
        made,
        since,
        until,
        before: _,
        limit: _,
    } = query;
    let statuses = status.as_ref().map(Statuses::of);
    json!({
        "tenant": tenant,
        "standing": standing.iter().map(|it| standing_name(*it)).collect::<Vec<_>>(),
        "route": route,
        "kind": kind.map(ScopeKind::name),
        "scope": scope,
        "principal": principal,
        "key": key,
        "label": label,
        "subject": subject,
        "text": text,
        "status": statuses.as_ref().and_then(Statuses::the_one),
        "statuses": statuses.filter(|it| it.the_one().is_none()).map(|it| it.to_string()),
        "attempts_min": attempts_min,
        "no_status": no_status,
        "reason": reason.map(Death::name),
        "error": error,
        "error_is": error_is,
        "no_error": no_error,
        "parent": parent.map(|parent| parent.to_string()),
        "id": made.as_ref().map(|(name, id)| match name {
            Some(name) => format!("{name}:{id}"),
            None => id.clone(),
        }),
        "after": since.map(shape::time),
        "before": until.map(shape::time),
    })
}

/// Begins what is wanted; a restored ledger does nothing before its release.
pub(crate) async fn begun(node: &Node, order: BulkOrder) -> Result<Bulk, Problem> {
    node.check_released("Nothing was done; `onceward restore --release` lets it send.")?;
    Ok(node.engine.begin_bulk(order).await?)
}

async fn begin(
    node: View,
    Extension(caller): Extension<Caller>,
    Said(wanted): Said<Wanted>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let order = wanted.order(&node, &caller)?;
    if wanted.dry_run {
        return Ok((StatusCode::OK, Json(plan(&node.engine.plan_bulk(&order).await?))));
    }
    Ok((StatusCode::ACCEPTED, Json(shown(&begun(&node, order).await?))))
}

async fn list(node: View) -> Answer {
    Ok(all(node.bulks().await?.iter().map(shown)))
}

async fn show(node: View, Path(name): Path<String>) -> Answer {
    let bulk = node.bulk(&name).await?;
    let became = Became::of(&node.engine.outcomes_of(&bulk).await?);
    let mut shown = shown(&bulk);
    let selected = &bulk.order.selected;
    shown["ids"] = match &selected[..] {
        [] => Value::Null,
        selected => selected.iter().map(ToString::to_string).collect(),
    };
    shown["outcomes"] = json!({
        "done": became.done,
        "dead": became.dead,
        "in_doubt": became.doubt,
        "open": became.open,
        "exact": became.is_all,
    });
    Ok(Json(shown))
}

/// Where those stand now that a bulk acted on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Became {
    pub(crate) done: usize,
    pub(crate) dead: usize,
    pub(crate) doubt: usize,
    /// They wait or are under way.
    pub(crate) open: usize,
    pub(crate) is_all: bool,
}

impl Became {
    /// How many were looked at.
    pub(crate) fn all(&self) -> usize {
        self.done + self.dead + self.doubt + self.open
    }

    pub(crate) fn of(outcomes: &BulkOutcomes) -> Self {
        let mut became = Self { is_all: outcomes.is_all, ..Self::default() };
        for operation in &outcomes.operations {
            let count = match operation.state {
                State::Done => &mut became.done,
                State::Dead(_) => &mut became.dead,
                State::InDoubt => &mut became.doubt,
                State::Pending { .. } | State::Delivering => &mut became.open,
            };
            *count += 1;
        }
        became
    }
}

async fn stop(node: View, Path(name): Path<String>, Act(person, _): Act<Because>) -> Answer {
    Ok(Json(shown(&node.engine.stop_bulk(&name, &person).await?)))
}
