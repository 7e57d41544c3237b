//! The gateway as one caller sees it. Here alone the ledger is read for people, and here the tenant is laid
//! over whatever is read: a handler has a [`View`] in the place of the node, so that no new one can
//! forget whose data it shows. What is another tenant's is told as what is not there.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use onceward::core::id::OperationId;
use onceward::core::key::{Key, Scope, ScopeKind};
use onceward::core::operation::Operation;
use onceward::core::saga::Standing as Stands;
use onceward::core::time::Timestamp;
use onceward::route::Route;
use onceward::sabotage::Sabotage;
use onceward::store::{Asked, Counted, Page, Query, Standing, Which};
use onceward::tally::{DuplicateSeen, KeysAhead, Place, Span, Stats, SuspectSeen};
use onceward::{Bulk, NoteQuery, Notes, Refusal, Saga, Subscription, Wanted};
use serde_json::Value;
use url::form_urlencoded;

use crate::access::{AccessKey, Caller, Roles, TENANT, is_own, is_tenant};
use crate::alerts::{Firing, looked_up};
use crate::changes::Change;
use crate::config::Outbox;
use crate::node::Node;
use crate::operator::{id_of, invalid};
use crate::outbox::Shown;
use crate::problem::Problem;
use crate::saved::{self, Saved};
use crate::shape;
use crate::source::Source;
use crate::source::rejects::{self, Refusing};

/// The gateway as one caller sees it: what is of no tenant, it has from the node.
#[derive(Clone)]
pub(crate) struct View {
    node: Arc<Node>,
    caller: Caller,
    whose: Whose,
}

/// Whose data a caller sees.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    /// This tenant's.
    One(String),
    /// Everybody's: who runs the gateway, and named no tenant.
    All,
}

impl Deref for View {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl<S: Send + Sync> FromRequestParts<S> for View {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // `authorise` lets nothing through without one.
        let view = parts.extensions.get::<Self>().cloned();
        view.ok_or_else(|| Problem::new("unauthenticated", "Nobody was admitted."))
    }
}

/// Whether callers can name a route that is called so: those of sources, outboxes and subscriptions have a slash in
/// their name, which ends one at `/to/`.
pub(crate) fn is_callable(route: &str) -> bool {
    !route.contains('/')
}

impl View {
    /// What `caller` sees; `?tenant=` in its query narrows that to one tenant.
    pub(crate) fn of(
        node: &Arc<Node>,
        caller: &Caller,
        query: Option<&str>,
    ) -> Result<Self, Problem> {
        let mut words = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let named = words.find(|(name, value)| name == "tenant" && !value.is_empty());
        let named = named.map(|(_, value)| value.into_owned());
        let whose = narrowed(caller, named)?.map_or(Whose::All, Whose::One);
        Ok(Self { node: Arc::clone(node), caller: caller.clone(), whose })
    }

    /// The tenant in which a key or a claim is looked for, an access key is made and a call is sent.
    pub(crate) fn tenant(&self) -> &str {
        match &self.whose {
            Whose::One(tenant) => tenant,
            Whose::All => &self.caller.tenant,
        }
    }

    /// The same, where a document may name it too.
    pub(crate) fn tenant_or(&self, named: Option<String>) -> Result<String, Problem> {
        let named = narrowed(&self.caller, named)?;
        Ok(named.unwrap_or_else(|| self.tenant().to_owned()))
    }

    /// The only tenant whose data it sees; nothing where it sees everybody's.
    pub(crate) fn only(&self) -> Option<&str> {
        match &self.whose {
            Whose::One(tenant) => Some(tenant),
            Whose::All => None,
        }
    }

    /// The tenant that whoever sees all of them named.
    pub(crate) fn named(&self) -> Option<&str> {
        self.only().filter(|_| self.caller.is_operator())
    }

    /// Whether what is `tenant`'s is there.
    pub(crate) fn sees(&self, tenant: &str) -> bool {
        self.only().is_none_or(|own| own == tenant) || Sabotage::TenantUnfiltered.is_on()
    }

    /// The query, within what it sees; to name another tenant is refused.
    pub(crate) fn lay(&self, query: Query) -> Result<Query, Problem> {
        if Sabotage::TenantUnfiltered.is_on() {
            return Ok(query);
        }
        let tenant = match query.tenant {
            None => self.only().map(str::to_owned),
            named => narrowed(&self.caller, named)?,
        };
        Ok(Query { tenant, ..query })
    }

