//! Versions of what callers are promised: which request headers there are and what they mean, what answers and
//! problems say, what the API's documents have. A version only grows: what is taken away or comes to mean something else makes
//! the next one, and the one before is spoken on.
//!
//! Whoever says none gets the newest; whoever says one, or has a key that is pinned to one, is answered with the one that holds.

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::problem::Problem;

const HEADER: HeaderName = HeaderName::from_static("onceward-contract");

/// A version, called by the month from which on it is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contract {
    /// The first.
    V2026_11,
}

impl Contract {
    /// All that are spoken, the oldest first.
    pub(crate) const ALL: [Self; 1] = [Self::V2026_11];

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V2026_11 => "2026-11",
        }
    }

    /// What holds where nothing is said.
    pub(crate) fn newest() -> Self {
        Self::V2026_11
    }

    /// Reads one; what is wrong with another, in words.
    pub(crate) fn named(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|known| known.name()).collect();
            format!("{text:?} is no contract that is spoken here: {}", known.join(", "))
        })
    }
}

/// Which one a request is answered by, where it says one or its key is `pinned`. What it says itself goes before.
pub(crate) fn held(headers: &HeaderMap, pinned: Option<&str>) -> Result<Option<Contract>, Problem> {
    let invalid =
        |why: String| Problem::new("option-invalid", format!("{HEADER}: {why}; nothing was sent."));
    let mut lines = headers.get_all(HEADER).iter();
    let Some(line) = lines.next() else {
        let of_key = |why| invalid(format!("the access key is pinned to it, and {why}"));
        return pinned.map(Contract::named).transpose().map_err(of_key);
    };
    if lines.next().is_some() {
        return Err(invalid("it is there more than once".to_owned()));
    }
    let text = line.to_str().map_err(|_| invalid("it is not text".to_owned()))?;
    Contract::named(text.trim()).map(Some).map_err(invalid)
}

/// Tells which one an answer is of.
pub(crate) fn tell<B>(response: &mut Response<B>, contract: Contract) {
    response.headers_mut().insert(HEADER, HeaderValue::from_static(contract.name()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_before_its_key_and_what_is_not_known_is_refused_with_what_is() {
        let held = |lines: &[&str], pinned| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(HEADER, line.parse().unwrap());
            }
            held(&headers, pinned).map_err(|problem| problem.detail.clone())
        };
        assert_eq!(held(&[], None), Ok(None));
        for (lines, pinned) in
            [(&["2026-11"][..], None), (&[], Some("2026-11")), (&["2026-11"], Some("2031-01"))]
        {
            assert_eq!(held(lines, pinned), Ok(Some(Contract::V2026_11)), "{lines:?} {pinned:?}");
        }
        for (lines, pinned) in [
            (&["2020-01"][..], None),
            (&[""], None),
            (&["newest"], Some("2026-11")),
            (&[], Some("2031-01")),
        ] {
            let refused = held(lines, pinned).unwrap_err();
            assert!(
                refused.contains("2026-11") && refused.ends_with("nothing was sent."),
                "{refused}"
            );
        }
        assert!(held(&["2026-11", "2026-11"], None).unwrap_err().contains("more than once"));
        assert_eq!(Contract::ALL.last(), Some(&Contract::newest()));
    }
}
