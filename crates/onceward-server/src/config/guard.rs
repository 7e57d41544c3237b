//! A route at the path root of a listener or a host of its own, as the file says it: who its callers
//! are, what they may ask of us, and what its upstream is told of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;
use onceward::core::exchange::is_credential;
use onceward::core::key::TENANT;
use onceward::route::Route;

use super::table::{Table, Words};
use super::words::{header_name, tenant_name};
use super::{ConfigError, listener_tls};
use crate::tls::TlsFiles;

/// Credentials that tell callers apart where nothing says what does.
pub(crate) const CREDENTIALS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// The keys that make a guard of a route, and those that only a guard may say.
const MAKES_ONE: [&str; 2] = ["listen", "host"];
const ONLY_ITS: [&str; 8] = [
    "tenant",
    "tls",
    "principal",
    "reauthorize",
    "cors",
    "upstream_host",
    "trust_forwarded",
    "options",
];

/// `Prefer: respond-async` and `wait=N`.
pub(crate) const RESPOND_ASYNC: &str = "respond-async";

/// What may be allowed: [`RESPOND_ASYNC`], and the request headers without their `Onceward-`.
const OPTIONS: [&str; 11] = [
    RESPOND_ASYNC,
    "delay",
    "not-before",
    "deadline",
    "timeout",
    "attempts-max",
    "label",
    "flow-key",
    "subject",
    "sequence",
    "callback",
];

/// Whether the upstream gets the host that the caller asked for.
const HOSTS: &Words<bool> = &[("upstream", false), ("caller", true)];
const CERTIFICATE_NAMES: &Words<CertificateName> =
    &[("subject", CertificateName::Subject), ("san", CertificateName::San)];

/// A route at the path root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// The route's name.
    pub(crate) route: String,
    /// Whose data its callers send.
    pub(crate) tenant: String,
    /// Where it listens.
    pub(crate) listen: Vec<SocketAddr>,
    /// For which hosts it answers on the main listener.
    pub(crate) hosts: Vec<String>,
    /// How its listeners speak TLS, where they do.
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) principal: PrincipalRule,
    pub(crate) reauthorize: Option<Reauthorize>,
    pub(crate) cors: Cors,
    /// Whether the upstream gets the host that the caller asked for.
    pub(crate) passes_host: bool,
    /// Who is believed to say whom a request is from.
    pub(crate) trusts: Vec<IpNet>,
    /// What callers may ask of us: of [`OPTIONS`].
    pub(crate) options: Vec<String>,
    /// Headers that are credentials, beside those that always are.
    pub(crate) sealed: Vec<String>,
    /// Whether it lends its callers credentials of ours.
    pub(crate) lends: bool,
}

/// What tells one caller from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PrincipalRule {
    /// Nothing was said: the credentials that there are.
    Unsaid,
    /// What a proxy before us says in this header.
    Header(String),
    /// A claim of a bearer token, which is read and not verified.
    Bearer(String),
    /// The name in the certificate that the caller proved to have.
    Mtls(CertificateName),
    /// This cookie.
    Cookie(String),
    /// This header, which is a credential.
    Credential(String),
}

/// Which name of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateName {
    Subject,
    San,
}

/// Who is asked whether a caller may have an answer from memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reauthorize {
    /// Path and query.
    pub(crate) get: String,
    /// The route that it goes through, where that is another.
    pub(crate) route: Option<String>,
}

/// What pages of other origins may read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cors {
    /// Which of our answer headers; without a list all of them.
    pub(crate) expose: Option<Vec<String>>,
    /// Origins that may read what is ours, beside those that the upstream allowed.
    pub(crate) origins: Vec<String>,
    /// Whether those may with credentials.
    pub(crate) credentials: bool,
}

impl Guard {
    /// Whether callers may ask this of us.
    pub(crate) fn allows(&self, option: &str) -> bool {
        self.options.iter().any(|allowed| allowed == option)
    }

    /// Whether what this address says of others is believed.
    pub(crate) fn believes(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusts.iter().any(|network| network.contains(&address))
    }
}

