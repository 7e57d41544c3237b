//! The auditor: what left, what arrived, what it did, what was written and what was told, held
//! against the promises as it happens, and once more in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use onceward::core::breaker::Turn;
use onceward::core::id::OperationId;
use onceward::core::lease::Session;
use onceward::core::operation::{Deed, Fence, Operation, Outcome, Source, State};
use onceward::core::time::Timestamp;
use onceward::observe::{ClaimTurn, Fact};
use onceward::store::Store as _;
use onceward::upstream::Dispatch;
use onceward::{ClaimKey, LOOKUP};
use onceward_proof::chance::digest;

use crate::claims::{self, Claims, is_claim};
use crate::ledger::everything;
use crate::life::Life;
use crate::publishers::{Events, RECEIVER_WINDOW, is_delivery, is_event};
use crate::routes::{Kind, UPSTREAM_WINDOW};
use crate::world::World;

/// Violations that are kept: one is enough to fail, a few help to see why.
const VIOLATIONS_MAX: usize = 20;

/// A request as it left and arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) operation: String,
    pub(crate) attempt: u32,
    /// What the upstream dedupes by.
    pub(crate) key: String,
    /// Of everything else that has to be the same in every attempt.
    pub(crate) digest: u64,
    /// How long its receiver remembers the key.
    remembers: Duration,
}

impl Arrived {
    pub(crate) fn of(dispatch: &Dispatch) -> Self {
        let header = |name: &str| dispatch.headers.text(name).unwrap_or_default().to_owned();
        let request = &dispatch.request;
        let is_delivery = dispatch.headers.text("webhook-id").is_some();
        Self {
            remembers: if is_delivery { RECEIVER_WINDOW } else { UPSTREAM_WINDOW },
            operation: header("onceward-operation"),
            attempt: header("onceward-attempt").parse().unwrap_or_default(),
            key: header("idempotency-key"),
            digest: digest(&(
                &request.method,
                &request.target,
                request.headers.text("content-type"),
                &request.body[..],
            )),
        }
    }
}

/// What the auditor knows of one operation.
#[derive(Debug, Default)]
struct Known {
    /// Numbers of the attempts that left.
    left: BTreeSet<u32>,
    /// Of these, the ones that came back.
    returned: BTreeSet<u32>,
    /// Attempts of which it is clear what they did.
    clear: BTreeSet<u32>,
    arrivals: u64,
    /// Arrivals that may have been executed.
    maybe: u64,
    effects: u64,
    /// Requests that are under way, their attempt given up or not.
    on_their_way: u64,
    first: Option<(String, u64)>,
    /// The final answer that was told, and of which end.
    told: Option<(Option<Timestamp>, u64)>,
    acknowledged: bool,
}

/// Everything that is known of a world.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) violations: Vec<String>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) arrows: BTreeMap<(&'static str, &'static str), u64>,
    /// What callers heard and what became of keys, by kind.
    pub(crate) occasions: BTreeMap<&'static str, u64>,
    pub(crate) trace: u64,
    pub(crate) remembered: u64,
    known: BTreeMap<String, Known>,
    /// Who has a key now.
    owners: BTreeMap<(String, String, String), OperationId>,
    /// What the upstream that dedupes remembers: since when, and with which answer.
    memory: BTreeMap<String, (Timestamp, String)>,
    /// Whether all that a caller ever heard of a request was that it is not taken.
    only_refused: BTreeMap<String, bool>,
    /// Of those about one subject on a route: who has the turn, and the newest that was done.
    lines: BTreeMap<(String, String), (BTreeSet<OperationId>, Option<u64>)>,
    /// Operations that were removed after their time.
    removed: BTreeSet<String>,
    claims: Claims,
    pub(crate) events: Events,
    /// Attempts that came back to a living node.
    attempts: u64,
    /// Times that an operation came to rest by itself.
    rests: u64,
    /// The same three as the engines tell them.
    told_remembered: u64,
    told_attempts: u64,
    told_rests: u64,
    told_duplicates: u64,
}

