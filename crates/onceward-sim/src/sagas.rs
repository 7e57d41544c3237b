//! Planners, who start sagas and ask again with the same key; people who come between; and what has to be so
//! in the end: each step in its order, what is undone undone in reverse, and nothing done that is said not to
//! be.

use std::sync::Arc;
use std::time::Duration;

use onceward::core::key::{Key, ScopeKind};
use onceward::core::operation::{Operation, State};
use onceward::core::saga::{Ask, Body, Definition, Leg, Standing, Step, Template, Word};
use onceward::{NewSaga, Person, Refusal, Resolution, Saga};
use serde_json::{Value, json};

use crate::ledger::everything;
use crate::life::Pulse;
use crate::node::{Fleet, Node};
use crate::routes::Kind;
use crate::world::World;

/// How often a planner asks again that nobody seems to have heard.
const TRIES: usize = 8;

/// Lets every planner start what there is to start.
pub(crate) async fn start(world: &Arc<World>, fleet: &Arc<Fleet>) {
    let mut planners = Vec::new();
    for planner in 0..world.plan.planners {
        planners.push(tokio::spawn(live(planner, Arc::clone(world), Arc::clone(fleet))));
    }
    for planner in planners {
        if planner.await.is_err() {
            world.audit().violation("a planner broke".to_owned());
        }
    }
}

async fn live(planner: usize, world: Arc<World>, fleet: Arc<Fleet>) {
    for place in 0..world.plan.wants.min(4) {
        tokio::time::sleep(world.moment(Duration::from_mins(3))).await;
        let Some(definition) = definition(&world) else { return };
        // A name of our own.
        let Ok(key) = Key::new(&format!("saga-{planner}-{place}")) else { return };
        let wanted = NewSaga {
            tenant: "t".to_owned(),
            principal: "anna".to_owned(),
            key: Some(key),
            label: None,
            subject: None,
            definition,
            callback: None,
            trace: None,
        };
        Box::pin(have(&world, &fleet, &wanted)).await;
    }
}

fn definition(world: &World) -> Option<Definition> {
    let count = 1 + world.below(4) as usize;
    let pivot = world.below(8) as usize;
    let mut steps: Vec<Step> = Vec::new();
    for at in 0..count {
        let kind = Kind::ALL[world.below(3) as usize];
        // What a person resolved has no answer to take a value of.
        let takes = at > 0 && world.below(100) < 50;
        let body = match takes.then(|| format!("{{{{steps.s{}.body/nonce}}}}", at - 1)) {
            Some(value) => json!({"step": at, "takes": value}),
            None => json!({"step": at}),
        };
        let can_undo = at < pivot && world.below(100) < 80;
        let undo = Kind::ALL[world.below(3) as usize];
        steps.push(Step {
            name: format!("s{at}"),
            ask: ask(kind, "/steps", body)?,
            undo: if can_undo { Some(ask(undo, "/undone", json!({"undo": at}))?) } else { None },
            is_pivot: at == pivot,
        });
    }
    let waits = world.below(100) < 20;
    Definition { steps, input: Value::Null, stops: waits }.check().ok()
}

fn ask(kind: Kind, path: &str, body: Value) -> Option<Ask> {
    Some(Ask {
        route: kind.name().to_owned(),
        method: "POST".to_owned(),
        path: Template::read(path).ok()?,
        headers: Vec::new(),
        body: Body::Json(body),
        attempts_max: None,
        within: None,
    })
}

