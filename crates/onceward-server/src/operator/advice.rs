//! What a route's window and retries should be, in words and numbers.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use onceward::core::advice::{Fit, RetryAdvice, Seen, WindowAdvice, retry_advice, window_advice};
use onceward::core::policy::{Mode, Policy};
use serde_json::json;

use super::handler::Answer;
use crate::problem::Problem;
use crate::units::show;
use crate::view::View;

/// Answers `GET /v1/routes/{route}/advice`.
pub(super) async fn advice(node: View, Path(route): Path<String>) -> Answer {
    let seen = node.engine.seen(&route).await?;
    let policy = policy_of(&node, &route);
    let said = said(&seen, policy.window);
    let window = said.advice;
    let retries = |mode, tries| {
        let backoff = policy.backoff(mode);
        let advice = retry_advice(tries, backoff);
        json!({
            "done": advice.done,
            "done_at_first": advice.at_first,
            "attempts": advice.attempts,
            "within": advice.within.map(show),
            "wasted": advice.wasted,
            "fits": {
                "attempts_max": advice.attempts_max,
                "horizon": advice.horizon.map(show),
            },
            "says": say_retries(&advice),
        })
    };
    Ok(Json(json!({
        "route": route,
        "window": {
            "is": show(policy.window),
            "duplicates": window.duplicates,
            "late": window.late,
            "within": window.within.map(show),
            "fit": window.fit.name(),
            "says": said.says,
        },
        "held": retries(Mode::Held, &seen.held),
        "accepted": retries(Mode::Accepted, &seen.accepted),
    })))
}

/// What is to be said of a route's window.
#[derive(Debug)]
pub(crate) struct WindowSaid {
    /// How long it is.
    pub(crate) is: Duration,
    pub(crate) advice: WindowAdvice,
    /// In a sentence.
    pub(crate) says: String,
}

/// What is to be said of the window of `route`.
pub(crate) async fn window_of(node: &View, route: &str) -> Result<WindowSaid, Problem> {
    let seen = node.engine.seen(route).await?;
    Ok(said(&seen, policy_of(node, route).window))
}

fn policy_of(node: &View, route: &str) -> Arc<Policy> {
    node.engine.route(route).map(|route| Arc::clone(&route.policy)).unwrap_or_default()
}

fn said(seen: &Seen, window: Duration) -> WindowSaid {
    let advice = window_advice(seen, window);
    WindowSaid { is: window, advice, says: say_window(&advice, &show(window)) }
}

fn say_window(advice: &WindowAdvice, window: &str) -> String {
    let WindowAdvice { duplicates, late, within, fit } = advice;
    if *duplicates == 0 && *late == 0 {
        return "No duplicate was seen yet.".to_owned();
    }
    let within = within.map_or_else(
        || "99.9 % of your duplicates came within more than 90d".to_owned(),
        |within| format!("99.9 % of your duplicates came within {}", show(within)),
    );
    let late = format!("{late} came after your window of {window}");
    let follows = match fit {
        Fit::TooFew => "too few to say more",
        Fit::Fits => "it fits",
        Fit::TooShort => "a longer window would have answered them",
        Fit::Generous => "a shorter one would do, and need less disk",
    };
    format!("{within}; {late}: {follows}.")
}

fn say_retries(advice: &RetryAdvice) -> String {
    let RetryAdvice { done, at_first, attempts, wasted, attempts_max, horizon, .. } = advice;
    if *done == 0 {
        return format!("Nothing was done yet; {wasted} attempts came to nothing.");
    }
    let share = *at_first as f64 * 100.0 / *done as f64;
    let attempts =
        attempts.map_or_else(String::new, |attempts| format!(", and 99.9 % by attempt {attempts}"));
    let fits = match (attempts_max, horizon) {
        (None, None) => "the schedule fits".to_owned(),
        (Some(attempts), None) => format!("attempts_max = {attempts} would do"),
        (None, Some(horizon)) => format!("horizon = \"{}\" would do", show(*horizon)),
        (Some(attempts), Some(horizon)) => {
            format!("attempts_max = {attempts} and horizon = \"{}\" would do", show(*horizon))
        }
    };
    format!(
        "{share:.1} % of {done} were done at the first attempt{attempts}; {wasted} attempts came to nothing: {fits}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_has_its_numbers() {
        let window = WindowAdvice {
            duplicates: 4000,
            late: 3,
            within: Some(Duration::from_hours(6)),
            fit: Fit::TooShort,
        };
        assert_eq!(
            say_window(&window, "1h"),
            "99.9 % of your duplicates came within 6h; 3 came after your window of 1h: a longer window would have answered them."
        );
        let retries = RetryAdvice {
            done: 1000,
            at_first: 950,
            attempts: Some(3),
            within: Some(Duration::from_mins(1)),
            wasted: 24,
            attempts_max: Some(4),
            horizon: None,
        };
        assert_eq!(
            say_retries(&retries),
            "95.0 % of 1000 were done at the first attempt, and 99.9 % by attempt 3; 24 attempts came to nothing: attempts_max = 4 would do."
        );
    }
}
