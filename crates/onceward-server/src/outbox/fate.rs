//! What becomes of a row: it is in the ledger, it can never be, or it has to wait.

use std::collections::HashMap;
use std::sync::Arc;

use onceward::relay::Row;
use onceward::{Answer, Aside, Refusal};

use super::call::call_of;
use crate::config::Outbox;
use crate::gateway::{Gateway, is_of_a_caller};
use crate::problem::Problem;

/// What became of a row.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is in the ledger, new or known.
    Taken { is_duplicate: bool },
    /// It can never be.
    Parked(Problem),
    /// Not now: what it waits for takes no more.
    Held(Held),
    /// Not now: nothing is taken.
    Stopped(String),
}

/// What rows wait for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
    Route(String),
    /// What they are about: its line may be full, and others of the same route may go.
    Subject(String),
    /// A caller of the same scope, who has the row of this id under way and may yet fail.
    Caller(String),
}

/// Rows that are taken one after the other: those about one subject, in their order.
pub(super) fn in_lines(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let (mut lines, mut places) = (Vec::<Vec<Row>>::new(), HashMap::<String, usize>::new());
    for row in rows {
        let next = lines.len();
        let place = match &row.subject {
            Some(subject) => *places.entry(subject.clone()).or_insert(next),
            None => next,
        };
        match lines.get_mut(place) {
            Some(line) => line.push(row),
            None => lines.push(vec![row]),
        }
    }
    lines
}

/// Takes rows until one has to wait: those behind it wait too.
pub(super) async fn take_line(
    gateway: Arc<Gateway>,
    outbox: Arc<Outbox>,
    line: Vec<Row>,
) -> Vec<(Row, Fate)> {
    let mut fates = Vec::with_capacity(line.len());
    for row in line {
        let fate = take_one(&row, &outbox, &gateway).await;
        let waits = matches!(fate, Fate::Held(_) | Fate::Stopped(_));
        fates.push((row, fate));
        if waits {
            break;
        }
    }
    fates
}

async fn take_one(row: &Row, outbox: &Outbox, gateway: &Gateway) -> Fate {
    let call = match call_of(row, outbox, gateway) {
        Ok(call) => call,
        Err(problem) => return Fate::Parked(problem),
    };
    let (aside, route): (Arc<Aside>, _) = (Arc::clone(&call.options.aside), call.route.clone());
    match Box::pin(gateway.engine.call(call)).await {
        // Where its caller's attempts are over, nobody would make another.
        Ok(Answer::Accepted(operation)) if is_of_a_caller(&operation) => {
            let caller = || Held::Caller(row.id.clone());
            Fate::Held(subject_of(row).map_or_else(caller, Held::Subject))
        }
        Ok(_) => Fate::Taken { is_duplicate: aside.repeat.get().is_some() },
        Err(refusal) => fate_of(refusal, route, row),
    }
}

fn subject_of(row: &Row) -> Option<String> {
    row.subject.clone().filter(|subject| !subject.is_empty())
}

/// What a refusal means for a row.
fn fate_of(refusal: Refusal, route: String, row: &Row) -> Fate {
    match refusal {
        // It is in the ledger: what became of it there is no matter of the row's.
        Refusal::InProgress(_)
        | Refusal::OutcomeUnknown { .. }
        | Refusal::KeyExpired(_)
        | Refusal::KeyInvalidated(_)
        | Refusal::Cancelled(_)
        | Refusal::ResponseNotRetained(_)
        | Refusal::UpstreamUnreachable(_)
        | Refusal::NoAnswer(_)
        | Refusal::StillWorking(_) => Fate::Taken { is_duplicate: true },
        Refusal::Limit { .. } | Refusal::TenantLimit { .. } | Refusal::Barred { .. } => {
            Fate::Held(subject_of(row).map_or(Held::Route(route), Held::Subject))
        }
        Refusal::Ledger(error) => Fate::Stopped(error.to_string()),
        Refusal::Draining => Fate::Stopped("the gateway is ending".to_owned()),
        refusal => Fate::Parked(refusal.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, subject: Option<&str>) -> Row {
        Row { id: id.to_owned(), subject: subject.map(str::to_owned), ..Row::default() }
    }

    #[test]
    fn those_about_one_subject_keep_their_order_and_nobody_else_waits_for_them() {
        let rows =
            vec![row("1", Some("a")), row("2", None), row("3", Some("b")), row("4", Some("a"))];
        let lines: Vec<Vec<String>> = in_lines(rows)
            .into_iter()
            .map(|line| line.into_iter().map(|row| row.id).collect())
            .collect();
        assert_eq!(lines, [vec!["1", "4"], vec!["2"], vec!["3"]]);
    }
}
