//! What stands before each upstream: send slots, a rate, a breaker, what it asked for itself, and a
//! person's pause. A gate holds work back and never discards any. It is this node's own: only a
//! pause holds for all nodes, and a rate is shared by them.

mod inside;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use onceward_core::breaker::{Sign, Turn};
use onceward_core::rate::{Budget, Ramp};
use onceward_core::time::Timestamp;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

use self::inside::Inner;
use crate::route::Protection;
use crate::store::{Backlog, Lane};
use crate::tenants::Presence;

/// Callers that wait at one gate, at most.
const WAITING_MAX: usize = 4096;

/// Gates of upstreams that are not asked any more are forgotten past this many.
const GATES_MAX: usize = 1024;

/// Why nothing may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// A person paused the route.
    Paused,
    /// The breaker is open.
    BreakerOpen,
    /// The upstream asked to be left alone.
    UpstreamAsked,
    /// Attempts of this second are used up.
    Rate,
    /// As many calls are under way as may be.
    Slots,
    /// The route sends at other hours.
    OutsideHours,
}

impl Bar {
    /// The word for it in answers and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::BreakerOpen => "breaker",
            Self::UpstreamAsked => "upstream",
            Self::Rate => "rate",
            Self::Slots => "slots",
            Self::OutsideHours => "hours",
        }
    }
}

/// Nothing may go now: why, and until when, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Barred {
    pub(crate) why: Bar,
    pub(crate) until: Option<Timestamp>,
    /// Whether the breaker waits for a probe that this is too dangerous to be.
    pub(crate) wants_probe: bool,
}

impl Barred {
    pub(crate) fn by(why: Bar, until: Option<Timestamp>) -> Self {
        Self { why, until, wants_probe: false }
    }
}

/// Who wants to go.
#[derive(Debug, Clone)]
pub(crate) struct Entrant {
    pub(crate) lane: Arc<Lane>,
    /// Whether a second arrival does no harm, so that it may be a probe.
    pub(crate) is_harmless: bool,
    /// Whether it has waited in the ledger: then it goes slowly after a hold.
    pub(crate) is_backlog: bool,
}

type ByRoute = BTreeMap<Arc<str>, Arc<Gate>>;

/// The gates of all upstreams.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    /// Every call looks here, and hardly any changes it: it is replaced whole.
    by_route: ArcSwap<ByRoute>,
    /// Wakes the dispatcher where something may go again.
    opened: Arc<Notify>,
    /// How many nodes there are beside this one: a rate is for all of them. Whoever changes the gates
    /// holds it.
    others: Mutex<u32>,
}

/// The gate of one upstream.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    opened: Arc<Notify>,
    /// Wakes who waits for what probes come to.
    probed: Notify,
}

/// How a gate stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Closed, open or half-open.
    pub breaker: &'static str,
    /// Until when nothing goes, where that is known.
    pub until: Option<Timestamp>,
    /// Why nothing goes now, where nothing does.
    pub bar: Option<Bar>,
    /// Calls under way.
    pub busy: usize,
    /// Callers that wait for a slot.
    pub waiting: usize,
    /// What the last probe came to that was sent for its own sake.
    pub probed: Option<Probed>,
}

/// What a probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// When it ended.
    pub at: Timestamp,
    /// The status that it was answered with.
    pub status: Option<u16>,
    /// What went wrong, where no answer came: in words for a person.
    pub error: Option<String>,
}

/// A right to have one call under way. Dropping it frees it; what it took of a rate is given back
/// where it was not used.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Nothing once it is given up.
    gate: Option<Arc<Gate>>,
    lane: Arc<Lane>,
    /// When its next attempt may be made, once that is known.
    turn: Option<Timestamp>,
    is_backlog: bool,
    is_used: bool,
    is_probe: bool,
    /// The place of whose call it is.
    presence: Option<Box<Presence>>,
    /// That of the route by whose upstream its own goes.
    beyond: Option<Box<(String, Slot)>>,
}