fn word(state: State) -> &'static str {
    match state {
        State::Dead(death) => death.name(),
        state => state.name(),
    }
}

/// The arrows of the life of an operation, written down once more, apart from the core.
fn may_follow(from: State, to: State) -> bool {
    match (from.name(), to.name()) {
        // What has not been sent cannot be done; the dead have to be sent again first.
        ("pending" | "dead", to) => to != "done",
        // One attempt at a time; and out of doubt by evidence, never by sending.
        ("delivering" | "in_doubt", to) => to != "delivering",
        // Nothing leads out of it; a person may still say that the key is to be dropped.
        ("done", to) => to == "done",
        _ => false,
    }
}

fn is_at_rest(state: State) -> bool {
    matches!(state, State::Done | State::Dead(_) | State::InDoubt)
}

impl Audit {
    pub(crate) fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    fn perhaps(&mut self, wrong: Option<String>) {
        if let Some(what) = wrong {
            self.violation(what);
        }
    }

    pub(crate) fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    pub(crate) fn occasion(&mut self, name: &'static str) {
        *self.occasions.entry(name).or_default() += 1;
    }

    pub(crate) fn note(&mut self, what: &impl Hash) {
        self.trace = digest(&(self.trace, digest(what)));
    }

    pub(crate) fn arrivals(&self) -> u64 {
        self.known.values().map(|known| known.arrivals).sum()
    }

    fn of(&mut self, operation: &str) -> &mut Known {
        self.known.entry(operation.to_owned()).or_default()
    }

    /// A new operation was written; `old` gave its key up for it.
    pub(crate) fn born(&mut self, operation: &Operation, old: Option<&Operation>) {
        self.remembered += 1;
        self.note(&operation.id.to_string());
        *self.arrows.entry(("", word(operation.state))).or_default() += 1;
        if old.is_some() {
            self.occasion("key taken over");
        }
        if old.is_some_and(|old| !old.state.is_ended()) {
            self.violation(format!("{}: took the key of one that had not ended", operation.id));
        }
        if is_claim(operation) {
            let wrong = self.claims.written(None, operation);
            self.perhaps(wrong);
        }
        let scope = &operation.scope;
        let place = (scope.name.clone(), scope.principal.clone(), operation.key.to_string());
        let owner = self.owners.insert(place, operation.id);
        if owner.is_some_and(|owner| {
            old.is_none_or(|old| old.id != owner) && !self.removed.contains(&owner.to_string())
        }) {
            self.violation(format!("{}: a second operation with its key", operation.id));
        }
    }

    /// An operation was written.
    pub(crate) fn moved(&mut self, before: Option<&Operation>, after: &Operation) {
        let id = after.id;
        self.note(&(id.to_string(), word(after.state), after.attempts.len()));
        let Some(before) = before else {
            return self.violation(format!("{id}: written, and nobody had remembered it"));
        };
        *self.arrows.entry((word(before.state), word(after.state))).or_default() += 1;
        if before.fence.0 + 1 != after.fence.0 {
            self.violation(format!("{id}: fence {} after {}", after.fence.0, before.fence.0));
        }
        let is_claimed = is_claim(after);
        if is_claimed {
            let wrong = self.claims.written(Some(before), after);
            self.perhaps(wrong);
        }
        let may_follow = if is_claimed {
            claims::may_follow(before, after)
        } else {
            may_follow(before.state, after.state)
        };
        if !may_follow {
            let (from, to) = (before.state, after.state);
            self.violation(format!("{id}: went from {from:?} to {to:?}"));
        }
        let acted = after.acts.len() > before.acts.len();
        let end =
            |operation: &Operation| operation.attempts.last().and_then(|last| last.ended.clone());
        if before.state == State::InDoubt && !acted && before.looks == after.looks {
            if end(before) != end(after) {
                self.occasion("late evidence");
            } else if after.state != State::InDoubt {
                self.violation(format!("{id}: left its doubt without evidence"));
            }
        }
        if before.state == State::Done && before.outcome != after.outcome {
            self.violation(format!("{id}: its outcome changed"));
        }
        if before.upstream_key != after.upstream_key || before.effects != after.effects {
            self.violation(format!("{id}: what was frozen changed"));
        }
        if after.attempts.len() < before.attempts.len() {
            self.violation(format!("{id}: an attempt was lost"));
        }
        self.takes_its_turn(before, after);
        let moves = before.state != after.state;
        // A claim that is free again is not at its end.
        let is_free = is_claimed && matches!(after.state, State::Dead(_));
        self.rests += u64::from(moves && is_at_rest(after.state) && !acted && !is_free);
    }

