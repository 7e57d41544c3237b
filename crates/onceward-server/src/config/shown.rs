//! `config show`: what is said, and what holds for the gateway and for each route without it; and who says so: the
//! file, a variable, a profile, or nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use onceward::relay::without_secrets;
use onceward::route::Route;
use serde::Serialize;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::settings::{setting_of, settings};
use super::telemetry::Exporter;
use super::text::Text;
use super::{Config, ConfigError, Overrides, Setting, section};
use crate::units::show;

/// What stands in the place of a secret.
const HIDDEN: &str = "…";

/// Who says what nobody says.
const NOBODY: &str = "default";

/// Who says what OpenTelemetry's own variables say.
const OPEN_TELEMETRY: &str = "OTEL_*";

/// A value, and who says it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) from: String,
}

/// By their keys: the value and who says it.
type Rows = BTreeMap<String, (Value, String)>;

/// All of it, by key; no value is a secret.
pub(crate) fn shown(path: Option<&Path>, flags: &Overrides) -> Result<Vec<Shown>, ConfigError> {
    let (config, text, written) = Config::open(path, flags)?;
    Ok(rows(&config, &text, &written)?
        .into_iter()
        .map(|(key, (value, from))| Shown { key, value, from })
        .collect())
}

fn rows(config: &Config, text: &Text, written: &str) -> Result<Rows, ConfigError> {
    let mut rows = of_gateway(config);
    for route in config.routes.values() {
        of_route(route, &config.settings, &mut rows);
    }
    let keys = text.parse()?;
    let mut walk = Walk { text, written, rows: Rows::new(), put_in: BTreeSet::new() };
    walk.table("", "", keys.get_ref());
    for (key, (value, from)) in &mut rows {
        // What is empty tells nothing.
        if *value != "" && walk.put_in.iter().any(|put_in| is_made_of(key, from, put_in)) {
            *value = json!(HIDDEN);
        }
    }
    rows.extend(walk.rows);
    let telemetry = &config.telemetry;
    for key in &telemetry.laid_over {
        let place = |to: &Option<Exporter>| to.as_ref().map_or("none", Exporter::place).to_owned();
        let value = match *key {
            "traces" => place(&telemetry.traces),
            "metrics" => place(&telemetry.metrics),
            _ => "by OTEL_TRACES_SAMPLER".to_owned(),
        };
        rows.insert(format!("telemetry.{key}"), (json!(value), OPEN_TELEMETRY.to_owned()));
    }
    Ok(rows)
}

/// What holds for the whole gateway.
fn of_gateway(config: &Config) -> Rows {
    let pace = config.pace;
    let all = [
        ("listen", json!(config.listen)),
        ("store", json!(config.store.to_string())),
        ("data", json!(config.data())),
        ("behind_proxy", json!(config.behind_proxy)),
        ("demo", json!(config.demo)),
        ("seal_bodies", json!(config.seal_bodies)),
        ("strict", json!(config.strict)),
        ("audit.retention", json!(show(config.audit_kept))),
        ("events.retention", json!(show(config.events.retention))),
        ("events.pause_after", json!(show(config.events.pause_after))),
        ("limits.connections_max", json!(config.connections_max)),
        ("limits.connections_per_address_max", json!(config.connections_per_address_max)),
        ("limits.idle_timeout", json!(show(config.idle_timeout))),
        ("limits.body_timeout", json!(show(pace.total))),
        ("limits.body_rate_min", json!(pace.bytes_per_second)),
        ("limits.segment_bytes", json!(config.segment_bytes)),
    ];
    all.map(|(key, value)| (key.to_owned(), (value, NOBODY.to_owned()))).into()
}

/// What holds for a route, and for its rules where they differ.
fn of_route(route: &Route, said: &[Setting], rows: &mut Rows) {
    let place = section(&route.name);
    let of_it = |setting: &&Setting| setting.route == route.name;
    let timeouts = &route.target.timeouts;
    let own = [
        ("timeout", json!(show(timeouts.total))),
        ("timeouts.connect", json!(show(timeouts.connect))),
        ("timeouts.head", json!(show(timeouts.head))),
        ("timeouts.body", json!(show(timeouts.body))),
        ("answer_max", json!(show(route.answer_max))),
        ("body_bytes_max", json!(route.body_bytes_max)),
        ("response_bytes_max", json!(route.response_bytes_max)),
        ("concurrency_max", json!(route.protection.slots_max)),
        ("http2", json!(route.target.http2)),
    ];
    let policy = settings(&route.policy);
    let policy = policy.into_iter().map(|(key, value)| (key, json!(value)));
    for (key, value) in own.into_iter().chain(policy) {
        let who = said.iter().filter(of_it).find(|it| it.r#match.is_none() && it.key == key);
        let from = who.map_or(NOBODY, |setting| setting.from.as_str());
        rows.insert(format!("{place}.{key}"), (value, from.to_owned()));
    }
    for Setting { r#match, key, value, from, .. } in said.iter().filter(of_it) {
        if let Some(matched) = r#match {
            let key = format!("{place}.rules[{matched:?}].{key}");
            rows.insert(key, (json!(value), from.clone()));
        }
    }
}

