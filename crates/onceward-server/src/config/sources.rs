//! Sources: where webhooks come in, as the file says it. A source with a `deliver` of its own has a
//! route of its own too, called `source/NAME`; with `to` it goes through one that is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use onceward::core::condition::Condition;
use onceward::webhook::{
    Algorithm, Encoding, HmacRule, NotASecret, Place, Scheme, TOLERANCE, Template, Verifier,
};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value as Json;
use url::Url;

use super::profile::Profiles;
use super::settings::said;
use super::{
    ConfigError, EffectsWord, FingerprintFile, HttpUrl, ModeWord, Name, Pointer, RouteFile,
    RouteName, Setting, UpstreamKeyFile, UpstreamKeyWord, build_route,
};
use crate::source::{Answer, Handshake, Ids, Resolve, Source};
use crate::units::Span;

/// How long one's own code is taken to remember a `webhook-id`: seven days, so that all attempts of
/// an accepted operation fit.
const OWN_WINDOW: Duration = Duration::from_hours(7 * 24);

/// Rejected webhooks that are kept of a source, where nothing says, and at most.
const REJECTS: usize = 50;
const REJECTS_MAX: usize = 1000;

/// The longest name of a parameter.
const ECHO_BYTES_MAX: usize = 200;

/// A webhook's body, where nothing says otherwise.
const BODY_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct SourceFile {
    verify: Later,
    deliver: Option<DeliverUrl>,
    to: Option<RouteName>,
    path: Option<String>,
    id: Option<IdWord>,
    subject: Option<PlaceFile>,
    sequence: Option<PlaceFile>,
    methods: Option<Vec<MethodWord>>,
    url: Option<HttpUrl>,
    handshake: Option<Later>,
    rejects_max: Option<usize>,
    resolve: Option<ResolveFile>,
    answer: Option<AnswerFile>,
    #[serde(flatten)]
    route: RouteFile,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyFile {
    scheme: SchemeWord,
    secret: Option<SecretWord>,
    #[serde(default)]
    secrets: SecretWords,
    tolerance: Option<Span>,
    header: Option<Name>,
    prefix: Option<String>,
    algorithm: Option<AlgorithmWord>,
    encoding: Option<EncodingWord>,
    secret_encoding: Option<SecretEncodingWord>,
    timestamp: Option<Name>,
    signed: Option<String>,
}

/// How webhooks are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SchemeWord {
    StandardWebhooks,
    Svix,
    Stripe,
    Github,
    Slack,
    Shopify,
    Twilio,
    Hmac,
    None,
}

impl SchemeWord {
    /// The scheme that its word says all of.
    fn whole(self) -> Option<Scheme> {
        Some(match self {
            Self::StandardWebhooks => Scheme::StandardWebhooks,
            Self::Svix => Scheme::Svix,
            Self::Stripe => Scheme::Stripe,
            Self::Github => Scheme::Github,
            Self::Slack => Scheme::Slack,
            Self::Shopify => Scheme::Shopify,
            Self::Twilio => Scheme::Twilio,
            Self::None => Scheme::None,
            Self::Hmac => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        self.whole().map_or("hmac", |scheme| scheme.name())
    }
}

words!(AlgorithmWord { "sha1" => Sha1, "sha256" => Sha256, "sha512" => Sha512 });
words!(EncodingWord { "hex" => Hex, "base64" => Base64 });
words!(SecretEncodingWord { "text" => Text, "hex" => Hex, "base64" => Base64 });

/// What has a secret in it is read once the file is: an error that shows its line would show that.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Later(toml::Value);

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Later {
    fn read<'de, T: Deserialize<'de>>(
        &self,
        what: &str,
        wrong: &Wrong<'_>,
    ) -> Result<T, ConfigError> {
        let read = |error: toml::de::Error| {
            wrong(&format!("has a {what} that cannot be read: {}", error.message()))
        };
        self.0.clone().try_into().map_err(read)
    }
}

/// A secret as it is written; it never shows itself, and no error repeats it.
#[derive(Clone)]
struct SecretWord(String);

impl<'de> Deserialize<'de> for SecretWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a secret is text")),
        }
    }
}

/// Secrets that are active together.
#[derive(Debug, Default, Clone)]
struct SecretWords(Vec<SecretWord>);

