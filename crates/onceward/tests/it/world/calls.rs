//! Routes, policies and calls that most tests use, and what is taken out of an answer.

use std::sync::Arc;

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request, Response};
use onceward::core::key::{Scope, ScopeKind};
use onceward::core::operation::Operation;
use onceward::core::policy::{Effects, Policy};
use onceward::route::{Route, Routes};
use onceward::upstream::{Target, Timeouts, Trust};
use onceward::{Answer, Answered, Call, CallOptions, Person, Refusal};

use super::PAY;

/// The scope of a call's key on the route `pay`.
pub(crate) fn scope() -> Scope {
    Scope {
        kind: ScopeKind::Call,
        tenant: "t".to_owned(),
        name: PAY.to_owned(),
        principal: String::new(),
    }
}

/// A policy with these effects.
pub(crate) fn effects(effects: Effects) -> Policy {
    Policy { effects: Some(effects), ..Policy::default() }
}

/// A route to the upstream that has its name.
pub(crate) fn route(name: &str, policy: &Policy) -> Route {
    let target = Target {
        base: format!("http://{name}.test").parse().unwrap(),
        trust: Trust::Operator,
        http2: false,
        tls: None,
        mail: None,
        timeouts: Timeouts::default(),
    };
    Route { response_bytes_max: 1 << 20, ..Route::new(name, target, policy.clone()) }
}

pub(crate) fn routes(all: impl IntoIterator<Item = Route>) -> Routes {
    let named = all.into_iter().map(|route| (route.name.clone(), Arc::new(route))).collect();
    Routes { named, ad_hoc: Arc::new(route("ad-hoc", &Policy::default())) }
}

/// A held POST of a payment with `key` on the route `pay`.
pub(crate) fn post(key: &str) -> Call {
    let line =
        |name: &str, value: &str| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
    Call {
        tenant: "t".to_owned(),
        principal: String::new(),
        route: PAY.to_owned(),
        request: Request {
            method: "POST".to_owned(),
            target: "/payments?dry=no".to_owned(),
            headers: Headers(vec![
                line("content-type", "application/json"),
                line("idempotency-key", key),
            ]),
            body: Bytes::from_static(br#"{"amount": 100, "to": "anna"}"#),
        },
        options: CallOptions::default(),
    }
}

/// The same, accepted: nobody waits.
pub(crate) fn accepted(key: &str) -> Call {
    let mut call = post(key);
    call.options.respond_async = true;
    call
}

/// The same with a header more.
pub(crate) fn with_header(mut call: Call, name: &str, value: &'static str) -> Call {
    call.request.headers.set(name, Bytes::from_static(value.as_bytes()));
    call
}

/// Somebody with a reason.
pub(crate) fn person() -> Person {
    Person { who: "anna".to_owned(), reason: "asked the bank".to_owned() }
}

#[track_caller]
pub(crate) fn answered(result: Result<Answer, Refusal>) -> Box<Answered> {
    match result {
        Ok(Answer::Upstream(answered)) => answered,
        other => panic!("not an answer of the upstream's: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn refused(result: Result<Answer, Refusal>) -> Refusal {
    match result {
        Err(refusal) => refusal,
        Ok(answer) => panic!("not a refusal: {answer:?}"),
    }
}

#[track_caller]
pub(crate) fn taken(result: Result<Answer, Refusal>) -> Box<Operation> {
    match result {
        Ok(Answer::Accepted(operation)) => operation,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Status and body of an answer.
pub(crate) fn essence(response: &Response) -> (u16, &[u8]) {
    (response.status, &response.body)
}