/// Whether what is shown of `key` was made of the setting at the path `put_in`, into which a variable was put: one of the same
/// section, or of the profile that says it.
fn is_made_of(key: &str, from: &str, put_in: &str) -> bool {
    if key == "data" {
        return put_in == "store";
    }
    // A rule has the section of its route.
    let section = |whole: &str| {
        let parts = if whole.starts_with("alerts.to.") { 3 } else { 2 };
        let end = whole.match_indices('.').nth(parts - 1).map(|(at, _)| at)?;
        Some((whole[..end].to_owned(), whole[end + 1..].to_owned()))
    };
    let Some((of, said)) = section(put_in) else { return false };
    let Some((place, rest)) = section(key) else { return false };
    let is_there = of == place
        || of.strip_prefix("profiles.").is_some_and(|name| from == format!("profile {name}"));
    let rest = match rest.strip_prefix("rules[") {
        Some(rule) => rule.rsplit_once("].").map_or("", |(_, rest)| rest),
        None => &rest,
    };
    let whole = |key: &str| match setting_of(key).split('.').next() {
        Some("timeouts") => "timeout".to_owned(),
        first => first.unwrap_or_default().to_owned(),
    };
    is_there && whole(rest) == whole(&said)
}

/// A walk through what is said: each value in the place of what would hold without it.
struct Walk<'a> {
    text: &'a Text,
    /// The file as it was written, before variables were put in.
    written: &'a str,
    rows: Rows,
    /// The paths of what variables were put into.
    put_in: BTreeSet<String>,
}

impl Walk<'_> {
    /// `name` is where tables in a row have their number, `path` what readers call it.
    fn table(&mut self, name: &str, path: &str, keys: &DeTable<'_>) {
        for (key, value) in keys {
            let join = |before: &str| match before {
                "" => key.get_ref().to_string(),
                before => format!("{before}.{}", key.get_ref()),
            };
            self.value(&join(name), &join(path), value);
        }
    }

    fn value(&mut self, name: &str, path: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(keys) => self.table(name, path, keys),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                // The tables in a row that contain them are named without a number.
                let within = path.rsplit_once('.').map_or("", |(before, _)| before);
                for (number, item) in items.iter().enumerate() {
                    if let DeValue::Table(keys) = item.get_ref() {
                        self.table(&format!("{name}[{number}]"), within, keys);
                    }
                }
            }
            other => {
                let (from, is_put_in) = self.source(&value.span());
                if is_put_in {
                    self.put_in.insert(path.to_owned());
                }
                let is_hidden = self.text.is_hidden(path) || is_put_in;
                let value =
                    if is_hidden && !is_plain(other) { json!(HIDDEN) } else { shown_value(other) };
                self.rows.insert(name.to_owned(), (value, from));
            }
        }
    }

    /// Who says what stands there, and whether a variable was put into it.
    fn source(&self, place: &Range<usize>) -> (String, bool) {
        let (from, lines) = self.text.source(place);
        let mut variables = Vec::new();
        for line in self.written.lines().skip(lines.start).take(lines.len()) {
            let pieces = line.split("${").skip(1).filter_map(|piece| piece.split('}').next());
            variables.extend(pieces.map(|inside| inside.split(':').next().unwrap_or_default()));
        }
        if variables.is_empty() {
            return (from, false);
        }
        (format!("{from} ({})", variables.join(", ")), true)
    }
}

/// What cannot be a secret, whatever put it there.
fn is_plain(value: &DeValue<'_>) -> bool {
    matches!(value, DeValue::Boolean(_) | DeValue::Float(_) | DeValue::Datetime(_))
}

fn shown_value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(without_login(text)),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => json!(number),
            Err(_) => json!(number.as_str()),
        },
        DeValue::Float(number) => {
            number.as_str().parse::<f64>().map_or_else(|_| json!(number.as_str()), |it| json!(it))
        }
        DeValue::Boolean(is) => json!(is),
        DeValue::Datetime(time) => json!(time.to_string()),
        DeValue::Array(items) => items.iter().map(|item| shown_value(item.get_ref())).collect(),
        DeValue::Table(_) => json!({}),
    }
}

/// A URL without what may be a credential in it; any other text as it is.
fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    if scheme.starts_with("postgres") {
        return without_secrets(text);
    }
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?…"));
    let end = rest.find('/').unwrap_or(rest.len());
    let (place, path) = rest.split_at(end);
    let place = place.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{place}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::text::interpolate;

    const SECRETS: &str = r#"