/// Asks until it is taken, and now and then again.
async fn have(world: &Arc<World>, fleet: &Arc<Fleet>, wanted: &NewSaga) {
    let mut first = None;
    for _ in 0..TRIES {
        if let Some(node) = fleet.any(world) {
            let hang_up = world.befalls("planner hung up", world.plan.faults.hang_up);
            let patience =
                if hang_up { world.moment(Duration::from_secs(1)) } else { Duration::from_mins(2) };
            let heard = tokio::select! {
                biased;
                () = node.life.death() => None,
                heard = node.engine.start_saga(wanted.clone()) => Some(heard),
                () = tokio::time::sleep(patience) => None,
            };
            // The last words of a dead node reach nobody.
            match heard.filter(|_| !node.life.is(Pulse::Dead)) {
                None
                | Some(Err(Refusal::Ledger(_) | Refusal::Draining | Refusal::Limit { .. })) => {}
                Some(Err(Refusal::KeyExpired(_) | Refusal::KeyInvalidated(_))) => return,
                Some(Err(other)) => {
                    world.audit().violation(format!("a saga was refused with {other:?}"));
                    return;
                }
                Some(Ok(started)) => {
                    let id = started.saga.operation.id;
                    // A person may have given the key free.
                    let same = first.is_none_or(|first| first == id) || !started.is_known;
                    if !same {
                        world.audit().violation(format!("{id}: two sagas of one key"));
                    }
                    first = Some(id);
                    if world.below(100) < 70 {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(world.moment(Duration::from_secs(20))).await;
    }
}

/// A person does something to a saga that goes on; what comes too late is refused.
pub(crate) async fn disturb(world: &World, node: &Node, saga: &Operation, person: &Person) {
    let engine = &node.engine;
    if saga.state != State::Delivering {
        return;
    }
    let _ = match world.below(10) {
        0 => engine.pause_saga(saga.id, person).await,
        1..=3 => engine.resume_saga(saga.id, person).await,
        4 | 5 => engine.cancel_saga(saga.id, person).await,
        _ => engine.retry_saga(saga.id, person, &[]).await,
    };
}

/// Leads every saga out of where only a person can lead it, by what the upstreams' books say.
pub(crate) async fn lead_out(world: &World, fleet: &Fleet) {
    let person = Person { who: "dora".to_owned(), reason: "looked at the books".to_owned() };
    let Some(node) = fleet.any(world) else { return };
    let engine = &node.engine;
    for operation in everything(world).await {
        if operation.scope.kind != ScopeKind::Saga || operation.state != State::Delivering {
            continue;
        }
        let Ok(saga) = engine.saga_of(operation).await else { continue };
        let id = saga.operation.id;
        let Some(kept) = &saga.kept else { continue };
        if kept.progress.is_paused {
            let _ = engine.resume_saga(id, &person).await;
        }
        let Some(at) = kept.progress.at else { continue };
        let Ok(steps) = engine.steps_of(&saga).await else { continue };
        let step = steps.into_iter().nth(at.step);
        let Some(step) = step.and_then(|it| if at.undo { it.1 } else { it.0 }) else { continue };
        let lives = fleet.lives();
        let is_dead =
            |session| lives.iter().any(|(other, life)| *other == session && life.is(Pulse::Dead));
        let Some(done) = world.audit().truth(&step, is_dead) else { continue };
        // What is refused now was too late.
        if step.state == State::InDoubt {
            let resolution = if done { Resolution::Done(None) } else { Resolution::NotSent };
            let _ = engine.resolve(step.id, &resolution, &person).await;
        } else if kept.progress.standing == Standing::Stuck {
            let said = if done { Word::Done } else { Word::NotDone };
            let name = saga.at_hand().unwrap_or_default();
            let _ = engine.settle_saga(id, &person, &name, said).await;
        }
    }
}

/// Holds what every saga says of its steps against what the upstreams did.
pub(crate) async fn reckon(world: &World, fleet: &Fleet) {
    let Some(node) = fleet.any(world) else { return };
    for operation in everything(world).await {
        if operation.scope.kind != ScopeKind::Saga {
            continue;
        }
        let Ok(saga) = node.engine.saga_of(operation).await else { continue };
        let Ok(steps) = node.engine.steps_of(&saga).await else { continue };
        if let Some(wrong) = wrong_with(world, &saga, &steps) {
            world.audit().violation(format!("{}: {wrong}", saga.operation.id));
        }
    }
}

fn wrong_with(
    world: &World,
    saga: &Saga,
    steps: &[(Option<Operation>, Option<Operation>)],
) -> Option<String> {
    let kept = saga.kept.as_ref()?;
    let audit = world.audit();
    let place = |step: &Option<Operation>| audit.place_of(&step.as_ref()?.id.to_string());
    let legs = &kept.progress.legs;
    for (at, ((ask, undo), leg)) in steps.iter().zip(legs).enumerate() {
        let (did, undid) = (place(ask).is_some(), place(undo).is_some());
        let can_undo = kept.definition.steps[at].undo.is_some();
        let is_so = match (leg, saga.standing()) {
            (Leg::Waiting | Leg::NotDone, _) => !did && !undid,
            (Leg::Done, Standing::Done) => !undid,
            (Leg::Done, Standing::Unwound) => !can_undo,
            (Leg::Undone, Standing::Unwound) => did && undid,
            (Leg::Left, Standing::Unwound) => did && !undid,
            _ => false,
        };
        if !is_so {
            let standing = saga.standing();
            return Some(format!("{standing:?}, step {at} is {leg:?}: done {did}, undone {undid}"));
        }
    }
    let forward = steps.iter().filter_map(|(ask, _)| place(ask));
    let back = steps.iter().rev().filter_map(|(_, undo)| place(undo));
    let order: Vec<usize> = forward.chain(back).collect();
    (!order.is_sorted()).then(|| format!("out of order: {order:?}"))
}
