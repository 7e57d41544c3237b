//! Profiles: named policies to start from, ours for well-known APIs and the user's own.
//!
//! What is said later holds: the profile (after the one that it starts from itself), a rule of the
//! profile's, the route, a rule of the route's.

use std::collections::BTreeMap;
use std::sync::Arc;

use onceward::core::policy::{KeyMissing, Policy};
use onceward::route::Rule;
use serde::{Deserialize, Serialize};

use super::settings::{said, settings};
use super::sources::SchemeWord;
use super::{ConfigError, PolicyFile, RouteFile, RouteName, RuleFile, lay_over};

/// Ours: data, with the source of each fact beside it.
const READY: [(&str, &str); 10] = [
    ("adyen", include_str!("profiles/adyen.toml")),
    ("github", include_str!("profiles/github.toml")),
    ("paypal", include_str!("profiles/paypal.toml")),
    ("sendgrid", include_str!("profiles/sendgrid.toml")),
    ("shopify", include_str!("profiles/shopify.toml")),
    ("slack", include_str!("profiles/slack.toml")),
    ("square", include_str!("profiles/square.toml")),
    ("standard-webhooks", include_str!("profiles/standard-webhooks.toml")),
    ("stripe", include_str!("profiles/stripe.toml")),
    ("twilio", include_str!("profiles/twilio.toml")),
];

/// How many profiles may start from one another.
const DEPTH_MAX: usize = 8;

/// `[profiles.NAME]`, or one of ours.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ProfileFile {
    /// How the provider signs its webhooks: for whoever receives them.
    signature: Option<SchemeWord>,
    #[serde(default)]
    rules: Vec<RuleFile>,
    #[serde(flatten)]
    policy: PolicyFile,
}

/// The profiles that a file may name.
#[derive(Debug)]
pub(super) struct Profiles<'a> {
    own: &'a BTreeMap<RouteName, ProfileFile>,
    /// What errors call the file.
    source: &'a str,
}

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
}

/// A policy, and who said what of it.
#[derive(Debug, Clone, Default)]
struct Layers {
    policy: Policy,
    from: BTreeMap<&'static str, String>,
}

impl Layers {
    /// What holds of a route where neither it nor a profile says anything: before an API of one's
    /// own, callers who know of no keys change nothing.
    fn of(route: &RouteFile) -> Self {
        let mut layers = Self::default();
        if route.guard.is_one() {
            layers.policy.key_missing = KeyMissing::Pass;
            layers.from.insert("key.missing", "guard".to_owned());
        }
        layers
    }

