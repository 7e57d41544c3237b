//! How a source's webhooks are signed, as the file says it. It holds secrets, which no error repeats.

use onceward::webhook::{
    Algorithm, Encoding, HmacRule, NotASecret, Scheme, TOLERANCE, Template, Verifier,
};

use super::ConfigError;
use super::table::{Table, Words};
use super::words::header_name;

/// The schemes that their names say all of.
const WHOLE: [Scheme; 8] = [
    Scheme::StandardWebhooks,
    Scheme::Svix,
    Scheme::Stripe,
    Scheme::Github,
    Scheme::Slack,
    Scheme::Shopify,
    Scheme::Twilio,
    Scheme::None,
];

/// The one that is told by its parts, and the keys of those.
const HMAC: &str = "hmac";
const PARTS: [&str; 7] =
    ["header", "prefix", "algorithm", "encoding", "secret_encoding", "timestamp", "signed"];

const ALGORITHMS: &Words<Algorithm> =
    &[("sha1", Algorithm::Sha1), ("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)];
const ENCODINGS: &Words<Encoding> = &[("hex", Encoding::Hex), ("base64", Encoding::Base64)];
const SECRETS: &Words<Option<Encoding>> =
    &[("text", None), ("hex", Some(Encoding::Hex)), ("base64", Some(Encoding::Base64))];

/// What verifies webhooks.
pub(super) fn verifier(table: &Table<'_>) -> Result<Verifier, ConfigError> {
    let named = table.text("scheme", scheme)?;
    table.hide("secret");
    table.hide("secrets");
    let secret: Option<String> = table.read("secret")?;
    let secrets: Option<Vec<String>> = table.read("secrets")?;
    let tolerance = table.span_or("tolerance", TOLERANCE)?;
    let hmac = hmac(table)?;
    let named = table.need("scheme", named)?;
    let scheme = match (named, table.says(&PARTS)) {
        (Some(_), Some(key)) => {
            return Err(table.wrong(&format!(
                "has verify.{key}, which its scheme knows by itself\nhelp: take it out, or say scheme = \"hmac\""
            )));
        }
        (Some(scheme), None) => scheme,
        (None, _) => hmac.map(|rule| Scheme::Hmac(Box::new(rule))).ok_or_else(|| {
            table.wrong(
                "verifies an hmac and names no header\nhelp: add header = \"X-Signature\" to verify",
            )
        })?,
    };
    let secrets: Vec<&str> =
        secret.iter().chain(secrets.iter().flatten()).map(String::as_str).collect();
    if scheme == Scheme::None && !secrets.is_empty() {
        return Err(table.wrong(
            "has a secret, and verifies nothing\nhelp: say a scheme that signs, such as scheme = \"hmac\"",
        ));
    }
    let name = scheme.name();
    Verifier::new(scheme, &secrets, tolerance).map_err(|(place, why)| match why {
        NotASecret::None => table.wrong(&format!(
            "verifies {name} and has no secret\nhelp: verify = {{ scheme = \"{name}\", secret = \"${{WEBHOOK_SECRET}}\" }}"
        )),
        NotASecret::TooMany => table.wrong(&format!("has too many secrets: {why}")),
        NotASecret::Empty | NotASecret::Form(_) => table.wrong(&format!(
            "has a secret that cannot be used, number {} of {}: {why}\nhelp: the provider's console shows it where the webhook is set up",
            place + 1,
            secrets.len()
        )),
    })
}

/// A scheme by its name; none for the one that is told by its parts.
pub(super) fn scheme(text: &str) -> Result<Option<Scheme>, String> {
    if text == HMAC {
        return Ok(None);
    }
    WHOLE.into_iter().find(|scheme| scheme.name() == text).map(Some).ok_or_else(|| {
        let known: Vec<_> = WHOLE.iter().map(Scheme::name).collect();
        format!("{text:?} is no scheme that is known: {}, {HMAC}", known.join(", "))
    })
}

/// An HMAC in a header, where one is named.
fn hmac(table: &Table<'_>) -> Result<Option<HmacRule>, ConfigError> {
    let header = table.text("header", header_name)?;
    let timestamp = table.text("timestamp", header_name)?;
    let usual = if timestamp.is_some() { "{timestamp}.{body}" } else { "{body}" };
    let signed = table.read::<String>("signed")?;
    let signed = Template::read(signed.as_deref().unwrap_or(usual))
        .map_err(|why| table.wrong(&format!("has a verify.signed that cannot be read: {why}")))?;
    let rule = HmacRule {
        header: header.clone().unwrap_or_default(),
        prefix: table.or("prefix", String::new())?,
        algorithm: table.word("algorithm", ALGORITHMS)?.unwrap_or(Algorithm::Sha256),
        encoding: table.word("encoding", ENCODINGS)?.unwrap_or(Encoding::Hex),
        secret: table.word("secret_encoding", SECRETS)?.flatten(),
        timestamp,
        signed,
    };
    if header.is_some() && rule.signed.has_timestamp() != rule.timestamp.is_some() {
        return Err(table.wrong(
            "says a timestamp in one of verify.timestamp and verify.signed\nhelp: what is not signed proves nothing: timestamp = \"X-Timestamp\", signed = \"{timestamp}.{body}\"",
        ));
    }
    Ok(header.map(|_| rule))
}
