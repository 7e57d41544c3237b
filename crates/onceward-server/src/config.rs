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
use onceward::route::{Route, Routes};
use onceward::upstream::{Target, Trust};

use self::callbacks::WebhookSecret;
use self::profile::Profiles;
use self::route::Around;
use self::table::Table;
use self::text::{Text, find, interpolate};
use crate::ledger::Ledger;
use crate::source::Source;

mod callbacks;
mod claims;
mod doubt;
mod effects;
mod forecast;
pub(crate) mod guard;
mod outbox;
mod policy;
mod profile;
mod protection;
mod route;
mod settings;
mod sources;
mod table;
mod text;
mod verify;
mod warnings;
mod words;

pub(crate) use self::claims::FINGERPRINTS;
pub(crate) use self::forecast::Forecast;
pub(crate) use self::guard::Guard;
pub(crate) use self::outbox::{Outbox, To};
pub(crate) use self::profile::Setting;
pub(crate) use self::words::{MEANINGS, MISSING, word_of};

/// The listener where nothing says otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7077);

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
        let (found, text, name) = find(path)?;
        let text = interpolate(&text, &name, None, |variable| std::env::var(variable).ok())?;
        Self::read(&Text::new(text, &name, text::overrides()), found, flags)
    }

    fn read(text: &Text, found: Option<PathBuf>, flags: &Overrides) -> Result<Self, ConfigError> {
        let keys = text.parse()?;
        let file = &Table::whole(text, &keys);
        let places = Places::read(file, flags)?;
        let limits = file.within("limits", Limits::read)?.unwrap_or_default();
        let demo = file.or("demo", found.is_none())?;
        let named = file.named("routes", words::name)?;
        let mut names: BTreeSet<String> = named.iter().map(|(name, _)| name.clone()).collect();
        names.extend(DEMO.iter().filter(|_| demo).map(|&name| name.to_owned()));
        let around = Around {
            profiles: Profiles::new(file)?,
            names,
            segment_bytes: limits.segment_bytes,
            ca_file: places.ca_file.clone(),
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
            store: places.store,
            demo,
            strict: file.or("strict", false)?,
            approve: approve.into_iter().flatten().copied().collect(),
            egress_allow,
            ca_file: places.ca_file,
            connections_max: limits.connections_max,
            connections_per_address_max: limits.connections_per_address_max,
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
            audit_kept: file.within("audit", kept)?.unwrap_or(AUDIT_KEPT),
            file: found,
        };
        config.read_routes(named, &around, flags)?;
        for (name, table) in file.named("sources", words::name)? {
            let (source, own) = sources::read(&name, &table, &around)?;
            if let Some(mut own) = own {
                config.settings.append(&mut own.settings);
                config.add(own.route);
            }
            config.sources.insert(name, Arc::new(source));
        }
        guard::check(&config.guards, &config.routes, config.listen, file)?;
        for (name, table) in file.named("outbox", words::name)? {
            let (outbox, own) = outbox::read(&name, &table, &around)?;
            if let Some(own) = own {
                config.add(own.route);
            }
            config.outboxes.insert(name, Arc::new(outbox));
        }
        callbacks::check(&config.routes, config.callbacks_secret.as_ref(), file)?;
        file.done()?;
        Ok(config)
    }

    fn read_routes(
        &mut self,
        named: Vec<(String, Table<'_>)>,
        around: &Around<'_>,
        flags: &Overrides,
    ) -> Result<(), ConfigError> {
        for (name, table) in named {
            let is_guard = guard::MAKES_ONE.iter().any(|key| table.has(key));
            let mut made = around.route(&name, &table, is_guard)?;
            let guard = guard::read(&table, &made.route)?;
            table.done()?;
            if made.route.chaos.is_some() && !flags.allow_chaos {
                return Err(ConfigError(format!(
                    "{}: [routes.{name}.chaos] makes its attempts fail on purpose\nhelp: where that is wanted, say so with --allow-chaos; else take [routes.{name}.chaos] out",
                    table.file()
                )));
            }
            self.settings.append(&mut made.settings);
            self.default_windows.extend(made.keeps_the_default.then(|| name.clone()));
            self.guards.extend(guard.map(|guard| (name, Arc::new(guard))));
            self.add(made.route);
        }
        Ok(())
    }

    fn add(&mut self, route: Route) {
        self.routes.insert(route.name.clone(), Arc::new(route));
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

/// Bounds of the whole gateway.
struct Limits {
    connections_max: usize,
    connections_per_address_max: usize,
    segment_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 10_000, connections_per_address_max: 1024, segment_bytes: 64 << 20 }
    }
}

