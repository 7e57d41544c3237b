//! Calls that pass through without a record: what only reads, and what a route lets pass.
//!
//! Nothing of them is kept, so both bodies go through as they come. A slot is a call that the
//! upstream works on: it is free again once the head of the answer came, however long the rest of it
//! takes, so that streams without an end starve nobody.

use std::future::Future;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use onceward_core::attempt::Ending;
use onceward_core::backoff;
use onceward_core::breaker::Sign;
use onceward_core::exchange::{Headers, Request};
use onceward_core::hint::{Hint, HintHeader};
use onceward_core::id::OperationId;
use onceward_core::policy::is_safe;
use onceward_core::time::Timestamp;

use crate::call::Passing;
use crate::edge::header_map;
use crate::engine::{Answer, Engine};
use crate::gates::Entrant;
use crate::receive::preferences_of_others;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::sabotage::Sabotage;
use crate::secret::random;
use crate::store::Lane;
use crate::upstream::{Download, Failure, Passage, Upload, forward, lines};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const ATTEMPT: HeaderName = HeaderName::from_static("onceward-attempt");
const FIRST: HeaderValue = HeaderValue::from_static("1");

/// Passes a request on, and its answer back.
pub(crate) fn pass(
    engine: &Arc<Engine>,
    passing: Passing,
) -> impl Future<Output = Result<Response<Download>, Refusal>> + Send {
    let Passing { tenant, route, method, path, mut headers, upload, flow, said } = passing;
    forward(&mut headers);
    if let Some(rest) = headers.get(PREFER).and_then(|it| it.to_str().ok()) {
        match HeaderValue::from_str(&preferences_of_others(rest)) {
            Ok(rest) if !rest.is_empty() => headers.insert(PREFER, rest),
            _ => headers.remove(PREFER),
        };
    }
    // Which host is asked is the connection's to say, unless the edge says it.
    headers.insert(HOST, HeaderValue::from_static(""));
    headers.extend(said);
    let lane = Lane { tenant, route: route.name.clone(), flow: flow.unwrap_or_default() };
    let target = Arc::clone(&route.target);
    through(engine, lane, route, Passage { target, method, path, headers, upload })
}

/// The same for a request that was received whole before anybody could tell that it passes.
pub(crate) async fn pass_whole(
    engine: &Arc<Engine>,
    lane: Lane,
    route: &Arc<Route>,
    request: &Request,
) -> Result<Answer, Refusal> {
    let unfit = |what: &str| Refusal::PassFailed {
        error: format!("the {what} cannot be sent as it is"),
        unsent: true,
    };
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| unfit("method"))?;
    let path = PathAndQuery::try_from(request.target.as_str()).map_err(|_| unfit("path"))?;
    let headers = header_map(&request.headers);
    let upload = Upload::whole(request.body.clone());
    let target = Arc::clone(&route.target);
    let passage = Passage { target, method, path, headers, upload };
    let response = through(engine, lane, Arc::clone(route), passage).await?;
    let (head, body) = response.into_parts();
    Ok(Answer::Passed {
        status: head.status.as_u16(),
        headers: lines(head.headers),
        body: Box::new(body),
    })
}

