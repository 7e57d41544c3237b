//! What signs callbacks, as the file says it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward::route::Route;

use super::ConfigError;
use super::table::Table;

/// What signs callbacks; it never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebhookSecret(pub(crate) Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Reads `[callbacks]`.
pub(super) fn secret(file: &Table<'_>) -> Result<Option<WebhookSecret>, ConfigError> {
    let secret = |text: &str| {
        webhook_secret(text).ok_or(
            "callbacks.secret is no secret of Standard Webhooks: whsec_ and the base64 of 24 to 64 bytes\nhelp: echo whsec_$(openssl rand -base64 32)",
        )
    };
    let read = |table: &Table<'_>| {
        table.hide("secret");
        let text = table.read::<String>("secret")?;
        text.map(|text| secret(&text).map_err(|why| table.wrong(why))).transpose()
    };
    Ok(file.within("callbacks", read)?.flatten())
}

/// A secret as Standard Webhooks write it.
pub(super) fn webhook_secret(text: &str) -> Option<WebhookSecret> {
    let secret = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
    // 24 to 64 bytes: Standard Webhooks 1.0, "Signature scheme".
    (24..=64).contains(&secret.len()).then_some(WebhookSecret(secret))
}

/// What is not signed is not sent.
pub(super) fn check(
    routes: &BTreeMap<String, Arc<Route>>,
    secret: Option<&WebhookSecret>,
    file: &Table<'_>,
) -> Result<(), ConfigError> {
    let calls_back = |route: &Arc<Route>| {
        let rules = route.rules.iter().map(|rule| &rule.policy);
        rules.chain([&route.policy]).any(|policy| policy.callback.is_some())
    };
    match routes.iter().find(|(_, route)| calls_back(route)) {
        Some((name, _)) if secret.is_none() => Err(file.wrong(&format!(
            "[routes.{name}] has a callback, and there is no callbacks.secret\nhelp: add [callbacks] secret = \"${{CALLBACKS_SECRET}}\", made by: echo whsec_$(openssl rand -base64 32)"
        ))),
        _ => Ok(()),
    }
}
