//! What `check` says of effects: which ones the file says, which are inferred, and what follows.

use onceward::core::policy::{Effects, Policy};
use onceward::route::Route;
use serde::Serialize;

use super::Config;

/// What `check` says of a route or rule.
#[derive(Debug, Serialize)]
pub(crate) struct Inferred {
    pub(crate) route: String,
    pub(crate) r#match: String,
    pub(crate) effects: &'static str,
    pub(crate) said: bool,
    pub(crate) after_no_answer: &'static str,
}

impl Config {
    /// The table of effects: what the configuration says, and what is inferred from methods.
    pub(crate) fn inferred(&self) -> Vec<Inferred> {
        let mut table = Vec::new();
        for route in self.routes.values() {
            for rule in &route.rules {
                let method = rule.method.as_deref();
                let matched = format!("{} {}", method.unwrap_or("*"), rule.path);
                table.push(inferred(route, matched, &rule.policy, method.unwrap_or("POST")));
            }
            let rest: &[_] = if route.policy.effects.is_some() {
                &[("* /**", "POST")]
            } else {
                &[("PUT, DELETE /**", "PUT"), ("POST, PATCH, … /**", "POST")]
            };
            for (matched, method) in rest {
                table.push(inferred(route, (*matched).to_owned(), &route.policy, method));
            }
        }
        table
    }
}

fn inferred(route: &Route, matched: String, policy: &Policy, method: &str) -> Inferred {
    let effects = policy.effects_of(method);
    let after_no_answer = match effects {
        Effects::Idempotent => "sent again",
        Effects::Keyed => "sent again with the same key",
        Effects::NonIdempotent if policy.lookup.is_some() => "in doubt, and the upstream is asked",
        Effects::NonIdempotent => "in doubt, not sent again",
    };
    Inferred {
        route: route.name.clone(),
        r#match: matched,
        effects: effects.name(),
        said: policy.effects.is_some(),
        after_no_answer,
    }
}
