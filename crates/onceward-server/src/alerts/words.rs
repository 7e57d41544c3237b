//! A notice in words: what is wrong, since when, how much, what to do, and where to look; as a document
//! for programs, as Slack takes it, and as a mail.

use std::fmt::Write as _;
use std::time::Duration;

use onceward::core::key::TENANT;
use onceward::core::time::Timestamp;
use onceward::tally::{AD_HOC, CLAIMS, SUBSCRIPTIONS};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::book::{Line, Notice, Turn};
use super::rule::{Alert, Kind, Rules};
use crate::page::upstream_place;
use crate::shape;
use crate::units::show;

/// Alerts that a text has; the document has all.
const SHOWN_MAX: usize = 20;

/// Around a notice: what its words need beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) rules: &'a Rules,
    /// Where people reach the pages.
    pub(super) public_url: Option<&'a Url>,
}

impl Around<'_> {
    /// A page's address, where that is known.
    fn page(&self, alert: &Alert) -> Option<String> {
        Some(format!("{}{}", self.base()?, page(alert)))
    }

    fn base(&self) -> Option<&str> {
        Some(self.public_url?.as_str().trim_end_matches('/'))
    }

    /// What it means and what to do: on the gateway, where it is known how people reach that; else its place
    /// among the docs.
    pub(super) fn runbook(&self, kind: Kind) -> String {
        match self.base() {
            Some(base) => format!("{base}{}", runbook_page(kind)),
            None => format!("docs/on-call/{}.md", kind.name()),
        }
    }

    /// What is wrong, and how much.
    pub(super) fn summary(&self, alert: &Alert, value: u64) -> String {
        let within = self.rules.of.get(&alert.kind).map_or(Duration::ZERO, |rule| rule.within);
        let (within, of) = (show(within), whose(alert));
        let node = alert.node.as_deref().unwrap_or_default();
        let operations = if value == 1 { "operation" } else { "operations" };
        let are = if value == 1 { "is" } else { "are" };
        match alert.kind {
            Kind::InDoubt => {
                let they = if value == 1 { "it was" } else { "they were" };
                let what = if alert.route.as_deref() == Some(CLAIMS) {
                    let claims = if value == 1 { "claim" } else { "claims" };
                    format!("{value} {claims}{}", tenant_of(alert))
                } else {
                    format!("{value} {operations} of {of}")
                };
                format!("{what} {are} in doubt: nobody knows whether {they} done")
            }
            Kind::DeadLetters => {
                format!("{value} {operations} of {of} became dead letters within {within}")
            }
            Kind::BreakerOpen => format!("the breaker of {of} is open at {node}"),
            Kind::BacklogOld => {
                // Nobody needs the seconds of many minutes.
                let age = if value < 120 { value } else { value / 60 * 60 };
                format!("work of {of} has been due for {}", show(Duration::from_secs(age)))
            }
            Kind::LateDuplicates => format!(
                "{value} {} of {of} came after the window of their key within {within}",
                if value == 1 { "call" } else { "calls" }
            ),
            Kind::SagaStuck => {
                let sagas = if value == 1 { "saga" } else { "sagas" };
                let of = tenant_of(alert);
                format!("{value} {sagas}{of} {are} stuck: only a person can say how to go on")
            }
            Kind::DiskLow => {
                format!("{} MiB are left where the ledger of {node} is", value >> 20)
            }
        }
    }

    /// A line as a person reads it.
    fn sentence(&self, line: &Line) -> String {
        let summary = match line.turn {
            Turn::Test => return "a test: notices come".to_owned(),
            _ => self.summary(&line.alert, line.value),
        };
        let since = minute(line.since);
        match line.turn {
            Turn::Recovered => format!(
                "over since {}: {summary} (since {since})",
                minute(line.until.unwrap_or(line.since))
            ),
            Turn::StillFiring => format!("still: {summary}, since {since}"),
            _ => format!("{summary}, since {since}"),
        }
    }

    /// What a webhook has in its body.
    pub(super) fn document(&self, notice: &Notice) -> Value {
        let alerts = notice.lines.iter().map(|line| {
            let Line { turn, alert, value, since, until } = line;
            let is_test = *turn == Turn::Test;
            json!({
                "name": if is_test { "OncewardTest" } else { alert.kind.name() },
                "state": turn.name(),
                "severity": alert.kind.severity(),
                "tenant": alert.tenant,
                "route": alert.route,
                "node": alert.node,
                "value": value,
                "since": shape::time(*since),
                "until": until.map(shape::time),
                "summary": self.sentence(line),
                "advice": (!is_test).then(|| advice(alert.kind)),
                "page": self.page(alert).filter(|_| !is_test),
                "runbook": (!is_test).then(|| self.runbook(alert.kind)),
            })
        });
        json!({
            "type": "onceward.alerts",
            "timestamp": shape::time(notice.at),
            "data": {
                "notice": notice.id,
                "receiver": notice.to,
                "summary": subject(notice),
                "alerts": alerts.collect::<Vec<_>>(),
            },
        })
    }

    /// The same, as an incoming webhook of Slack takes it.
    pub(super) fn slack(&self, notice: &Notice) -> Value {
        let section =
            |text: String| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
        let title = subject(notice);
        let mut blocks = vec![section(format!("*{}*", escaped(&title)))];
        for line in notice.lines.iter().take(SHOWN_MAX) {
            let kind = line.alert.kind;
            let mut text = match line.turn {
                Turn::Test => String::new(),
                _ => format!("*{}* ", kind.name()),
            };
            text.push_str(&escaped(&self.sentence(line)));
            if matches!(line.turn, Turn::Firing | Turn::StillFiring) {
                let _ = write!(text, "\n{}", escaped(advice(kind)));
            }
            if let Some(page) = self.page(&line.alert).filter(|_| line.turn != Turn::Test) {
                let _ = write!(text, "\n<{}|Look at it>", escaped(&page));
            }
            blocks.push(section(text));
        }
        if let Some(more) = more(notice) {
            blocks.push(section(more));
        }
        json!({"text": escaped(&title), "blocks": blocks})
    }

    /// The same as the text of a mail.
    pub(super) fn mail(&self, notice: &Notice) -> String {
        let mut text = String::new();
        for line in notice.lines.iter().take(SHOWN_MAX) {
            let kind = line.alert.kind;
            if line.turn != Turn::Test {
                let _ = writeln!(text, "{} ({})", kind.name(), kind.severity());
            }
            let _ = writeln!(text, "{}.", self.sentence(line));
            if matches!(line.turn, Turn::Firing | Turn::StillFiring) {
                let _ = writeln!(text, "{}", advice(kind));
            }
            if let Some(page) = self.page(&line.alert).filter(|_| line.turn != Turn::Test) {
                let _ = writeln!(text, "{page}");
            }
            if line.turn != Turn::Test {
                let _ = writeln!(text, "{}", self.runbook(kind));
            }
            text.push('\n');
        }
        text.extend(more(notice));
        let _ = writeln!(text, "Notice {} of Onceward, to {}.", notice.id, notice.to);
        text
    }
}

