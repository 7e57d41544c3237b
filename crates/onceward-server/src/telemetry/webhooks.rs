//! What is counted and logged of webhooks that come in: names and reasons, never a header's value.

use metrics::{counter, describe_counter};
use onceward::core::operation::Operation;
use onceward::{Heard, Testimony};
use tracing::{debug, info, warn};

use crate::source::Came;

/// What the metrics are.
pub(super) fn describe() {
    describe_counter!(
        "onceward_webhooks_total",
        "Webhooks that were verified, by source and by what became of them."
    );
    describe_counter!(
        "onceward_webhooks_rejected_total",
        "Webhooks that were refused, by source and reason."
    );
    describe_counter!(
        "onceward_webhooks_unavailable_total",
        "Webhooks that could not be taken when they came, by source and reason."
    );
    describe_counter!(
        "onceward_webhooks_resolved_total",
        "Operations in doubt that a webhook ended, by source."
    );
}

/// One was verified.
pub(crate) fn received(source: &str, came: Came) {
    counter!("onceward_webhooks_total", "source" => source.to_owned(), "result" => came.name())
        .increment(1);
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
    counter!("onceward_webhooks_rejected_total", "source" => source.to_owned(), "reason" => reason)
        .increment(1);
    if is_kept {
        warn!(source, reason, why, "webhook refused");
    } else {
        debug!(source, reason, why, "webhook refused");
    }
}

/// One could not be taken when it came.
pub(crate) fn unavailable(source: &str, reason: &'static str) {
    counter!("onceward_webhooks_unavailable_total", "source" => source.to_owned(), "reason" => reason)
        .increment(1);
    debug!(source, reason, "webhook not taken now");
}

/// One was evidence.
pub(crate) fn heard(source: &str, testimony: &Testimony, heard: &Heard) {
    counter!("onceward_webhooks_resolved_total", "source" => source.to_owned())
        .increment(heard.ended.len() as u64);
    let (route, says) = (testimony.route.as_str(), testimony.says.name());
    for operation in &heard.ended {
        info!(source, route, %operation, says, "a webhook ended a doubt");
    }
    for operation in &heard.kept {
        debug!(source, route, %operation, says, "a webhook came before its operation's end");
    }
}
