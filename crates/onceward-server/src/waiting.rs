//! A start whose ledger is away: it is tried again until the ledger is there, and whoever calls
//! meanwhile is told to come back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use onceward::store::StoreError;
use tokio::net::TcpListener;
use tracing::warn;

use crate::body::Body;
use crate::config::Config;
use crate::connections::{Connections, HEAD_TIMEOUT, builder};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::serve::plain;

/// Before the second try.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two tries at most: a ledger that is back is noticed within seconds.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// After a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

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

/// Tells whoever calls that the ledger is away, for ever.
pub(crate) async fn tell_to_come_back(listener: &TcpListener, config: &Config) -> Infallible {
    let (builder, connections) = (builder(), Arc::new(Connections::default()));
    // Once nobody waits any more its connections end, each with the answer that it is at.
    let graceful = GracefulShutdown::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let Some(connected) = connections.begin(
            peer.ip(),
            config.connections_max,
            config.connections_per_address_max,
        ) else {
            continue;
        };
        let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request)));
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            let _connected = connected;
            // Nobody has much to say here; a connection that ends badly ends alone.
            let _ = tokio::time::timeout(HEAD_TIMEOUT, watched).await;
        });
    }
}

fn answer(request: &Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/healthz" => plain(200, "ok\n"),
        _ => {
            Problem::from(StoreError::Away("this node waits for it to start".to_owned())).response()
        }
    }
}
