//! One TOML file, the environment, and flags. Unknown keys are errors with their line; whatever
//! is wrong is said with where it stands and how to mend it.
//!
//! The way of a key: `text` has the file with what variables lay over it; a `table` is asked for each
//! key by name, where the part of the house that it belongs to is made, and says what is wrong with
//! its place; what nobody asked for is unknown. `words` has the readers of single values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use onceward::core::claim::ClaimRule;
use onceward::core::operation::Deed;
use onceward::core::redact::Redaction;
use onceward::edge::Pace;
use onceward::route::{Route, Routes};
use onceward::upstream::{Target, Trust};
use onceward::{EventRules, TenantRules};

use self::callbacks::WebhookSecret;
use self::profile::Profiles;
use self::route::{Around, Made};
use self::table::Table;
use self::text::{Text, find, interpolate};
use crate::alerts::AlertsConfig;
use crate::ledger::Ledger;
use crate::source::Source;
use crate::tls::TlsFiles;

mod alerts;
mod auth;
mod callbacks;
pub(crate) mod claims;
mod doubt;
mod effects;
mod events;
mod forecast;
pub(crate) mod guard;
mod listener_tls;
mod mail;
mod oidc;
mod outbox;
mod policy;
mod profile;
mod protection;
#[cfg(test)]
mod reference;
mod route;
mod settings;
mod shown;
mod sources;
mod table;
mod telemetry;
mod tenants;
mod text;
mod upstream_tls;
mod verify;
mod warnings;
mod words;

pub(crate) use self::forecast::Forecast;
pub(crate) use self::guard::Guard;
pub(crate) use self::oidc::OidcConfig;
pub(crate) use self::outbox::{Outbox, To};
pub(crate) use self::profile::Setting;
pub(crate) use self::shown::shown;
pub(crate) use self::telemetry::{Batches, Exporter, IN_URL, TelemetryConfig};
#[cfg(test)]
pub(crate) use self::text::NOT_OVERRIDES;
pub(crate) use self::words::{KEY_TIMES, MEANINGS, MISSING, ON_DEAD, ON_EXPIRED, ORDERS, word_of};

/// What a file may have, as JSON Schema, and a file with every key: made of what its readers ask for, by a test that
/// holds both.
pub(crate) const SCHEMA: &str = include_str!("config/schema.json");
pub(crate) const EXAMPLE: &str = include_str!("config/example.toml");

/// The listener where nothing says otherwise.
pub(crate) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7077);

/// How long it is kept what people did, where nothing says otherwise.
const AUDIT_KEPT: Duration = Duration::from_hours(24 * 400);

/// The scripted upstreams.
const DEMO: [&str; 2] = ["demo", "demo-unsafe"];

/// What is wrong with a configuration: shown as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// The configuration in force.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    /// How the main listener speaks TLS, where it does.
    pub(crate) tls: Option<TlsFiles>,
    /// Whether a caller's certificate stands for the access key of its name.
    pub(crate) names_callers: bool,
    /// Whether a proxy stands before the main listener that speaks TLS for it.
    pub(crate) behind_proxy: bool,
    pub(crate) store: Ledger,
    pub(crate) demo: bool,
    /// Whether bodies are sealed where nothing nearer says otherwise.
    pub(crate) seal_bodies: bool,
    pub(crate) strict: bool,
    /// What wants two persons.
    pub(crate) approve: Vec<Deed>,
    pub(crate) egress_allow: Vec<IpNet>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
    /// How long a connection may stand that carries nothing.
    pub(crate) idle_timeout: Duration,
    /// How fast a body that is read whole has to come.
    pub(crate) pace: Pace,
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
    /// What holds for events and subscriptions.
    pub(crate) events: EventRules,
    /// What each tenant may have.
    pub(crate) tenants: TenantRules,
    /// The identity provider that people may log in with.
    pub(crate) oidc: Option<Arc<OidcConfig>>,
    /// Where traces go, and how many.
    pub(crate) telemetry: TelemetryConfig,
    /// What is watched, and who is told.
    pub(crate) alerts: Option<Arc<AlertsConfig>>,
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
    /// The file says all: no variable is put into it or laid over it.
    pub(crate) is_whole: bool,
}

