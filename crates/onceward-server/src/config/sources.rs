//! Sources: where webhooks come in, as the file says it. A source with a `deliver` of its own has a
//! route of its own too, called `source/NAME`; with `to` it goes through one that is there.

use http::Method;
use onceward::core::event::TypePattern;
use onceward::core::key::TENANT;
use onceward::webhook::{Place, Scheme};
use url::Url;

use super::route::{Around, Made};
use super::table::{Table, Words};
use super::words::{header_name, name as route_name, pointer, shared_scope, tenant_name, url};
use super::{ConfigError, doubt, text, verify};
use crate::source::{Answer, Handshake, Ids, Resolve, Source};

/// Rejected webhooks that are kept of a source, where nothing says, and at most.
const REJECTS: usize = 50;
const REJECTS_MAX: usize = 1000;

/// The longest name of a parameter.
const ECHO_BYTES_MAX: usize = 200;

/// A webhook's body, where nothing says otherwise.
const BODY_BYTES: usize = 1 << 20;

const METHODS: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// An id that is no place.
const IDS: &Words<()> = &[("content", ())];

/// What a route of a source's own says where the source does not: a webhook is always accepted, and
/// one's own code is taken to remember a `webhook-id` for so long that all attempts fit.
const OWN: &str = "mode = \"accepted\"";
const KEYED: &str = "effects = \"keyed\"\nupstream_key = { header = \"idempotency-key\", value = \"passthrough\", window = \"7d\" }";

/// How many webhooks of an event are pending is another number each time it is sent.
const OWN_OF_STRIPE: &str = "fingerprint = { ignore = [\"/pending_webhooks\"] }";

/// The name of a source's own route.
fn route_of(name: &str) -> String {
    format!("source/{name}")
}

impl Source {
    /// By which way its operations come.
    pub(crate) fn via(&self) -> String {
        route_of(&self.name)
    }
}

/// Reads a source, and makes the route of its own where it has one.
pub(super) fn read(
    name: &str,
    table: &Table<'_>,
    around: &Around<'_>,
) -> Result<(Source, Option<Made>), ConfigError> {
    let verifier = table.within("verify", verify::verifier)?;
    let verifier = table.need("verify", verifier)?;
    let deliver = table.text("deliver", deliver)?;
    let tenant = table.text("tenant", tenant_name)?.unwrap_or_else(|| TENANT.to_owned());
    let to = table.text("to", route_name)?;
    let path = table.read::<String>("path")?;
    let resolve = table.within("resolve", |table| resolve(table, around))?;
    let subject = table.within("subject", place)?;
    let sequence = table.within("sequence", place)?;
    let types = table.texts("types", TypePattern::new)?.unwrap_or_default();
    let rejects_max = table.or("rejects_max", REJECTS)?;
    let handshake = table.within("handshake", handshake)?;
    let answer = table.within("answer", answer)?.unwrap_or_default();
    let methods = table.texts("methods", method)?.unwrap_or_else(|| vec![Method::POST]);
    let url = table.text("url", url)?;
    let scope = table.text("scope", shared_scope)?.unwrap_or_else(|| route_of(name));
    // A body has to fit a segment of the journal, with its operation beside it.
    let body_bytes_max = table.size("body_bytes_max")?.unwrap_or(BODY_BYTES);
    let id = id(table)?;
    let (own, route, target) = match (&deliver, &to) {
        (Some(_), Some(_)) => {
            return Err(table.wrong(
                "has both a deliver and a to\nhelp: say deliver = \"http://…\", or to = \"route\" and path = \"/…\"",
            ));
        }
        (Some(url), None) => {
            let own = own_route(name, table, (url, &tenant), verifier.scheme(), around)?;
            let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
            (Some(own), Some(route_of(name)), format!("{}{query}", url.path()))
        }
        (None, Some(to)) => {
            if !around.is_route(to) {
                return Err(table.wrong(&format!(
                    "goes to a route {to:?} that is not there\nhelp: add [routes.{to}], or say deliver = \"http://…\""
                )));
            }
            refuse_policy(to, table, around)?;
            (None, Some(to.clone()), path.clone().unwrap_or_else(|| "/".to_owned()))
        }
        (None, None) if resolve.is_some() => (None, None, "/".to_owned()),
        (None, None) => {
            return Err(table.wrong(
                "goes nowhere\nhelp: add deliver = \"http://127.0.0.1:3000/hooks\", or to = \"route\"",
            ));
        }
    };
    if !target.starts_with('/') {
        return Err(table.wrong(&format!("has a path {target:?}\nhelp: it begins with a slash")));
    }
    if path.is_some() && to.is_none() {
        return Err(
            table.wrong("has a path without a to\nhelp: the path of deliver stands in its URL")
        );
    }
    if resolve.is_some() && *verifier.scheme() == Scheme::None {
        return Err(table.wrong(
            "verifies nothing, and resolves: anybody could end a doubt\nhelp: say how it is signed in verify, or leave out resolve",
        ));
    }
    if sequence.is_some() && subject.is_none() {
        return Err(table.wrong(
            "has a sequence and no subject\nhelp: say what it counts: subject = { json = \"/data/object/id\" }",
        ));
    }
    let has_types = !matches!(verifier.scheme(), Scheme::Twilio | Scheme::Hmac(_) | Scheme::None);
    if !types.is_empty() && !has_types {
        return Err(table.wrong(&format!(
            "has types, and where {} has the type of an event is not known\nhelp: take types out; your code gets all of them",
            verifier.scheme().name()
        )));
    }
    if rejects_max > REJECTS_MAX {
        return Err(
            table.wrong(&format!("keeps {rejects_max} rejects\nhelp: at most {REJECTS_MAX}"))
        );
    }
    let places = id.unwrap_or_else(|| verifier.scheme().ids());
    // Every webhook of such a scheme would be another one, or the same one for ever.
    if places.is_empty() && !table.has("id") && route.is_some() {
        return Err(table.wrong(
            "does not say where its webhooks have their id\nhelp: add id = { header = \"X-Id\" } or { json = \"/id\" }, or id = \"content\" where equal content is one event",
        ));
    }
    let source = Source {
        name: name.to_owned(),
        tenant,
        ids: Ids { places },
        handshake,
        resolve,
        answer,
        scope,
        methods,
        url: url.map(|url| url.as_str().trim_end_matches('/').to_owned()),
        verifier,
        route,
        target,
        subject,
        sequence,
        types,
        body_bytes_max: body_bytes_max.min(around.segment_bytes / 2),
        rejects_max,
    };
    Ok((source, own))
}

