//! Publishers, in every fourth world: each event goes to all who want it, once, whatever happens to the
//! nodes that fan it out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onceward::core::event::{Event, TypePattern};
use onceward::core::id::OperationId;
use onceward::core::key::{Key, ScopeKind};
use onceward::core::lease::Session;
use onceward::core::operation::{Death, Operation, State};
use onceward::observe::Unobserved;
use onceward::secret::Secrets;
use onceward::{Destination, Engine, Parts, Person, Publication, Wish, route_of_subscription};

use crate::life::Life;
use crate::node::{Fleet, NodeClock};
use crate::upstream::SimulatedUpstream;
use crate::world::World;

/// Who wants what: as many that want all as that want one type.
const WANTS: [&[&str]; 4] = [&[], &["order.*"], &["user.*"], &[]];

/// How long a receiver remembers an id: as long as the engine relies upon.
pub(crate) const RECEIVER_WINDOW: Duration = Duration::from_hours(24 * 30);

/// How often a publisher asks again for one event.
const TRIES: u64 = 7;

/// The events of a world.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The routes of the subscriptions, and what each wants.
    routes: Vec<(String, &'static [&'static str])>,
    /// Those that were acknowledged, and of which type.
    acknowledged: BTreeMap<OperationId, String>,
}

/// Whether there are any in this world.
pub(crate) fn are_there(world: &World) -> bool {
    world.plan.seed % 4 == 1
}

/// Makes the subscriptions, before anything can go wrong.
pub(crate) async fn subscribe(world: &Arc<World>) {
    if !are_there(world) {
        return;
    }
    let life = Arc::new(Life::new(0));
    let engine = Engine::new(Parts {
        store: Arc::clone(&world.store) as Arc<_>,
        upstream: Arc::new(SimulatedUpstream::new(Arc::clone(world), Arc::clone(&life))),
        clock: Arc::new(NodeClock { world: Arc::clone(world), life }),
        observer: Arc::new(Unobserved),
        secrets: Secrets::new([7; 32]),
        routes: world.routes.clone(),
        session: Session(1),
    });
    let person = Person { who: "carla".to_owned(), reason: "wants them".to_owned() };
    for wants in WANTS {
        let to = Destination::Route { name: "keyed".to_owned(), target: "/hooks".to_owned() };
        let mut wish = Wish::new(to);
        wish.delays = vec![Duration::from_secs(2); 8];
        let types = wants.iter().filter_map(|text| TypePattern::new(text).ok());
        wish.selection.types = types.collect();
        let made = engine.subscribe("t", wish, Some(vec![7; 32]), &person).await;
        match made {
            Ok(made) => {
                let route = route_of_subscription(&made.name);
                world.audit().events.routes.push((route, wants));
            }
            Err(error) => world.audit().violation(format!("no subscription was made: {error}")),
        }
    }
}

/// Publishes events, one after the other.
pub(crate) async fn publish(world: &Arc<World>, fleet: &Arc<Fleet>) {
    if !are_there(world) {
        return;
    }
    for number in 0..world.plan.wants * 2 {
        tokio::time::sleep(world.moment(Duration::from_secs(30))).await;
        let kind = ["order.paid", "user.made"][number % 2];
        for _ in 0..TRIES {
            let Some(node) = fleet.any(world) else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let Some(publication) = publication(kind, number) else { return };
            let engine = Arc::clone(&node.engine);
            let published = tokio::select! {
                biased;
                () = node.life.death() => None,
                published = engine.publish(publication) => published.ok(),
            };
            if let Some(published) = published {
                let id = published.operation.id;
                let mut audit = world.audit();
                audit.occasion(if published.is_duplicate {
                    "an event was published again"
                } else {
                    "an event was published"
                });
                audit.told(&published.operation, None);
                audit.events.acknowledged.insert(id, kind.to_owned());
                drop(audit);
                // Who is sure publishes it again now and then all the same.
                if world.below(100) < 70 {
                    break;
                }
            }
            tokio::time::sleep(world.moment(Duration::from_secs(20))).await;
        }
    }
}

fn publication(kind: &str, number: usize) -> Option<Publication> {
    let data = serde_json::value::to_raw_value(&number).ok()?;
    Some(Publication {
        tenant: "t".to_owned(),
        principal: String::new(),
        event: Event::own(kind, None, None, Some(&data)).ok()?,
        key: Key::new(&format!("event-{number}")).ok(),
        only: None,
        trace: None,
    })
}

pub(crate) fn is_event(operation: &Operation) -> bool {
    operation.scope.kind == ScopeKind::Event
}

pub(crate) fn is_delivery(operation: &Operation) -> bool {
    operation.scope.kind == ScopeKind::Delivery
}

impl Events {
    /// What is wrong with where the events went: each goes once to each who wants it, and to nobody else.
    pub(crate) fn reckon(&self, operations: &[Operation]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut went: BTreeMap<(OperationId, &str), u64> = BTreeMap::new();
        for delivery in operations.iter().filter(|it| is_delivery(it)) {
            let Some(parent) = delivery.parent else {
                wrong.push(format!("{}: a delivery of no event", delivery.id));
                continue;
            };
            *went.entry((parent, delivery.route.as_str())).or_default() += 1;
        }
        for event in operations.iter().filter(|it| is_event(it)) {
            let Some(kind) = self.acknowledged.get(&event.id) else { continue };
            // A person gave it up before it was fanned out.
            let is_given_up = event.state == State::Dead(Death::Cancelled);
            for (route, wants) in &self.routes {
                let begins = |want: &&&str| kind.starts_with(want.trim_end_matches('*'));
                let is_wanted = wants.is_empty() || wants.iter().find(begins).is_some();
                let count = went.get(&(event.id, route.as_str())).copied().unwrap_or_default();
                let is_right = count == u64::from(is_wanted) || (is_given_up && count <= 1);
                if !is_right {
                    wrong.push(format!("{}: {count} deliveries by {route}", event.id));
                }
            }
        }
        wrong
    }
}