/// Whether a route is a guard; one that is none may not say what only a guard may.
pub(super) fn is_one(table: &Table<'_>) -> Result<bool, ConfigError> {
    if table.says(&MAKES_ONE).is_some() {
        return Ok(true);
    }
    match table.says(&ONLY_ITS) {
        Some(key) => Err(table.wrong(&format!(
            "says {key}, but it has neither a listener nor a host of its own\nhelp: add listen = \"127.0.0.1:8080\""
        ))),
        None => Ok(false),
    }
}

/// The guard that a route is.
pub(super) fn read(table: &Table<'_>, route: &Route) -> Result<Guard, ConfigError> {
    if route.scope.is_some() {
        return Err(table.wrong(
            "shares a scope, in which callers do not differ: one would get what another was answered\nhelp: leave out scope, or say it on a route without a listener",
        ));
    }
    let address = "\"127.0.0.1:8080\", or a list of such addresses";
    let listen = table.one_or_more("listen", address, |text| text.parse().ok())?;
    let hosts = "\"orders.example.com\" without a port, or a list of such names";
    let tls = table.within("tls", listener_tls::read)?;
    if tls.is_some() && listen.is_none() {
        return Err(table.wrong(
            "has tls, and no listener of its own\nhelp: add listen = \"127.0.0.1:8443\"; its host on the main listener has the TLS of [tls]",
        ));
    }
    let trusts = table.read::<Vec<IpNet>>("trust_forwarded")?.unwrap_or_default();
    let reauthorize = table.within("reauthorize", reauthorize)?;
    let principal = table.within("principal", principal)?.unwrap_or(PrincipalRule::Unsaid);
    check_principal(&principal, &trusts, reauthorize.is_some(), tls.as_ref(), table)?;
    let policies = route.rules.iter().map(|rule| &rule.policy).chain([&route.policy]);
    let sealed: Vec<String> = policies.flat_map(|it| it.seal_headers.clone()).collect();
    let mut set = route.set_headers.0.iter();
    Ok(Guard {
        route: route.name.clone(),
        tenant: table.text("tenant", tenant_name)?.unwrap_or_else(|| TENANT.to_owned()),
        listen: listen.unwrap_or_default(),
        hosts: table.one_or_more("host", hosts, host)?.unwrap_or_default(),
        tls,
        principal,
        reauthorize,
        cors: table.within("cors", cors)?.unwrap_or_default(),
        passes_host: table.word("upstream_host", HOSTS)?.unwrap_or(false),
        trusts,
        options: table.texts("options", option)?.unwrap_or_default(),
        lends: route.auth.oauth2.is_some() || set.any(|(name, _)| is_credential(name, &sealed)),
        sealed,
    })
}

/// A name of a host, in lower case, without a port.
fn host(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.[]:".contains(&byte);
    let has_port = text.rsplit_once(':').is_some() && !text.ends_with(']');
    let is_name = !text.is_empty() && text.len() <= 253 && text.bytes().all(fits);
    (is_name && !has_port).then(|| text.to_ascii_lowercase())
}

/// What a caller may ask of us where a guard allows it.
fn option(text: &str) -> Result<String, String> {
    if OPTIONS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no option that a guard may allow: {}", OPTIONS.join(", ")))
}

/// What tells callers apart.
fn principal(table: &Table<'_>) -> Result<PrincipalRule, ConfigError> {
    let named = |key| Ok(table.read(key)?.filter(|name: &String| !name.is_empty()));
    let said = [
        table.text("header", header_name)?.map(PrincipalRule::Header),
        named("bearer")?.map(PrincipalRule::Bearer),
        table.word("mtls", CERTIFICATE_NAMES)?.map(PrincipalRule::Mtls),
        named("cookie")?.map(PrincipalRule::Cookie),
        table.text("credential", header_name)?.map(PrincipalRule::Credential),
    ];
    let mut said = said.into_iter().flatten();
    match (said.next(), said.next()) {
        (Some(rule), None) => Ok(rule),
        _ => Err(table.wrong(
            "has a principal that is not told in one way\nhelp: write principal = { credential = \"authorization\" }, or one of header, bearer, mtls, cookie",
        )),
    }
}

