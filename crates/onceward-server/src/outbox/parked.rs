//! Rows that can never become a call: which, and why. The row itself stays in its table.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onceward::relay::Row;
use onceward::store::{Store, StoreError, Way};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::shape;

/// Rows of an outbox that may be parked; past it nothing more is read, until somebody looks.
pub(super) const PARKED_MAX: usize = 10_000;

/// How many are read at once.
const PAGE: usize = 500;

/// A row that is passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parked {
    /// The row's id.
    pub(crate) id: String,
    pub(crate) key: Option<String>,
    pub(crate) route: Option<String>,
    /// The problem's.
    pub(crate) code: String,
    pub(crate) why: String,
    /// When, in RFC 3339.
    pub(crate) at: String,
}

impl Parked {
    pub(super) fn new(row: &Row, problem: &Problem) -> Self {
        Self {
            id: row.id.clone(),
            key: row.key.clone(),
            route: row.route.clone(),
            code: problem.code.to_owned(),
            why: problem.detail.clone(),
            at: shape::time(shape::now()),
        }
    }
}

fn prefix(outbox: &str) -> String {
    format!("outbox/{outbox}/parked/")
}

fn name(outbox: &str, id: &str) -> String {
    format!("{}{}", prefix(outbox), URL_SAFE_NO_PAD.encode(id))
}

/// Parks a row.
pub(super) async fn park(
    store: &dyn Store,
    outbox: &str,
    parked: &Parked,
) -> Result<(), StoreError> {
    let kept = serde_json::to_vec(parked).unwrap_or_default();
    store.set(name(outbox, &parked.id), Some(kept.into())).await
}

/// The parked rows of an outbox.
pub(crate) async fn parked(store: &dyn Store, outbox: &str) -> Result<Vec<Parked>, StoreError> {
    let (mut all, mut from) = (Vec::new(), None);
    while all.len() <= PARKED_MAX {
        let page = store.settings_from(prefix(outbox), from.take(), Way::Up, PAGE).await?;
        let is_last = page.len() < PAGE;
        from = page.last().map(|(name, _)| name.clone());
        all.extend(page.iter().filter_map(|(_, kept)| serde_json::from_slice(kept).ok()));
        if is_last {
            break;
        }
    }
    Ok(all)
}

/// Parks these no more: they are read again.
pub(crate) async fn retry<'a>(
    store: &dyn Store,
    outbox: &str,
    ids: impl Iterator<Item = &'a str>,
) -> Result<(), StoreError> {
    for id in ids {
        store.set(name(outbox, id), None).await?;
    }
    Ok(())
}
