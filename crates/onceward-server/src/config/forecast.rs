//! What `check` says about time and disk: routes that look like payments and keep the default window,
//! and what a ledger comes to.

use std::time::Duration;

use onceward::core::policy::{Effects, Policy};
use onceward::route::Route;
use serde::Serialize;

use super::Config;
use crate::units::show;

/// What names of payments have in them.
const PAYMENTS: [&str; 10] = [
    "pay", "charge", "refund", "transfer", "payout", "invoice", "billing", "checkout", "capture",
    "wallet",
];

/// What is kept of an operation beside its bodies, in bytes, its place in the index included.
const ROW_BYTES: u64 = 1024;

/// The request and the answer of the forecast, in bytes together.
const BODY_BYTES: u64 = 2048;

/// The calls a day of the forecast.
const CALLS: u64 = 1000;

/// What a route comes to at 1,000 calls a day with 2 KiB of request and answer.
#[derive(Debug, Serialize)]
pub(crate) struct Forecast {
    pub(crate) route: String,
    /// How long bodies are kept.
    pub(crate) bodies: String,
    /// How long keys are.
    pub(crate) keys: String,
    /// Bytes of disk, about.
    pub(crate) bytes: u64,
}

impl Config {
    /// What each route comes to on disk.
    pub(crate) fn forecasts(&self) -> Vec<Forecast> {
        self.routes.values().map(|route| forecast(&route.name, &route.policy)).collect()
    }
}

fn forecast(route: &str, policy: &Policy) -> Forecast {
    let bodies = policy.retain_bodies.map_or(policy.window, |kept| kept.min(policy.window));
    let keys = policy.window.saturating_add(policy.tombstone);
    let operations = |span: Duration| CALLS * span.as_secs() / 86_400;
    let bytes = operations(bodies) * BODY_BYTES + operations(keys) * ROW_BYTES;
    Forecast { route: route.to_owned(), bodies: show(bodies), keys: show(keys), bytes }
}

/// Whether a route is one for payments by its names, and an effect of it is dear.
pub(super) fn is_like_payments(route: &Route) -> bool {
    let names = [route.name.as_str(), route.target.base.as_str()];
    let paths = route.rules.iter().map(|rule| rule.path.as_str());
    let is_named = |text: &str| {
        let text = text.to_ascii_lowercase();
        PAYMENTS.iter().any(|word| text.contains(word))
    };
    names.into_iter().chain(paths).any(is_named)
        && route.policy.effects != Some(Effects::Idempotent)
}

/// The warning about such a route.
pub(super) fn warning(name: &str) -> String {
    format!(
        "[routes.{name}] looks like payments and keeps the default window of {}: whoever asks again later is refused, not answered. Say how long your callers ask again: window = \"7d\", or \"72h\" where that is it.",
        show(Policy::default().window)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_is_bodies_for_their_time_and_keys_for_theirs() {
        let day = Duration::from_hours(24);
        let policy = Policy { window: 2 * day, tombstone: 8 * day, ..Policy::default() };
        let whole = forecast("a", &policy);
        assert_eq!(whole.bytes, 2 * 1000 * 2048 + 10 * 1000 * 1024);
        let brief = forecast("a", &Policy { retain_bodies: Some(Duration::ZERO), ..policy });
        assert_eq!((brief.bytes, brief.bodies.as_str()), (10 * 1000 * 1024, "0ms"));
    }
}