impl<'de> Deserialize<'de> for SecretWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let toml::Value::Array(listed) = toml::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom("secrets is a list of text"));
        };
        let read = |one: toml::Value| match one {
            toml::Value::String(text) => Ok(SecretWord(text)),
            _ => Err(D::Error::custom("a secret is text")),
        };
        listed.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Debug for SecretWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Where to: an http or https URL, its path and query too.
#[derive(Debug, Clone)]
struct DeliverUrl(Url);

impl<'de> Deserialize<'de> for DeliverUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let url = Url::parse(&text).ok().filter(|url| {
            let is_plain = url.username().is_empty() && url.password().is_none();
            matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain
        });
        let url = url.filter(|url| url.fragment().is_none());
        url.map(Self).ok_or_else(|| {
            D::Error::custom("deliver is no http or https URL without credentials: write \"http://127.0.0.1:3000/hooks\"")
        })
    }
}

/// `{ header = "X-Id" }`, `{ json = "/id" }`, `{ form = "Id" }`, or `"content"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "an id is { header = \"X-Id\" }, { json = \"/id\" }, { form = \"Id\" }, or \"content\""
)]
enum IdWord {
    Content(ContentWord),
    At(PlaceFile),
}

words!(ContentWord { "content" => Content });

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceFile {
    header: Option<Name>,
    json: Option<Pointer>,
    form: Option<String>,
}

#[derive(Debug, Clone)]
struct MethodWord(Method);

