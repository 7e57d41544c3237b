//! What a person does about a saga: pause, resume, retry, cancel, and say what has become of what is stuck.

use std::sync::Arc;

use onceward_core::id::OperationId;
use onceward_core::key::{Key, ScopeKind};
use onceward_core::operation::{Act, Deed, Event, Operation, State};
use onceward_core::risk::{Risk, risk};
use onceward_core::saga::{
    Course, Hindered, Leg, Place, Plan, Progress, SagaEvent, Standing, Word, is_stand_in,
    retries_of,
};
use onceward_core::time::Timestamp;

use super::{Kept, Saga, SagaDeed, digest_of};
use crate::engine::{Engine, RACES_MAX};
use crate::observe::Fact;
use crate::people::Person;
use crate::refusal::Refusal;
use crate::store::{self, Query, StoreError, Which};

/// A pause because the ledger was restored, and the word for any pause.
const HOLD: &str = "held";
const PAUSE: &str = "paused";

impl Engine {
    /// Begins no further step of a saga; what is at hand comes to its end.
    pub async fn pause_saga(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
    ) -> Result<Saga, Refusal> {
        self.act_on_saga(id, person, PAUSE, |_, progress, _| progress.pause()).await
    }

    /// Pauses every saga that is open, where a ledger was restored: nobody knows what each has done since its
    /// backup. Those that began `since` then, or that a person acted on, are known and let be. Tells how many
    /// it paused.
    pub async fn hold_sagas(
        self: &Arc<Self>,
        person: &Person,
        since: Timestamp,
    ) -> Result<u64, Refusal> {
        let is_known = |saga: &Saga| {
            let acted = |kept: &Kept| kept.is_held || kept.deeds.iter().any(|it| it.at >= since);
            saga.operation.created_at >= since || saga.kept.as_ref().is_none_or(acted)
        };
        let hold = |_: &Plan, progress: &Progress, now: &Saga| {
            if is_known(now) { Err(Hindered::Held) } else { progress.pause() }
        };
        let (mut count, mut before) = (0, None);
        loop {
            let query = Query {
                standing: vec![store::Standing::Delivering],
                before,
                limit: usize::MAX,
                ..Query::default()
            };
            let (sagas, next) = self.sagas(query).await?;
            for saga in sagas.iter().filter(|saga| !is_known(saga)) {
                match self.act_on_saga(saga.operation.id, person, HOLD, hold).await {
                    Ok(_) => count += 1,
                    // It has ended, or a person was faster.
                    Err(Refusal::Conflict { .. }) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            before = next;
            if before.is_none() {
                return Ok(count);
            }
        }
    }

    /// Lets a paused saga go on.
    pub async fn resume_saga(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
    ) -> Result<Saga, Refusal> {
        self.act_on_saga(id, person, "resumed", |_, progress, _| progress.resume()).await
    }

    /// Undoes what a saga has done: nothing further is begun, and what is under way is waited for. One that
    /// cannot be read ends with that, and nothing of it is undone.
    pub async fn cancel_saga(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
    ) -> Result<Saga, Refusal> {
        let saga = self.saga(id).await?;
        if saga.kept.is_none() && !saga.operation.state.is_ended() {
            return self.end_unread(&saga, person).await;
        }
        // What is not there any more may have been done: it is not begun, nor buried, in the dark.
        if saga.standing() == Standing::Stuck && self.step_at_hand(&saga).await?.is_none() {
            let why = "what it is stuck at was forgotten since: say first what became of it";
            return Err(Refusal::conflict(&saga.operation, why));
        }
        let cancel = |plan: &Plan, progress: &Progress, now: &Saga| {
            let unwinds = plan.cancel(progress)?;
            // What may have been done since the backup is not buried as not done.
            let is_to_be_said =
                progress.course == Course::Forward || progress.at.is_some_and(|place| !place.undo);
            let is_held = now.kept.as_ref().is_some_and(|kept| kept.is_held);
            if is_held && is_to_be_said { Err(Hindered::Held) } else { Ok(unwinds) }
        };
        self.act_on_saga(id, person, "unwound", cancel).await
    }

    /// Tries the step anew at which a saga is stuck; where that could be a second effect, only if the person
    /// takes that risk by its name.
    pub async fn retry_saga(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
        taken: &[Risk],
    ) -> Result<Saga, Refusal> {
        let saga = self.saga(id).await?;
        let hindered = |why: &str| Refusal::conflict(&saga.operation, why);
        let step = self.step_at_hand(&saga).await?.filter(|step| step.request.is_some());
        let step =
            step.ok_or_else(|| hindered("there is nothing left that could be sent again"))?;
        if is_stand_in(&step) {
            return Err(hindered("it could not be made, and cannot be now: say what became of it"));
        }
        let risk = risk(&step, self.clock.now());
        if risk.wants_a_word() && !taken.contains(&risk) {
            return Err(Refusal::RiskUnaccepted { operation: Box::new(step), risk });
        }
        let made = retries_of(&step);
        let retry = |_: &Plan, progress: &Progress, now: &Saga| {
            // Another step is at hand since.
            let same = now.kept.as_ref().map(|kept| kept.progress.at)
                == saga.kept.as_ref().map(|kept| kept.progress.at);
            if same { progress.retry(made) } else { Err(Hindered::NotStuck) }
        };
        self.act_on_saga(id, person, "retried", retry).await
    }

    /// Says what has become of the step at which a saga is stuck, or which is next of one that is paused and
    /// has no operation: of `NAME`, or of its compensation `NAME/undo`.
    pub async fn settle_saga(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
        step: &str,
        word: Word,
    ) -> Result<Saga, Refusal> {
        let deed = match word {
            Word::Done => "settled_done",
            Word::NotDone => "settled_not_done",
        };
        let saga = self.saga(id).await?;
        let is_stuck = saga.standing() == Standing::Stuck;
        if !is_stuck && let Some(operation) = self.step_at_hand(&saga).await? {
            let why = "what is at hand is in the ledger: resolve, or cancel, that operation";
            return Err(Refusal::conflict(&operation, why));
        }
        let settle = |plan: &Plan, progress: &Progress, now: &Saga| {
            let spoken_of = now.spoken_of().and_then(|place| now.name_of(place));
            match spoken_of {
                Some(at) if at != step => Err(Hindered::NotStuck),
                _ if progress.standing == Standing::Stuck => plan.settle(progress, word),
                // What was looked up may be there by now.
                _ if now.operation.fence == saga.operation.fence => {
                    plan.settle_held(progress, word)
                }
                _ => Err(Hindered::NotStuck),
            }
        };
        let settled = self.act_on_saga(id, person, deed, settle).await?;
        let at_hand = saga.kept.as_ref().and_then(|kept| Some((kept, kept.progress.at?)));
        if let Some((kept, place)) = at_hand.filter(|_| !is_stuck) {
            // Whoever read the saga before it was paused, and comes late, finds that one.
            let (why, now) = ("a person said what became of it".to_owned(), self.clock.now());
            let newborn = self.birth_of_dead_step(&saga.operation, kept, place, why, now);
            if let Some(newborn) = newborn {
                self.write_birth(Box::new(newborn)).await.map_err(|error| self.heed(error))?;
            }
        }
        Ok(settled)
    }

    /// Whether `step` was done and its saga has it undone: another call may have the effect.
    pub(crate) async fn is_undone(&self, step: &Operation) -> Result<bool, StoreError> {
        let parent = step.parent.filter(|_| step.scope.kind == ScopeKind::Step);
        let Some(id) = parent else { return Ok(false) };
        if let Ok(undo) = Key::new(&format!("{}/undo", step.key.as_str()))
            && let Some(undo) = self.store.find(Which::Key(step.scope.digest(&undo))).await?
            && undo.state == State::Done
            && undo.outcome.is_some_and(|outcome| outcome.ok)
        {
            return Ok(true);
        }
        // A person may have said so.
        let Some(saga) = self.store.find(Which::Id(id)).await? else { return Ok(false) };
        let saga = self.saga_of(saga).await?;
        let Some(kept) = &saga.kept else { return Ok(false) };
        let own = Some(store::digest_of(step));
        let mut legs = kept.progress.legs.iter().enumerate();
        Ok(legs.any(|(at, leg)| {
            let place = Place { step: at, undo: false };
            *leg == Leg::Undone && digest_of(&saga.operation, &kept.definition, place) == own
        }))
    }

    /// Ends a saga of which nobody can read what it was to do.
    async fn end_unread(&self, saga: &Saga, person: &Person) -> Result<Saga, Refusal> {
        let (id, Person { who, reason }) = (saga.operation.id, person.clone());
        let act = Act { deed: Deed::Cancelled, at: self.clock.now(), who, reason };
        let what = format!("{} ", act.deed.name());
        self.approve_noting(&saga.operation, &what, &act).await?;
        let note = self.note(person, "unwound", &id.to_string()).await?;
        let ended = Event::Saga(SagaEvent::Ended { ok: false });
        let decided = saga.operation.after(ended, self.clock.now());
        let written = self.write(decided, None, true).await.map_err(|error| self.heed(error))?;
        let Some(operation) = written else {
            self.note_refused(note).await?;
            return Err(Refusal::conflict(&saga.operation, "it moved on meanwhile"));
        };
        self.settle_approval(id, act.deed).await?;
        self.observer.observe(Fact::Saga(&operation, Some(Standing::Unwound)));
        self.rested(&operation);
        Ok(Saga { operation, kept: None })
    }

    /// Whether `step` is at hand of a saga that unwinds, and none of its compensations: what it was to do is
    /// not wanted any more.
    pub(crate) async fn is_given_up(&self, step: &Operation) -> Result<bool, StoreError> {
        let parent = step.parent.filter(|_| step.scope.kind == ScopeKind::Step);
        let Some(id) = parent else { return Ok(false) };
        let Some(saga) = self.store.find(Which::Id(id)).await? else { return Ok(false) };
        let saga = self.saga_of(saga).await?;
        let Some(kept) = &saga.kept else { return Ok(false) };
        let Progress { at: Some(at), course: Course::Unwinding, .. } = kept.progress else {
            return Ok(false);
        };
        let digest = digest_of(&saga.operation, &kept.definition, at);
        Ok(!at.undo && digest == Some(store::digest_of(step)))
    }

    /// The operation at hand of a saga, where it is in the ledger.
    async fn step_at_hand(&self, saga: &Saga) -> Result<Option<Operation>, Refusal> {
        let Some(kept) = &saga.kept else { return Ok(None) };
        let place = kept.progress.at;
        let digest = place.and_then(|at| digest_of(&saga.operation, &kept.definition, at));
        let Some(digest) = digest else { return Ok(None) };
        Ok(self.store.find(Which::Key(digest)).await?)
    }

    /// Writes what a person decided, again where somebody else's write came between, and lets the saga go on.
    /// It is noted first: a deed that nobody finds in the audit is worse than one that came to nothing.
    async fn act_on_saga(
        self: &Arc<Self>,
        id: OperationId,
        person: &Person,
        deed: &str,
        decide: impl Fn(&Plan, &Progress, &Saga) -> Result<Progress, Hindered>,
    ) -> Result<Saga, Refusal> {
        let is_hold = deed == HOLD;
        let deed = if is_hold { PAUSE } else { deed };
        let mut note = None;
        for _ in 0..RACES_MAX {
            let saga = self.saga(id).await?;
            let decided = match &saga.kept {
                Some(kept) => decide(&saga.plan(), &kept.progress, &saga).map(|next| (kept, next)),
                None if !saga.operation.state.is_ended() => {
                    let why =
                        "what is kept of it cannot be read: a cancel ends it, and undoes nothing";
                    return Err(Refusal::conflict(&saga.operation, why));
                }
                None => Err(Hindered::Ended),
            };
            let (kept, progress) = match decided {
                Ok(decided) => decided,
                Err(why) => {
                    if let Some(note) = note {
                        self.note_refused(note).await?;
                    }
                    return Err(Refusal::conflict(&saga.operation, why.to_string()));
                }
            };
            let Person { who, reason } = person.clone();
            let act = weighed(deed).map(|deed| Act { deed, at: self.clock.now(), who, reason });
            let act = match act {
                None => None,
                Some(act) => {
                    // What is said of one step is no word about another.
                    let spoken_of = saga.spoken_of().and_then(|place| saga.name_of(place));
                    let at_hand = spoken_of.unwrap_or_default();
                    let what = format!("{} {at_hand}", act.deed.name());
                    match self.approve(&saga.operation, &what, &act).await {
                        Ok(act) => Some(act),
                        Err(refusal) => {
                            match note {
                                Some(note) => self.note_refused(note).await?,
                                None => self.note_wanted(&refusal, &act).await?,
                            }
                            return Err(refusal);
                        }
                    }
                }
            };
            if note.is_none() {
                note = Some(self.note(person, deed, &id.to_string()).await?);
            }
            let mut next = Kept { progress, ..kept.clone() };
            let Person { who, reason } = person.clone();
            let reason = act.as_ref().map_or(reason, |act| act.reason.clone());
            next.why = match deed {
                "unwound" => Some(format!("cancelled by {who}: {reason}")),
                _ => next.why,
            };
            next.is_held = match deed {
                "resumed" | "unwound" => false,
                _ => is_hold || next.is_held,
            };
            let at = self.clock.now();
            // A turn that went by while it was held is over: else all that are resumed would go at once.
            next.turn = next.turn.filter(|turn| deed != "resumed" || *turn > at);
            next.add_deed(SagaDeed { deed: deed.to_owned(), at, who, reason });
            let written = self.write_saga(&saga, &next, true).await;
            if let Some(operation) = written.map_err(|error| self.heed(error))? {
                if let Some(act) = act {
                    self.settle_approval(id, act.deed).await?;
                }
                self.spawn_saga(id);
                return Ok(Saga { operation, kept: Some(next) });
            }
        }
        if let Some(note) = note {
            self.note_refused(note).await?;
        }
        Err(Refusal::Limit {
            what: "too many write this saga at once".to_owned(),
            retry_after: std::time::Duration::from_secs(1),
        })
    }
}

/// The deed on an operation that one on a saga amounts to, where it may want a second person.
fn weighed(deed: &str) -> Option<Deed> {
    match deed {
        "unwound" => Some(Deed::Cancelled),
        "retried" => Some(Deed::Redelivered),
        "settled_done" => Some(Deed::ResolvedDone),
        "settled_not_done" => Some(Deed::ResolvedNotSent),
        _ => None,
    }
}
