//! Dead letters by their cause: what went wrong, on which route, since when, and how often.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use axum::extract::Extension;
use axum::routing::get;
use axum::{Json, Router};
use onceward::core::operation::{Death, Deed, Operation, State as Life};
use onceward::core::time::Timestamp;
use onceward::store::{Query, Standing};
use serde::Deserialize;
use serde_json::{Value, json};

use super::filter::{Filter, Statuses};
use super::handler::{Answer, Asked};
use crate::access::Caller;
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// How many dead letters are looked at, the newest first: what it costs does not grow with the ledger.
const LOOKED_AT_MAX: usize = 5000;

/// Causes that are told, those with the most first.
const GROUPS_MAX: usize = 50;

/// In so many lists at most, where other tenants' stand between.
const PAGES_MAX: usize = 10;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new().route("/v1/dead-letters/groups", get(show))
}

/// Dead letters of one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) route: String,
    pub(crate) reason: Death,
    /// Of the last answer.
    pub(crate) status: Option<u16>,
    /// What went wrong with the last attempt.
    pub(crate) error: Option<String>,
    pub(crate) count: u64,
    /// When the first and the last of them died.
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// The causes of what was looked at.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Those with the most first.
    pub(crate) causes: Vec<Group>,
    /// Dead letters of causes beyond.
    pub(crate) left_out: u64,
    pub(crate) looked_at: usize,
    /// Whether that was all of them.
    pub(crate) is_whole: bool,
}

impl Group {
    /// What finds its dead letters in a list, and no others.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            state: Some("dead_letter".to_owned()),
            route: Some(self.route.clone()),
            reason: Some(self.reason.name().to_owned()),
            status: self.status.map(Statuses::one),
            no_status: self.status.is_none().then_some(true),
            error_is: self.error.clone(),
            no_error: self.error.is_none().then_some(true),
            ..Filter::default()
        }
    }

    fn shown(&self) -> Value {
        json!({
            "route": self.route,
            "reason": self.reason.name(),
            "status": self.status,
            "error": self.error,
            "count": self.count,
            "first_at": shape::time(self.first),
            "last_at": shape::time(self.last),
        })
    }
}

/// Route, reason, last status and last error.
type Cause = (String, &'static str, Option<u16>, Option<String>);

/// When an operation died that a person has sent again since: at the last attempt before that.
fn first_death(dead: &Operation) -> Option<Timestamp> {
    let again = dead.acts.iter().find(|act| act.deed == Deed::Redelivered)?.at;
    let ended = dead.attempts.iter().filter_map(|attempt| attempt.ended.as_ref());
    ended.map(|ended| ended.at).filter(|at| *at <= again).max()
}

/// Causes, as they are counted.
#[derive(Default)]
struct Counted(BTreeMap<Cause, Group>);

impl Counted {
    fn add(&mut self, dead: &Operation) {
        let Life::Dead(reason) = dead.state else { return };
        let error = dead.last_error().filter(|error| !error.is_empty()).map(str::to_owned);
        let status = dead.last_status();
        let at = dead.ended_at.unwrap_or(dead.created_at);
        let since = first_death(dead).unwrap_or(at);
        match self.0.entry((dead.route.clone(), reason.name(), status, error.clone())) {
            Entry::Occupied(mut known) => {
                let group = known.get_mut();
                group.count += 1;
                group.first = group.first.min(since);
                group.last = group.last.max(at);
            }
            Entry::Vacant(place) => {
                let route = dead.route.clone();
                let group =
                    Group { route, reason, status, error, count: 1, first: since, last: at };
                let _ = place.insert(group);
            }
        }
    }

    fn groups(self) -> (Vec<Group>, u64) {
        let mut groups: Vec<Group> = self.0.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse((group.count, group.last)));
        let rare = groups.split_off(groups.len().min(GROUPS_MAX));
        (groups, rare.iter().map(|group| group.count).sum())
    }
}

/// The causes of the newest dead letters on the routes that `reaches` lets through.
pub(crate) async fn groups(node: &View, reaches: impl Fn(&str) -> bool) -> Result<Groups, Problem> {
    let (mut counted, mut looked_at, mut before) = (Counted::default(), 0, None);
    let mut is_whole = false;
    for _ in 0..PAGES_MAX {
        let standing = vec![Standing::DeadLetter];
        let limit = 1000.min(LOOKED_AT_MAX - looked_at);
        let page = node.list(Query { standing, before, limit, ..Query::default() }).await?;
        looked_at += page.operations.len();
        page.operations.iter().filter(|it| reaches(&it.route)).for_each(|it| counted.add(it));
        before = page.next;
        is_whole = before.is_none();
        if is_whole || looked_at >= LOOKED_AT_MAX {
            break;
        }
    }
    let (causes, left_out) = counted.groups();
    Ok(Groups { causes, left_out, looked_at, is_whole })
}

