//! Accepted work, taken from the ledger when it is due: a page at a time, lane by lane, as many
//! as the lane has free slots. However much waits, no more than that is in memory.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::lease::Session;
use onceward_core::operation::{Event, Operation, State};
use onceward_core::time::Timestamp;

use crate::engine::Engine;
use crate::gates::Entrant;
use crate::judgement;
use crate::order;
use crate::route::Route;
use crate::sabotage::Sabotage;
use crate::store::{Judge, Lane, StoreError};

/// Operations taken from a lane at once, at most.
const PAGE: usize = 64;

/// How long the dispatcher sleeps at most: a wake-up is a hint, the ledger is the truth.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// Delivers what is due, for ever.
pub(crate) async fn dispatch(engine: Arc<Engine>) {
    let changed = engine.store.changed();
    let opened = engine.gates.opened();
    loop {
        if engine.is_halted() {
            return;
        }
        let next = match take_all(&engine).await {
            Ok(next) => next,
            Err(error) if error.may_pass() => engine.clock.now().plus(Duration::from_secs(1)),
            Err(error) => {
                engine.heed(error);
                return;
            }
        };
        tokio::select! {
            biased;
            () = changed.notified() => {}
            () = opened.notified() => {}
            () = engine.clock.sleep_until(next), if !Sabotage::WakeOnly.is_on() => {}
        }
    }
}

/// Takes what is due on every lane; tells when to look again.
async fn take_all(engine: &Arc<Engine>) -> Result<Timestamp, StoreError> {
    let now = engine.clock.now();
    let mut next = now.plus(LOOK_AT_LEAST_EVERY);
    let mut ready = Vec::new();
    for (lane, due) in engine.store.lanes().await? {
        if due > now {
            next = next.min(due);
            continue;
        }
        let Some(route) = engine.route(&lane.route) else {
            // Work of a route that is gone waits until it is back; no subscription comes back.
            if engine.has_ended(&lane.route).await? {
                engine.give_up(&lane).await?;
            }
            continue;
        };
        ready.push((engine.gate_of(&route).busy_on(&lane), due, lane, route));
    }
    // Who has the least under way is first: what became free is not always the same one's.
    ready.sort_by_key(|(busy, due, ..)| (*busy, *due));
    for (_, _, lane, route) in ready {
        if let Some(again) = take(engine, &lane, &route, now).await? {
            next = next.min(again);
        }
    }
    Ok(next)
}

/// Takes one page of a lane; tells when to look at it again, where that is known. A slot that
/// becomes free and a gate that opens wake the dispatcher.
async fn take(
    engine: &Arc<Engine>,
    lane: &Lane,
    route: &Arc<Route>,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let opens = route.opens_at(now);
    if opens > now {
        return Ok(Some(opens));
    }
    // Whoever stops waits for what is being taken: else it would be taken and not begun.
    let _run = engine.begin();
    if engine.is_halted() {
        return Ok(None);
    }
    let is_harmless = route.is_harmless();
    let entrant = Entrant { lane: lane.clone().into(), is_harmless, is_backlog: true };
    let (mut slots, barred) = engine.enter_many(route, &entrant, PAGE, now);
    if barred.is_some_and(|barred| barred.wants_probe) {
        engine.probe(route);
    }
    let again = barred.map_or(Some(now), |barred| barred.until);
    let free = slots.len();
    if free == 0 {
        return Ok(again);
    }
    let taken = engine
        .store
        .take(lane.clone(), now, free, judge(Arc::clone(route), engine.session, now))
        .await?;
    // What is due on the lane after these is not known before it is looked at again.
    let again = match taken.len() {
        0 => None,
        length if length < free => Some(now),
        _ => again,
    };
    for operation in taken {
        match operation.state {
            State::Delivering => {
                let Some(slot) = slots.pop() else { break };
                engine.spawn_from_ledger(operation, slot);
            }
            // It is not its turn, or its hours are over.
            State::Pending { .. } => engine.spawn_advance(&operation),
            _ => rested(engine, &operation),
        }
    }
    Ok(again)
}

fn rested(engine: &Arc<Engine>, operation: &Operation) {
    engine.rested(operation);
    engine.waiters.wake(operation.id);
    engine.spawn_advance(operation);
}

/// Start, unless time ran out or it is another's turn.
fn judge(route: Arc<Route>, session: Session, now: Timestamp) -> Judge {
    Arc::new(move |operation| {
        let policy = route.policy_for(&operation.method, &operation.target);
        let verdict = judgement::decide_unstarted(operation, policy, now);
        match verdict {
            Some(verdict) => Event::Ruled(verdict),
            None if operation.is_first() => Event::Started(session),
            None => Event::TurnWent { due: order::look_again(operation.id, now) },
        }
    })
}
