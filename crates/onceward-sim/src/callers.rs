//! Callers: each wants a few things, one after the other, and asks again with the same key where
//! it has to. They also do what callers do: ask twice at once, hang up, ask late, and get keys
//! wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request};
use onceward::core::operation::{Operation, State};
use onceward::store::StoreError;
use onceward::{Answer, Call, CallOptions, Refusal};
use onceward_proof::chance::{Chance, digest};

use crate::life::Pulse;
use crate::node::Fleet;
use crate::routes::Kind;
use crate::world::World;

/// How often a caller asks again for one thing.
const TRIES: u64 = 7;

/// One thing that a caller wants.
#[derive(Debug, Clone)]
struct Want {
    kind: Kind,
    key: String,
    body: String,
    principal: &'static str,
    accepted: bool,
    /// What it is about, and its number among those about the same.
    subject: Option<(String, Option<u64>)>,
}

/// What a caller heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// How it ended.
    Final,
    /// That it is taken.
    Taken,
    /// That it is to ask again, or nothing at all.
    Again,
    /// That asking again does not help.
    Never,
}

/// Lets every caller have what it wants.
pub(crate) async fn call(world: &Arc<World>, fleet: &Arc<Fleet>) {
    let mut callers = Vec::new();
    for caller in 0..world.plan.callers {
        callers.push(tokio::spawn(live(caller, Arc::clone(world), Arc::clone(fleet))));
    }
    for caller in callers {
        if caller.await.is_err() {
            world.audit().violation("a caller broke".to_owned());
        }
    }
}

async fn live(caller: usize, world: Arc<World>, fleet: Arc<Fleet>) {
    let mut earlier: Vec<Want> = Vec::new();
    for place in 0..world.plan.wants {
        tokio::time::sleep(world.moment(Duration::from_secs(40))).await;
        let late = world.below(100) < 20;
        let again = (late && !earlier.is_empty())
            .then(|| earlier[world.below(earlier.len() as u64) as usize].clone());
        if again.is_some() {
            // Mostly within its window, now and then after it.
            tokio::time::sleep(world.moment(Duration::from_mins(30))).await;
        }
        let want = again.unwrap_or_else(|| {
            let kind = Kind::ALL[world.below(3) as usize];
            let key = format!("{}-{caller}-{place}", kind.name());
            Want {
                kind,
                body: format!("{{\"want\":\"{key}\"}}"),
                subject: subject_of(&key, world.plan.seed),
                key,
                principal: ["anna", "ben"][world.below(2) as usize],
                accepted: world.below(100) < 45,
            }
        });
        Box::pin(have(&world, &fleet, &want)).await;
        match world.below(10) {
            0 | 1 => {
                let mut other = want.clone();
                other.body = format!("{{\"other\":\"{}\"}}", want.key);
                ask(&world, &fleet, &other).await;
            }
            2 => {
                let principal = if want.principal == "anna" { "ben" } else { "anna" };
                let body = format!("{{\"want\":\"{}\",\"of\":\"{principal}\"}}", want.key);
                let theirs = Want { body, principal, ..want.clone() };
                Box::pin(have(&world, &fleet, &theirs)).await;
            }
            _ => {}
        }
        earlier.push(want);
    }
}

/// Asks until it is had, or hopeless.
async fn have(world: &Arc<World>, fleet: &Arc<Fleet>, want: &Want) {
    for _ in 0..TRIES {
        let heard = if world.below(100) < 25 {
            let (one, other) = tokio::join!(ask(world, fleet, want), ask(world, fleet, want));
            if one == Heard::Final { one } else { other }
        } else {
            ask(world, fleet, want).await
        };
        match heard {
            Heard::Final | Heard::Never => {
                // Who is sure asks again now and then all the same.
                if world.below(100) < 60 {
                    return;
                }
            }
            Heard::Taken | Heard::Again => {}
        }
        tokio::time::sleep(world.moment(Duration::from_secs(20))).await;
    }
}

/// What a thing is about, in every third world: few subjects, so that they meet.
fn subject_of(key: &str, seed: u64) -> Option<(String, Option<u64>)> {
    let mut chance = Chance(digest(&(key, seed)));
    if !seed.is_multiple_of(3) || chance.percent(20) {
        return None;
    }
    let sequence = chance.percent(75).then(|| chance.below(8));
    Some((format!("subject-{}", chance.below(2)), sequence))
}

