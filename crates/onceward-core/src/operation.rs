//! One intended effect: what is wanted, where it stands and what has become of it.

mod life;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::attempt::{Attempt, BodyRef};
use crate::fingerprint::Fingerprint;
use crate::id::OperationId;
use crate::key::{Key, Scope, ScopeKind};
use crate::lease::Session;
use crate::policy::{Effects, Mode};
use crate::time::Timestamp;
use crate::trace::TraceContext;
use crate::upstream_key::KeyPlace;

pub(crate) use life::Step;
pub use life::{Event, Illegal};

/// How long an exhausted operation stays, at least.
pub(crate) const EXHAUSTED_WINDOW: Duration = Duration::from_hours(720);

/// The number that grows with every write of an operation: a write that carries an older one
/// is refused by the store, in the statement that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Fence(pub u64);

/// What is wanted of an operation, frozen when it is remembered: addresses, credentials, timeouts
/// and retry policy are read at each attempt, this never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The operation's identity.
    pub id: OperationId,
    /// Within what its key is unique.
    pub scope: Scope,
    /// The caller's key, or one that was made.
    pub key: Key,
    /// What must be equal for "the same request".
    pub fingerprint: Fingerprint,
    /// What a second arrival would do.
    pub effects: Effects,
    /// The key that the upstream dedupes by: one for all attempts.
    pub upstream_key: Option<UpstreamKey>,
    /// How long the upstream remembers our key.
    pub upstream_window: Duration,
    /// Where it goes: a route's name, or the origin of an ad hoc upstream. Empty where it goes
    /// nowhere: a claim.
    pub route: String,
    /// By which way it came, where that is no call: `source/NAME`, `outbox/NAME`.
    pub via: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub target: String,
    /// When it was remembered.
    pub created_at: Timestamp,
    /// How long the mark of the used key stays after its window.
    pub tombstone: Duration,
    /// How long its request and its answer are kept after its end, where that is less than the
    /// window; the key stays.
    pub retain: Option<Duration>,
    /// Whose share of the route it counts against.
    pub flow: Option<String>,
    /// The operation that it was born of: an original that was edited, or one that it reports.
    pub parent: Option<OperationId>,
    /// The operation that its key is another name of: then it is nothing else.
    pub alias_of: Option<OperationId>,
    /// Whom to tell when it ends.
    pub callback: Option<String>,
    /// The span that it came from, where its caller said so.
    pub trace: Option<TraceContext>,
}

/// One intended effect, identified by its scope and key, and what has become of it. It reads as
/// its [`Intent`] does; all copies of an operation share that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What is wanted.
    pub intent: Arc<Intent>,
    /// Grows with every write.
    pub fence: Fence,
    /// Who waits for the outcome.
    pub mode: Mode,
    /// Where it stands.
    pub state: State,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// Where the present run of attempts began: limits count from here, not from what came
    /// before a revival.
    pub run: Run,
    /// The caller's own bound: no attempt begins later.
    pub deadline: Option<Timestamp>,
    /// The caller's own bound on the attempts of a run.
    pub attempts_max: Option<u32>,
    /// No attempt begins later, because the upstream may have forgotten our key: the first send
    /// that may have been executed, and 0.8 of the upstream's window.
    pub send_by: Option<Timestamp>,
    /// How long the outcome is replayed, from completion.
    pub window: Duration,
    /// When it became done or dead.
    pub ended_at: Option<Timestamp>,
    /// Whether a dead one's caller was told: then it is no dead letter.
    pub told: bool,
    /// The final answer.
    pub outcome: Option<Outcome>,
    /// Where the request is kept; nothing once it is forgotten.
    pub request: Option<BodyRef>,
    /// What the caller calls it; what whoever has a claim in hand calls themselves.
    pub label: Option<String>,
    /// What people did, oldest first.
    pub acts: Vec<Act>,
    /// Set by a person who dropped the key before its time.
    pub forgotten: Option<Forgotten>,
    /// What it is about, where that has an order. Boxed: few have one.
    pub subject: Option<Box<Subject>>,
    /// What it is found by: what its answer says that it made, by name; of a mail, what it says itself,
    /// too.
    pub ids: Vec<(String, String)>,
    /// The recipients of a mail that have it, by their place in its request: no attempt is for them.
    pub served: Vec<u16>,
    /// How often the upstream was asked whether it was done, while it is in doubt.
    pub looks: Looks,
    /// The operations whose keys are other names of this one: they last as long as it does.
    pub aliases: Vec<OperationId>,
    /// Until when whoever claimed it has it in hand: a claim keeps its own time, no session does.
    /// Where a claim was given back: from when on it may be begun again.
    pub lease_until: Option<Timestamp>,
}

