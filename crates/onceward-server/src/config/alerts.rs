//! What is watched and who is told, as the file says it: `[alerts]` and `[alerts.to.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use onceward::auth::{SecretAddress, SigningSecret};
use onceward::core::key::TENANT;
use onceward::route::Route;
use onceward::tally::AD_HOC;
use onceward::upstream::{MailServer, Safe};
use serde_json::{Value, json};
use url::{Position, Url};

use super::auth::secret;
use super::callbacks::webhook_secret;
use super::route::{Around, Made};
use super::table::{Switch, Table};
use super::words::{is_here, name, tenant_name};
use super::{ConfigError, mail};
use crate::alerts::{AlertsConfig, ByMail, Kind, Receiver, Rule, Rules, Way, Wish};
use crate::mail::Server;
use crate::units::show;

/// How often it is looked, for how long an alert is not held before it ends, after how long it is
/// told again, and how long what begins is collected, where nothing says otherwise.
const EVERY: Duration = Duration::from_secs(5);
const RECOVER_AFTER: Duration = Duration::from_mins(5);
const REPEAT: Duration = Duration::from_hours(4);
const GROUP: Duration = Duration::from_mins(1);

/// Looking more often would only cost; a node that looks less often is soon taken for gone.
const EVERY_MIN: Duration = Duration::from_millis(100);
const EVERY_MAX: Duration = Duration::from_mins(1);

/// Nobody wants to be told more often.
const REPEAT_MIN: Duration = Duration::from_mins(1);

/// An end waits for an hour to be told.
const GROUP_MAX: Duration = Duration::from_mins(30);

/// A place that takes notices dedupes by their id, as Standard Webhooks has it; one of Slack's has a
/// notice twice rather than not at all.
const OF_WEBHOOK: &str = "mode = \"accepted\"\neffects = \"keyed\"\nupstream_key = { header = \"idempotency-key\", value = \"passthrough\", window = \"7d\" }";
const OF_SLACK: &str = "mode = \"accepted\"\neffects = \"idempotent\"";

/// The words for them.
fn kinds() -> [(&'static str, Kind); Kind::ALL.len()] {
    Kind::ALL.map(|kind| (kind.key(), kind))
}

impl Kind {
    /// What is usual: as the rules for Prometheus have it.
    pub(crate) fn usual(self) -> Rule {
        let (bound, hold, within) = match self {
            Self::InDoubt => (0, 15, 0),
            Self::DeadLetters => (5, 0, 15),
            Self::BreakerOpen | Self::SagaStuck => (0, 5, 0),
            Self::BacklogOld => (600, 5, 0),
            Self::LateDuplicates => (0, 0, 60),
            Self::DiskLow => (2_000_000_000, 5, 0),
        };
        Rule { bound, hold: Duration::from_mins(hold), within: Duration::from_mins(within) }
    }
}

impl AlertsConfig {
    /// What `check` shows of who is told.
    pub(crate) fn described(&self) -> Vec<Value> {
        let shown = self.to.values().map(|Receiver { wish, way }| {
            let to = match way {
                Way::Webhook | Way::Slack => format!("[alerts.to.{}]", wish.name),
                Way::Mail(by) => {
                    let to = by.to.iter().map(|to| to.email.to_string());
                    to.collect::<Vec<_>>().join(", ")
                }
            };
            let kinds: Vec<_> = wish.kinds.iter().map(|kind| kind.key()).collect();
            json!({
                "name": wish.name,
                "way": way.name(),
                "to": to,
                "alerts": if kinds.is_empty() { "all".to_owned() } else { kinds.join(", ") },
                "repeat": wish.repeat.map_or_else(|| "never".to_owned(), show),
                "group": show(wish.group),
            })
        });
        shown.collect()
    }

    /// What a careful reader would ask about.
    pub(super) fn warnings(&self, routes: &BTreeMap<String, Arc<Route>>) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.to.is_empty() {
            warnings.push("[alerts] watches and tells nobody: add [alerts.to.NAME] with a webhook, slack or mail.".to_owned());
        } else if self.public_url.is_none() {
            warnings.push("[alerts] tells of alerts without a link: say public_url = \"https://…\", where people reach the pages.".to_owned());
        }
        for kind in Kind::ALL {
            let wants = |to: &Receiver| to.wish.kinds.is_empty() || to.wish.kinds.contains(&kind);
            let is_watched = self.rules.of.contains_key(&kind);
            if is_watched && !self.to.is_empty() && !self.to.values().any(wants) {
                warnings.push(format!("[alerts] tells nobody of {}.", kind.key()));
            }
        }
        for Receiver { wish, .. } in self.to.values() {
            let is_there = |name: &str| name == AD_HOC || routes.contains_key(name);
            let missing = wish.routes.iter().filter(|name| !is_there(name));
            let said = |name| {
                format!("[alerts.to.{}] names a route {name:?} that is not there.", wish.name)
            };
            warnings.extend(missing.map(said));
        }
        let exposed = self.to.values().filter_map(|to| match &to.way {
            Way::Mail(by) if by.server.by.safe == Safe::Not && !is_here(&by.server.place) => {
                Some(format!("[alerts.to.{}] sends mails that others can read on the way: say tls = \"required\".", to.wish.name))
            }
            _ => None,
        });
        warnings.extend(exposed);
        warnings
    }
}

