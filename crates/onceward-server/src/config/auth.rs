//! What a route sends of its own to say who we are: `auth`. A secret is a text of the file, as a rule a
//! variable of the environment, or the contents of another file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward::auth::{Auth, ClientCredentials, OAuth2, SigningSecret};
use onceward::core::upstream_key::KeyPlace;

use super::callbacks::webhook_secret;
use super::table::Table;
use super::words::{header_value, url};
use super::{ConfigError, profile::Laid};

/// How long a request for a token takes at most, where the route's attempts may take longer.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What `auth` comes to.
#[derive(Default)]
pub(super) struct Read {
    /// The value of `Authorization`, where it is always the same.
    pub(super) authorization: Option<String>,
    pub(super) auth: Auth,
}

/// Reads `auth` of a route whose attempts take `timeout` at most.
pub(super) fn read(table: &Table<'_>, timeout: Duration) -> Result<Read, ConfigError> {
    let bearer = secret(table, "bearer")?.map(|token| format!("Bearer {token}"));
    let basic = table.within("basic", basic)?;
    let oauth2 = table.within("oauth2", |table| oauth2(table, timeout))?;
    let said = [bearer.is_some(), basic.is_some(), oauth2.is_some()];
    if said.iter().filter(|is_said| **is_said).count() > 1 {
        return Err(table.wrong(
            "says twice in auth what goes into Authorization\nhelp: write one of bearer, basic and oauth2",
        ));
    }
    let authorization = bearer.or(basic);
    if authorization.as_deref().is_some_and(|value| header_value(value).is_err()) {
        return Err(table.wrong("has in auth what cannot stand in a header (a line break?)"));
    }
    let signing = table.within("standard_webhooks", |table| {
        let text = secret(table, "secret")?;
        let text = table.need("secret", text)?;
        let bytes = webhook_secret(&text).ok_or_else(|| {
            table.wrong("has in auth.standard_webhooks no secret of Standard Webhooks: whsec_ and the base64 of 24 to 64 bytes\nhelp: echo whsec_$(openssl rand -base64 32)")
        })?;
        Ok(Arc::new(SigningSecret(bytes.0)))
    })?;
    Ok(Read { authorization, auth: Auth { oauth2, signing, address: None } })
}

/// What is signed is what the caller sent: a key that is laid into it would break that.
pub(super) fn check(auth: &Auth, laid: &Laid, table: &Table<'_>) -> Result<(), ConfigError> {
    let mut policies = laid.rules.iter().map(|rule| &*rule.policy).chain([&laid.policy]);
    let is_changed = policies.any(|it| matches!(it.upstream_key.place, KeyPlace::Json(_)));
    if auth.signing.is_some() && is_changed {
        return Err(table.wrong(
            "signs what it sends, and lays a key into its bodies\nhelp: let upstream_key go into a header, or take auth.standard_webhooks out",
        ));
    }
    Ok(())
}

fn basic(table: &Table<'_>) -> Result<String, ConfigError> {
    let (user, password) = (table.read::<String>("user")?, secret(table, "password")?);
    let user = table.need("user", user)?;
    let password = table.need("password", password)?;
    // RFC 7617, section 2.
    if user.contains(':') || format!("{user}{password}").contains(char::is_control) {
        return Err(table.wrong(
            "has in auth.basic what cannot be sent: a user name has no colon, and neither has a control character",
        ));
    }
    Ok(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn oauth2(table: &Table<'_>, timeout: Duration) -> Result<Arc<OAuth2>, ConfigError> {
    let token_url = table.text("token_url", url)?;
    let client_id = table.read("client_id")?;
    let client_secret = secret(table, "client_secret")?;
    let (scope, audience) = (table.read("scope")?, table.read("audience")?);
    let credentials = ClientCredentials {
        token_url: table.need("token_url", token_url)?,
        client_id: table.need("client_id", client_id)?,
        client_secret: table.need("client_secret", client_secret)?,
        scope,
        audience,
    };
    Ok(Arc::new(OAuth2::new(&credentials, timeout.min(TOKEN_TIMEOUT))))
}

/// A secret: a text, or `{ file = "…" }`. It is not repeated in what is wrong with it.
pub(super) fn secret(table: &Table<'_>, key: &'static str) -> Result<Option<String>, ConfigError> {
    table.hide(key);
    #[cfg(test)]
    for kind in [std::any::type_name::<String>(), "table"] {
        table.note(key, kind);
    }
    let read = if table.is_text(key) {
        table.read::<String>(key)?
    } else {
        table.within(key, |table| {
            let path = table.read::<PathBuf>("file")?;
            let path = table.need("file", path)?;
            let text = std::fs::read_to_string(&path).map_err(|error| {
                table.wrong(&format!("has a secret in {}: {error}", path.display()))
            })?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        })?
    };
    match read {
        Some(text) if text.is_empty() => {
            Err(table.wrong(&format!("has an empty {}", table.whole_name(key))))
        }
        read => Ok(read),
    }
}
