//! One TOML file, the environment, and flags. Unknown keys are errors with their line; whatever
//! is wrong is said with where it stands and how to mend it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use onceward::core::claim::ClaimRule;
use onceward::core::exchange::Headers;
use onceward::core::fingerprint::{BodyRule, QueryRule};
use onceward::core::hint::HintHeader;
use onceward::core::operation::Deed;
use onceward::core::policy::{
    Backoff, Effects, ErrorShape, KeyMissing, Mode, OnDead, OnExpired, Order, Policy,
    UpstreamKeyValue,
};
use onceward::core::upstream_key::KeyPlace;
use onceward::route::{Route, Routes, Rule};
use onceward::upstream::{Chaos, Target, Timeouts, Trust};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use url::Url;

use self::doubt::{LookupWord, ReconcileFile};
use self::guard::GuardFile;
use self::keys::{ApproveWord, KeyTimeWord, PatternWord, TemplateWord, UniqueFile};
use self::people::{CallbacksFile, WebhookSecret};
use self::protection::ProtectionFile;
use self::sources::Among;
use crate::ledger::Ledger;
use crate::source::Source;
use crate::units::{Size, Span};

macro_rules! words {
    ($name:ident { $($word:literal => $value:ident),+ $(,)? }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        enum $name { $(#[serde(rename = $word)] $value),+ }
    };
}

mod claims;
mod doubt;
pub(crate) use self::forecast::Forecast;

mod forecast;
pub(crate) mod guard;
mod keys;
mod outbox;
mod people;
mod profile;
mod protection;
mod settings;
mod sources;
mod statuses;

pub(crate) use guard::Guard;
pub(crate) use outbox::{Outbox, To};
pub(crate) use profile::Setting;
use profile::{Laid, ProfileFile, Profiles};
use statuses::StatusesFile;

/// The listener where nothing says otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:7077";

/// How long a caller is kept waiting where nothing says otherwise.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// Variables that are ours and no part of the file.
const NOT_OVERRIDES: [&str; 6] = [
    "ONCEWARD_CONFIG",
    "ONCEWARD_URL",
    "ONCEWARD_ACCESS_KEY",
    "ONCEWARD_LOG",
    "ONCEWARD_MASTER_KEY",
    "ONCEWARD_TO",
];

/// What is wrong with a configuration: shown as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    store: Option<String>,
    data: Option<PathBuf>,
    demo: Option<bool>,
    strict: Option<bool>,
    #[serde(default)]
    approve: Vec<ApproveWord>,
    #[serde(default)]
    egress: EgressFile,
    #[serde(default)]
    tls: TlsFile,
    #[serde(default)]
    limits: LimitsFile,
    #[serde(default)]
    profiles: BTreeMap<RouteName, ProfileFile>,
    #[serde(default)]
    callbacks: CallbacksFile,
    #[serde(default)]
    audit: people::AuditFile,
    #[serde(default)]
    outbox: BTreeMap<RouteName, outbox::OutboxFile>,
    #[serde(default)]
    claims: BTreeMap<claims::ClaimScope, claims::ClaimsFile>,
    #[serde(default)]
    routes: BTreeMap<RouteName, RouteFile>,
    #[serde(default)]
    sources: BTreeMap<RouteName, sources::SourceFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EgressFile {
    #[serde(default)]
    allow: Vec<IpNet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFile {
    ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    connections_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    segment_bytes: Option<Size>,
}

/// What may stand on a route, and on a rule of it.
#[derive(Debug, Clone, Default, Deserialize)]
struct RouteFile {
    upstream: Option<HttpUrl>,
    scope: Option<ScopeName>,
    http2: Option<bool>,
    timeout: Option<Span>,
    #[serde(default)]
    timeouts: TimeoutsFile,
    answer_max: Option<Span>,
    body_bytes_max: Option<Size>,
    response_bytes_max: Option<Size>,
    #[serde(default)]
    set_headers: BTreeMap<Name, Value>,
    #[serde(default)]
    rules: Vec<RuleFile>,
    chaos: Option<ChaosFile>,
    reconcile: Option<ReconcileFile>,
    #[serde(flatten)]
    guard: GuardFile,
    #[serde(flatten)]
    protection: ProtectionFile,
    #[serde(flatten)]
    policy: PolicyFile,
}

#[derive(Debug, Clone, Deserialize)]
struct RuleFile {
    r#match: Match,
    #[serde(flatten)]
    policy: PolicyFile,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeoutsFile {
    connect: Option<Span>,
    head: Option<Span>,
    body: Option<Span>,
}

/// Faults on purpose, in percent of a route's attempts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChaosFile {
    seed: Option<u64>,
    #[serde(default)]
    refuse: u8,
    #[serde(default)]
    drop: u8,
    #[serde(default)]
    reset: u8,
    #[serde(default)]
    truncate: u8,
    #[serde(default)]
    delay: u8,
    delay_for: Option<Span>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct PolicyFile {
    profile: Option<String>,
    effects: Option<EffectsWord>,
    mode: Option<ModeWord>,
    wait: Option<Span>,
    window: Option<Span>,
    tombstone: Option<Span>,
    upstream_key: Option<UpstreamKeyFile>,
    key: Option<KeyFile>,
    fingerprint: Option<FingerprintFile>,
    #[serde(flatten)]
    statuses: StatusesFile,
    hints: Option<Vec<HintWord>>,
    delete_gone: Option<DeleteGone>,
    retry: Option<BackoffFile>,
    held: Option<BackoffFile>,
    on_dead: Option<OnDeadWord>,
    on_expired: Option<OnExpiredWord>,
    mismatch_status: Option<MismatchStatus>,
    error_shape: Option<ErrorShapeWord>,
    keep_headers: Option<Vec<Name>>,
    seal_headers: Option<Vec<Name>>,
    order: Option<OrderWord>,
    order_block_max: Option<Span>,
    order_gap_max: Option<Span>,
    subject_max: Option<usize>,
    lookup: Option<LookupWord>,
    hours: Option<String>,
    unique: Option<UniqueFile>,
    suspect_within: Option<Span>,
    retain_bodies: Option<Span>,
    redact: Option<Vec<Pointer>>,
    ids: Option<BTreeMap<String, String>>,
    callback: Option<String>,
    /// `deny_unknown_fields` does not reach through `flatten`: what is left over is refused by name.
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamKeyFile {
    header: Option<Name>,
    json: Option<Pointer>,
    query: Option<String>,
    value: Option<UpstreamKeyWord>,
    window: Option<Span>,
    bytes_max: Option<usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    missing: Option<MissingWord>,
    headers: Option<Vec<Name>>,
    length_min: Option<usize>,
    pattern: Option<PatternWord>,
    refuse: Option<Vec<PatternWord>>,
    json: Option<Pointer>,
    template: Option<TemplateWord>,
    time: Option<KeyTimeWord>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FingerprintFile {
    body: Option<BodyWord>,
    query: Option<QueryWord>,
    headers: Option<Vec<Name>>,
    ignore: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackoffFile {
    attempts_max: Option<u32>,
    horizon: Option<Span>,
    base: Option<Span>,
    floor: Option<Span>,
    cap: Option<Span>,
    factor: Option<f64>,
    table: Option<Vec<Span>>,
}

words!(EffectsWord { "idempotent" => Idempotent, "keyed" => Keyed, "non-idempotent" => NonIdempotent });
words!(ModeWord { "held" => Held, "accepted" => Accepted });
words!(UpstreamKeyWord { "passthrough" => Passthrough, "derived" => Derived });
words!(MissingWord { "make" => Make, "require" => Require, "pass" => Pass });
words!(BodyWord { "auto" => Auto, "raw" => Raw, "none" => None });
words!(QueryWord { "raw" => Raw, "none" => None });
words!(DeleteGone { "ok" => Ok, "error" => Error });
words!(OrderWord { "none" => None, "subject" => Subject });
words!(OnDeadWord { "revive" => Revive, "replay" => Replay });
words!(ErrorShapeWord { "problem" => Problem, "stripe" => Stripe });
words!(OnExpiredWord { "refuse" => Refuse, "execute" => Execute });

impl From<EffectsWord> for Effects {
    fn from(word: EffectsWord) -> Self {
        match word {
            EffectsWord::Idempotent => Self::Idempotent,
            EffectsWord::Keyed => Self::Keyed,
            EffectsWord::NonIdempotent => Self::NonIdempotent,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct MismatchStatus(u16);

impl<'de> Deserialize<'de> for MismatchStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            status @ (400 | 409 | 422) => Ok(Self(status)),
            other => Err(D::Error::custom(format!(
                "{other} is no status for a mismatch: 409, 422 or 400"
            ))),
        }
    }
}

/// A header whose hints are believed.
#[derive(Debug, Clone, Copy)]
struct HintWord(HintHeader);

impl<'de> Deserialize<'de> for HintWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HintHeader::from_name(&text.to_ascii_lowercase()).map(Self).ok_or_else(|| {
            let known: Vec<_> = HintHeader::ALL.iter().map(|header| header.name()).collect();
            D::Error::custom(format!("{text:?} is no hint that is known: {}", known.join(", ")))
        })
    }
}

/// A route's name: it stands in paths, so it is made of letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RouteName(String);

impl<'de> Deserialize<'de> for RouteName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let fits = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if fits {
            Ok(Self(name))
        } else {
            Err(D::Error::custom(format!(
                "{name:?} is no route name: letters, digits, `-`, `_` and `.`, at most 64"
            )))
        }
    }
}

/// A name that routes, sources and outboxes share; it cannot be the own one of any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ScopeName(String);

impl<'de> Deserialize<'de> for ScopeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RouteName::deserialize(deserializer).map(|name| Self(format!("scope/{}", name.0)))
    }
}

#[derive(Debug, Clone)]
struct HttpUrl(Url);

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let url = Url::parse(&text).map_err(|error| {
            D::Error::custom(format!(
                "{text:?} is not a URL ({error}): write \"https://api.example.com\""
            ))
        })?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(D::Error::custom(format!("{text:?} is not an http or https URL")));
        }
        if !plain {
            return Err(D::Error::custom(format!(
                "{text:?} carries credentials, a query or a fragment: credentials belong into set_headers"
            )));
        }
        Ok(Self(url))
    }
}

