//! Probing an upstream whose breaker is half-open, where what waits for it is too dangerous to be a
//! probe itself, or where a person wants to know now: a GET that the route names, or a HEAD, which by
//! its definition changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::attempt::Ending;
use onceward_core::breaker::Sign;
use onceward_core::exchange::{Headers, Request};

use crate::engine::Engine;
use crate::gates::{Entrant, Gate, Probed};
use crate::observe::Fact;
use crate::people::Person;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::setting;
use crate::store::{Lane, StoreError};
use crate::upstream::{Dispatch, Sent};

/// What the setting of a route is called whose upstream a person wanted asked at once, on all nodes.
const PREFIX: &str = "probe/";

/// How long whoever wants to know waits for it.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// When a person last wanted an upstream asked, by route: what of the ledger this node has heeded.
#[derive(Debug, Default)]
pub(crate) struct Wishes(Mutex<BTreeMap<String, i64>>);

impl Engine {
    /// Asks the upstream of `route` now, where its breaker would have it asked later: by probes, as a breaker
    /// that is half-open has them sent, and what they come to decides. Comes back once that is known, or after
    /// ten seconds. Other nodes do the same with their next beat.
    pub async fn probe_now(self: &Arc<Self>, route: &str, person: &Person) -> Result<(), Refusal> {
        let found = self.find_route(route)?;
        if self.is_halted() {
            return Err(Refusal::Draining);
        }
        self.note(person, "probed", route).await?;
        self.observer.observe(Fact::Steered(route, "probed", person));
        if self.store.is_shared() {
            let now = self.clock.now().as_micros();
            self.store.set(format!("{PREFIX}{route}"), Some(setting::encode(&now)?)).await?;
            self.probe_wishes.heed(route.to_owned(), now);
        }
        let gate = self.gate_of(&found);
        // Before they begin, so that their end is not missed.
        let is_over = gate.probed();
        if self.probe_early(&found) {
            let patience = self.clock.sleep_until(self.clock.now().plus(WAIT_MAX));
            tokio::select! {
                () = is_over => {}
                () = patience => {}
            }
        }
        Ok(())
    }

    /// Probes a breaker that is not closed, though its time has not come; tells whether there is anything to ask.
    fn probe_early(self: &Arc<Self>, route: &Arc<Route>) -> bool {
        let is_wanted = self.gate_of(route).ask_now(self.clock.now());
        if is_wanted {
            self.probe(route);
        }
        is_wanted
    }

    /// Asks the upstreams that people at other nodes wanted asked since this was last looked at.
    pub(crate) async fn heed_probe_wishes(self: &Arc<Self>) -> Result<(), StoreError> {
        for route in self.read_probe_wishes().await? {
            if let Some(route) = self.route(&route) {
                self.probe_early(&route);
            }
        }
        Ok(())
    }

    /// The routes whose upstreams somebody wanted asked since this was last read. At the start nobody heeds
    /// them: it may be long ago.
    pub(crate) async fn read_probe_wishes(&self) -> Result<Vec<String>, StoreError> {
        let mut fresh = Vec::new();
        for (name, value) in self.store.settings(PREFIX.to_owned()).await? {
            let at: i64 = setting::decode(&name, &value)?;
            let Some(route) = name.strip_prefix(PREFIX) else { continue };
            if self.probe_wishes.heed(route.to_owned(), at) {
                fresh.push(route.to_owned());
            }
        }
        Ok(fresh)
    }

    /// Probes the upstream of `route` until its breaker is open or closed, in a task of its own.
    pub(crate) fn probe(self: &Arc<Self>, route: &Arc<Route>) {
        let gate = self.gate_of(route);
        if !gate.begin_probing() {
            return;
        }
        let (engine, route) = (Arc::clone(self), Arc::clone(route));
        self.go_on_with(async move {
            loop {
                while !engine.is_halted() && probe_once(&engine, &route, &gate).await {}
                if gate.end_probing() {
                    return;
                }
            }
        });
    }
}

impl Wishes {
    /// Tells whether it is new that one was wanted then.
    fn heed(&self, route: String, at: i64) -> bool {
        let mut wishes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.insert(route, at) != Some(at)
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
    let (ending, status, error) = match ask(engine, route, request).await {
        Sent::Answered(answer) => (Ending::Answered, Some(answer.status), None),
        Sent::Failed(failure) => (failure.ending, None, Some(failure.error)),
    };
    gate.tell_probed(Probed { at: engine.clock.now(), status, error });
    engine.learn(route, &mut slot, Sign::of(ending, status), None);
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