impl<'de> Deserialize<'de> for MethodWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "POST" => Ok(Self(Method::POST)),
            "PUT" => Ok(Self(Method::PUT)),
            "PATCH" => Ok(Self(Method::PATCH)),
            "DELETE" => Ok(Self(Method::DELETE)),
            other => Err(D::Error::custom(format!(
                "{other:?} is no method of webhooks: POST, PUT, PATCH or DELETE"
            ))),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandshakeFile {
    echo: String,
    token: Option<TokenFile>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    query: String,
    value: SecretWord,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResolveFile {
    route: RouteName,
    key: Option<PlaceFile>,
    id: Option<MadeFile>,
    found: Option<Json>,
    failed: Option<Json>,
    absent: Option<Json>,
    status: Option<u16>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct MadeFile {
    name: String,
    json: Pointer,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerFile {
    status: Option<u16>,
    body: Option<String>,
    content_type: Option<String>,
}

type Wrong<'a> = dyn Fn(&str) -> ConfigError + 'a;

/// The name of a source's own route.
fn route_of(name: &str) -> String {
    format!("source/{name}")
}

/// A source, and the route of its own where it has one.
pub(super) struct Built {
    pub(super) source: Source,
    pub(super) route: Option<(onceward::route::Route, Vec<Setting>)>,
}

/// What else the file says.
pub(super) struct Among<'a> {
    pub(super) profiles: &'a Profiles<'a>,
    /// Whether a route is there, for `to` and `resolve`.
    pub(super) is_route: &'a dyn Fn(&str) -> bool,
    pub(super) segment_bytes: usize,
    /// What errors call the file.
    pub(super) source: &'a str,
}

/// Builds a source.
pub(super) fn build(
    name: &RouteName,
    file: &SourceFile,
    among: &Among<'_>,
) -> Result<Built, ConfigError> {
    let Among { is_route, segment_bytes, source, .. } = *among;
    let name = name.0.as_str();
    let wrong = |what: &str| ConfigError(format!("{source}: [sources.{name}] {what}"));
    let wrong: &Wrong<'_> = &wrong;
    if let Some(unknown) = file.route.policy.unknown.keys().next() {
        return Err(wrong(&format!(
            "has an unknown key {unknown:?}\nhelp: the keys are in docs/configuration.md"
        )));
    }
    let verify: VerifyFile = file.verify.read("verify", wrong)?;
    let verifier = verifier(&verify, scheme(&verify, wrong)?, wrong)?;
    let (own, route, target) = match (&file.deliver, &file.to) {
        (Some(_), Some(_)) => {
            return Err(wrong(
                "has both a deliver and a to\nhelp: say deliver = \"http://…\", or to = \"route\" and path = \"/…\"",
            ));
        }
        (Some(url), None) => {
            let own = own_route(name, file, &url.0, verifier.scheme(), among, wrong)?;
            let query = url.0.query().map(|query| format!("?{query}")).unwrap_or_default();
            (Some(own), Some(route_of(name)), format!("{}{query}", url.0.path()))
        }
        (None, Some(to)) => {
            if !is_route(&to.0) {
                return Err(wrong(&format!(
                    "goes to a route {:?} that is not there\nhelp: add [routes.{}], or say deliver = \"http://…\"",
                    to.0, to.0
                )));
            }
            if let Some(key) = said(&file.route.policy).first() {
                return Err(wrong(&format!(
                    "says {key}, and goes through a route that has its own policy\nhelp: say it in [routes.{}], or deliver = \"http://…\"",
                    to.0
                )));
            }
            (None, Some(to.0.clone()), file.path.clone().unwrap_or_else(|| "/".to_owned()))
        }
        (None, None) if file.resolve.is_some() => (None, None, "/".to_owned()),
        (None, None) => {
            return Err(wrong(
                "goes nowhere\nhelp: add deliver = \"http://127.0.0.1:3000/hooks\", or to = \"route\"",
            ));
        }
    };
    if !target.starts_with('/') {
        return Err(wrong(&format!("has a path {target:?}\nhelp: it begins with a slash")));
    }
    if file.path.is_some() && file.to.is_none() {
        return Err(wrong("has a path without a to\nhelp: the path of deliver stands in its URL"));
    }
    if file.resolve.is_some() && *verifier.scheme() == Scheme::None {
        return Err(wrong(
            "verifies nothing, and resolves: anybody could end a doubt\nhelp: say how it is signed in verify, or leave out resolve",
        ));
    }
    let subject = file.subject.as_ref().map(|it| place("subject", it, wrong)).transpose()?;
    let sequence = file.sequence.as_ref().map(|it| place("sequence", it, wrong)).transpose()?;
    if sequence.is_some() && subject.is_none() {
        return Err(wrong(
            "has a sequence and no subject\nhelp: say what it counts: subject = { json = \"/data/object/id\" }",
        ));
    }
    let rejects_max = file.rejects_max.unwrap_or(REJECTS);
    if rejects_max > REJECTS_MAX {
        return Err(wrong(&format!("keeps {rejects_max} rejects\nhelp: at most {REJECTS_MAX}")));
    }
    let methods = file.methods.as_ref().map(|it| it.iter().map(|it| it.0.clone()).collect());
    // A body has to fit a segment of the journal, with its operation beside it.
    let body_bytes_max = file.route.body_bytes_max.map_or(BODY_BYTES, |size| size.0);
    let body_bytes_max = body_bytes_max.min(segment_bytes / 2);
    let built = Source {
        name: name.to_owned(),
        ids: ids(file.id.as_ref(), verifier.scheme(), route.is_some(), wrong)?,
        handshake: file
            .handshake
            .as_ref()
            .map(|it| handshake(&it.read("handshake", wrong)?, wrong))
            .transpose()?,
        resolve: file.resolve.as_ref().map(|it| resolve(it, is_route, wrong)).transpose()?,
        answer: file
            .answer
            .as_ref()
            .map_or_else(|| Ok(Answer::default()), |it| answer(it, wrong))?,
        scope: file.route.scope.as_ref().map_or_else(|| route_of(name), |scope| scope.0.clone()),
        methods: methods.unwrap_or_else(|| vec![Method::POST]),
        url: file.url.as_ref().map(|url| url.0.as_str().trim_end_matches('/').to_owned()),
        verifier,
        route,
        target,
        subject,
        sequence,
        body_bytes_max,
        rejects_max,
    };
    Ok(Built { source: built, route: own })
}

/// The route that goes to `deliver`: keyed where nothing says otherwise, and always accepted.
fn own_route(
    name: &str,
    file: &SourceFile,
    deliver: &Url,
    scheme: &Scheme,
    among: &Among<'_>,
    wrong: &Wrong<'_>,
) -> Result<(onceward::route::Route, Vec<Setting>), ConfigError> {
    let mut file = file.route.clone();
    for (is_said, key, mend) in [
        (file.upstream.is_some(), "an upstream", "where it goes is deliver = \"http://…\""),
        (file.policy.key.is_some(), "a key", "a webhook's key is id = { json = \"/id\" }"),
        (
            file.policy.mode.is_some(),
            "a mode",
            "a webhook is always accepted: its provider waits for nothing",
        ),
    ] {
        if is_said {
            return Err(wrong(&format!("has {key}\nhelp: {mend}")));
        }
    }
    let mut base = deliver.clone();
    base.set_path("");
    base.set_query(None);
    file.upstream = Some(HttpUrl(base));
    let policy = &mut file.policy;
    policy.mode = Some(ModeWord::Accepted);
    if policy.effects.is_none() && policy.profile.is_none() {
        policy.effects = Some(EffectsWord::Keyed);
        policy.upstream_key.get_or_insert_with(|| UpstreamKeyFile {
            header: Some(Name("idempotency-key".to_owned())),
            json: None,
            query: None,
            value: Some(UpstreamKeyWord::Passthrough),
            window: Some(Span(OWN_WINDOW)),
            bytes_max: None,
        });
    }
    // How many webhooks of an event are pending is another number each time it is sent.
    if *scheme == Scheme::Stripe && policy.fingerprint.is_none() {
        let ignore = Some(vec!["/pending_webhooks".to_owned()]);
        let print = FingerprintFile { body: None, query: None, headers: None, ignore };
        policy.fingerprint = Some(print);
    }
    let name = route_of(name);
    let mut laid = among.profiles.lay(&name, &file, &wrong)?;
    let mut settings = std::mem::take(&mut laid.settings);
    for setting in settings.iter_mut().filter(|setting| setting.from == "route") {
        "source".clone_into(&mut setting.from);
    }
    Ok((build_route(&name, &file, laid, among.segment_bytes, among.source)?, settings))
}

fn scheme(file: &VerifyFile, wrong: &Wrong<'_>) -> Result<Scheme, ConfigError> {
    let own = [
        ("header", file.header.is_some()),
        ("prefix", file.prefix.is_some()),
        ("algorithm", file.algorithm.is_some()),
        ("encoding", file.encoding.is_some()),
        ("secret_encoding", file.secret_encoding.is_some()),
        ("timestamp", file.timestamp.is_some()),
        ("signed", file.signed.is_some()),
    ];
    let is_said = own.iter().find(|(_, is_said)| *is_said);
    if let Some((key, _)) = is_said.filter(|_| file.scheme != SchemeWord::Hmac) {
        return Err(wrong(&format!(
            "has verify.{key}, which its scheme knows by itself\nhelp: take it out, or say scheme = \"hmac\""
        )));
    }
    match file.scheme.whole() {
        Some(scheme) => Ok(scheme),
        None => Ok(Scheme::Hmac(Box::new(hmac(file, wrong)?))),
    }
}

fn hmac(file: &VerifyFile, wrong: &Wrong<'_>) -> Result<HmacRule, ConfigError> {
    let header = file.header.as_ref().ok_or_else(|| {
        wrong("verifies an hmac and names no header\nhelp: add header = \"X-Signature\" to verify")
    })?;
    let timestamp = file.timestamp.as_ref().map(|name| name.0.clone());
    let usual = if timestamp.is_some() { "{timestamp}.{body}" } else { "{body}" };
    let signed = Template::read(file.signed.as_deref().unwrap_or(usual))
        .map_err(|why| wrong(&format!("has a verify.signed that cannot be read: {why}")))?;
    if signed.has_timestamp() != timestamp.is_some() {
        return Err(wrong(
            "says a timestamp in one of verify.timestamp and verify.signed\nhelp: what is not signed proves nothing: timestamp = \"X-Timestamp\", signed = \"{timestamp}.{body}\"",
        ));
    }
    Ok(HmacRule {
        header: header.0.clone(),
        prefix: file.prefix.clone().unwrap_or_default(),
        algorithm: match file.algorithm {
            Some(AlgorithmWord::Sha1) => Algorithm::Sha1,
            Some(AlgorithmWord::Sha512) => Algorithm::Sha512,
            Some(AlgorithmWord::Sha256) | None => Algorithm::Sha256,
        },
        encoding: match file.encoding {
            Some(EncodingWord::Base64) => Encoding::Base64,
            Some(EncodingWord::Hex) | None => Encoding::Hex,
        },
        secret: match file.secret_encoding {
            Some(SecretEncodingWord::Base64) => Some(Encoding::Base64),
            Some(SecretEncodingWord::Hex) => Some(Encoding::Hex),
            Some(SecretEncodingWord::Text) | None => None,
        },
        timestamp,
        signed,
    })
}

fn verifier(file: &VerifyFile, scheme: Scheme, wrong: &Wrong<'_>) -> Result<Verifier, ConfigError> {
    let given = file.secret.iter().chain(&file.secrets.0);
    let secrets: Vec<&str> = given.map(|secret| secret.0.as_str()).collect();
    if scheme == Scheme::None && !secrets.is_empty() {
        return Err(wrong(
            "has a secret, and verifies nothing\nhelp: say a scheme that signs, such as scheme = \"hmac\"",
        ));
    }
    let tolerance = file.tolerance.map_or(TOLERANCE, |span| span.0);
    let name = scheme.name();
    Verifier::new(scheme, &secrets, tolerance).map_err(|(place, why)| match why {
        NotASecret::None => wrong(&format!(
            "verifies {name} and has no secret\nhelp: verify = {{ scheme = \"{name}\", secret = \"${{WEBHOOK_SECRET}}\" }}"
        )),
        NotASecret::TooMany => wrong(&format!("has too many secrets: {why}")),
        NotASecret::Empty | NotASecret::Form(_) => wrong(&format!(
            "has a secret that cannot be used, number {} of {}: {why}\nhelp: the provider's console shows it where the webhook is set up",
            place + 1,
            secrets.len()
        )),
    })
}

fn place(what: &str, file: &PlaceFile, wrong: &Wrong<'_>) -> Result<Place, ConfigError> {
    let header = file.header.as_ref().map(|name| Place::Header(name.0.clone()));
    let json = file.json.as_ref().map(|pointer| Place::Json(pointer.0.clone()));
    let form = file.form.as_ref().map(|field| Place::Form(field.clone()));
    let mut places = [header, json, form].into_iter().flatten();
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place),
        _ => Err(wrong(&format!(
            "has a {what} in no place, or in two\nhelp: say one of header, json and form"
        ))),
    }
}

