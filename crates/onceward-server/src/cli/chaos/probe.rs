//! What the upstream says of itself: how often something was done.

use serde_json::Value;
use url::Url;

use crate::cli::client::{Answer, Client};
use crate::exit::Exit;

/// What stands for a post's own mark in paths, bodies and probes.
pub(super) const MARKER: &str = "{marker}";

/// Where effects are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    /// A path of the route's own upstream, asked for through the gateway.
    Path(String),
    /// Anywhere else.
    Url(String),
}

impl Probe {
    /// Reads `GET /orders?ref={marker}`, or a URL.
    pub(super) fn parse(text: &str) -> Result<Self, Exit> {
        let place = text.strip_prefix("GET ").unwrap_or(text).trim();
        if place.starts_with('/') {
            return Ok(Self::Path(place.to_owned()));
        }
        // A marker's braces are no URL, what replaces them is.
        let url = Url::parse(&place.replace(MARKER, "x"));
        match url {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self::Url(place.to_owned())),
            _ => Err(Exit::usage(format!(
                "--count {text:?} is neither a path nor a URL\nhelp: write --count 'GET /orders?ref={MARKER}'"
            ))),
        }
    }

    /// Whether it counts one post's effects at a time.
    pub(super) fn is_of_a_post(&self) -> bool {
        let (Self::Path(place) | Self::Url(place)) = self;
        place.contains(MARKER)
    }

    /// How often something was done, for `marker` where the probe asks for one.
    pub(super) async fn count(
        &self,
        client: &Client,
        route: &str,
        marker: &str,
    ) -> Result<u64, Exit> {
        let (place, answer) = match self {
            Self::Path(path) => {
                let place = format!("/to/{route}{}", path.replace(MARKER, marker));
                (place.clone(), client.call(super::route::get(place)).await?)
            }
            Self::Url(url) => {
                let place = url.replace(MARKER, marker);
                let url = Url::parse(&place)
                    .map_err(|error| Exit::usage(format!("--count {place}: {error}")))?;
                (place, client.read_from(&url).await?)
            }
        };
        read(&answer, marker).ok_or_else(|| {
            Exit::failed(format!(
                "{place} answered {} and nothing to count in\nhelp: --count wants a number, or JSON with `count` or `total`, or a document that names each effect's marker",
                answer.status
            ))
        })
    }
}

fn read(answer: &Answer, marker: &str) -> Option<u64> {
    match answer.status {
        200 => {}
        404 if !marker.is_empty() => return Some(0),
        _ => return None,
    }
    let text = std::str::from_utf8(&answer.body).ok()?;
    if let Ok(number) = text.trim().parse() {
        return Some(number);
    }
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let member = ["count", "total"].iter().find_map(|name| document[*name].as_u64());
    member.or_else(|| (!marker.is_empty()).then(|| text.matches(marker).count() as u64))
}

#[cfg(test)]
mod tests {
    use onceward::core::exchange::Headers;

    use super::*;

    #[test]
    fn a_probe_is_a_path_or_a_url() {
        let path = Probe::parse("GET /orders?ref={marker}").unwrap();
        assert_eq!(path, Probe::Path("/orders?ref={marker}".to_owned()));
        assert!(path.is_of_a_post());
        let url = Probe::parse("http://127.0.0.1:1/effects").unwrap();
        assert_eq!(url, Probe::Url("http://127.0.0.1:1/effects".to_owned()));
        assert!(!url.is_of_a_post());
        for wrong in ["orders", "ftp://x/", "POST /orders", ""] {
            assert!(Probe::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn effects_are_counted_in_what_an_upstream_says() {
        let of = |status, text: &str, marker: &str| {
            let body = text.as_bytes().to_vec();
            read(&Answer { status, headers: Headers::default(), body }, marker)
        };
        assert_eq!(of(200, "3\n", ""), Some(3));
        assert_eq!(of(200, "{\"count\": 2, \"calls\": 9}", ""), Some(2));
        assert_eq!(of(200, "{\"total\": 4}", "m-1"), Some(4));
        assert_eq!(of(200, "[{\"ref\":\"m-1\"},{\"ref\":\"m-1\"}]", "m-1"), Some(2));
        assert_eq!(of(404, "none", "m-1"), Some(0));
        assert_eq!((of(404, "none", ""), of(200, "[]", ""), of(500, "1", "")), (None, None, None));
    }
}
