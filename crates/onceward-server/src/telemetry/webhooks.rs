//! What is counted and logged of webhooks that come in: names and reasons, never a header's value.

use onceward::core::operation::Operation;
use onceward::{Heard, Testimony};
use tracing::{debug, info, warn};

use super::metrics::METRICS;
use crate::source::Came;

/// One was verified.
pub(crate) fn received(source: &str, came: Came) {
    METRICS.webhooks.of([("source", source), ("result", came.name())]).inc();
    debug!(source, result = came.name(), "webhook");
}

/// One was acknowledged and not delivered.
pub(crate) fn set_aside(source: &str, came: Came, operation: Option<&Operation>, is_kept: bool) {
    let operation = operation.map(|operation| operation.id.to_string());
    // A flood of them is counted.
    if is_kept {
        warn!(source, operation, result = came.name(), "webhook acknowledged and set aside");
    }
}

/// One was refused.
pub(crate) fn rejected(source: &str, reason: &'static str, why: &str, is_kept: bool) {
    METRICS.webhooks_rejected.of([("source", source), ("reason", reason)]).inc();
    if is_kept {
        warn!(source, reason, why, "webhook refused");
    } else {
        debug!(source, reason, why, "webhook refused");
    }
}

/// One could not be taken when it came.
pub(crate) fn unavailable(source: &str, reason: &'static str) {
    METRICS.webhooks_unavailable.of([("source", source), ("reason", reason)]).inc();
    debug!(source, reason, "webhook not taken now");
}

/// One was evidence.
pub(crate) fn heard(source: &str, testimony: &Testimony, heard: &Heard) {
    let ended = heard.ended.len() as u64;
    METRICS.webhooks_resolved.of([("source", source)]).inc_by(ended);
    let (route, says) = (testimony.route.as_str(), testimony.says.name());
    for operation in &heard.ended {
        info!(source, route, %operation, says, "a webhook ended a doubt");
    }
    for operation in &heard.kept {
        debug!(source, route, %operation, says, "a webhook came before its operation's end");
    }
}