impl Config {
    /// Reads `path`, or `onceward.toml` here, or nothing; lays the environment and the flags over it.
    pub(crate) fn load(path: Option<&Path>, flags: &Overrides) -> Result<Self, ConfigError> {
        Ok(Self::open(path, flags)?.0)
    }

    /// The same, with the text that it was read of, and the file as it was written.
    fn open(path: Option<&Path>, flags: &Overrides) -> Result<(Self, Text, String), ConfigError> {
        let (found, written, name) = find(path)?;
        let text = if flags.is_whole {
            Text::new(written.clone(), &name, std::iter::empty())
        } else {
            let variable = |variable: &str| std::env::var(variable).ok();
            let text = interpolate(&written, &name, None, variable)?;
            Text::new(text, &name, text::overrides())
        };
        let mut config = Self::read(&text, found, flags)?;
        config.telemetry.lay_over(|variable| std::env::var(variable).ok())?;
        Ok((config, text, written))
    }

    fn read(text: &Text, found: Option<PathBuf>, flags: &Overrides) -> Result<Self, ConfigError> {
        let keys = text.parse()?;
        let file = &Table::whole(text, &keys);
        let places = Places::read(file, flags)?;
        let limits = file.within("limits", Limits::read)?.unwrap_or_default();
        let demo = file.or("demo", found.is_none())?;
        let seal_bodies = file.or("seal_bodies", found.is_some())?;
        let routes = file.named("routes", words::name)?;
        let mut names: BTreeSet<String> = routes.iter().map(|(name, _)| name.clone()).collect();
        names.extend(DEMO.iter().filter(|_| demo).map(|&name| name.to_owned()));
        let around = Around {
            profiles: Profiles::new(file, seal_bodies)?,
            names,
            segment_bytes: limits.segment_bytes,
            ca_file: places.ca_file.clone(),
            upstash: route::compatible(file)?.unwrap_or(false),
        };
        let egress = |table: &Table<'_>| table.or("allow", Vec::new());
        let mut egress_allow = file.within("egress", egress)?.unwrap_or_default();
        for allowed in &flags.allow {
            egress_allow.extend(allowed_networks(allowed)?);
        }
        let approve = file.texts("approve", words::approved)?.unwrap_or_default();
        let kept = |table: &Table<'_>| table.span_or("retention", AUDIT_KEPT);
        let callbacks_secret = callbacks::secret(file)?;
        let mut config = Self {
            listen: places.listen,
            tls: places.tls,
            names_callers: places.names_callers,
            behind_proxy: places.behind_proxy,
            store: places.store,
            demo,
            seal_bodies,
            strict: file.or("strict", false)?,
            approve: approve.into_iter().flatten().copied().collect(),
            egress_allow,
            ca_file: places.ca_file,
            connections_max: limits.connections_max,
            connections_per_address_max: limits.connections_per_address_max,
            idle_timeout: limits.idle_timeout,
            pace: limits.pace,
            segment_bytes: limits.segment_bytes as u32,
            routes: BTreeMap::new(),
            guards: BTreeMap::new(),
            sources: BTreeMap::new(),
            outboxes: BTreeMap::new(),
            settings: Vec::new(),
            ad_hoc: Arc::new(ad_hoc(text, &around)?),
            default_windows: Vec::new(),
            callbacks_secret,
            claims: claims::rules(file, limits.segment_bytes)?,
            events: file.within("events", events::read)?.unwrap_or_default(),
            tenants: tenants::limits(file)?,
            oidc: file.within("oidc", oidc::read)?.map(Arc::new),
            telemetry: file.within("telemetry", telemetry::read)?.unwrap_or_default(),
            alerts: None,
            audit_kept: file.within("audit", kept)?.unwrap_or(AUDIT_KEPT),
            file: found,
        };
        config.read_routes(routes, &around, flags)?;
        for (name, table) in file.named("sources", words::name)? {
            let (source, own) = sources::read(&name, &table, &around)?;
            if let Some(own) = own {
                config.add(own);
            }
            config.sources.insert(name, Arc::new(source));
        }
        guard::check(&config.guards, &config.routes, config.listen, file)?;
        for (name, table) in file.named("outbox", words::name)? {
            let (outbox, own) = outbox::read(&name, &table, &around)?;
            if let Some(own) = own {
                config.add(own);
            }
            config.outboxes.insert(name, Arc::new(outbox));
        }
        let public_url = file.text("public_url", words::url)?;
        let alerts = |table: &Table<'_>| alerts::read(table, public_url, &around);
        if let Some((alerts, routes)) = file.within("alerts", alerts)? {
            for made in routes {
                config.add(made);
            }
            config.alerts = Some(Arc::new(alerts));
        }
        tenants::check(&config, file)?;
        config.redact(&policy::redaction(file)?);
        callbacks::check(&config.routes, config.callbacks_secret.as_ref(), file)?;
        file.done()?;
        Ok(config)
    }