    /// One at a time of those about one subject, and none after a newer one.
    fn takes_its_turn(&mut self, before: &Operation, after: &Operation) {
        let Some(subject) = &after.subject else { return };
        let line = (after.route.clone(), subject.name.clone());
        let (turns, newest) = self.lines.entry(line).or_default();
        let is_open = matches!(after.state, State::Pending { .. } | State::Delivering);
        if is_open && subject.is_first {
            turns.insert(after.id);
        } else {
            turns.remove(&after.id);
        }
        let starts = before.state != after.state && after.state == State::Delivering;
        let is_late = starts && subject.sequence.is_some() && subject.sequence < *newest;
        let is_done = after.state == State::Done && after.outcome.as_ref().is_some_and(|it| it.ok);
        if is_done {
            *newest = (*newest).max(subject.sequence);
        }
        let (turns, id) = (turns.len(), after.id);
        if turns > 1 {
            self.violation(format!("{id}: {turns} about one subject have the turn"));
        }
        if is_late {
            self.violation(format!("{id}: sent after a newer one was done"));
        }
        if before.state != after.state && subject.superseded_by.is_some() {
            self.occasion("superseded");
        }
    }

    /// The sweep went over the ledger.
    pub(crate) fn swept(&mut self, before: &[Operation], after: &[Operation], now: Timestamp) {
        for old in before {
            let left = after.iter().find(|operation| operation.id == old.id);
            let stripped = left.is_none_or(|left| left.request.is_none()) && old.request.is_some();
            let over = old.ended_at.is_some_and(|at| at.plus(old.window) <= now);
            if (stripped || left.is_none()) && !(old.state.is_ended() && over) {
                self.violation(format!("{}: forgotten before its time: {:?}", old.id, old.state));
            }
            if left.is_none() {
                self.removed.insert(old.id.to_string());
                self.occasion("removed");
            } else if stripped {
                self.occasion("forgotten by time");
            }
        }
    }

    /// A request leaves a node, whose ledger says `known` of its operation.
    pub(crate) fn leaves(&mut self, arrived: &Arrived, known: Option<&Operation>) {
        let Arrived { operation, attempt, .. } = arrived;
        self.note(&(operation, attempt));
        if known.is_none_or(|known| known.attempts_made() < *attempt) {
            self.violation(format!(
                "{operation}: attempt {attempt} left, and is not in the ledger"
            ));
        }
        if let Some(key) = known.and_then(deduped_by)
            && key != arrived.key
        {
            self.violation(format!("{operation}: left with another key"));
        }
        if !self.of(operation).left.insert(*attempt) {
            self.violation(format!("{operation}: attempt {attempt} left twice"));
        }
    }

    /// What came of an attempt is with its node.
    pub(crate) fn returned(&mut self, arrived: &Arrived, unsent: bool) {
        self.attempts += 1;
        let known = self.of(&arrived.operation);
        known.returned.insert(arrived.attempt);
        if unsent {
            known.clear.insert(arrived.attempt);
        }
    }

    /// The answer to this attempt says what it did.
    pub(crate) fn answers_clearly(&mut self, arrived: &Arrived) {
        self.of(&arrived.operation).clear.insert(arrived.attempt);
    }

    /// A request goes on although its attempt was given up.
    pub(crate) fn takes_off(&mut self, operation: &str) {
        self.of(operation).on_their_way += 1;
    }

    pub(crate) fn landed(&mut self, operation: &str) {
        self.of(operation).on_their_way -= 1;
    }