/// Reads `[alerts]`: what is watched, and the routes of those who are told by HTTP.
pub(super) fn read(
    table: &Table<'_>,
    public_url: Option<Url>,
    around: &Around<'_>,
) -> Result<(AlertsConfig, Vec<Made>), ConfigError> {
    let every = table.span_or("every", EVERY)?;
    if every < EVERY_MIN {
        return Err(table.wrong("alerts.every is 100ms at least"));
    }
    if every > EVERY_MAX {
        return Err(table.wrong(
            "has every longer than a minute: a node that looks so seldom is taken for gone\nhelp: write every = \"1m\" or less",
        ));
    }
    let mut of = BTreeMap::new();
    for kind in Kind::ALL {
        let usual = kind.usual();
        let mend = "write false, or a table such as { for = \"10m\" }";
        let rule = match table.switch(kind.key(), mend, |table| rule(kind, table))? {
            None | Some(Switch::On) => Some(usual),
            Some(Switch::Off) => None,
            Some(Switch::As(rule)) => Some(rule),
        };
        of.extend(rule.map(|rule| (kind, rule)));
    }
    let recover_after = table.span_or("recover_after", RECOVER_AFTER)?;
    let (mut to, mut routes) = (BTreeMap::new(), Vec::new());
    for (name, table) in table.named("to", name)? {
        let (receiver, route) = receiver(&name, &table, around)?;
        routes.extend(route);
        to.insert(name, receiver);
    }
    let rules = Rules { of, recover_after };
    let node = table.text("node", name)?;
    Ok((AlertsConfig { node, every, rules, to, public_url }, routes))
}

/// When an alert fires, where that differs from what is usual.
fn rule(kind: Kind, table: &Table<'_>) -> Result<Rule, ConfigError> {
    let usual = kind.usual();
    let bound = match kind {
        Kind::InDoubt | Kind::DeadLetters | Kind::LateDuplicates | Kind::SagaStuck => {
            table.or("above", usual.bound)?
        }
        Kind::BacklogOld => table.span("above")?.map_or(usual.bound, |above| above.as_secs()),
        Kind::DiskLow => table.size("below")?.map_or(usual.bound, |below| below as u64),
        Kind::BreakerOpen => usual.bound,
    };
    let within = match kind {
        Kind::DeadLetters | Kind::LateDuplicates => table.span_or("within", usual.within)?,
        _ => usual.within,
    };
    if !usual.within.is_zero() && within < Duration::from_secs(1) {
        return Err(table.wrong("counts within less than a second\nhelp: write within = \"15m\""));
    }
    Ok(Rule { bound, hold: table.span_or("for", usual.hold)?, within })
}

