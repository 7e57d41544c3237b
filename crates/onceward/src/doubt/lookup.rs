//! Asking the upstream what became of an operation in doubt: at once, when it has settled, and then
//! less and less often. Each look is claimed in the ledger before its GET is made, so that two nodes
//! do not both ask, and a crash only delays the next.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::attempt::{Ended, Ending, Reached, Timings};
use onceward_core::backoff;
use onceward_core::breaker::Sign;
use onceward_core::exchange::{Headers, Request, Response};
use onceward_core::lookup::{self, Conclusion, Finding, LookupRule, When};
use onceward_core::operation::{Event, Operation, Outcome, Source, State};
use onceward_core::path_template::PathTemplate;
use onceward_core::policy::Policy;
use onceward_core::verdict::Verdict;
use serde_json::Value;

use super::{Proof, cut};
use crate::deliver::collect;
use crate::engine::Engine;
use crate::gates::Slot;
use crate::judgement;
use crate::observe::Fact;
use crate::route::Route;
use crate::store::{Slot as Place, StoreError, Write};
use crate::upstream::{Dispatch, Sent};
use crate::wire::{self, Sealing};

/// Who acts where nobody does.
pub const WHO: &str = "lookup";

/// After a look's own time, until somebody else may think that nothing came of it.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How much is kept of what was asked, and of what was answered.
const EVIDENCE_BYTES_MAX: usize = 500;

/// What a look brought.
struct Looked {
    finding: Finding,
    /// What came of it, for logs: no value of the request and nothing of the answer.
    told: String,
    /// What was asked and answered.
    evidence: String,
    /// The whole answer.
    answer: Option<Response>,
}

impl Looked {
    /// For the ledger: what came of it, and behind a line break the evidence, which no log has.
    fn reason(&self) -> String {
        format!("{}\n{}", self.told, self.evidence)
    }
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

/// How the upstream of an operation is asked.
pub(super) fn rule_of(route: &Route, operation: &Operation) -> Option<Arc<LookupRule>> {
    route.policy_for(&operation.method, &operation.target).lookup.clone()
}

impl Engine {
    /// What would be asked about an operation in doubt, where its route says how.
    pub fn lookup_of(&self, operation: &Operation) -> Option<Arc<LookupRule>> {
        rule_of(&*self.route(&operation.route)?, operation)
    }

    /// One look: claimed, made, and what follows written. Nothing where somebody else wrote
    /// meanwhile.
    pub(super) async fn look_for(
        &self,
        operation: &Operation,
        route: &Route,
        rule: &LookupRule,
        mut slot: Slot,
    ) -> Result<Option<(Operation, Finding)>, StoreError> {
        let asked_at = self.clock.now();
        let until = asked_at.plus(route.target.timeouts.total).plus(LOST_AFTER);
        let claim = Event::Looked(lookup::begin(operation.looks, until));
        let Some(claimed) = self.write(operation.after(claim, asked_at), None, true).await? else {
            return Ok(None);
        };
        let looked = self.ask(&claimed, route, rule, &mut slot).await;
        drop(slot);
        let now = self.clock.now();
        let policy = Arc::clone(route.policy_for(&claimed.method, &claimed.target));
        let backoff = &policy.accepted;
        let conclusion = lookup::conclude(&claimed, rule, backoff, looked.finding, asked_at, now);
        let proof = |done| Proof { done, who: WHO.to_owned(), reason: looked.reason() };
        let (next, answer) = match conclusion {
            Conclusion::Again(looks) => (claimed.after(Event::Looked(looks), now), None),
            Conclusion::Done => {
                let (outcome, answer) = self.outcome_of(&claimed, rule, &policy, &looked);
                (proof(Some(outcome)).ends(&claimed, &policy, false, now), answer)
            }
            Conclusion::NotDone => {
                let is_given_up = self.is_given_up(&claimed).await?;
                (proof(None).ends(&claimed, &policy, is_given_up, now), None)
            }
        };
        let Some(written) = self.write(next, answer, true).await? else { return Ok(None) };
        self.observer.observe(Fact::Looked(&written, looked.finding, &looked.told));
        if written.state != State::InDoubt {
            self.acted(&written).await;
        }
        Ok(Some((written, looked.finding)))
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
            Finding::Unknown => return Some(Before::Unknown(looked.told)),
            Finding::Found => {}
        }
        let (outcome, answer) = self.outcome_of(operation, rule, policy, &looked);
        let now = self.clock.now();
        let ended = Ended {
            at: now,
            ending: Ending::Unsent,
            reached: Reached::Nothing,
            status: None,
            error: Some(format!("not sent, because it was found: {}", looked.told)),
            may_have_executed: false,
            answer: None,
            timings: Timings::default(),
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
        let template = rule.get.as_str();
        let unknown = |told: String, evidence: String| Looked {
            finding: Finding::Unknown,
            told,
            evidence,
            answer: None,
        };
        let target = match self.fill(&rule.get, operation).await {
            Ok(target) => target,
            Err(why) => {
                return unknown(format!("GET {template} cannot be asked: {why}"), String::new());
            }
        };
        let asked = cut(&format!("GET {target}"), EVIDENCE_BYTES_MAX);
        slot.spend();
        match self.get(route, target, slot).await {
            Err(why) => unknown(
                format!("GET {template} brought no answer: {}", cut(&why, EVIDENCE_BYTES_MAX)),
                asked,
            ),
            Ok(answer) => {
                let finding = rule.read(answer.status, &answer.headers, &answer.body);
                let told = format!("GET {template} answered {}, {}", answer.status, finding.name());
                let seen = self.redaction_of(operation).response(answer.clone()).0;
                let body = cut(String::from_utf8_lossy(&seen.body).trim(), EVIDENCE_BYTES_MAX);
                Looked { finding, told, evidence: format!("{asked}: {body}"), answer: Some(answer) }
            }
        }
    }

    async fn fill(&self, template: &PathTemplate, operation: &Operation) -> Result<String, String> {
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
        let mut used = None;
        if let Some(oauth2) = &route.auth.oauth2 {
            match oauth2.token(&*self.upstream).await {
                Ok(token) => {
                    token.lay_on(&mut headers);
                    used = Some((oauth2, token));
                }
                Err(failure) => {
                    self.learn(route, slot, Sign::of(failure.ending, None), None);
                    return Err(failure.error);
                }
            }
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
        if let Some((oauth2, token)) = used.filter(|_| delivered.status == Some(401)) {
            oauth2.refused(&token).await;
        }
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

    /// The outcome of an operation that was found, and the answer that duplicates get.
    fn outcome_of(
        &self,
        operation: &Operation,
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
            let (id, sealing) = (operation.id, Sealing::of(policy));
            (Place::Outcome, wire::encode_response(&found, &kept, id, &self.secrets, sealing))
        });
        (Outcome { status, ok: true, source: Source::Lookup, answer: None }, answer)
    }
}
