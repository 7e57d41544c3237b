//! A person's pause of a route: kept in the ledger, so that it outlives the process and holds on all
//! nodes. Accepted work waits, callers are refused, and nothing is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::gates::Standing;
use crate::observe::Fact;
use crate::people::Person;
use crate::refusal::Refusal;
use crate::setting;
use crate::store::StoreError;
use crate::subscription::name_of_route;

/// What the setting of a paused route is called.
const PREFIX: &str = "pause/";

/// That a route is paused: by whom, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// When.
    pub at: Timestamp,
    /// The name of the access key, or `local`.
    pub who: String,
    /// In that person's words.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct PauseRow {
    at: i64,
    who: String,
    reason: String,
}

impl Engine {
    /// Pauses a route: nothing is sent through it until it is resumed.
    pub async fn pause(self: &Arc<Self>, route: &str, person: &Person) -> Result<Pause, Refusal> {
        self.find_route(route)?;
        let pause =
            Pause { at: self.clock.now(), who: person.who.clone(), reason: person.reason.clone() };
        let row = PauseRow {
            at: pause.at.as_micros(),
            who: pause.who.clone(),
            reason: pause.reason.clone(),
        };
        let value = setting::encode(&row)?;
        self.note(person, "paused", route).await?;
        self.store.set(format!("{PREFIX}{route}"), Some(value)).await?;
        self.observer.observe(Fact::Steered(route, "paused", person));
        self.read_pauses().await?;
        Ok(pause)
    }

    /// Lets a paused route go on, slowly at first.
    pub async fn resume(self: &Arc<Self>, route: &str, person: &Person) -> Result<(), Refusal> {
        // Another node may have paused it a moment ago.
        self.read_pauses().await?;
        if !self.paused().contains_key(route) {
            return Err(Refusal::NotFound);
        }
        self.note(person, "resumed", route).await?;
        self.store.set(format!("{PREFIX}{route}"), None).await?;
        self.observer.observe(Fact::Steered(route, "resumed", person));
        if let Some(name) = name_of_route(route) {
            // Its receiver has as long again.
            self.forgive(name).await?;
        }
        Ok(self.read_pauses().await?)
    }

    /// The routes that are paused.
    pub fn paused(&self) -> Arc<BTreeMap<String, Pause>> {
        Arc::clone(&self.pauses())
    }

    /// Reads from the ledger which routes are paused: at the start, and what others did since.
    pub(crate) async fn read_pauses(&self) -> Result<(), StoreError> {
        let mut paused = BTreeMap::new();
        for (name, value) in self.store.settings(PREFIX.to_owned()).await? {
            let row: PauseRow = setting::decode(&name, &value)?;
            let Some(route) = name.strip_prefix(PREFIX) else { continue };
            let at = Timestamp::from_micros(row.at);
            paused.insert(route.to_owned(), Pause { at, who: row.who, reason: row.reason });
        }
        let before = std::mem::replace(&mut *self.pauses(), Arc::new(paused.clone()));
        for route in before.keys().chain(paused.keys()) {
            let (was, is) = (before.contains_key(route), paused.contains_key(route));
            let Some(found) = self.route(route).filter(|_| was != is) else { continue };
            self.gate_of(&found).set_paused(is, self.clock.now());
            self.observer.observe(Fact::Paused(route, is));
        }
        Ok(())
    }

    /// How the gate of a route stands.
    pub fn standing(&self, route: &str) -> Option<Standing> {
        let route = self.route(route)?;
        Some(self.gate_of(&route).standing(self.clock.now()))
    }
}