/// Where to: an http or https URL, its path and query too.
fn deliver(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| {
        let is_plain = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain
    });
    url.filter(|url| url.fragment().is_none()).ok_or(
        "deliver is no http or https URL without credentials: write \"http://127.0.0.1:3000/hooks\"",
    )
}

fn method(text: &str) -> Result<Method, String> {
    METHODS
        .into_iter()
        .find(|method| method.as_str() == text)
        .ok_or_else(|| format!("{text:?} is no method of webhooks: POST, PUT, PATCH or DELETE"))
}

/// The route that goes to `deliver`: keyed where nothing says otherwise, and always accepted.
fn own_route(
    name: &str,
    table: &Table<'_>,
    (deliver, tenant): (&Url, &str),
    scheme: &Scheme,
    around: &Around<'_>,
) -> Result<Made, ConfigError> {
    for (key, what, mend) in [
        ("key", "a key", "a webhook's key is id = { json = \"/id\" }"),
        ("mode", "a mode", "a webhook is always accepted: its provider waits for nothing"),
    ] {
        if table.has(key) {
            return Err(table.wrong(&format!("has {what}\nhelp: {mend}")));
        }
    }
    let mut usual = vec![OWN];
    if !table.has("effects") && !table.has("profile") {
        usual.push(KEYED);
    }
    if *scheme == Scheme::Stripe {
        usual.push(OWN_OF_STRIPE);
    }
    around.own("source", name, table, (deliver, tenant), &usual)
}

/// A source that goes through a route has no policy of its own.
fn refuse_policy(to: &str, table: &Table<'_>, around: &Around<'_>) -> Result<(), ConfigError> {
    let mut keys = table.rest(&[]);
    let Some(key) = keys.keys().next().map(|key| key.get_ref().to_string()) else { return Ok(()) };
    // What is no key of a route either is unknown.
    text::add_text(&mut keys, "upstream", "http://own.invalid");
    let own = table.with(&keys);
    around.route(&route_of(to), &own, false)?;
    own.done()?;
    Err(table.wrong(&format!(
        "says {key}, and goes through a route that has its own policy\nhelp: say it in [routes.{to}], or deliver = \"http://…\""
    )))
}

