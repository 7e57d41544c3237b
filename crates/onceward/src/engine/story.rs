//! The story of a call with a key: from memory, or before its gate, into the ledger, and run; as often as
//! others write meanwhile.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::admission::{self, Admission};
use onceward_core::key_age;
use onceward_core::operation::Operation;
use onceward_core::policy::{Effects, Mode};

use super::entry::closed_until;
use super::run::Written;
use super::{Answer, Engine, RACES_MAX};
use crate::alias::Holder;
use crate::call::{Arrival, Means};
use crate::detached::Detached;
use crate::gates::{Entrant, Gate, Slot};
use crate::identity::is_twin;
use crate::observe::{Fact, Repeat};
use crate::refusal::Refusal;
use crate::remember::birth;
use crate::store::{Lane, StoreError, Which};
use crate::suspects::Watch;
use crate::tenants::{Presence, Share, Wanted};

/// How long a caller waits for the ledger; what was begun goes on without it.
const LEDGER_WAIT: Duration = Duration::from_secs(15);

/// A call on its way to the ledger.
pub(super) struct Entry {
    pub(super) gate: Arc<Gate>,
    pub(super) entrant: Entrant,
    /// The right to have one call under way, once it has it.
    pub(super) slot: Option<Slot>,
    /// Why nothing new may come of it: only a duplicate is answered.
    full: Option<Box<Refusal>>,
    /// What it takes of its tenant's limits, and its place until it has a slot.
    share: Option<Box<Share>>,
    pub(super) presence: Option<Box<Presence>>,
    /// The operation whose key is free again.
    replaces: Option<Operation>,
    /// Whether it is counted as one that came too late.
    is_late: bool,
}

/// What came of one look at a call's key, or of one write.
enum Step {
    Answered(Answer),
    /// Its key is known.
    Known(Box<Operation>),
    /// Somebody else wrote meanwhile.
    Again,
}

impl Engine {
    /// A call with a key: it is answered from memory, or written and run.
    pub(crate) async fn remember(
        self: &Arc<Self>,
        arrival: Box<Arrival>,
        lane: Arc<Lane>,
    ) -> Result<Answer, Refusal> {
        if let Some(answer) = self.answer_at_once(&arrival).await? {
            return Ok(answer);
        }
        if arrival.made_at.is_some() {
            Box::pin(self.refuse_too_old(&arrival)).await?;
        }
        let mut entry = self.enter(&arrival, lane).await?;
        for _ in 0..RACES_MAX {
            let known = match self.write_or_find(&mut entry, &arrival).await? {
                Step::Answered(answer) => return Ok(answer),
                Step::Known(known) => known,
                Step::Again => continue,
            };
            if let Some(answer) = Box::pin(self.judge(&mut entry, known, &arrival)).await? {
                return Ok(answer);
            }
        }
        Err(Refusal::Limit {
            what: "too many calls race for this key".to_owned(),
            retry_after: Duration::from_secs(1),
        })
    }

    /// The answer to a duplicate whose outcome can be had without asking for a write.
    async fn answer_at_once(&self, arrival: &Arrival) -> Result<Option<Answer>, Refusal> {
        if !self.recent.has(arrival.digest) {
            return Ok(None);
        }
        let Some(known) = self.store.recall(arrival.digest) else { return Ok(None) };
        let holder = self.follow_for(Box::new(known), arrival).await?;
        match self.admit(&holder, arrival).await? {
            Admission::Fresh | Admission::Revive | Admission::TooLate => Ok(None),
            admission => {
                let known = holder.into_operation();
                Box::pin(self.answer_known(known, admission, arrival)).await.map(Some)
            }
        }
    }

