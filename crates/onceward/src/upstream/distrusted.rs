//! Why a certificate is not trusted, in words that people read and by which causes are told apart: the same
//! fault has the same words each time, so no clock is in them.

use std::fmt;

use rustls::CertificateError as Fault;
use thiserror::Error;

/// Why a certificate is not trusted, with the library's own name for that behind it.
#[derive(Debug, Clone, PartialEq, Error)]
pub(super) struct Distrusted(pub(super) Fault);

impl fmt::Display for Distrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self.words() {
            Some(words) => write!(f, "{words} ({name})"),
            None => write!(f, "{name}"),
        }
    }
}

impl Distrusted {
    fn words(&self) -> Option<&'static str> {
        Some(match &self.0 {
            Fault::Expired | Fault::ExpiredContext { .. } => "it has expired",
            Fault::NotValidYet | Fault::NotValidYetContext { .. } => "its time has not come yet",
            Fault::UnknownIssuer => "no authority that is trusted here has signed it",
            Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
                "it was made for another name"
            }
            Fault::Revoked => "it was revoked",
            Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
                "it was not made for a server"
            }
            Fault::BadSignature => "its signature is wrong",
            Fault::ApplicationVerificationFailure => "it is another one than is expected",
            // What the library has no variant for it names alone: that is read here, and decides nothing.
            Fault::Other(inner) if inner.to_string() == "CaUsedAsEndEntity" => {
                "it is an authority's own, and no server's"
            }
            _ => return None,
        })
    }

    /// The library's name for it, without the times and names that it adds.
    fn name(&self) -> String {
        let whole = match &self.0 {
            Fault::Other(inner) => inner.to_string(),
            fault => format!("{fault:?}"),
        };
        let end = whole.find(|letter: char| !letter.is_ascii_alphanumeric());
        whole[..end.unwrap_or(whole.len())].trim_end_matches("Context").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn the_same_fault_has_the_same_words_whenever_it_is_met() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = |now| Distrusted(Fault::ExpiredContext { time: at(now), not_after: at(1) });
        assert_eq!(expired(10).to_string(), "it has expired (Expired)");
        assert_eq!(expired(10).to_string(), expired(99).to_string());
        let unknown = Distrusted(Fault::UnknownIssuer).to_string();
        assert_eq!(unknown, "no authority that is trusted here has signed it (UnknownIssuer)");
        assert_eq!(Distrusted(Fault::BadEncoding).to_string(), "BadEncoding");
    }

    #[test]
    fn what_the_library_only_names_is_no_debug_output() {
        let named = |name: &str| {
            let error = std::io::Error::other(name.to_owned());
            Distrusted(Fault::Other(rustls::OtherError(std::sync::Arc::new(error)))).to_string()
        };
        let words = "it is an authority's own, and no server's (CaUsedAsEndEntity)";
        assert_eq!(named("CaUsedAsEndEntity"), words);
        assert_eq!(named("PathLenConstraintViolated"), "PathLenConstraintViolated");
    }
}
