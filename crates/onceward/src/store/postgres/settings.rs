//! Settings: values by name, in the order of their names.

use bytes::Bytes;

use super::hints;
use super::link::Links;
use crate::store::{StoreError, Way};

const ONE: &str = "SELECT value FROM setting WHERE name = $1";

const UP: &str =
    "SELECT name, value FROM setting WHERE name > $1 AND name < $2 ORDER BY name LIMIT $3";

const DOWN: &str =
    "SELECT name, value FROM setting WHERE name > $1 AND name < $2 ORDER BY name DESC LIMIT $3";

/// The hint goes out with the commit, or not at all; here and below.
const PUT: &str = "WITH put AS (INSERT INTO setting VALUES ($1, $2) \
    ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value) SELECT pg_notify('onceward', $3)";

const REMOVE: &str = "WITH gone AS (DELETE FROM setting WHERE name = $1) \
    SELECT pg_notify('onceward', $2)";

const PUT_NEW: &str = "INSERT INTO setting VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING name";

const SWAP: &str = "UPDATE setting SET value = $3 WHERE name = $1 AND value = $2 RETURNING name";

const REMOVE_IF: &str = "DELETE FROM setting WHERE name = $1 AND value = $2 RETURNING name";

pub(super) async fn one(links: &Links, name: &str) -> Result<Option<Bytes>, StoreError> {
    let rows = links.query(ONE, &[&name]).await?;
    Ok(rows.first().map(|found| found.get::<_, Vec<u8>>(0).into()))
}

/// At most `max` whose names begin with `prefix`, after `from`.
pub(super) async fn page(
    links: &Links,
    prefix: String,
    from: Option<String>,
    way: Way,
    max: usize,
) -> Result<Vec<(String, Bytes)>, StoreError> {
    let sql = match way {
        Way::Up => UP,
        Way::Down => DOWN,
    };
    let (least, greatest) = way.bounds(prefix, from);
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = links.query(sql, &[&least, &greatest, &max]).await?;
    Ok(rows.iter().map(|found| (found.get(0), found.get::<_, Vec<u8>>(1).into())).collect())
}

pub(super) async fn set(links: &Links, name: &str, value: Option<Bytes>) -> Result<(), StoreError> {
    match value {
        Some(value) => links.query(PUT, &[&name, &&value[..], &hints::SETTING]).await?,
        None => links.query(REMOVE, &[&name, &hints::SETTING]).await?,
    };
    Ok(())
}

/// Puts `value` in where there is none; tells which is there.
pub(super) async fn offer(links: &Links, name: &str, value: &Bytes) -> Result<Bytes, StoreError> {
    links.query(PUT_NEW, &[&name, &&value[..]]).await?;
    let gone = || StoreError::Away(format!("the setting {name} went meanwhile"));
    one(links, name).await?.ok_or_else(gone)
}

/// Puts `value` in the place of `expected`; tells whether that was there.
pub(super) async fn swap(
    links: &Links,
    name: &str,
    expected: Option<Bytes>,
    value: Option<Bytes>,
) -> Result<bool, StoreError> {
    let rows = match (&expected, &value) {
        (None, None) => return Ok(one(links, name).await?.is_none()),
        (None, Some(value)) => links.query(PUT_NEW, &[&name, &&value[..]]).await?,
        (Some(expected), Some(value)) => {
            links.query(SWAP, &[&name, &&expected[..], &&value[..]]).await?
        }
        (Some(expected), None) => links.query(REMOVE_IF, &[&name, &&expected[..]]).await?,
    };
    Ok(!rows.is_empty())
}