/// A header's name, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let name = HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| D::Error::custom(format!("{text:?} is no header name")))?;
        Ok(Self(name.as_str().to_owned()))
    }
}

/// A pointer to a member of a JSON body (RFC 6901).
#[derive(Debug, Clone)]
struct Pointer(String);

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > 1 && text.starts_with('/') {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!(
            "{text:?} points at no member of a body: write \"/idempotency_key\""
        )))
    }
}

/// A header's value; it may be a secret, so it never shows itself.
#[derive(Clone)]
struct Value(String);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HeaderValue::from_str(&text)
            .map_err(|_| D::Error::custom("this value cannot stand in a header (a line break?)"))?;
        Ok(Self(text))
    }
}

/// `PUT /orders/*`, or a path alone.
#[derive(Debug, Clone)]
struct Match {
    method: Option<String>,
    path: String,
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(method.to_owned()), path.trim()),
            None => (None, text.as_str()),
        };
        let is_method = method
            .as_deref()
            .is_none_or(|method| method.bytes().all(|byte| byte.is_ascii_uppercase()));
        if !is_method || !path.starts_with('/') {
            return Err(D::Error::custom(format!(
                "{text:?} matches nothing: write \"PUT /orders/*\""
            )));
        }
        Ok(Self { method, path: path.to_owned() })
    }
}

impl Match {
    fn rule(&self, policy: Arc<Policy>) -> Rule {
        Rule { method: self.method.clone(), path: self.path.clone(), policy }
    }
}

/// The configuration in force.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) store: Ledger,
    pub(crate) demo: bool,
    pub(crate) strict: bool,
    /// What wants two persons.
    pub(crate) approve: Vec<Deed>,
    pub(crate) egress_allow: Vec<IpNet>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
    pub(crate) segment_bytes: u32,
    pub(crate) routes: BTreeMap<String, Arc<Route>>,
    /// Routes at the path root of a listener or a host of their own.
    pub(crate) guards: BTreeMap<String, Arc<Guard>>,
    pub(crate) ad_hoc: Arc<Route>,
    /// Where webhooks come in.
    pub(crate) sources: BTreeMap<String, Arc<Source>>,
    /// Tables whose rows are remembered.
    pub(crate) outboxes: BTreeMap<String, Arc<Outbox>>,
    /// Routes of which the file says no window.
    default_windows: Vec<String>,
    /// What is said of the routes, and who says so.
    pub(crate) settings: Vec<Setting>,
    /// What signs callbacks.
    pub(crate) callbacks_secret: Option<WebhookSecret>,
    /// What holds for claims, by the names of their scopes.
    pub(crate) claims: BTreeMap<String, ClaimRule>,
    /// How long it is kept what people did.
    pub(crate) audit_kept: Duration,
    /// The file it was read from, where there is one.
    pub(crate) file: Option<PathBuf>,
}