store = "postgres://u:canary@db/l?password=canary"
[callbacks]
secret = "whsec_Y2FuYXJ5LW9mLTI0LWJ5dGVzLWlzLW1l"
[oidc]
issuer = "https://id.example"
client_id = "a"
client_secret = "canary"
roles = [{ roles = ["read"] }]
[routes.pay]
upstream = "https://api.example"
timeout = "${PATIENCE}"
set_headers = { x-own = "canary", file = "canary", "x.api.key" = "canary" }
auth = { basic = { user = "u", password = "canary" } }
[routes.post]
upstream = "smtp://u:canary@127.0.0.1:9"
[sources.s]
verify = { scheme = "github", secret = "canary" }
handshake = { echo = "e", token = { query = "q", value = "canary" } }
deliver = "http://127.0.0.1:9/hook?token=canary"
[alerts.to.r]
slack = "https://hooks.example/canary"
"#;

    fn of(written: &str, over: &[(&str, &str)]) -> Rows {
        let put_in = |name: &str| match name {
            "PATIENCE" => Some("7s".to_owned()),
            "TOKEN" => Some("canary".to_owned()),
            _ => None,
        };
        let text = interpolate(written, "f.toml", None, put_in).unwrap();
        let over = over.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let text = Text::new(text, "f.toml", over);
        let config = Config::read(&text, Some("f.toml".into()), &Overrides::default()).unwrap();
        rows(&config, &text, written).unwrap()
    }

    #[test]
    fn no_secret_of_a_file_is_shown() {
        let shown = of(SECRETS, &[]);
        let told = format!("{shown:?}");
        assert!(!told.contains("canary") && !told.contains("Y2FuYXJ5"), "{told}");
        assert_eq!(shown["routes.pay.set_headers.x-own"].0, HIDDEN);
        assert_eq!(shown["store"].0, "postgres://db/l");
        assert_eq!(shown["sources.s.deliver"].0, "http://127.0.0.1:9/hook?…");
    }

    #[test]
    fn each_value_that_holds_is_shown_with_who_says_it() {
        let file = "listen = \"127.0.0.1:9\"\n[routes.pay]\nupstream = \"https://api.stripe.com\"\nprofile = \"stripe\"\nwindow = \"7d\"\n[[routes.pay.rules]]\nmatch = \"GET /x\"\neffects = \"idempotent\"\n";
        let shown = of(file, &[("ONCEWARD_LIMITS__CONNECTIONS_MAX", "7")]);
        let from = |key: &str| {
            let (value, from) = &shown[key];
            (value.to_string(), from.as_str())
        };
        assert_eq!(from("listen"), ("\"127.0.0.1:9\"".to_owned(), "f.toml:1"));
        assert_eq!(from("routes.pay.window"), ("\"7d\"".to_owned(), "f.toml:5"));
        assert_eq!(from("routes.pay.effects"), ("\"keyed\"".to_owned(), "profile stripe"));
        assert_eq!(from("routes.pay.rules[0].effects").1, "f.toml:8");
        assert_eq!(from("routes.pay.timeout"), ("\"30s\"".to_owned(), "default"));
        let over = ("7".to_owned(), "ONCEWARD_LIMITS__CONNECTIONS_MAX");
        assert_eq!(from("limits.connections_max"), over);
        assert_eq!(from("strict"), ("false".to_owned(), "default"));
    }

    #[test]
    fn what_is_made_of_what_a_variable_put_in_is_not_shown() {
        let lookup =
            "lookup = { get = \"/orders?token=${TOKEN}&ref={key}\", found = { status = 200 } }\n";
        let route = "upstream = \"https://a.example\"\neffects = \"keyed\"\n";
        let file = format!(
            "store = \"sqlite:${{TOKEN}}/ledger.db\"\n[profiles.own]\n{lookup}[routes.a]\n{route}{lookup}[routes.b]\n{route}\
             profile = \"own\"\n[routes.c]\n{route}[[routes.c.rules]]\nmatch = \"POST /x\"\n{lookup}"
        );
        let shown = of(&file, &[]);
        let told = format!("{shown:?}");
        assert!(!told.contains("canary"), "{told}");
        assert_eq!(shown["routes.a.lookup"].0, HIDDEN);
        assert_eq!(shown["routes.b.lookup"].0, HIDDEN);
        assert_eq!(shown["routes.c.lookup"].0, "");
        assert_eq!(shown["routes.a.window"].1, NOBODY);
        assert_ne!(shown["routes.a.window"].0, HIDDEN);
    }

    #[test]
    fn where_telemetry_goes_by_variables_of_its_own_is_shown() {
        let text = Text::new(
            "[telemetry]\ntraces = \"http://a.example:4318\"\n",
            "f.toml",
            std::iter::empty(),
        );
        let mut config = Config::read(&text, None, &Overrides::default()).unwrap();
        let said = |name: &str| {
            (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "http://b.example/canary".to_owned())
        };
        config.telemetry.lay_over(said).unwrap();
        let shown = rows(&config, &text, "").unwrap();
        let wanted = (json!("http://b.example"), OPEN_TELEMETRY.to_owned());
        assert_eq!(shown["telemetry.traces"], wanted);
        assert_eq!(shown["telemetry.metrics"], wanted);
        assert!(!shown.contains_key("telemetry.sampling"));
    }

    #[test]
    fn what_a_variable_put_in_is_named_and_not_shown() {
        let shown =
            of("[routes.a]\nupstream = \"https://a.example\"\ntimeout = \"${PATIENCE}\"\n", &[]);
        let wanted = (json!(HIDDEN), "f.toml:3 (PATIENCE)".to_owned());
        assert_eq!(shown["routes.a.timeout"], wanted);
    }
}
