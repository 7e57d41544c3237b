//! A route, as the file says it: its upstream, how it is called, and the faults that are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::exchange::Headers;
use onceward::core::policy::Policy;
use onceward::route::Route;
use onceward::upstream::{Chaos, Target, Timeouts, Trust};
use url::Url;

use super::profile::{Laid, Profiles, Setting};
use super::table::Table;
use super::upstream_tls;
use super::words::{header_name, header_value, shared_scope, tenant_name, url};
use super::{ConfigError, auth, doubt, mail, protection, text};
use crate::units::show;

/// How long a caller is kept waiting where nothing says otherwise.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// How long handing a mail over takes at most, where nothing says otherwise: a server may look at it for
/// long before it answers, and who goes away before that has it in doubt (RFC 5321, section 4.5.3.2).
const OF_MAIL_MAX: Duration = Duration::from_mins(2);

/// The largest mail as it is posted, where nothing says otherwise: with what is attached to it.
const MAIL_BYTES_MAX: usize = 10 << 20;

const NO_UPSTREAM: &str = "has no upstream\nhelp: add upstream = \"https://api.example.com\"";

/// What the parts of a file are read among.
pub(super) struct Around<'a> {
    pub(super) profiles: Profiles<'a>,
    /// The routes that sources and outboxes may name.
    pub(super) names: BTreeSet<String>,
    pub(super) segment_bytes: usize,
    pub(super) ca_file: Option<PathBuf>,
    /// Whether callers of routes that say nothing of it may write `Upstash-…`.
    pub(super) upstash: bool,
}

/// A route, and what is said of it.
pub(super) struct Made {
    pub(super) route: Route,
    pub(super) settings: Vec<Setting>,
    /// Whether nothing in the file says how long keys are kept.
    pub(super) keeps_the_default: bool,
}