/// What flags say, over everything else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) store: Option<String>,
    pub(crate) allow: Vec<String>,
    pub(crate) allow_chaos: bool,
}

impl Config {
    /// Reads `path`, or `onceward.toml` here, or nothing; lays the environment and the flags over it.
    pub(crate) fn load(path: Option<&Path>, flags: &Overrides) -> Result<Self, ConfigError> {
        let (found, text, name) = read(path)?;
        let text = interpolate(&text, &name, None, |variable| std::env::var(variable).ok())?;
        let overrides = std::env::vars().filter(|(variable, _)| {
            variable.starts_with("ONCEWARD_") && !NOT_OVERRIDES.contains(&variable.as_str())
        });
        let file = parse(&text, &name, overrides)?;
        Self::build(file, found, flags, &name)
    }

    fn build(
        file: File,
        found: Option<PathBuf>,
        flags: &Overrides,
        name: &str,
    ) -> Result<Self, ConfigError> {
        let listen = flags
            .listen
            .or(file.listen)
            .map_or_else(|| LISTEN.parse(), Ok)
            .map_err(|_| ConfigError("no listener".to_owned()))?;
        let store = flags.store.clone().or(file.store);
        let store = Ledger::read(store.as_deref(), file.data, name)?;
        let mut egress_allow = file.egress.allow;
        for allowed in &flags.allow {
            egress_allow.extend(allowed_networks(allowed)?);
        }
        let segment_bytes = file.limits.segment_bytes.map_or(64 << 20, |size| size.0);
        if !(1 << 20..=1 << 30).contains(&segment_bytes) {
            return Err(ConfigError(format!(
                "{name}: limits.segment_bytes lies between 1MiB and 1GiB"
            )));
        }
        let profiles = Profiles::new(&file.profiles, name)?;
        let (mut routes, mut settings) = (BTreeMap::new(), Vec::new());
        let mut default_windows = Vec::new();
        let mut guards = BTreeMap::new();
        for (route_name, route) in &file.routes {
            let wrong =
                |what: &str| ConfigError(format!("{name}: [routes.{}] {what}", route_name.0));
            let mut laid = profiles.lay(&route_name.0, route, &wrong)?;
            settings.append(&mut laid.settings);
            if forecast::keeps_the_default(route, &laid.policy) {
                default_windows.push(route_name.0.clone());
            }
            let built = build_route(&route_name.0, route, laid, segment_bytes, name)?;
            if built.chaos.is_some() && !flags.allow_chaos {
                return Err(ConfigError(format!(
                    "{name}: [routes.{0}.chaos] makes its attempts fail on purpose\nhelp: where that is wanted, say so with --allow-chaos; else take [routes.{0}.chaos] out",
                    route_name.0
                )));
            }
            if let Some(guard) = route.guard.build(&built, &wrong)? {
                guards.insert(route_name.0.clone(), Arc::new(guard));
            }
            routes.insert(route_name.0.clone(), Arc::new(built));
        }
        let demo = file.demo.unwrap_or_else(|| found.is_none());
        let mut sources = BTreeMap::new();
        for (source_name, source) in &file.sources {
            let is_route = |to: &str| {
                let is_demo = demo && matches!(to, "demo" | "demo-unsafe");
                is_demo || file.routes.keys().any(|route| route.0 == to)
            };
            let among =
                Among { profiles: &profiles, is_route: &is_route, segment_bytes, source: name };
            let built = sources::build(source_name, source, &among)?;
            if let Some((route, mut said)) = built.route {
                settings.append(&mut said);
                routes.insert(route.name.clone(), Arc::new(route));
            }
            sources.insert(source_name.0.clone(), Arc::new(built.source));
        }
        guard::check(&guards, &routes, listen, name)?;
        let ad_hoc = build_route(
            "https://ad-hoc.invalid",
            &RouteFile {
                upstream: Url::parse("https://ad-hoc.invalid").ok().map(HttpUrl),
                ..RouteFile::default()
            },
            Laid::default(),
            segment_bytes,
            name,
        )?;
        let around = outbox::Around { source: name, ca_file: file.tls.ca_file.as_deref(), demo };
        let outboxes = outbox::outboxes(&file.outbox, &mut routes, &around, |own, route| {
            let wrong = |what: &str| ConfigError(format!("{name}: [{}] {what}", section(own)));
            let laid = profiles.lay(own, route, &wrong)?;
            build_route(own, route, laid, segment_bytes, name)
        })?;
        people::check_callbacks(&routes, &file.callbacks, name)?;
        let ad_hoc_target = Target { trust: Trust::Caller, ..(*ad_hoc.target).clone() };
        Ok(Self {
            listen,
            store,
            demo,
            strict: file.strict.unwrap_or(false),
            approve: file.approve.iter().flat_map(|word| word.deeds()).copied().collect(),
            egress_allow,
            ca_file: file.tls.ca_file,
            connections_max: file.limits.connections_max.unwrap_or(10_000),
            connections_per_address_max: file.limits.connections_per_address_max.unwrap_or(1024),
            segment_bytes: segment_bytes as u32,
            routes,
            guards,
            sources,
            outboxes,
            settings,
            ad_hoc: Arc::new(Route { target: Arc::new(ad_hoc_target), ..ad_hoc }),
            default_windows,
            callbacks_secret: file.callbacks.secret(name)?,
            claims: claims::rules(file.claims, segment_bytes, name)?,
            audit_kept: file.audit.kept(),
            file: found,
        })
    }