    fn read_routes(
        &mut self,
        routes: Vec<(String, Table<'_>)>,
        around: &Around<'_>,
        flags: &Overrides,
    ) -> Result<(), ConfigError> {
        for (name, table) in routes {
            let is_guard = guard::is_one(&table)?;
            let made = around.route(&name, &table, is_guard)?;
            let guard = is_guard.then(|| guard::read(&table, &made.route)).transpose()?;
            table.done()?;
            if made.route.chaos.is_some() && !flags.allow_chaos {
                return Err(ConfigError(format!(
                    "{}: [routes.{name}.chaos] makes its attempts fail on purpose\nhelp: where that is wanted, say so with --allow-chaos; else take [routes.{name}.chaos] out",
                    table.file()
                )));
            }
            self.default_windows.extend(made.keeps_the_default.then(|| name.clone()));
            self.guards.extend(guard.map(|guard| (name, Arc::new(guard))));
            self.add(made);
        }
        Ok(())
    }

    /// What holds for all, whatever a route says.
    fn redact(&mut self, redact: &Redaction) {
        for route in self.routes.values_mut().chain([&mut self.ad_hoc]) {
            let route = Arc::make_mut(route);
            let rules = route.rules.iter_mut().map(|rule| &mut rule.policy);
            for policy in rules.chain([&mut route.policy]).filter(|_| !redact.is_empty()) {
                Arc::make_mut(policy).redact.add(redact);
            }
        }
    }

    fn add(&mut self, made: Made) {
        self.settings.extend(made.settings);
        self.routes.insert(made.route.name.clone(), Arc::new(made.route));
    }

    /// What a file of this text would be, in an empty environment.
    #[cfg(test)]
    pub(crate) fn of_text(text: &str) -> Result<Self, ConfigError> {
        let text = interpolate(text, "text", None, |_| None)?;
        Self::read(&Text::new(text, "text", std::iter::empty()), None, &Overrides::default())
    }

    /// Whether a process that runs with `other` differs from this in its routes only.
    pub(crate) fn is_served_as(&self, other: &Self) -> bool {
        self.listen == other.listen
            && self.tls == other.tls
            && self.names_callers == other.names_callers
            && self.behind_proxy == other.behind_proxy
            && self.store == other.store
            && self.demo == other.demo
            && self.egress_allow == other.egress_allow
            && self.ca_file == other.ca_file
            && self.connections_max == other.connections_max
            && self.connections_per_address_max == other.connections_per_address_max
            && self.idle_timeout == other.idle_timeout
            && self.pace == other.pace
            && self.segment_bytes == other.segment_bytes
            && self.telemetry == other.telemetry
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

/// Bounds of the whole gateway.
struct Limits {
    connections_max: usize,
    connections_per_address_max: usize,
    idle_timeout: Duration,
    pace: Pace,
    segment_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 1024,
            idle_timeout: Duration::from_secs(75),
            pace: Pace::default(),
            segment_bytes: 64 << 20,
        }
    }
}

impl Limits {
    fn read(table: &Table<'_>) -> Result<Self, ConfigError> {
        let usual = Self::default();
        let segment_bytes = table.size("segment_bytes")?.unwrap_or(usual.segment_bytes);
        if !(1 << 20..=1 << 30).contains(&segment_bytes) {
            return Err(table.wrong("limits.segment_bytes lies between 1MiB and 1GiB"));
        }
        let idle_timeout = table.span_or("idle_timeout", usual.idle_timeout)?;
        let total = table.span_or("body_timeout", usual.pace.total)?;
        // Nobody could say anything in less.
        if idle_timeout.min(total) < Duration::from_millis(100) {
            return Err(
                table.wrong("limits.idle_timeout and limits.body_timeout are 100ms at least")
            );
        }
        let bytes_per_second = table.size("body_rate_min")?.unwrap_or(usual.pace.bytes_per_second);
        Ok(Self {
            connections_max: table.or("connections_max", usual.connections_max)?,
            connections_per_address_max: table
                .or("connections_per_address_max", usual.connections_per_address_max)?,
            idle_timeout,
            pace: Pace { total, bytes_per_second },
            segment_bytes,
        })
    }
}

/// The route of ad hoc URLs: a caller's, and as every route is where nothing is said.
fn ad_hoc(text: &Text, around: &Around<'_>) -> Result<Route, ConfigError> {
    let name = "https://ad-hoc.invalid";
    let mut keys = toml::de::DeTable::new();
    text::add_text(&mut keys, "upstream", name);
    let route = around.route(name, &Table::made(text, name, &keys), false)?.route;
    let target = Target { trust: Trust::Caller, ..(*route.target).clone() };
    Ok(Route { target: Arc::new(target), ..route })
}

/// What a verb beside the gateway has to know: nothing of the routes, so that a person's shell
/// needs none of the variables that hold their credentials.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) listen: SocketAddr,
    /// How the main listener speaks TLS, where it does.
    pub(crate) tls: Option<TlsFiles>,
    names_callers: bool,
    behind_proxy: bool,
    pub(crate) store: Ledger,
    pub(crate) ca_file: Option<PathBuf>,
}