fn request(want: &Want) -> Call {
    let mut headers = Headers::default();
    headers.set("content-type", "application/json");
    headers.set("idempotency-key", want.key.clone());
    Call {
        tenant: "t".to_owned(),
        principal: want.principal.to_owned(),
        route: want.kind.name().to_owned(),
        request: Request {
            method: "POST".to_owned(),
            target: "/things".to_owned(),
            headers,
            body: Bytes::from(want.body.clone()),
        },
        options: CallOptions {
            respond_async: want.accepted,
            // Whose request an operation was made from.
            label: Some(name(want)),
            subject: want.subject.clone().map(|(name, _)| name),
            sequence: want.subject.as_ref().and_then(|(_, sequence)| *sequence),
            ..CallOptions::default()
        },
    }
}

fn name(want: &Want) -> String {
    format!("{}/{}/{}/{}", want.kind.name(), want.principal, want.key, want.body)
}

/// Asks once, some node or other.
async fn ask(world: &Arc<World>, fleet: &Arc<Fleet>, want: &Want) -> Heard {
    let Some(node) = fleet.any(world) else { return Heard::Again };
    let hang_up = world.befalls("caller hung up", world.plan.faults.hang_up);
    let patience =
        if hang_up { world.moment(Duration::from_secs(2)) } else { Duration::from_mins(10) };
    let answer = tokio::select! {
        biased;
        () = node.life.death() => None,
        answer = node.engine.call(request(want)) => Some(answer),
        () = tokio::time::sleep(patience) => None,
    };
    // The last words of a dead node reach nobody.
    let heard = answer.filter(|_| !node.life.is(Pulse::Dead));
    let not_taken = matches!(
        heard,
        Some(Err(Refusal::Limit { .. }
            | Refusal::Barred { .. }
            | Refusal::Ledger(StoreError::Full(_))))
    );
    world.audit().heard(&name(want), not_taken);
    let Some(answer) = heard else { return Heard::Again };
    match answer {
        Ok(Answer::Upstream(answered)) => {
            let body = digest(&(answered.response.status, &answered.response.body[..]));
            told(world, want, &answered.operation, Some(body));
            match answered.operation.state {
                State::Done => Heard::Final,
                _ => Heard::Again,
            }
        }
        Ok(Answer::Accepted(operation)) => {
            told(world, want, &operation, None);
            Heard::Taken
        }
        Ok(Answer::Passed { .. }) => {
            world.audit().violation(format!("{}: passed without a record", want.key));
            Heard::Never
        }
        Err(refusal) => refused(world, want, &refusal),
    }
}

fn told(world: &World, want: &Want, operation: &Operation, answer: Option<u64>) {
    let mut audit = world.audit();
    if operation.label.as_ref().is_some_and(|label| *label != name(want)) {
        audit.violation(format!("{}: got the answer of {:?}", name(want), operation.label));
    }
    audit.told(operation, answer);
}

fn refused(world: &World, want: &Want, refusal: &Refusal) -> Heard {
    match refusal {
        Refusal::InProgress(operation)
        | Refusal::StillWorking(operation)
        | Refusal::NoAnswer(operation)
        | Refusal::UpstreamUnreachable(operation)
        | Refusal::OutcomeUnknown { operation, .. }
        | Refusal::ResponseNotRetained(operation) => {
            told(world, want, operation, None);
            Heard::Again
        }
        Refusal::KeyMismatch { operation, .. } => {
            world.audit().occasion("mismatch");
            if operation.label.as_ref().is_some_and(|label| *label == name(want)) {
                world.audit().violation(format!("{}: a mismatch with itself", want.key));
            }
            Heard::Never
        }
        Refusal::KeyExpired(_) => {
            world.audit().occasion("key expired");
            Heard::Never
        }
        Refusal::KeyInvalidated(_) => {
            world.audit().occasion("key invalidated");
            Heard::Never
        }
        Refusal::Limit { .. } => {
            world.audit().occasion("over the limit");
            Heard::Again
        }
        Refusal::Barred { why, .. } => {
            world.audit().occasion(why.name());
            Heard::Again
        }
        Refusal::Cancelled(_) => Heard::Never,
        Refusal::Ledger(_) | Refusal::Draining => Heard::Again,
        other => {
            world.audit().violation(format!("{}: refused with {other:?}", want.key));
            Heard::Never
        }
    }
}