    /// What a file of this text would be, in an empty environment.
    #[cfg(test)]
    pub(crate) fn of_text(text: &str) -> Result<Self, ConfigError> {
        let text = interpolate(text, "text", None, |_| None)?;
        let file = parse(&text, "text", std::iter::empty())?;
        Self::build(file, None, &Overrides::default(), "text")
    }

    /// Whether a process that runs with `other` differs from this in its routes only.
    pub(crate) fn is_served_as(&self, other: &Self) -> bool {
        self.listen == other.listen
            && self.store == other.store
            && self.demo == other.demo
            && self.egress_allow == other.egress_allow
            && self.ca_file == other.ca_file
            && self.connections_max == other.connections_max
            && self.connections_per_address_max == other.connections_per_address_max
            && self.segment_bytes == other.segment_bytes
    }

    /// The folder of the ledger: keys live beside it.
    pub(crate) fn data(&self) -> PathBuf {
        self.store.data()
    }

    /// The routes for the engine.
    pub(crate) fn routes(&self) -> Routes {
        Routes { named: self.routes.clone(), ad_hoc: Arc::clone(&self.ad_hoc) }
    }
}

/// What a verb beside the gateway has to know: nothing of the routes, so that a person's shell
/// needs none of the variables that hold their credentials.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) listen: SocketAddr,
    pub(crate) store: Ledger,
    pub(crate) ca_file: Option<PathBuf>,
}

/// The part of the file that says where things are.
#[derive(Debug, Default, Deserialize)]
struct PlacesFile {
    listen: Option<SocketAddr>,
    store: Option<String>,
    data: Option<PathBuf>,
    #[serde(default)]
    tls: TlsFile,
}

impl Places {
    /// Reads the same file and the same variables as `serve` does.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (_, text, name) = read(path)?;
        Self::build(&text, &name, |variable| std::env::var(variable).ok())
    }

    fn build(
        text: &str,
        name: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let fits = |value: &String| !value.contains(['"', '\\', '\n', '\r']);
        let text = interpolate(text, name, Some(""), |wanted| variable(wanted).filter(fits))?;
        let wrong = |error: toml::de::Error| {
            ConfigError(format!("{name}: {}", error.to_string().trim_end()))
        };
        let mut table: toml::Table = toml::from_str(&text).map_err(wrong)?;
        for (over, place) in [
            ("ONCEWARD_LISTEN", &["listen"][..]),
            ("ONCEWARD_STORE", &["store"]),
            ("ONCEWARD_DATA", &["data"]),
            ("ONCEWARD_TLS__CA_FILE", &["tls", "ca_file"]),
        ] {
            if let Some(value) = variable(over) {
                let place: Vec<String> = place.iter().map(|&part| part.to_owned()).collect();
                set(&mut table, &place, &value)
                    .ok_or_else(|| ConfigError(format!("{name}: {} is no table", place[0])))?;
            }
        }
        let file: PlacesFile = table.try_into().map_err(wrong)?;
        let listen = file.listen.map_or_else(|| LISTEN.parse(), Ok);
        Ok(Self {
            listen: listen.map_err(|_| ConfigError("no listener".to_owned()))?,
            store: Ledger::read(file.store.as_deref(), file.data, name)?,
            ca_file: file.tls.ca_file,
        })
    }

    /// The folder of the ledger.
    pub(crate) fn data(&self) -> PathBuf {
        self.store.data()
    }
}

/// Finds and reads the file: its path, its text, and what errors call it.
fn read(path: Option<&Path>) -> Result<(Option<PathBuf>, String, String), ConfigError> {
    let found = path.map(Path::to_owned).or_else(|| {
        ["onceward.toml", "/etc/onceward/onceward.toml"]
            .map(PathBuf::from)
            .into_iter()
            .find(|candidate| candidate.exists())
    });
    let text = match &found {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            ConfigError(format!("{}: {error}\nhelp: name the file with --config, or leave --config out to run without one", path.display()))
        })?,
    };
    let name = found
        .as_deref()
        .map_or_else(|| "the environment".to_owned(), |path| path.display().to_string());
    Ok((found, text, name))
}

/// `localhost:3000`, an address or a network, as `serve --allow` takes it.
fn allowed_networks(text: &str) -> Result<Vec<IpNet>, ConfigError> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(vec![network]);
    }
    let host = text
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(text, |(host, _)| host);
    if host == "localhost" {
        return Ok(["127.0.0.0/8", "::1/128"]
            .iter()
            .filter_map(|network| network.parse().ok())
            .collect());
    }
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    address.map(|address| vec![IpNet::from(address)]).map_err(|_| {
        ConfigError(format!(
            "--allow {text}: write localhost, an address, or a network such as 10.2.0.0/16"
        ))
    })
}

/// Puts `${NAME}` and `${NAME:-default}` in; a value may not break out of its string. `unset`
/// stands for a variable that is not set and has no default; without it that is an error.
fn interpolate(
    text: &str,
    name: &str,
    unset: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, ConfigError> {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mut rest = line;
        while let Some(at) = rest.find("${").filter(|_| !line.trim_start().starts_with('#')) {
            let wrong = |why: &str| ConfigError(format!("{name}:{}: {why}", number + 1));
            let length = rest[at..].find('}').ok_or_else(|| wrong("`${` without `}`"))?;
            let inside = &rest[at + 2..at + length];
            let (wanted, default) = inside
                .split_once(":-")
                .map_or((inside, None), |(wanted, default)| (wanted, Some(default)));
            let value = variable(wanted).or_else(|| default.or(unset).map(str::to_owned));
            let value = value.ok_or_else(|| {
                wrong(&format!("the variable {wanted} is not set\nhelp: set it, or give it a default: ${{{wanted}:-…}}"))
            })?;
            if value.contains(['"', '\\', '\n', '\r']) {
                return Err(wrong(&format!(
                    "the value of {wanted} has a quote, a backslash or a line break"
                )));
            }
            out.push_str(&rest[..at]);
            out.push_str(&value);
            rest = &rest[at + length + 1..];
        }
        out.push_str(rest);
    }
    Ok(out)
}

