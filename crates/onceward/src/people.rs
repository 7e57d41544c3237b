//! What a person does: redeliver, retry, cancel, resolve, forget. Each is written with who and why, and
//! through the same fence as a worker's writes.

use std::sync::Arc;

use bytes::Bytes;
use onceward_core::admission;
use onceward_core::exchange::Response;
use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::operation::{
    Act, Death, Deed, Event, Forgotten, Operation, Outcome, Source, State,
};
use onceward_core::policy::Mode;
use onceward_core::redact::Redaction;
use onceward_core::risk::{Risk, risk};

use crate::audit::Note;
use crate::engine::{Engine, RACES_MAX};
use crate::observe::Fact;
use crate::refusal::Refusal;
use crate::store::{Slot, StoreError, Which, Write};
use crate::wire::{self, Sealing};

/// Who acts, and why.
#[derive(Debug, Clone)]
pub struct Person {
    /// The name of the access key, or `local`.
    pub who: String,
    /// In that person's words.
    pub reason: String,
}

/// What a person says became of an operation in doubt.
#[derive(Debug, Clone)]
pub enum Resolution {
    /// It was done; with the answer that duplicates shall get, where the person gives one.
    Done(Option<Response>),
    /// It was not sent: it is sent again.
    NotSent,
}

/// Why what a person wants is not done.
pub(crate) enum Hindrance {
    /// It cannot follow from where the operation stands.
    Why(String),
    /// It could be a second effect, and the person has not taken that risk.
    Risk(Risk),
}

impl From<String> for Hindrance {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

/// What follows from what a person wants, and what is kept with it.
pub(crate) type Decided = Result<Deeds, Hindrance>;

/// An event and the answer that is kept with it.
type Deeds = (Event, Option<(Slot, Bytes)>);

impl Engine {
    /// Sends a dead operation again, on purpose, where that can do no harm.
    pub async fn redeliver(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
    ) -> Result<Operation, Refusal> {
        self.redeliver_at_risk(id, person, &[]).await
    }

    /// Sends an operation that is dead or in doubt again, on purpose: also where that could be a
    /// second effect, if the person takes that risk by its name.
    pub async fn redeliver_at_risk(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
        taken: &[Risk],
    ) -> Result<Operation, Refusal> {
        self.act(id, |operation, engine| redelivery(operation, engine, person, taken)).await
    }

    /// Has the attempt that a pending operation waits for now: under the same key, and past no gate of its
    /// upstream.
    pub async fn retry(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
    ) -> Result<Operation, Refusal> {
        self.act(id, |operation, engine| retrial(operation, engine, person)).await
    }

    /// Gives a pending operation up.
    pub async fn cancel(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
    ) -> Result<Operation, Refusal> {
        self.act(id, |operation, engine| cancellation(operation, engine, person)).await
    }

    /// Says what became of an operation in doubt.
    pub async fn resolve(
        self: &Arc<Self>,
        id: OperationId,
        resolution: &Resolution,
        person: &Person,
    ) -> Result<Operation, Refusal> {
        self.act(id, |operation, engine| resolved(operation, engine, resolution, person)).await
    }

    /// Drops a key before its time: from now on it is refused, or new.
    pub async fn forget(
        self: &Arc<Self>,
        scope: &Scope,
        key: &Key,
        then: Forgotten,
        person: &Person,
    ) -> Result<Operation, Refusal> {
        let found = self.operation_of(scope, key).await?;
        self.act(found.id, |_, engine| Ok(forgetting(engine, then, person))).await
    }

    /// The operation as people see it: without what is not kept any more.
    pub fn as_kept(&self, operation: Operation) -> Operation {
        if admission::are_bodies_over(&operation, self.clock.now()) {
            return Operation { fence: operation.fence, ..operation.without_bodies() };
        }
        operation
    }

    /// What people do not see of the exchanges of `operation`: what its route says, or what holds for all
    /// where its route is gone.
    pub fn redaction_of(&self, operation: &Operation) -> Redaction {
        let (route, policy) = self.route_of(operation);
        match route {
            Some(_) => policy.redact.clone(),
            None => self.routes().ad_hoc.policy.redact.clone(),
        }
    }

    /// Writes what a person decided, and notes it beside the ledger's operations.
    pub(crate) async fn act(
        self: &Arc<Self>,
        id: OperationId,
        decide: impl Fn(&Operation, &Engine) -> Decided,
    ) -> Result<Operation, Refusal> {
        self.act_noting(id, true, decide).await
    }

