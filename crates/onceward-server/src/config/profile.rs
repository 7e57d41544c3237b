//! Profiles: named policies to start from, ours for well-known APIs and the user's own.
//!
//! What is said later holds: the profile (after the one that it starts from itself), a rule of the
//! profile's, the route, a rule of the route's.

use std::collections::BTreeMap;
use std::sync::Arc;

use onceward::core::policy::{KeyMissing, Policy};
use onceward::route::Rule;
use serde::Serialize;
use toml::Spanned;
use toml::de::DeTable;

use super::settings::{setting_of, settings};
use super::table::Table;
use super::text::Text;
use super::words::name;
use super::{ConfigError, policy, verify};

/// Ours: data, with the source of each fact beside it.
const READY: [(&str, &str); 12] = [
    ("adyen", include_str!("profiles/adyen.toml")),
    ("fcm", include_str!("profiles/fcm.toml")),
    ("github", include_str!("profiles/github.toml")),
    ("paypal", include_str!("profiles/paypal.toml")),
    ("sendgrid", include_str!("profiles/sendgrid.toml")),
    ("shopify", include_str!("profiles/shopify.toml")),
    ("slack", include_str!("profiles/slack.toml")),
    (MAIL, include_str!("profiles/smtp.toml")),
    ("square", include_str!("profiles/square.toml")),
    ("standard-webhooks", include_str!("profiles/standard-webhooks.toml")),
    ("stripe", include_str!("profiles/stripe.toml")),
    ("twilio", include_str!("profiles/twilio.toml")),
];

/// The one that every route to a mail server starts from.
const MAIL: &str = "smtp";

/// How many profiles may start from one another.
const DEPTH_MAX: usize = 8;

/// The profiles that a file may name.
pub(super) struct Profiles<'a> {
    own: Vec<(String, Table<'a>)>,
    /// Whether bodies are sealed where neither a route nor a profile says.
    seals_bodies: bool,
    ready: Vec<(&'static str, Text, DeTable<'static>)>,
}

/// Profiles that start from one another, with their names, the first first.
type Chain<'a> = Vec<(String, Table<'a>)>;

/// What is said of a route or of a rule of it, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    pub(crate) route: String,
    /// The rule's match, or nothing for the route itself.
    pub(crate) r#match: Option<String>,
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) from: String,
}

/// The policies of a route.
#[derive(Debug, Default)]
pub(super) struct Laid {
    pub(super) policy: Policy,
    pub(super) rules: Vec<Rule>,
    pub(super) settings: Vec<Setting>,
    /// Whether the route or a rule of it says how long keys are kept.
    pub(super) says_window: bool,
}

/// A policy, and who said what of it.
#[derive(Debug, Clone, Default)]
struct Layers {
    policy: Policy,
    from: BTreeMap<String, String>,
}

impl Layers {
    /// What holds of a route where neither it nor a profile says anything: before an API of one's
    /// own, callers who know of no keys change nothing.
    fn of(is_guard: bool, seals_bodies: bool) -> Self {
        let mut layers = Self::default();
        layers.policy.seal_bodies = seals_bodies;
        if is_guard {
            layers.policy.key_missing = KeyMissing::Pass;
            layers.from.insert("key.missing".to_owned(), "guard".to_owned());
        }
        layers
    }

    fn lay(&mut self, table: &Table<'_>, from: &str) -> Result<(), ConfigError> {
        self.policy = policy::lay_over(std::mem::take(&mut self.policy), table)?;
        let said = table.said();
        self.from.extend(said.iter().map(|key| (setting_of(key).to_owned(), from.to_owned())));
        Ok(())
    }

