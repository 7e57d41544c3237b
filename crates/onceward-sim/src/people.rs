//! People: they look at the upstreams' books and say what became of what is in doubt, send dead
//! letters again, give up, and drop keys.

use std::sync::Arc;
use std::time::Duration;

use onceward::core::key::ScopeKind;
use onceward::core::lease::Session;
use onceward::core::operation::{Forgotten, Operation, State};
use onceward::core::policy::Mode;
use onceward::{Person, Resolution};

use crate::ledger::everything;
use crate::life::Pulse;
use crate::node::{Fleet, Node};
use crate::sagas;
use crate::world::World;

/// Acts now and then, for as long as the world goes on.
pub(crate) async fn act(world: Arc<World>, fleet: Arc<Fleet>) {
    loop {
        tokio::time::sleep(world.moment(Duration::from_mins(3))).await;
        let all = everything(&world).await;
        if all.is_empty() {
            continue;
        }
        let operation = all[world.below(all.len() as u64) as usize].clone();
        let Some(node) = fleet.any(&world) else { continue };
        let acting = act_on(&world, &fleet, &node, &operation);
        tokio::select! {
            biased;
            () = node.life.death() => {}
            () = acting => {}
        }
    }
}

async fn act_on(world: &World, fleet: &Fleet, node: &Node, operation: &Operation) {
    let person = Person { who: "carla".to_owned(), reason: "looked at the books".to_owned() };
    let engine = &node.engine;
    if operation.scope.kind == ScopeKind::Saga {
        return sagas::disturb(world, node, operation, &person).await;
    }
    // What a person wants may come too late, and is refused then.
    match operation.state {
        State::InDoubt => {
            let lives = fleet.lives();
            let is_dead = |session: Session| {
                lives.iter().any(|(other, life)| *other == session && life.is(Pulse::Dead))
            };
            let truth = world.audit().truth(operation, is_dead);
            let resolution = match truth {
                Some(true) => Resolution::Done(None),
                Some(false) => Resolution::NotSent,
                None => return,
            };
            let _ = engine.resolve(operation.id, &resolution, &person).await;
        }
        State::Dead(_) if world.below(100) < 50 => {
            let _ = engine.redeliver(operation.id, &person).await;
        }
        State::Pending { .. } if operation.mode == Mode::Accepted && world.below(100) < 15 => {
            let _ = engine.cancel(operation.id, &person).await;
        }
        State::Done if world.below(100) < 10 => {
            let then = if world.below(2) == 0 { Forgotten::New } else { Forgotten::Refuse };
            let _ = engine.forget(&operation.scope, &operation.key, then, &person).await;
        }
        State::Done | State::Dead(_) | State::Pending { .. } | State::Delivering => {}
    }
}