    /// Writes what a person decided, again where a worker's write came between. What is noted is
    /// noted first: a deed that nobody finds in the audit is worse than one that came to nothing.
    pub(crate) async fn act_noting(
        self: &Arc<Self>,
        id: OperationId,
        is_noted: bool,
        decide: impl Fn(&Operation, &Engine) -> Decided,
    ) -> Result<Operation, Refusal> {
        let mut note: Option<Note> = None;
        for _ in 0..RACES_MAX {
            let operation = self.store.find(Which::Id(id)).await?.ok_or(Refusal::NotFound)?;
            let decided = self.decide(&operation, &decide).await;
            let (mut next, answer) = match decided {
                Ok(decided) => decided,
                Err(refusal) => return self.refused(note, refusal).await,
            };
            let deed = match self.approve_last(&operation, &mut next).await {
                Ok(deed) => deed,
                Err(refusal) => {
                    if let Some(act) = next.acts.last().filter(|_| is_noted && note.is_none()) {
                        self.note_wanted(&refusal, act).await?;
                    }
                    return self.refused(note, refusal).await;
                }
            };
            if let Some(act) = next.acts.last().filter(|_| is_noted && note.is_none()) {
                let person = Person { who: act.who.clone(), reason: act.reason.clone() };
                note = Some(self.note(&person, act.deed.name(), &id.to_string()).await?);
            }
            self.mark_callback(&next).await?;
            match self.store.commit(Write { operation: next, answer, visible: true }).await {
                Ok(acted) => {
                    if let Some(deed) = deed {
                        self.settle_approval(id, deed).await?;
                    }
                    self.acted(&acted).await;
                    return Ok(acted);
                }
                Err(StoreError::Stale) => {}
                Err(error) => {
                    let refusal = self.heed(error);
                    return self.refused(note, refusal).await;
                }
            }
        }
        self.refused(note, Refusal::NotFound).await
    }

    /// Tells of an operation that a person acted upon, or that evidence led out of its doubt, and lets
    /// those behind it go on.
    pub(crate) async fn acted(&self, operation: &Operation) {
        self.observer.observe(Fact::Acted(operation));
        self.callbacks.note(operation);
        self.waiters.wake(operation.id);
        Box::pin(self.advance(operation)).await;
    }

    /// The operation as it is after what a person decided, where that may be.
    async fn decide(
        &self,
        operation: &Operation,
        decide: &impl Fn(&Operation, &Engine) -> Decided,
    ) -> Result<(Operation, Option<(Slot, Bytes)>), Refusal> {
        let digest = operation.scope.digest(&operation.key);
        let owner = self.store.find(Which::Key(digest)).await?;
        if owner.is_none_or(|owner| owner.id != operation.id) {
            return Err(Refusal::conflict(operation, "its key belongs to a later operation"));
        }
        let (event, answer) = decide(operation, self).map_err(|hindrance| match hindrance {
            Hindrance::Why(why) => Refusal::conflict(operation, why),
            Hindrance::Risk(risk) => {
                Refusal::RiskUnaccepted { operation: Box::new(operation.clone()), risk }
            }
        })?;
        let event = self.unless_given_up(operation, event).await?;
        let next = operation.after(event, self.clock.now());
        Ok((next.map_err(|illegal| Refusal::conflict(operation, illegal.to_string()))?, answer))
    }

    /// What was not done of a saga that unwinds is not begun any more.
    async fn unless_given_up(&self, operation: &Operation, event: Event) -> Result<Event, Refusal> {
        match event {
            Event::Revived { act: Some(act), .. } if self.is_given_up(operation).await? => {
                if act.deed == Deed::ResolvedNotSent {
                    return Ok(Event::Acted(act, None, None));
                }
                let why = "its saga unwinds: say what became of it";
                Err(Refusal::conflict(operation, why))
            }
            Event::Retried { .. } if self.is_given_up(operation).await? => {
                Err(Refusal::conflict(operation, "its saga unwinds: it is not begun any more"))
            }
            event => Ok(event),
        }
    }