/// Whatever a caller merely claims has to be vouched for by somebody, or one could claim to be another
/// and be told what that one was answered.
fn check_principal(
    rule: &PrincipalRule,
    trusts: &[IpNet],
    is_asked: bool,
    tls: Option<&TlsFiles>,
    table: &Table<'_>,
) -> Result<(), ConfigError> {
    match rule {
        PrincipalRule::Header(name) if trusts.is_empty() => Err(table.wrong(&format!(
            "takes its principal from the header {name}, which whoever calls can write\nhelp: name the proxies that set it: trust_forwarded = [\"10.0.0.0/8\"]"
        ))),
        PrincipalRule::Bearer(_) if trusts.is_empty() && !is_asked => Err(table.wrong(
            "takes its principal from a bearer token that nobody has verified when a replay is answered\nhelp: have the upstream asked, reauthorize = { get = \"/me\" }, or name the proxies that verify tokens, trust_forwarded = [\"10.0.0.0/8\"], or take principal = { credential = \"authorization\" }",
        )),
        PrincipalRule::Mtls(_) if tls.is_none_or(|tls| tls.client.is_none()) => Err(table.wrong(
            "takes its principal from a client's certificate, and asks for none\nhelp: add client_ca_file to its tls",
        )),
        _ => Ok(()),
    }
}

fn reauthorize(table: &Table<'_>) -> Result<Reauthorize, ConfigError> {
    let (get, route) = (table.read::<String>("get")?, table.read("route")?);
    let get = table.need("get", get)?;
    if get.starts_with('/') {
        return Ok(Reauthorize { get, route });
    }
    Err(table.wrong(&format!(
        "has a reauthorize.get {get:?} that is no path\nhelp: write reauthorize = {{ get = \"/auth\" }}; another server is another route: reauthorize = {{ get = \"/auth\", route = \"NAME\" }}"
    )))
}

fn cors(table: &Table<'_>) -> Result<Cors, ConfigError> {
    let is_origin = |text: &&String| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '*', '?', '#']))
            && HeaderValue::from_str(text).is_ok()
    };
    let origins = table.read::<Vec<String>>("origins")?.unwrap_or_default();
    if let Some(other) = origins.iter().find(|origin| !is_origin(origin)) {
        return Err(table.wrong(&format!(
            "has a cors.origins {other:?} that is no origin\nhelp: write \"https://app.example.com\", without a path"
        )));
    }
    let expose = if table.is_switch("expose") {
        if table.or("expose", true)? { None } else { Some(Vec::new()) }
    } else {
        table.texts("expose", header_name)?
    };
    Ok(Cors { expose, origins, credentials: table.or("credentials", false)? })
}

/// What only shows where all of them are seen: two on one address, and routes that are not there.
pub(super) fn check(
    guards: &BTreeMap<String, Arc<Guard>>,
    routes: &BTreeMap<String, Arc<Route>>,
    main: SocketAddr,
    file: &Table<'_>,
) -> Result<(), ConfigError> {
    let wrong = |name: &str, what: &str| file.wrong(&format!("[routes.{name}] {what}"));
    let mut taken = BTreeMap::from([(main, "the gateway itself".to_owned())]);
    let mut hosts: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, guard) in guards {
        for address in guard.listen.iter().filter(|address| address.port() != 0) {
            if let Some(other) = taken.insert(*address, format!("[routes.{name}]")) {
                return Err(wrong(
                    name,
                    &format!(
                        "listens on {address}, and so does {other}\nhelp: choose another port"
                    ),
                ));
            }
        }
        let base = routes.get(name).map(|route| &route.target.base);
        let own = guard.listen.iter().find(|address| {
            let port = base.and_then(url::Url::port_or_known_default);
            let host = base.and_then(|base| base.host_str());
            port == Some(address.port()) && host == Some(&*bracketed(address.ip()))
        });
        if let Some(address) = own {
            return Err(wrong(
                name,
                &format!(
                    "listens on {address}, and calls itself there\nhelp: upstream is where the API is"
                ),
            ));
        }
        for host in &guard.hosts {
            if let Some(other) = hosts.insert(host, name) {
                return Err(wrong(
                    name,
                    &format!(
                        "has the host {host:?}, and so has [routes.{other}]\nhelp: choose another name"
                    ),
                ));
            }
        }
        let asked = guard.reauthorize.as_ref().and_then(|it| it.route.as_ref());
        if let Some(asked) = asked.filter(|asked| !routes.contains_key(*asked)) {
            return Err(wrong(
                name,
                &format!(
                    "has a reauthorize.route {asked:?} that is not there\nhelp: add [routes.{asked}]"
                ),
            ));
        }
    }
    Ok(())
}

