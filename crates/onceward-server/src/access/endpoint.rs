//! Which endpoint needs which role, and how far a key that is confined to routes comes with it. What is
//! not in the table is refused to everybody, so that no new endpoint can be forgotten.

use http::{HeaderValue, Method};

use super::Caller;
use super::role::Roles;
use crate::problem::Problem;

/// What an endpoint shows or changes, as far as routes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing of any route.
    Nothing,
    /// Something of all routes, so it is refused to a key that is confined to some.
    Whole,
    /// The route that `{route}` names.
    Route,
    /// The operation that `{id}` names, on its route.
    Operation,
    /// The handler looks: what it is asked says which routes.
    Said,
}

/// A method and a path, and what they need.
#[derive(Debug)]
pub(crate) struct Endpoint {
    method: &'static str,
    path: &'static str,
    roles: Roles,
    pub(super) reach: Reach,
    /// Whether who may send may do this too, about its own.
    is_own: bool,
}

impl Endpoint {
    const fn or_own(self) -> Self {
        Self { is_own: true, ..self }
    }

    /// Whether `caller` has the roles; what a lack is called.
    pub(crate) fn admit(&self, caller: &Caller) -> Result<(), Problem> {
        let missing = self.roles.without(caller.roles);
        let as_own = self.is_own && caller.roles.has(Roles::SEND);
        if missing != Roles::NONE && !as_own {
            return Err(Problem::new(
                "forbidden",
                format!(
                    "{} needs the role {}; the access key of {} has {}.",
                    self.path,
                    missing.said(),
                    caller.who(),
                    caller.roles.said(),
                ),
            ));
        }
        if self.reach == Reach::Whole && caller.is_confined() {
            return Err(Problem::new(
                "forbidden",
                format!(
                    "{} is about every route; the access key of {} is confined to some.",
                    self.path,
                    caller.who(),
                ),
            ));
        }
        Ok(())
    }

    /// Whether `caller` does this only about its own.
    pub(super) fn is_only_own(&self, caller: &Caller) -> bool {
        self.is_own && !caller.roles.has(self.roles)
    }
}

const fn at(method: &'static str, path: &'static str, roles: Roles, reach: Reach) -> Endpoint {
    Endpoint { method, path, roles, reach, is_own: false }
}

const GET: &str = "GET";
const POST: &str = "POST";
const DELETE: &str = "DELETE";

/// Every method of `/to/{route}/{path}`; the gateway looks at the route.
pub(crate) const CALL: Endpoint = at("ANY", "/to", Roles::SEND, Reach::Said);

pub(crate) const METRICS: Endpoint = at(GET, "/metrics", Roles::READ, Reach::Whole);