    /// A deed that was noted and came to nothing says so.
    async fn refused<T>(&self, note: Option<Note>, refusal: Refusal) -> Result<T, Refusal> {
        if let Some(note) = note {
            self.note_refused(note).await?;
        }
        Err(refusal)
    }
}

/// Sends it again, where that is safe or its risk is taken.
pub(crate) fn redelivery(
    operation: &Operation,
    engine: &Engine,
    person: &Person,
    taken: &[Risk],
) -> Decided {
    let now = engine.clock.now();
    let risk = risk(operation, now);
    let why = |why: &str| Err(Hindrance::Why(why.to_owned()));
    match (operation.scope.kind, operation.state) {
        (ScopeKind::Claim, _) => {
            return why("it is a claim: only its own handler begins it again");
        }
        (ScopeKind::Saga, _) => return why("it is a saga: that is retried where it is stuck"),
        // Its saga may have gone on without it.
        (ScopeKind::Step, State::Dead(_)) => {
            return why("it is a step of a saga: that is retried where it is stuck");
        }
        _ => {}
    }
    match operation.state {
        State::Done => return why("it is done: edit and resend makes a new operation of it"),
        State::Dead(Death::Superseded) => return why("a newer one about the same was done"),
        _ if operation.request.is_none() || admission::are_bodies_over(operation, now) => {
            return why("its request was forgotten with its window");
        }
        State::Dead(_) | State::InDoubt if risk.wants_a_word() && !taken.contains(&risk) => {
            return Err(Hindrance::Risk(risk));
        }
        State::Dead(_) | State::InDoubt | State::Pending { .. } | State::Delivering => {}
    }
    let mut act = deed(Deed::Redelivered, person, engine);
    if risk.wants_a_word() {
        // What lets it leave its doubt is this person's word, and that is kept.
        take_risk(&mut act, risk);
    }
    Ok((Event::Revived { due: now, mode: Mode::Accepted, act: Some(act) }, None))
}

/// Says with an act that somebody took this risk for it.
pub(crate) fn take_risk(act: &mut Act, risk: Risk) {
    act.reason = format!("{} (the risk is taken: {})", act.reason, risk.name());
}

/// Whether a person can have its next attempt sooner: it waits, and nobody but the clock lets it.
pub(crate) fn can_be_retried(operation: &Operation) -> bool {
    let is_sent = !matches!(operation.scope.kind, ScopeKind::Claim | ScopeKind::Saga);
    let is_pending = matches!(operation.state, State::Pending { .. });
    is_sent && is_pending && operation.mode == Mode::Accepted && operation.is_first()
}

/// Has its next attempt now.
pub(crate) fn retrial(operation: &Operation, engine: &Engine, person: &Person) -> Decided {
    let now = engine.clock.now();
    let why = |why: &str| Err(Hindrance::Why(why.to_owned()));
    let State::Pending { due } = operation.state else {
        return why(&format!("it is {}, and waits for no attempt", operation.state.name()));
    };
    if !operation.is_first() {
        return why("another about the same goes first");
    }
    if !can_be_retried(operation) {
        return why("its caller waits, and the gateway is at it");
    }
    // A route's hours hold for this attempt too.
    let opens = engine.route_of(operation).1.opening(operation.mode, now);
    if opens >= due {
        return why(if due <= now {
            "it is due already"
        } else {
            "its route sends at other hours"
        });
    }
    Ok((Event::Retried { due: opens, act: deed(Deed::Retried, person, engine) }, None))
}

/// Gives it up.
pub(crate) fn cancellation(operation: &Operation, engine: &Engine, person: &Person) -> Decided {
    if operation.scope.kind == ScopeKind::Claim {
        let why = "it is a claim: its holder gives it back, or its lease ends";
        return Err(Hindrance::Why(why.to_owned()));
    }
    if operation.scope.kind == ScopeKind::Saga {
        let why = "it is a saga: cancelled as one, it undoes what it has done";
        return Err(Hindrance::Why(why.to_owned()));
    }
    Ok((Event::Acted(deed(Deed::Cancelled, person, engine), None, None), None))
}

/// Drops its key.
pub(crate) fn forgetting(engine: &Engine, then: Forgotten, person: &Person) -> Deeds {
    (Event::Acted(deed(Deed::Forgot, person, engine), None, Some(then)), None)
}

/// Ends its doubt.
pub(crate) fn resolved(
    operation: &Operation,
    engine: &Engine,
    resolution: &Resolution,
    person: &Person,
) -> Decided {
    if operation.state != State::InDoubt {
        return Err(Hindrance::Why(format!("it is {}, not in doubt", operation.state.name())));
    }
    match resolution {
        Resolution::NotSent => {
            let act = deed(Deed::ResolvedNotSent, person, engine);
            if operation.scope.kind == ScopeKind::Claim {
                // Whoever begins it next has it in hand.
                return Ok((Event::Acted(act, None, None), None));
            }
            let due = engine.clock.now();
            Ok((Event::Revived { due, mode: Mode::Accepted, act: Some(act) }, None))
        }
        Resolution::Done(answer) => {
            let (_, policy) = engine.route_of(operation);
            let status = answer.as_ref().map(|answer| answer.status);
            let ok = status.is_none_or(|status| policy.is_success(status));
            let outcome = Outcome { status, ok, source: Source::Person, answer: None };
            let is_claim = operation.scope.kind == ScopeKind::Claim;
            let sealing =
                if is_claim { Sealing::plain(engine.seals_bodies()) } else { Sealing::of(&policy) };
            let answer = answer.as_ref().map(|answer| {
                let (kept, id) = (&answer.headers, operation.id);
                let secrets = engine.secrets();
                (Slot::Outcome, wire::encode_response(answer, kept, id, secrets, sealing))
            });
            let act = deed(Deed::ResolvedDone, person, engine);
            Ok((Event::Acted(act, Some(outcome), None), answer))
        }
    }
}

/// The record of what `person` does now.
pub(crate) fn deed(deed: Deed, person: &Person, engine: &Engine) -> Act {
    Act { deed, at: engine.clock.now(), who: person.who.clone(), reason: person.reason.clone() }
}
