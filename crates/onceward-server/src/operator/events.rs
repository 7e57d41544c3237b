//! Events over the API: published, and looked at with what they were delivered by.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Extension, Path};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use onceward::core::event::{Event, Form, NotAnEvent};
use onceward::core::key::ScopeKind;
use onceward::core::operation::Operation;
use onceward::core::trace::TraceContext;
use onceward::edge::headers_of;
use onceward::store::{Query, Standing};
use onceward::{Publication, Published};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::filter::{cursor, moment, standing_name};
use super::handler::{Answer, Asked, Said, given, id_of, invalid, key_of, limit_of};
use crate::access::Caller;
use crate::gateway::key_of as key_in;
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// Deliveries of an event that are counted.
const DELIVERIES_MAX: usize = 1000;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/events", get(list).post(publish))
        .route("/v1/events/{event}", get(show))
}

/// An event in our own form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    r#type: String,
    /// Kept as it is written.
    data: Option<Box<RawValue>>,
    key: Option<String>,
    subject: Option<String>,
    sequence: Option<u64>,
    tenant: Option<String>,
}

/// An event cannot be taken.
pub(super) fn no_event(why: &NotAnEvent) -> Problem {
    invalid(why.to_string())
}

async fn publish(
    node: View,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Said(document): Said<Box<RawValue>>,
) -> Result<(StatusCode, HeaderMap, Json<Value>), Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let mut key = key_in(&headers)?.as_deref().map(key_of).transpose()?;
    let mut tenant = node.tenant().to_owned();
    let event = match Form::of(media_type.unwrap_or_default()) {
        Form::Cloud => Event::read(Form::Cloud, document.get().to_owned().into()),
        Form::Own => {
            let fact: Fact = serde_json::from_str(document.get())
                .map_err(|error| invalid(format!("an event: {error}")))?;
            tenant = node.tenant_or(fact.tenant)?;
            key = fact.key.as_deref().map(key_of).transpose()?.or(key);
            let (subject, data) = (fact.subject.as_deref(), fact.data.as_deref());
            Event::own(&fact.r#type, subject, fact.sequence, data)
        }
    };
    let event = event.map_err(|why| no_event(&why))?;
    let principal = caller.within(tenant.clone()).principal;
    let trace = TraceContext::of(&headers_of(&headers));
    let publication = Publication { tenant, principal, event, key, only: None, trace };
    published(&node, publication).await
}

/// Publishes, and tells what is on disk now.
pub(crate) async fn published(
    node: &Node,
    publication: Publication,
) -> Result<(StatusCode, HeaderMap, Json<Value>), Problem> {
    node.check_released("The ledger was restored and is in quarantine: nothing is published.")?;
    let Published { operation, is_duplicate, key_made } = node.engine.publish(publication).await?;
    let mut shown = event(&operation);
    shown["duplicate"] = json!(is_duplicate);
    shown["key_made"] = json!(key_made);
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/events/{}", operation.id)) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::ACCEPTED, headers, Json(shown)))
}

/// An event as callers see it.
pub(crate) fn event(operation: &Operation) -> Value {
    json!({
        "id": operation.id.to_string(),
        "tenant": operation.scope.tenant,
        "type": operation.label,
        "key": operation.key.as_str(),
        "subject": operation.subject.as_ref().map(|subject| &subject.name),
        "only": operation.via.as_deref().and_then(onceward::name_of_route),
        "state": operation.state.name(),
        "created_at": shape::time(operation.created_at),
        "fanned_out_at": operation.ended_at.map(shape::time),
        "kept_until": operation.key_expires_at().map(shape::time),
    })
}

/// Which events.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    pub(crate) r#type: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) key: Option<String>,
    /// Came then or later: a time, or how long ago.
    pub(crate) after: Option<String>,
    pub(crate) before: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) tenant: Option<String>,
}

impl Which {
    pub(crate) fn query(&self) -> Result<Query, Problem> {
        let text = |field: &Option<String>| given(field.as_ref()).map(str::to_owned);
        let time = |field: &Option<String>| given(field.as_ref()).map(moment).transpose();
        Ok(Query {
            kind: Some(ScopeKind::Event),
            tenant: text(&self.tenant),
            label: text(&self.r#type),
            subject: text(&self.subject),
            key: text(&self.key),
            since: time(&self.after)?,
            until: time(&self.before)?,
            before: given(self.cursor.as_ref()).map(id_of).transpose()?,
            limit: limit_of(self.limit)?,
            ..Query::default()
        })
    }
}

async fn list(node: View, Asked(which): Asked<Which>) -> Answer {
    let page = node.list(which.query()?).await?;
    let data: Vec<_> = page.operations.iter().map(event).collect();
    Ok(Json(json!({"data": data, "next": cursor(&page)})))
}

/// How many deliveries of an event stand where, and whether these are all.
pub(crate) async fn deliveries(
    node: &View,
    of: &Operation,
) -> Result<(BTreeMap<&'static str, u64>, bool), Problem> {
    let query = Query {
        kind: Some(ScopeKind::Delivery),
        tenant: Some(of.scope.tenant.clone()),
        parent: Some(of.id),
        since: Some(of.created_at),
        limit: DELIVERIES_MAX,
        ..Query::default()
    };
    let page = node.list(query).await?;
    let mut counts = BTreeMap::new();
    for delivery in &page.operations {
        *counts.entry(standing_name(Standing::of(delivery))).or_default() += 1;
    }
    Ok((counts, page.next.is_none()))
}

/// The event of this id.
pub(crate) async fn find(node: &View, id: &str) -> Result<Operation, Problem> {
    let found = node.find(id).await?;
    if found.scope.kind == ScopeKind::Event {
        return Ok(found);
    }
    Err(Problem::new("not-found", format!("No event {id} is in the ledger.")))
}

async fn show(node: View, Path(id): Path<String>) -> Answer {
    let found = find(&node, &id).await?;
    let (counts, is_exact) = deliveries(&node, &found).await?;
    let mut shown = event(&found);
    shown["deliveries"] = json!(counts);
    shown["exact"] = json!(is_exact);
    Ok(Json(shown))
}