    /// `caller`, as it sends for the tenant that it named.
    pub(crate) fn acting(&self, caller: Caller) -> Caller {
        caller.within(self.tenant().to_owned())
    }

    /// Whether it has these roles.
    pub(crate) fn may(&self, roles: Roles) -> bool {
        self.caller.roles.has(roles)
    }

    /// Whether it may see what was sent of an operation: by its role, or as its own.
    pub(crate) fn sees_request(&self, operation: &Operation) -> bool {
        let roles = self.caller.roles;
        roles.has(Roles::PAYLOADS)
            || (roles.has(Roles::SEND) && is_own(self, operation, &self.caller))
            || Sabotage::RecipientsShown.is_on()
    }

    /// An operation, as it is told to it.
    pub(crate) fn told(&self, operation: &Operation, asked: Option<&Asked>) -> Value {
        shape::operation(operation, asked, self.sees_request(operation))
    }

    /// The operation of this id.
    pub(crate) async fn find(&self, id: &str) -> Result<Operation, Problem> {
        let found = self.engine.store().find(Which::Id(id_of(id)?)).await?;
        found
            .map(|operation| self.engine.as_kept(operation))
            .filter(|operation| self.sees(&operation.scope.tenant))
            .ok_or_else(|| unknown(id))
    }

    /// The saga of this id.
    pub(crate) async fn saga(&self, id: &str) -> Result<Saga, Problem> {
        let operation = self.find(id).await?;
        if operation.scope.kind != ScopeKind::Saga {
            return Err(unknown(id));
        }
        Ok(self.engine.saga_of(operation).await?)
    }

    /// A page of sagas.
    pub(crate) async fn sagas(
        &self,
        query: Query,
    ) -> Result<(Vec<Saga>, Option<OperationId>), Problem> {
        Ok(self.engine.sagas(self.lay(query)?).await?)
    }

    /// A page of operations.
    pub(crate) async fn list(&self, query: Query) -> Result<Page, Problem> {
        Ok(self.engine.store().list(self.lay(query)?).await?)
    }

    /// How many operations stand where, of each standing no further than `max` rows.
    pub(crate) async fn counts(&self, max: u64) -> Result<HashMap<Standing, Counted>, Problem> {
        let tenant = self.counted().map(str::to_owned);
        let is_of_one = tenant.is_some();
        let mut counts = self.engine.store().count_open(tenant, max).await?;
        // Of others' rows alone nobody hears: whether there is one of its own is looked for.
        let unknown = |count: &Counted| is_of_one && count.count == 0 && !count.is_all;
        for (standing, count) in counts.iter_mut().filter(|(_, count)| unknown(count)) {
            let one = Query { standing: vec![*standing], limit: 1, ..Query::default() };
            let met = self.list(one).await?.operations.len() as u64;
            *count = Counted { count: met, is_all: met == 0 };
        }
        Ok(counts.into_iter().collect())
    }

    /// What calls came to over `span`.
    pub(crate) async fn stats(&self, span: Span) -> Result<Stats, Refusal> {
        self.engine.stats(self.counted(), span).await
    }