impl Deref for Operation {
    type Target = Intent;

    fn deref(&self) -> &Intent {
        &self.intent
    }
}

/// What an operation is about, and its place among all that are about the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What.
    pub name: String,
    /// Its place in the caller's own order.
    pub sequence: Option<u64>,
    /// Whether it is this one's turn; always, where its kind has no order.
    pub is_first: bool,
    /// The newer one that was done before this one was sent.
    pub superseded_by: Option<OperationId>,
}

/// How often the upstream was asked whether an operation was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Looks {
    /// How often.
    pub made: u32,
    /// How often in a row it knew nothing of it.
    pub absent: u32,
    /// When it is asked next.
    pub next: Option<Timestamp>,
}

/// A key that goes to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamKey {
    /// Where in the request it goes.
    pub place: KeyPlace,
    /// Its value: at most 45 bytes where it is derived.
    pub value: String,
}

/// A run of attempts: from remembering or a revival to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// When it began.
    pub since: Timestamp,
    /// How many attempts there were before it.
    pub before: u32,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Remembered, and nothing is under way. Entered by remembering, by a retry and by revival;
    /// left when an attempt starts, or when it may not start any more.
    Pending {
        /// When the next attempt may start.
        due: Timestamp,
    },
    /// An attempt may be under way. Entered when it starts; left by its verdict, or by recovery
    /// where its owner is gone.
    Delivering,
    /// It may have been executed, and sending again could double it. Entered by a verdict;
    /// left only with evidence: a late answer, a lookup, a webhook, or a person.
    InDoubt,
    /// The final answer is known and kept. Never left.
    Done,
    /// No attempt will be made. Entered by a verdict, a person, or recovery; left by the same
    /// key or by a person's redelivery.
    Dead(Death),
}

impl State {
    /// The word for it in answers, logs and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Delivering => "delivering",
            Self::InDoubt => "in_doubt",
            Self::Done => "done",
            Self::Dead(_) => "dead",
        }
    }

    /// Whether nothing more happens by itself.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Pending { .. } | Self::Delivering | Self::InDoubt => false,
            Self::Done | Self::Dead(_) => true,
        }
    }
}

/// Why an operation is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The upstream refused it; nothing was done there.
    Refused,
    /// Attempts, time or the upstream's key window ran out.
    Exhausted,
    /// No attempt ever sent a byte.
    Unsent,
    /// A person gave it up.
    Cancelled,
    /// The caller waited on a node that ended meanwhile.
    OwnerGone,
    /// A newer one about the same was done first.
    Superseded,
}

impl Death {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::Exhausted,
        Self::Unsent,
        Self::Cancelled,
        Self::OwnerGone,
        Self::Superseded,
    ];

    /// The word for it in answers, logs and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
            Self::Unsent => "unsent",
            Self::Cancelled => "cancelled",
            Self::OwnerGone => "owner_gone",
            Self::Superseded => "superseded",
        }
    }
}

/// The final answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its status, where there was an answer.
    pub status: Option<u16>,
    /// Whether it meets the route's `success`.
    pub ok: bool,
    /// How we know it.
    pub source: Source,
    /// Where the answer is kept; nothing where it is not retained.
    pub answer: Option<BodyRef>,
}

/// How an outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The upstream answered.
    Upstream,
    /// The upstream answered, after the operation had been given into doubt.
    LateAnswer,
    /// The upstream's answer began and broke off: its status is known, its body is lost.
    Truncated,
    /// The upstream's answer was larger than what is kept.
    TooLarge,
    /// The answer itself says that an earlier attempt had done it.
    Inferred,
    /// A person said so.
    Person,
    /// The upstream was asked, and knew of it.
    Lookup,
    /// The provider said so by itself, in a webhook.
    Webhook,
    /// Whoever had claimed it said so.
    Holder,
    /// It is a saga, and its steps came to their end.
    Steps,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Upstream,
        Self::LateAnswer,
        Self::Truncated,
        Self::TooLarge,
        Self::Inferred,
        Self::Person,
        Self::Lookup,
        Self::Webhook,
        Self::Holder,
        Self::Steps,
    ];

    /// The word for it in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::LateAnswer => "late_answer",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::Inferred => "inferred",
            Self::Person => "person",
            Self::Lookup => "lookup",
            Self::Webhook => "webhook",
            Self::Holder => "holder",
            Self::Steps => "steps",
        }
    }
}