/// What is routed: the API, then the pages.
const ROUTED: &[Endpoint] = &[
    at(GET, "/v1/operations", Roles::READ, Reach::Said),
    at(POST, "/v1/operations", Roles::SEND, Reach::Said),
    at(GET, "/v1/operations/{id}", Roles::READ, Reach::Operation).or_own(),
    at(GET, "/v1/operations/{id}/request", Roles::PAYLOADS, Reach::Operation).or_own(),
    at(GET, "/v1/operations/{id}/response", Roles::PAYLOADS, Reach::Operation).or_own(),
    at(GET, "/v1/operations/{id}/evidence", Roles::PAYLOADS, Reach::Operation),
    at(POST, "/v1/operations/{id}/redeliver", Roles::OPERATE, Reach::Operation),
    at(POST, "/v1/operations/{id}/resend", Roles::OPERATE, Reach::Operation),
    at(POST, "/v1/operations/{id}/cancel", Roles::OPERATE, Reach::Operation),
    at(POST, "/v1/operations/{id}/resolve", Roles::OPERATE, Reach::Operation),
    at(POST, "/v1/operations/{id}/lookup", Roles::OPERATE, Reach::Operation),
    at(POST, "/v1/explain", Roles::SEND, Reach::Said),
    at(GET, "/v1/keys/{route}/{key}", Roles::READ, Reach::Route).or_own(),
    at(DELETE, "/v1/keys/{route}/{key}", Roles::OPERATE, Reach::Route),
    at(POST, "/v1/keys/{route}/{key}/extend", Roles::OPERATE, Reach::Route),
    at(POST, "/v1/keys/{route}/{key}/rotate", Roles::OPERATE, Reach::Route),
    at(POST, "/v1/keys/revoke", Roles::OPERATE, Reach::Whole),
    at(POST, "/v1/erase", Roles::ADMIN, Reach::Whole),
    at(GET, "/v1/approvals", Roles::READ, Reach::Whole),
    // A handler's claims belong to no route.
    at(GET, "/v1/claims", Roles::READ, Reach::Whole),
    at(GET, "/v1/claims/{scope}/{key}", Roles::SEND, Reach::Whole),
    at(POST, "/v1/claims/{scope}/{key}", Roles::SEND, Reach::Whole),
    at(DELETE, "/v1/claims/{scope}/{key}", Roles::OPERATE, Reach::Whole),
    at(POST, "/v1/claims/{scope}/{key}/{verb}", Roles::SEND, Reach::Whole),
    at(GET, "/v1/routes", Roles::READ, Reach::Said),
    at(GET, "/v1/routes/{route}/advice", Roles::READ, Reach::Route),
    at(POST, "/v1/routes/{route}/pause", Roles::OPERATE, Reach::Route),
    at(POST, "/v1/routes/{route}/resume", Roles::OPERATE, Reach::Route),
    at(POST, "/v1/routes/{route}/lookup", Roles::OPERATE, Reach::Route),
    at(GET, "/v1/routes/{route}/reconcile", Roles::READ, Reach::Route),
    at(POST, "/v1/resolve", Roles::OPERATE, Reach::Whole),
    at(GET, "/v1/bulk", Roles::READ, Reach::Whole),
    at(POST, "/v1/bulk", Roles::OPERATE, Reach::Whole),
    at(GET, "/v1/bulk/{name}", Roles::READ, Reach::Whole),
    at(POST, "/v1/bulk/{name}/stop", Roles::OPERATE, Reach::Whole),
    at(GET, "/v1/outbox", Roles::READ, Reach::Whole),
    at(GET, "/v1/outbox/{name}", Roles::READ, Reach::Whole),
    at(POST, "/v1/outbox/{name}/retry", Roles::OPERATE, Reach::Whole),
    at(GET, "/v1/sources", Roles::READ, Reach::Whole),
    at(GET, "/v1/sources/{source}", Roles::READ, Reach::Whole),
    at(GET, "/v1/sources/{source}/rejects", Roles::PAYLOADS, Reach::Whole),
    at(GET, "/v1/stats", Roles::READ, Reach::Whole),
    at(GET, "/v1/audit", Roles::ADMIN, Reach::Whole),
    at(GET, "/v1/audit/verify", Roles::ADMIN, Reach::Whole),
    at(GET, "/v1/audit/export", Roles::ADMIN, Reach::Whole),
    at(POST, "/v1/backup", Roles::ADMIN, Reach::Whole),
    at(POST, "/v1/release", Roles::ADMIN, Reach::Whole),
    at(GET, "/v1/access", Roles::ADMIN, Reach::Whole),
    at(POST, "/v1/access", Roles::ADMIN, Reach::Whole),
    at(DELETE, "/v1/access/{prefix}", Roles::ADMIN, Reach::Whole),
    at(POST, "/v1/access/{prefix}/rotate", Roles::ADMIN, Reach::Whole),
    at(GET, "/", Roles::READ, Reach::Whole),
    at(GET, "/operations", Roles::READ, Reach::Whole),
    at(GET, "/dead", Roles::READ, Reach::Whole),
    at(GET, "/in-doubt", Roles::READ, Reach::Whole),
    at(GET, "/audit", Roles::ADMIN, Reach::Whole),
    at(POST, "/bulk", Roles::OPERATE, Reach::Whole),
    at(GET, "/bulk/plan", Roles::OPERATE, Reach::Whole),
    at(GET, "/bulk/{name}", Roles::READ, Reach::Whole),
    at(POST, "/bulk/{name}/stop", Roles::OPERATE, Reach::Whole),
    // Its frame has the counts of every route.
    at(GET, "/operations/{id}", Roles::READ, Reach::Whole),
    at(GET, "/operations/{id}/redeliver", Roles::OPERATE, Reach::Whole),
    at(POST, "/operations/{id}/redeliver", Roles::OPERATE, Reach::Whole),
    at(GET, "/operations/{id}/resend", Roles::OPERATE.and(Roles::PAYLOADS), Reach::Whole),
    at(POST, "/operations/{id}/resend", Roles::OPERATE, Reach::Whole),
    at(GET, "/operations/{id}/cancel", Roles::OPERATE, Reach::Whole),
    at(POST, "/operations/{id}/cancel", Roles::OPERATE, Reach::Whole),
    at(GET, "/operations/{id}/resolve", Roles::OPERATE, Reach::Whole),
    at(POST, "/operations/{id}/resolve", Roles::OPERATE, Reach::Whole),
    at(GET, "/operations/{id}/forget", Roles::OPERATE, Reach::Whole),
    at(POST, "/operations/{id}/forget", Roles::OPERATE, Reach::Whole),
    at(GET, "/operations/{id}/lookup", Roles::OPERATE, Reach::Whole),
    at(POST, "/operations/{id}/lookup", Roles::OPERATE, Reach::Whole),
    at(GET, "/sources", Roles::READ, Reach::Whole),
    at(GET, "/upstreams", Roles::READ, Reach::Whole),
    at(POST, "/upstreams/{route}/pause", Roles::OPERATE, Reach::Whole),
    at(POST, "/upstreams/{route}/resume", Roles::OPERATE, Reach::Whole),
    at(GET, "/style.css", Roles::NONE, Reach::Nothing),
    at(GET, "/icon.svg", Roles::NONE, Reach::Nothing),
    at(GET, "/favicon.ico", Roles::NONE, Reach::Nothing),
];

