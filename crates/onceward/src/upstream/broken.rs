//! What went wrong on a connection that stood, and what the upstream said of it.

use std::error::Error;
use std::fmt;

/// What went wrong on it.
pub(super) enum Broken {
    /// hyper says why, and whether it had not begun with the request.
    Off { error: hyper::Error, handed_back: bool },
    /// No head came in time.
    Late,
    /// The upstream left HTTP.
    Upgraded,
}

impl Broken {
    /// Whether only this request's stream ended, by the upstream's wish.
    pub(super) fn is_reset(&self) -> bool {
        matches!(self, Self::Off { error, .. } if h2_error(error).is_some_and(h2::Error::is_reset))
    }

    /// Whether the upstream said that it did not process this request: by refusing its stream,
    /// or by a graceful GOAWAY, which reaches only the streams that it leaves out (RFC 9113,
    /// sections 6.8 and 8.7).
    pub(super) fn is_refused(&self) -> bool {
        let Self::Off { error, .. } = self else {
            return false;
        };
        let Some(error) = h2_error(error) else {
            return false;
        };
        error.is_remote()
            && match error.reason() {
                Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
                Some(h2::Reason::NO_ERROR) => error.is_go_away(),
                _ => false,
            }
    }
}

/// In words of ours: what the other side wrote into an error is not repeated.
impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Late => return f.write_str("no answer came in time"),
            Self::Upgraded => {
                return f.write_str("the upstream wanted to change the protocol (101)");
            }
            Self::Off { handed_back: true, .. } => {
                return f.write_str("the connection closed before the request was sent");
            }
            Self::Off { error, .. } => error,
        };
        if let Some(reason) = h2_error(error).and_then(h2::Error::reason) {
            write!(f, "HTTP/2 ended the request: {reason}")
        } else if error.is_parse() {
            f.write_str("the answer is not HTTP, or its head is too large")
        } else if error.is_incomplete_message() {
            f.write_str("the connection closed before an answer came")
        } else {
            f.write_str("the connection broke before an answer came")
        }
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}