/// Nothing is asked but whose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    #[expect(dead_code, reason = "the view reads it")]
    tenant: Option<String>,
}

async fn show(node: View, Extension(caller): Extension<Caller>, Asked(_): Asked<Whose>) -> Answer {
    let found = groups(&node, |route| caller.reaches(route)).await?;
    let data: Vec<_> = found.causes.iter().map(Group::shown).collect();
    Ok(Json(json!({
        "data": data, "next": null, "looked_at": found.looked_at, "left_out": found.left_out,
        "exact": found.is_whole,
    })))
}

#[cfg(test)]
mod tests {
    use onceward::core::attempt::{Attempt, Ended, Ending, Reached, Timings};
    use onceward::core::fingerprint::Fingerprint;
    use onceward::core::key::{Key, Scope, ScopeKind};
    use onceward::core::lease::Session;
    use onceward::core::operation::{Act, Intent};

    use super::*;

    fn dead(n: u64, reason: Death, status: Option<u16>, error: Option<&str>) -> Operation {
        let at = Timestamp::from_micros(n as i64);
        let (tenant, principal) = ("default".to_owned(), String::new());
        let scope = Scope { kind: ScopeKind::Call, tenant, name: "crm".to_owned(), principal };
        let print = Fingerprint { version: 1, parts: [[0; 16]; 4] };
        let key = Key::new(&format!("order-{n}")).expect("a key");
        let ended = Ended {
            at,
            ending: Ending::Truncated,
            reached: Reached::Head,
            status,
            error: error.map(str::to_owned),
            may_have_executed: true,
            answer: None,
            timings: Timings::default(),
        };
        let attempt = Attempt { n: 1, by: Session(1), started_at: at, ended: Some(ended) };
        Operation {
            state: Life::Dead(reason),
            ended_at: Some(at),
            attempts: vec![attempt],
            mode: onceward::core::policy::Mode::Accepted,
            ..Operation::new(Intent {
                route: "crm".to_owned(),
                ..Intent::new(onceward::core::id::OperationId::new(n, n), scope, key, print, at)
            })
        }
    }

    #[test]
    fn a_cause_is_as_old_as_its_first_death_though_a_person_sent_it_again() {
        let mut again = dead(5, Death::Refused, Some(404), None);
        let (deed, at) = (Deed::Redelivered, Timestamp::from_micros(7));
        again.acts.push(Act { deed, at, who: "ada".to_owned(), reason: "why".to_owned() });
        again.attempts.extend(dead(9, Death::Refused, Some(404), None).attempts);
        again.ended_at = Some(Timestamp::from_micros(9));
        let mut counted = Counted::default();
        counted.add(&again);
        let group = counted.groups().0.remove(0);
        assert_eq!((group.first.as_micros(), group.last.as_micros()), (5, 9));
    }

    #[test]
    fn what_a_cause_is_found_by_finds_as_many_as_it_has_and_no_other() {
        let causes = [
            (Death::Exhausted, Some(503), None),
            (Death::Exhausted, Some(503), Some("the answer broke off")),
            (Death::Exhausted, None, Some("the answer broke off")),
            (Death::Exhausted, None, Some("the answer broke off in its body")),
            (Death::Exhausted, None, None),
            (Death::Exhausted, Some(503), Some("")),
            (Death::Refused, Some(503), None),
        ];
        let mut all = Vec::new();
        for (at, (reason, status, error)) in causes.into_iter().enumerate() {
            all.extend((0..=at).map(|n| dead((10 * at + n) as u64 + 1, reason, status, error)));
        }
        let mut counted = Counted::default();
        for it in &all {
            counted.add(it);
        }
        let (groups, left_out) = counted.groups();
        assert_eq!((groups.len(), left_out), (6, 0));
        for group in groups {
            let query = group.filter().query().expect("a query");
            let found = all.iter().filter(|it| query.wants(it)).count() as u64;
            assert_eq!(found, group.count, "{group:?}");
        }
    }
}