impl Slot {
    /// Keeps the place of its tenant's for as long as it is kept.
    pub(crate) fn attend(&mut self, presence: Option<Box<Presence>>) {
        if presence.is_some() {
            self.presence = presence;
        }
    }

    /// Whether what is sent with it decides whether the breaker closes.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The gate that it is of.
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }

    /// An attempt is made with it.
    pub(crate) fn spend(&mut self) {
        self.is_used = true;
        if let Some(beyond) = self.beyond() {
            beyond.spend();
        }
    }

    /// Keeps a slot of the gate of another `route` for as long as it is kept.
    pub(crate) fn keep_beyond(&mut self, route: String, beyond: Slot) {
        self.beyond = Some(Box::new((route, beyond)));
    }

    /// The route whose slot it keeps.
    pub(crate) fn beyond_of(&self) -> Option<&str> {
        self.beyond.as_ref().map(|beyond| beyond.0.as_str())
    }

    /// The slot of the other gate.
    pub(crate) fn beyond(&mut self) -> Option<&mut Slot> {
        self.beyond.as_mut().map(|beyond| &mut beyond.1)
    }

    /// Gives it up, with what its last attempt says of the upstream; tells what moved.
    pub(crate) fn leave(
        mut self,
        sign: Sign,
        asked: Option<Duration>,
        now: Timestamp,
    ) -> Option<Turn> {
        let gate = self.gate.take()?;
        let mut inner = gate.inner();
        let turn = inner.learn(&mut self, sign, asked, now);
        gate.let_out(inner, &self);
        turn
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.let_out(gate.inner(), self);
        }
    }
}

impl Gates {
    /// The gate of an upstream; one that is made now is told what its route says of it, and whether
    /// that is paused.
    pub(crate) fn of(
        &self,
        route: &str,
        says: impl FnOnce() -> (Protection, bool),
        now: impl FnOnce() -> Timestamp,
    ) -> Arc<Gate> {
        if let Some(gate) = self.by_route.load().get(route) {
            return Arc::clone(gate);
        }
        let others = self.changing();
        let mut gates = (**self.by_route.load()).clone();
        // Somebody else may have made it meanwhile.
        if let Some(gate) = gates.get(route) {
            return Arc::clone(gate);
        }
        if gates.len() >= GATES_MAX {
            let now = now();
            gates.retain(|_, gate| !gate.is_idle(now));
        }
        let (protection, is_paused) = says();
        let inner = Inner { protection, others: *others, is_paused, ..Inner::default() };
        let (opened, probed) = (Arc::clone(&self.opened), Notify::new());
        let gate = Arc::new(Gate { inner: Mutex::new(inner), opened, probed });
        gates.insert(route.into(), Arc::clone(&gate));
        self.by_route.store(Arc::new(gates));
        gate
    }

    /// The routes have changed: from now on each gate is as its route says.
    pub(crate) fn fit(&self, says: impl Fn(&str) -> Option<Protection>) {
        let _others = self.changing();
        for (route, gate) in &**self.by_route.load() {
            if let Some(protection) = says(route) {
                gate.fit(protection);
            }
        }
    }

    /// From now on a rate is for so many nodes, and this one has its share of it.
    pub(crate) fn share_with(&self, nodes: u32) {
        let mut others = self.changing();
        *others = nodes.saturating_sub(1);
        for gate in self.by_route.load().values() {
            gate.inner().others = *others;
        }
    }

    fn changing(&self) -> MutexGuard<'_, u32> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes where something may go again: a hint.
    pub(crate) fn opened(&self) -> Arc<Notify> {
        Arc::clone(&self.opened)
    }
}

impl Gate {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fit(self: &Arc<Self>, protection: Protection) {
        self.inner().protection = protection;
        self.hand_over();
    }

    /// Frees a slot, and wakes whom that may concern.
    fn let_out(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>, slot: &Slot) {
        inner.leave(slot);
        let is_awaited = !inner.awaited.is_empty();
        let holds_backlog = std::mem::take(&mut inner.holds_backlog);
        drop(inner);
        if is_awaited {
            self.hand_over();
        }
        if holds_backlog {
            self.opened.notify_one();
        }
    }

