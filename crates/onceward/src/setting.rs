//! What is kept beside the operations: small rows in the ledger's settings, each under a name that
//! says what it is and of which operation.

use std::fmt::Display;

use bytes::Bytes;
use onceward_core::id::OperationId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::StoreError;

/// The name of what is kept of `id` under `prefix`: names are in the order of time.
pub(crate) fn name_of(prefix: &str, id: OperationId) -> String {
    format!("{prefix}{:032x}", id.as_u128())
}

/// Of which operation `name` under `prefix` is; what stands behind a slash says more of it.
pub(crate) fn id_of(prefix: &str, name: &str) -> Result<OperationId, StoreError> {
    let id = name.strip_prefix(prefix).and_then(|rest| rest.split('/').next());
    let id = u128::from_str_radix(id.unwrap_or_default(), 16);
    id.map(OperationId::from_u128).map_err(|error| damaged(name, error))
}

/// The row as it is kept.
pub(crate) fn encode(row: &impl Serialize) -> Result<Bytes, StoreError> {
    let bytes = postcard::to_allocvec(row);
    bytes.map(Bytes::from).map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// The row that is kept under `name`.
pub(crate) fn decode<T: DeserializeOwned>(name: &str, value: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(value).map_err(|error| damaged(name, error))
}

/// What is kept under `name` cannot be read.
pub(crate) fn damaged(name: &str, why: impl Display) -> StoreError {
    StoreError::Damaged(format!("the setting {name}: {why}"))
}
