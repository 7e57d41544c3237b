//! What a gate knows, and what it decides by it: without its lock, and with time as an argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use onceward_core::backoff;
use onceward_core::breaker::{Breaker, Leave, Sign, Turn};
use onceward_core::id::OperationId;
use onceward_core::rate::{Budget, Meter, Ramp, Rate};
use onceward_core::time::Timestamp;
use tokio::sync::oneshot;

use super::{Bar, Barred, Entrant, Gate, Probed, Slot};
use crate::route::Protection;
use crate::sabotage::Sabotage;
use crate::store::{Backlog, Lane};

/// Lanes that nobody uses are forgotten past this many.
const LANES_MAX: usize = 1024;

/// Past this many even those are that have used up their rate.
const LANES_MAX_OWING: usize = 64 * 1024;

/// A lane that is not alone takes a slot only while it has fewer than this many times the free
/// ones, so that whoever comes finds one (dynamic thresholds, Choudhury and Hahne 1998).
const SHARE: usize = 3;

/// An upstream that is held for less than this is not given its backlog slowly.
const RAMP_AFTER: Duration = Duration::from_secs(1);

/// How long a count of the backlog is believed: what has left it since is not known.
const COUNT_AGAIN: Duration = Duration::from_secs(5);

/// How long a backlog that is full is not counted again.
const COUNT_FULL_AGAIN: Duration = Duration::from_secs(1);

/// How one gate stands.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// What the route says now.
    pub(super) protection: Protection,
    /// How many nodes there are beside this one.
    pub(super) others: u32,
    pub(super) lanes: BTreeMap<Lane, Places>,
    /// Those on which somebody waits.
    pub(super) awaited: BTreeSet<Lane>,
    /// How many lanes there may be before it is looked who is gone.
    pub(super) lanes_max: usize,
    pub(super) busy: usize,
    pub(super) meter: Meter,
    pub(super) breaker: Breaker,
    pub(super) budget: Option<Budget>,
    pub(super) ramp: Option<Ramp>,
    pub(super) held_until: Option<Timestamp>,
    pub(super) is_paused: bool,
    /// Whether somebody probes it now.
    pub(super) is_probed: bool,
    /// Whether somebody has wanted that since the last one was decided on.
    pub(super) is_asked: bool,
    /// What the last probe came to.
    pub(super) probed: Option<Probed>,
    /// Whether backlog was held back since the dispatcher was last woken: else nothing that opens is
    /// news to it.
    pub(super) holds_backlog: bool,
}

/// Who is at the gate on one lane.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) busy: usize,
    pub(super) waiting: VecDeque<oneshot::Sender<Slot>>,
    pub(super) room: Option<Room>,
    /// What its flow has used of its rate.
    pub(super) meter: Meter,
}

/// How much more the backlog of a lane may take, since it was last counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) operations: u64,
    pub(super) bytes: u64,
    pub(super) counted_at: Timestamp,
}

impl Inner {
    pub(super) fn enter(
        &mut self,
        gate: &Arc<Gate>,
        entrant: &Entrant,
        now: Timestamp,
    ) -> Result<Slot, Barred> {
        self.bar(entrant, now)?;
        if self.is_full(&entrant.lane) {
            return Err(Barred::by(Bar::Slots, None));
        }
        let turn = self.turn(entrant, now);
        if turn > now {
            return Err(Barred::by(Bar::Rate, Some(turn)));
        }
        self.forget_lanes(now);
        let mut slot = self.occupy(gate, entrant);
        self.pay(&mut slot, entrant, now)?;
        Ok(slot)
    }

    /// What stands in the way beside slots and rate; whether it goes as a probe.
    pub(super) fn bar(&self, entrant: &Entrant, now: Timestamp) -> Result<bool, Barred> {
        if self.is_paused {
            return Err(Barred::by(Bar::Paused, None));
        }
        if let Some(until) = self.held_until.filter(|until| *until > now) {
            return Err(Barred::by(Bar::UpstreamAsked, Some(until)));
        }
        let rule = self.protection.breaker.as_ref();
        let rule = rule.filter(|_| !Sabotage::BreakerStuck.is_on());
        let may_probe = entrant.is_harmless || Sabotage::ProbeUnguarded.is_on();
        match rule.map_or(Leave::Free, |rule| self.breaker.leave(rule, now)) {
            Leave::Free => Ok(false),
            Leave::Probe if may_probe => Ok(true),
            Leave::Probe => Err(Barred { wants_probe: true, ..Barred::by(Bar::BreakerOpen, None) }),
            Leave::Shut { until } => Err(Barred::by(Bar::BreakerOpen, until)),
        }
    }

