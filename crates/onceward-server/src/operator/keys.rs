//! Keys over the API: the operation of one, and what a person does about it: forget, extend, rotate,
//! revoke.

use std::sync::Arc;

use axum::extract::{Extension, Path};
use axum::routing::{get, post};
use axum::{Json, Router};
use onceward::core::key::{Key, Scope};
use onceward::core::operation::Forgotten;
use onceward::{Longer, Refusal};
use serde::Deserialize;
use serde_json::json;

use super::handler::{Act, Answer, Asked, all, id_of, instant, invalid, key_of, reasoned};
use super::operations::shown;
use crate::access::Caller;
use crate::node::Node;
use crate::problem::Problem;
use crate::view::View;
use crate::{shape, units};

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/keys/{route}/{key}", get(show).delete(forget))
        .route("/v1/keys/{route}/{key}/extend", post(extend))
        .route("/v1/keys/{route}/{key}/rotate", post(rotate))
        .route("/v1/keys/revoke", post(revoke))
        .route("/v1/approvals", get(approvals))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    /// Whose key, where an operator looks for another caller's.
    principal: Option<String>,
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
}

/// The route and the key that an address names.
type Named = Path<(String, String)>;

/// A caller's key within its scope; another's, where an operator looks for that.
fn whose(
    node: &View,
    caller: &Caller,
    Path((route, key)): Named,
    principal: Option<&str>,
) -> Result<(Scope, Key), Problem> {
    let principal = principal.unwrap_or(&caller.principal);
    Ok((node.scope_of(&route, principal), key_of(&key)?))
}

async fn show(
    node: View,
    Extension(caller): Extension<Caller>,
    named: Named,
    Asked(said): Asked<Whose>,
) -> Answer {
    let (scope, key) = whose(&node, &caller, named, said.principal.as_deref())?;
    let operation = match node.operation_of(&scope, &key).await {
        Err(Refusal::NotFound) => {
            return Err(Problem::new("not-found", "No operation has this key on this route."));
        }
        found => found?,
    };
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forget {
    pub(super) reason: String,
    /// `refuse` or `new`.
    then: Option<String>,
    pub(super) principal: Option<String>,
}

impl Forget {
    pub(super) fn then(&self) -> Result<Forgotten, Problem> {
        then_of(self.then.as_deref())
    }
}

/// What the next use of a key that was forgotten meets.
pub(crate) fn then_of(word: Option<&str>) -> Result<Forgotten, Problem> {
    match word {
        None | Some("refuse") => Ok(Forgotten::Refuse),
        Some("new") => Ok(Forgotten::New),
        Some(_) => Err(invalid("then: `refuse` or `new`")),
    }
}

async fn forget(
    node: View,
    Extension(caller): Extension<Caller>,
    named: Named,
    Act(person, said): Act<Forget>,
) -> Answer {
    let (scope, key) = whose(&node, &caller, named, said.principal.as_deref())?;
    let operation = node.engine.forget(&scope, &key, said.then()?, &person).await?;
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extend {
    reason: String,
    /// How long its outcome is replayed, from completion.
    window: Option<String>,
    /// Or until when.
    until: Option<String>,
    principal: Option<String>,
}

impl Extend {
    fn longer(&self) -> Result<Longer, Problem> {
        match (&self.window, &self.until) {
            (Some(window), None) => units::duration(window)
                .map(Longer::Window)
                .map_err(|why| invalid(format!("window: {why}"))),
            (None, Some(until)) => instant("until: ", until).map(Longer::Until),
            _ => Err(invalid("give window or until, one of them")),
        }
    }
}

async fn extend(
    node: View,
    Extension(caller): Extension<Caller>,
    named: Named,
    Act(person, said): Act<Extend>,
) -> Answer {
    let (scope, key) = whose(&node, &caller, named, said.principal.as_deref())?;
    let operation = node.engine.extend(&scope, &key, said.longer()?, &person).await?;
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    reason: String,
    /// The other key.
    to: String,
    principal: Option<String>,
}

async fn rotate(
    node: View,
    Extension(caller): Extension<Caller>,
    named: Named,
    Act(person, said): Act<Rotate>,
) -> Answer {
    let (scope, key) = whose(&node, &caller, named, said.principal.as_deref())?;
    let operation = node.engine.rotate(&scope, &key, &key_of(&said.to)?, &person).await?;
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    reason: String,
    principal: String,
    /// Where an earlier step ended.
    cursor: Option<String>,
}

reasoned!(Forget, Extend, Rotate, Revoke);

async fn revoke(node: View, Act(person, said): Act<Revoke>) -> Answer {
    if said.principal.is_empty() {
        return Err(invalid("principal: the name of an access key"));
    }
    let before = said.cursor.as_deref().map(id_of).transpose()?;
    let revoked = node.engine.revoke(node.tenant(), &said.principal, before, &person).await?;
    Ok(Json(json!({
        "revoked": revoked.keys,
        "open": revoked.open.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "next": revoked.next.map(|id| id.to_string()),
    })))
}

async fn approvals(node: View) -> Answer {
    let wanted = node.wanted().await?;
    Ok(all(wanted.iter().map(|wanted| {
        json!({
            "operation": wanted.operation.to_string(),
            "what": wanted.what,
            "at": shape::time(wanted.at),
            "who": wanted.who,
            "reason": wanted.reason,
        })
    })))
}
