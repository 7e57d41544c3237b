//! What a route does with what goes to its upstream, in words.

use maud::{Markup, html};
use onceward::core::policy::{Backoff, Policy};
use onceward::route::Route;

use super::words;

/// How a route retries, remembers and spares its upstream.
pub(super) fn of(route: &Route) -> Markup {
    let Policy { window, tombstone, hours, .. } = &*route.policy;
    let breaker = &route.protection.breaker;
    html! {
        details.profile {
            summary { "How it retries and remembers" }
            dl {
                dt { "Retries, while the caller waits" } dd { (backoff(&route.policy.held)) }
                dt { "Retries of accepted calls" } dd { (backoff(&route.policy.accepted)) }
                dt { "A second arrival" }
                dd { (route.policy.effects.map_or("by its method: PUT and DELETE are idempotent, POST and PATCH are not", words::effects)) }
                dt { "Remembers" }
                dd { "its answer for " (span(*window)) ", and that the key was used for "
                    (span(*tombstone)) " more" }
                dt { "Hours" }
                dd { @match hours { Some(hours) => (hours.as_str()), None => "always" } }
                dt { "Breaker" }
                dd { @if breaker.is_some() { "on: it holds calls back, and loses none" } @else { "off" } }
                @if let Some(rate) = &route.protection.rate {
                    dt { "Rate" } dd { "an attempt each " (span(rate.interval)) " on the average, and " (rate.burst) " at once" }
                }
                @if !route.rules.is_empty() {
                    dt { "Rules" }
                    dd { (route.rules.len()) " for some methods and paths: " code { "onceward explain" } " tells which holds" }
                }
            }
        }
    }
}

/// When it tries again.
fn backoff(backoff: &Backoff) -> String {
    let Backoff { attempts_max, horizon, floor, cap, factor, table, .. } = backoff;
    if *attempts_max <= 1 {
        return "none: one attempt".to_owned();
    }
    let waits = if table.is_empty() {
        format!("waits of {} to {}, up to {factor} times longer each", span(*floor), span(*cap))
    } else {
        let all: Vec<_> = table.iter().map(|wait| span(*wait)).collect();
        format!("waits of {}", all.join(", "))
    };
    format!("up to {attempts_max} attempts within {}, {waits}", span(*horizon))
}

fn span(duration: std::time::Duration) -> String {
    words::duration(duration).replace(".0", "")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onceward::core::policy::Effects;

    use super::*;

    #[test]
    fn a_backoff_is_a_sentence() {
        assert_eq!(
            backoff(&Backoff::accepted()),
            "up to 12 attempts within 3 days, waits of 1 s to 12 h, up to 3 times longer each"
        );
        let table = vec![Duration::from_secs(5), Duration::from_mins(5)];
        let fixed = Backoff { table, attempts_max: 4, ..Backoff::accepted() };
        assert_eq!(backoff(&fixed), "up to 4 attempts within 3 days, waits of 5 s, 5 min");
        assert_eq!(backoff(&Backoff { attempts_max: 1, ..Backoff::held() }), "none: one attempt");
    }

    #[test]
    fn what_a_second_arrival_does_is_said_for_each_kind() {
        for effects in [Effects::Idempotent, Effects::Keyed, Effects::NonIdempotent] {
            assert!(words::effects(effects).starts_with(effects.name()));
        }
    }
}
