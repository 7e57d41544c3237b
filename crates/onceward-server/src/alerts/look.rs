//! What is measured: a figure for each alert that there could be now.

use std::collections::BTreeMap;

use onceward::core::saga::Standing;
use onceward::core::time::Timestamp;
use onceward::store::{Query, Standing as Stands, Store, StoreError};

use super::OWN_ROUTES;
use super::recent;
use super::rule::{Alert, Kind, Measure, Rules};
use crate::node::Node;
use crate::telemetry::label;

/// Operations in doubt that are read at once.
const PAGE: usize = 1000;

/// Pages of them that one look reads: what is beyond is not counted.
const PAGES_MAX: usize = 5;

/// What was measured.
pub(super) struct Measured {
    pub(super) measures: Vec<Measure>,
    /// Kinds of which there may be more than was looked at.
    pub(super) in_part: Vec<Kind>,
}

/// Looks at everything that a rule is about.
pub(super) async fn measures(
    node: &Node,
    here: &str,
    rules: &Rules,
    now: Timestamp,
) -> Result<Measured, StoreError> {
    let store = &**node.engine.store();
    let mut measures = recent::measures(store, rules, now).await?;
    let mut in_part = Vec::new();
    if rules.of.contains_key(&Kind::InDoubt) {
        let (in_doubt, is_all) = in_doubt(store).await?;
        measures.extend(in_doubt);
        in_part.extend((!is_all).then_some(Kind::InDoubt));
    }
    if rules.of.contains_key(&Kind::SagaStuck) {
        let open = node.engine.open_sagas().await?;
        let stuck = open.counts.into_iter().filter(|((_, at), _)| *at == Standing::Stuck);
        measures.extend(stuck.map(|((tenant, _), value)| {
            let (kind, tenant) = (Kind::SagaStuck, Some(tenant));
            Measure { alert: Alert { kind, tenant, route: None, node: None }, value }
        }));
        in_part.extend((!open.is_all).then_some(Kind::SagaStuck));
    }
    if rules.of.contains_key(&Kind::BacklogOld) {
        let mut oldest: BTreeMap<Alert, u64> = BTreeMap::new();
        for (lane, due) in store.lanes().await? {
            let age = oldest.entry(of_ledger(Kind::BacklogOld, &lane.tenant, &lane.route));
            let age = age.or_default();
            *age = (*age).max(now.since(due).as_secs());
        }
        measures.extend(oldest.into_iter().map(|(alert, value)| Measure { alert, value }));
    }
    let here = Some(here.to_owned());
    measures.extend(node.gates().into_iter().map(|(route, standing)| {
        let value = match standing.breaker {
            "open" => 2,
            "half_open" => 1,
            _ => 0,
        };
        let (route, node) = (Some(route), here.clone());
        Measure { alert: Alert { kind: Kind::BreakerOpen, tenant: None, route, node }, value }
    }));
    measures.extend(node.free().map(|value| {
        let (route, node) = (None, here.clone());
        Measure { alert: Alert { kind: Kind::DiskLow, tenant: None, route, node }, value }
    }));
    // That a receiver cannot be reached is nothing to send it.
    let is_own = |route: &String| route.starts_with(OWN_ROUTES);
    measures.retain(|measure| !measure.alert.route.as_ref().is_some_and(is_own));
    Ok(Measured { measures, in_part })
}

fn of_ledger(kind: Kind, tenant: &str, route: &str) -> Alert {
    let (tenant, route) = (Some(tenant.to_owned()), Some(label(route).to_owned()));
    Alert { kind, tenant, route, node: None }
}

/// Operations in doubt by tenant and route, the youngest first; and whether these are all.
async fn in_doubt(store: &dyn Store) -> Result<(Vec<Measure>, bool), StoreError> {
    let counts = store.count_open(None, 1).await?;
    if !counts.iter().any(|(stands, it)| *stands == Stands::InDoubt && it.count > 0) {
        return Ok((Vec::new(), true));
    }
    let mut counts: BTreeMap<Alert, u64> = BTreeMap::new();
    let mut before = None;
    for _ in 0..PAGES_MAX {
        let standing = vec![Stands::InDoubt];
        let page = store.list(Query { standing, before, limit: PAGE, ..Query::default() }).await?;
        for operation in page.operations {
            let alert = of_ledger(Kind::InDoubt, &operation.scope.tenant, &operation.route);
            *counts.entry(alert).or_default() += 1;
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let measures = counts.into_iter().map(|(alert, value)| Measure { alert, value });
    Ok((measures.collect(), before.is_none()))
}
