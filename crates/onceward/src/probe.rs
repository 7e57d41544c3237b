//! Probing an upstream whose breaker is half-open, where what waits for it is too dangerous to be a
//! probe itself: a GET that the route names, or a HEAD, which by its definition changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use onceward_core::attempt::Ending;
use onceward_core::breaker::Sign;
use onceward_core::exchange::{Headers, Request};

use crate::engine::Engine;
use crate::gates::{Entrant, Gate};
use crate::route::Route;
use crate::store::Lane;
use crate::upstream::{Dispatch, Sent};

impl Engine {
    /// Probes the upstream of `route` until its breaker is open or closed, in a task of its own.
    pub(crate) fn probe(self: &Arc<Self>, route: &Arc<Route>) {
        let gate = self.gate_of(route);
        if !gate.begin_probing() {
            return;
        }
        let (engine, route) = (Arc::clone(self), Arc::clone(route));
        self.go_on_with(async move {
            while !engine.is_halted() && probe_once(&engine, &route, &gate).await {}
            gate.end_probing();
        });
    }
}

/// One probe, where one is wanted still.
async fn probe_once(engine: &Engine, route: &Route, gate: &Arc<Gate>) -> bool {
    let lane = Arc::new(Lane { route: route.name.clone(), ..Lane::default() });
    let entrant = Entrant { lane, is_harmless: true, is_backlog: false };
    let Ok(mut slot) = gate.try_enter(&entrant, engine.clock.now()) else { return false };
    if !slot.is_probe() {
        return false;
    }
    slot.spend();
    let health = route.protection.health.as_deref();
    let request = Request {
        method: if health.is_some() { "GET" } else { "HEAD" }.to_owned(),
        target: health.unwrap_or("/").to_owned(),
        headers: Headers::default(),
        body: Bytes::new(),
    };
    let sign = match ask(engine, route, request).await {
        Sent::Answered(answer) => Sign::of(Ending::Answered, Some(answer.status)),
        Sent::Failed(failure) => Sign::of(failure.ending, None),
    };
    engine.learn(route, &mut slot, sign, None);
    true
}

async fn ask(engine: &Engine, route: &Route, request: Request) -> Sent {
    let mut headers = route.set_headers.clone();
    if let Some(oauth2) = &route.auth.oauth2 {
        match oauth2.token(&*engine.upstream).await {
            Ok(token) => token.lay_on(&mut headers),
            Err(failure) => return Sent::Failed(failure),
        }
    }
    let (target, request) = (Arc::clone(&route.target), Arc::new(request));
    engine.upstream.send(Dispatch { target, request, headers, doom: None }).await
}
