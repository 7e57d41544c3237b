//! Which endpoint needs which role, and how far a key that is confined to routes comes with it. What is
//! not in the table is refused to everybody, so that no new endpoint can be forgotten.

use http::request::Parts;
use http::{HeaderValue, Method};

use super::role::Roles;
use super::{Caller, Looks, TENANT};
use crate::openapi::{Described, api};
use crate::problem::Problem;

/// What an endpoint shows or changes, as far as routes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing of any route.
    Nothing,
    /// The whole gateway, so it is refused to a key of another tenant, too.
    House,
    /// Something of all routes, so it is refused to a key that is confined to some.
    Whole,
    /// What the route that `{route}` names is for all who use it.
    Kept,
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
    /// Whether a key for web pages may do this.
    is_for_pages: bool,
    /// Whether it is the way in: whoever is nobody yet may ask for it.
    is_open: bool,
    /// What the document of the API says of it; nothing of a page.
    pub(crate) described: &'static [Described],
}

impl Endpoint {
    const fn or_own(self) -> Self {
        Self { is_own: true, ..self }
    }

    const fn for_pages(self) -> Self {
        Self { is_for_pages: true, ..self }
    }

    const fn open(self) -> Self {
        Self { is_open: true, ..self }
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
        if caller.is_page() && !self.is_for_pages {
            return Err(Problem::new(
                "forbidden",
                format!(
                    "{} is not for web pages; the access key of {} is for them alone.",
                    self.path,
                    caller.who(),
                ),
            ));
        }
        if matches!(self.reach, Reach::House | Reach::Whole) && caller.is_confined() {
            return Err(Problem::new(
                "forbidden",
                format!(
                    "{} is about every route; the access key of {} is confined to some.",
                    self.path,
                    caller.who(),
                ),
            ));
        }
        if self.reach == Reach::House && caller.tenant != TENANT {
            return Err(Problem::new(
                "forbidden",
                format!(
                    "{} is about the whole gateway; the access key of {} is for what is its tenant's.",
                    self.path,
                    caller.who(),
                ),
            ));
        }
        Ok(())
    }

    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    pub(crate) fn path(&self) -> &'static str {
        self.path
    }

    pub(crate) fn roles(&self) -> Roles {
        self.roles
    }

    /// Whether who may send may do this too, about its own.
    pub(crate) fn is_own(&self) -> bool {
        self.is_own
    }

    /// Whether who runs the gateway may mean one tenant by it.
    pub(crate) fn sees_tenants(&self) -> bool {
        !matches!(self.reach, Reach::Nothing | Reach::House)
    }

    /// Whether a key for web pages may do this.
    pub(crate) fn is_for_pages(&self) -> bool {
        self.is_for_pages
    }

    /// The word for how far a key comes that is confined to routes.
    pub(crate) fn reach_name(&self) -> &'static str {
        match self.reach {
            Reach::Nothing => "nothing",
            Reach::House => "gateway",
            Reach::Kept => "kept",
            Reach::Whole => "whole",
            Reach::Route => "route",
            Reach::Operation => "operation",
            Reach::Said => "said",
        }
    }

    /// Whether `caller` does this only about its own.
    pub(super) fn is_only_own(&self, caller: &Caller) -> bool {
        self.is_own && !caller.roles.has(self.roles)
    }
}

/// An endpoint of the API. What the document says of it is no option: without it nothing compiles.
const fn api(
    method: &'static str,
    path: &'static str,
    roles: Roles,
    reach: Reach,
    described: &'static [Described],
) -> Endpoint {
    assert!(!described.is_empty(), "the document of the API says what each endpoint does");
    Endpoint { described, ..plain(method, path, roles, reach) }
}

/// A page, or a file of one.
const fn page(method: &'static str, path: &'static str, roles: Roles, reach: Reach) -> Endpoint {
    let bytes = path.as_bytes();
    let is_api = bytes.len() > 3 && bytes[1] == b'v' && bytes[2] == b'1' && bytes[3] == b'/';
    assert!(!is_api, "an endpoint of the API is described");
    plain(method, path, roles, reach)
}

