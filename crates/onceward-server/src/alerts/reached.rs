//! Whether a receiver has what it was told. That a notice is on its way is no word for that it came: a
//! webhook is an operation, and only its end says so.

use std::collections::HashMap;

use onceward::core::id::OperationId;
use onceward::core::key::{Key, TENANT};
use onceward::core::operation::{Operation, State};
use onceward::core::time::Timestamp;
use serde_json::{Value, json};

use super::book::{Book, Standing};
use super::send::PRINCIPAL;
use super::{AlertsConfig, OWN_ROUTES, Way};
use crate::node::Node;
use crate::shape;

/// Notices whose operations are looked at for one answer; of those beyond it is not known.
const LOOKED_MAX: usize = 100;

/// Whether it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// It is sent, or tried again.
    Waiting,
    /// The receiver took it.
    Delivered,
    /// It is not sent any more.
    Failed,
    /// What it was sent by is not there any more, or was not looked at.
    Unknown,
}

impl Reached {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// Who was told of an alert that fires.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    pub(crate) to: String,
    pub(crate) at: Timestamp,
    pub(crate) notice: String,
    pub(crate) reached: Reached,
    /// Why it has not come the last time that it was tried.
    pub(crate) error: Option<String>,
    pub(crate) operation: Option<OperationId>,
}

impl Teller {
    /// Those who were told of an alert, as far as the book knows: of what has left it for the ledger,
    /// `look_up` tells.
    pub(super) fn all(standing: &Standing, book: &Book, config: &AlertsConfig) -> Vec<Self> {
        let of = standing.told.iter().filter(|(_, told)| told.fires);
        of.map(|(to, told)| {
            let outgoing = book.outgoing(&told.notice);
            let is_mail =
                config.to.get(to).is_some_and(|receiver| matches!(receiver.way, Way::Mail(_)));
            let reached = match outgoing {
                Some(_) => Reached::Waiting,
                // The mail server took it.
                None if is_mail => Reached::Delivered,
                None => Reached::Unknown,
            };
            Self {
                to: to.clone(),
                at: told.at,
                notice: told.notice.clone(),
                reached,
                error: outgoing.and_then(|notice| notice.error.clone()),
                operation: None,
            }
        })
        .collect()
    }

    /// Whether it was tried, and has not come.
    pub(crate) fn has_failed(&self) -> bool {
        self.reached == Reached::Failed
            || (self.reached == Reached::Waiting && self.error.is_some())
    }

    fn learn(&mut self, notice: &Operation) {
        self.operation = Some(notice.id);
        self.reached = match notice.state {
            State::Pending { .. } | State::Delivering => Reached::Waiting,
            State::Done => Reached::Delivered,
            State::Dead(_) | State::InDoubt => Reached::Failed,
        };
        let last = notice.attempts.iter().rev().find_map(|attempt| attempt.ended.as_ref());
        let last = last.filter(|_| self.reached != Reached::Delivered);
        self.error = last.and_then(|ended| {
            ended.error.clone().or_else(|| ended.status.map(|status| format!("status {status}")))
        });
    }

    /// For programs.
    pub(super) fn document(&self) -> Value {
        let Self { to, at, notice, reached, error, operation } = self;
        json!({
            "to": to,
            "at": shape::time(*at),
            "notice": notice,
            "sent": *reached == Reached::Delivered,
            "state": reached.name(),
            "error": error,
            "operation": operation.map(|id| id.to_string()),
        })
    }
}

/// Looks up what became of the notices that are operations.
pub(super) async fn look_up(node: &Node, tellers: Vec<&mut Teller>) {
    let mut known: HashMap<String, Option<Operation>> = HashMap::new();
    for teller in tellers.into_iter().filter(|it| it.reached == Reached::Unknown) {
        if !known.contains_key(&teller.notice) {
            if known.len() >= LOOKED_MAX {
                continue;
            }
            let found = find(node, teller).await;
            known.insert(teller.notice.clone(), found);
        }
        if let Some(Some(notice)) = known.get(&teller.notice) {
            teller.learn(notice);
        }
    }
}

async fn find(node: &Node, teller: &Teller) -> Option<Operation> {
    let route = format!("{OWN_ROUTES}{}", teller.to);
    let scope = node.engine.scope_of(TENANT, &route, PRINCIPAL);
    let key = Key::new(&teller.notice).ok()?;
    node.engine.operation_of(&scope, &key).await.ok()
}