    /// Whether a new one in its place would hold nothing back that this one does.
    fn is_idle(&self, now: Timestamp) -> bool {
        let inner = self.inner();
        inner.busy == 0
            && inner.awaited.is_empty()
            && !inner.is_paused
            && inner.breaker.is_closed()
            && inner.held_until.is_none_or(|until| until <= now)
            && inner.ramp.is_none_or(|ramp| ramp.is_over(now))
            && inner.meter.is_rested(now)
    }

    /// A slot for what can go at once.
    pub(crate) fn try_enter(
        self: &Arc<Self>,
        entrant: &Entrant,
        now: Timestamp,
    ) -> Result<Slot, Barred> {
        let mut inner = self.inner();
        let entered = inner.enter(self, entrant, now);
        inner.holds_backlog |= entrant.is_backlog && entered.is_err();
        entered
    }

    /// A place in the queue of a lane, where only slots are missing; else what is in the way.
    pub(crate) fn queue(
        self: &Arc<Self>,
        entrant: &Entrant,
        now: Timestamp,
    ) -> Result<oneshot::Receiver<Slot>, Barred> {
        let mut inner = self.inner();
        inner.bar(entrant, now)?;
        if inner.waiting() >= WAITING_MAX {
            return Err(Barred::by(Bar::Slots, None));
        }
        // Whoever waits for the turn of its flow keeps no slot from others meanwhile.
        let turn = inner.turn_of_flow(&entrant.lane, now);
        if turn > now {
            return Err(Barred::by(Bar::Rate, Some(turn)));
        }
        inner.forget_lanes(now);
        inner.awaited.insert((*entrant.lane).clone());
        let (give, given) = oneshot::channel();
        let places = inner.lanes.entry((*entrant.lane).clone()).or_default();
        places.waiting.retain(|waiting| !waiting.is_closed());
        places.waiting.push_back(give);
        drop(inner);
        // A slot may have become free since it was looked for.
        self.hand_over();
        Ok(given)
    }

    /// Whether the holder of a slot may make an attempt, and when by the rate: not later than
    /// `patience`.
    pub(crate) fn pay(
        &self,
        slot: &mut Slot,
        is_harmless: bool,
        now: Timestamp,
        patience: Timestamp,
    ) -> Result<Timestamp, Barred> {
        let is_backlog = slot.is_backlog;
        let entrant = Entrant { lane: Arc::clone(&slot.lane), is_harmless, is_backlog };
        let mut inner = self.inner();
        inner.bar(&entrant, now)?;
        let turn = inner.turn(&entrant, now);
        if turn > patience {
            return Err(Barred::by(Bar::Rate, Some(turn)));
        }
        inner.pay(slot, &entrant, now)
    }

    /// How an attempt ended, and how long the upstream asked to be left alone; tells what moved.
    pub(crate) fn learn(
        &self,
        slot: &mut Slot,
        sign: Sign,
        asked: Option<Duration>,
        now: Timestamp,
    ) -> Option<Turn> {
        let mut inner = self.inner();
        let turn = inner.learn(slot, sign, asked, now);
        let holds_backlog = std::mem::take(&mut inner.holds_backlog);
        drop(inner);
        if holds_backlog {
            self.opened.notify_one();
        }
        turn
    }

    /// Whether a retry may be made for a caller who waits; if so it is paid for.
    pub(crate) fn withdraw(&self, now: Timestamp) -> bool {
        let mut inner = self.inner();
        let Some(rule) = inner.protection.budget else { return true };
        inner.budget.get_or_insert_with(|| Budget::full(rule, now)).withdraw(rule, now)
    }

    /// A retry that was paid for is not made.
    pub(crate) fn refund(&self) {
        let mut inner = self.inner();
        if let (Some(rule), Some(budget)) = (inner.protection.budget, inner.budget.as_mut()) {
            budget.refund(rule);
        }
    }

