//! What an alert is: which there are, when each is held, and who wants to be told of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Operations that nobody knows the end of.
    InDoubt,
    /// Operations that died in a time, and nobody was told.
    DeadLetters,
    /// An upstream that is left alone.
    BreakerOpen,
    /// Work that is sent later than it should be.
    BacklogOld,
    /// Calls whose key's window was over, in a time.
    LateDuplicates,
    /// Little room where the ledger is.
    DiskLow,
    /// Sagas that only a person can lead on.
    SagaStuck,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::InDoubt,
        Self::DeadLetters,
        Self::BreakerOpen,
        Self::BacklogOld,
        Self::LateDuplicates,
        Self::DiskLow,
        Self::SagaStuck,
    ];

    /// The word for it in the configuration.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::InDoubt => "in_doubt",
            Self::DeadLetters => "dead_letters",
            Self::BreakerOpen => "breaker_open",
            Self::BacklogOld => "backlog_old",
            Self::LateDuplicates => "late_duplicates",
            Self::DiskLow => "disk_low",
            Self::SagaStuck => "saga_stuck",
        }
    }

    /// Its name, which the rules for Prometheus have too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InDoubt => "OncewardInDoubt",
            Self::DeadLetters => "OncewardDeadLetters",
            Self::BreakerOpen => "OncewardBreakerOpen",
            Self::BacklogOld => "OncewardBacklogOld",
            Self::LateDuplicates => "OncewardLateDuplicates",
            Self::DiskLow => "OncewardDiskLow",
            Self::SagaStuck => "OncewardSagaStuck",
        }
    }

    /// Whether it wakes somebody (`page`) or waits for the morning (`ticket`).
    pub(crate) fn severity(self) -> &'static str {
        if self == Self::LateDuplicates { "ticket" } else { "page" }
    }
}

/// Which alert: there is one of these at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Alert {
    pub(crate) kind: Kind,
    /// Whose; nothing of the gateway's own.
    pub(crate) tenant: Option<String>,
    pub(crate) route: Option<String>,
    /// The node that alone can tell.
    pub(crate) node: Option<String>,
}

/// A figure of this moment: a number, seconds of the backlog, bytes of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) alert: Alert,
    pub(crate) value: u64,
}

/// When an alert of a kind fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The figure above which it is held; of the disk below which.
    pub(crate) bound: u64,
    /// For how long it has to be held.
    pub(crate) hold: Duration,
    /// The time in which is counted what is counted.
    pub(crate) within: Duration,
}

/// The rules in force; of a kind that has none there are no alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) of: BTreeMap<Kind, Rule>,
    /// For how long an alert is not to be held before it ends.
    pub(crate) recover_after: Duration,
}

impl Rules {
    pub(super) fn holds(&self, measure: &Measure) -> bool {
        self.of.get(&measure.alert.kind).is_some_and(|rule| match measure.alert.kind {
            Kind::DiskLow => measure.value < rule.bound,
            _ => measure.value > rule.bound,
        })
    }
}

/// Who is told, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The receiver's name.
    pub(crate) name: String,
    /// Of these alone; empty: all.
    pub(crate) kinds: Vec<Kind>,
    /// Of this tenant's alone.
    pub(crate) tenant: Option<String>,
    /// Of these routes alone; empty: all, and what is of none.
    pub(crate) routes: Vec<String>,
    /// How long after it was told of an alert it is told again; without it once.
    pub(crate) repeat: Option<Duration>,
    /// How long what begins or ends is collected.
    pub(crate) group: Duration,
}

impl Wish {
    pub(crate) fn wants(&self, alert: &Alert) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&alert.kind))
            && self.tenant.as_ref().is_none_or(|own| alert.tenant.as_ref() == Some(own))
            && (self.routes.is_empty()
                || alert.route.as_ref().is_some_and(|route| self.routes.contains(route)))
    }
}