impl Around<'_> {
    pub(super) fn is_route(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Reads a route; what else its table says is for whoever has the table.
    pub(super) fn route(
        &self,
        name: &str,
        table: &Table<'_>,
        is_guard: bool,
    ) -> Result<Made, ConfigError> {
        let written: Option<String> = table.read("upstream")?;
        let written = written.filter(|upstream| mail::is_server(upstream));
        let laid = self.profiles.lay(name, table, is_guard, written.is_some())?;
        let (upstream, mail) = match written {
            None => (table.text("upstream", url)?, None),
            Some(written) => {
                let (upstream, server) = mail::upstream(&written, table)?;
                mail::check_effects(&laid, table)?;
                (Some(upstream), Some(Arc::new(server)))
            }
        };
        let own_tls = table.within("upstream_tls", |table| {
            upstream_tls::read(table, upstream.as_ref(), mail.as_deref(), self.ca_file.as_deref())
        })?;
        let usual = if mail.is_some() { OF_MAIL_MAX } else { Timeouts::default().total };
        let total = table.span_or("timeout", usual)?;
        let timeouts = |table: &Table<'_>| timeouts(table, total);
        let timeouts = match table.within("timeouts", timeouts)? {
            Some(timeouts) => timeouts,
            None => Timeouts {
                connect: Timeouts::default().connect.min(total),
                head: total,
                body: total,
                total,
            },
        };
        table.hide("set_headers.*");
        let headers = table.pairs("set_headers", header_name, header_value)?.unwrap_or_default();
        // A name in two writings is one header.
        let mut headers: BTreeMap<String, String> = headers.into_iter().collect();
        let read = table.within("auth", |table| auth::read(table, total))?.unwrap_or_default();
        auth::check(&read.auth, &laid, table)?;
        let is_set = read.authorization.is_some() || read.auth.oauth2.is_some();
        if is_set && headers.contains_key("authorization") {
            return Err(table.wrong(
                "has an Authorization in set_headers and another by auth\nhelp: keep one of them",
            ));
        }
        headers.extend(read.authorization.map(|value| ("authorization".to_owned(), value)));
        let headers = headers.into_iter().map(|(name, value)| (name, Bytes::from(value)));
        let (response_bytes_max, body_bytes_max) = self.sizes(table, mail.is_some())?;
        let answer_max = table.span("answer_max")?;
        let usual_answer_max = if is_guard { longest(&laid, total) } else { ANSWER_MAX };
        let upstash = compatible(table)?;
        if is_guard && upstash == Some(true) {
            return Err(table.wrong(
                "is a guard, and has a compatibility\nhelp: callers of a guard's API know nothing of us: take compatibility out",
            ));
        }
        let upstash = upstash.unwrap_or(self.upstash && !is_guard);
        let keeps_the_default = !laid.says_window && laid.policy.window == Policy::default().window;
        let route = Route {
            name: name.to_owned(),
            tenants: tenants(table)?,
            scope: table.text("scope", shared_scope)?,
            through: None,
            set_headers: Headers(headers.collect()),
            auth: read.auth,
            protection: protection::protection(table)?,
            answer_max: answer_max.unwrap_or(usual_answer_max),
            body_bytes_max,
            response_bytes_max,
            upstash,
            reconcile: table.within("reconcile", doubt::reconcile)?,
            chaos: table.within("chaos", |table| chaos(table, total))?,
            target: Arc::new(Target {
                http2: table.or("http2", false)?,
                base: upstream.ok_or_else(|| {
                    table.slip("upstream").unwrap_or_else(|| table.wrong(NO_UPSTREAM))
                })?,
                trust: Trust::Operator,
                tls: own_tls,
                mail,
                timeouts,
            }),
            policy: Arc::new(laid.policy),
            rules: laid.rules,
        };
        Ok(Made { route, settings: laid.settings, keeps_the_default })
    }

    /// The route of a source's or an outbox's own, for its tenant: to where it delivers, as what is left of its table
    /// says, and `usual` where that says nothing.
    pub(super) fn own(
        &self,
        kind: &str,
        name: &str,
        table: &Table<'_>,
        (deliver, tenant): (&Url, &str),
        usual: &[&'static str],
    ) -> Result<Made, ConfigError> {
        if table.has("upstream") {
            return Err(
                table.wrong("has an upstream\nhelp: where it goes is deliver = \"http://…\"")
            );
        }
        if table.has("compatibility") {
            return Err(table.wrong(
                "has a compatibility\nhelp: it is about callers at /to, and none calls here: take it out",
            ));
        }
        let mut origin = deliver.clone();
        origin.set_path("");
        origin.set_query(None);
        // These two hold for its route too.
        let mut keys = table.rest(&["body_bytes_max", "scope"]);
        text::add_text(&mut keys, "upstream", origin.as_str());
        for lines in usual {
            text::add(&mut keys, lines);
        }
        let own = table.with(&keys);
        let mut made = self.route(&format!("{kind}/{name}"), &own, false)?;
        if made.route.tenants.replace(vec![tenant.to_owned()]).is_some() {
            return Err(table.wrong(
                "has tenants\nhelp: what comes by it is one tenant's: say tenant = \"acme\"",
            ));
        }
        own.done()?;
        made.route.upstash = false;
        for setting in made.settings.iter_mut().filter(|setting| setting.from == "route") {
            kind.clone_into(&mut setting.from);
        }
        Ok(made)
    }

    /// The largest answer and request that are kept. A body has to fit a segment of the journal, with
    /// its operation beside it.
    fn sizes(&self, table: &Table<'_>, is_mail: bool) -> Result<(usize, usize), ConfigError> {
        let fits = self.segment_bytes / 2;
        let response = table.size("response_bytes_max")?.unwrap_or_else(|| fits.min(8 << 20));
        let usual = if is_mail { MAIL_BYTES_MAX } else { 1 << 20 };
        // What becomes of a mail is up to half as large again.
        let largest = if is_mail { fits / 3 * 2 } else { fits };
        let body = table.size("body_bytes_max")?.unwrap_or_else(|| largest.min(usual));
        if is_mail && body > largest {
            return Err(table.wrong(&format!(
                "takes mails of more than {largest} bytes, which do not fit the ledger\nhelp: raise limits.segment_bytes"
            )));
        }
        if response.max(body) > fits {
            return Err(table.wrong(&format!(
                "keeps bodies of more than {fits} bytes, half a segment of the ledger, which do not fit it\nhelp: raise limits.segment_bytes"
            )));
        }
        Ok((response, body))
    }
}

/// Whose option headers its callers may write; nothing where it does not say. So far there are one product's.
pub(super) fn compatible(table: &Table<'_>) -> Result<Option<bool>, ConfigError> {
    let read = |text: &str| match text {
        "upstash" => Ok(()),
        _ => Err(format!("{text:?} is none whose headers are known: write \"upstash\"")),
    };
    Ok(table.texts("compatibility", read)?.map(|of| !of.is_empty()))
}

/// The tenants that a route is there for.
fn tenants(table: &Table<'_>) -> Result<Option<Vec<String>>, ConfigError> {
    let tenants = table.texts("tenants", tenant_name)?;
    if tenants.as_ref().is_some_and(Vec::is_empty) {
        return Err(table.wrong("is there for no tenant\nhelp: name some, or leave tenants out"));
    }
    Ok(tenants)
}

/// No part of an attempt takes longer than all of it.
fn timeouts(table: &Table<'_>, total: Duration) -> Result<Timeouts, ConfigError> {
    Ok(Timeouts {
        connect: table.span_or("connect", Timeouts::default().connect)?.min(total),
        head: table.span_or("head", total)?.min(total),
        body: table.span_or("body", total)?.min(total),
        total,
    })
}

/// How long a held call takes at most: its last attempt begins within the wait.
fn longest(laid: &Laid, timeout: Duration) -> Duration {
    let policies = laid.rules.iter().map(|rule| &*rule.policy).chain([&laid.policy]);
    let wait = policies.map(|policy| policy.held.horizon).max().unwrap_or_default();
    ANSWER_MAX.max(wait.saturating_add(timeout))
}

/// Faults on purpose, in percent of a route's attempts.
fn chaos(table: &Table<'_>, timeout: Duration) -> Result<Arc<Chaos>, ConfigError> {
    let chaos = Chaos {
        seed: table.or("seed", 1)?,
        refuse: table.or("refuse", 0)?,
        drop: table.or("drop", 0)?,
        reset: table.or("reset", 0)?,
        truncate: table.or("truncate", 0)?,
        delay: table.or("delay", 0)?,
        delay_for: table.span_or("delay_for", Duration::from_secs(1))?,
    };
    table.done()?;
    let sum: u32 = chaos.percentages().iter().map(|(_, percent)| u32::from(*percent)).sum();
    if !(1..=100).contains(&sum) {
        return Err(table.wrong(&format!(
            "has a chaos of {sum} percent\nhelp: refuse, drop, reset, truncate and delay are percentages of its attempts, together 1 to 100"
        )));
    }
    if chaos.delay > 0 && chaos.delay_for >= timeout {
        return Err(table.wrong(&format!(
            "has a chaos.delay_for of {}, and an attempt ends after {}\nhelp: choose a shorter delay, or `drop` for an answer that never comes",
            show(chaos.delay_for),
            show(timeout)
        )));
    }
    Ok(Arc::new(chaos))
}