    /// The call before the gate of its upstream: with a slot, where it may go at once.
    async fn enter(&self, arrival: &Arrival, lane: Arc<Lane>) -> Result<Entry, Refusal> {
        let gate = self.gate_of(&arrival.route);
        let entrant = Entrant {
            lane,
            is_harmless: arrival.effects != Effects::NonIdempotent,
            is_backlog: arrival.mode == Mode::Accepted,
        };
        let now = self.clock.now();
        // What waits for its turn needs no slot yet.
        let in_order = arrival.is_in_order();
        let waits = in_order || closed_until(arrival, now).is_some();
        let wanted = Wanted {
            bytes: Some(arrival.request.body.len() as u64),
            may_wait: arrival.mode == Mode::Accepted,
        };
        let admitted = self.admit_tenant(&entrant.lane.tenant, wanted).await?;
        let tenant = &entrant.lane.tenant;
        let (admitted, limit) = admitted
            .map_or_else(|full| (None, Some(full.refusal(tenant))), |admitted| (admitted, None));
        let (share, mut presence) = admitted.unzip();
        let is_barred = waits || limit.is_some();
        let mut slot = if is_barred { None } else { gate.try_enter(&entrant, now).ok() };
        if let Some(slot) = &mut slot {
            slot.attend(presence.take());
        }
        let is_full = slot.is_none()
            && limit.is_none()
            && (arrival.mode == Mode::Accepted
                && !Box::pin(self.has_room(&gate, &entrant.lane, arrival)).await?
                || in_order && !Box::pin(self.has_room_in_line(arrival)).await?);
        let waiting = || Refusal::Limit {
            what: "as much as may wait for this upstream, or about this subject, waits".to_owned(),
            retry_after: Duration::from_secs(1),
        };
        let full = limit.or_else(|| is_full.then(waiting)).map(Box::new);
        Ok(Entry { gate, entrant, slot, full, share, presence, replaces: None, is_late: false })
    }

    /// Writes the call where it may go or wait, and answers it; else looks whether its key is known.
    async fn write_or_find(
        self: &Arc<Self>,
        entry: &mut Entry,
        arrival: &Arrival,
    ) -> Result<Step, Refusal> {
        let now = self.clock.now();
        // What has its key from one that is over is as new as any.
        if let Some(full) = entry.full.as_ref().filter(|_| entry.replaces.is_some()) {
            return Err((**full).clone());
        }
        if entry.slot.is_none() && (arrival.mode == Mode::Held || entry.full.is_some()) {
            // A duplicate needs no slot and no room; only who would send waits for one.
            return match (self.store.find(Which::Key(arrival.digest)).await?, &entry.full) {
                (Some(known), _) => Ok(Step::Known(Box::new(known))),
                (None, Some(full)) => Err((**full).clone()),
                (None, None) => {
                    Box::pin(self.take_slot(entry, arrival)).await?;
                    Ok(Step::Again)
                }
            };
        }
        let start = entry.slot.is_some()
            && arrival.options.not_before.is_none_or(|at| at <= now)
            && arrival.policy.opening(arrival.mode, now) <= now;
        let id = self.next_id_of(now, arrival.options.sampled);
        let start = start.then_some(self.session);
        let request = arrival.remembered(id, now);
        let newborn =
            birth(arrival, &request, id, start, entry.replaces.as_ref(), &self.secrets, now);
        let write = self.clone().write_one(
            Box::new(newborn),
            self.identity_of(arrival),
            Watch::of(arrival, now),
        );
        let work = self.write_and_run(
            write,
            arrival.digest,
            request,
            entry.slot.take(),
            Means::of(&arrival.options),
        );
        match self.wait_for_write(work).await? {
            Written::Fresh(fresh) => {
                if let Some(share) = &mut entry.share {
                    share.spend();
                }
                let _ = arrival.options.aside.made.set((id, arrival.trace));
                self.answer_fresh(fresh, arrival).await.map(Step::Answered)
            }
            Written::Known(known, unused) => {
                let has_twins =
                    arrival.options.identity.is_some() || arrival.policy.unique.is_some();
                if let Some(twin) = has_twins.then(|| is_twin(&known, arrival.digest)).flatten() {
                    drop(unused);
                    // Nobody else sets it.
                    let _ = arrival.options.aside.duplicate_of.set(twin);
                    let twin = self.answer_twin(known, arrival, entry.replaces.as_ref());
                    return Box::pin(twin).await.map(Step::Answered);
                }
                entry.slot = unused;
                Ok(Step::Known(known))
            }
            Written::Stale(unused) => {
                (entry.slot, entry.replaces) = (unused, None);
                Ok(Step::Again)
            }
        }
    }