fn ids(
    file: Option<&IdWord>,
    scheme: &Scheme,
    is_delivered: bool,
    wrong: &Wrong<'_>,
) -> Result<Ids, ConfigError> {
    let places = match file {
        Some(IdWord::Content(ContentWord::Content)) => Vec::new(),
        Some(IdWord::At(at)) => vec![vec![place("id", at, wrong)?]],
        None => scheme.ids(),
    };
    // Every webhook of such a scheme would be another one, or the same one for ever.
    if file.is_none() && places.is_empty() && is_delivered {
        return Err(wrong(
            "does not say where its webhooks have their id\nhelp: add id = { header = \"X-Id\" } or { json = \"/id\" }, or id = \"content\" where equal content is one event",
        ));
    }
    Ok(Ids { places })
}

fn handshake(file: &HandshakeFile, wrong: &Wrong<'_>) -> Result<Handshake, ConfigError> {
    if file.echo.is_empty() || file.echo.len() > ECHO_BYTES_MAX {
        return Err(wrong(
            "has a handshake without an echo\nhelp: say which parameter: echo = \"hub.challenge\"",
        ));
    }
    let token = file.token.as_ref().map(|token| (token.query.clone(), token.value.0.clone()));
    if token.as_ref().is_some_and(|(_, value)| value.is_empty()) {
        return Err(wrong("has an empty handshake.token"));
    }
    Ok(Handshake { echo: file.echo.clone(), token })
}