    /// A request arrives, and nothing is done.
    pub(crate) fn arrives(&mut self, arrived: &Arrived) {
        let this = (arrived.key.clone(), arrived.digest);
        let known = self.of(&arrived.operation);
        known.arrivals += 1;
        let first = known.first.get_or_insert_with(|| this.clone());
        if *first != this {
            self.violation(format!("{}: two arrivals differ in key or bytes", arrived.operation));
        }
    }

    /// What an upstream that dedupes answers from memory.
    pub(crate) fn known(&self, kind: Kind, arrived: &Arrived, now: Timestamp) -> Option<String> {
        let (since, answer) = self.memory.get(&arrived.key)?;
        let fresh = kind == Kind::Keyed && now < since.plus(arrived.remembers);
        fresh.then(|| answer.clone())
    }

    /// A request arrives and does what it asks for, or finds that it was done; tells the answer.
    pub(crate) fn lands(&mut self, kind: Kind, arrived: &Arrived, now: Timestamp) -> String {
        self.arrives(arrived);
        self.note(&("lands", &arrived.operation, now.as_micros()));
        self.of(&arrived.operation).maybe += 1;
        if let Some(answer) = self.known(kind, arrived, now) {
            return answer;
        }
        self.of(&arrived.operation).effects += 1;
        // No two effects have the same answer, so that a second one cannot hide.
        let nonce = digest(&(self.trace, &arrived.operation));
        let answer = format!("{{\"of\":\"{}\",\"nonce\":\"{nonce:016x}\"}}", arrived.operation);
        if kind == Kind::Keyed {
            self.memory.insert(arrived.key.clone(), (now, answer.clone()));
        }
        answer
    }

    /// How often an operation had its effect.
    pub(crate) fn effects_of(&self, operation: &str) -> u64 {
        self.known.get(operation).map_or(0, |known| known.effects)
    }

    /// An answer that may have been given after something was done, or not.
    pub(crate) fn may_have_done(&mut self, arrived: &Arrived) {
        self.of(&arrived.operation).maybe += 1;
    }

    /// Whether the truth about an operation in doubt can be known by looking at the upstream: then,
    /// whether it was done.
    pub(crate) fn truth(
        &self,
        operation: &Operation,
        is_dead: impl Fn(Session) -> bool,
    ) -> Option<bool> {
        if is_claim(operation) {
            return self.claims.truth(operation);
        }
        let known = self.known.get(&operation.id.to_string());
        let settled = operation.attempts.iter().all(|attempt| {
            is_dead(attempt.by) || known.is_some_and(|known| known.returned.contains(&attempt.n))
        });
        let on_their_way = known.map_or(0, |known| known.on_their_way);
        (settled && on_their_way == 0).then(|| {
            known.is_some_and(|known| known.effects > 0)
                || deduped_by(operation).is_some_and(|key| self.memory.contains_key(key))
        })
    }

    /// A caller asked, and heard that nothing was taken, or something else, or nothing.
    pub(crate) fn heard(&mut self, request: &str, not_taken: bool) {
        *self.only_refused.entry(request.to_owned()).or_insert(true) &= not_taken;
    }

    /// A caller was told of an operation: that it is taken, or how it ended.
    pub(crate) fn told(&mut self, operation: &Operation, answer: Option<u64>) {
        let id = operation.id;
        self.note(&(id.to_string(), answer));
        let known = self.of(&id.to_string());
        known.acknowledged = true;
        let Some(answer) = answer.filter(|_| operation.state == State::Done) else { return };
        let this = (operation.ended_at, answer);
        let first = *known.told.get_or_insert(this);
        if first != this {
            self.violation(format!("{id}: two different final answers"));
        }
    }