    /// What was said, but for what `base` says as well.
    fn told(&self, route: &str, matched: Option<&str>, base: &Self) -> Vec<Setting> {
        let mut told = Vec::new();
        for (mine, base_value) in settings(&self.policy).into_iter().zip(settings(&base.policy)) {
            let (key, value) = mine;
            let is_the_same = value == base_value.1 && self.from.get(key) == base.from.get(key);
            if let Some(from) = self.from.get(key).filter(|_| !is_the_same) {
                let (from, route) = (from.clone(), route.to_owned());
                let r#match = matched.map(str::to_owned);
                told.push(Setting { route, r#match, key, value, from });
            }
        }
        told
    }
}

impl<'a> Profiles<'a> {
    /// The user's own beside ours; each has to be whole, whether a route starts from it or not.
    pub(super) fn new(file: &Table<'a>, seals_bodies: bool) -> Result<Self, ConfigError> {
        let profiles = Self { seals_bodies, own: file.named("profiles", name)?, ready: ready()? };
        for (name, table) in &profiles.own {
            if READY.iter().any(|(ready, _)| ready == name) {
                return Err(table.wrong(
                    "has the name of a ready one\nhelp: choose another, and start from that with profile = \"…\"",
                ));
            }
            let chain = profiles.chain(name, table)?;
            let base = base(Layers::default(), &chain)?;
            for (name, profile) in &chain {
                profile_rules(&base, name, profile)?;
            }
            if let Some((_, last)) = chain.last() {
                last.done()?;
            }
        }
        Ok(profiles)
    }

    /// Lays a route over the profile that it names.
    pub(super) fn lay(
        &self,
        route: &str,
        table: &Table<'_>,
        is_guard: bool,
        is_mail: bool,
    ) -> Result<Laid, ConfigError> {
        let mut chain = self.chain_of(table)?;
        if is_mail && chain.iter().all(|(name, _)| name != MAIL) {
            chain.splice(..0, self.chain(MAIL, table)?);
        }
        let base = base(Layers::of(is_guard, self.seals_bodies), &chain)?;
        let mut whole = base.clone();
        whole.lay(table, "route")?;
        let mut settings = whole.told(route, None, &Layers::default());
        if let Some((name, signature)) = signature(&chain)? {
            let (from, value) = (format!("profile {name}"), signature);
            let (route, key) = (route.to_owned(), "signature");
            settings.push(Setting { route, r#match: None, key, value, from });
        }
        let mut says_window = table.has("window");
        let mut rules = Vec::new();
        let mut add = |rule: Rule, layers: &Layers| {
            settings.extend(layers.told(route, Some(&shown(&rule)), &whole));
            rules.push(rule);
        };
        for table in table.list("rules")? {
            let mut layers = whole.clone();
            for (name, profile) in &self.chain_of(&table)? {
                layers.lay(profile, &format!("profile {name}"))?;
            }
            add(read_rule(&table, &mut layers, "rule")?, &layers);
            says_window |= table.has("window");
        }
        for (name, profile) in chain.iter().rev() {
            for (mut rule, mut layers) in profile_rules(&base, name, profile)? {
                layers.lay(&table.again(), "route")?;
                rule.policy = Arc::new(layers.policy.clone());
                add(rule, &layers);
            }
        }
        Ok(Laid { policy: whole.policy, rules, settings, says_window })
    }

    /// The profiles that a table starts from.
    fn chain_of(&self, table: &Table<'_>) -> Result<Chain<'_>, ConfigError> {
        let name = table.read::<String>("profile")?;
        name.map_or_else(|| Ok(Vec::new()), |name| self.chain(&name, table))
    }

    fn chain(&self, name: &str, table: &Table<'_>) -> Result<Chain<'_>, ConfigError> {
        let mut chain = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next.take() {
            let profile = self.find(&name).ok_or_else(|| {
                let own = self.own.iter().map(|(name, _)| name.as_str());
                let known: Vec<_> = READY.iter().map(|(ready, _)| *ready).chain(own).collect();
                table.wrong(&format!(
                    "starts from a profile {name:?} that is not there\nhelp: there are {}; or add [profiles.{name}]",
                    known.join(", ")
                ))
            })?;
            next = profile.read("profile")?;
            chain.push((name, profile));
            if chain.len() > DEPTH_MAX {
                return Err(table.wrong(&format!(
                    "starts from more than {DEPTH_MAX} profiles, or from itself\nhelp: take a profile = \"…\" out"
                )));
            }
        }
        chain.reverse();
        Ok(chain)
    }

    fn find(&self, name: &str) -> Option<Table<'_>> {
        if let Some((_, table)) = self.own.iter().find(|(own, _)| own == name) {
            return Some(table.again());
        }
        let (_, text, keys) = self.ready.iter().find(|(ready, ..)| *ready == name)?;
        Some(Table::made(text, &format!("profiles.{name}"), keys))
    }
}

/// Ours, read.
fn ready() -> Result<Vec<(&'static str, Text, DeTable<'static>)>, ConfigError> {
    let read = |&(name, text): &(&'static str, &'static str)| {
        let keys = DeTable::parse(text).map(Spanned::into_inner);
        let keys = keys.map_err(|error| ConfigError(format!("{name}.toml: {error}")))?;
        Ok((name, Text::new("", &format!("{name}.toml"), std::iter::empty()), keys))
    };
    READY.iter().map(read).collect()
}

/// What a chain of profiles says, laid over `layers`.
fn base(mut layers: Layers, chain: &Chain<'_>) -> Result<Layers, ConfigError> {
    for (name, profile) in chain {
        layers.lay(profile, &format!("profile {name}"))?;
    }
    Ok(layers)
}

/// The rules of the profile `name`, each laid over it.
fn profile_rules(
    base: &Layers,
    name: &str,
    profile: &Table<'_>,
) -> Result<Vec<(Rule, Layers)>, ConfigError> {
    // Who receives webhooks is told how the provider signs them.
    profile.text("signature", verify::scheme)?;
    let read = |table: Table<'_>| {
        if table.has("profile") {
            return Err(profile.wrong(
                "has a rule that names a profile\nhelp: name it on the profile, or on a rule of a route",
            ));
        }
        let mut layers = base.clone();
        let rule = read_rule(&table, &mut layers, &format!("profile {name}"))?;
        Ok((rule, layers))
    };
    profile.list("rules")?.into_iter().map(read).collect()
}

/// Lays a rule over `layers`: what it matches, and the policy then.
fn read_rule(table: &Table<'_>, layers: &mut Layers, from: &str) -> Result<Rule, ConfigError> {
    let matched = table.text("match", matched)?;
    layers.lay(table, from)?;
    table.done()?;
    let (method, path) = table.need("match", matched)?;
    Ok(Rule { method, path, policy: Arc::new(layers.policy.clone()) })
}

/// `PUT /orders/*`, or a path alone.
fn matched(text: &str) -> Result<(Option<String>, String), String> {
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (Some(method.to_owned()), path.trim()),
        None => (None, text),
    };
    let is_method = |method: &String| method.bytes().all(|byte| byte.is_ascii_uppercase());
    if method.as_ref().is_none_or(is_method) && path.starts_with('/') {
        return Ok((method, path.to_owned()));
    }
    Err(format!("{text:?} matches nothing: write \"PUT /orders/*\""))
}

/// A rule's match, as it is written.
fn shown(rule: &Rule) -> String {
    rule.method
        .as_ref()
        .map_or_else(|| rule.path.clone(), |method| format!("{method} {}", rule.path))
}

/// The signature that the last profile to name one names.
fn signature<'a>(chain: &'a Chain<'_>) -> Result<Option<(&'a str, String)>, ConfigError> {
    for (name, profile) in chain.iter().rev() {
        if let Some(signature) = profile.read::<String>("signature")? {
            return Ok(Some((name, signature)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onceward::core::hint::HintHeader;
    use onceward::core::policy::{Effects, ErrorShape, Meaning};
    use onceward::core::upstream_key::KeyPlace;

    use super::super::Config;
    use super::super::tests::load;
    use super::*;

    fn route(lines: &str) -> Result<Config, String> {
        load(&format!("[routes.a]\nupstream = \"https://a.example\"\n{lines}"))
    }

    #[test]
    fn every_ready_profile_reads_and_warns_of_nothing() {
        for (name, _) in READY {
            let config = route(&format!("profile = \"{name}\"\nwindow = \"7d\"")).unwrap();
            assert_eq!(config.warnings(), Vec::<String>::new(), "{name}");
            let policy = &config.routes["a"].policy;
            assert!(policy.effects.is_some(), "{name} says what a second arrival would do");
            for policy in config.routes["a"].rules.iter().map(|rule| &rule.policy).chain([policy]) {
                let window = policy.upstream_key.window.mul_f64(0.8);
                let keyed = policy.effects == Some(Effects::Keyed);
                assert!(!keyed || policy.accepted.horizon <= window, "{name} retries for too long");
            }
        }
    }

    #[test]
    fn a_ready_profile_sets_what_its_api_documents() {
        let day = Duration::from_hours(24);
        let of = |profile: &str, method: &str, path: &str| {
            let config = route(&format!("profile = \"{profile}\"")).unwrap();
            config.routes["a"].policy_for(method, path).as_ref().clone()
        };
        let stripe = of("stripe", "POST", "/v1/payment_intents");
        assert_eq!((stripe.effects, stripe.upstream_key.window), (Some(Effects::Keyed), day));
        assert_eq!(stripe.key_missing, KeyMissing::Require);
        assert_eq!(stripe.hints, [HintHeader::StripeShouldRetry]);
        assert_eq!(stripe.error_shape, ErrorShape::Stripe);
        assert_eq!(stripe.statuses, [(409, Meaning::NotProcessed)].into());
        assert_eq!(of("stripe", "POST", "/v1/customers").key_missing, KeyMissing::Make);
        assert_eq!(of("stripe", "POST", "/v2/core/accounts").upstream_key.window, 30 * day);
        assert_eq!(of("stripe", "DELETE", "/v1/customers/1").effects, Some(Effects::Idempotent));
        let capture = of("paypal", "POST", "/v2/payments/authorizations/1/capture");
        assert_eq!(capture.upstream_key.place, KeyPlace::Header("paypal-request-id".into()));
        assert_eq!(capture.upstream_key.window, 45 * day);
        let hours = |path| of("paypal", "POST", path).upstream_key.window.as_secs() / 3600;
        assert_eq!((hours("/v2/checkout/orders"), hours("/v3/vault/setup-tokens")), (6, 3));
        let confirm = of("paypal", "POST", "/v2/checkout/orders/1/confirm-payment-source");
        assert_eq!(confirm.effects, Some(Effects::NonIdempotent), "it declares no key");
        assert_eq!(of("paypal", "POST", "/v1/other").effects, Some(Effects::NonIdempotent));
        let adyen = of("adyen", "POST", "/v71/payments");
        assert_eq!((adyen.upstream_key.window, adyen.upstream_key.bytes_max), (7 * day, 64));
        assert_eq!(adyen.key_missing, KeyMissing::Require);
        let square = of("square", "POST", "/v2/payments");
        assert_eq!(square.upstream_key.place, KeyPlace::Json("/idempotency_key".into()));
        assert_eq!(square.key_pointer.as_deref(), Some("/idempotency_key"));
        assert_eq!(of("square", "POST", "/v2/orders/search").effects, Some(Effects::NonIdempotent));
        for profile in ["twilio", "slack", "fcm", "github", "sendgrid", "shopify", "smtp"] {
            assert_eq!(
                of(profile, "POST", "/x").effects,
                Some(Effects::NonIdempotent),
                "{profile}"
            );
        }
        let webhooks = of("standard-webhooks", "POST", "/hook");
        assert_eq!(webhooks.upstream_key.place, KeyPlace::Header("webhook-id".into()));
        assert_eq!(webhooks.accepted.table.len(), 9);
    }

    #[test]
    fn what_the_route_says_wins_over_its_profile_and_each_setting_has_its_origin() {
        let config = route(
            "profile = \"stripe\"\nhints = []\nkey = { missing = \"make\" }\n\
             [[routes.a.rules]]\nmatch = \"POST /v1/refunds\"\nkey = { missing = \"pass\" }",
        )
        .unwrap();
        let policy = |path| config.routes["a"].policy_for("POST", path);
        assert!(policy("/v1/charges").hints.is_empty());
        assert_eq!(policy("/v1/charges").key_missing, KeyMissing::Make);
        assert_eq!(policy("/v1/refunds").key_missing, KeyMissing::Pass);
        let from = |matched: Option<&str>, key: &str| {
            let is_it =
                |setting: &&Setting| setting.r#match.as_deref() == matched && setting.key == key;
            config.settings.iter().find(is_it).map(|setting| setting.from.as_str())
        };
        assert_eq!(from(None, "effects"), Some("profile stripe"));
        assert_eq!(from(None, "hints"), Some("route"));
        assert_eq!(from(None, "upstream_key.window"), Some("profile stripe"), "as usual, but said");
        assert_eq!(from(None, "tombstone"), None, "nobody says it");
        assert_eq!(from(None, "signature"), Some("profile stripe"));
        assert_eq!(from(Some("POST /v1/refunds"), "key.missing"), Some("rule"));
        assert_eq!(from(Some("/v2/**"), "upstream_key.window"), Some("profile stripe"));
    }

    #[test]
    fn a_profile_of_ones_own_starts_from_another() {
        let own = "[profiles.billing]\nprofile = \"stripe\"\nwindow = \"7d\"\n\
                   [[profiles.billing.rules]]\nmatch = \"POST /v1/invoices\"\nkey = { missing = \"require\" }\n\
                   [routes.a]\nupstream = \"https://a.example\"\neffects = \"non-idempotent\"\n\
                   [[routes.a.rules]]\nmatch = \"POST /**\"\nprofile = \"billing\"\n\
                   [routes.b]\nupstream = \"https://b.example\"\nprofile = \"billing\"";
        let config = load(own).unwrap();
        let policy = |route: &str, path| config.routes[route].policy_for("POST", path);
        assert_eq!(policy("b", "/x").window, Duration::from_hours(7 * 24));
        assert_eq!(policy("b", "/x").error_shape, ErrorShape::Stripe);
        assert_eq!(policy("b", "/v1/invoices").key_missing, KeyMissing::Require);
        assert_eq!(policy("b", "/v1/charges").key_missing, KeyMissing::Require);
        assert_eq!(policy("a", "/x").effects, Some(Effects::Keyed), "a rule may name one");
    }

    #[test]
    fn a_profile_that_cannot_be_is_refused_with_its_mend() {
        for (text, place, mend) in [
            ("[profiles.a]\nprofile = \"a\"", "[profiles.a]", "from itself"),
            ("[profiles.a]\nprofile = \"strip\"", "[profiles.a]", "stripe"),
            ("[profiles.stripe]", "[profiles.stripe]", "choose another"),
            ("[profiles.a]\nefects = \"keyed\"", "[profiles.a]", "efects"),
            ("[profiles.a]\nsignature = \"rsa\"", "line", "standard-webhooks"),
            (
                "[[profiles.a.rules]]\nmatch = \"/\"\nprofile = \"stripe\"",
                "[profiles.a]",
                "on a rule of a route",
            ),
            (
                "[routes.a]\nupstream = \"http://x\"\nprofile = \"no\"",
                "[routes.a]",
                "[profiles.no]",
            ),
        ] {
            let refused = load(text).unwrap_err();
            assert!(refused.contains(place) && refused.contains(mend), "{text}\n{refused}");
        }
    }
}