    /// At most `limit` of the last duplicates before `before`, newest first.
    pub(crate) async fn duplicates_seen(
        &self,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<DuplicateSeen>, Refusal> {
        self.engine.duplicates_seen(self.counted(), before, limit).await
    }

    /// At most `limit` of the last suspected doubles before `before`, newest first.
    pub(crate) async fn suspects_seen(
        &self,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<SuspectSeen>, Refusal> {
        self.engine.suspects_seen(self.counted(), before, limit).await
    }

    /// How many keys there are, and how many of them end soon.
    pub(crate) async fn keys_ahead(&self) -> Result<KeysAhead, Problem> {
        Ok(self.engine.keys_ahead(self.counted()).await?)
    }

    /// The operation in doubt that came first.
    pub(crate) async fn oldest_in_doubt(&self) -> Result<Option<Operation>, Problem> {
        let tenant = self.counted().map(str::to_owned);
        Ok(self.engine.store().oldest_in_doubt(tenant).await?)
    }

    /// Since when accepted work has been due that is not sent; nothing where none is.
    pub(crate) async fn oldest_due(&self) -> Result<Option<Timestamp>, Problem> {
        let lanes = self.engine.store().lanes().await?.into_iter();
        let due = lanes.filter(|(lane, _)| self.sees(&lane.tenant)).map(|(_, due)| due).min();
        Ok(due.filter(|due| *due <= shape::now()))
    }

    /// The routes that it is told of as a whole, and whose breaker is open on this node.
    pub(crate) fn open_breakers(&self) -> Vec<String> {
        let routes = self.routes().into_iter().filter(|route| self.keeps(route));
        let routes = routes.map(|route| route.name.clone());
        let is_open = |name: &String| {
            self.engine.standing(name).is_some_and(|standing| standing.breaker == "open")
        };
        routes.filter(is_open).collect()
    }

    /// Whose counts it sees; nothing where that is everybody's.
    fn counted(&self) -> Option<&str> {
        self.only().filter(|_| !Sabotage::TenantUnfiltered.is_on())
    }

    /// Bytes of the ledger and its commits, which are nothing of another tenant's.
    pub(crate) async fn size(&self) -> Result<Option<(u64, u64)>, Problem> {
        if self.only().is_some_and(|tenant| tenant != TENANT) {
            return Ok(None);
        }
        let condition = self.engine.store().condition().await?;
        Ok(Some((condition.bytes, condition.commits)))
    }

    /// Whether what this is about is there for it.
    pub(crate) fn sees_change(&self, change: &Change) -> bool {
        self.sees(&change.tenant)
    }

    /// The scope of the keys that `principal` uses on what is called `name`.
    pub(crate) fn scope_of(&self, name: &str, principal: &str) -> Scope {
        self.engine.scope_of(self.tenant(), name, principal)
    }

    /// The operation of a key.
    pub(crate) async fn operation_of(
        &self,
        scope: &Scope,
        key: &Key,
    ) -> Result<Operation, Refusal> {
        self.engine.operation_of(scope, key).await
    }

    /// What people did. A tenant's own people: what others did to its operations stands with those.
    pub(crate) async fn notes(&self, query: NoteQuery) -> Result<Notes, Problem> {
        // Whoever runs the gateway sees all of it or none.
        let tenant = self.only().filter(|_| !Sabotage::TenantUnfiltered.is_on());
        let tenant = tenant.map(str::to_owned);
        Ok(self.engine.notes(&NoteQuery { tenant, ..query }).await?)
    }

    /// What waits for a second person.
    pub(crate) async fn wanted(&self) -> Result<Vec<Wanted>, Problem> {
        let mut wanted = Vec::new();
        for act in self.engine.wanted().await? {
            let about = self.engine.store().find(Which::Id(act.operation)).await?;
            if about.map_or_else(
                || self.only().is_none(),
                |operation| self.sees(&operation.scope.tenant),
            ) {
                wanted.push(act);
            }
        }
        Ok(wanted)
    }

    /// Every bulk, the newest first: of a tenant those that go through its operations alone.
    pub(crate) async fn bulks(&self) -> Result<Vec<Bulk>, Problem> {
        let all = self.engine.bulks().await?;
        Ok(all.into_iter().filter(|bulk| self.sees_bulk(bulk)).collect())
    }

    /// The bulk of this name.
    pub(crate) async fn bulk(&self, name: &str) -> Result<Bulk, Problem> {
        let found = self.engine.bulk(name).await?.filter(|bulk| self.sees_bulk(bulk));
        found.ok_or_else(|| Problem::new("not-found", format!("No bulk {name} is known.")))
    }

    fn sees_bulk(&self, bulk: &Bulk) -> bool {
        let through = bulk.order.filter.tenant.as_deref();
        // One that names no tenant goes through everybody's.
        self.only().is_none() || self.sees(through.unwrap_or_default())
    }

    /// The route of this name, where it is there for it.
    pub(crate) fn find_route(&self, name: &str) -> Result<Arc<Route>, Problem> {
        let route = self.engine.route(name).filter(|route| self.has_route(route));
        route.ok_or_else(|| Refusal::RouteUnknown(name.to_owned()).into())
    }

    /// The same, where callers can name it.
    pub(crate) fn find_called(&self, name: &str) -> Result<Arc<Route>, Problem> {
        if !is_callable(name) {
            return Err(Refusal::RouteUnknown(name.to_owned()).into());
        }
        self.find_route(name)
    }

    /// The routes that are there for it.
    pub(crate) fn routes(&self) -> Vec<Arc<Route>> {
        let routes = self.engine.routes();
        let is_there = |route: &&Arc<Route>| self.has_route(route);
        routes.named.values().filter(is_there).cloned().collect()
    }

    fn has_route(&self, route: &Route) -> bool {
        self.only().is_none_or(|tenant| route.is_for(tenant)) || Sabotage::TenantUnfiltered.is_on()
    }

    /// Whether what is about all who use a route is there for it.
    pub(crate) fn keeps(&self, route: &Route) -> bool {
        self.only().is_none_or(|tenant| route.is_kept_by(tenant))
            || Sabotage::TenantUnfiltered.is_on()
    }

    /// A look at a route as a whole, or a change of it; other tenants than the one that is always there
    /// may do that to routes of their own.
    pub(crate) fn check_kept(&self, name: &str) -> Result<(), Problem> {
        let route = self.engine.route(name);
        match route.filter(|route| self.has_route(route)) {
            Some(route) if self.keeps(&route) => Ok(()),
            Some(_) => {
                let why = "This is about all who use the route, and other tenants do too.";
                Err(Problem::new("forbidden", why))
            }
            // What is known of a route that is gone is whoever's who runs the gateway.
            None if self.only().is_none() => Ok(()),
            None => Err(Refusal::RouteUnknown(name.to_owned()).into()),
        }
    }

    /// The outboxes that fill it.
    pub(crate) fn outboxes(&self) -> Vec<(Arc<Outbox>, Shown)> {
        let all = self.outboxes.shown().into_iter();
        all.filter(|(outbox, _)| self.sees(&outbox.tenant)).collect()
    }

    /// The outbox of this name.
    pub(crate) fn outbox(&self, name: &str) -> Result<(Arc<Outbox>, Shown), Problem> {
        let mut all = self.outboxes().into_iter();
        all.find(|(outbox, _)| outbox.name == name)
            .ok_or_else(|| Problem::new("not-found", format!("No outbox is called {name:?}.")))
    }

    /// The sources that fill it.
    pub(crate) fn sources(&self) -> Vec<Arc<Source>> {
        let all = self.sources.all();
        all.values().filter(|source| self.sees(&source.tenant)).cloned().collect()
    }

    /// The source of this name.
    pub(crate) fn source(&self, name: &str) -> Result<Arc<Source>, Problem> {
        let why = || Problem::new("source-unknown", format!("No source is called {name:?}."));
        self.sources.get(name).filter(|source| self.sees(&source.tenant)).ok_or_else(why)
    }

    /// The alerts that fire and are about what it sees: of what is nobody's, and of who was told, who runs
    /// the gateway sees all.
    pub(crate) fn alerts(&self) -> Vec<Firing> {
        let is_shown = |firing: &Firing| {
            let tenant = firing.alert.tenant.as_deref();
            self.only().is_none() || tenant.is_some_and(|tenant| self.sees(tenant))
        };
        let shown = self.node.alerts.firing().into_iter().filter(is_shown);
        match self.only() {
            None => shown.collect(),
            Some(_) => shown.map(Firing::without_told).collect(),
        }
    }

    /// The same, with whether those who were told have it.
    pub(crate) async fn alerts_told(&self) -> Vec<Firing> {
        looked_up(&self.node, self.alerts()).await
    }

    /// How many sagas that have not ended stand where, as far as they were counted.
    pub(crate) async fn open_sagas(&self) -> Result<BTreeMap<Stands, u64>, Problem> {
        let open = self.node.sagas.get(self.engine.open_sagas()).await?;
        let mut counts = BTreeMap::new();
        for ((_, stands), count) in open.counts.iter().filter(|((of, _), _)| self.sees(of)) {
            *counts.entry(*stands).or_default() += count;
        }
        Ok(counts)
    }

    /// Its sources that refused webhooks in the last hour.
    pub(crate) async fn refused(&self) -> Result<Vec<Refusing>, Problem> {
        let all = self.sources.refused.get(rejects::refusing(&self.node)).await?;
        Ok(all.iter().filter(|refusing| self.sees(&refusing.tenant)).cloned().collect())
    }

    /// Its subscriptions.
    pub(crate) async fn subscriptions(&self) -> Result<Vec<Subscription>, Problem> {
        let all = self.engine.subscriptions().await?;
        Ok(all.into_iter().filter(|subscription| self.sees(&subscription.tenant)).collect())
    }

    /// The subscription of this name.
    pub(crate) async fn subscription(&self, name: &str) -> Result<Subscription, Problem> {
        let found = self.engine.subscription(name).await?;
        let why = || Problem::new("not-found", format!("No subscription is called {name:?}."));
        found.filter(|subscription| self.sees(&subscription.tenant)).ok_or_else(why)
    }

    /// The filters that its people saved, by name.
    pub(crate) async fn saved_filters(&self) -> Result<Vec<Saved>, Problem> {
        Ok(saved::all(self.engine.store(), self.tenant()).await?)
    }

    /// The one of this name.
    pub(crate) async fn saved_filter(&self, name: &str) -> Result<Saved, Problem> {
        let found = self.saved_filters().await?.into_iter().find(|saved| saved.name == name);
        found.ok_or_else(|| saved::unknown(name))
    }

    /// Its access keys.
    pub(crate) fn keys(&self) -> Vec<AccessKey> {
        self.access.list().into_iter().filter(|key| self.sees(&key.tenant)).collect()
    }

    /// The access key that begins so. It is read anew: what another node revoked just now must not come
    /// back by a rotation here.
    pub(crate) async fn key(&self, prefix: &str) -> Result<AccessKey, Problem> {
        self.access.refresh().await?;
        let why = || Problem::new("not-found", format!("No access key begins with {prefix:?}."));
        self.keys().into_iter().find(|key| key.prefix == prefix).ok_or_else(why)
    }
}

/// The one tenant that `caller` is to see of those that it may; nothing where that is all of them.
fn narrowed(caller: &Caller, named: Option<String>) -> Result<Option<String>, Problem> {
    match named.filter(|name| !name.is_empty()) {
        None if caller.is_operator() => Ok(None),
        None => Ok(Some(caller.tenant.clone())),
        Some(name) if name == caller.tenant => Ok(Some(name)),
        Some(name) if caller.is_operator() && is_tenant(&name) => Ok(Some(name)),
        Some(name) if caller.is_operator() => Err(invalid(format!("tenant {name:?} is no name"))),
        Some(_) => Err(Problem::new(
            "forbidden",
            format!(
                "tenant: an admin key of the tenant {TENANT} that is confined to no routes sees others; this one sees its own."
            ),
        )),
    }
}

/// What is told of an operation that is not there, or not there for whoever asks.
pub(crate) fn unknown(id: &str) -> Problem {
    Problem::new("not-found", format!("No operation {id} is in the ledger."))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// What reads the ledger, or whatever else has a tenant.
    const READS: &[&str] = &[
        ".find(Which",
        ".list(",
        ".condition()",
        ".count_open(",
        "engine.notes(",
        "engine.bulks(",
        "engine.bulk(",
        "engine.wanted(",
        "engine.subscriptions(",
        "engine.subscription(",
        "engine.open_sagas(",
        ".refused.get(",
        "engine.scope_of(",
        "engine.operation_of(",
        "engine.stats(",
        "engine.duplicates_seen(",
        "engine.suspects_seen(",
        "engine.keys_ahead(",
        ".oldest_in_doubt(tenant",
        ".lanes()",
        "outboxes.shown(",
        "sources.all(",
        "sources.get(",
        "access.list(",
        "saved::all(",
        "alerts.firing(",
        "access.find(",
        "State<Arc<Node>>",
        "TENANT",
    ];

    /// Where a view itself is asked, or what it has found already.
    const BY_A_VIEW: &[&str] = &["node.list(", "rejects::list("];

    #[test]
    fn people_read_the_ledger_by_a_view_alone() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut looked_at = 0;
        let mut folders = vec![sources.join("operator"), sources.join("page")];
        while let Some(folder) = folders.pop() {
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                // The fuzz target has a ledger of its own, without tenants.
                if path.extension().is_none_or(|it| it != "rs") || path.ends_with("fuzz.rs") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                looked_at += 1;
                for (line, number) in text.lines().zip(1..) {
                    let is_by_a_view = BY_A_VIEW.iter().any(|way| line.contains(way));
                    let reads = READS.iter().find(|read| line.contains(**read));
                    assert!(
                        is_by_a_view || reads.is_none(),
                        "{}:{number} reads past the view: {}",
                        path.display(),
                        line.trim()
                    );
                }
            }
        }
        assert!(looked_at > 50, "{looked_at}");
    }
}
