//! What a status says of the effect, of an upstream and of a handler alike.

use http::{HeaderMap, StatusCode};

/// What an answer says of the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It is the outcome.
    Final,
    /// Nothing was done, for now.
    Refused,
    /// It may have been done.
    Ambiguous,
}

/// What this answer says.
pub(crate) fn meaning(status: StatusCode, headers: &HeaderMap) -> Meaning {
    match status.as_u16() {
        501 | 505 | 506 | 508 | 510 | 511 | 401 | 403 | 407 | 408 | 421 | 423 | 425 | 426 | 428
        | 429 | 431 => Meaning::Refused,
        500.. => Meaning::Ambiguous,
        400.. if headers.contains_key("retry-after") => Meaning::Refused,
        _ => Meaning::Final,
    }
}