    /// What came of a write, where that is soon.
    async fn wait_for_write(
        &self,
        work: Detached<Result<Written, Refusal>>,
    ) -> Result<Written, Refusal> {
        let until = self.clock.now().plus(LEDGER_WAIT);
        // Whoever asks again with the same key learns what came of it.
        let unknown = || StoreError::Away("it is not known yet what came of it".to_owned());
        self.within(until, work).await.ok_or_else(unknown)?
    }

    /// Answers a call whose key is known; nothing where it may be written now, or somebody else wrote
    /// meanwhile.
    async fn judge(
        self: &Arc<Self>,
        entry: &mut Entry,
        known: Box<Operation>,
        arrival: &Arrival,
    ) -> Result<Option<Answer>, Refusal> {
        let now = self.clock.now();
        let holder = self.follow_for(known, arrival).await?;
        let admission = self.admit(&holder, arrival).await?;
        let known = holder.operation();
        match admission {
            Admission::Fresh => {
                // Counted once, however often the race for the key is run again.
                if !entry.is_late && admission::leaves_its_mark(known, now) {
                    entry.is_late = true;
                    self.note_asked(known, Repeat::Late);
                }
                self.take_slot(entry, arrival).await?;
                entry.replaces = Some(holder.gives_way());
                Ok(None)
            }
            Admission::Revive => self.revive(entry, known, arrival).await,
            Admission::TooLate => {
                let doubted = self.doubt(known, now).await.map_err(|error| self.heed(error))?;
                let Some(operation) = doubted.map(Box::new) else { return Ok(None) };
                self.note_asked(known, Repeat::Refused);
                arrival.options.aside.note_known(known, Repeat::Refused);
                Err(Refusal::OutcomeUnknown { operation, first: false })
            }
            admission => {
                entry.slot = None;
                self.answer_known(holder.into_operation(), admission, arrival).await.map(Some)
            }
        }
    }

    /// Lets a dead operation run again for a call, and answers it.
    async fn revive(
        self: &Arc<Self>,
        entry: &mut Entry,
        known: &Operation,
        arrival: &Arrival,
    ) -> Result<Option<Answer>, Refusal> {
        self.take_slot(entry, arrival).await?;
        let now = self.clock.now();
        let revival = self.revival(known, arrival, entry.slot.is_some(), now).await?;
        let Some((write, request)) = revival else { return Ok(None) };
        let write = self.clone().write_revival(write);
        let means = Means::of(&arrival.options);
        let work = self.write_and_run(write, arrival.digest, request, entry.slot.take(), means);
        match self.wait_for_write(work).await? {
            Written::Fresh(fresh) => {
                self.note_asked(known, Repeat::Revived);
                arrival.options.aside.note_known(known, Repeat::Revived);
                self.answer_fresh(fresh, arrival).await.map(Some)
            }
            Written::Known(_, unused) | Written::Stale(unused) => {
                entry.slot = unused;
                Ok(None)
            }
        }
    }

    /// What `owner` is another name of, which the caller is told.
    async fn follow_for(
        &self,
        owner: Box<Operation>,
        arrival: &Arrival,
    ) -> Result<Holder, StoreError> {
        let holder = self.follow(owner).await?;
        if let Some(named) = holder.owner.alias_of {
            // The race for a key is run more than once, with one end.
            let _ = arrival.options.aside.duplicate_of.set(named);
        }
        Ok(holder)
    }

    /// Refuses a call whose key bears its time, where that is longer ago than keys are kept and
    /// nothing is known of it.
    async fn refuse_too_old(&self, arrival: &Arrival) -> Result<(), Refusal> {
        let now = self.clock.now();
        let late = arrival.made_at.filter(|at| key_age::is_late(*at, &arrival.policy, now));
        let Some(made_at) = late else { return Ok(()) };
        if let Some(known) = self.store.find(Which::Key(arrival.digest)).await? {
            let holder = self.follow(Box::new(known)).await?;
            if self.admit(&holder, arrival).await? != Admission::Fresh {
                return Ok(());
            }
        }
        let (tenant, route) = (&arrival.scope.tenant, &arrival.route.name);
        self.observer.observe(Fact::TooOld { tenant, route });
        Err(Refusal::KeyTooOld(made_at))
    }
}