    pub(crate) fn observe(&mut self, fact: Fact<'_>) {
        match fact {
            Fact::Remembered(_) => self.told_remembered += 1,
            // An attempt of a worker's own arrives at no upstream, and neither does a fan-out.
            Fact::Attempted(operation, _) if is_claim(operation) || is_event(operation) => {}
            Fact::Attempted(..) => self.told_attempts += 1,
            Fact::Rested(_) => self.told_rests += 1,
            Fact::Duplicate(_, repeat) => {
                self.told_duplicates += 1;
                self.occasion(repeat.name());
            }
            Fact::Acted(operation) => self.occasion(match operation.acts.last() {
                Some(act) if act.who != LOOKUP => "a person acted",
                Some(act) if act.deed == Deed::ResolvedDone => "found by a lookup",
                _ => "not done by a lookup",
            }),
            Fact::Claimed(_, turn) => self.occasion(match turn {
                ClaimTurn::Begun => "a claim was begun",
                ClaimTurn::Done => "a claim was completed",
                ClaimTurn::Released => "a claim was given back",
                ClaimTurn::Lapsed => "a claim lapsed",
                ClaimTurn::Busy => "a claim was busy",
                ClaimTurn::Told => "a claim was done already",
                ClaimTurn::Stale => "an old fence was refused",
            }),
            Fact::Looked(..) => self.occasion("a doubt was looked for"),
            Fact::Suspected(..) => self.occasion("a request came under another key"),
            Fact::Orphaned(_) => self.occasion("what a node had in hand was judged"),
            Fact::TooOld { .. } => self.occasion("a key was too old by its own time"),
            Fact::Breaker(_, Turn::Opened(_)) => self.occasion("a breaker opened"),
            Fact::Breaker(_, Turn::Closed) => self.occasion("a breaker closed"),
            Fact::Paused(..) | Fact::Steered(..) => self.occasion("a route was paused or resumed"),
            Fact::Trouble(_) | Fact::Injected(..) | Fact::Reconciled(..) | Fact::Swept(_) => {}
        }
    }

    /// Whether the answer to every attempt was clear, so that a doubt would be a false one.
    fn is_clear(&self, operation: &Operation) -> bool {
        self.known.get(&operation.id.to_string()).is_some_and(|known| {
            operation.attempts.iter().all(|attempt| known.clear.contains(&attempt.n))
        })
    }

    /// A worker begins to be at a key, or ends.
    pub(crate) fn engaged(&mut self, which: &ClaimKey, change: i64) {
        self.claims.engaged(which, change);
    }

    /// A worker does what it has in hand; tells the outcome.
    pub(crate) fn claim_lands(&mut self, claim: &Operation, fence: Fence) -> String {
        self.note(&(claim.id.to_string(), fence.0));
        let (outcome, wrong) = self.claims.lands(claim, fence);
        self.perhaps(wrong);
        outcome
    }

    /// Somebody was told how a claim ended.
    pub(crate) fn claim_told(&mut self, claim: &Operation, outcome: Option<u64>) {
        self.note(&(claim.id.to_string(), outcome));
        self.of(&claim.id.to_string()).acknowledged = true;
        let wrong = self.claims.told(claim, outcome);
        self.perhaps(wrong);
    }