/// A part of a webhook: a header, a member of its JSON or a field of its form.
fn place(table: &Table<'_>) -> Result<Place, ConfigError> {
    let header = table.text("header", header_name)?.map(Place::Header);
    let json = table.text("json", pointer)?.map(Place::Json);
    let form = table.read("form")?.map(Place::Form);
    table.done()?;
    let mut places = [header, json, form].into_iter().flatten();
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place),
        _ => Err(table.wrong(&format!(
            "has a {} in no place, or in two\nhelp: say one of header, json and form",
            table.name()
        ))),
    }
}

/// Where ids are, where the file says so: `{ header = "X-Id" }` and the like, or `"content"`.
fn id(table: &Table<'_>) -> Result<Option<Vec<Vec<Place>>>, ConfigError> {
    if table.is_text("id") {
        return Ok(table.word("id", IDS)?.map(|()| Vec::new()));
    }
    Ok(table.within("id", place)?.map(|place| vec![vec![place]]))
}

fn handshake(table: &Table<'_>) -> Result<Handshake, ConfigError> {
    let echo = table.read::<String>("echo")?;
    let token = table.within("token", |table| {
        table.hide("value");
        let (query, value) = (table.read("query")?, table.read::<String>("value")?);
        Ok((table.need("query", query)?, table.need("value", value)?))
    })?;
    let echo = table.need("echo", echo)?;
    if echo.is_empty() || echo.len() > ECHO_BYTES_MAX {
        return Err(table.wrong(
            "has a handshake without an echo\nhelp: say which parameter: echo = \"hub.challenge\"",
        ));
    }
    if token.as_ref().is_some_and(|(_, value)| value.is_empty()) {
        return Err(table.wrong("has an empty handshake.token"));
    }
    Ok(Handshake { echo, token })
}

/// Which operations in doubt its webhooks are evidence for.
fn resolve(table: &Table<'_>, around: &Around<'_>) -> Result<Resolve, ConfigError> {
    let route = table.text("route", route_name)?;
    let key = table.within("key", place)?;
    let made = table.within("id", |table| {
        let (name, json) = (table.read("name")?, table.text("json", pointer)?);
        Ok((table.need("name", name)?, table.need("json", json)?))
    })?;
    let found = doubt::condition("found", table)?;
    let failed = doubt::condition("failed", table)?;
    let absent = doubt::condition("absent", table)?;
    let status = doubt::success_status(table)?;
    let route = table.need("route", route)?;
    if !around.is_route(&route) {
        return Err(table.wrong(&format!(
            "resolves operations of a route {route:?} that is not there\nhelp: add [routes.{route}]"
        )));
    }
    let (named, made) = match (key, made) {
        (Some(key), None) => (key, None),
        (None, Some((name, json))) => (Place::Json(json), Some(name)),
        _ => {
            return Err(table.wrong(
                "resolves, and does not say by what\nhelp: key = { json = \"/request/idempotency_key\" }, or id = { name = \"charge\", json = \"/data/object/id\" }",
            ));
        }
    };
    if found.is_none() && failed.is_none() && absent.is_none() {
        return Err(table.wrong(
            "resolves, and says neither found, failed nor absent\nhelp: found = { json = { \"/type\" = \"charge.succeeded\" } }",
        ));
    }
    Ok(Resolve { route, named, made, found, failed, absent, status })
}

fn answer(table: &Table<'_>) -> Result<Answer, ConfigError> {
    let usual = Answer::default();
    let status = table.or("status", usual.status)?;
    if !(200..300).contains(&status) {
        return Err(table.wrong(
            "answers with a status that is no success\nhelp: a provider sends it again, or stops: say 200, 202 or 204",
        ));
    }
    let body = table.or("body", String::new())?;
    if status == 204 && !body.is_empty() {
        return Err(table.wrong("answers 204 with a body"));
    }
    let content_type = table.read::<String>("content_type")?;
    let content_type = content_type.map(|kind| kind.parse()).transpose();
    let content_type = content_type
        .map_err(|_| table.wrong("has an answer.content_type that cannot stand in a header"))?;
    Ok(Answer {
        status,
        body: body.into(),
        content_type: content_type.unwrap_or(usual.content_type),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::load;

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
        assert_eq!(read, 6);
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
        assert_eq!(route.scope.as_deref(), Some("scope/orders"));
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
                format!("{TO}types = [\"order*\"]\nverify = {{ scheme = \"github\", secret = \"canary\" }}"),
                "`order.*`",
            ),
            (
                format!("{TO}types = [\"paid\"]\nid = \"content\"\nverify = {{ scheme = \"hmac\", header = \"x\", secret = \"canary\" }}"),
                "take types out",
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