fn resolve(
    file: &ResolveFile,
    is_route: &dyn Fn(&str) -> bool,
    wrong: &Wrong<'_>,
) -> Result<Resolve, ConfigError> {
    if !is_route(&file.route.0) {
        return Err(wrong(&format!(
            "resolves operations of a route {:?} that is not there\nhelp: add [routes.{}]",
            file.route.0, file.route.0
        )));
    }
    let condition = |name: &str, source: &Option<Json>| {
        let read = |source: &Json| {
            Condition::read(source)
                .map_err(|why| wrong(&format!("has a resolve.{name} that cannot be read: {why}")))
        };
        source.as_ref().map(read).transpose()
    };
    let (named, made) = match (&file.key, &file.id) {
        (Some(key), None) => (place("resolve.key", key, wrong)?, None),
        (None, Some(made)) => (Place::Json(made.json.0.clone()), Some(made.name.clone())),
        _ => {
            return Err(wrong(
                "resolves, and does not say by what\nhelp: key = { json = \"/request/idempotency_key\" }, or id = { name = \"charge\", json = \"/data/object/id\" }",
            ));
        }
    };
    if file.found.is_none() && file.failed.is_none() && file.absent.is_none() {
        return Err(wrong(
            "resolves, and says neither found, failed nor absent\nhelp: found = { json = { \"/type\" = \"charge.succeeded\" } }",
        ));
    }
    if file.status.is_some_and(|status| !(200..400).contains(&status)) {
        return Err(wrong("has a resolve.status that is none of a success: 200 to 399"));
    }
    Ok(Resolve {
        route: file.route.0.clone(),
        named,
        made,
        found: condition("found", &file.found)?,
        failed: condition("failed", &file.failed)?,
        absent: condition("absent", &file.absent)?,
        status: file.status,
    })
}

