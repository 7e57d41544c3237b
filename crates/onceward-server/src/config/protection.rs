//! How a route's upstream is spared, as the file says it.

use onceward::core::breaker::BreakerRule;
use onceward::core::rate::{BudgetRule, Rate};
use onceward::route::{FlowLimits, Protection};

use super::ConfigError;
use super::table::{Switch, Table};
use super::words::interval;

/// Send slots where nothing says otherwise.
const CONCURRENCY: usize = 256;

const SWITCH: &str = "false, or a table of the keys in docs/configuration.md";

/// What a route says of it.
pub(super) fn protection(table: &Table<'_>) -> Result<Protection, ConfigError> {
    let (usual, mut health) = (Protection::default(), None);
    let breaker = table.switch("breaker", SWITCH, |table| {
        health = table.read::<String>("health")?;
        if health.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(
                table.wrong("has a breaker.health that is no path\nhelp: write \"/healthz\"")
            );
        }
        breaker(table)
    })?;
    Ok(Protection {
        slots_max: table.or("concurrency_max", CONCURRENCY)?.max(1),
        rate: rate("has a burst and no rate\nhelp: add rate = \"100/s\"", table)?,
        breaker: switched(breaker, usual.breaker),
        budget: switched(table.switch("budget", SWITCH, budget)?, usual.budget),
        backlog_max: table.read("backlog_max")?,
        backlog_bytes_max: table.size("backlog_bytes_max")?.map(|size| size as u64),
        flow: table.within("flow", flow)?.unwrap_or_default(),
        health: health.or(usual.health),
    })
}

fn switched<T>(said: Option<Switch<T>>, usual: Option<T>) -> Option<T> {
    match said {
        None | Some(Switch::On) => usual,
        Some(Switch::Off) => None,
        Some(Switch::As(rule)) => Some(rule),
    }
}

/// What each flow may have of the route.
fn flow(table: &Table<'_>) -> Result<FlowLimits, ConfigError> {
    let slots_max = table.read("concurrency_max")?;
    if slots_max == Some(0) {
        return Err(table.wrong("has a flow.concurrency_max of 0\nhelp: a flow may have 1 or more"));
    }
    let no_rate = "has a flow.burst and no flow.rate\nhelp: add flow.rate = \"10/s\"";
    Ok(FlowLimits { slots_max, rate: rate(no_rate, table)? })
}

pub(super) fn rate(no_rate: &str, table: &Table<'_>) -> Result<Option<Rate>, ConfigError> {
    let (interval, burst) = (table.text("rate", interval)?, table.read("burst")?);
    if burst.is_some() && interval.is_none() {
        return Err(table.wrong(no_rate));
    }
    Ok(interval.map(|interval| Rate { interval, burst: burst.unwrap_or(1).max(1) }))
}

fn breaker(table: &Table<'_>) -> Result<BreakerRule, ConfigError> {
    let usual = BreakerRule::default();
    let failures = table.or("failures", usual.failures)?;
    if !(failures > 0.0 && failures <= 1.0) {
        return Err(table.wrong(
            "has a breaker.failures that is no share\nhelp: write a number above 0, up to 1",
        ));
    }
    let open = table.span_or("open", usual.open)?;
    Ok(BreakerRule {
        calls_min: table.or("calls_min", usual.calls_min)?.max(1),
        failures,
        unconnected_max: table.or("unconnected_max", usual.unconnected_max)?.max(1),
        span: table.span_or("span", usual.span)?,
        open,
        open_max: table.span_or("open_max", usual.open_max)?.max(open),
        probes: table.or("probes", usual.probes)?.max(1),
    })
}

fn budget(table: &Table<'_>) -> Result<BudgetRule, ConfigError> {
    let usual = BudgetRule::default();
    let share = table.or("share", usual.share)?;
    let per_second = table.or("per_second", usual.per_second)?;
    if !(share.is_finite() && per_second.is_finite() && share >= 0.0 && per_second >= 0.0) {
        return Err(
            table.wrong("has a budget below nothing\nhelp: share and per_second are 0 or more")
        );
    }
    Ok(BudgetRule { share, per_second })
}
