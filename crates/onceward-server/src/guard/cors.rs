//! What pages of other origins may read of a guard. The upstream decides who may; what it allowed an origin holds for what is ours as well: refusals, and answers from
//! memory, which do not keep such headers.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, header};

use crate::config::Guard;
use crate::cors::{Asked, OURS, append_list, readable};

/// How many origins are kept in mind; past it all of them begin anew.
const ORIGINS_MAX: usize = 4096;

/// What upstreams allow origins: by route and origin, whether with credentials.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<HashMap<(String, Vec<u8>), bool>>);

impl Origins {
    fn learn(&self, route: &str, origin: &[u8], with_credentials: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ORIGINS_MAX {
            known.clear();
        }
        known.insert((route.to_owned(), origin.to_vec()), with_credentials);
    }

    fn of(&self, route: &str, origin: &[u8]) -> Option<bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(route.to_owned(), origin.to_vec())).copied()
    }
}

/// How a guard answers pages.
#[derive(Debug)]
pub(super) struct Rule<'a> {
    pub(super) guard: &'a Guard,
    pub(super) origins: &'a Origins,
    /// The headers that may carry a key.
    pub(super) keys: &'a [String],
}

impl Rule<'_> {
    /// Says in `headers` what the page may do with them; `is_ours` where they are no answer of the
    /// upstream's.
    pub(super) fn tell(&self, asked: &Asked, headers: &mut HeaderMap, is_ours: bool) {
        let route = &self.guard.route;
        let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        if let Some(allowed) = allowed.filter(|_| !is_ours) {
            if allowed == asked.origin || allowed.as_bytes() == b"*" {
                self.origins.learn(route, asked.origin.as_bytes(), with_credentials(headers));
            }
            if asked.is_preflight {
                self.allow_keys(headers);
            } else if headers.contains_key("onceward-operation") {
                self.expose(headers, false);
            }
            return;
        }
        let is_memory = headers.get("idempotent-replayed").is_some_and(|value| value == "true");
        let is_receipt = headers.contains_key("preference-applied");
        if !(is_ours || is_memory || is_receipt && headers.contains_key("onceward-operation")) {
            return;
        }
        let cors = &self.guard.cors;
        let is_named = cors.origins.iter().any(|origin| asked.origin == origin.as_str());
        let learnt = self.origins.of(route, asked.origin.as_bytes());
        let Some(credentials) = learnt.or_else(|| is_named.then_some(cors.credentials)) else {
            return;
        };
        asked.allow(headers, credentials);
        self.expose(headers, true);
    }

    /// A page may send a key where it may send anything: an API that knows of no keys does not say so.
    fn allow_keys(&self, headers: &mut HeaderMap) {
        let name = header::ACCESS_CONTROL_ALLOW_HEADERS;
        let there = super::joined(headers, name.as_str()).unwrap_or_default();
        let there = String::from_utf8_lossy(&there).to_ascii_lowercase();
        let listed: Vec<_> = there.split(',').map(str::trim).collect();
        if listed.contains(&"*") && !with_credentials(headers) {
            return;
        }
        let missing: Vec<_> =
            self.keys.iter().filter(|key| !listed.contains(&key.as_str())).cloned().collect();
        append_list(headers, name, &missing);
    }

    /// Lets the page read what we say; and `all` else that stands there, where the upstream did not
    /// say what it may read.
    fn expose(&self, headers: &mut HeaderMap, all: bool) {
        let name = header::ACCESS_CONTROL_EXPOSE_HEADERS;
        let there = super::joined(headers, name.as_str()).unwrap_or_default();
        if there.trim_ascii() == b"*" && !with_credentials(headers) {
            return;
        }
        let is_wanted = |it: &str| match &self.guard.cors.expose {
            None => true,
            Some(names) => names.iter().any(|name| name == it),
        };
        let mut names: BTreeSet<String> =
            OURS.iter().filter(|it| is_wanted(it)).map(|it| (*it).to_owned()).collect();
        if all && self.guard.cors.expose.is_none() {
            names.extend(readable(headers));
        }
        append_list(headers, name, &names.into_iter().collect::<Vec<_>>());
    }
}

