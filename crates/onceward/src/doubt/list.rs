//! A person resolves many doubts at once, with a provider's list as evidence: what is in it was
//! done, and what is not is only told, unless the person says that it was not sent then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::condition::{Condition, Given};
use onceward_core::exchange::Headers;
use onceward_core::id::OperationId;
use onceward_core::lookup;
use onceward_core::operation::Operation;
use onceward_core::reconcile::name_of;
use onceward_core::time::Timestamp;
use serde_json::Value;

use super::{cut, names};
use crate::engine::Engine;
use crate::people::{Person, Resolution};
use crate::refusal::Refusal;
use crate::store::{Query, Standing};

/// Operations read at once.
const PAGE: usize = 500;

/// How much of an item is kept as evidence.
const ITEM_BYTES_MAX: usize = 500;

/// How long after an attempt its effect is listed, where nothing says so.
const SETTLE: Duration = Duration::from_mins(1);

/// A provider's list of what it did.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Whose doubts are resolved; without it, anybody's.
    pub tenant: Option<String>,
    /// The route whose doubts are resolved.
    pub route: String,
    /// The items.
    pub items: Vec<Value>,
    /// The pointer, within an item, to an operation's key, its key at the upstream, its id or label.
    pub name: String,
    /// What an item has to say beside that, to count.
    pub found: Option<Condition>,
    /// With the instant of the list: what was sent before that and is not listed was not done.
    pub absent_as_of: Option<Timestamp>,
}

/// Which doubts a list resolves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sifted {
    /// Listed: done.
    pub listed: Vec<OperationId>,
    /// Listed more than once: the upstream did it more than once. Done too.
    pub doubled: Vec<OperationId>,
    /// Listed, but not so that it counts.
    pub unclear: Vec<OperationId>,
    /// Not listed.
    pub absent: Vec<OperationId>,
    /// Not listed, but sent too late to be in the list for sure.
    pub recent: Vec<OperationId>,
    /// Resolved; none in a plan.
    pub resolved: usize,
    /// Not resolved, because somebody else was faster.
    pub overtaken: usize,
}

/// How often a name is listed, and by which item that counts.
#[derive(Default)]
struct Place<'a> {
    times: usize,
    item: Option<&'a Value>,
}

impl Engine {
    /// Tells which doubts of a route a provider's list resolves; resolves them unless it is only a
    /// plan.
    pub async fn resolve_by_list(
        self: &Arc<Self>,
        evidence: &Evidence,
        person: &Person,
        is_plan: bool,
    ) -> Result<Sifted, Refusal> {
        let places = places(evidence);
        let mut sifted = Sifted::default();
        let mut before = None;
        loop {
            let query = Query {
                standing: vec![Standing::InDoubt],
                tenant: evidence.tenant.clone(),
                route: Some(evidence.route.clone()),
                before,
                limit: PAGE,
                ..Query::default()
            };
            let page = self.store.list(query).await?;
            for operation in page.operations {
                let found = names(&operation).into_iter().find_map(|name| places.get(&name));
                let is_settled =
                    evidence.absent_as_of.is_some_and(|as_of| self.settled_at(&operation) <= as_of);
                let id = operation.id;
                let resolution = match found {
                    Some(Place { item: Some(_), times }) => {
                        if *times > 1 { &mut sifted.doubled } else { &mut sifted.listed }.push(id);
                        Some(Resolution::Done(None))
                    }
                    Some(_) => {
                        sifted.unclear.push(id);
                        None
                    }
                    None if evidence.absent_as_of.is_some() && !is_settled => {
                        sifted.recent.push(id);
                        None
                    }
                    None => {
                        sifted.absent.push(id);
                        is_settled.then_some(Resolution::NotSent)
                    }
                };
                let Some(resolution) = resolution.filter(|_| !is_plan) else { continue };
                let item = found.and_then(|place| place.item);
                let item = item.map(|item| {
                    let text = Bytes::from(item.to_string());
                    self.redaction_of(&operation).body(None, &text).unwrap_or(text)
                });
                match self.resolve(id, &resolution, &with_evidence(person, item.as_ref())).await {
                    Ok(_) => sifted.resolved += 1,
                    Err(Refusal::Conflict { .. } | Refusal::NotFound) => sifted.overtaken += 1,
                    Err(refusal) => return Err(refusal),
                }
            }
            before = page.next;
            if before.is_none() {
                return Ok(sifted);
            }
        }
    }

    /// When what was sent of an operation shows for sure: as its lookup says, else a minute after.
    fn settled_at(&self, operation: &Operation) -> Timestamp {
        let rule = self.lookup_of(operation);
        lookup::settled_at(operation, rule.map_or(SETTLE, |rule| rule.settle))
    }
}

fn places(evidence: &Evidence) -> HashMap<String, Place<'_>> {
    let headers = Headers::default();
    let mut places: HashMap<String, Place<'_>> = HashMap::with_capacity(evidence.items.len());
    for item in &evidence.items {
        let Some(name) = item.pointer(&evidence.name).and_then(name_of) else { continue };
        let place = places.entry(name).or_default();
        let given = Given { status: None, headers: &headers, document: Some(item) };
        if evidence.found.as_ref().is_none_or(|found| found.holds(given)) {
            place.times += 1;
            place.item.get_or_insert(item);
        }
    }
    places
}

/// The reason with the evidence behind a line break: that no log has.
fn with_evidence(person: &Person, item: Option<&Bytes>) -> Person {
    let said = match item {
        None => "it is not in the provider's list".to_owned(),
        Some(item) => {
            format!(
                "the provider's list has {}",
                cut(&String::from_utf8_lossy(item), ITEM_BYTES_MAX)
            )
        }
    };
    Person { who: person.who.clone(), reason: format!("{}\n{said}", person.reason) }
}
