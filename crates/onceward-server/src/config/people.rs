//! What people look for and are told of, as the file says it: ids, callbacks, the audit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward::core::ids::IDS_MAX;
use onceward::route::Route;
use onceward::upstream::parse_ad_hoc;
use serde::Deserialize;

use super::ConfigError;
use crate::units::Span;

/// How long it is kept what people did, where nothing says otherwise.
const AUDIT_KEPT: Duration = Duration::from_hours(24 * 400);

/// The longest name of an id.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallbacksFile {
    secret: Option<Given>,
}

/// A secret as it is written: not looked at while the file is read, so that no error repeats it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Given(String);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl CallbacksFile {
    /// What signs callbacks.
    pub(super) fn secret(&self, source: &str) -> Result<Option<WebhookSecret>, ConfigError> {
        let Some(Given(text)) = &self.secret else { return Ok(None) };
        let read = || STANDARD.decode(text.strip_prefix("whsec_")?).ok();
        // 24 to 64 bytes: Standard Webhooks 1.0, "Signature scheme".
        let secret = read().filter(|secret| (24..=64).contains(&secret.len()));
        secret.map(|secret| Some(WebhookSecret(secret))).ok_or_else(|| {
            ConfigError(format!(
                "{source}: callbacks.secret is no secret of Standard Webhooks: whsec_ and the base64 of 24 to 64 bytes\nhelp: echo whsec_$(openssl rand -base64 32)"
            ))
        })
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditFile {
    retention: Option<Span>,
}

impl AuditFile {
    pub(super) fn kept(&self) -> Duration {
        self.retention.map_or(AUDIT_KEPT, |span| span.0)
    }
}

/// What signs callbacks; it never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebhookSecret(pub(crate) Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Names and where in the answer they are.
pub(super) fn ids(
    file: &BTreeMap<String, String>,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Vec<(String, String)>, ConfigError> {
    if file.len() > IDS_MAX {
        return Err(wrong(&format!("has {} ids\nhelp: name at most {IDS_MAX}", file.len())));
    }
    for (name, pointer) in file {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
            return Err(wrong(&format!(
                "has an id {name:?}\nhelp: a name has letters, digits, `-`, `_` and `.`, at most {NAME_BYTES_MAX}"
            )));
        }
        if !pointer.starts_with('/') {
            return Err(wrong(&format!(
                "has ids.{name} = {pointer:?}, which is no JSON pointer\nhelp: write \"/id\" or \"/customer/id\""
            )));
        }
    }
    Ok(file.iter().map(|(name, pointer)| (name.clone(), pointer.clone())).collect())
}

/// Whom to tell.
pub(super) fn callback(
    url: &str,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<String, ConfigError> {
    let parsed = parse_ad_hoc(url).map_err(|refusal| {
        wrong(&format!("has a callback that cannot be used: {refusal}\nhelp: write \"https://app.example.com/hooks\""))
    })?;
    Ok(parsed.to_string())
}

/// What is not signed is not sent.
pub(super) fn check_callbacks(
    routes: &BTreeMap<String, Arc<Route>>,
    file: &CallbacksFile,
    source: &str,
) -> Result<(), ConfigError> {
    let calls_back = |route: &Arc<Route>| {
        let rules = route.rules.iter().map(|rule| &rule.policy);
        rules.chain([&route.policy]).any(|policy| policy.callback.is_some())
    };
    match routes.iter().find(|(_, route)| calls_back(route)) {
        Some((name, _)) if file.secret.is_none() => Err(ConfigError(format!(
            "{source}: [routes.{name}] has a callback, and there is no callbacks.secret\nhelp: add [callbacks] secret = \"${{CALLBACKS_SECRET}}\", made by: echo whsec_$(openssl rand -base64 32)"
        ))),
        _ => Ok(()),
    }
}