const fn plain(method: &'static str, path: &'static str, roles: Roles, reach: Reach) -> Endpoint {
    let (is_own, is_for_pages, is_open) = (false, false, false);
    Endpoint { method, path, roles, reach, is_own, is_for_pages, is_open, described: &[] }
}

const GET: &str = "GET";
const POST: &str = "POST";
const DELETE: &str = "DELETE";

/// Every method of `/to/{route}/{path}`; the gateway looks at the route.
pub(crate) const CALL: Endpoint = page("ANY", "/to", Roles::SEND, Reach::Said).for_pages();

pub(crate) const METRICS: Endpoint =
    api(GET, "/metrics", Roles::READ, Reach::House, api::GET_METRICS);

/// What is routed: the API, then the pages.
const ROUTED: &[Endpoint] = &[
    api(GET, "/v1/operations", Roles::READ, Reach::Said, api::LIST_OPERATIONS),
    api(POST, "/v1/operations", Roles::SEND, Reach::Said, api::SEND).for_pages(),
    api(GET, "/v1/dead-letters/groups", Roles::READ, Reach::Said, api::GROUP_DEAD_LETTERS),
    api(GET, "/v1/changes", Roles::READ, Reach::Said, api::FOLLOW),
    api(GET, "/v1/operations/{id}", Roles::READ, Reach::Operation, api::GET_OPERATION)
        .or_own()
        .for_pages(),
    api(GET, "/v1/operations/{id}/request", Roles::PAYLOADS, Reach::Operation, api::GET_REQUEST)
        .or_own()
        .for_pages(),
    api(GET, "/v1/operations/{id}/response", Roles::PAYLOADS, Reach::Operation, api::GET_RESPONSE)
        .or_own()
        .for_pages(),
    api(GET, "/v1/operations/{id}/evidence", Roles::PAYLOADS, Reach::Operation, api::GET_EVIDENCE),
    api(POST, "/v1/operations/{id}/redeliver", Roles::OPERATE, Reach::Operation, api::REDELIVER),
    api(POST, "/v1/operations/{id}/resend", Roles::OPERATE, Reach::Operation, api::RESEND),
    api(POST, "/v1/operations/{id}/cancel", Roles::OPERATE, Reach::Operation, api::CANCEL),
    api(POST, "/v1/operations/{id}/retry", Roles::OPERATE, Reach::Operation, api::RETRY),
    api(POST, "/v1/operations/{id}/resolve", Roles::OPERATE, Reach::Operation, api::RESOLVE),
    api(POST, "/v1/operations/{id}/lookup", Roles::OPERATE, Reach::Operation, api::LOOK_UP),
    api(POST, "/v1/explain", Roles::SEND, Reach::Said, api::EXPLAIN),
    api(GET, "/v1/keys/{route}/{key}", Roles::READ, Reach::Route, api::GET_KEY)
        .or_own()
        .for_pages(),
    api(DELETE, "/v1/keys/{route}/{key}", Roles::OPERATE, Reach::Route, api::FORGET_KEY),
    api(POST, "/v1/keys/{route}/{key}/extend", Roles::OPERATE, Reach::Route, api::EXTEND_KEY),
    api(POST, "/v1/keys/{route}/{key}/rotate", Roles::OPERATE, Reach::Route, api::ROTATE_KEY),
    api(POST, "/v1/keys/revoke", Roles::OPERATE, Reach::Whole, api::REVOKE_KEYS),
    api(POST, "/v1/erase", Roles::ADMIN, Reach::Whole, api::ERASE),
    api(GET, "/v1/approvals", Roles::READ, Reach::Whole, api::LIST_APPROVALS),
    // A handler's claims belong to no route.
    api(GET, "/v1/claims", Roles::READ, Reach::Whole, api::LIST_CLAIM_RULES),
    api(GET, "/v1/claims/{scope}/{key}", Roles::SEND, Reach::Whole, api::GET_CLAIM),
    api(POST, "/v1/claims/{scope}/{key}", Roles::SEND, Reach::Whole, api::CLAIM_MANY),
    api(DELETE, "/v1/claims/{scope}/{key}", Roles::OPERATE, Reach::Whole, api::FORGET_CLAIM),
    api(POST, "/v1/claims/{scope}/{key}/{verb}", Roles::SEND, Reach::Whole, api::CLAIM),
    // What a saga asks is on many routes; the handler looks at each.
    api(GET, "/v1/sagas", Roles::READ, Reach::Whole, api::LIST_SAGAS),
    api(POST, "/v1/sagas", Roles::SEND, Reach::Said, api::START_SAGA),
    api(GET, "/v1/sagas/{id}", Roles::READ, Reach::Operation, api::GET_SAGA).or_own(),
    api(POST, "/v1/sagas/{id}/pause", Roles::OPERATE, Reach::Operation, api::PAUSE_SAGA),
    api(POST, "/v1/sagas/{id}/resume", Roles::OPERATE, Reach::Operation, api::RESUME_SAGA),
    api(POST, "/v1/sagas/{id}/retry", Roles::OPERATE, Reach::Operation, api::RETRY_SAGA),
    api(POST, "/v1/sagas/{id}/cancel", Roles::OPERATE, Reach::Operation, api::CANCEL_SAGA),
    api(POST, "/v1/sagas/{id}/resolve", Roles::OPERATE, Reach::Operation, api::RESOLVE_SAGA),
    api(GET, "/v1/routes", Roles::READ, Reach::Said, api::LIST_ROUTES),
    api(GET, "/v1/routes/{route}/advice", Roles::READ, Reach::Kept, api::GET_ADVICE),
    api(GET, "/v1/routes/{route}/contract", Roles::NONE, Reach::Route, api::GET_CONTRACT),
    api(POST, "/v1/routes/{route}/pause", Roles::OPERATE, Reach::Kept, api::PAUSE),
    api(POST, "/v1/routes/{route}/resume", Roles::OPERATE, Reach::Kept, api::RESUME),
    api(POST, "/v1/routes/{route}/probe", Roles::OPERATE, Reach::Kept, api::PROBE),
    api(POST, "/v1/routes/{route}/lookup", Roles::OPERATE, Reach::Kept, api::LOOK_UP_ON_ROUTE),
    api(GET, "/v1/routes/{route}/reconcile", Roles::READ, Reach::Kept, api::GET_RECONCILIATION),
    api(POST, "/v1/resolve", Roles::OPERATE, Reach::Whole, api::RESOLVE_BY_LIST),
    api(GET, "/v1/bulk", Roles::READ, Reach::Whole, api::LIST_BULKS),
    api(POST, "/v1/bulk", Roles::OPERATE, Reach::Whole, api::BEGIN_BULK),
    api(GET, "/v1/bulk/{bulk}", Roles::READ, Reach::Whole, api::GET_BULK),
    api(POST, "/v1/bulk/{bulk}/stop", Roles::OPERATE, Reach::Whole, api::STOP_BULK),
    // Whoever reads a list finds it by them; they are everybody's of the tenant.
    api(GET, "/v1/filters", Roles::READ, Reach::Whole, api::LIST_FILTERS),
    api(POST, "/v1/filters", Roles::OPERATE, Reach::Whole, api::SAVE_FILTER),
    api(DELETE, "/v1/filters/{filter}", Roles::OPERATE, Reach::Whole, api::DELETE_FILTER),
    // An event belongs to no route.
    api(GET, "/v1/events", Roles::READ, Reach::Whole, api::LIST_EVENTS),
    api(POST, "/v1/events", Roles::SEND, Reach::Whole, api::PUBLISH),
    api(GET, "/v1/events/{event}", Roles::READ, Reach::Whole, api::GET_EVENT),
    api(GET, "/v1/subscriptions", Roles::READ, Reach::Whole, api::LIST_SUBSCRIPTIONS),
    api(POST, "/v1/subscriptions", Roles::OPERATE, Reach::Whole, api::SUBSCRIBE),
    api(GET, "/v1/subscriptions/{sub}", Roles::READ, Reach::Whole, api::GET_SUBSCRIPTION),
    api(POST, "/v1/subscriptions/{sub}", Roles::OPERATE, Reach::Whole, api::CHANGE_SUBSCRIPTION),
    api(DELETE, "/v1/subscriptions/{sub}", Roles::OPERATE, Reach::Whole, api::END_SUBSCRIPTION),
    api(POST, "/v1/subscriptions/{sub}/pause", Roles::OPERATE, Reach::Whole, api::PAUSE_RECEIVER),
    api(POST, "/v1/subscriptions/{sub}/resume", Roles::OPERATE, Reach::Whole, api::RESUME_RECEIVER),
    api(POST, "/v1/subscriptions/{sub}/rotate", Roles::OPERATE, Reach::Whole, api::ROTATE_SIGNING),
    api(POST, "/v1/subscriptions/{sub}/test", Roles::OPERATE, Reach::Whole, api::TEST_RECEIVER),
    api(POST, "/v1/subscriptions/{sub}/recover", Roles::OPERATE, Reach::Whole, api::RECOVER),
    api(GET, "/v1/outbox", Roles::READ, Reach::Whole, api::LIST_OUTBOXES),
    api(GET, "/v1/outbox/{outbox}", Roles::READ, Reach::Whole, api::GET_OUTBOX),
    api(POST, "/v1/outbox/{outbox}/retry", Roles::OPERATE, Reach::Whole, api::RETRY_PARKED),
    api(GET, "/v1/sources", Roles::READ, Reach::Whole, api::LIST_SOURCES),
    api(GET, "/v1/sources/{source}", Roles::READ, Reach::Whole, api::GET_SOURCE),
    api(GET, "/v1/sources/{source}/rejects", Roles::PAYLOADS, Reach::Whole, api::LIST_REJECTS),
    api(GET, "/v1/alerts", Roles::READ, Reach::Whole, api::LIST_ALERTS),
    api(POST, "/v1/alerts/test", Roles::OPERATE, Reach::House, api::TEST_ALERTS),
    api(GET, "/v1/stats", Roles::READ, Reach::Whole, api::GET_STATS),
    api(GET, "/v1/duplicates", Roles::READ, Reach::Whole, api::LIST_DUPLICATES),
    api(GET, "/v1/suspects", Roles::READ, Reach::Whole, api::LIST_SUSPECTS),
    api(GET, "/v1/audit", Roles::ADMIN, Reach::Whole, api::LIST_AUDIT),
    api(GET, "/v1/audit/verify", Roles::ADMIN, Reach::House, api::VERIFY_AUDIT),
    api(GET, "/v1/audit/export", Roles::ADMIN, Reach::House, api::EXPORT_AUDIT),
    api(POST, "/v1/backup", Roles::ADMIN, Reach::House, api::BACK_UP),
    api(POST, "/v1/release", Roles::ADMIN, Reach::House, api::RELEASE),
    api(GET, "/v1/rekey", Roles::ADMIN, Reach::House, api::GET_REKEY),
    api(POST, "/v1/rekey", Roles::ADMIN, Reach::House, api::REKEY),
    api(GET, "/v1/access", Roles::ADMIN, Reach::Whole, api::LIST_ACCESS),
    api(POST, "/v1/access", Roles::ADMIN, Reach::Whole, api::CREATE_ACCESS),
    api(DELETE, "/v1/access/{prefix}", Roles::ADMIN, Reach::Whole, api::REVOKE_ACCESS),
    api(POST, "/v1/access/{prefix}/rotate", Roles::ADMIN, Reach::Whole, api::ROTATE_ACCESS),
    api(GET, "/v1/sessions", Roles::ADMIN, Reach::House, api::LIST_SESSIONS),
    api(DELETE, "/v1/sessions/{session}", Roles::ADMIN, Reach::House, api::END_SESSION),
    api(GET, "/v1/openapi.json", Roles::NONE, Reach::Nothing, api::GET_DOCUMENT),
    page(GET, "/openapi.json", Roles::NONE, Reach::Nothing),
    page(GET, "/", Roles::READ, Reach::Whole),
    page(GET, "/alerts", Roles::READ, Reach::Whole),
    page(GET, "/operations", Roles::READ, Reach::Whole),
    page(GET, "/dead", Roles::READ, Reach::Whole),
    page(GET, "/in-doubt", Roles::READ, Reach::Whole),
    page(GET, "/audit", Roles::ADMIN, Reach::Whole),
    page(GET, "/sagas", Roles::READ, Reach::Whole),
    page(GET, "/sagas/{id}", Roles::READ, Reach::Operation),
    page(POST, "/sagas/{id}/pause", Roles::OPERATE, Reach::Operation),
    page(POST, "/sagas/{id}/resume", Roles::OPERATE, Reach::Operation),
    page(POST, "/sagas/{id}/retry", Roles::OPERATE, Reach::Operation),
    page(POST, "/sagas/{id}/cancel", Roles::OPERATE, Reach::Operation),
    page(POST, "/sagas/{id}/resolve", Roles::OPERATE, Reach::Operation),
    page(GET, "/bulk", Roles::READ, Reach::Whole),
    page(POST, "/bulk", Roles::OPERATE, Reach::Whole),
    page(GET, "/bulk/plan", Roles::OPERATE, Reach::Whole),
    page(POST, "/bulk/plan", Roles::OPERATE, Reach::Whole),
    page(GET, "/bulk/{bulk}", Roles::READ, Reach::Whole),
    page(POST, "/filters", Roles::OPERATE, Reach::Whole),
    page(POST, "/filters/delete", Roles::OPERATE, Reach::Whole),
    page(POST, "/bulk/{bulk}/stop", Roles::OPERATE, Reach::Whole),
    // Its frame has the counts of every route.
    page(GET, "/operations/{id}", Roles::READ, Reach::Whole),
    page(GET, "/operations/{id}/request", Roles::READ.and(Roles::PAYLOADS), Reach::Whole),
    page(GET, "/operations/{id}/response", Roles::READ.and(Roles::PAYLOADS), Reach::Whole),
    page(GET, "/operations/{id}/redeliver", Roles::OPERATE, Reach::Whole),
    page(POST, "/operations/{id}/redeliver", Roles::OPERATE, Reach::Whole),
    page(GET, "/operations/{id}/resend", Roles::OPERATE.and(Roles::PAYLOADS), Reach::Whole),
    page(POST, "/operations/{id}/resend", Roles::OPERATE, Reach::Whole),
    page(GET, "/operations/{id}/cancel", Roles::OPERATE, Reach::Whole),
    page(POST, "/operations/{id}/cancel", Roles::OPERATE, Reach::Whole),
    page(GET, "/operations/{id}/retry", Roles::OPERATE, Reach::Whole),
    page(POST, "/operations/{id}/retry", Roles::OPERATE, Reach::Whole),
    page(GET, "/operations/{id}/resolve", Roles::OPERATE, Reach::Whole),
    page(POST, "/operations/{id}/resolve", Roles::OPERATE, Reach::Whole),
    page(GET, "/operations/{id}/forget", Roles::OPERATE, Reach::Whole),
    page(POST, "/operations/{id}/forget", Roles::OPERATE, Reach::Whole),
    page(GET, "/operations/{id}/lookup", Roles::OPERATE, Reach::Whole),
    page(POST, "/operations/{id}/lookup", Roles::OPERATE, Reach::Whole),
    page(GET, "/sources", Roles::READ, Reach::Whole),
    page(GET, "/events", Roles::READ, Reach::Whole),
    page(GET, "/events/{event}", Roles::READ, Reach::Whole),
    page(GET, "/subscriptions", Roles::READ, Reach::Whole),
    page(POST, "/subscriptions/{sub}/pause", Roles::OPERATE, Reach::Whole),
    page(POST, "/subscriptions/{sub}/resume", Roles::OPERATE, Reach::Whole),
    page(POST, "/subscriptions/{sub}/recover", Roles::OPERATE, Reach::Whole),
    page(POST, "/subscriptions/{sub}/test", Roles::OPERATE, Reach::Whole),
    page(GET, "/outboxes", Roles::READ, Reach::Whole),
    page(GET, "/keys", Roles::READ, Reach::Whole),
    page(GET, "/duplicates", Roles::READ, Reach::Whole),
    page(GET, "/upstreams", Roles::READ, Reach::Whole),
    page(POST, "/upstreams/{route}/pause", Roles::OPERATE, Reach::Kept),
    page(POST, "/upstreams/{route}/resume", Roles::OPERATE, Reach::Kept),
    page(POST, "/upstreams/{route}/probe", Roles::OPERATE, Reach::Kept),
    page(GET, "/send", Roles::SEND.and(Roles::READ), Reach::Whole),
    page(POST, "/send", Roles::SEND.and(Roles::READ), Reach::Whole),
    page(GET, "/contract/{route}", Roles::NONE, Reach::Route),
    page(GET, "/docs", Roles::NONE, Reach::Nothing),
    page(GET, "/docs/problems", Roles::NONE, Reach::Nothing),
    page(GET, "/docs/on-call/{alert}", Roles::NONE, Reach::Nothing),
    page(GET, "/docs/{part}", Roles::NONE, Reach::Nothing),
    page(GET, "/docs.css", Roles::NONE, Reach::Nothing),
    page(GET, "/login", Roles::NONE, Reach::Nothing).open(),
    page(POST, "/login", Roles::NONE, Reach::Nothing).open(),
    page(GET, "/login/oidc", Roles::NONE, Reach::Nothing).open(),
    page(GET, "/login/oidc/callback", Roles::NONE, Reach::Nothing).open(),
    page(POST, "/logout", Roles::NONE, Reach::Nothing).open(),
    page(GET, "/style.css", Roles::NONE, Reach::Nothing).open(),
    page(GET, "/script.js", Roles::NONE, Reach::Nothing).open(),
    page(GET, "/icon.svg", Roles::NONE, Reach::Nothing).open(),
    page(GET, "/favicon.ico", Roles::NONE, Reach::Nothing).open(),
];