fn answer(file: &AnswerFile, wrong: &Wrong<'_>) -> Result<Answer, ConfigError> {
    let status = file.status.unwrap_or(200);
    if !(200..300).contains(&status) {
        return Err(wrong(
            "answers with a status that is no success\nhelp: a provider sends it again, or stops: say 200, 202 or 204",
        ));
    }
    let body = file.body.clone().unwrap_or_default();
    if status == 204 && !body.is_empty() {
        return Err(wrong("answers 204 with a body"));
    }
    let kind = file.content_type.clone().unwrap_or_else(|| "text/plain; charset=utf-8".to_owned());
    let kind = kind
        .parse()
        .map_err(|_| wrong("has an answer.content_type that cannot stand in a header"))?;
    Ok(Answer { status, body: body.into(), content_type: kind })
}

/// What `check` says of a source.
pub(super) fn shown(sources: &BTreeMap<String, Arc<Source>>) -> Vec<Json> {
    sources.values().map(|source| source.described()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    fn source(lines: &str) -> String {
        format!(
            "[routes.r]\nupstream = \"https://r.example\"\neffects = \"keyed\"\n[sources.a]\n{lines}"
        )
    }

    #[test]
    fn a_preset_is_enough() {
        let config = load(&source(
            "verify = { scheme = \"github\", secret = \"s\" }\ndeliver = \"http://127.0.0.1:3000/hooks/github?a=1\"",
        ))
        .unwrap();
        let built = &config.sources["a"];
        assert_eq!(
            (built.route.as_deref(), built.target.as_str()),
            (Some("source/a"), "/hooks/github?a=1")
        );
        assert_eq!(built.scope, "source/a");
        let route = &config.routes["source/a"];
        assert_eq!(route.target.base.as_str(), "http://127.0.0.1:3000/");
        assert_eq!(route.policy.effects, Some(onceward::core::policy::Effects::Keyed));
        assert!(route.policy.upstream_key.window.mul_f64(0.8) > route.policy.accepted.horizon);
        assert_eq!(route.policy.mode, onceward::core::policy::Mode::Accepted);
        assert!(!config.warnings().iter().any(|warning| warning.contains("sources.a")));
    }

    #[test]
    fn what_the_page_about_sources_shows_is_read() {
        let page = include_str!("../../../../docs/sources.md");
        let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut read = 0;
        for block in blocks {
            let text = |name: &str| Some(name.to_owned());
            let block = super::super::interpolate(block, "page", None, text).unwrap();
            let frame = if block.contains("[sources.") {
                ""
            } else {
                "[sources.a]\nverify = { scheme = \"github\", secret = \"s\" }\ndeliver = \"http://x\"\n"
            };
            let routes =
                "[routes.app]\nupstream = \"http://a\"\n[routes.stripe]\nupstream = \"http://b\"\n";
            let loaded = load(&format!("{routes}{frame}{block}"));
            assert!(loaded.is_ok(), "{block}\n{:?}", loaded.err());
            read += 1;
        }
        assert_eq!(read, 5);
    }

    #[test]
    fn a_source_takes_the_policy_of_a_route_and_shares_a_scope() {
        let config = load(&source(
            "verify = { scheme = \"stripe\", secrets = [\"new\", \"old\"] }\ndeliver = \"https://app.example/h\"\nscope = \"orders\"\nwindow = \"9d\"\neffects = \"idempotent\"\nconcurrency_max = 3\nbody_bytes_max = \"2MiB\"",
        ))
        .unwrap();
        let (built, route) = (&config.sources["a"], &config.routes["source/a"]);
        assert_eq!((built.scope.as_str(), built.verifier.secrets()), ("scope/orders", 2));
        assert_eq!(route.policy.window, Duration::from_hours(9 * 24));
        assert_eq!((route.protection.slots_max, built.body_bytes_max), (3, 2 << 20));
        assert_eq!(route.policy.fingerprint.ignore, ["/pending_webhooks"]);
        let through = load(&source(
            "verify = { scheme = \"svix\", secret = \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\" }\nto = \"r\"\npath = \"/hooks\"",
        ))
        .unwrap();
        let built = &through.sources["a"];
        assert_eq!((built.route.as_deref(), built.scope.as_str()), (Some("r"), "source/a"));
        assert!(!through.routes.contains_key("source/a"));
    }

    #[test]
    fn what_is_wrong_with_a_source_is_said_with_its_mend_and_without_its_secret() {
        const TO: &str = "deliver = \"http://x\"\n";
        for (text, what) in [
            (TO.to_owned(), "missing field `verify`"),
            ("verify = { scheme = \"github\", secret = \"canary\" }".to_owned(), "deliver = "),
            (format!("{TO}verify = {{ scheme = \"github\" }}"), "secret = \"${WEBHOOK_SECRET}\""),
            (format!("{TO}verify = {{ scheme = \"github\", secret = \"\" }}"), "number 1 of 1"),
            (format!("{TO}verify = {{ scheme = \"svix\", secret = \"canary\" }}"), "whsec_"),
            (format!("{TO}verify = {{ scheme = \"gitub\", secret = \"canary\" }}"), "github"),
            (format!("{TO}verify = {{ scheme = \"hmac\", secret = \"canary\" }}"), "X-Signature"),
            (
                format!("{TO}verify = {{ scheme = \"hmac\", header = \"x\", secret = \"canary\" }}"),
                "id = \"content\"",
            ),
            (
                format!("{TO}verify = {{ scheme = \"hmac\", header = \"x\", timestamp = \"y\", signed = \"{{body}}\", secret = \"canary\" }}"),
                "{timestamp}.{body}",
            ),
            (
                format!("{TO}to = \"r\"\nverify = {{ scheme = \"github\", secret = \"canary\" }}"),
                "both",
            ),
            (
                "to = \"q\"\nverify = { scheme = \"github\", secret = \"canary\" }".to_owned(),
                "[routes.q]",
            ),
            (
                "to = \"r\"\nwindow = \"1d\"\nverify = { scheme = \"github\", secret = \"canary\" }".to_owned(),
                "[routes.r]",
            ),
            (
                format!("{TO}sequence = {{ json = \"/n\" }}\nverify = {{ scheme = \"github\", secret = \"canary\" }}"),
                "subject",
            ),
            (
                format!("{TO}wnidow = \"1d\"\nverify = {{ scheme = \"github\", secret = \"canary\" }}"),
                "wnidow",
            ),
            (
                format!("{TO}answer = {{ status = 302 }}\nverify = {{ scheme = \"github\", secret = \"canary\" }}"),
                "204",
            ),
            (
                format!("{TO}resolve = {{ route = \"r\", key = {{ json = \"/k\" }} }}\nverify = {{ scheme = \"github\", secret = \"canary\" }}"),
                "found = ",
            ),
            (
                format!("{TO}resolve = {{ route = \"r\", key = {{ json = \"/k\" }}, found = {{ json = {{ \"/t\" = \"x\" }} }} }}\nverify = {{ scheme = \"none\" }}"),
                "anybody could end a doubt",
            ),
            (format!("{TO}verify = {{ scheme = \"github\", secret = [\"canary\"] }}"), "is text"),
            (format!("{TO}verify = {{ scheme = \"github\", secrets = \"canary\" }}"), "a list"),
            (
                format!("{TO}verify = {{ scheme = \"github\", secret = \"canary\", tolernce = \"1s\" }}"),
                "tolernce",
            ),
            (
                format!("{TO}verify = {{ scheme = \"github\", secret = \"s\" }}\nhandshake = {{ echo = \"c\", token = {{ query = \"t\", valu = \"canary\" }} }}"),
                "valu",
            ),
            (
                format!("{TO}methods = [\"GET\"]\nverify = {{ scheme = \"github\", secret = \"canary\" }}"),
                "PATCH",
            ),
        ] {
            let refused = load(&source(&text)).unwrap_err();
            assert!(refused.contains(what), "{text}\n{refused}");
assert!(!refused.contains("canary"), "{refused}");
        }
    }
}
