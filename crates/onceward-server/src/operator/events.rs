//! Events over the API: published, and looked at with what they were delivered by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use onceward::core::event::{Event, Form, NotAnEvent};
use onceward::core::key::ScopeKind;
use onceward::core::operation::Operation;
use onceward::core::trace::TraceContext;
use onceward::edge::headers_of;
use onceward::store::{Page, Query, Standing};
use onceward::{Person, Publication, Published, Subscription};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::filter::{cursor, moment, standing_name};
use super::handler::{Answer, Asked, Said, given, id_of, invalid, key_of, limit_of};
use crate::access::Caller;
use crate::gateway::{key_of as key_in, refuse_options};
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// Deliveries of an event that are counted.
const DELIVERIES_MAX: usize = 1000;

/// What is born by a fan-out has its place no later than this behind the fan-out's end.
const FANNED_OUT_WITHIN: Duration = Duration::from_secs(1);

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
    #[serde(default, deserialize_with = "data")]
    data: Option<Box<RawValue>>,
    key: Option<String>,
    subject: Option<String>,
    sequence: Option<u64>,
    tenant: Option<String>,
}

/// What is said, null too.
pub(super) fn data<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(given).map(Some)
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
    refuse_options(&headers)?;
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

/// Publishes an event that goes to one subscription alone, and notes who tried it.
pub(crate) async fn tried(
    node: &Node,
    subscription: &Subscription,
    event: Event,
    principal: String,
    person: &Person,
) -> Result<(StatusCode, HeaderMap, Json<Value>), Problem> {
    let (tenant, only) = (subscription.tenant.clone(), Some(subscription.name.clone()));
    let about = subscription.about();
    let noted = node.engine.note(person, "tested a subscription", &about).await?;
    let test = Publication { tenant, principal, event, key: None, only, trace: None };
    let answer = published(node, test).await;
    if answer.is_err() {
        node.engine.note_refused(noted).await?;
    }
    answer
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
    /// Its words as the query of an address, but for the place in the list.
    pub(crate) fn written(&self) -> String {
        let words = [
            ("type", &self.r#type),
            ("subject", &self.subject),
            ("key", &self.key),
            ("after", &self.after),
            ("before", &self.before),
            ("tenant", &self.tenant),
        ];
        let limit = self.limit.map(|limit| limit.to_string());
        let said = words.into_iter().chain([("limit", &limit)]);
        let said = said.filter_map(|(name, field)| Some((name, given(field.as_ref())?)));
        Serializer::new(String::new()).extend_pairs(said).finish()
    }

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

/// The deliveries of an event, as far as they were looked for.
pub(crate) struct Deliveries {
    /// The newest first.
    pub(crate) found: Vec<Operation>,
    /// Whether there are no others.
    pub(crate) is_all: bool,
}

impl Deliveries {
    /// How many of those that were found stand where.
    pub(crate) fn counts(found: &[Operation]) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for delivery in found {
            *counts.entry(standing_name(Standing::of(delivery))).or_default() += 1;
        }
        counts
    }
}

/// The deliveries of an event. Nearly all are born while it is fanned out, which may lie far behind what
/// came last: so they are looked for there, and then among what is newer.
pub(crate) async fn deliveries(node: &View, of: &Operation) -> Result<Deliveries, Problem> {
    at_most(node, of, DELIVERIES_MAX).await
}

/// The same, and no more than `limit` of each place that is looked at.
pub(crate) async fn at_most(
    node: &View,
    of: &Operation,
    limit: usize,
) -> Result<Deliveries, Problem> {
    let query = Query {
        kind: Some(ScopeKind::Delivery),
        tenant: Some(of.scope.tenant.clone()),
        parent: Some(of.id),
        since: Some(of.kin_since()),
        limit,
        ..Query::default()
    };
    let over = of.ended_at.map(|at| at.plus(FANNED_OUT_WITHIN));
    let early = node.list(Query { until: over, ..query.clone() }).await?;
    let late = match over {
        Some(_) => node.list(Query { since: over, ..query }).await?,
        None => Page::default(),
    };
    let is_all = early.next.is_none() && late.next.is_none();
    Ok(Deliveries { found: [late.operations, early.operations].concat(), is_all })
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
    let deliveries = deliveries(&node, &found).await?;
    let mut shown = event(&found);
    shown["deliveries"] = json!(Deliveries::counts(&deliveries.found));
    shown["exact"] = json!(deliveries.is_all);
    Ok(Json(shown))
}