/// A notice in a line: how many begin, go on and are over, and their names.
pub(super) fn subject(notice: &Notice) -> String {
    let mut parts = Vec::new();
    for (turn, word) in [
        (Turn::Firing, "firing"),
        (Turn::StillFiring, "still firing"),
        (Turn::Recovered, "recovered"),
    ] {
        let of = notice.lines.iter().filter(|line| line.turn == turn);
        let mut names: Vec<_> = of.clone().map(|line| line.alert.kind.name()).collect();
        names.dedup();
        if !names.is_empty() {
            parts.push(format!("{} {word}: {}", of.count(), names.join(", ")));
        }
    }
    if parts.is_empty() {
        "Onceward: a test".to_owned()
    } else {
        format!("Onceward: {}", parts.join("; "))
    }
}

fn more(notice: &Notice) -> Option<String> {
    let more = notice.lines.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0)?;
    Some(format!("And {more} more: onceward alerts\n"))
}

fn whose(alert: &Alert) -> String {
    let route = alert.route.as_deref().unwrap_or("the gateway");
    match alert.tenant.as_deref().filter(|tenant| *tenant != TENANT) {
        Some(tenant) => format!("{route} (tenant {tenant})"),
        None => route.to_owned(),
    }
}

/// Whose it is, where that is said at all.
fn tenant_of(alert: &Alert) -> String {
    let tenant = alert.tenant.as_deref().filter(|tenant| *tenant != TENANT);
    tenant.map_or_else(String::new, |tenant| format!(" of tenant {tenant}"))
}

/// The page where it is seen, of its route alone where that page knows it.
pub(super) fn page(alert: &Alert) -> String {
    // What is many has no route by which it is found.
    let many = [AD_HOC, SUBSCRIPTIONS, CLAIMS];
    let route = alert.route.as_deref().filter(|route| !many.contains(route));
    let of = |path: &str, first: char| match route {
        Some(route) => {
            let route: String = form_urlencoded::byte_serialize(route.as_bytes()).collect();
            format!("{path}{first}route={route}")
        }
        None => path.to_owned(),
    };
    match alert.kind {
        Kind::InDoubt => of("/in-doubt", '?'),
        Kind::DeadLetters => of("/dead", '?'),
        Kind::BreakerOpen => route.map_or_else(|| "/upstreams".to_owned(), upstream_place),
        Kind::BacklogOld => of("/operations?state=pending", '&'),
        Kind::LateDuplicates => "/duplicates?got=late".to_owned(),
        Kind::DiskLow => "/".to_owned(),
        Kind::SagaStuck => "/sagas?state=stuck".to_owned(),
    }
}

/// What to do first.
pub(super) fn advice(kind: Kind) -> &'static str {
    match kind {
        Kind::InDoubt => {
            "Nothing sends them again by itself. Ask the provider what became of them and resolve each: onceward ls --state in_doubt, onceward resolve."
        }
        Kind::DeadLetters => {
            "Read why in one of them (onceward ls --state dead, onceward show), mend the cause, redeliver one, then all: onceward bulk redeliver."
        }
        Kind::BreakerOpen => {
            "Its upstream fails. Accepted work waits and loses nothing; it goes on by itself once the upstream answers; where nothing waits, the next call tries: onceward routes."
        }
        Kind::BacklogOld => {
            "Is the route paused, its breaker open, or its rate smaller than what comes? onceward routes tells."
        }
        Kind::LateDuplicates => {
            "Callers retry for longer than the window of their keys: make it longer. GET /v1/routes/ROUTE/advice says how long."
        }
        Kind::SagaStuck => {
            "Read why (onceward saga ls --state stuck, onceward saga show), and retry, resolve or cancel each: nothing of it goes on by itself."
        }
        Kind::DiskLow => {
            "Without room new work is refused (507), and what is known is still answered. Shorten windows, or raise the disk."
        }
    }
}

/// Where its page is on every gateway.
pub(super) fn runbook_page(kind: Kind) -> String {
    format!("/docs/on-call/{}", kind.name())
}

/// To the minute, as people read it.
fn minute(at: Timestamp) -> String {
    let text = shape::time(at);
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {} UTC", time.get(..5).unwrap_or(time))
}

/// As Slack wants what could be a link or a name.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
