//! What a call waits for before its upstream: a slot, a turn, room in the backlog; and what is learnt
//! of the upstream on the way back.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::attempt::Ending;
use onceward_core::breaker::Sign;
use onceward_core::hint::Hint;
use onceward_core::operation::Operation;
use onceward_core::policy::{Effects, Mode, Policy};
use onceward_core::time::Timestamp;
use onceward_core::verdict;

use super::Engine;
use super::story::Entry;
use crate::call::Arrival;
use crate::delivered::Delivered;
use crate::gates::{Bar, Barred, Entrant, Gate, Slot};
use crate::observe::Fact;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::store::Lane;

/// Operations of a backlog that are counted where only its bytes have a limit.
const COUNTED_MAX: u64 = 1_000_000;

impl Engine {
    /// The gate before a route's upstream.
    pub(crate) fn gate_of(&self, route: &Route) -> Arc<Gate> {
        let says = || {
            // It may have changed since this one was looked up.
            let latest = self.route(&route.name);
            let protection = &latest.as_deref().unwrap_or(route).protection;
            (protection.clone(), self.pauses().contains_key(&route.name))
        };
        self.gates.of(&route.name, says, || self.clock.now())
    }

    /// A slot for accepted work that can go at once. What goes by another route's upstream enters that
    /// one's gate too: its pause, its rate and its breaker hold for it, and it has a share of its slots.
    pub(crate) fn try_enter(
        &self,
        route: &Route,
        entrant: &Entrant,
        now: Timestamp,
    ) -> Result<Slot, Barred> {
        let mut slot = self.gate_of(route).try_enter(entrant, now)?;
        if let Some(beyond) = route.through.as_deref().and_then(|name| self.route(name)) {
            let Lane { tenant, .. } = &*entrant.lane;
            let lane =
                Lane { tenant: tenant.clone(), route: beyond.name.clone(), ..Lane::default() };
            let entrant = Entrant { lane: Arc::new(lane), ..entrant.clone() };
            // Behind its own: else every look at a gate that is full would free a slot of the other one,
            // and wake whoever looks.
            let its = self.gate_of(&beyond).try_enter(&entrant, now)?;
            slot.keep_beyond(beyond.name.clone(), its);
        }
        Ok(slot)
    }

    /// As many slots as there are, `max` at most; and what stands before the next.
    pub(crate) fn enter_many(
        &self,
        route: &Route,
        entrant: &Entrant,
        max: usize,
        now: Timestamp,
    ) -> (Vec<Slot>, Option<Barred>) {
        let mut slots = Vec::new();
        while slots.len() < max {
            match self.try_enter(route, entrant, now) {
                Ok(slot) => slots.push(slot),
                Err(barred) => return (slots, Some(barred)),
            }
        }
        (slots, None)
    }

    /// Whether one more may wait for the upstream.
    pub(super) async fn has_room(
        &self,
        gate: &Gate,
        lane: &Lane,
        arrival: &Arrival,
    ) -> Result<bool, Refusal> {
        let protection = &arrival.route.protection;
        let operations_max = match (protection.backlog_max, protection.backlog_bytes_max) {
            (None, None) => return Ok(true),
            (operations_max, _) => operations_max.unwrap_or(COUNTED_MAX),
        };
        let bytes = arrival.request.body.len() as u64;
        // All of a tenant's flows have it together.
        let lane = &Lane { flow: String::new(), ..lane.clone() };
        if let Some(has_room) = gate.take_room(lane, bytes, self.clock.now()) {
            return Ok(has_room);
        }
        let backlog = self.store.backlog(lane.clone(), operations_max).await?;
        gate.set_room(lane, backlog, self.clock.now());
        Ok(gate.take_room(lane, bytes, self.clock.now()).unwrap_or(false))
    }

    /// Takes a slot for a held call that has none; it is refused without a record where none becomes
    /// free in time.
    pub(super) async fn take_slot(
        self: &Arc<Self>,
        entry: &mut Entry,
        arrival: &Arrival,
    ) -> Result<(), Refusal> {
        if arrival.mode != Mode::Held || entry.slot.is_some() {
            return Ok(());
        }
        let Entry { gate, entrant, slot, presence, .. } = entry;
        let mut given = self.wait_for_slot(gate, entrant, arrival).await?;
        given.attend(presence.take());
        *slot = Some(given);
        Ok(())
    }

    async fn wait_for_slot(
        self: &Arc<Self>,
        gate: &Arc<Gate>,
        entrant: &Entrant,
        arrival: &Arrival,
    ) -> Result<Slot, Refusal> {
        let now = self.clock.now();
        if let Some(opens) = closed_until(arrival, now) {
            return Err(self.barred(Barred::by(Bar::OutsideHours, Some(opens)), &arrival.route));
        }
        let until = now.plus(Self::wait_of(arrival));
        let mut slot = loop {
            match gate.queue(entrant, self.clock.now()) {
                Ok(given) => tokio::select! {
                    biased;
                    slot = given => break slot.map_err(|_| Refusal::Draining)?,
                    () = self.clock.sleep_until(until) => {
                        return Err(self.barred(Barred::by(Bar::Slots, None), &arrival.route));
                    }
                },
                Err(barred) => self.wait_out(barred, until, &arrival.route).await?,
            }
        };
        loop {
            match gate.pay(&mut slot, entrant.is_harmless, self.clock.now(), until) {
                Ok(turn) => {
                    self.clock.sleep_until(turn).await;
                    return Ok(slot);
                }
                Err(barred) => self.wait_out(barred, until, &arrival.route).await?,
            }
        }
    }

