//! Lets a request through to its handler where its caller may do that: by the roles that the endpoint
//! needs, and, for a key that is confined or may only send, by the route or the operation that it names.

use std::sync::Arc;

use axum::extract::{FromRequestParts as _, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header;
use onceward::Refusal;
use onceward::core::key::ScopeKind;
use onceward::core::operation::Operation;
use url::form_urlencoded;

use super::Caller;
use super::endpoint::{Endpoint, Reach, allow, endpoint};
use crate::node::Node;
use crate::page;
use crate::problem::Problem;
use crate::view::{View, unknown};

/// Lets a request through to its handler where its caller may do that.
pub(crate) async fn authorise(
    State(node): State<Arc<Node>>,
    request: Request,
    next: Next,
) -> Response {
    // What no handler takes is answered so to everybody.
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else {
        return next.run(request).await;
    };
    let (mut head, body) = request.into_parts();
    let refused = match endpoint(&head.method, path.as_str()) {
        Some(endpoint) => match check_path(&mut head).await {
            Ok(()) => match check(&node, endpoint, &mut head).await {
                Ok(view) => {
                    head.extensions.insert(view);
                    None
                }
                Err(problem) => Some(problem),
            },
            Err(problem) => Some(problem),
        },
        None => Some(page::not_allowed().await),
    };
    let Some(problem) = refused else {
        return next.run(Request::from_parts(head, body)).await;
    };
    let mut response = page::refused(&head, &problem);
    if let Some(allow) = allow(&problem, path.as_str()) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response.map(axum::body::Body::new)
}

/// What stands in a path is text: handlers read it as such.
async fn check_path(head: &mut http::request::Parts) -> Result<(), Problem> {
    let read = RawPathParams::from_request_parts(head, &()).await;
    read.map(drop).map_err(|rejection| Problem::new("request-invalid", rejection.body_text()))
}

async fn check(
    node: &Arc<Node>,
    endpoint: &Endpoint,
    head: &mut http::request::Parts,
) -> Result<View, Problem> {
    // `front` admits every request before it is routed.
    let caller = head.extensions.get::<Caller>();
    let caller = caller.ok_or_else(|| Problem::new("unauthenticated", "Nobody was admitted."))?;
    endpoint.admit(caller)?;
    let caller = caller.clone();
    let view = View::of(node, &caller, head.uri.query())?;
    let is_only_own = endpoint.is_only_own(&caller);
    // Whoever sees everybody's is told by the handler what is not there.
    if view.only().is_none() && !is_only_own && !caller.is_confined() {
        return Ok(view);
    }
    let parts = RawPathParams::from_request_parts(head, &()).await.ok();
    let parts = parts.iter().flatten().map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in parts.collect::<Vec<_>>() {
        check_named(&view, &name, &value).await?;
    }
    match endpoint.reach {
        Reach::Route | Reach::Kept => {
            let route = named(head, "route").await;
            check_route(&caller, &route)?;
            if endpoint.reach == Reach::Kept {
                view.check_kept(&route)?;
            }
            if is_only_own {
                check_own(&view, &caller, &route, head)?;
            }
        }
        Reach::Operation if is_only_own || caller.is_confined() => {
            let id = named(head, "id").await;
            let operation = view.find(&id).await?;
            let is_its = !is_only_own || is_own(&view, &operation, &caller);
            // Neither is told from one that is not there.
            if !is_its || !reaches(&view, &caller, &operation).await? {
                return Err(unknown(&id));
            }
        }
        Reach::Nothing | Reach::House | Reach::Whole | Reach::Operation | Reach::Said => {}
    }
    Ok(view)
}

/// What a path names is there for whoever asks, whatever its handler does with it.
async fn check_named(view: &View, name: &str, value: &str) -> Result<(), Problem> {
    match name {
        "id" | "event" => view.find(value).await.map(drop),
        "sub" => view.subscription(value).await.map(drop),
        "bulk" => view.bulk(value).await.map(drop),
        "outbox" => view.outbox(value).map(drop),
        "source" => view.source(value).map(drop),
        "prefix" => view.key(value).await.map(drop),
        "filter" => view.saved_filter(value).await.map(drop),
        // Keys and claims are looked for within the tenant, and routes by what is done to them.
        // A part of the reference is nobody's data.
        "route" | "scope" | "key" | "verb" | "part" => Ok(()),
        _ => Err(Problem::new("forbidden", format!("{name} is told to nobody but an operator."))),
    }
}

/// What the path has at this name.
async fn named(head: &mut http::request::Parts, name: &str) -> String {
    let Ok(named) = RawPathParams::from_request_parts(head, &()).await else {
        return String::new();
    };
    let found = named.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

/// A route that a key is not confined to is for it one that is not there.
pub(crate) fn check_route(caller: &Caller, route: &str) -> Result<(), Problem> {
    if caller.reaches(route) {
        return Ok(());
    }
    Err(Refusal::RouteUnknown(route.to_owned()).into())
}

/// A look for another caller's key is none for one's own, and what came by a source is nobody's.
fn check_own(
    view: &View,
    caller: &Caller,
    route: &str,
    head: &http::request::Parts,
) -> Result<(), Problem> {
    let scope = view.scope_of(route, &caller.principal);
    if scope.principal != caller.principal && view.find_route(route).is_err() {
        return Err(Refusal::RouteUnknown(route.to_owned()).into());
    }
    let query = head.uri.query().unwrap_or_default();
    let other = form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "principal" && value != caller.principal);
    if other {
        return Err(Problem::new(
            "forbidden",
            "Without the role read, a key is looked for among one's own.",
        ));
    }
    Ok(())
}

/// Whether a key that may be confined to routes is told of it: of a saga where it reaches all that this asks.
async fn reaches(view: &View, caller: &Caller, operation: &Operation) -> Result<bool, Problem> {
    if operation.scope.kind != ScopeKind::Saga || !caller.is_confined() {
        return Ok(caller.reaches(&operation.route));
    }
    let saga = view.engine.saga_of(operation.clone()).await?;
    // Where that was forgotten, nobody can say.
    let Some(kept) = saga.kept else { return Ok(false) };
    let mut asks =
        kept.definition.steps.iter().flat_map(|step| [Some(&step.ask), step.undo.as_ref()]);
    Ok(asks.all(|ask| ask.is_none_or(|ask| caller.reaches(&ask.route))))
}

/// Whether a call of `caller` on its route would be in the same scope; whether the saga is its own.
pub(crate) fn is_own(view: &View, operation: &Operation, caller: &Caller) -> bool {
    if matches!(operation.scope.kind, ScopeKind::Saga | ScopeKind::Step) {
        let scope = &operation.scope;
        return scope.tenant == view.tenant() && scope.principal == caller.principal;
    }
    operation.scope == view.scope_of(&operation.route, &caller.principal)
}