fn with_credentials(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCESS_CONTROL_ALLOW_CREDENTIALS)
        .is_some_and(|value| value.as_bytes() == b"true")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::super::tests::guard;
    use super::*;

    const PAGE: &str = "https://app.example";

    fn asked(is_preflight: bool) -> Asked {
        Asked { origin: HeaderValue::from_static(PAGE), is_preflight }
    }

    fn told(
        lines: &str,
        origins: &Origins,
        asked: &Asked,
        headers: &[(&'static str, &'static str)],
        is_ours: bool,
    ) -> HeaderMap {
        let mut map: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let keys = ["idempotency-key".to_owned()];
        Rule { guard: &guard(lines), origins, keys: &keys }.tell(asked, &mut map, is_ours);
        map
    }

    fn text(headers: &HeaderMap, name: &str) -> String {
        String::from_utf8(super::super::joined(headers, name).unwrap_or_default()).unwrap()
    }

    const KEYED: (&str, &str) = ("onceward-operation", "op_1");

    #[test]
    fn a_page_that_the_upstream_lets_read_its_answer_can_read_what_is_ours() {
        let origins = Origins::default();
        let allowed = [KEYED, ("access-control-allow-origin", PAGE)];
        let headers = told("", &origins, &asked(false), &allowed, false);
        assert!(text(&headers, "access-control-expose-headers").contains("idempotent-replayed"));
        let some = "cors = { expose = [\"Onceward-State\"] }";
        let headers = told(some, &origins, &asked(false), &allowed, false);
        assert_eq!(text(&headers, "access-control-expose-headers"), "onceward-state");
        let none = told("", &origins, &asked(false), &[KEYED], false);
        assert_eq!(
            text(&none, "access-control-expose-headers"),
            "",
            "the upstream allowed nothing"
        );
    }

    #[test]
    fn keys_that_a_page_may_send_are_allowed_once_in_whatever_order_they_stand() {
        let keys = ["idempotency-key".to_owned(), "x-key".to_owned()];
        let (guard, origins) = (guard(""), Origins::default());
        let mut headers = HeaderMap::new();
        headers.insert("access-control-allow-origin", HeaderValue::from_static(PAGE));
        let allowed = HeaderValue::from_static("X-Key, Idempotency-Key");
        headers.insert("access-control-allow-headers", allowed.clone());
        let rule = Rule { guard: &guard, origins: &origins, keys: &keys };
        rule.tell(&asked(true), &mut headers, false);
        assert_eq!(headers.get_all("access-control-allow-headers").iter().count(), 1);
        assert_eq!(headers["access-control-allow-headers"], allowed);
    }

    #[test]
    fn a_refusal_and_a_replay_are_read_by_whom_the_upstream_allows() {
        let origins = Origins::default();
        let refused = |origins| told("", origins, &asked(false), &[], true);
        assert_eq!(text(&refused(&origins), "access-control-allow-origin"), "");
        let preflight = [
            ("access-control-allow-origin", PAGE),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", "content-type"),
        ];
        let headers = told("", &origins, &asked(true), &preflight, false);
        assert_eq!(text(&headers, "access-control-allow-headers"), "content-type, idempotency-key");
        let headers = refused(&origins);
        assert_eq!(text(&headers, "access-control-allow-origin"), PAGE);
        assert_eq!(text(&headers, "access-control-allow-credentials"), "true");
        assert_eq!(text(&headers, "vary"), "Origin");
        let replay = [KEYED, ("idempotent-replayed", "true"), ("location", "/1"), ("etag", "x")];
        let headers = told("", &origins, &asked(false), &replay, false);
        assert!(text(&headers, "access-control-expose-headers").contains("location"));
        let other =
            Asked { origin: HeaderValue::from_static("https://evil.example"), ..asked(false) };
        let headers = told("", &origins, &other, &replay, false);
        assert_eq!(text(&headers, "access-control-allow-origin"), "");
    }

    #[test]
    fn origins_that_the_operator_names_need_not_be_learnt() {
        let lines = "cors = { origins = [\"https://app.example\"] }";
        let headers = told(lines, &Origins::default(), &asked(false), &[], true);
        assert_eq!(text(&headers, "access-control-allow-origin"), PAGE);
        assert_eq!(text(&headers, "access-control-allow-credentials"), "");
        let upstreams_own = told(lines, &Origins::default(), &asked(false), &[], false);
        assert_eq!(
            text(&upstreams_own, "access-control-allow-origin"),
            "",
            "it is the upstream's word"
        );
    }
}