    /// This node's share of the rate.
    fn rate(&self) -> Option<Rate> {
        self.protection.rate.map(|rate| self.share(rate))
    }

    fn share(&self, rate: Rate) -> Rate {
        let nodes = self.others + 1;
        Rate { interval: rate.interval.saturating_mul(nodes), burst: (rate.burst / nodes).max(1) }
    }

    /// When the next attempt may be made, by the rate and the ramp.
    pub(super) fn turn(&self, entrant: &Entrant, now: Timestamp) -> Timestamp {
        let ramp = self.ramp.filter(|_| !Sabotage::NoRamp.is_on());
        let ramp = ramp.filter(|ramp| entrant.is_backlog && !ramp.is_over(now));
        let by_ramp = ramp.map_or(now, |ramp| ramp.ready_at());
        let rate = self.rate().filter(|_| !Sabotage::RateIgnored.is_on());
        let by_rate = rate.map_or(now, |rate| self.meter.ready_at(rate));
        by_ramp.max(by_rate).max(self.turn_of_flow(&entrant.lane, now))
    }

    /// What each flow may have in a time, where the lane is one's.
    fn rate_of_flow(&self, lane: &Lane) -> Option<Rate> {
        self.protection.flow.rate.filter(|_| !lane.flow.is_empty()).map(|rate| self.share(rate))
    }

    pub(super) fn turn_of_flow(&self, lane: &Lane, now: Timestamp) -> Timestamp {
        let Some(rate) = self.rate_of_flow(lane) else { return now };
        self.lanes.get(lane).map_or(now, |places| places.meter.ready_at(rate).max(now))
    }

    pub(super) fn waiting(&self) -> usize {
        let places = self.awaited.iter().filter_map(|lane| self.lanes.get(lane));
        places.map(|places| places.waiting.len()).sum()
    }

    /// Forgets the lanes that nobody uses any more, where there are many.
    pub(super) fn forget_lanes(&mut self, now: Timestamp) {
        if self.lanes.len() < self.lanes_max.max(LANES_MAX) {
            return;
        }
        let is_used = |places: &Places| places.busy > 0 || !places.waiting.is_empty();
        let owes = |places: &Places| {
            !places.meter.is_rested(now)
                || places.room.is_some_and(|room| now.since(room.counted_at) < COUNT_AGAIN)
        };
        self.lanes.retain(|_, places| is_used(places) || owes(places));
        if self.lanes.len() >= LANES_MAX_OWING {
            self.lanes.retain(|_, places| is_used(places));
        }
        // Looking takes as long as there are lanes, so it is done the more seldom the more stay.
        self.lanes_max = self.lanes.len() * 2;
    }

    pub(super) fn is_full(&self, lane: &Lane) -> bool {
        let free = self.protection.slots_max.saturating_sub(self.busy);
        if free == 0 {
            return true;
        }
        let has = || self.lanes.get(lane).map_or(0, |places| places.busy);
        let most = self.protection.flow.slots_max.filter(|_| !lane.flow.is_empty());
        if most.is_some_and(|most| has() >= most) {
            return true;
        }
        // Calls of our own, which are nobody's, are no company.
        let is_company = |other: &Lane| other != lane && !other.tenant.is_empty();
        let is_alone = !self.lanes.keys().any(is_company) || Sabotage::SlotsUnshared.is_on();
        !is_alone && has() >= SHARE * free
    }

    /// Takes a turn for a slot; tells when it is.
    pub(super) fn pay(
        &mut self,
        slot: &mut Slot,
        entrant: &Entrant,
        now: Timestamp,
    ) -> Result<Timestamp, Barred> {
        if self.bar(entrant, now)? && !slot.is_probe {
            self.breaker.begin_probe();
            slot.is_probe = true;
        }
        match self.ramp.as_mut().filter(|_| entrant.is_backlog) {
            Some(ramp) => ramp.take(now),
            None if slot.turn.is_none() => self.deposit(now),
            None => {}
        }
        let turn = match self.rate() {
            Some(rate) => self.meter.take(rate, now),
            None => now,
        };
        let of_flow = match self.rate_of_flow(&slot.lane) {
            Some(rate) => self.lanes.entry((*slot.lane).clone()).or_default().meter.take(rate, now),
            None => now,
        };
        let turn = turn.max(of_flow);
        slot.turn = Some(turn);
        Ok(turn)
    }

