//! What an ID token has to say, and who somebody is by it (OpenID Connect Core 1.0, section 3.1.3.7).

use serde_json::Value;

use super::Trouble;
use crate::access::Roles;
use crate::config::OidcConfig;

/// How far the provider's clock may be from ours, in seconds.
const SKEW: i64 = 60;

/// The longest name that is shown.
const NAME_BYTES_MAX: usize = 128;

/// Letters that a subject has at most: section 2.
const SUBJECT_BYTES_MAX: usize = 255;

/// Who somebody is, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) roles: Roles,
}

/// What a token has to be, to be of this login.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    /// In seconds.
    pub(super) now: i64,
}

impl Expected<'_> {
    /// Whether a token whose signature holds is meant for us, now, and for this login.
    pub(super) fn check(&self, claims: &Value) -> Result<(), Trouble> {
        let text = |name: &str| claims[name].as_str();
        // Some write it with a fraction.
        let time = |name: &str| claims[name].as_f64().map(|at| at as i64);
        let is_of = |audience: &Value| audience.as_str() == Some(self.client_id);
        let (is_for_us, is_for_others) = match &claims["aud"] {
            Value::Array(audiences) => (audiences.iter().any(is_of), audiences.len() > 1),
            audience => (is_of(audience), false),
        };
        let party = text("azp");
        let why = if text("iss") != Some(self.issuer) {
            "it is of another issuer"
        } else if !is_for_us {
            "it is for another client"
        } else if party.is_some_and(|party| party != self.client_id)
            || (is_for_others && party.is_none())
        {
            "it was asked for by another client"
        } else if text("nonce") != Some(self.nonce) {
            "it is of another login"
        } else if time("exp").is_none_or(|at| at.saturating_add(SKEW) <= self.now) {
            "it has expired"
        } else if time("iat").is_none_or(|at| at.saturating_sub(SKEW) > self.now)
            || time("nbf").is_some_and(|at| at.saturating_sub(SKEW) > self.now)
        {
            "it is not valid yet"
        } else {
            return Ok(());
        };
        Err(not_believed(why))
    }
}

/// What is said of a token that is not believed.
pub(super) fn not_believed(why: impl std::fmt::Display) -> Trouble {
    Trouble::refused(format!("What the identity provider says is not believed: {why}."))
}

/// Whom a token is about.
pub(super) fn subject(claims: &Value) -> Result<&str, Trouble> {
    let subject = claims["sub"].as_str().filter(|subject| is_plain(subject, SUBJECT_BYTES_MAX));
    subject.ok_or_else(|| not_believed("it names nobody"))
}

/// Whether something is not said that somebody is known by, or that opens something.
pub(super) fn is_lacking(claims: &Value, config: &OidcConfig) -> bool {
    let of_rules = config.roles.iter().filter_map(|rule| Some(rule.claim.as_ref()?.0.as_str()));
    let of_domains = (!config.domains.is_empty()).then_some("email");
    let mut wanted = of_rules.chain(of_domains).chain([config.name_claim.as_str()]);
    wanted.any(|claim| member(claims, claim).is_none())
}

/// Adds what was told beside a token; the token's own word stays.
pub(super) fn add(claims: &mut Value, told: Option<Value>) {
    let (Some(claims), Some(Value::Object(told))) = (claims.as_object_mut(), told) else { return };
    // An address is vouched for where it stands.
    let has_email = claims.contains_key("email");
    for (name, value) in told {
        if !(has_email && name == "email_verified") {
            claims.entry(name).or_insert(value);
        }
    }
}

