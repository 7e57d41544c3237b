//! The identity provider that people may log in with, as the file says it.

use std::fmt;

use serde_json::Value;
use url::Url;

use super::ConfigError;
use super::auth::secret;
use super::table::Table;
use super::words::{is_here, url};
use crate::access::Roles;

/// What is asked for of who somebody is, where nothing says otherwise.
const SCOPES: [&str; 3] = ["openid", "profile", "email"];

/// The claim that is a person's name, where nothing says otherwise.
const NAME_CLAIM: &str = "email";

/// An identity provider, and what its users may do.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OidcConfig {
    /// As it was written: it has to be the issuer's own word for itself.
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<String>,
    pub(crate) scopes: Vec<String>,
    /// What the way in is called.
    pub(crate) name: String,
    /// The claim that is a person's name.
    pub(crate) name_claim: String,
    /// Where the provider sends browsers back to; without it, where they came from.
    pub(crate) redirect_url: Option<Url>,
    /// The domains of e-mail addresses that may log in, in lower case; empty: all.
    pub(crate) domains: Vec<String>,
    pub(crate) roles: Vec<RoleRule>,
}

/// What a claim opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleRule {
    /// A claim, and the value that it is or has; without it everybody.
    pub(crate) claim: Option<(String, String)>,
    pub(crate) roles: Roles,
}

impl fmt::Debug for OidcConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OidcConfig").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl OidcConfig {
    /// What `check` shows of it.
    pub(crate) fn described(&self) -> Value {
        let rules = self.roles.iter().map(|rule| {
            let (claim, value) = rule.claim.clone().unzip();
            serde_json::json!({"claim": claim, "value": value, "roles": rule.roles})
        });
        serde_json::json!({
            "issuer": self.issuer,
            "client_id": self.client_id,
            "domains": self.domains,
            "roles": rules.collect::<Vec<_>>(),
        })
    }

    /// What a careful reader would ask about.
    pub(super) fn warnings(&self) -> Option<String> {
        let for_all = self.roles.iter().find(|rule| rule.claim.is_none());
        let rule = for_all.filter(|_| self.domains.is_empty())?;
        Some(format!(
            "[oidc] gives everybody with an account at {} the roles {}: say domains, or a claim and a value.",
            self.issuer,
            rule.roles.said()
        ))
    }
}

/// Reads `[oidc]`.
pub(super) fn read(table: &Table<'_>) -> Result<OidcConfig, ConfigError> {
    let issuer = table.text("issuer", issuer)?;
    let (issuer, host) = table.need("issuer", issuer)?;
    let client_id = table.read("client_id")?;
    let roles = table.list("roles")?.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    if roles.is_empty() {
        return Err(table.wrong(
            "[oidc] says not what anybody may do\nhelp: add [[oidc.roles]] claim = \"groups\", value = \"oncall\", roles = [\"read\", \"operate\"]",
        ));
    }
    let scopes = table.texts("scopes", scope)?;
    let mut scopes = scopes.unwrap_or_else(|| SCOPES.map(str::to_owned).to_vec());
    if !scopes.iter().any(|scope| scope == SCOPES[0]) {
        scopes.insert(0, SCOPES[0].to_owned());
    }
    let redirect_url = table.text("redirect_url", |text| {
        let read = url(text)?;
        let is_ours = read.path() == crate::oidc::CALLBACK;
        is_ours
            .then_some(read)
            .ok_or_else(|| format!("{text:?} ends not in {}, where we are", crate::oidc::CALLBACK))
    })?;
    Ok(OidcConfig {
        issuer,
        client_id: table.need("client_id", client_id)?,
        client_secret: secret(table, "client_secret")?,
        scopes,
        name: table.or("name", host)?,
        name_claim: table.or("name_claim", NAME_CLAIM.to_owned())?,
        redirect_url,
        domains: table.texts("domains", domain)?.unwrap_or_default(),
        roles,
    })
}

/// An issuer as it calls itself, and its host.
fn issuer(text: &str) -> Result<(String, String), String> {
    let read = url(text)?;
    if read.scheme() != "https" && !is_here(&read) {
        return Err(format!(
            "{text:?} is not https, so anybody on the way could say who somebody is"
        ));
    }
    Ok((text.to_owned(), read.host_str().unwrap_or_default().to_owned()))
}