/// What a person did to an operation: who, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// What.
    pub deed: Deed,
    /// When.
    pub at: Timestamp,
    /// Who: the name of the access key, or `local`.
    pub who: String,
    /// Why, in that person's words; the evidence where it resolves a doubt.
    pub reason: String,
}

/// What a person can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Sent again on purpose.
    Redelivered,
    /// Gave up.
    Cancelled,
    /// Said of an operation in doubt that it was done.
    ResolvedDone,
    /// Said of an operation in doubt that it was not sent.
    ResolvedNotSent,
    /// Dropped the key before its time.
    Forgot,
    /// Made the key last longer.
    Extended,
    /// Gave it another key beside its own.
    Rotated,
    /// Asked anew, changed or not, by an operation of its own: this one.
    Resent,
    /// Wanted the attempt that it waits for now.
    Retried,
}

impl Deed {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Redelivered,
        Self::Cancelled,
        Self::ResolvedDone,
        Self::ResolvedNotSent,
        Self::Forgot,
        Self::Extended,
        Self::Rotated,
        Self::Resent,
        Self::Retried,
    ];

    /// The word for it in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redelivered => "redelivered",
            Self::Cancelled => "cancelled",
            Self::ResolvedDone => "resolved_done",
            Self::ResolvedNotSent => "resolved_not_sent",
            Self::Forgot => "forgot",
            Self::Extended => "extended",
            Self::Rotated => "rotated",
            Self::Resent => "resent",
            Self::Retried => "retried",
        }
    }
}

/// What a forgotten key gets from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// 410 with the person's reason.
    Refuse,
    /// It is a new operation.
    New,
}

impl Intent {
    /// What is wanted where nothing else is said: it goes where its scope is called, and doing it
    /// twice may be two effects.
    pub fn new(
        id: OperationId,
        scope: Scope,
        key: Key,
        fingerprint: Fingerprint,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            route: scope.name.clone(),
            scope,
            key,
            fingerprint,
            effects: Effects::NonIdempotent,
            upstream_key: None,
            upstream_window: Duration::ZERO,
            via: None,
            method: String::new(),
            target: String::new(),
            created_at: now,
            tombstone: Duration::ZERO,
            retain: None,
            flow: None,
            parent: None,
            alias_of: None,
            callback: None,
            trace: None,
        }
    }

    /// When it came, as lists have it: in the order of ids, to the millisecond. An id is never behind the time
    /// at which it was made, and ahead of it only where ids that were there were ahead: they were made by
    /// a clock that was set back since, or by that of another node. Then it came when they did, so that a
    /// span of time is a span of ids, whoever made them by whatever clock.
    pub fn came_at(&self) -> Timestamp {
        self.created_at.max(self.id.made_at())
    }

    /// Since when what is born of it may have come: another node bears it, whose clock may be behind.
    pub fn kin_since(&self) -> Timestamp {
        self.created_at.minus(CLOCKS_APART_MAX)
    }
}

/// How far the clocks of nodes lie apart, at most, where lists look for what belongs together.
const CLOCKS_APART_MAX: Duration = Duration::from_mins(10);

/// Whether this names something that a mail says itself, among what it is found by.
pub fn is_said_by_a_mail(name: &str) -> bool {
    matches!(name, "message_id" | "to" | "subject")
}

impl Operation {
    /// An operation that is due at once, of which nothing else is said: it is held, and its key
    /// lasts no time.
    pub fn new(intent: Intent) -> Self {
        let now = intent.created_at;
        Self {
            intent: Arc::new(intent),
            fence: Fence(0),
            mode: Mode::Held,
            state: State::Pending { due: now },
            attempts: Vec::new(),
            run: Run { since: now, before: 0 },
            deadline: None,
            attempts_max: None,
            send_by: None,
            window: Duration::ZERO,
            ended_at: None,
            told: false,
            outcome: None,
            request: None,
            label: None,
            acts: Vec::new(),
            forgotten: None,
            subject: None,
            ids: Vec::new(),
            served: Vec::new(),
            looks: Looks::default(),
            aliases: Vec::new(),
            lease_until: None,
        }
    }

    /// What is wanted of an operation that is not remembered yet.
    pub fn intent_mut(&mut self) -> &mut Intent {
        Arc::make_mut(&mut self.intent)
    }

    /// Whether it is its turn among those about the same; always, where they have no order.
    pub fn is_first(&self) -> bool {
        self.subject.as_ref().is_none_or(|subject| subject.is_first)
    }