    fn reckon_one(&mut self, operation: &Operation, undisturbed: bool) {
        if is_claim(operation) {
            let wrong = self.claims.reckon(operation);
            return self.perhaps(wrong);
        }
        let id = operation.id.to_string();
        if is_event(operation) {
            if !is_at_rest(operation.state) {
                self.violation(format!("{id}: never fanned out: {:?}", operation.state));
            }
            return;
        }
        let kind = if is_delivery(operation) { Kind::Keyed } else { Kind::of(&operation.route) };
        let vouched = operation.acts.iter().filter(|act| act.deed == Deed::ResolvedNotSent).count();
        let clear = self.is_clear(operation);
        let known = self.of(&id);
        let (maybe, effects, arrivals) = (known.maybe, known.effects, known.arrivals);
        let left = known.left.len();
        if !is_at_rest(operation.state) {
            self.violation(format!("{id}: never came to rest: {:?}", operation.state));
        }
        if kind != Kind::Harmless && effects > 1 {
            self.violation(format!("{id}: {effects} effects at {}", kind.name()));
        }
        if kind == Kind::Once && maybe > 1 + vouched as u64 {
            self.violation(format!("{id}: {maybe} arrivals that may have been executed"));
        }
        // What is left of a forgotten one has no attempts any more.
        let stripped = operation.request.is_none();
        if !stripped && left > operation.attempts.len() {
            self.violation(format!(
                "{id}: {left} requests for {} attempts",
                operation.attempts.len()
            ));
        }
        if !stripped && undisturbed && left != operation.attempts.len() {
            self.violation(format!(
                "{id}: {left} requests for {} attempts",
                operation.attempts.len()
            ));
        }
        if operation.state == State::InDoubt && clear && undisturbed {
            self.violation(format!("{id}: in doubt, and everything was clear"));
        }
        if let (State::Done, Some(Outcome { ok: true, source, .. })) =
            (operation.state, &operation.outcome)
            && *source != Source::Person
        {
            let by_key = deduped_by(operation);
            let done = match kind {
                Kind::Once => effects == 1,
                Kind::Keyed => by_key.is_some_and(|key| self.memory.contains_key(key)),
                Kind::Harmless => arrivals > 0,
            };
            if !done {
                self.violation(format!("{id}: done, and nothing was done"));
            }
        }
    }
}

/// The key by which its upstream dedupes what an operation sends: a receiver of events tells two
/// subscriptions to one event apart.
fn deduped_by(operation: &Operation) -> Option<&str> {
    if is_delivery(operation) {
        return Some(operation.key.as_str());
    }
    operation.upstream_key.as_ref().map(|key| key.value.as_str())
}

/// The operations that are not at rest, sought past every fault.
pub(crate) async fn open_operations(world: &World) -> Vec<Operation> {
    let mut all = everything(world).await;
    all.retain(|operation| !is_at_rest(operation.state));
    all
}

/// The reckoning: the ledger, the upstreams and the callers held against each other.
pub(crate) async fn reckon(world: &World, lives: &[(Session, Arc<Life>)], rests: bool) {
    let operations = everything(world).await;
    let disturbed: BTreeSet<Session> = lives
        .iter()
        .filter(|(_, life)| life.was_disturbed())
        .map(|(session, _)| *session)
        .collect();
    let mut duplicates = 0;
    for operation in &operations {
        duplicates += world.store.asked(operation.id).await.map_or(0, |asked| asked.count);
    }
    let mut audit = world.audit();
    if !rests {
        audit.violation("the world never came to rest".to_owned());
    }
    for operation in &operations {
        let undisturbed = operation.attempts.iter().all(|attempt| !disturbed.contains(&attempt.by));
        audit.reckon_one(operation, undisturbed);
    }
    for operation in &operations {
        let request = operation.label.as_deref().unwrap_or_default();
        if audit.only_refused.get(request).is_some_and(|only| *only) {
            audit.violation(format!("{}: its caller was only ever refused", operation.id));
        }
    }
    for wrong in audit.events.reckon(&operations) {
        audit.violation(wrong);
    }
    let there: BTreeSet<String> =
        operations.iter().map(|operation| operation.id.to_string()).collect();
    let lost: Vec<String> = audit
        .known
        .iter()
        .filter(|(id, known)| {
            known.acknowledged && !there.contains(*id) && !audit.removed.contains(*id)
        })
        .map(|(id, _)| format!("{id}: acknowledged, and lost"))
        .collect();
    for lost in lost {
        audit.violation(lost);
    }
    if world.plan.faults.spares_nodes() {
        let counts = [
            ("remembered", audit.remembered, audit.told_remembered),
            ("attempts", audit.attempts, audit.told_attempts),
            ("rested", audit.rests, audit.told_rests),
        ];
        for (name, counted, told) in counts {
            if counted != told {
                audit.violation(format!("{name}: {counted} counted, {told} told"));
            }
        }
        if audit.removed.is_empty() && duplicates != audit.told_duplicates {
            let told = audit.told_duplicates;
            audit.violation(format!("duplicates: {duplicates} kept, {told} told"));
        }
    }
}