/// Parses the file alone, so that errors have their line; then with the environment over it.
fn parse(
    text: &str,
    name: &str,
    overrides: impl Iterator<Item = (String, String)>,
) -> Result<File, ConfigError> {
    let help = "help: `onceward check --config FILE` checks a file without starting";
    let file: File = toml::from_str(text).map_err(|error| {
        ConfigError(format!("{name}: {}\n{help}", error.to_string().trim_end()))
    })?;
    let overrides: Vec<_> = overrides.collect();
    if overrides.is_empty() {
        return Ok(file);
    }
    let mut table: toml::Table =
        toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
    for (variable, value) in &overrides {
        let path: Vec<String> =
            variable["ONCEWARD_".len()..].to_lowercase().split("__").map(str::to_owned).collect();
        set(&mut table, &path, value).ok_or_else(|| {
            ConfigError(format!("the variable {variable} names no place in the configuration"))
        })?;
    }
    let names: Vec<_> = overrides.iter().map(|(variable, _)| variable.as_str()).collect();
    table.try_into().map_err(|error: toml::de::Error| {
        ConfigError(format!("{name}, with {}: {}", names.join(", "), error.message()))
    })
}

fn set(table: &mut toml::Table, path: &[String], value: &str) -> Option<()> {
    let (last, parents) = path.split_last()?;
    let mut table = table;
    for parent in parents {
        table = table
            .entry(parent.clone())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()?;
    }
    // A number or a list is written as in the file; anything else is text.
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut table| table.remove("v"));
    table.insert(last.clone(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
    Some(())
}

fn build_route(
    name: &str,
    file: &RouteFile,
    laid: Laid,
    segment_bytes: usize,
    source: &str,
) -> Result<Route, ConfigError> {
    let wrong = |what: &str| ConfigError(format!("{source}: [{}] {what}", section(name)));
    let base = file
        .upstream
        .as_ref()
        .ok_or_else(|| wrong("has no upstream\nhelp: add upstream = \"https://api.example.com\""))?
        .0
        .clone();
    let total = file.timeout.map_or_else(|| Timeouts::default().total, |span| span.0);
    let within =
        |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0).min(total);
    let timeouts = Timeouts {
        connect: within(file.timeouts.connect, Timeouts::default().connect),
        head: within(file.timeouts.head, total),
        body: within(file.timeouts.body, total),
        total,
    };
    let set_headers = file
        .set_headers
        .iter()
        .map(|(name, value)| (name.0.clone(), Bytes::from(value.0.clone())))
        .collect();
    // A body has to fit a segment of the journal, with its operation beside it.
    let fits = segment_bytes / 2;
    let response_bytes_max =
        file.response_bytes_max.map_or_else(|| fits.min(8 << 20), |size| size.0);
    let body_bytes_max = file.body_bytes_max.map_or_else(|| fits.min(1 << 20), |size| size.0);
    if response_bytes_max.max(body_bytes_max) > fits {
        return Err(wrong(&format!(
            "keeps bodies of more than {fits} bytes, half a segment of the ledger, which do not fit it\nhelp: raise limits.segment_bytes"
        )));
    }
    let answer_max = file.answer_max.map_or_else(
        || if file.guard.is_one() { longest(&laid, total) } else { ANSWER_MAX },
        |span| span.0,
    );
    Ok(Route {
        name: name.to_owned(),
        scope: file.scope.as_ref().map(|scope| scope.0.clone()),
        target: Arc::new(Target {
            base,
            trust: Trust::Operator,
            http2: file.http2.unwrap_or(false),
            timeouts,
        }),
        policy: Arc::new(laid.policy),
        rules: laid.rules,
        set_headers: Headers(set_headers),
        protection: file.protection.build(&wrong)?,
        answer_max,
        body_bytes_max,
        response_bytes_max,
        reconcile: file
            .reconcile
            .as_ref()
            .map(|list| doubt::reconcile(list, &wrong))
            .transpose()?,
        chaos: file.chaos.as_ref().map(|chaos| build_chaos(chaos, total, &wrong)).transpose()?,
    })
}

/// How long a held call takes at most: its last attempt begins within the wait.
fn longest(laid: &Laid, timeout: Duration) -> Duration {
    let policies = laid.rules.iter().map(|rule| &*rule.policy).chain([&laid.policy]);
    let wait = policies.map(|policy| policy.held.horizon).max().unwrap_or_default();
    ANSWER_MAX.max(wait.saturating_add(timeout))
}