    /// The session that has it in hand: it makes the attempt under way, or has the caller who
    /// waits for the next one. Nothing where the operation is at rest or waits in the ledger.
    pub fn owner(&self) -> Option<Session> {
        let last = || self.attempts.last().map(|attempt| attempt.by);
        if matches!(self.scope.kind, ScopeKind::Claim | ScopeKind::Saga) {
            return None;
        }
        match (self.state, self.mode) {
            (State::Delivering, _) | (State::Pending { .. }, Mode::Held) => last(),
            (State::Pending { .. }, Mode::Accepted)
            | (State::InDoubt | State::Done | State::Dead(_), _) => None,
        }
    }

    /// How many attempts were started.
    pub fn attempts_made(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.n)
    }

    /// How many attempts the present run has had; none where only the mark is left.
    pub fn attempts_in_run(&self) -> u32 {
        self.attempts_made().saturating_sub(self.run.before)
    }

    /// Whether any attempt so far may have been executed.
    pub fn may_have_executed(&self) -> bool {
        !self.served.is_empty() || self.attempts.iter().any(Attempt::may_have_executed)
    }

    /// Whether it is a mail, which has a name that only we could give it.
    pub fn is_mail(&self) -> bool {
        let own = format!("<{}@", self.id);
        self.ids.iter().any(|(name, id)| name == "message_id" && id.starts_with(&own))
    }

    /// The status that it ended with, or that it met last.
    pub fn last_status(&self) -> Option<u16> {
        let met = || {
            let last = self.attempts.iter().rev().find_map(|attempt| attempt.ended.as_ref());
            last.and_then(|ended| ended.status)
        };
        self.outcome.as_ref().and_then(|outcome| outcome.status).or_else(met)
    }

    /// What went wrong with the last attempt that ended, in words.
    pub fn last_error(&self) -> Option<&str> {
        let last = self.attempts.iter().rev().find_map(|attempt| attempt.ended.as_ref());
        last.and_then(|ended| ended.error.as_deref())
    }

    /// When the key is forgotten with its outcome, where the operation has ended. What may have
    /// been executed and died stays longer: its key opens the way to run it again.
    pub fn key_expires_at(&self) -> Option<Timestamp> {
        let window = match self.state {
            State::Dead(Death::Exhausted | Death::OwnerGone) => self.window.max(EXHAUSTED_WINDOW),
            _ => self.window,
        };
        Some(self.ended_at?.plus(window))
    }

    /// Whether a person should see it as a dead letter.
    pub fn is_dead_letter(&self) -> bool {
        matches!(self.state, State::Dead(_)) && !self.told
    }

    /// Every body that the operation refers to.
    pub fn bodies(&self) -> impl Iterator<Item = BodyRef> {
        let answers = self.attempts.iter().filter_map(|attempt| attempt.ended.as_ref()?.answer);
        let outcome = self.outcome.as_ref().and_then(|outcome| outcome.answer);
        self.request.into_iter().chain(answers).chain(outcome)
    }

    /// The operation without its request and its answers; the key and all that happened stay.
    #[must_use]
    pub fn without_bodies(&self) -> Self {
        let mut kept = self.clone();
        kept.fence = Fence(self.fence.0 + 1);
        kept.request = None;
        for ended in kept.attempts.iter_mut().filter_map(|attempt| attempt.ended.as_mut()) {
            ended.answer = None;
        }
        if let Some(outcome) = &mut kept.outcome {
            outcome.answer = None;
        }
        kept
    }

    /// What stays of the operation after its window: that its key was used, and how it ended.
    #[must_use]
    pub fn forgotten_but_for_its_mark(&self) -> Self {
        let mut mark = self.without_bodies();
        mark.attempts.clear();
        mark.label = None;
        mark.ids.clear();
        mark.served.clear();
        mark
    }

    /// What stays where somebody's data is erased: that its key was used, when and how it ended, and
    /// who erased it and why. Nothing of what was said stays, but for the key and its scope, by which a
    /// duplicate is told.
    #[must_use]
    pub fn erased(&self, act: Act) -> Self {
        let mut mark = self.forgotten_but_for_its_mark();
        mark.acts = vec![act];
        mark.forgotten = Some(Forgotten::Refuse);
        mark.subject = None;
        let intent = mark.intent_mut();
        "/".clone_into(&mut intent.target);
        intent.upstream_key = None;
        intent.callback = None;
        intent.trace = None;
        mark
    }
}