impl Limits {
    fn read(table: &Table<'_>) -> Result<Self, ConfigError> {
        let usual = Self::default();
        let segment_bytes = table.size("segment_bytes")?.unwrap_or(usual.segment_bytes);
        if !(1 << 20..=1 << 30).contains(&segment_bytes) {
            return Err(table.wrong("limits.segment_bytes lies between 1MiB and 1GiB"));
        }
        Ok(Self {
            connections_max: table.or("connections_max", usual.connections_max)?,
            connections_per_address_max: table
                .or("connections_per_address_max", usual.connections_per_address_max)?,
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
    pub(crate) store: Ledger,
    pub(crate) ca_file: Option<PathBuf>,
}

/// The variables that lie over what is read of these.
const PLACES: [&str; 4] =
    ["ONCEWARD_LISTEN", "ONCEWARD_STORE", "ONCEWARD_DATA", "ONCEWARD_TLS__CA_FILE"];

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
        let ca_file = file.within("tls", |table| table.read("ca_file"))?;
        let listen = file.or("listen", LISTEN)?;
        Ok(Self {
            listen: flags.listen.unwrap_or(listen),
            store: Ledger::read(store.map(String::as_str), data, file.file())?,
            ca_file: ca_file.flatten(),
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
        _ => format!("routes.{route}"),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use onceward::core::policy::Effects;
    use onceward::core::upstream_key::KeyPlace;

    use super::*;

    pub(super) fn load(text: &str) -> Result<Config, String> {
        load_with(text, &[], &Overrides::default())
    }

    fn load_with(
        text: &str,
        variables: &[(&str, &str)],
        flags: &Overrides,
    ) -> Result<Config, String> {
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let text = Text::new(text, "onceward.toml", variables);
        Config::read(&text, Some("onceward.toml".into()), flags).map_err(|error| error.to_string())
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
    }

    #[test]
    fn no_error_shows_what_may_be_a_secret() {
        for text in [
            "[routes.a]\nset_headers = { Authorization = \"Bearer canary\" ",
            "[routes.a]\nset_headers = { Authorization = \"Bearer canary",
            "[routes.a]\nset_headers = { Authorization = Bearer canary }",
            "[routes.a]\nset_headers = \"canary\"",
            "[routes.a]\nset_headers = { Authorization = [\"canary\"] }",
            "[routes.a]\nset_headers = { Authorization = \"can\\nary\" }",
            "[routes.a]\nset_headers = { Authorization = \"canary\", \"a b\" = \"canary\" }",
            "[routes.a]\nupstream = \"https://u:canary@a.example\"",
            "[routes.a]\nupstream = \"htps://u:canary@a.example\"",
            "[sources.a]\nverify = { scheme = \"github\", secret = \"canary }",
            "[sources.a]\nverify = \"canary\"",
            "[sources.a]\nverify = { scheme = \"github\", secret = { text = \"canary\" } }",
            "callbacks = \"canary\"",
            "[callbacks]\nsecret = \"canary\"",
            "[callbacks]\nsecret = 'canary",
            "[outbox.a]\ndatabase = \"mysql://u:canary@h/d\"",
            "[outbox.a]\ndatabase = [\"postgres://u:canary@h/d\"]",
            "store = \"mysql://u:canary@h/d\"",
        ] {
            let error = load(text).unwrap_err();
            assert!(!error.contains("canary"), "{text}\n{error}");
        }
        for (text, place) in [
            ("\na = \"x", "at line 2, column 7: invalid basic string"),
            ("[routes.a]\ntimeout = 1 2", "at line 2, column"),
            ("[routes.a]\nset_headers = \"x\"", "at line 2, column 15: [routes.a] set_headers: "),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.starts_with(&format!("onceward.toml: {place}")), "{text}\n{error}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_told_with_what_was_meant() {
        for (text, meant) in [
            ("listn = 1", "`listn`: did you mean \"listen\"?"),
            ("[limits]\nconections_max = 1", "`limits.conections_max`: did you mean"),
            ("[routes.a]\nupsteam = \"http://x\"", "\"upsteam\": did you mean \"upstream\"?"),
            (
                "[routes.a]\nupstream = \"http://x\"\nefects = \"keyed\"\nupstream_key = {}",
                "\"efects\": did you mean \"effects\"?",
            ),
            (
                "[routes.a]\nupstream = \"http://x\"\nkey = { mising = \"make\" }",
                "\"key.mising\": did you mean \"missing\"?",
            ),
            (
                "[routes.a]\nupstream = \"http://x\"\nkey = { missing = \"mak\" }",
                "\"mak\" is none of \"make\", \"require\", \"pass\": did you mean \"make\"?",
            ),
            (
                "[routes.a]\nupstream = \"http://x\"\nlookup = { get = \"/o\", fuond = {} }",
                "\"lookup.fuond\": did you mean \"found\"?",
            ),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(meant), "{text}\n{error}");
        }
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
        let flags = Overrides { allow_chaos: true, ..Overrides::default() };
        let config = load_with(text, &[], &flags).unwrap();
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
        let variables =
            [("ONCEWARD_LISTEN", "127.0.0.1:9"), ("ONCEWARD_LIMITS__CONNECTIONS_MAX", "7")];
        let load = |variables: &[_]| {
            load_with("listen = \"127.0.0.1:1\"", variables, &Overrides::default())
        };
        let config = load(&variables).unwrap();
        assert_eq!((config.listen.port(), config.connections_max), (9, 7));
        for (variable, value) in [
            ("ONCEWARD_NONSENSE", "1"),
            ("ONCEWARD_LISTEN__PORT", "1"),
            ("ONCEWARD_LIMITS__CONNECTIONS_MAX", "[1, \"canary\"]"),
        ] {
            let error = load(&[(variable, value)]).unwrap_err();
            assert!(error.contains(variable) && !error.contains("canary"), "{error}");
        }
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
        let config = Config::of_text("").unwrap();
        assert!(config.demo && config.listen.ip().is_loopback());
        assert!(!load("").unwrap().demo);
    }
}