/// How far a session of the pages is of use at a path.
pub(crate) fn looks(head: &Parts) -> Looks {
    let path = head.uri.path();
    let is_look = matches!(head.method, Method::GET | Method::HEAD);
    if path.starts_with("/to/") || path == "/to" || (path.starts_with("/v1/") && !is_look) {
        Looks::Nowhere
    } else if ROUTED.iter().any(|endpoint| endpoint.is_open && endpoint.path == path) {
        Looks::Outside
    } else {
        Looks::Inside
    }
}

/// Everything that is routed.
pub(crate) fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    ROUTED.iter()
}

/// What this needs, where it is known.
pub(super) fn endpoint(method: &Method, path: &str) -> Option<&'static Endpoint> {
    let method = if *method == Method::HEAD { GET } else { method.as_str() };
    ROUTED.iter().find(|endpoint| endpoint.path == path && endpoint.method == method)
}

/// The methods that a key for pages may ask with at the address `path`; nothing where it may not ask.
pub(super) fn page_methods(path: &str) -> Option<String> {
    if path == "/to" || path.starts_with("/to/") {
        return Some("GET, HEAD, POST, PUT, PATCH, DELETE".to_owned());
    }
    let parts = || path.split('/');
    let fits = |template: &str| {
        let wanted = template.split('/');
        wanted.clone().count() == parts().count()
            && wanted.zip(parts()).all(|(wanted, part)| wanted.starts_with('{') || wanted == part)
    };
    let open = ROUTED.iter().filter(|endpoint| endpoint.is_for_pages && fits(endpoint.path));
    let methods =
        open.map(|endpoint| if endpoint.method == GET { "GET, HEAD" } else { endpoint.method });
    let methods: Vec<_> = methods.collect();
    (!methods.is_empty()).then(|| methods.join(", "))
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
                Reach::Route | Reach::Kept => "{route}",
                Reach::Operation => "{id}",
                Reach::Nothing | Reach::House | Reach::Whole | Reach::Said => continue,
            };
            assert!(endpoint.path.contains(named), "{endpoint:?}");
        }
        for endpoint in ROUTED.iter().filter(|endpoint| endpoint.is_own) {
            assert!(matches!(endpoint.reach, Reach::Route | Reach::Operation), "{endpoint:?}");
        }
    }
}