fn receiver(
    name: &str,
    table: &Table<'_>,
    around: &Around<'_>,
) -> Result<(Receiver, Option<Made>), ConfigError> {
    let kinds = table.texts("alerts", |word| super::table::one_of(word, &kinds()))?;
    let repeat = if table.is_switch("repeat") {
        table.read::<bool>("repeat")?.filter(|repeats| *repeats).map(|_| REPEAT)
    } else {
        Some(table.span_or("repeat", REPEAT)?)
    };
    if repeat.is_some_and(|repeat| repeat < REPEAT_MIN) {
        return Err(table.wrong(
            "is told again within less than a minute\nhelp: write repeat = \"4h\", or false to tell once",
        ));
    }
    let group = table.span_or("group", GROUP)?;
    if group > GROUP_MAX {
        return Err(table
            .wrong("collects for longer than half an hour\nhelp: write group = \"30m\" or less"));
    }
    let wish = Wish {
        name: name.to_owned(),
        kinds: kinds.unwrap_or_default(),
        tenant: table.text("tenant", tenant_name)?,
        routes: table.read("routes")?.unwrap_or_default(),
        repeat,
        group,
    };
    let (webhook, slack) = (secret(table, "webhook")?, secret(table, "slack")?);
    let mail = table.within("mail", |table| by_mail(table, around.ca_file.as_deref()))?;
    let (way, route) = match (webhook, slack, mail) {
        (Some(to), None, None) => {
            let text = secret(table, "secret")?;
            let text = table.need("secret", text)?;
            let key = webhook_secret(&text).ok_or_else(|| {
                table.wrong("has no secret of Standard Webhooks: whsec_ and the base64 of 24 to 64 bytes\nhelp: echo whsec_$(openssl rand -base64 32)")
            })?;
            let mut made = route(name, table, &to, OF_WEBHOOK, around)?;
            made.route.auth.signing = Some(Arc::new(SigningSecret(key.0)));
            (Way::Webhook, Some(made))
        }
        (None, Some(to), None) => (Way::Slack, Some(route(name, table, &to, OF_SLACK, around)?)),
        (None, None, Some(mail)) => {
            table.done()?;
            (Way::Mail(Box::new(mail)), None)
        }
        _ => {
            return Err(table.wrong(
                "is told in no way, or in several\nhelp: say one of webhook = \"https://…\", slack = { file = \"…\" } and mail = { … }",
            ));
        }
    };
    Ok((Receiver { wish, way }, route))
}

/// The route to a receiver. Of its URL all but the origin may be a secret, so it is shown and stored
/// nowhere.
fn route(
    name: &str,
    table: &Table<'_>,
    to: &str,
    usual: &'static str,
    around: &Around<'_>,
) -> Result<Made, ConfigError> {
    let to = Url::parse(to).ok().filter(|url| {
        let is_plain = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain
    });
    let to = to.filter(|url| url.fragment().is_none()).ok_or_else(|| {
        table.wrong("has an address that is no http or https URL without credentials")
    })?;
    for key in ["mode", "effects", "key", "upstream_key", "auth", "tenants"] {
        if table.has(key) {
            return Err(table.wrong(&format!(
                "has a key {key:?}\nhelp: how a notice is sent is not to be chosen; timeout, retry and set_headers are"
            )));
        }
    }
    let mut made = around.own("alerts", name, table, (&to, TENANT), &[usual])?;
    let address = to[Position::BeforePath..Position::AfterQuery].to_owned();
    made.route.auth.address = Some(Arc::new(SecretAddress(address)));
    Ok(made)
}

fn by_mail(table: &Table<'_>, ca_file: Option<&Path>) -> Result<ByMail, ConfigError> {
    let mailbox = |text: &str| {
        text.parse::<Mailbox>()
            .map_err(|_| format!("{text:?} is no address: write \"oncall@example.com\""))
    };
    let from = table.text("from", mailbox)?;
    let to = table.one_or_more("to", "\"oncall@example.com\"", |text| mailbox(text).ok())?;
    let place = table.text("smtp", mail::server)?;
    let (place, is_implicit) = table.need("smtp", place)?;
    let by = MailServer {
        safe: mail::safe(table, "tls", &place, is_implicit)?,
        login: mail::login(table)?,
    };
    mail::check(&by, &place, table)?;
    let server = Server { place, by, ca_file: ca_file.map(Path::to_owned) };
    let (from, to) = (table.need("from", from)?, table.need("to", to)?);
    Ok(ByMail { from, to, server })
}

#[cfg(test)]
mod tests;