    /// Waits until what is in the way is gone, where that is before `until`; else it is a refusal.
    async fn wait_out(
        self: &Arc<Self>,
        barred: Barred,
        until: Timestamp,
        route: &Arc<Route>,
    ) -> Result<(), Refusal> {
        if barred.wants_probe {
            self.probe(route);
        }
        // An open breaker is told at once: a caller with a choice has somewhere else to go.
        match barred.until.filter(|at| *at <= until && barred.why != Bar::BreakerOpen) {
            Some(at) => {
                self.clock.sleep_until(at).await;
                Ok(())
            }
            None => Err(self.barred(barred, route)),
        }
    }

    /// Waits until the gate lets another attempt by; tells whether it does while a caller waits.
    pub(super) async fn go_again(
        &self,
        operation: &Operation,
        route: &Route,
        policy: &Policy,
        slot: &mut Slot,
    ) -> bool {
        let gate = self.gate_of(route);
        let is_harmless = operation.effects != Effects::NonIdempotent;
        let patience = verdict::ends_at(operation, policy);
        loop {
            match gate.pay(slot, is_harmless, self.clock.now(), patience) {
                Ok(turn) => {
                    self.clock.sleep_until(turn).await;
                    return true;
                }
                Err(Barred { until: Some(until), .. }) if until <= patience => {
                    self.clock.sleep_until(until).await;
                }
                Err(_) => return false,
            }
        }
    }

    /// What a caller is told who may not go.
    pub(crate) fn barred(&self, barred: Barred, route: &Route) -> Refusal {
        let at_least = Duration::from_secs(1);
        let wait = barred.until.map_or(at_least, |until| until.since(self.clock.now()));
        let retry_after = wait.max(at_least);
        match barred.why {
            Bar::Slots => Refusal::Limit {
                what: match route.protection.flow.slots_max {
                    Some(_) => {
                        "as many calls are under way to this upstream, or of this flow, as may be"
                            .to_owned()
                    }
                    None => {
                        format!(
                            "{} calls to this upstream are under way",
                            route.protection.slots_max
                        )
                    }
                },
                retry_after,
            },
            Bar::Rate => Refusal::Limit {
                what: "the rate of calls to this upstream is used up".to_owned(),
                retry_after,
            },
            why => Refusal::Barred { why, retry_after },
        }
    }

    /// What a delivery says of its upstream; what was refused here says nothing of it.
    pub(super) fn learn_from(
        &self,
        route: &Route,
        policy: &Policy,
        slot: &mut Slot,
        delivered: &Delivered,
    ) {
        if delivered.permanent && delivered.ending == Ending::Unsent {
            return;
        }
        let headers = delivered.response.as_ref().map(|response| &response.headers);
        let asked = headers
            .filter(|_| matches!(delivered.status, Some(429 | 503)))
            .and_then(|headers| Hint::of(headers, &policy.hints, self.clock.now()).wait);
        self.learn(route, slot, Sign::of(delivered.ending, delivered.status), asked);
    }

    /// What an attempt says of its upstream.
    pub(crate) fn learn(
        &self,
        route: &Route,
        slot: &mut Slot,
        sign: Sign,
        asked: Option<Duration>,
    ) {
        self.learn_at(&route.name, slot, sign, asked);
        if let (Some(name), Some(beyond)) = (&route.through, slot.beyond()) {
            self.learn_at(name, beyond, sign, asked);
        }
    }

    fn learn_at(&self, route: &str, slot: &mut Slot, sign: Sign, asked: Option<Duration>) {
        let Some(gate) = slot.gate().map(Arc::clone) else { return };
        if let Some(turn) = gate.learn(slot, sign, asked, self.clock.now()) {
            self.observer.observe(Fact::Breaker(route, turn));
        }
    }

    /// What a last attempt says of its upstream; its slot is given up.
    pub(crate) fn leave(&self, route: &Route, slot: Slot, sign: Sign, asked: Option<Duration>) {
        if let Some(turn) = slot.leave(sign, asked, self.clock.now()) {
            self.observer.observe(Fact::Breaker(&route.name, turn));
        }
    }
}

/// When a caller may come again who wants to be held now, where the route sends at other hours.
pub(super) fn closed_until(arrival: &Arrival, now: Timestamp) -> Option<Timestamp> {
    let hours = arrival.policy.hours.as_ref().filter(|_| arrival.mode == Mode::Held)?;
    Some(hours.next_open(now)).filter(|opens| *opens > now)
}