fn build_chaos(
    file: &ChaosFile,
    timeout: Duration,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Arc<Chaos>, ConfigError> {
    let chaos = Chaos {
        seed: file.seed.unwrap_or(1),
        refuse: file.refuse,
        drop: file.drop,
        reset: file.reset,
        truncate: file.truncate,
        delay: file.delay,
        delay_for: file.delay_for.map_or(Duration::from_secs(1), |span| span.0),
    };
    let sum: u32 = chaos.percentages().iter().map(|(_, percent)| u32::from(*percent)).sum();
    if !(1..=100).contains(&sum) {
        return Err(wrong(&format!(
            "has a chaos of {sum} percent\nhelp: refuse, drop, reset, truncate and delay are percentages of its attempts, together 1 to 100"
        )));
    }
    if chaos.delay > 0 && chaos.delay_for >= timeout {
        return Err(wrong(&format!(
            "has a chaos.delay_for of {}, and an attempt ends after {}\nhelp: choose a shorter delay, or `drop` for an answer that never comes",
            crate::units::show(chaos.delay_for),
            crate::units::show(timeout)
        )));
    }
    Ok(Arc::new(chaos))
}

/// The policy with what the file says laid over it.
fn lay_over(
    mut policy: Policy,
    file: &PolicyFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Policy, ConfigError> {
    if let Some(unknown) = file.unknown.keys().next() {
        return Err(wrong(&format!(
            "has an unknown key {unknown:?}\nhelp: the keys are in docs/configuration.md"
        )));
    }
    let names = |names: &[Name]| names.iter().map(|name| name.0.clone()).collect::<Vec<_>>();
    if let Some(effects) = file.effects {
        policy.effects = Some(effects.into());
    }
    if let Some(key) = &file.upstream_key {
        if policy.effects != Some(Effects::Keyed) {
            return Err(wrong(
                "has an upstream_key, but its effects are not keyed\nhelp: add effects = \"keyed\"",
            ));
        }
        let rule = &mut policy.upstream_key;
        let header = key.header.as_ref().map(|name| KeyPlace::Header(name.0.clone()));
        let json = key.json.as_ref().map(|pointer| KeyPlace::Json(pointer.0.clone()));
        let query = key.query.as_ref().map(|name| KeyPlace::Query(name.clone()));
        let mut places = [header, json, query].into_iter().flatten();
        rule.place = places.next().unwrap_or_else(|| rule.place.clone());
        if places.next().is_some() {
            return Err(wrong(
                "has an upstream_key in two places\nhelp: say one of header, json and query",
            ));
        }
        rule.bytes_max = key.bytes_max.unwrap_or(rule.bytes_max);
        match key.value {
            Some(UpstreamKeyWord::Derived) => rule.value = UpstreamKeyValue::Derived,
            Some(UpstreamKeyWord::Passthrough) => rule.value = UpstreamKeyValue::Passthrough,
            None => {}
        }
        rule.window = key.window.map_or(rule.window, |span| span.0);
    }
    if let Some(mode) = file.mode {
        policy.mode = if mode == ModeWord::Held { Mode::Held } else { Mode::Accepted };
    }
    if let Some(key) = &file.key {
        match key.missing {
            Some(MissingWord::Make) => policy.key_missing = KeyMissing::Make,
            Some(MissingWord::Require) => policy.key_missing = KeyMissing::Require,
            Some(MissingWord::Pass) => policy.key_missing = KeyMissing::Pass,
            None => {}
        }
        if let Some(headers) = &key.headers {
            policy.key_headers = names(headers);
        }
        keys::lay_key(&mut policy, key, wrong)?;
        if let Some(pointer) = &key.json {
            policy.key_pointer = Some(pointer.0.clone());
        }
    }
    if let Some(print) = &file.fingerprint {
        let rule = &mut policy.fingerprint;
        match print.body {
            Some(BodyWord::Auto) => rule.body = BodyRule::Auto,
            Some(BodyWord::Raw) => rule.body = BodyRule::Raw,
            Some(BodyWord::None) => rule.body = BodyRule::None,
            None => {}
        }
        match print.query {
            Some(QueryWord::Raw) => rule.query = QueryRule::Raw,
            Some(QueryWord::None) => rule.query = QueryRule::None,
            None => {}
        }
        if let Some(headers) = &print.headers {
            rule.headers = names(headers);
        }
        if let Some(ignore) = &print.ignore {
            rule.ignore.clone_from(ignore);
        }
    }
    file.statuses.lay_over(&mut policy).map_err(|what| wrong(&what))?;
    if let Some(hints) = &file.hints {
        policy.hints = hints.iter().map(|hint| hint.0).collect();
    }
    policy.delete_gone = file.delete_gone.map_or(policy.delete_gone, |gone| gone == DeleteGone::Ok);
    policy.accepted = backoff(policy.accepted, file.retry.as_ref());
    policy.held = backoff(policy.held, file.held.as_ref());
    policy.held.horizon = file.wait.map_or(policy.held.horizon, |span| span.0);
    policy.window = file.window.map_or(policy.window, |span| span.0);
    policy.tombstone = file.tombstone.map_or(policy.tombstone, |span| span.0);
    if let Some(word) = file.order {
        policy.order = if word == OrderWord::Subject { Order::Subject } else { Order::None };
    }
    policy.order_block_max = file.order_block_max.map_or(policy.order_block_max, |span| span.0);
    policy.order_gap_max = file.order_gap_max.map_or(policy.order_gap_max, |span| span.0);
    policy.subject_max = file.subject_max.unwrap_or(policy.subject_max).max(1);
    if let Some(word) = file.on_dead {
        policy.on_dead = if word == OnDeadWord::Revive { OnDead::Revive } else { OnDead::Replay };
    }
    if let Some(word) = file.on_expired {
        policy.on_expired =
            if word == OnExpiredWord::Refuse { OnExpired::Refuse } else { OnExpired::Execute };
    }
    policy.mismatch_status = file.mismatch_status.map_or(policy.mismatch_status, |status| status.0);
    keys::lay_life(&mut policy, file, wrong)?;
    if let Some(word) = file.error_shape {
        policy.error_shape = match word {
            ErrorShapeWord::Problem => ErrorShape::Problem,
            ErrorShapeWord::Stripe => ErrorShape::Stripe,
        };
    }
    policy.keep_headers = file.keep_headers.as_deref().map_or(policy.keep_headers, names);
    policy.seal_headers = file.seal_headers.as_deref().map_or(policy.seal_headers, names);
    if let Some(ids) = &file.ids {
        policy.ids = people::ids(ids, wrong)?;
    }
    if let Some(url) = &file.callback {
        policy.callback = Some(people::callback(url, wrong)?);
    }
    doubt::lay_over(policy, file.lookup.as_ref(), file.hours.as_deref(), wrong)
}

fn backoff(mut backoff: Backoff, file: Option<&BackoffFile>) -> Backoff {
    let Some(file) = file else { return backoff };
    let span = |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0);
    backoff.attempts_max = file.attempts_max.unwrap_or(backoff.attempts_max).max(1);
    backoff.horizon = span(file.horizon, backoff.horizon);
    backoff.base = span(file.base, backoff.base);
    backoff.floor = span(file.floor, backoff.floor);
    backoff.cap = span(file.cap, backoff.cap);
    backoff.factor =
        file.factor.filter(|factor| factor.is_finite()).unwrap_or(backoff.factor).max(1.0);
    if let Some(table) = &file.table {
        backoff.table = table.iter().map(|span| span.0).collect();
    }
    backoff
}

/// What `check` says of a route or rule.
#[derive(Debug, Serialize)]
pub(crate) struct Inferred {
    pub(crate) route: String,
    pub(crate) r#match: String,
    pub(crate) effects: &'static str,
    pub(crate) said: bool,
    pub(crate) after_no_answer: &'static str,
}

impl Config {
    /// The table of effects: what the configuration says, and what is inferred from methods.
    pub(crate) fn inferred(&self) -> Vec<Inferred> {
        let mut table = Vec::new();
        for route in self.routes.values() {
            for rule in &route.rules {
                let method = rule.method.as_deref().unwrap_or("*");
                let matched = format!("{method} {}", rule.path);
                let said = rule.policy.effects.is_some();
                let methods =
                    rule.method.as_deref().map_or_else(|| vec!["POST"], |method| vec![method]);
                table.extend(
                    methods
                        .iter()
                        .map(|method| inferred(route, matched.clone(), &rule.policy, method, said)),
                );
            }
            if route.policy.effects.is_some() {
                table.push(inferred(route, "* /**".to_owned(), &route.policy, "POST", true));
            } else {
                table.push(inferred(
                    route,
                    "PUT, DELETE /**".to_owned(),
                    &route.policy,
                    "PUT",
                    false,
                ));
                table.push(inferred(
                    route,
                    "POST, PATCH, … /**".to_owned(),
                    &route.policy,
                    "POST",
                    false,
                ));
            }
        }
        table
    }

    /// What is said of the sources.
    pub(crate) fn described_sources(&self) -> Vec<serde_json::Value> {
        sources::shown(&self.sources)
    }

    /// What is said of the outboxes.
    pub(crate) fn described_outboxes(&self) -> Vec<serde_json::Value> {
        self.outboxes.values().map(|outbox| outbox.described()).collect()
    }

    /// What a careful reader would ask about.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.sources.values().flat_map(|it| it.warnings()).collect::<Vec<_>>();
        for route in self.routes.values() {
            let name = &route.name;
            warnings.extend(self.guards.get(name).iter().flat_map(|guard| guard::warnings(guard)));
            let of = section(name);
            if route.policy.effects.is_none() {
                warnings.push(format!("[{of}] says nothing of its effects: a POST without an answer goes into doubt and is not sent again. Say effects = \"keyed\", \"idempotent\" or \"non-idempotent\"."));
            }
            if let Some(chaos) = &route.chaos {
                let faults = chaos
                    .percentages()
                    .iter()
                    .filter(|(_, percent)| *percent > 0)
                    .map(|(fault, percent)| format!("{} {percent} %", fault.name()))
                    .collect::<Vec<_>>()
                    .join(", ");
                warnings.push(format!(
                    "[{of}.chaos] makes attempts fail on purpose: {faults} (seed {}).",
                    chaos.seed
                ));
            }
            if route.target.base.scheme() == "http"
                && !route
                    .target
                    .base
                    .host_str()
                    .is_some_and(|host| host == "localhost" || host.starts_with("127."))
            {
                warnings.push(format!(
                    "[{of}] sends over http, so credentials and bodies are readable on the way."
                ));
            }
            if route.policy.key_headers.iter().any(|header| header == "x-request-id") {
                warnings.push(format!("[{of}] takes X-Request-Id as the key: proxies renew it at each retry, and then nothing is deduped."));
            }
            let timeout = route.target.timeouts.total;
            let policies = route.rules.iter().map(|rule| &rule.policy).chain([&route.policy]);
            if policies.filter_map(|it| it.lookup.as_ref()).any(|it| it.settle < timeout) {
                warnings.push(format!(
                    "[{of}] settles within its timeout of {}: where a node is lost, an attempt may still be on its way when the upstream is asked, and then be sent twice.",
                    crate::units::show(timeout)
                ));
            }
            if self.default_windows.contains(name) && forecast::is_like_payments(route) {
                warnings.push(forecast::warning(name));
            }
            let window = route.policy.upstream_key.window;
            if route.policy.effects == Some(Effects::Keyed)
                && route.policy.accepted.horizon > window.mul_f64(0.8)
            {
                warnings.push(format!(
                    "[{of}] retries for {}, but its upstream forgets keys after {}: attempts end at 0.8 of that, and what is then unanswered goes into doubt.",
                    crate::units::show(route.policy.accepted.horizon),
                    crate::units::show(window)
                ));
            }
        }
        warnings.extend(self.outboxes.values().filter_map(|it| it.warnings(&self.routes)));
        warnings
    }
}