    /// Whether the backlog of a lane may take one more of `bytes`; nothing where it has to be
    /// counted first.
    pub(crate) fn take_room(&self, lane: &Lane, bytes: u64, now: Timestamp) -> Option<bool> {
        self.inner().take_room(lane, bytes, now)
    }

    /// The backlog of a lane was counted.
    pub(crate) fn set_room(&self, lane: &Lane, backlog: Backlog, now: Timestamp) {
        self.inner().set_room(lane, backlog, now);
    }

    /// Whether whoever asks is to probe: one does at a time.
    pub(crate) fn begin_probing(&self) -> bool {
        let mut inner = self.inner();
        let begins = !std::mem::replace(&mut inner.is_probed, true);
        // Whoever begins sees what was asked for so far.
        inner.is_asked &= !begins;
        begins
    }

    /// Probing is over; not so where somebody asked meanwhile, who may have found that it was still going on.
    pub(crate) fn end_probing(&self) -> bool {
        let mut inner = self.inner();
        let is_over = !std::mem::take(&mut inner.is_asked);
        inner.is_probed = !is_over;
        drop(inner);
        if is_over {
            self.probed.notify_waiters();
        }
        is_over
    }

    /// What a probe came to.
    pub(crate) fn tell_probed(&self, probed: Probed) {
        self.inner().probed = Some(probed);
    }

