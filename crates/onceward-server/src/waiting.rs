//! A start whose ledger is away: it is tried again until the ledger is there, and whoever calls
//! meanwhile is told to come back.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use onceward::store::StoreError;
use tracing::warn;

use crate::body::Body;
use crate::exit::Exit;
use crate::front::plain;
use crate::problem::Problem;

/// Before the second try.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two tries at most: a ledger that is back is noticed within seconds.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Tries until it is done, or until something is wrong that does not pass by itself.
pub(crate) async fn until_there<T>(begin: impl AsyncFn() -> Result<T, Exit>) -> Result<T, Exit> {
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        match begin().await {
            Err(exit) if exit.may_pass => warn!("{}; tried again in {pause:?}", exit.message),
            done => return done,
        }
    }
}

/// Tells whoever calls that the ledger is away.
pub(crate) fn tell_to_come_back(request: &Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/healthz" => plain(200, "ok\n"),
        _ => away().response(),
    }
}

/// The same at the path root of a guard, where nothing of ours exists.
pub(crate) fn tell_callers_of_a_guard() -> Response<Body> {
    let mut problem = away();
    problem.has_page = false;
    problem.response()
}

fn away() -> Problem {
    Problem::from(StoreError::Away("this node waits for it to start".to_owned()))
}
