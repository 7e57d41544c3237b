//! A saga moves on: one write of it, or of the step at hand, after the other, until it waits for something.
//! Any number of processes may do so at once: fences and keys let one of them through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::exchange::Response;
use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::operation::{Act, Deed, Event, Operation, State};
use onceward_core::policy::Mode;
use onceward_core::saga::{
    Course, Leg, Next, Place, Progress, SagaEvent, Seen, Standing as Stands, Variable, is_kept,
    is_shallow, is_stand_in, read_kept,
};
use onceward_core::time::Timestamp;
use serde_json::{Value, json};

use super::birth::{STEP_WINDOW, Unmade, WHO};
use super::{Kept, Saga, digest_of};
use crate::engine::Engine;
use crate::observe::Fact;
use crate::replay::replay;
use crate::sabotage::Sabotage;
use crate::store::{
    Query, Remembered, Slot, Standing, StoreError, Which, digest_of as digest_of_operation,
};
use crate::tenants::Share;

/// Moves of one saga in a row, at most: a step is a few of them. What is left is found with the next look.
const MOVES_MAX: usize = 1000;

/// How often the open sagas are looked through, for those whose process died between two writes.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// When a node last began to look, and which, where several share a ledger: the others leave it at that.
const LOOKED: &str = "sagas-looked";

/// For how long a look of another node is enough, and for how long one of this node's own: where there are
/// others, the next is theirs. Each looks by itself all the same, as often as it would if they took it in turns:
/// it alone may have the route that a step waits for.
const OTHERS_IS_ENOUGH: Duration = Duration::from_secs(30);
const OWN_IS_ENOUGH: Duration = Duration::from_secs(90);

/// So long after its turn came, what is not in the ledger was not begun until now: it would be there still.
const NOT_BORN_AFTER: Duration = Duration::from_hours(24);

/// Sagas on one page of a look, and how long it rests behind each.
const PAGE: usize = 100;
const PAGE_PAUSE: Duration = Duration::from_millis(100);

/// The largest value that is taken of an answer, and all of a saga's together, in bytes of JSON.
const VALUE_BYTES_MAX: usize = 64 << 10;
const VALUES_BYTES_MAX: usize = 256 << 10;

/// Moves on the sagas that are open, for ever.
pub(crate) async fn look_for_open(engine: Arc<Engine>) {
    // When it looked last. Whoever starts looks at once: it may be in the place of one that died.
    let mut own = None;
    while !engine.is_halted() {
        let looked = engine.advance_open(&mut own).await;
        // What is full or away now is looked at again.
        if looked.is_err_and(|error| !engine.goes_on_after(&error)) {
            return;
        }
        engine.clock.sleep_until(engine.clock.now().plus(LOOK_EVERY)).await;
    }
}

