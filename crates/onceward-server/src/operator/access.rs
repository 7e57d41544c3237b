//! Access keys over the API: made, listed, rotated and revoked.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::StatusCode;
use onceward::Person;
use onceward::core::time::Timestamp;
use onceward::store::StoreError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::handler::{Answer, REASON_BYTES_MAX, Said, all, instant, invalid};
use crate::access::{self, AccessKey, Caller, Grant, LOCAL, Roles, origin_of};
use crate::contract::Contract;
use crate::node::Node;
use crate::problem::Problem;
use crate::view::View;
use crate::{shape, units};

/// How long a key that was rotated goes on, where nothing says.
const OVERLAP: Duration = Duration::from_hours(24);

/// The most routes that a key is confined to: each call looks through them.
const ROUTES_MAX: usize = 64;

/// The most origins of a key.
const ORIGINS_MAX: usize = 16;

const NAME_BYTES_MAX: usize = 64;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/access", get(list).post(create))
        .route("/v1/access/{prefix}", delete(revoke))
        .route("/v1/access/{prefix}/rotate", post(rotate))
}

async fn list(node: View) -> Json<Value> {
    let now = shape::now();
    all(node.keys().iter().map(|key| shown(key, now)))
}

fn shown(key: &AccessKey, now: Timestamp) -> Value {
    json!({
        "name": key.name,
        "tenant": key.tenant,
        "prefix": key.prefix,
        "roles": key.roles,
        "routes": key.routes,
        "origins": key.origins,
        "created_at": key.created_at,
        "contract": key.contract,
        "expires_at": key.expires_at,
        "expired": key.expires().is_some_and(|at| at <= now),
        "last_used_at": key.last_used_at.map(shape::time),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    /// Whose; without it, the tenant of whoever makes it.
    tenant: Option<String>,
    /// Without any: all.
    roles: Option<Vec<String>>,
    #[serde(default)]
    routes: Vec<String>,
    /// Of the pages that it is for: it may only send then.
    #[serde(default)]
    origins: Vec<String>,
    /// A duration from now, a day or a time.
    expires: Option<String>,
    /// The version of the contract that its answers are of.
    contract: Option<String>,
    #[serde(default)]
    reason: String,
}

impl Wanted {
    fn grant(self, tenant: String, now: Timestamp) -> Result<Grant, Problem> {
        let Self { name, roles, routes, origins, expires, contract, .. } = self;
        let fits = !name.is_empty()
            && name != LOCAL
            && name.len() <= NAME_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
        if !fits {
            return Err(invalid(format!(
                "name: letters, digits, `-`, `_`, `.` and `@`, at most {NAME_BYTES_MAX}, and not {LOCAL:?}, who needs no key: it stands in the scope of the caller's keys",
            )));
        }
        if routes.len() > ROUTES_MAX
            || routes.iter().any(|route| route.is_empty() || route.len() > 255)
        {
            return Err(invalid(format!("routes: names of routes, at most {ROUTES_MAX}")));
        }
        let all = if origins.is_empty() { Roles::ALL } else { Roles::SEND };
        let roles = roles.map_or(Ok(all), |names| roles_of(&names))?;
        let origins = origins_of(&origins, roles)?;
        let expires = expires.map(|text| expiry(&text, now)).transpose()?;
        let pin = contract.as_deref().map(Contract::named).transpose();
        pin.map_err(|why| invalid(format!("contract: {why}")))?;
        Ok(Grant { name, tenant, roles, routes, origins, expires, contract })
    }
}

fn roles_of(names: &[String]) -> Result<Roles, Problem> {
    let mut roles = Roles::NONE;
    for name in names {
        let role = Roles::named(name)
            .ok_or_else(|| invalid(format!("roles: {name:?} is none of {}", Roles::ALL.said())))?;
        roles = roles.and(role);
    }
    if roles == Roles::NONE {
        return Err(invalid(format!(
            "roles: say which of {}, or leave it out for all",
            Roles::ALL.said()
        )));
    }
    Ok(roles)
}

/// The origins of the pages that a key is for: whoever reads a page has its key.
fn origins_of(texts: &[String], roles: Roles) -> Result<Vec<String>, Problem> {
    if texts.len() > ORIGINS_MAX {
        return Err(invalid(format!("origins: at most {ORIGINS_MAX}")));
    }
    if !texts.is_empty() && roles != Roles::SEND {
        return Err(invalid(
            "roles: a key for web pages may only send, since everybody can read it there",
        ));
    }
    let read = |text: &String| origin_of(text).map_err(|why| invalid(format!("origins: {why}")));
    texts.iter().map(read).collect()
}

/// `90d` from now, `2027-01-31` as that day begins in UTC, or a time.
fn expiry(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let day = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 10);
    let at = match (units::duration(text), day) {
        (Ok(after), _) => now.plus(after),
        (_, Some(day)) => instant("expires: ", &format!("{day}T00:00:00Z"))?,
        _ => instant("expires: ", text).map_err(|_| {
            invalid(format!(
                "expires: {text:?} is neither 90d nor 2027-01-31 nor 2027-01-31T12:00:00Z"
            ))
        })?,
    };
    if at <= now {
        return Err(invalid(format!("expires: {text:?} is not to come")));
    }
    Ok(at)
}

/// Who acts, and why, where somebody says.
pub(super) fn by(caller: &Caller, reason: String) -> Result<Person, Problem> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(invalid(format!("reason: at most {REASON_BYTES_MAX} bytes")));
    }
    Ok(Person { who: caller.who(), reason })
}

