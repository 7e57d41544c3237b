//! Asking the upstream what became of an operation in doubt: at once, when it has settled, and then
//! less and less often. Each look is claimed in the ledger before its GET is made, so that two nodes
//! do not both ask, and a crash only delays the next.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::attempt::{Ended, Ending, Reached};
use onceward_core::backoff;
use onceward_core::breaker::Sign;
use onceward_core::exchange::{Headers, Request, Response};
use onceward_core::id::OperationId;
use onceward_core::lookup::{self, Conclusion, Finding, LookupRule, When};
use onceward_core::operation::{Act, Deed, Event, Operation, Outcome, Source, State};
use onceward_core::policy::{Mode, Policy};
use onceward_core::template::Template;
use onceward_core::time::Timestamp;
use onceward_core::verdict::Verdict;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::deliver::collect;
use crate::engine::Engine;
use crate::gates::{Entrant, Slot};
use crate::judgement;
use crate::observe::Fact;
use crate::reconcile::reconcile;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::store::{Lane, Query, Slot as Place, Standing, StoreError, Which, Write};
use crate::upstream::{Dispatch, Sent};
use crate::wire;

/// Who acts where nobody does.
pub const WHO: &str = "lookup";

/// Operations read at once.
const PAGE: usize = 100;

/// Looks of a route under way at once.
const AT_ONCE_MAX: usize = 8;

/// Operations that a person has looked for at once.
const ASKED_MAX: usize = 1000;

/// What was heard of nothing else is looked for this often: another node may have left it.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// How long a route is left alone whose gate is shut for nobody knows how long.
const SHUT_PAUSE: Duration = Duration::from_secs(5);

/// For each operation in doubt that was read, where they are many; in all at most.
const READ_PAUSE: Duration = Duration::from_millis(1);
const READ_PAUSE_MAX: Duration = Duration::from_secs(10);

/// After a look's own time, until somebody else may think that nothing came of it.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How much is kept of what was asked, and of what was answered.
const EVIDENCE_BYTES_MAX: usize = 500;

/// What a look brought.
struct Looked {
    finding: Finding,
    /// What was asked and answered, in words.
    said: String,
    /// The whole answer.
    answer: Option<Response>,
}

/// What became of the looks that a person asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Found: they are done.
    pub found: u32,
    /// Not known there.
    pub absent: u32,
    /// Nothing was learnt.
    pub unknown: u32,
    /// Still to be asked: too many at once, or the route's gate is shut.
    pub left: u32,
}

/// What a look before the first attempt came to.
pub(crate) enum Before {
    /// It was done: nothing is sent.
    Found(Box<Write>),
    /// It was not.
    Absent,
    /// Nobody knows, so it is not sent now.
    Unknown(String),
}

/// Looks for what is in doubt on each route that says how, for ever; where none says so, nothing is
/// asked and nothing wakes.
pub(crate) async fn look(engine: Arc<Engine>) {
    let changed = engine.doubts.routes_changed();
    let mut reconciles = false;
    loop {
        if engine.is_halted() {
            return;
        }
        for route in engine.routes().named.values().filter(|route| has_lookup(route)) {
            if let Some(woken) = engine.doubts.begin(&route.name) {
                tokio::spawn(look_on_route(Arc::clone(&engine), route.name.clone(), woken));
            }
        }
        if !reconciles && engine.routes().named.values().any(|route| route.reconcile.is_some()) {
            reconciles = true;
            tokio::spawn(reconcile(Arc::clone(&engine)));
        }
        changed.notified().await;
    }
}

fn has_lookup(route: &Route) -> bool {
    let policies = route.rules.iter().map(|rule| &rule.policy).chain([&route.policy]);
    policies.into_iter().any(|policy| policy.lookup.is_some())
}

