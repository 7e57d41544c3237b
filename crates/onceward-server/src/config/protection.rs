//! How a route's upstream is spared, as the file says it.

use std::time::Duration;

use onceward::core::breaker::BreakerRule;
use onceward::core::rate::{BudgetRule, Rate};
use onceward::route::{FlowLimits, Protection};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::ConfigError;
use crate::units::{Size, Span};

/// Send slots where nothing says otherwise.
const CONCURRENCY: usize = 256;

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ProtectionFile {
    concurrency_max: Option<usize>,
    rate: Option<RateWord>,
    burst: Option<u32>,
    breaker: Option<Switch<BreakerFile>>,
    budget: Option<Switch<BudgetFile>>,
    backlog_max: Option<u64>,
    backlog_bytes_max: Option<Size>,
    #[serde(default)]
    flow: FlowFile,
}

/// What each flow may have of the route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowFile {
    concurrency_max: Option<usize>,
    rate: Option<RateWord>,
    burst: Option<u32>,
}

/// `false`, or what it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "false, or a table of the keys in docs/configuration.md")]
enum Switch<T> {
    On(bool),
    As(T),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerFile {
    calls_min: Option<u32>,
    failures: Option<f64>,
    unconnected_max: Option<u32>,
    span: Option<Span>,
    open: Option<Span>,
    open_max: Option<Span>,
    probes: Option<u32>,
    health: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BudgetFile {
    share: Option<f64>,
    per_second: Option<f64>,
}

/// `100/s`, `30/m`, `1000/h`, `5000/d`.
#[derive(Debug, Clone, Copy)]
struct RateWord(Duration);

impl<'de> Deserialize<'de> for RateWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = || {
            let (number, unit) = text.split_once('/')?;
            let seconds = match unit.trim() {
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return None,
            };
            let number: f64 = number.trim().parse().ok()?;
            let interval = Duration::try_from_secs_f64(seconds / number).ok()?;
            (number > 0.0 && interval >= Duration::from_micros(1)).then_some(Self(interval))
        };
        read().ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is no rate: write \"100/s\", \"30/m\" or \"1000/h\""
            ))
        })
    }
}

impl ProtectionFile {
    pub(super) fn build(
        &self,
        wrong: &impl Fn(&str) -> ConfigError,
    ) -> Result<Protection, ConfigError> {
        if self.burst.is_some() && self.rate.is_none() {
            return Err(wrong("has a burst and no rate\nhelp: add rate = \"100/s\""));
        }
        let mut protection = Protection {
            slots_max: self.concurrency_max.unwrap_or(CONCURRENCY).max(1),
            rate: self
                .rate
                .map(|rate| Rate { interval: rate.0, burst: self.burst.unwrap_or(1).max(1) }),
            backlog_max: self.backlog_max,
            backlog_bytes_max: self.backlog_bytes_max.map(|size| size.0 as u64),
            flow: self.flow.build(wrong)?,
            ..Protection::default()
        };
        match &self.breaker {
            None | Some(Switch::On(true)) => {}
            Some(Switch::On(false)) => protection.breaker = None,
            Some(Switch::As(file)) => {
                if file.health.as_ref().is_some_and(|path| !path.starts_with('/')) {
                    return Err(wrong(
                        "has a breaker.health that is no path\nhelp: write \"/healthz\"",
                    ));
                }
                protection.health.clone_from(&file.health);
                protection.breaker = Some(breaker(file, wrong)?);
            }
        }
        match &self.budget {
            None | Some(Switch::On(true)) => {}
            Some(Switch::On(false)) => protection.budget = None,
            Some(Switch::As(file)) => protection.budget = Some(budget(file, wrong)?),
        }
        Ok(protection)
    }
}

impl FlowFile {
    fn build(&self, wrong: &impl Fn(&str) -> ConfigError) -> Result<FlowLimits, ConfigError> {
        if self.burst.is_some() && self.rate.is_none() {
            return Err(wrong("has a flow.burst and no flow.rate\nhelp: add flow.rate = \"10/s\""));
        }
        if self.concurrency_max == Some(0) {
            return Err(wrong("has a flow.concurrency_max of 0\nhelp: a flow may have 1 or more"));
        }
        let rate =
            |rate: RateWord| Rate { interval: rate.0, burst: self.burst.unwrap_or(1).max(1) };
        Ok(FlowLimits { slots_max: self.concurrency_max, rate: self.rate.map(rate) })
    }
}

fn breaker(
    file: &BreakerFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<BreakerRule, ConfigError> {
    let default = BreakerRule::default();
    let failures = file.failures.unwrap_or(default.failures);
    if !(failures > 0.0 && failures <= 1.0) {
        return Err(wrong(
            "has a breaker.failures that is no share\nhelp: write a number above 0, up to 1",
        ));
    }
    let span = |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0);
    let open = span(file.open, default.open);
    Ok(BreakerRule {
        calls_min: file.calls_min.unwrap_or(default.calls_min).max(1),
        failures,
        unconnected_max: file.unconnected_max.unwrap_or(default.unconnected_max).max(1),
        span: span(file.span, default.span),
        open,
        open_max: span(file.open_max, default.open_max).max(open),
        probes: file.probes.unwrap_or(default.probes).max(1),
    })
}

fn budget(
    file: &BudgetFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<BudgetRule, ConfigError> {
    let default = BudgetRule::default();
    let (share, per_second) =
        (file.share.unwrap_or(default.share), file.per_second.unwrap_or(default.per_second));
    if !(share.is_finite() && per_second.is_finite() && share >= 0.0 && per_second >= 0.0) {
        return Err(wrong("has a budget below nothing\nhelp: share and per_second are 0 or more"));
    }
    Ok(BudgetRule { share, per_second })
}