/// What this needs, where it is known.
pub(super) fn endpoint(method: &Method, path: &str) -> Option<&'static Endpoint> {
    let method = if *method == Method::HEAD { GET } else { method.as_str() };
    ROUTED.iter().find(|endpoint| endpoint.path == path && endpoint.method == method)
}

/// The methods that a path takes, where this is not one.
pub(super) fn allow(problem: &Problem, path: &str) -> Option<HeaderValue> {
    if problem.code != "method-not-allowed" {
        return None;
    }
    let of_path = ROUTED.iter().filter(|endpoint| endpoint.path == path);
    let methods = of_path.map(|endpoint| match endpoint.method {
        GET => "GET,HEAD",
        method => method,
    });
    HeaderValue::from_str(&methods.collect::<Vec<_>>().join(",")).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The methods and paths that a source file registers.
    fn registered(source: &str) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for route in source.split(".route(\"").skip(1) {
            let (path, handlers) = route.split_once('"').unwrap();
            let handlers = handlers.split("\n}").next().unwrap();
            for (method, word) in [(GET, "get("), (POST, "post("), (DELETE, "delete(")] {
                if handlers.contains(word) {
                    found.push((method, path.to_owned()));
                }
            }
            for word in ["put(", "patch(", "any(", "on("] {
                assert!(!handlers.contains(word), "{path}: the table knows no {word}");
            }
        }
        found
    }

    #[test]
    fn every_endpoint_says_which_role_it_needs() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let folder = std::fs::read_dir(sources.join("operator")).unwrap();
        let files = folder.map(|file| file.unwrap().path()).chain([sources.join("page.rs")]);
        let registered: BTreeSet<_> =
            files.flat_map(|file| registered(&std::fs::read_to_string(file).unwrap())).collect();
        let said: BTreeSet<_> =
            ROUTED.iter().map(|endpoint| (endpoint.method, endpoint.path.to_owned())).collect();
        assert_eq!(said.len(), ROUTED.len(), "said twice");
        assert!(registered.len() > 60, "the sources are read: {}", registered.len());
        assert_eq!(registered, said);
    }

    #[test]
    fn what_names_its_route_or_operation_has_it_in_its_path() {
        for endpoint in ROUTED {
            let named = match endpoint.reach {
                Reach::Route => "{route}",
                Reach::Operation => "{id}",
                Reach::Nothing | Reach::Whole | Reach::Said => continue,
            };
            assert!(endpoint.path.contains(named), "{endpoint:?}");
        }
        for endpoint in ROUTED.iter().filter(|endpoint| endpoint.is_own) {
            assert!(matches!(endpoint.reach, Reach::Route | Reach::Operation), "{endpoint:?}");
        }
    }
}