    fn lay(
        &mut self,
        file: &PolicyFile,
        from: &str,
        wrong: &impl Fn(&str) -> ConfigError,
    ) -> Result<(), ConfigError> {
        self.policy = lay_over(self.policy.clone(), file, wrong)?;
        self.from.extend(said(file).into_iter().map(|key| (key, from.to_owned())));
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
    pub(super) fn new(
        own: &'a BTreeMap<RouteName, ProfileFile>,
        source: &'a str,
    ) -> Result<Self, ConfigError> {
        let profiles = Self { own, source };
        for name in own.keys() {
            let wrong = |what: &str| profiles.wrong(&name.0, what);
            if READY.iter().any(|(ready, _)| *ready == name.0) {
                return Err(wrong(
                    "has the name of a ready one\nhelp: choose another, and start from that with profile = \"…\"",
                ));
            }
            let chain = profiles.chain(&name.0, &wrong)?;
            let base = profiles.base(Layers::default(), &chain)?;
            for (name, profile) in &chain {
                for rule in &profile.rules {
                    profiles.rule(&base, name, rule)?;
                }
            }
        }
        Ok(profiles)
    }

    /// Lays a route over the profile that it names.
    pub(super) fn lay(
        &self,
        route: &str,
        file: &RouteFile,
        wrong: &impl Fn(&str) -> ConfigError,
    ) -> Result<Laid, ConfigError> {
        let chain = self.chain_of(&file.policy, wrong)?;
        let base = self.base(Layers::of(file), &chain)?;
        let mut whole = base.clone();
        whole.lay(&file.policy, "route", wrong)?;
        let mut settings = whole.told(route, None, &Layers::default());
        if let Some((name, signature)) = signature(&chain) {
            let (from, value) = (format!("profile {name}"), signature.name().to_owned());
            let (route, key) = (route.to_owned(), "signature");
            settings.push(Setting { route, r#match: None, key, value, from });
        }
        let mut rules = Vec::new();
        let mut add = |file: &RuleFile, layers: &Layers| {
            let rule = file.r#match.rule(Arc::new(layers.policy.clone()));
            settings.extend(layers.told(route, Some(&shown(&rule)), &whole));
            rules.push(rule);
        };
        for rule in &file.rules {
            let mut layers = whole.clone();
            for (name, profile) in &self.chain_of(&rule.policy, wrong)? {
                self.lay_profile(&mut layers, name, profile)?;
            }
            layers.lay(&rule.policy, "rule", wrong)?;
            add(rule, &layers);
        }
        for (name, profile) in chain.iter().rev() {
            for rule in &profile.rules {
                let mut layers = self.rule(&base, name, rule)?;
                layers.lay(&file.policy, "route", wrong)?;
                add(rule, &layers);
            }
        }
        Ok(Laid { policy: whole.policy, rules, settings })
    }

    fn wrong(&self, name: &str, what: &str) -> ConfigError {
        ConfigError(format!("{}: [profiles.{name}] {what}", self.source))
    }

    /// The profiles that `file` starts from, the first first.
    fn chain_of(
        &self,
        file: &PolicyFile,
        wrong: &impl Fn(&str) -> ConfigError,
    ) -> Result<Vec<(String, ProfileFile)>, ConfigError> {
        file.profile.as_ref().map_or_else(|| Ok(Vec::new()), |name| self.chain(name, wrong))
    }

    fn chain(
        &self,
        name: &str,
        wrong: &impl Fn(&str) -> ConfigError,
    ) -> Result<Vec<(String, ProfileFile)>, ConfigError> {
        let mut chain = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next.take() {
            let profile = self.find(&name).ok_or_else(|| {
                let own = self.own.keys().map(|name| name.0.as_str());
                let known: Vec<_> = READY.iter().map(|(ready, _)| *ready).chain(own).collect();
                wrong(&format!(
                    "starts from a profile {name:?} that is not there\nhelp: there are {}; or add [profiles.{name}]",
                    known.join(", ")
                ))
            })??;
            next.clone_from(&profile.policy.profile);
            chain.push((name, profile));
            if chain.len() > DEPTH_MAX {
                return Err(wrong(&format!(
                    "starts from more than {DEPTH_MAX} profiles, or from itself\nhelp: take a profile = \"…\" out"
                )));
            }
        }
        chain.reverse();
        Ok(chain)
    }

    fn find(&self, name: &str) -> Option<Result<ProfileFile, ConfigError>> {
        let own = self.own.iter().find(|(own, _)| own.0 == name);
        if let Some((_, profile)) = own {
            return Some(Ok(profile.clone()));
        }
        let (_, text) = READY.iter().find(|(ready, _)| *ready == name)?;
        Some(toml::from_str(text).map_err(|error| ConfigError(format!("{name}.toml: {error}"))))
    }

    /// What a chain of profiles says, laid over `layers`.
    fn base(
        &self,
        mut layers: Layers,
        chain: &[(String, ProfileFile)],
    ) -> Result<Layers, ConfigError> {
        for (name, profile) in chain {
            self.lay_profile(&mut layers, name, profile)?;
        }
        Ok(layers)
    }

    fn lay_profile(
        &self,
        layers: &mut Layers,
        name: &str,
        profile: &ProfileFile,
    ) -> Result<(), ConfigError> {
        let wrong = |what: &str| self.wrong(name, what);
        layers.lay(&profile.policy, &format!("profile {name}"), &wrong)
    }

    /// A rule of the profile `name`, laid over it.
    fn rule(&self, base: &Layers, name: &str, rule: &RuleFile) -> Result<Layers, ConfigError> {
        let wrong = |what: &str| self.wrong(name, what);
        if rule.policy.profile.is_some() {
            return Err(wrong(
                "has a rule that names a profile\nhelp: name it on the profile, or on a rule of a route",
            ));
        }
        let mut layers = base.clone();
        layers.lay(&rule.policy, &format!("profile {name}"), &wrong)?;
        Ok(layers)
    }
}

/// A rule's match, as it is written.
fn shown(rule: &Rule) -> String {
    rule.method
        .as_ref()
        .map_or_else(|| rule.path.clone(), |method| format!("{method} {}", rule.path))
}

/// The signature that the last profile to name one names.
fn signature(chain: &[(String, ProfileFile)]) -> Option<(&str, SchemeWord)> {
    chain.iter().rev().find_map(|(name, profile)| Some((name.as_str(), profile.signature?)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onceward::core::hint::HintHeader;
    use onceward::core::policy::{Effects, ErrorShape, Meaning};
    use onceward::core::upstream_key::KeyPlace;

    use super::super::{Config, Overrides, parse};
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let file = parse(text, "f", std::iter::empty()).map_err(|error| error.to_string())?;
        let config = Config::build(file, None, &Overrides::default(), "f");
        config.map_err(|error| error.to_string())
    }

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
        for profile in ["twilio", "slack", "github", "sendgrid", "shopify"] {
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