/// The variables that lie over what is read of these.
const PLACES: [&str; 6] = [
    "ONCEWARD_LISTEN",
    "ONCEWARD_STORE",
    "ONCEWARD_DATA",
    "ONCEWARD_TLS__CA_FILE",
    "ONCEWARD_TLS__CERT_FILE",
    "ONCEWARD_TLS__KEY_FILE",
];

impl Places {
    /// Reads the same file and the same variables as `serve` does.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (_, text, name) = find(path)?;
        Self::build(&text, &name, |variable| std::env::var(variable).ok())
    }

    fn build(
        text: &str,
        name: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let fits = |value: &String| !value.contains(['"', '\\', '\n', '\r']);
        let text = interpolate(text, name, Some(""), |wanted| variable(wanted).filter(fits))?;
        let overrides =
            PLACES.iter().filter_map(|over| Some(((*over).to_owned(), variable(over)?)));
        let text = Text::new(text, name, overrides);
        let keys = text.parse()?;
        Self::read(&Table::whole(&text, &keys), &Overrides::default())
    }

    fn read(file: &Table<'_>, flags: &Overrides) -> Result<Self, ConfigError> {
        let store: Option<String> = file.read("store")?;
        let store = flags.store.as_ref().or(store.as_ref());
        let data = file.read("data")?;
        let tls = file.within("tls", listener_tls::of_gateway)?.unwrap_or_default();
        let listen = file.or("listen", LISTEN)?;
        Ok(Self {
            listen: flags.listen.unwrap_or(listen),
            store: Ledger::read(store.map(String::as_str), data, file.file())?,
            ca_file: tls.ca_file,
            tls: tls.files,
            names_callers: tls.names_callers,
            behind_proxy: file.or("behind_proxy", false)?,
        })
    }

    /// The folder of the ledger.
    pub(crate) fn data(&self) -> PathBuf {
        self.store.data()
    }
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
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map(|address| vec![IpNet::from(address)]).map_err(|_| {
        ConfigError(format!(
            "--allow {text}: write localhost, an address, or a network such as 10.2.0.0/16"
        ))
    })
}

/// Where in the file a route is said.
pub(crate) fn section(route: &str) -> String {
    match route.split_once('/') {
        Some(("source", source)) => format!("sources.{source}"),
        Some(("outbox", outbox)) => format!("outbox.{outbox}"),
        Some(("alerts", to)) => format!("alerts.to.{to}"),
        _ => format!("routes.{route}"),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests;
