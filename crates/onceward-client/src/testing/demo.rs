//! A scripted upstream: what each call with a key meets, and how often it was charged.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use form_urlencoded::parse;
use http::{Method, Request, Response};
use serde_json::json;

use super::{FakeFault, header, plain, said};

#[derive(Default)]
struct Books {
    effects: u64,
    calls: u64,
    seen: HashMap<String, (usize, Option<u64>)>,
}

/// An upstream that answers by `?script=503,drop,201`, and dedupes by the key or does not.
pub(super) fn scripted(
    dedupes: bool,
) -> impl Fn(&Request<Bytes>) -> Result<Response<Bytes>, FakeFault> + Send + Sync {
    let books = Mutex::new(Books::default());
    move |request| {
        let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
        let is_effects = request.uri().path() == "/effects";
        if is_effects || request.method() == Method::GET {
            return Ok(said(200, &json!({ "count": books.effects, "calls": books.calls })));
        }
        books.calls += 1;
        let key = header(request.headers(), "idempotency-key").to_owned();
        let (calls, charged) = books.seen.get(&key).copied().unwrap_or_default();
        let query = request.uri().query().unwrap_or_default();
        let script = parse(query.as_bytes()).find(|(name, _)| name == "script");
        let script = script.map_or_else(|| "201".to_owned(), |(_, script)| script.into_owned());
        let steps: Vec<_> = script.split(',').map(str::trim).collect();
        let step = steps[calls.min(steps.len() - 1)];
        let is_charged = step == "drop" || step.starts_with('2');
        let mut charge = charged.filter(|_| dedupes);
        if is_charged && charge.is_none() {
            books.effects += 1;
            charge = Some(books.effects);
        }
        books.seen.insert(key, (calls + 1, charge.or(charged)));
        match (step, step.parse::<u16>()) {
            ("drop", _) => Err(FakeFault::Unanswered),
            ("204", _) => Ok(plain(204)),
            (_, Ok(status @ 200..=599)) if is_charged => {
                Ok(said(status, &json!({ "charged": true, "order": charge })))
            }
            (_, Ok(status @ 200..=599)) => Ok(said(status, &json!({ "charged": false }))),
            _ => Ok(said(400, &json!({ "error": "script: statuses or `drop`, with commas" }))),
        }
    }
}