/// Looks for what is in doubt on one route, as long as it says how.
async fn look_on_route(engine: Arc<Engine>, name: String, woken: Arc<tokio::sync::Notify>) {
    while !engine.is_halted() {
        let Some(route) = engine.routes().get(&name).filter(|route| has_lookup(route)) else {
            break;
        };
        let (next, read) = match pass(&engine, &route).await {
            Ok(done) => done,
            Err(error) if error.may_pass() => (engine.clock.now().plus(SHUT_PAUSE), 0),
            Err(error) => {
                engine.heed(error);
                break;
            }
        };
        // Where much is in doubt, it is not all read again for each that is new.
        if read > PAGE {
            let pause = (READ_PAUSE * read as u32).min(READ_PAUSE_MAX);
            engine.clock.sleep_until(engine.clock.now().plus(pause)).await;
        }
        tokio::select! {
            biased;
            () = woken.notified() => {}
            () = engine.clock.sleep_until(next) => {}
        }
    }
    engine.doubts.end(&name);
}

/// Looks for everything that is due on a route; tells when to do so again, and how much was read.
async fn pass(engine: &Arc<Engine>, route: &Arc<Route>) -> Result<(Timestamp, usize), StoreError> {
    let mut next = engine.clock.now().plus(LOOK_AT_LEAST_EVERY);
    let mut looks = JoinSet::new();
    let (mut before, mut read) = (None, 0);
    'pages: loop {
        let page = in_doubt(engine, &route.name, before).await?;
        read += page.operations.len();
        for operation in page.operations {
            let Some(rule) = rule_of(route, &operation) else { continue };
            let now = engine.clock.now();
            match lookup::due(&operation) {
                None => continue,
                Some(due) if due > now => {
                    next = next.min(due);
                    continue;
                }
                Some(_) => {}
            }
            if looks.len() >= AT_ONCE_MAX {
                next = next.min(ended(looks.join_next().await)?);
            }
            let slot = match engine.gate_of(route).try_enter(&entrant(&operation), now) {
                Ok(slot) => slot,
                Err(barred) => {
                    next = next.min(barred.until.unwrap_or(now.plus(SHUT_PAUSE)));
                    break 'pages;
                }
            };
            let (engine, route) = (Arc::clone(engine), Arc::clone(route));
            let run = engine.begin();
            looks.spawn(async move {
                let _run = run;
                let looked = engine.look_for(&operation, &route, &rule, slot).await?;
                Ok(looked.and_then(|(operation, _)| lookup::due(&operation)))
            });
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    while !looks.is_empty() {
        next = next.min(ended(looks.join_next().await)?);
    }
    Ok((next, read))
}

/// When the operation whose look ended is due again.
fn ended(
    look: Option<Result<Result<Option<Timestamp>, StoreError>, tokio::task::JoinError>>,
) -> Result<Timestamp, StoreError> {
    let never = Timestamp::from_micros(i64::MAX);
    match look {
        Some(Ok(Ok(due))) => Ok(due.unwrap_or(never)),
        // What is full or away now is looked for when its claim is over.
        Some(Ok(Err(error))) if !error.may_pass() => Err(error),
        _ => Ok(never),
    }
}

async fn in_doubt(
    engine: &Engine,
    route: &str,
    before: Option<u64>,
) -> Result<crate::store::Page, StoreError> {
    let query = Query {
        standing: vec![Standing::InDoubt],
        route: Some(route.to_owned()),
        before,
        limit: PAGE,
        ..Query::default()
    };
    engine.store.list(query).await
}

/// A lookup reads and changes nothing, so it may be a probe.
fn entrant(operation: &Operation) -> Entrant {
    Entrant { lane: Lane::of(operation), is_harmless: true, is_backlog: true }
}

fn rule_of(route: &Route, operation: &Operation) -> Option<Arc<LookupRule>> {
    route.policy_for(&operation.method, &operation.target).lookup.clone()
}

impl Engine {
    /// What would be asked about an operation in doubt, where its route says how.
    pub fn lookup_of(&self, operation: &Operation) -> Option<Arc<LookupRule>> {
        rule_of(&*self.routes().get(&operation.scope.route)?, operation)
    }

    /// Asks the upstream now what became of an operation in doubt; tells where it stands then.
    pub async fn look_again(
        self: &Arc<Self>,
        id: OperationId,
    ) -> Result<(Operation, Finding), Refusal> {
        let operation = self.store.find(Which::Id(id)).await?.ok_or(Refusal::NotFound)?;
        let conflict = |operation: &Operation, why: String| Refusal::Conflict {
            operation: Box::new(operation.clone()),
            why,
        };
        if operation.state != State::InDoubt {
            let why = format!("it is {}, not in doubt", operation.state.name());
            return Err(conflict(&operation, why));
        }
        let route = self.routes().get(&operation.scope.route);
        let rule = route.as_ref().and_then(|route| rule_of(route, &operation));
        let (Some(route), Some(rule)) = (route, rule) else {
            let why = "its route says no lookup, so nobody can be asked".to_owned();
            return Err(conflict(&operation, why));
        };
        let slot = self
            .gate_of(&route)
            .try_enter(&entrant(&operation), self.clock.now())
            .map_err(|barred| self.barred(barred, &route))?;
        let engine = Arc::clone(self);
        let run = self.begin();
        let (looking, for_whom) = (operation.clone(), Arc::clone(&route));
        // Whoever asked may go away meanwhile; what was claimed is looked for all the same.
        let look = tokio::spawn(async move {
            let _run = run;
            engine.look_for(&looking, &for_whom, &rule, slot).await
        });
        match look.await.map_err(|_| Refusal::Draining)? {
            Ok(Some(looked)) => Ok(looked),
            Ok(None) => {
                Err(conflict(&operation, "it has moved on meanwhile: look at it".to_owned()))
            }
            Err(error) => Err(self.heed(error)),
        }
    }

    /// Asks the upstream now about everything that is in doubt on a route.
    pub async fn look_again_on(self: &Arc<Self>, name: &str) -> Result<Tally, Refusal> {
        let route =
            self.routes().get(name).ok_or_else(|| Refusal::RouteUnknown(name.to_owned()))?;
        let mut tally = Tally::default();
        let (mut before, mut asked) = (None, 0);
        loop {
            let page = in_doubt(self, name, before).await?;
            for operation in page.operations {
                if rule_of(&route, &operation).is_none() {
                    continue;
                }
                asked += 1;
                if asked > ASKED_MAX {
                    tally.left += 1;
                    continue;
                }
                match self.look_again(operation.id).await {
                    Ok((_, Finding::Found)) => tally.found += 1,
                    Ok((_, Finding::Absent)) => tally.absent += 1,
                    Ok((_, Finding::Unknown)) => tally.unknown += 1,
                    Err(Refusal::Barred { .. } | Refusal::Limit { .. }) => tally.left += 1,
                    // Somebody else was faster.
                    Err(Refusal::Conflict { .. } | Refusal::NotFound) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            before = page.next;
            if before.is_none() {
                return Ok(tally);
            }
        }
    }

    /// One look: claimed, made, and what follows written. Nothing where somebody else wrote
    /// meanwhile.
    async fn look_for(
        &self,
        operation: &Operation,
        route: &Route,
        rule: &LookupRule,
        mut slot: Slot,
    ) -> Result<Option<(Operation, Finding)>, StoreError> {
        let asked_at = self.clock.now();
        let until = asked_at.plus(route.target.timeouts.total).plus(LOST_AFTER);
        let claim = Event::Looked(lookup::begin(operation.looks, until));
        let Some(claimed) = self.write(operation.after(claim, asked_at), None).await? else {
            return Ok(None);
        };
        let looked = self.ask(&claimed, route, rule, &mut slot).await;
        drop(slot);
        let now = self.clock.now();
        let policy = Arc::clone(route.policy_for(&claimed.method, &claimed.target));
        let backoff = &policy.accepted;
        let conclusion = lookup::conclude(&claimed, rule, backoff, looked.finding, asked_at, now);
        let act = |deed| Act { deed, at: now, who: WHO.to_owned(), reason: looked.said.clone() };
        let (next, answer) = match conclusion {
            Conclusion::Again(looks) => (claimed.after(Event::Looked(looks), now), None),
            Conclusion::Done => {
                let (outcome, answer) = outcome_of(rule, &policy, &looked);
                (
                    claimed.after(Event::Acted(act(Deed::ResolvedDone), Some(outcome), None), now),
                    answer,
                )
            }
            Conclusion::NotDone => {
                (not_done(&claimed, &policy, act(Deed::ResolvedNotSent), now), None)
            }
        };
        let Some(written) = self.write(next, answer).await? else { return Ok(None) };
        self.observer.observe(Fact::Looked(&written, looked.finding, &looked.said));
        if written.state != State::InDoubt {
            self.observer.observe(Fact::Acted(&written));
            self.waiters.wake(written.id);
        }
        Ok(Some((written, looked.finding)))
    }

    /// Writes what the core decided; nothing where somebody else wrote meanwhile.
    async fn write(
        &self,
        decided: Result<Operation, onceward_core::operation::Illegal>,
        answer: Option<(Place, bytes::Bytes)>,
    ) -> Result<Option<Operation>, StoreError> {
        let Ok(operation) = decided else { return Ok(None) };
        match self.store.commit(Write { operation, answer, visible: true }).await {
            Ok(written) => Ok(Some(written)),
            Err(StoreError::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks before anything is sent, where the route wants that and nothing was sent yet.
    pub(crate) async fn look_before(
        &self,
        operation: &Operation,
        route: &Route,
        policy: &Policy,
        slot: &mut Slot,
    ) -> Option<Before> {
        let rule = policy.lookup.as_ref().filter(|rule| rule.when == When::Before)?;
        let was_sent = |ended: &Ended| ended.ending != Ending::Unsent;
        if operation.attempts.iter().filter_map(|attempt| attempt.ended.as_ref()).any(was_sent) {
            return None;
        }
        slot.spend();
        let looked = self.ask(operation, route, rule, slot).await;
        match looked.finding {
            Finding::Absent => return Some(Before::Absent),
            Finding::Unknown => return Some(Before::Unknown(looked.said)),
            Finding::Found => {}
        }
        let (outcome, answer) = outcome_of(rule, policy, &looked);
        let now = self.clock.now();
        let ended = Ended {
            at: now,
            ending: Ending::Unsent,
            reached: Reached::Nothing,
            status: None,
            error: Some(format!("not sent, because it was found: {}", looked.said)),
            may_have_executed: false,
            answer: None,
        };
        let done = operation.after(Event::Ended(ended, Verdict::Finish(outcome)), now).ok()?;
        Some(Before::Found(Box::new(Write { operation: done, answer, visible: false })))
    }

    /// One GET, and what its answer says.
    async fn ask(
        &self,
        operation: &Operation,
        route: &Route,
        rule: &LookupRule,
        slot: &mut Slot,
    ) -> Looked {
        let unknown = |said: String| Looked { finding: Finding::Unknown, said, answer: None };
        let target = match self.fill(&rule.get, operation).await {
            Ok(target) => target,
            Err(why) => return unknown(format!("it could not be asked: {why}")),
        };
        let asked = cut(&format!("GET {target}"));
        slot.spend();
        match self.get(route, target, slot).await {
            Err(why) => unknown(format!("{asked} brought no answer: {}", cut(&why))),
            Ok(answer) => {
                let finding = rule.read(answer.status, &answer.headers, &answer.body);
                let body = cut(String::from_utf8_lossy(&answer.body).trim());
                let said =
                    format!("{asked} answered {}, {}: {body}", answer.status, finding.name());
                Looked { finding, said, answer: Some(answer) }
            }
        }
    }

    async fn fill(&self, template: &Template, operation: &Operation) -> Result<String, String> {
        let body: Option<Value> = if template.needs_body() {
            let request = self.request_of(operation).await.map_err(|error| error.to_string())?;
            serde_json::from_slice(&request.body).ok()
        } else {
            None
        };
        let id = operation.id.to_string();
        let upstream_key = operation.upstream_key.as_ref().map(|key| key.value.as_str());
        let value = |name: &str| match name {
            "key" => Some(operation.key.as_str()),
            "operation" => Some(id.as_str()),
            "upstream_key" => Some(upstream_key.unwrap_or(operation.key.as_str())),
            _ => None,
        };
        template.fill(value, body.as_ref()).map_err(|error| error.to_string())
    }

    /// One GET at a route's upstream, with the credentials of the route; the answer whole, or why
    /// there is none.
    pub(crate) async fn get(
        &self,
        route: &Route,
        target: String,
        slot: &mut Slot,
    ) -> Result<Response, String> {
        let request = Request {
            method: "GET".to_owned(),
            target,
            headers: Headers(vec![("accept".to_owned(), "application/json, */*;q=0.5".into())]),
            body: bytes::Bytes::new(),
        };
        let mut headers = Headers(vec![("accept-encoding".to_owned(), "identity".into())]);
        for (name, value) in &route.set_headers.0 {
            headers.set(name, value.clone());
        }
        let dispatch = Dispatch {
            target: Arc::clone(&route.target),
            request: Arc::new(request),
            headers,
            doom: None,
        };
        let delivered = match self.upstream.send(dispatch).await {
            Sent::Answered(answer) => collect(answer, ANSWER_BYTES_MAX).await,
            Sent::Failed(failure) => {
                self.learn(route, slot, Sign::of(failure.ending, None), None);
                return Err(failure.error);
            }
        };
        let asked = delivered
            .response
            .as_ref()
            .filter(|response| matches!(response.status, 429 | 503))
            .and_then(|response| backoff::retry_after(&response.headers, self.clock.now()));
        self.learn(route, slot, Sign::of(delivered.ending, delivered.status), asked);
        match delivered.response {
            Some(response) if delivered.ending == Ending::Answered && delivered.rest.is_none() => {
                Ok(response)
            }
            Some(_) if delivered.rest.is_some() => {
                Err(format!("its answer is larger than {ANSWER_BYTES_MAX} bytes"))
            }
            _ => Err(delivered.error.unwrap_or_else(|| "its answer broke off".to_owned())),
        }
    }
}

/// The outcome of an operation that was found, and the answer that duplicates get.
fn outcome_of(
    rule: &LookupRule,
    policy: &Policy,
    looked: &Looked,
) -> (Outcome, Option<(Place, bytes::Bytes)>) {
    let found = looked.answer.as_ref().filter(|_| rule.is_answer);
    let status = rule.status.or_else(|| found.map(|found| found.status));
    let answer = found.map(|found| {
        let found = Response {
            status: status.unwrap_or(found.status),
            trailers: Headers::default(),
            ..found.clone()
        };
        let kept = judgement::kept(&found.headers, &policy.keep_headers);
        (Place::Outcome, wire::encode_response(&found, &kept))
    });
    (Outcome { status, ok: true, source: Source::Lookup, answer: None }, answer)
}

/// What was not done is sent again, or, where a caller waited for it, by that caller.
fn not_done(
    operation: &Operation,
    policy: &Policy,
    act: Act,
    now: Timestamp,
) -> Result<Operation, onceward_core::operation::Illegal> {
    if operation.mode == Mode::Held {
        return operation.after(Event::Acted(act, None, None), now);
    }
    let due = policy.opening(Mode::Accepted, now);
    let mut next =
        operation.after(Event::Revived { due, mode: Mode::Accepted, act: Some(act) }, now)?;
    // Nobody asked for it anew: the bounds of the call that made it hold still.
    (next.deadline, next.attempts_max) = (operation.deadline, operation.attempts_max);
    Ok(next)
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(EVIDENCE_BYTES_MAX);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}