/// What of a key is not as it is without a word.
fn about(grant: &Grant) -> String {
    let mut about = access::said(&grant.tenant, &grant.name);
    if grant.roles != Roles::ALL {
        about = format!("{about}, roles: {}", grant.roles.said());
    }
    if !grant.routes.is_empty() {
        about = format!("{about}, routes: {}", grant.routes.join(", "));
    }
    if !grant.origins.is_empty() {
        about = format!("{about}, origins: {}", grant.origins.join(", "));
    }
    if let Some(at) = grant.expires {
        about = format!("{about}, expires: {}", shape::time(at));
    }
    if let Some(contract) = &grant.contract {
        about = format!("{about}, contract: {contract}");
    }
    about
}

async fn create(
    node: View,
    Extension(caller): Extension<Caller>,
    Said(mut wanted): Said<Wanted>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let now = shape::now();
    let person = by(&caller, std::mem::take(&mut wanted.reason))?;
    let tenant = node.tenant_or(wanted.tenant.take())?;
    let grant = wanted.grant(tenant, now)?;
    node.engine.note(&person, "made an access key", &about(&grant)).await?;
    let (key, kept) = node.access.create(grant, now).await?;
    let mut made = shown(&kept, now);
    made["key"] = json!(key);
    Ok((StatusCode::CREATED, Json(made)))
}

/// Why, where somebody says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Perhaps {
    #[serde(default)]
    pub(super) reason: String,
}

async fn revoke(
    node: View,
    Extension(caller): Extension<Caller>,
    Path(prefix): Path<String>,
    perhaps: Option<Said<Perhaps>>,
) -> Answer {
    let Perhaps { reason } = perhaps.map(|Said(said)| said).unwrap_or_default();
    let key = node.key(&prefix).await?;
    let about = format!("{} ({prefix})", access::said(&key.tenant, &key.name));
    node.engine.note(&by(&caller, reason)?, "revoked an access key", &about).await?;
    node.access.revoke(&prefix).await?;
    Ok(Json(json!({"revoked": prefix})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// How long the old one goes on.
    overlap: Option<String>,
    /// Of the new one; without it, it lives as long as the old one was made for.
    expires: Option<String>,
    #[serde(default)]
    reason: String,
}

async fn rotate(
    node: View,
    Extension(caller): Extension<Caller>,
    Path(prefix): Path<String>,
    Said(said): Said<Rotate>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let now = shape::now();
    let overlap = said.overlap.as_deref().map_or(Ok(OVERLAP), units::duration);
    let overlap = overlap.map_err(|why| invalid(format!("overlap: {why}")))?;
    let expires = said.expires.map(|text| expiry(&text, now)).transpose()?;
    let old = node.key(&prefix).await?;
    let about = format!(
        "{} ({prefix}), overlap: {}",
        access::said(&old.tenant, &old.name),
        units::show(overlap)
    );
    node.engine.note(&by(&caller, said.reason)?, "rotated an access key", &about).await?;
    let (key, kept, old) = match node.access.rotate(old, overlap, expires, now).await {
        Err(StoreError::Stale) => {
            let why = format!("No access key begins with {prefix:?} any more.");
            return Err(Problem::new("not-found", why));
        }
        rotated => rotated?,
    };
    let mut made = shown(&kept, now);
    made["key"] = json!(key);
    made["replaces"] = shown(&old, now);
    Ok((StatusCode::CREATED, Json(made)))
}
