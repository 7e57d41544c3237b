//! Subscriptions over the API: made, changed, paused, given another secret, tried and recovered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use onceward::core::event::{Event, Filter, TypePattern};
use onceward::core::exchange::Headers;
use onceward::{Destination, SignatureNames, Subscription, Wish};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::access::{Perhaps, by};
use super::bulk;
use super::events::{data, no_event, tried};
use super::filter::moment;
use super::handler::{Act, Answer, Asked, Because, Said, given, id_of, invalid, limit_of};
use crate::access::{Caller, is_tenant};
use crate::node::Node;
use crate::operator::reasoned;
use crate::problem::Problem;
use crate::view::View;
use crate::{shape, units};

/// How long a secret that was rotated signs on, where nothing says.
const OVERLAP: Duration = Duration::from_hours(24);

/// The most of each in a subscription: every event is held against the first, and every attempt carries
/// the second.
const TYPES_MAX: usize = 64;
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 4096;
const DELAYS_MAX: usize = 50;
const DELAY_MAX: Duration = Duration::from_hours(24 * 7);
const DESCRIPTION_BYTES_MAX: usize = 255;

/// The type of an event that only tries a subscription.
const TEST_TYPE: &str = "onceward.test";

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/subscriptions", get(list).post(create))
        .route("/v1/subscriptions/{sub}", get(show).post(change).delete(end))
        .route("/v1/subscriptions/{sub}/pause", post(pause))
        .route("/v1/subscriptions/{sub}/resume", post(resume))
        .route("/v1/subscriptions/{sub}/rotate", post(rotate))
        .route("/v1/subscriptions/{sub}/test", post(test))
        .route("/v1/subscriptions/{sub}/recover", post(recover))
}

/// What is wanted of one; of a change, what is said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Where it goes: a URL, or `to` a route.
    url: Option<String>,
    /// `route/path`.
    to: Option<String>,
    types: Option<Vec<String>>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "said")]
    filter: Option<Value>,
    headers: Option<BTreeMap<String, String>>,
    /// Delays between one attempt and the next.
    retry: Option<Vec<String>>,
    /// `standard` or `svix`.
    signature: Option<String>,
    enabled: Option<bool>,
    description: Option<String>,
    /// One to go on with, of a new one: `whsec_…`.
    secret: Option<String>,
    /// Whose, of a new one.
    tenant: Option<String>,
    #[serde(default)]
    reason: String,
}

/// What is said, null too.
fn said<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(given).map(Some)
}

impl Wanted {
    /// Where it goes, where that is said.
    fn destination(&self, node: &View, tenant: &str) -> Result<Option<Destination>, Problem> {
        match (&self.url, &self.to) {
            (None, None) => Ok(None),
            (Some(url), None) => Ok(Some(Destination::Url(node.gateway.admitted(url)?))),
            (None, Some(to)) => {
                let (name, path) = to.split_once('/').unwrap_or((to, ""));
                let route = node.engine.find_route_for(tenant, name)?;
                if route.target.mail.is_some() {
                    return Err(invalid(format!(
                        "to: {name:?} leads to a mail server, and an event is no mail"
                    )));
                }
                let target = format!("/{path}");
                crate::gateway::check_sendable(&http::Method::POST, &target)?;
                Ok(Some(Destination::Route { name: name.to_owned(), target }))
            }
            (Some(_), Some(_)) => Err(invalid("say url or to, not both")),
        }
    }