    /// A first attempt pays for retries.
    fn deposit(&mut self, now: Timestamp) {
        if let Some(rule) = self.protection.budget {
            self.budget.get_or_insert_with(|| Budget::full(rule, now)).deposit(rule);
        }
    }

    pub(super) fn occupy(&mut self, gate: &Arc<Gate>, entrant: &Entrant) -> Slot {
        self.busy += 1;
        match self.lanes.get_mut(&entrant.lane) {
            Some(places) => places.busy += 1,
            None => self.lanes.entry((*entrant.lane).clone()).or_default().busy = 1,
        }
        Slot {
            gate: Some(Arc::clone(gate)),
            lane: Arc::clone(&entrant.lane),
            turn: None,
            is_backlog: entrant.is_backlog,
            is_used: false,
            is_probe: false,
            presence: None,
            beyond: None,
        }
    }

    /// Somebody leaves; what was taken and not used is given back.
    pub(super) fn leave(&mut self, slot: &Slot) {
        self.busy = self.busy.saturating_sub(1);
        if let Some(places) = self.lanes.get_mut(&slot.lane) {
            places.busy = places.busy.saturating_sub(1);
        }
        if slot.is_probe {
            self.breaker.drop_probe();
        }
        let Some(turn) = slot.turn.filter(|_| !slot.is_used) else { return };
        if let Some(rate) = self.rate() {
            self.meter.give_back(rate);
        }
        if let Some(rate) = self.rate_of_flow(&slot.lane)
            && let Some(places) = self.lanes.get_mut(&slot.lane)
        {
            places.meter.give_back(rate);
        }
        if let Some(ramp) = self.ramp.as_mut().filter(|_| slot.is_backlog) {
            ramp.give_back(turn);
        }
    }

    /// How an attempt ended, and how long the upstream asked to be left alone; tells what moved.
    pub(super) fn learn(
        &mut self,
        slot: &mut Slot,
        sign: Sign,
        asked: Option<Duration>,
        now: Timestamp,
    ) -> Option<Turn> {
        if let Some(asked) = asked.filter(|_| !Sabotage::HoldOfOne.is_on()) {
            self.hold(now.plus(asked), now);
        }
        let rule = self.protection.breaker.as_ref()?;
        let is_probe = std::mem::take(&mut slot.is_probe);
        let draw = backoff::draw(OperationId::from_u128(now.as_micros().unsigned_abs().into()), 0);
        let turn = self.breaker.learn(rule, sign, is_probe, now, draw);
        if turn == Some(Turn::Closed) {
            self.ramp = Some(Ramp::from(now));
        }
        turn
    }

    fn hold(&mut self, until: Timestamp, now: Timestamp) {
        self.held_until = self.held_until.max(Some(until));
        if until.since(now) >= RAMP_AFTER {
            self.ramp = self.held_until.map(Ramp::from);
        }
    }

    /// Whether the backlog of a lane may take one more of `bytes`; nothing where it has to be
    /// counted first.
    pub(super) fn take_room(&mut self, lane: &Lane, bytes: u64, now: Timestamp) -> Option<bool> {
        let room = self.lanes.get_mut(lane)?.room.as_mut()?;
        let age = now.since(room.counted_at);
        let fits = room.operations > 0 && room.bytes >= bytes;
        if age >= COUNT_AGAIN || (!fits && age >= COUNT_FULL_AGAIN) {
            return None;
        }
        if fits {
            room.operations -= 1;
            room.bytes -= bytes;
        }
        Some(fits)
    }

    /// The backlog of a lane was counted.
    pub(super) fn set_room(&mut self, lane: &Lane, backlog: Backlog, now: Timestamp) {
        self.forget_lanes(now);
        let most = |most: Option<u64>| most.unwrap_or(u64::MAX);
        let protection = &self.protection;
        let room = Room {
            operations: most(protection.backlog_max).saturating_sub(backlog.operations),
            bytes: most(protection.backlog_bytes_max).saturating_sub(backlog.bytes),
            counted_at: now,
        };
        self.lanes.entry(lane.clone()).or_default().room = Some(room);
    }
}