/// An address as a URL has it.
fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// What a careful reader would ask about.
pub(super) fn warnings(guard: &Guard) -> Vec<String> {
    let name = &guard.route;
    let mut warnings = Vec::new();
    if guard.principal == PrincipalRule::Unsaid {
        warnings.push(format!("[routes.{name}] says no principal: callers are told apart by {} or their cookies, so a retry with a renewed credential is another caller's. Say principal = {{ … }}.", CREDENTIALS.join(", ")));
    }
    let beyond = guard.listen.iter().find(|address| !address.ip().is_loopback());
    if let Some(address) = beyond.filter(|_| guard.lends) {
        warnings.push(format!("[routes.{name}] listens on {address} and sets credentials of yours: whoever reaches it calls the upstream with them, and needs no access key."));
    }
    if let Some(address) = beyond.filter(|_| guard.tls.is_none()) {
        warnings.push(format!("[routes.{name}] listens on {address} without tls, so credentials and bodies are readable on the way to it, unless something before it speaks TLS."));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use onceward::core::policy::KeyMissing;

    use super::super::tests::load;
    use super::*;

    fn guard(lines: &str) -> Result<super::super::Config, String> {
        load(&format!(
            "[routes.a]\nlisten = \"127.0.0.1:8080\"\nupstream = \"http://127.0.0.1:3000\"\n{lines}"
        ))
    }

    #[test]
    fn a_guard_lets_pass_what_has_no_key_unless_somebody_says_otherwise() {
        let missing = |config: &super::super::Config, path: &str| {
            config.routes["a"].policy_for("POST", path).key_missing
        };
        let config =
            guard("[[routes.a.rules]]\nmatch = \"POST /orders\"\nkey.missing = \"require\"")
                .unwrap();
        assert_eq!(missing(&config, "/x"), KeyMissing::Pass);
        assert_eq!(missing(&config, "/orders"), KeyMissing::Require);
        let said = guard("key = { missing = \"make\" }").unwrap();
        assert_eq!(missing(&said, "/x"), KeyMissing::Make);
        let profile = guard("profile = \"stripe\"").unwrap();
        assert_eq!(missing(&profile, "/v1/payment_intents"), KeyMissing::Require);
        let plain = load("[routes.a]\nupstream = \"http://127.0.0.1:3000\"").unwrap();
        assert_eq!(missing(&plain, "/x"), KeyMissing::Make);
        assert!(plain.guards.is_empty());
    }

    #[test]
    fn a_guard_keeps_its_callers_waiting_for_as_long_as_a_call_may_take() {
        let wait = |lines: &str| guard(lines).unwrap().routes["a"].answer_max.as_secs();
        assert_eq!(wait(""), 60);
        assert_eq!(wait("timeout = \"10m\""), 610);
        assert_eq!(wait("timeout = \"10m\"\nwait = \"1m\""), 660);
        assert_eq!(wait("timeout = \"10m\"\nanswer_max = \"5s\""), 5);
    }

    #[test]
    fn who_merely_claims_to_be_somebody_has_to_be_vouched_for() {
        for (lines, mend) in [
            ("principal = { header = \"X-User\" }", "trust_forwarded"),
            (
                "principal = { header = \"X-User\" }\nreauthorize = { get = \"/me\" }",
                "trust_forwarded",
            ),
            ("principal = { bearer = \"sub\" }", "reauthorize"),
            ("principal = { mtls = \"san\" }", "client_ca_file"),
            ("principal = { header = \"X-User\", bearer = \"sub\" }", "one of"),
            ("principal = {}", "one of"),
            ("scope = \"orders\"", "callers do not differ"),
        ] {
            let error = guard(lines).unwrap_err();
            assert!(error.contains("[routes.a]") && error.contains(mend), "{lines}: {error}");
        }
        for (lines, rule) in [
            (
                "principal = { header = \"X-User\" }\ntrust_forwarded = [\"10.0.0.0/8\"]",
                PrincipalRule::Header("x-user".into()),
            ),
            (
                "principal = { bearer = \"sub\" }\nreauthorize = { get = \"/me\" }",
                PrincipalRule::Bearer("sub".into()),
            ),
            ("principal = { cookie = \"session\" }", PrincipalRule::Cookie("session".into())),
            ("", PrincipalRule::Unsaid),
        ] {
            assert_eq!(guard(lines).unwrap().guards["a"].principal, rule, "{lines}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_guard_is_said_with_its_mend() {
        for (text, mend) in [
            ("listen = \"localhost\"", "127.0.0.1:8080"),
            ("listen = []", "127.0.0.1:8080"),
            ("listen = \"127.0.0.1:7077\"", "the gateway itself"),
            ("listen = \"127.0.0.1:3000\"", "calls itself"),
            ("cors = { expose = true }", "listen ="),
            ("listen = \"127.0.0.1:1\"\noptions = [\"effects\"]", "respond-async, delay"),
            ("listen = \"127.0.0.1:1\"\nreauthorize = { get = \"http://x\" }", "route = \"NAME\""),
            (
                "listen = \"127.0.0.1:1\"\nreauthorize = { get = \"/\", route = \"b\" }",
                "[routes.b]",
            ),
            ("listen = \"127.0.0.1:1\"\ncors = { origins = [\"*\"] }", "https://app.example.com"),
            ("host = \"a.example:80\"", "without a port"),
            ("host = \"a.example\"\ntls = { cert_file = \"c\", key_file = \"k\" }", "listen ="),
            (
                "listen = \"127.0.0.1:1\"\ntls = { cert_file = \"c\", key_file = \"k\", client = \"optional\" }",
                "client_ca_file",
            ),
            ("listen = \"127.0.0.1:1\"\nlisten_on = \"x\"", "listen_on"),
        ] {
            let text = format!("[routes.a]\nupstream = \"http://127.0.0.1:3000\"\n{text}");
            let error = load(&text).unwrap_err();
            assert!(error.contains(mend), "{text}\n{error}");
        }
        let two = "[routes.a]\nupstream = \"http://x\"\nlisten = \"127.0.0.1:1\"\n[routes.b]\nupstream = \"http://x\"\nlisten = [\"127.0.0.1:2\", \"127.0.0.1:1\"]";
        assert!(load(two).unwrap_err().contains("so does [routes.a]"));
    }

    #[test]
    fn what_a_careful_reader_would_ask_of_a_guard_is_a_warning() {
        let warned = |lines: &str, word: &str| {
            let text = format!("[routes.a]\nupstream = \"http://127.0.0.1:3000\"\n{lines}");
            load(&text).unwrap().warnings().iter().any(|warning| warning.contains(word))
        };
        assert!(warned("listen = \"127.0.0.1:1\"", "no principal"));
        assert!(!warned(
            "listen = \"127.0.0.1:1\"\nprincipal = { cookie = \"s\" }",
            "no principal"
        ));
        assert!(warned("listen = \"0.0.0.0:1\"", "without tls"));
        let lent = "listen = \"0.0.0.0:1\"\nset_headers = { Authorization = \"Bearer x\" }";
        assert!(warned(lent, "credentials of yours"));
        assert!(!warned(&lent.replace("0.0.0.0", "127.0.0.1"), "credentials of yours"));
    }
}