/// Who that is, and what they may do.
pub(super) fn identity(claims: &Value, config: &OidcConfig) -> Result<Identity, Trouble> {
    let subject = subject(claims)?.to_owned();
    if !config.domains.is_empty() {
        let domain = email(claims).and_then(|email| email.rsplit_once('@'));
        let domain = domain.map(|(_, domain)| domain.to_ascii_lowercase());
        if !domain.is_some_and(|domain| config.domains.contains(&domain)) {
            return Err(Trouble::refused(
                "You have no verified e-mail address of a domain that may log in here.",
            ));
        }
    }
    let given = config.roles.iter().filter(|rule| {
        let is_met = |(claim, value): &(String, String)| has(claims, claim, value);
        rule.claim.as_ref().is_none_or(is_met)
    });
    let roles = given.fold(Roles::NONE, |all, rule| all.and(rule.roles));
    if roles == Roles::NONE {
        return Err(Trouble::refused(
            "You are known, and have no role here. Whoever runs this gateway gives some to a group of yours: [[oidc.roles]].",
        ));
    }
    let name = named(claims, &config.name_claim).filter(|name| is_plain(name, NAME_BYTES_MAX));
    let name = name.map_or_else(|| subject.clone(), str::to_owned);
    Ok(Identity { name, subject, roles })
}

/// The e-mail address, where the provider vouches for it: whoever writes it himself is nobody's.
fn email(claims: &Value) -> Option<&str> {
    let is_verified = matches!(&claims["email_verified"], Value::Bool(true))
        || claims["email_verified"] == "true";
    claims["email"].as_str().filter(|_| is_verified)
}

fn named<'a>(claims: &'a Value, claim: &str) -> Option<&'a str> {
    if claim == "email" { email(claims) } else { member(claims, claim)?.as_str() }
}

/// A claim by its name, or by a pointer (`/realm_access/roles`).
fn member<'a>(claims: &'a Value, claim: &str) -> Option<&'a Value> {
    if claim.starts_with('/') { claims.pointer(claim) } else { claims.get(claim) }
}

/// Whether a claim is this value, or is a list that has it.
fn has(claims: &Value, claim: &str, value: &str) -> bool {
    if claim == "email" {
        return email(claims).is_some_and(|email| email.eq_ignore_ascii_case(value));
    }
    match member(claims, claim) {
        Some(Value::Array(all)) => all.iter().any(|one| one == value),
        Some(one) => one == value,
        None => false,
    }
}