fn scope(text: &str) -> Result<String, String> {
    // RFC 6749, section 3.3.
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    let is_scope = !text.is_empty() && text.bytes().all(fits);
    is_scope.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is no scope"))
}

fn domain(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let is_domain = text.contains('.') && text.bytes().all(fits);
    is_domain
        .then(|| text.to_ascii_lowercase())
        .ok_or_else(|| format!("{text:?} is no domain: write \"example.com\""))
}

fn rule(table: &Table<'_>) -> Result<RoleRule, ConfigError> {
    let (claim, value) = (table.read::<String>("claim")?, table.read::<String>("value")?);
    let claim = match (claim, value) {
        (Some(claim), Some(value)) => Some((claim, value)),
        (None, None) => None,
        _ => {
            return Err(table.wrong(
                "[[oidc.roles]] has half of a rule\nhelp: claim and value go together; without both it is for everybody",
            ));
        }
    };
    let role = |name: &str| {
        Roles::named(name).ok_or_else(|| format!("{name:?} is none of {}", Roles::ALL.said()))
    };
    let roles = table.texts("roles", role)?;
    let roles = table.need("roles", roles)?.into_iter().fold(Roles::NONE, Roles::and);
    if roles == Roles::NONE {
        return Err(table.wrong("[[oidc.roles]] has no roles\nhelp: write roles = [\"read\"]"));
    }
    table.done()?;
    Ok(RoleRule { claim, roles })
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    const ROLES: &str =
        "[[oidc.roles]]\nclaim = \"groups\"\nvalue = \"oncall\"\nroles = [\"read\"]";

    fn oidc(lines: &str) -> Result<OidcConfig, String> {
        let read = load(&format!("[oidc]\nclient_id = \"onceward\"\n{lines}"))?;
        Ok(read.oidc.map(|oidc| (*oidc).clone()).unwrap())
    }

    #[test]
    fn a_provider_is_read_with_what_is_usual() {
        let read = oidc(&format!("issuer = \"https://login.example.com/\"\n{ROLES}")).unwrap();
        assert_eq!(
            (read.issuer.as_str(), read.name.as_str()),
            ("https://login.example.com/", "login.example.com")
        );
        assert_eq!(read.scopes, SCOPES);
        assert_eq!(read.roles[0].roles.said(), "read");
        let scopes = format!("issuer = \"https://a.example\"\nscopes = [\"groups\"]\n{ROLES}");
        assert_eq!(oidc(&scopes).unwrap().scopes, ["openid", "groups"]);
        oidc(&format!("issuer = \"http://127.0.0.1:1\"\n{ROLES}")).unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_provider_is_said() {
        let https = "issuer = \"https://a.example\"\n";
        for (lines, said) in [
            (ROLES.to_owned(), "issuer"),
            (format!("issuer = \"http://a.example\"\n{ROLES}"), "is not https"),
            (https.to_owned(), "[[oidc.roles]]"),
            (
                format!("{https}[[oidc.roles]]\nclaim = \"groups\"\nroles = [\"read\"]"),
                "half of a rule",
            ),
            (format!("{https}[[oidc.roles]]\nroles = [\"boss\"]"), "\"boss\" is none of"),
            (format!("{https}[[oidc.roles]]\nroles = []"), "no roles"),
            (format!("{https}domains = [\"@example\"]\n{ROLES}"), "no domain"),
            (
                format!("{https}redirect_url = \"https://b.example/\"\n{ROLES}"),
                "/login/oidc/callback",
            ),
            (format!("{https}client_secret = \"\"\n{ROLES}"), "empty oidc.client_secret"),
            (format!("{https}isuer = \"x\"\n{ROLES}"), "isuer"),
        ] {
            let wrong = oidc(&lines).unwrap_err();
            assert!(wrong.contains(said), "{lines}: {wrong}");
        }
        let shown = oidc(&format!("{https}client_secret = \"canary\"\n{ROLES}")).unwrap();
        assert!(!format!("{shown:?} {}", shown.described()).contains("canary"));
    }
}