    /// Over once those probe no more who do, or do so from now on.
    pub(crate) fn probed(&self) -> Notified<'_> {
        self.probed.notified()
    }

    /// Lets an open breaker be probed at once; tells whether there is anything to ask.
    pub(crate) fn ask_now(&self, now: Timestamp) -> bool {
        let mut inner = self.inner();
        inner.breaker.ask_now(now);
        inner.is_asked = !inner.breaker.is_closed();
        inner.is_asked
    }

    /// A person pauses the route, or lets it go on.
    pub(crate) fn set_paused(self: &Arc<Self>, is_paused: bool, now: Timestamp) {
        let mut inner = self.inner();
        if inner.is_paused && !is_paused {
            inner.ramp = Some(Ramp::from(now));
        }
        inner.is_paused = is_paused;
        drop(inner);
        self.hand_over();
        self.opened.notify_one();
    }

    /// How it stands.
    pub(crate) fn standing(&self, now: Timestamp) -> Standing {
        let inner = self.inner();
        let lane = Arc::default();
        let bar = inner.bar(&Entrant { lane, is_harmless: true, is_backlog: false }, now).err();
        Standing {
            breaker: inner.breaker.name(),
            until: bar.and_then(|barred| barred.until),
            bar: bar.map(|barred| barred.why),
            busy: inner.busy,
            waiting: inner.waiting(),
            probed: inner.probed.clone(),
        }
    }

    /// Calls of a lane that are under way.
    pub(crate) fn busy_on(&self, lane: &Lane) -> usize {
        self.inner().lanes.get(lane).map_or(0, |places| places.busy)
    }

    /// Gives free slots to those who wait, the lane with the fewest first.
    fn hand_over(self: &Arc<Self>) {
        loop {
            let mut inner = self.inner();
            let busy = |lane: &&Lane| inner.lanes.get(*lane).map_or(0, |places| places.busy);
            let fitting = |lane: &&Lane| !inner.is_full(lane);
            let next = inner.awaited.iter().filter(fitting).min_by_key(busy);
            let Some(lane) = next.cloned() else { return };
            let waiting = inner.lanes.get_mut(&lane).map(|places| &mut places.waiting);
            let (give, is_last) = match waiting {
                Some(waiting) => (waiting.pop_front(), waiting.is_empty()),
                None => (None, true),
            };
            if is_last {
                inner.awaited.remove(&lane);
            }
            let Some(give) = give else { continue };
            let lane = Arc::new(lane);
            let entrant = Entrant { lane, is_harmless: false, is_backlog: false };
            // What else may stand in the way is asked by whoever gets it.
            let slot = inner.occupy(self, &entrant);
            drop(inner);
            if let Err(mut unwanted) = give.send(slot) {
                // Its end would hand over again, from within.
                unwanted.gate = None;
                self.inner().leave(&unwanted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use onceward_core::breaker::BreakerRule;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

    fn entrant(tenant: &str) -> Entrant {
        let lane = Lane { tenant: tenant.to_owned(), route: "r".to_owned(), ..Lane::default() };
        Entrant { lane: Arc::new(lane), is_harmless: true, is_backlog: false }
    }

    fn with_slots(slots_max: usize) -> Protection {
        Protection { slots_max, ..Protection::default() }
    }

    fn gate_of(gates: &Gates, route: &str, slots_max: usize) -> Arc<Gate> {
        gates.fit(|_| Some(with_slots(slots_max)));
        gates.of(route, || (with_slots(slots_max), false), || NOW)
    }

    fn take(gate: &Arc<Gate>, max: usize) -> Vec<Slot> {
        (0..max).map_while(|_| gate.try_enter(&entrant("t"), NOW).ok()).collect()
    }

    #[test]
    fn a_route_has_as_many_slots_as_it_says_now() {
        let gates = Gates::default();
        let mut taken = take(&gate_of(&gates, "r", 4), 9);
        assert_eq!(taken.len(), 4);
        assert!(take(&gate_of(&gates, "r", 4), 1).is_empty());
        taken.extend(take(&gate_of(&gates, "r", 5), 9));
        assert_eq!(taken.len(), 5, "it grows at once");
        taken.truncate(3);
        assert!(take(&gate_of(&gates, "r", 2), 1).is_empty(), "what became free is gone");
        taken.truncate(1);
        taken.extend(take(&gate_of(&gates, "r", 2), 9));
        assert_eq!(taken.len(), 2, "it shrinks as slots become free");
    }

    #[test]
    fn our_own_calls_take_no_share_from_a_tenant_that_is_alone() {
        let gates = Gates::default();
        let gate = gate_of(&gates, "r", 8);
        drop(gate.try_enter(&entrant(""), NOW).expect("a slot for a probe"));
        assert_eq!(take(&gate, 9).len(), 8);
        drop(gate.try_enter(&entrant("other"), NOW).expect("a slot for another"));
        assert_eq!(take(&gate, 9).len(), 6, "whoever else has been here keeps room");
    }

    #[test]
    fn whoever_asks_while_probing_comes_to_its_end_has_one_more_round_of_it() {
        let protection = Protection { breaker: Some(BreakerRule::default()), ..with_slots(8) };
        let gate = Gates::default().of("r", || (protection, false), || NOW);
        assert!(!gate.ask_now(NOW), "it is closed: there is nothing to ask");
        for mut slot in take(&gate, 8) {
            gate.learn(&mut slot, Sign::Unconnected, None, NOW);
        }
        assert!(gate.ask_now(NOW) && gate.begin_probing(), "whoever asks probes");
        assert!(gate.ask_now(NOW) && !gate.begin_probing(), "somebody does already");
        assert!(!gate.end_probing(), "it was asked for since");
        assert!(!gate.begin_probing());
        assert!(gate.end_probing() && gate.begin_probing() && gate.end_probing());
    }

    #[test]
    fn gates_that_hold_nothing_back_any_more_are_forgotten_where_there_are_many() {
        let gates = Gates::default();
        let kept = gate_of(&gates, "kept", 8);
        let mut slot = kept.try_enter(&entrant("t"), NOW).expect("a slot");
        kept.learn(&mut slot, Sign::Good, Some(Duration::from_hours(1)), NOW);
        drop(slot);
        for n in 0..3 * GATES_MAX {
            let gate = gates.of(&n.to_string(), || (with_slots(8), false), || NOW);
            let mut slot = gate.try_enter(&entrant("t"), NOW).expect("a slot");
            gate.learn(&mut slot, Sign::Bad, None, NOW);
        }
        let left = gates.by_route.load();
        assert!(left.len() <= GATES_MAX, "{} are left", left.len());
        assert!(left.contains_key("kept"), "it holds back still");
    }
}