/// Where in the file a route is said.
pub(crate) fn section(route: &str) -> String {
    match route.split_once('/') {
        Some(("source", source)) => format!("sources.{source}"),
        Some(("outbox", outbox)) => format!("outbox.{outbox}"),
        _ => format!("routes.{route}"),
    }
}

fn inferred(route: &Route, matched: String, policy: &Policy, method: &str, said: bool) -> Inferred {
    let effects = policy.effects_of(method);
    let after_no_answer = match effects {
        Effects::Idempotent => "sent again",
        Effects::Keyed => "sent again with the same key",
        Effects::NonIdempotent if policy.lookup.is_some() => "in doubt, and the upstream is asked",
        Effects::NonIdempotent => "in doubt, not sent again",
    };
    Inferred {
        route: route.name.clone(),
        r#match: matched,
        effects: effects.name(),
        said,
        after_no_answer,
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(text: &str) -> Result<Config, String> {
        let file =
            parse(text, "onceward.toml", std::iter::empty()).map_err(|error| error.to_string())?;
        Config::build(file, Some("onceward.toml".into()), &Overrides::default(), "onceward.toml")
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_that_is_kept_fits_a_segment_of_the_ledger() {
        let small =
            "[limits]\nsegment_bytes = \"1MiB\"\n[routes.a]\nupstream = \"http://a.example\"\n";
        let route = Arc::clone(&load(small).unwrap().routes["a"]);
        assert_eq!((route.response_bytes_max, route.body_bytes_max), (512 << 10, 512 << 10));
        let refused = load(&format!("{small}response_bytes_max = \"1MiB\"")).unwrap_err();
        assert!(refused.contains("limits.segment_bytes"), "{refused}");
    }

    #[test]
    fn a_full_route_reads() {
        let config = load(
            r#"
            listen = "127.0.0.1:1"
            store = "sqlite:d/l.db"
            [routes.crm]
            upstream = "https://crm.example.com/base"
            effects = "keyed"
            upstream_key = { header = "X-Key", value = "derived", window = "24h" }
            window = "7d"
            timeout = "20s"
            retry = { attempts_max = 5, horizon = "1h", base = "5s", factor = 3, cap = "12h" }
            set_headers = { Authorization = "Bearer x" }
            [[routes.crm.rules]]
            match = "PUT /orders/*"
            effects = "idempotent"
            "#,
        )
        .unwrap();
        let route = &config.routes["crm"];
        assert_eq!(route.policy.upstream_key.place, KeyPlace::Header("x-key".into()));
        assert_eq!(route.policy.accepted.attempts_max, 5);
        assert_eq!(route.policy_for("PUT", "/orders/1").effects, Some(Effects::Idempotent));
        assert_eq!(route.policy_for("POST", "/orders").effects, Some(Effects::Keyed));
        assert_eq!(route.target.timeouts.total, Duration::from_secs(20));
        assert_eq!(route.set_headers.text("authorization"), Some("Bearer x"));
        assert!(
            !format!(
                "{:?}",
                parse("[routes.a]\nset_headers={a=\"canary\"}", "f", std::iter::empty())
            )
            .contains("canary")
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_its_mend() {
        for (text, place, mend) in [
            ("listn = 1", "line 1", "unknown field `listn`"),
            ("\n[routes.a]\nupstream = \"ftp://x\"", "line 3", "not an http or https URL"),
            ("[routes.a]\nupstream = \"http://x\"\ntimeout = \"30 parsecs\"", "line", "30s"),
            ("[routes.a]\nupstream = \"http://x\"\neffects = \"maybe\"", "line", "keyed"),
            ("[routes.a]\nupstream = \"http://x\"\nefects = \"keyed\"", "[routes.a]", "efects"),
            ("[routes.a]\neffects = \"keyed\"", "[routes.a]", "add upstream"),
            (
                "[routes.a]\nupstream = \"http://x\"\nhints = [\"x-retry\"]",
                "line",
                "retry-after-ms",
            ),
            ("store = \"mysql:x\"", "store", "sqlite:"),
            ("[routes.a]\nupstream = \"http://u:p@x\"", "line 2", "set_headers"),
            ("[routes.a]\nupstream = \"http://x\"\n[routes.a.chaos]\ndorp = 1", "line", "dorp"),
            (
                "[routes.a]\nupstream = \"http://x\"\nchaos.drop = 1",
                "[routes.a.chaos]",
                "--allow-chaos",
            ),
            (
                "[routes.a]\nupstream = \"http://x\"\neffects = \"keyed\"\nupstream_key = { json = \"key\" }",
                "line",
                "/idempotency_key",
            ),
            (
                "[routes.a]\nupstream = \"http://x\"\neffects = \"keyed\"\nupstream_key = { json = \"/key\", query = \"key\" }",
                "[routes.a]",
                "one of header, json and query",
            ),
            (
                "[routes.a]\nupstream = \"http://x\"\nchaos = { drop = 60, reset = 41 }",
                "[routes.a]",
                "1 to 100",
            ),
            (
                "[routes.a]\nupstream = \"http://x\"\nchaos = { delay = 1, delay_for = \"30s\" }",
                "[routes.a]",
                "shorter delay",
            ),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(place) && error.contains(mend), "{text}\n{error}");
        }
    }

    #[test]
    fn chaos_is_read_where_it_is_allowed() {
        let text = "[routes.a]\nupstream = \"http://x\"\nchaos = { seed = 7, drop = 10 }";
        let file = parse(text, "f", std::iter::empty()).unwrap();
        let flags = Overrides { allow_chaos: true, ..Overrides::default() };
        let config = Config::build(file, None, &flags, "f").unwrap();
        let chaos = config.routes["a"].chaos.as_ref().unwrap();
        assert_eq!((chaos.seed, chaos.drop, chaos.refuse), (7, 10, 0));
        assert!(config.warnings().iter().any(|warning| warning.contains("drop 10 %")));
    }

    #[test]
    fn variables_are_put_in_and_may_not_break_out() {
        let variable = |name: &str| match name {
            "KEY" => Some("secret".to_owned()),
            "EVIL" => Some("\"\nlisten = 1".to_owned()),
            _ => None,
        };
        assert_eq!(
            interpolate("a = \"${KEY}${NO:-d}\"", "f", None, variable).unwrap(),
            "a = \"secretd\""
        );
        assert_eq!(interpolate("# ${NOT_SET}\n", "f", None, variable).unwrap(), "# ${NOT_SET}\n");
        assert!(
            interpolate("a\nb = \"${NOT_SET}\"", "f", None, variable)
                .unwrap_err()
                .to_string()
                .starts_with("f:2: the variable NOT_SET")
        );
        assert!(interpolate("b = \"${EVIL}\"", "f", None, variable).is_err());
    }

    #[test]
    fn the_environment_lies_over_the_file() {
        let overrides = [
            ("ONCEWARD_LISTEN".to_owned(), "127.0.0.1:9".to_owned()),
            ("ONCEWARD_LIMITS__CONNECTIONS_MAX".to_owned(), "7".to_owned()),
        ];
        let file = parse("listen = \"127.0.0.1:1\"", "f", overrides.into_iter()).unwrap();
        assert_eq!((file.listen.unwrap().port(), file.limits.connections_max), (9, Some(7)));
        let unknown =
            parse("", "f", [("ONCEWARD_NONSENSE".to_owned(), "1".to_owned())].into_iter());
        assert!(unknown.unwrap_err().to_string().contains("ONCEWARD_NONSENSE"));
    }

    #[test]
    fn a_verb_beside_the_gateway_needs_no_credentials_to_find_it() {
        let text = "listen = \"127.0.0.1:1\"\nstore = \"sqlite:d/l.db\"\n[routes.a]\nupstream = \"${UPSTREAM}\"\nset_headers = { A = \"${KEY}\" }";
        let places = Places::build(text, "f", |_| None).unwrap();
        assert_eq!((places.listen.port(), places.data()), (1, PathBuf::from("d")));
        let with_default = "listen = \"${NOT_SET:-127.0.0.1:2}\"";
        assert_eq!(Places::build(with_default, "f", |_| None).unwrap().listen.port(), 2);
        let over = |name: &str| (name == "ONCEWARD_STORE").then(|| "sqlite:e/l.db".to_owned());
        assert_eq!(Places::build(text, "f", over).unwrap().data(), PathBuf::from("e"));
        assert!(
            Places::build("listen = 1", "f", |_| None).unwrap_err().to_string().contains("listen")
        );
    }

    #[test]
    fn without_a_file_the_demo_upstreams_are_there() {
        let config = Config::build(File::default(), None, &Overrides::default(), "f").unwrap();
        assert!(config.demo && config.listen.ip().is_loopback());
        assert!(!load("").unwrap().demo);
    }
}