/// Lets each saga go on whose turn of its tenant's rate came, for ever.
pub(crate) async fn take_turns(engine: Arc<Engine>) {
    while !engine.is_halted() {
        while let Some(id) = engine.saga_turns.due(engine.clock.now()) {
            engine.advance_saga_or_leave_it(id).await;
        }
        let first = async {
            match engine.saga_turns.first() {
                Some(at) => engine.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = first => {}
            () = engine.saga_turns.earlier() => {}
        }
    }
}

/// Whether a node that is one of so many and looked last at `own` looks now, whatever the others did.
fn is_due(own: Option<Timestamp>, nodes: u32, now: Timestamp) -> bool {
    // What is in the future is of a clock that was set back.
    own.is_none_or(|at| at > now || at.plus(LOOK_EVERY * nodes) <= now)
}

/// Whether the `last` look, which says when and whose it was, is enough for `node`.
fn is_enough(last: &[u8], node: [u8; 8], is_alone: bool, now: Timestamp) -> bool {
    let Some((at, whose)) = last.split_first_chunk() else { return false };
    let at = Timestamp::from_micros(i64::from_be_bytes(*at));
    let is_own = whose == node && !is_alone;
    let span = if is_own { OWN_IS_ENOUGH } else { OTHERS_IS_ENOUGH };
    // What is in the future is the time of a clock that goes wrong.
    at <= now && now < at.plus(span)
}

/// What became of one move.
enum Moved {
    /// It may move again.
    On,
    /// It waits for something.
    Rests,
}

impl Engine {
    /// Whether this node, which looked last at `own`, has to look. One that dies over it has another's follow
    /// with the next.
    async fn may_look(&self, own: Option<Timestamp>) -> Result<bool, StoreError> {
        if !self.store.is_shared() || own.is_none() {
            return Ok(true);
        }
        let (now, last) = (self.clock.now(), self.store.setting(LOOKED.to_owned()).await?);
        let node = self.session.0.to_be_bytes();
        let nodes = self.store.nodes().await?;
        let is_due = is_due(own, nodes, now);
        if !is_due && last.as_deref().is_some_and(|last| is_enough(last, node, nodes <= 1, now)) {
            return Ok(false);
        }
        let look = Bytes::from([now.as_micros().to_be_bytes(), node].concat());
        Ok(self.store.swap(LOOKED.to_owned(), last, Some(look)).await? || is_due)
    }

    async fn advance_open(self: &Arc<Self>, own: &mut Option<Timestamp>) -> Result<(), StoreError> {
        let now = self.clock.now();
        if !self.may_look(*own).await? {
            return Ok(());
        }
        *own = Some(now);
        let mut query = Query {
            standing: vec![Standing::Delivering],
            kind: Some(ScopeKind::Saga),
            limit: PAGE,
            ..Query::default()
        };
        loop {
            let page = self.store.list(query.clone()).await?;
            for saga in &page.operations {
                // One that cannot move now holds none of the others.
                if let Err(error) = self.advance_saga(saga.id).await
                    && !self.goes_on_after(&error)
                {
                    return Err(error);
                }
            }
            if page.next.is_none() {
                return Ok(());
            }
            query.before = page.next;
            self.clock.sleep_until(self.clock.now().plus(PAGE_PAUSE)).await;
        }
    }

    /// Lets a saga move on, beside whoever asks for it.
    pub(super) fn spawn_saga(self: &Arc<Self>, id: OperationId) {
        let engine = Arc::clone(self);
        self.go_on_with(async move { engine.advance_saga_or_leave_it(id).await });
    }

    /// Moves the saga of `step` on. What does not work now is done with the next look.
    pub(crate) async fn advance_saga_of(&self, step: &Operation) {
        if let Some(saga) = step.parent {
            self.advance_saga_or_leave_it(saga).await;
        }
    }

    async fn advance_saga_or_leave_it(&self, id: OperationId) {
        if let Err(error) = self.advance_saga(id).await {
            self.goes_on_after(&error);
        }
    }

    async fn advance_saga(&self, id: OperationId) -> Result<(), StoreError> {
        for _ in 0..MOVES_MAX {
            let Some(found) = self.store.find(Which::Id(id)).await? else { return Ok(()) };
            if found.scope.kind != ScopeKind::Saga || found.state != State::Delivering {
                return Ok(());
            }
            let saga = self.saga_of(found).await?;
            let Some(kept) = &saga.kept else { return Ok(()) };
            if let Moved::Rests = self.move_saga(&saga, kept).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One move.
    async fn move_saga(&self, saga: &Saga, kept: &Kept) -> Result<Moved, StoreError> {
        let at = kept.progress.at;
        let digest = at.and_then(|place| digest_of(&saga.operation, &kept.definition, place));
        // Of before the look: what is born meanwhile is born later.
        let now = self.clock.now();
        let step = match digest {
            Some(digest) => self.store.find(Which::Key(digest)).await?,
            None => None,
        };
        let made = match at.filter(|_| step.is_none()) {
            Some(place) => Some(self.make_step(&saga.operation, kept, place).await),
            None => None,
        };
        let can_be_made = !matches!(made, Some(Err(Unmade::Never(_))));
        let mut taken = Taken::default();
        // One that ended is kept for so long: what is at hand for longer may have been done and forgotten.
        let may_be_gone = kept.at_since.is_some_and(|since| since.plus(STEP_WINDOW) <= now);
        // What was born since its turn came would be there still: it was not, whatever it waits for. Of a ledger
        // that was restored nobody can say so.
        let was_not_born =
            !kept.is_held && kept.at_since.is_some_and(|since| since.plus(NOT_BORN_AFTER) <= now);
        if step.is_none() && was_not_born && !may_be_gone && saga.standing() != Stands::Stuck {
            let next = Kept { at_since: Some(now), ..kept.clone() };
            self.write_saga(saga, &next, false).await?;
            return Ok(Moved::On);
        }
        let seen = match (&step, at) {
            (Some(step), Some(place)) => {
                let seen = Seen::of(step);
                if let (Seen::Done { .. }, false) = (seen, place.undo) {
                    taken = self.take_values(kept, place, step).await?;
                }
                match seen {
                    Seen::Done { .. } => Seen::Done { lacks: taken.lacks.is_some() },
                    Seen::Waits | Seen::UnderWay if !place.undo && Sabotage::StepEarly.is_on() => {
                        Seen::Done { lacks: false }
                    }
                    Seen::Failed { maybe_done: false, .. }
                        if !place.undo && Sabotage::NotDoneUndone.is_on() =>
                    {
                        Seen::Done { lacks: true }
                    }
                    // What was given up, or refused for a second time, may have been done since the backup.
                    Seen::Failed { maybe_done: false, retries }
                        if kept.is_held && !is_stand_in(step) =>
                    {
                        Seen::Failed { maybe_done: true, retries }
                    }
                    seen => seen,
                }
            }
            _ if may_be_gone => Seen::Failed { maybe_done: true, retries: u32::MAX },
            _ => Seen::Absent { can_be_made },
        };
        let next = kept.definition.plan().next(&kept.progress, at.map(|_| seen));
        match (next, step) {
            (Next::Write(progress), step) => {
                let why = why(kept, &progress, step.as_ref(), taken.lacks);
                let mut next = Kept { progress, why, ..kept.clone() };
                next.values.extend(taken.values);
                self.write_saga(saga, &next, false).await?;
            }
            (Next::Bear(place), _) => {
                let waits_for = match &made {
                    Some(Err(Unmade::NoRoute(route))) => Some(route.clone()),
                    _ => None,
                };
                if kept.waits_for != waits_for {
                    let next = Kept { waits_for, ..kept.clone() };
                    self.write_saga(saga, &next, false).await?;
                    return Ok(Moved::On);
                }
                let Some(Ok(made)) = made else { return Ok(Moved::Rests) };
                let mut share = match self.await_turn(saga, kept, now).await? {
                    Ok(share) => share,
                    Err(moved) => return Ok(moved),
                };
                let born = self.bear_step(&saga.operation, made, now).await?;
                if let (Remembered::Fresh(_), Some(share)) = (&born, &mut share) {
                    share.spend();
                }
                if let Remembered::Known(twin) = born
                    && digest != Some(digest_of_operation(&twin))
                {
                    let why = format!("its route has one effect of it and of {}", twin.id);
                    return self.bear_dead(saga, kept, place, why).await;
                }
            }
            (Next::BearDead(place), _) => {
                let why = match made {
                    Some(Err(Unmade::Never(why))) => format!("it cannot be made: {why}"),
                    _ => "its saga was cancelled before it began".to_owned(),
                };
                return self.bear_dead(saga, kept, place, why).await;
            }
            (Next::GiveUp(_), Some(step)) => {
                let reason = "its saga unwinds".to_owned();
                let act = Act { deed: Deed::Cancelled, at: now, who: WHO.to_owned(), reason };
                self.act_on_step(&step, Event::Acted(act, None, None)).await?;
            }
            (Next::Revive(_), Some(step)) => {
                let retried = kept.deeds.iter().rev().find(|deed| deed.deed == "retried");
                let (who, reason) = retried.map_or_else(
                    || (WHO.to_owned(), "its saga is retried".to_owned()),
                    |deed| (deed.who.clone(), deed.reason.clone()),
                );
                let act = Act { deed: Deed::Redelivered, at: now, who, reason };
                let event = Event::Revived { due: now, mode: Mode::Accepted, act: Some(act) };
                self.act_on_step(&step, event).await?;
            }
            (Next::GiveUp(_) | Next::Revive(_) | Next::Rest, _) => return Ok(Moved::Rests),
        }
        Ok(Moved::On)
    }

    /// The turn of its tenant's rate that what is at hand takes now, where it takes one; or that it waits for
    /// one. It is no operation before that, so that a pause or a cancel holds it as all that is not begun.
    async fn await_turn(
        &self,
        saga: &Saga,
        kept: &Kept,
        now: Timestamp,
    ) -> Result<Result<Option<Share>, Moved>, StoreError> {
        if let Some(turn) = kept.turn {
            if turn <= now {
                return Ok(Ok(None));
            }
            self.saga_turns.note(turn, saga.operation.id);
            return Ok(Err(Moved::Rests));
        }
        let turn = self.tenants.turn(&saga.operation.scope.tenant, now);
        let Some((turn, mut share)) = turn else { return Ok(Ok(None)) };
        if turn <= now {
            return Ok(Ok(Some(share)));
        }
        let next = Kept { turn: Some(turn), ..kept.clone() };
        if self.write_saga(saga, &next, false).await?.is_some() {
            share.spend();
        }
        Ok(Err(Moved::On))
    }

    /// Has a dead one stand in the place of a step that is not to be.
    async fn bear_dead(
        &self,
        saga: &Saga,
        kept: &Kept,
        place: Place,
        why: String,
    ) -> Result<Moved, StoreError> {
        let now = self.clock.now();
        let dead = self.birth_of_dead_step(&saga.operation, kept, place, why, now);
        let Some(dead) = dead else { return Ok(Moved::Rests) };
        if let Remembered::Fresh(step) = self.write_birth(Box::new(dead)).await? {
            self.rested(&step);
        }
        Ok(Moved::On)
    }

    /// Writes how far a saga came, where nobody else did so meanwhile; `visible` where a person did it.
    pub(super) async fn write_saga(
        &self,
        saga: &Saga,
        kept: &Kept,
        visible: bool,
    ) -> Result<Option<Operation>, StoreError> {
        let (standing, before) = (kept.progress.standing, saga.standing());
        let was_at = saga.kept.as_ref().and_then(|kept| kept.progress.at);
        let mut kept = kept.clone();
        if kept.progress.at != was_at {
            kept.at_since = kept.progress.at.map(|_| self.clock.now());
            (kept.waits_for, kept.turn) = (None, None);
        }
        let saga = &saga.operation;
        let event = if standing.is_ended() {
            // Behind its pivot a person may have left a step out.
            let all_done = kept.progress.legs.iter().all(|leg| *leg == Leg::Done);
            SagaEvent::Ended { ok: standing == Stands::Done && all_done }
        } else {
            SagaEvent::Moved
        };
        let decided = saga.after(Event::Saga(event), self.clock.now());
        let request = self.request_of_saga(saga, &kept);
        let written = self.write(decided, Some((Slot::Request, request)), visible).await?;
        if let Some(saga) = &written {
            self.observer.observe(Fact::Saga(saga, (standing != before).then_some(standing)));
            if saga.state.is_ended() {
                self.rested(saga);
            }
        }
        Ok(written)
    }

    async fn act_on_step(&self, step: &Operation, event: Event) -> Result<(), StoreError> {
        let decided = step.after(event, self.clock.now());
        if let Some(acted) = self.write(decided, None, true).await? {
            self.observer.observe(Fact::Acted(&acted));
            self.waiters.wake(acted.id);
        }
        Ok(())
    }

    /// What later steps and compensations take of the answer to `step`.
    async fn take_values(
        &self,
        kept: &Kept,
        place: Place,
        step: &Operation,
    ) -> Result<Taken, StoreError> {
        let (needed, by_last_undo) = kept.definition.taken_of(place.step);
        let all: BTreeSet<&Variable> = needed.iter().chain(&by_last_undo).collect();
        let mut taken = Taken::default();
        if all.is_empty() {
            return Ok(taken);
        }
        let response = replay(&*self.store, step, &self.secrets).await?;
        let body = response.as_ref().and_then(|it| read_kept(&it.body));
        let mut room = VALUES_BYTES_MAX.saturating_sub(json!(kept.values).to_string().len());
        for variable in all {
            let value = value_of(variable, step, response.as_ref(), body.as_ref());
            let value = value
                .filter(|value| is_shallow(value) && is_kept(value))
                .map(|value| (value.to_string().len(), value));
            match value.filter(|(length, _)| *length <= VALUE_BYTES_MAX.min(room)) {
                Some((length, value)) => {
                    room -= length;
                    taken.values.insert(variable.to_string(), value);
                }
                None if needed.contains(variable) => {
                    taken.lacks.get_or_insert_with(|| variable.to_string());
                }
                // Only a cancel that comes in between lets the last step be undone.
                None => {}
            }
        }
        Ok(taken)
    }
}

/// What was taken of an answer, and what is not in it although the saga does not go forward without it.
#[derive(Default)]
struct Taken {
    values: BTreeMap<String, Value>,
    lacks: Option<String>,
}

fn value_of(
    variable: &Variable,
    step: &Operation,
    response: Option<&Response>,
    body: Option<&Value>,
) -> Option<Value> {
    match variable {
        Variable::Status(_) => step.outcome.as_ref()?.status.map(Value::from),
        Variable::Header(_, name) => response?.headers.text(name).map(Value::from),
        Variable::Body(_, pointer) => body?.pointer(pointer).cloned(),
        Variable::Open | Variable::SagaId | Variable::SagaKey | Variable::Input(_) => None,
    }
}

/// Why a saga does not go forward from now on, in words for a person.
fn why(
    kept: &Kept,
    next: &Progress,
    step: Option<&Operation>,
    lacks: Option<String>,
) -> Option<String> {
    let before = &kept.progress;
    let turned = next.course == Course::Unwinding && before.course == Course::Forward;
    let failed = before.at.is_some_and(|place| next.legs.get(place.step) == Some(&Leg::NotDone));
    match next.standing {
        Stands::Stuck | Stands::InDoubt => {}
        _ if turned || failed && before.course == Course::Forward => {}
        // A cancel that came too late, or what was stuck and is not any more.
        _ if next.course == Course::Forward => return None,
        _ => return kept.why.clone(),
    }
    let place = before.at?;
    let name = kept.definition.steps.get(place.step).map(|step| step.name.as_str())?;
    let what = if place.undo { "the compensation of" } else { "the step" };
    let how = match (lacks, step) {
        (Some(lacks), _) => {
            format!("its answer has no {{{{{lacks}}}}}, which a later step or a compensation takes")
        }
        (None, Some(step)) => how_it_ended(step),
        (None, None) => {
            "it is not in the ledger any more, and may have been done before it went".to_owned()
        }
    };
    Some(format!("{what} {name}: {how}"))
}

fn how_it_ended(step: &Operation) -> String {
    let said = step.acts.last().filter(|act| act.deed == Deed::Cancelled);
    if let (State::Dead(_), Some(act)) = (step.state, said) {
        return act.reason.clone();
    }
    let what = match step.state {
        State::InDoubt => "nobody knows whether it was done",
        State::Dead(death) => death.name(),
        state => state.name(),
    };
    match (step.last_status(), step.last_error()) {
        (Some(status), _) => format!("{what}, status {status}"),
        (None, Some(error)) => format!("{what}, {error}"),
        (None, None) => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: i64, node: u8) -> Vec<u8> {
        [at.to_be_bytes(), [node; 8]].concat()
    }

    /// Who looks when, in seconds, of nodes that wake each minute, each so long after the first.
    fn looks(apart: &[i64], minutes: i64) -> Vec<(u8, i64)> {
        let nodes = apart.len() as u32;
        let (mut last, mut looks) = (Vec::new(), Vec::new());
        let mut own: Vec<_> =
            apart.iter().map(|at| Timestamp::from_micros(at * 1_000_000)).collect();
        for minute in 1..=minutes {
            for ((apart, own), node) in apart.iter().zip(&mut own).zip(0..) {
                let seconds = minute * 60 + apart;
                let now = Timestamp::from_micros(seconds * 1_000_000);
                let is_due = is_due(Some(*own), nodes, now);
                if is_due || !is_enough(&last, [node; 8], false, now) {
                    (last, *own) = (look(now.as_micros(), node), now);
                    looks.push((node, seconds));
                }
            }
        }
        looks
    }

    #[test]
    fn two_nodes_take_turns_at_looking_and_one_that_is_alone_looks_each_time() {
        for apart in [0, 1, 20, 29] {
            let who: Vec<u8> = looks(&[0, apart], 6).iter().map(|(node, _)| *node).collect();
            assert_eq!(who, [0, 1, 0, 1, 0, 1], "{apart} s apart");
        }
        let minute = Timestamp::from_micros(60_000_000);
        assert!(!is_enough(&look(0, 7), [7; 8], true, minute));
        assert!(!is_enough(&look(90_000_000, 8), [7; 8], false, minute), "of a clock ahead");
        assert!(is_due(Some(minute.plus(LOOK_EVERY)), 3, minute), "of a clock that was set back");
    }

    #[test]
    fn of_several_nodes_each_looks_at_least_once_in_as_many_minutes() {
        for apart in [&[0, 20, 25][..], &[0, 0, 0], &[0, 31, 59], &[0, 5, 10, 15, 20, 25]] {
            let looks = looks(apart, 120);
            for node in 0..apart.len() as u8 {
                let own = looks.iter().filter(|(who, _)| *who == node);
                let at: Vec<i64> = own.map(|(_, at)| *at).collect();
                let longest = at.windows(2).map(|two| two[1] - two[0]).max();
                let bound = 60 * apart.len() as i64;
                assert!(longest.is_some_and(|it| it <= bound), "{node} of {apart:?}: {longest:?}");
            }
        }
    }
}