async fn through(
    engine: &Arc<Engine>,
    lane: Lane,
    route: Arc<Route>,
    mut passage: Passage,
) -> Result<Response<Download>, Refusal> {
    if engine.is_halted() {
        return Err(Refusal::Draining);
    }
    let route = &route;
    let presence = engine.admit_passing(&lane.tenant).await?;
    let is_harmless = is_safe(passage.method.as_str());
    let entrant = Entrant { lane: lane.into(), is_harmless, is_backlog: false };
    let gate = engine.gate_of(route);
    let mut slot = gate.try_enter(&entrant, engine.clock.now()).map_err(|barred| {
        if barred.wants_probe {
            engine.probe(route);
        }
        engine.barred(barred, route)
    })?;
    slot.spend();
    slot.attend(presence);
    let policy = route.policy_for(passage.method.as_str(), passage.path.as_str());
    lay_on(&mut passage.headers, &route.set_headers);
    let mut attempt = 1;
    loop {
        let number = if attempt == 1 { FIRST } else { HeaderValue::from(attempt) };
        passage.headers.insert(ATTEMPT, number);
        let (sent, is_renewed) = send(engine, route, &mut passage).await;
        let asked = match &sent {
            Ok(response) => wait_asked(response, &policy.hints, || engine.clock.now()),
            Err(_) => None,
        };
        let is_held =
            |response: &Response<Download>| matches!(response.status().as_u16(), 429 | 503);
        let held_for = asked.filter(|_| sent.as_ref().is_ok_and(is_held));
        let sign = sign_of(&sent);
        let may_repeat = match &sent {
            Err(failure) if failure.permanent => false,
            Err(_) if Sabotage::PassResent.is_on() => true,
            Err(failure) => failure.ending == Ending::Unsent || is_harmless,
            Ok(_) if is_renewed => is_harmless,
            Ok(response) => is_harmless && matches!(response.status().as_u16(), 502..=504),
        };
        let is_last =
            !may_repeat || !passage.upload.is_fresh() || attempt >= policy.held.attempts_max;
        if is_last {
            if let Some(sign) = sign {
                engine.leave(route, slot, sign, held_for);
            }
            return sent.map_err(refusal);
        }
        if let Some(sign) = sign {
            engine.learn(route, &mut slot, sign, held_for);
        }
        if gate.withdraw(engine.clock.now()) {
            let chance = OperationId::from_u128(u128::from_le_bytes(random()));
            let delay = backoff::delay(&policy.held, chance, attempt, asked);
            // A caller waits for an answer, not for an hour.
            if delay <= policy.held.cap {
                engine.clock.sleep_until(engine.clock.now().plus(delay)).await;
                let now = engine.clock.now();
                if let Ok(turn) = gate.pay(&mut slot, is_harmless, now, now.plus(delay)) {
                    engine.clock.sleep_until(turn).await;
                    attempt += 1;
                    continue;
                }
            }
        }
        return sent.map_err(refusal);
    }
}

fn refusal(failure: Failure) -> Refusal {
    Refusal::PassFailed { error: failure.error, unsent: failure.ending == Ending::Unsent }
}

/// One attempt, and whether it was refused for a token in whose place there is going to be another.
async fn send(
    engine: &Engine,
    route: &Route,
    passage: &mut Passage,
) -> (Result<Response<Download>, Failure>, bool) {
    let Some(oauth2) = &route.auth.oauth2 else {
        return (engine.upstream.pass(passage).await, false);
    };
    let token = match Box::pin(oauth2.token(&*engine.upstream)).await {
        Ok(token) => token,
        Err(failure) => return (Err(failure), false),
    };
    passage.headers.insert(AUTHORIZATION, token.line().clone());
    let sent = engine.upstream.pass(passage).await;
    let is_refused = sent.as_ref().is_ok_and(|it| it.status() == StatusCode::UNAUTHORIZED);
    let is_renewed = is_refused && oauth2.refused(&token).await;
    (sent, is_renewed)
}

/// Credentials of ours, in the place of a caller's.
fn lay_on(headers: &mut HeaderMap, set: &Headers) {
    if set.0.is_empty() {
        return;
    }
    for (name, value) in header_map(set) {
        if let Some(name) = name {
            headers.insert(name, value);
        }
    }
}

/// How long an upstream that refuses asks to be left alone.
fn wait_asked(
    response: &Response<Download>,
    hints: &[HintHeader],
    now: impl FnOnce() -> Timestamp,
) -> Option<std::time::Duration> {
    let refuses = matches!(response.status().as_u16(), 429 | 502..=504);
    refuses.then(|| Hint::of(&lines(response.headers().clone()), hints, now()).wait).flatten()
}

/// What came back says of the upstream, too; what was refused here says nothing of it.
fn sign_of(sent: &Result<Response<Download>, Failure>) -> Option<Sign> {
    match sent {
        Ok(response) => Some(Sign::of(Ending::Answered, Some(response.status().as_u16()))),
        Err(failure) => (!failure.permanent).then(|| Sign::of(failure.ending, None)),
    }
}