fn is_plain(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    const NOW: i64 = 1_800_000_000;

    fn claims() -> Value {
        json!({
            "iss": "https://login.example.com", "aud": "onceward", "sub": "u-1", "nonce": "n",
            "iat": NOW, "exp": NOW + 300,
            "email": "Ada@Example.com", "email_verified": true, "groups": ["dev", "oncall"],
            "realm_access": {"roles": ["chief"]}, "preferred_username": "ada",
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    #[test]
    fn a_token_is_of_this_issuer_for_this_client_for_this_login_and_of_now() {
        let expected = Expected {
            issuer: "https://login.example.com",
            client_id: "onceward",
            nonce: "n",
            now: NOW,
        };
        let is_taken = |claims: &Value| expected.check(claims).is_ok();
        assert!(is_taken(&claims()));
        for good in [
            with("aud", json!(["onceward"])),
            with("azp", json!("onceward")),
            with("exp", json!(NOW - 59)),
            with("iat", json!(NOW + 60)),
            with("exp", json!(NOW as f64 + 0.5)),
        ] {
            assert!(is_taken(&good), "{good}");
        }
        let mut both = with("aud", json!(["other", "onceward"]));
        assert!(!is_taken(&both), "nobody says who asked for it");
        both["azp"] = json!("onceward");
        assert!(is_taken(&both));
        for (name, value) in [
            ("iss", json!("https://login.example.com/")),
            ("iss", json!("https://evil.example")),
            ("iss", json!(null)),
            ("aud", json!("other")),
            ("aud", json!(["other"])),
            ("aud", json!([])),
            ("aud", json!(null)),
            ("azp", json!("other")),
            ("nonce", json!("m")),
            ("nonce", json!(null)),
            ("exp", json!(NOW - 60)),
            ("exp", json!(null)),
            ("exp", json!("soon")),
            ("iat", json!(NOW + 61)),
            ("iat", json!(null)),
            ("nbf", json!(NOW + 61)),
        ] {
            let bad = with(name, value);
            assert!(!is_taken(&bad), "{name}: {}", bad[name]);
        }
    }

    fn config(lines: &str) -> OidcConfig {
        let text = format!(
            "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"onceward\"\n{lines}"
        );
        (*Config::of_text(&text).unwrap().oidc.unwrap()).clone()
    }

    fn rule(claim: &str, value: &str, role: &str) -> String {
        format!("[[oidc.roles]]\nclaim = {claim:?}\nvalue = {value:?}\nroles = [{role:?}]\n")
    }

    #[test]
    fn roles_are_those_of_all_rules_that_are_met_and_nobody_has_none() {
        let groups = rule("groups", "oncall", "operate") + &rule("groups", "chiefs", "admin");
        let found = identity(&claims(), &config(&groups)).unwrap();
        assert_eq!(
            (found.name.as_str(), found.roles.said().as_str()),
            ("Ada@Example.com", "operate")
        );
        let nested = rule("/realm_access/roles", "chief", "admin") + &rule("sub", "u-1", "read");
        assert_eq!(identity(&claims(), &config(&nested)).unwrap().roles.said(), "read, admin");
        let everybody = "[[oidc.roles]]\nroles = [\"read\"]\n";
        assert_eq!(identity(&claims(), &config(everybody)).unwrap().roles.said(), "read");
        for (claim, value) in
            [("groups", "onc"), ("groups", "[\"dev\"]"), ("nothing", ""), ("realm_access", "chief")]
        {
            let wrong = identity(&claims(), &config(&rule(claim, value, "admin"))).unwrap_err();
            assert!(wrong.to_string().contains("no role"), "{claim} {value}");
        }
    }

    #[test]
    fn what_is_told_beside_a_token_adds_to_it_and_changes_nothing() {
        let config = config(&rule("groups", "oncall", "read"));
        assert!(!is_lacking(&claims(), &config));
        let mut thin = json!({"sub": "u-1", "email": "ada@example.com"});
        assert!(is_lacking(&thin, &config));
        let told = json!({"sub": "u-2", "email": "eve@example.com", "email_verified": true, "groups": ["oncall"]});
        add(&mut thin, Some(told));
        assert_eq!(thin, json!({"sub": "u-1", "email": "ada@example.com", "groups": ["oncall"]}));
        add(&mut thin, Some(json!("nothing")));
        add(&mut thin, None);
        assert_eq!(
            identity(&thin, &config).unwrap().name,
            "u-1",
            "nobody vouched for that address"
        );
    }

    #[test]
    fn an_address_counts_where_the_provider_vouches_for_it() {
        let by_domain = "domains = [\"example.com\"]\n[[oidc.roles]]\nroles = [\"read\"]\n";
        let by_address = rule("email", "ada@example.com", "read");
        for config in [config(by_domain), config(&by_address)] {
            assert!(identity(&claims(), &config).is_ok());
            for unsaid in [json!(false), json!(null), json!("yes"), json!(1)] {
                assert!(identity(&with("email_verified", unsaid), &config).is_err());
            }
            for other in ["ada@evil.example", "ada@example.com.evil.example", "example.com", ""] {
                assert!(identity(&with("email", json!(other)), &config).is_err(), "{other}");
            }
        }
        let all = config("[[oidc.roles]]\nroles = [\"read\"]\n");
        assert_eq!(identity(&with("email_verified", json!(false)), &all).unwrap().name, "u-1");
        for nobody in [json!(null), json!(""), json!("a\nb"), json!("x".repeat(256))] {
            assert!(identity(&with("sub", nobody), &all).is_err());
        }
        let named =
            config("name_claim = \"preferred_username\"\n[[oidc.roles]]\nroles = [\"read\"]\n");
        assert_eq!(identity(&claims(), &named).unwrap().name, "ada");
    }
}