    /// The parts of what is said, read.
    fn parts(&self) -> Result<Parts, Problem> {
        let few = |is_fine: bool, why: &str| if is_fine { Ok(()) } else { Err(invalid(why)) };
        let types = self.types.as_ref().map(|types| {
            few(types.len() <= TYPES_MAX, &format!("types: at most {TYPES_MAX}"))?;
            let read = |text: &String| TypePattern::new(text).map_err(|why| no_event(&why));
            types.iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        let filter =
            self.filter.as_ref().filter(|said| !said.is_null()).map(|source| {
                Filter::read(source).map_err(|why| invalid(format!("filter: {why}")))
            });
        let delays = self.retry.as_ref().map(|delays| {
            few(delays.len() <= DELAYS_MAX, &format!("retry: at most {DELAYS_MAX} delays"))?;
            let read = |text: &String| {
                let delay =
                    units::duration(text).map_err(|why| invalid(format!("retry: {why}")))?;
                few(delay <= DELAY_MAX, "retry: no delay is longer than 7d")?;
                Ok(delay)
            };
            delays.iter().map(read).collect::<Result<Vec<_>, Problem>>()
        });
        let names = self.signature.as_ref().map(|word| {
            let named = SignatureNames::ALL.into_iter().find(|names| names.name() == word);
            named.ok_or_else(|| invalid("signature: `standard` or `svix`"))
        });
        if let Some(description) = &self.description {
            let is_short = description.len() <= DESCRIPTION_BYTES_MAX;
            few(is_short, &format!("description: at most {DESCRIPTION_BYTES_MAX} bytes"))?;
        }
        Ok(Parts {
            types: types.transpose()?,
            filter: filter.transpose()?,
            is_unfiltered: self.filter.as_ref().is_some_and(Value::is_null),
            headers: self.headers.as_ref().map(headers).transpose()?,
            delays: delays.transpose()?,
            names: names.transpose()?,
            is_enabled: self.enabled,
            description: self.description.clone(),
        })
    }
}

/// What is said of a subscription, read.
#[derive(Debug, Clone)]
struct Parts {
    types: Option<Vec<TypePattern>>,
    filter: Option<Filter>,
    /// Whether its filter is taken away.
    is_unfiltered: bool,
    headers: Option<Headers>,
    delays: Option<Vec<Duration>>,
    names: Option<SignatureNames>,
    is_enabled: Option<bool>,
    description: Option<String>,
}

impl Parts {
    /// Lays what is said over what was wanted.
    fn lay_over(&self, wish: &mut Wish) {
        let Self { types, filter, is_unfiltered, headers, delays, names, is_enabled, description } =
            self.clone();
        let selection = &mut wish.selection;
        if let Some(types) = types {
            selection.types = types;
        }
        if filter.is_some() || is_unfiltered {
            selection.filter = filter;
        }
        if let Some(headers) = headers {
            wish.headers = headers;
        }
        if let Some(delays) = delays {
            wish.delays = delays;
        }
        if let Some(description) = description {
            wish.description = description;
        }
        wish.names = names.unwrap_or(wish.names);
        wish.is_enabled = is_enabled.unwrap_or(wish.is_enabled);
    }
}

/// Headers of deliveries: what says what a delivery is, and what belongs to a connection, is ours to say.
fn headers(said: &BTreeMap<String, String>) -> Result<Headers, Problem> {
    const OURS: &[&str] = &[
        "accept-encoding",
        "baggage",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if said.len() > HEADERS_MAX {
        return Err(invalid(format!("headers: at most {HEADERS_MAX}")));
    }
    let mut headers = Headers::default();
    for (name, value) in said {
        let name: HeaderName =
            name.parse().map_err(|_| invalid(format!("headers: {name:?} is no header name")))?;
        let begins = |beginning: &&str| name.as_str().starts_with(*beginning);
        let is_ours = OURS.contains(&name.as_str())
            || ["webhook-", "svix-", "onceward-", "trace"].iter().any(begins);
        if is_ours {
            return Err(invalid(format!("headers: {name} is not for a subscription to say")));
        }
        let fits = value.len() <= HEADER_BYTES_MAX && HeaderValue::from_str(value).is_ok();
        if !fits {
            return Err(invalid(format!(
                "headers: the value of {name} cannot stand in a header, or is longer than {HEADER_BYTES_MAX} bytes"
            )));
        }
        headers.set(name.as_str(), Bytes::from(value.clone()));
    }
    Ok(headers)
}

/// A secret as Standard Webhooks write it.
fn secret_of(text: &str) -> Result<Vec<u8>, Problem> {
    let wrong = || invalid("secret: `whsec_` and the base64 of 24 to 64 bytes");
    let secret = STANDARD.decode(text.strip_prefix("whsec_").ok_or_else(wrong)?);
    secret.ok().filter(|secret| (24..=64).contains(&secret.len())).ok_or_else(wrong)
}

/// The secret that signs first, as it is shown once.
fn shown_secret(subscription: &Subscription) -> Option<String> {
    let newest = subscription.signing.first()?;
    Some(format!("whsec_{}", STANDARD.encode(&newest.secret)))
}

/// How subscriptions may be.
pub(crate) const STATES: [&str; 4] = ["active", "failing", "paused", "disabled"];

/// How a subscription is.
pub(crate) fn state_of(node: &Node, subscription: &Subscription) -> &'static str {
    let is_paused = node.engine.paused().contains_key(&subscription.route_name());
    match (is_paused, subscription.wish.is_enabled, subscription.failing_since) {
        (_, false, _) => "disabled",
        (true, true, _) => "paused",
        (false, true, Some(_)) => "failing",
        (false, true, None) => "active",
    }
}

/// A subscription as callers see it: of its secrets and of the values of its headers nothing is told.
pub(crate) fn shown(node: &Node, subscription: &Subscription) -> Value {
    let Subscription { wish, .. } = subscription;
    let (url, to) = match &wish.to {
        Destination::Url(url) => (Some(url.to_string()), None),
        Destination::Route { name, target } => (None, Some(format!("{name}{target}"))),
    };
    let route = subscription.route_name();
    let paused = node.engine.paused().get(&route).cloned();
    let state = state_of(node, subscription);
    json!({
        "id": subscription.name,
        "tenant": subscription.tenant,
        "state": state,
        "url": url,
        "to": to,
        "types": wish.selection.types.iter().map(TypePattern::as_str).collect::<Vec<_>>(),
        "filter": wish.selection.filter.as_ref().map(Filter::source),
        "headers": wish.headers.0.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "retry": wish.delays.iter().map(|delay| units::show(*delay)).collect::<Vec<_>>(),
        "signature": wish.names.name(),
        "enabled": wish.is_enabled,
        "description": wish.description,
        "route": route,
        "version": subscription.version,
        "created_at": shape::time(subscription.created_at),
        "changed_at": shape::time(subscription.changed_at),
        "failing_since": subscription.failing_since.map(shape::time),
        "paused": paused.map(|pause| json!({
            "at": shape::time(pause.at), "who": pause.who, "reason": pause.reason,
        })),
        "secrets": subscription.signing.iter().map(|signing| json!({
            "until": signing.until.map(shape::time),
        })).collect::<Vec<_>>(),
    })
}

/// Which part of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// The name of the last one of the page before.
    cursor: Option<String>,
    limit: Option<usize>,
    /// Read by whoever looks at the ledger.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
}

async fn list(node: View, Asked(which): Asked<Which>) -> Answer {
    let limit = limit_of(which.limit)?;
    let behind = given(which.cursor.as_ref()).unwrap_or_default();
    let subscriptions = node.subscriptions().await?;
    // The oldest first: a name begins with its time.
    let mut rest = subscriptions.iter().filter(|it| it.name.as_str() > behind);
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let last = page.last().map(|last| last.name.clone());
    let next = last.filter(|_| rest.next().is_some());
    let data: Vec<_> = page.into_iter().map(|it| shown(&node, it)).collect();
    Ok(Json(json!({"data": data, "next": next})))
}

async fn show(node: View, Path(name): Path<String>) -> Answer {
    Ok(Json(shown(&node, &node.subscription(&name).await?)))
}

async fn create(
    node: View,
    Extension(caller): Extension<Caller>,
    Said(mut wanted): Said<Wanted>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let person = by(&caller, std::mem::take(&mut wanted.reason))?;
    let tenant = node.tenant_or(wanted.tenant.take())?;
    if !is_tenant(&tenant) {
        return Err(invalid(format!("tenant {tenant:?} is no name")));
    }
    let to = wanted.destination(&node, &tenant)?.ok_or_else(|| {
        invalid("say where the events go: url, or to with a route and a path of it")
    })?;
    let secret = wanted.secret.as_deref().map(secret_of).transpose()?;
    let mut wish = Wish::new(to);
    wanted.parts()?.lay_over(&mut wish);
    let made = node.engine.subscribe(&tenant, wish, secret, &person).await?;
    let mut document = shown(&node, &made);
    document["secret"] = json!(shown_secret(&made));
    Ok((StatusCode::CREATED, Json(document)))
}

async fn change(
    node: View,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Said(mut wanted): Said<Wanted>,
) -> Answer {
    let person = by(&caller, std::mem::take(&mut wanted.reason))?;
    let before = node.subscription(&name).await?;
    if wanted.secret.is_some() || wanted.tenant.is_some() {
        return Err(invalid(
            "secret and tenant are of a new subscription: …/rotate gives one another secret",
        ));
    }
    let to = wanted.destination(&node, &before.tenant)?;
    let parts = wanted.parts()?;
    let change = move |wish: &mut Wish| {
        parts.lay_over(wish);
        if let Some(to) = &to {
            wish.to = to.clone();
        }
    };
    let changed = node.engine.change_subscription(&name, change, &person).await?;
    Ok(Json(shown(&node, &changed)))
}

async fn end(
    node: View,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    perhaps: Option<Said<Perhaps>>,
) -> Answer {
    let Perhaps { reason } = perhaps.map(|Said(said)| said).unwrap_or_default();
    let person = by(&caller, reason)?;
    node.subscription(&name).await?;
    let ended = node.engine.unsubscribe(&name, &person).await?;
    Ok(Json(json!({"ended": ended.name})))
}

async fn pause(node: View, Path(name): Path<String>, Act(person, _): Act<Because>) -> Answer {
    let found = node.subscription(&name).await?;
    node.engine.pause(&found.route_name(), &person).await?;
    Ok(Json(shown(&node, &found)))
}

async fn resume(node: View, Path(name): Path<String>, Act(person, _): Act<Because>) -> Answer {
    let found = node.subscription(&name).await?;
    if node.engine.paused().contains_key(&found.route_name()) {
        node.engine.resume(&found.route_name(), &person).await?;
    }
    Ok(Json(shown(&node, &found)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// The new one; without it one is made.
    secret: Option<String>,
    /// How long those before it sign on.
    overlap: Option<String>,
    #[serde(default)]
    reason: String,
}

async fn rotate(
    node: View,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    perhaps: Option<Said<Rotate>>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Rotate { secret, overlap, reason } = perhaps.map(|Said(said)| said).unwrap_or_default();
    let person = by(&caller, reason)?;
    node.subscription(&name).await?;
    let overlap = overlap.as_deref().map_or(Ok(OVERLAP), units::duration);
    let overlap = overlap.map_err(|why| invalid(format!("overlap: {why}")))?;
    let secret = secret.as_deref().map(secret_of).transpose()?;
    let rotated = node.engine.rotate_signing(&name, secret, overlap, &person).await?;
    let mut document = shown(&node, &rotated);
    document["secret"] = json!(shown_secret(&rotated));
    Ok((StatusCode::CREATED, Json(document)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    r#type: Option<String>,
    #[serde(default, deserialize_with = "data")]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    reason: String,
}

async fn test(
    node: View,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    perhaps: Option<Said<Test>>,
) -> Result<(StatusCode, HeaderMap, Json<Value>), Problem> {
    let Test { r#type, data, reason } = perhaps.map(|Said(said)| said).unwrap_or_default();
    let person = by(&caller, reason)?;
    let found = node.subscription(&name).await?;
    let kind = r#type.as_deref().unwrap_or(TEST_TYPE);
    let event = Event::own(kind, None, None, data.as_deref()).map_err(|why| no_event(&why))?;
    let principal = caller.within(found.tenant.clone()).principal;
    tried(&node, &found, event, principal, &person).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recover {
    /// `failed` or `missed`.
    what: String,
    /// A time, or how long ago.
    since: String,
    /// Of what was missed: where to go on.
    cursor: Option<String>,
    reason: String,
}

reasoned!(Recover);

async fn recover(
    node: View,
    Path(name): Path<String>,
    Act(person, said): Act<Recover>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let found = node.subscription(&name).await?;
    node.check_released("Nothing was done; release the ledger first.")?;
    let since = moment(&said.since)?;
    match said.what.as_str() {
        "failed" => {
            let bulk = node.engine.recover_failed(&found.name, since, &person).await?;
            let document = json!({"bulk": bulk::shown(&bulk), "missed": null});
            Ok((StatusCode::ACCEPTED, Json(document)))
        }
        "missed" => {
            let before = said.cursor.as_deref().map(id_of).transpose()?;
            let missed = node.engine.recover_missed(&found.name, since, before, &person).await?;
            let missed = json!({
                "looked_at": missed.looked_at,
                "born": missed.born,
                "next": missed.next.map(|next| next.to_string()),
            });
            Ok((StatusCode::OK, Json(json!({"bulk": null, "missed": missed}))))
        }
        _ => Err(invalid("what: `failed` or `missed`")),
    }
}
