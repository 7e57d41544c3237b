//! Workers: handlers of somebody's own, who begin what has a key, do it, and say how it ended; or
//! die, or are late, or do not know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::claim::{ClaimRule, fence_of};
use onceward::core::key::Key;
use onceward::core::operation::{Fence, Operation};
use onceward::core::policy::Effects;
use onceward::{Beginning, Begun, ClaimKey, Ended, GivenBack, Refusal};
use onceward_proof::chance::digest;

use crate::life::Pulse;
use crate::node::{Fleet, Node};
use crate::world::World;

/// How often a worker says the same again that nobody seems to have heard.
const TRIES: usize = 12;

/// How long a claim is in hand: some effects take longer.
const LEASE: Duration = Duration::from_secs(20);

/// Keys of a scope: few, so that workers meet.
const KEYS: u64 = 3;

/// The scopes: what may be repeated, and what may not.
const SCOPES: [(&str, Effects); 2] =
    [("harmless", Effects::Idempotent), ("once", Effects::NonIdempotent)];

/// What holds for claims in every world: keys are forgotten while it lasts.
pub(crate) fn rules() -> BTreeMap<String, ClaimRule> {
    let rule = |effects| ClaimRule {
        effects,
        lease: LEASE,
        window: Duration::from_mins(10),
        tombstone: Duration::from_mins(10),
        ..ClaimRule::default()
    };
    SCOPES.map(|(scope, effects)| (scope.to_owned(), rule(effects))).into_iter().collect()
}

/// Lets every worker do what there is to do.
pub(crate) async fn work(world: &Arc<World>, fleet: &Arc<Fleet>) {
    let mut workers = Vec::new();
    for _ in 0..world.plan.workers {
        workers.push(tokio::spawn(live(Arc::clone(world), Arc::clone(fleet))));
    }
    for worker in workers {
        if worker.await.is_err() {
            world.audit().violation("a worker broke".to_owned());
        }
    }
}

async fn live(world: Arc<World>, fleet: Arc<Fleet>) {
    for _ in 0..world.plan.wants * 2 {
        tokio::time::sleep(world.moment(Duration::from_mins(1))).await;
        let (scope, _) = SCOPES[world.below(2) as usize];
        let key = format!("key-{}", world.below(KEYS));
        // Both are names of our own.
        let Ok(key) = Key::new(&key) else { return };
        let which = ClaimKey { tenant: "t".to_owned(), scope: scope.to_owned(), key };
        world.audit().engaged(&which, 1);
        Box::pin(take(&world, &fleet, &which)).await;
        world.audit().engaged(&which, -1);
    }
}

/// What a worker says of a key.
#[derive(Debug)]
enum Word {
    Begin(Beginning),
    Renew(Fence),
    Release(Fence, GivenBack),
    Complete(Fence, Ended),
}

/// What it hears.
enum Heard {
    Begun(Begun),
    Said(Box<Operation>),
}

impl Word {
    async fn said_to(&self, node: &Node, which: &ClaimKey) -> Result<Heard, Refusal> {
        let engine = &node.engine;
        match self {
            Self::Begin(beginning) => engine.begin_claim(which, beginning).await.map(Heard::Begun),
            Self::Renew(fence) => {
                engine.renew_claim(which, *fence, None).await.map(Box::new).map(Heard::Said)
            }
            Self::Release(fence, back) => {
                engine.release_claim(which, *fence, back).await.map(Box::new).map(Heard::Said)
            }
            Self::Complete(fence, ended) => {
                engine.complete_claim(which, *fence, ended).await.map(Box::new).map(Heard::Said)
            }
        }
    }
}

/// Says it, to some node or other, until somebody answers; nothing where nobody does.
async fn say(
    world: &Arc<World>,
    fleet: &Arc<Fleet>,
    which: &ClaimKey,
    said: &Word,
) -> Option<Result<Heard, Refusal>> {
    for _ in 0..TRIES {
        if let Some(node) = fleet.any(world) {
            let hang_up = world.befalls("worker hung up", world.plan.faults.hang_up);
            let patience =
                if hang_up { world.moment(Duration::from_secs(1)) } else { Duration::from_mins(2) };
            let heard = tokio::select! {
                biased;
                () = node.life.death() => None,
                heard = said.said_to(&node, which) => Some(heard),
                () = tokio::time::sleep(patience) => None,
            };
            // The last words of a dead node reach nobody.
            match heard.filter(|_| !node.life.is(Pulse::Dead)) {
                None
                | Some(Err(Refusal::Ledger(_) | Refusal::Draining | Refusal::Limit { .. })) => {}
                heard => return heard,
            }
        }
        tokio::time::sleep(world.moment(Duration::from_secs(5))).await;
    }
    None
}

/// Begins it, and does it where that is its own.
async fn take(world: &Arc<World>, fleet: &Arc<Fleet>, which: &ClaimKey) {
    let beginning = Beginning {
        nonce: Some(format!("{:x}", world.chance().next())),
        wait: world.moment(Duration::from_secs(10)),
        ..Beginning::default()
    };
    match say(world, fleet, which, &Word::Begin(beginning)).await {
        Some(Ok(Heard::Begun(Begun::Acquired(claim)))) => {
            if let Some(fence) = fence_of(&claim) {
                do_it(world, fleet, which, &claim, fence).await;
            }
        }
        Some(Ok(Heard::Begun(Begun::Done(claim, outcome)))) => {
            let outcome = outcome.map(|outcome| digest(&&outcome.body[..]));
            world.audit().claim_told(&claim, outcome);
        }
        Some(
            Ok(Heard::Begun(Begun::Busy(..) | Begun::InDoubt(_)) | Heard::Said(_))
            | Err(Refusal::KeyExpired(_) | Refusal::KeyInvalidated(_)),
        )
        | None => {}
        Some(Err(other)) => {
            world.audit().violation(format!("{}: refused with {other:?}", which.key));
        }
    }
}

async fn do_it(
    world: &Arc<World>,
    fleet: &Arc<Fleet>,
    which: &ClaimKey,
    claim: &Operation,
    fence: Fence,
) {
    if world.befalls("worker died before", world.plan.faults.worker) {
        return;
    }
    tokio::time::sleep(world.moment(LEASE)).await;
    if world.below(100) < 40 {
        say(world, fleet, which, &Word::Renew(fence)).await;
        tokio::time::sleep(world.moment(LEASE)).await;
    }
    if world.below(100) < 20 {
        let back = GivenBack {
            retry_after: world.moment(Duration::from_secs(30)),
            may_have_executed: world.below(100) < 20,
            ..GivenBack::default()
        };
        say(world, fleet, which, &Word::Release(fence, back)).await;
        return;
    }
    let outcome = world.audit().claim_lands(claim, fence);
    if world.befalls("worker died after", world.plan.faults.worker) {
        return;
    }
    let ended = Ended { ok: true, outcome: Bytes::from(outcome), content_type: None };
    let told = digest(&&ended.outcome[..]);
    match say(world, fleet, which, &Word::Complete(fence, ended)).await {
        Some(Ok(Heard::Said(claim))) => world.audit().claim_told(&claim, Some(told)),
        // Somebody else began it since, or a person has decided, or it has been forgotten.
        Some(Ok(Heard::Begun(_)) | Err(Refusal::FenceStale(_) | Refusal::NotFound)) | None => {}
        Some(Err(other)) => {
            world.audit().violation(format!("{}: not completed: {other:?}", which.key));
        }
    }
}
