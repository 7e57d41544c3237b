//! What changes, as it does: a stream of events for pages and for whoever watches. It tells what to look at
//! again, and may leave things out; the ledger is the truth.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header;
use http_body::{Body, Frame};
use onceward::core::id::OperationId;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::handler::{Asked, given, invalid};
use crate::access::Caller;
use crate::changes::{Change, Follower};
use crate::node::Node;
use crate::problem::Problem;
use crate::view::View;

/// How long one stream goes on, in seconds: who may look no more is not told for long.
const SECONDS_MAX: u64 = 300;

/// So long changes are gathered to one event, and so many of them are named.
const GATHER: Duration = Duration::from_millis(200);
const NAMED_MAX: usize = 100;

/// How often something is said where nothing changes.
const BEAT: Duration = Duration::from_secs(15);

/// How often it is said to look again where other nodes write to the same ledger: their changes are
/// not heard here.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Events that wait for whoever reads: behind these the stream is cut.
const UNREAD_MAX: usize = 16;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new().route("/v1/changes", get(follow))
}

/// What is followed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Followed {
    /// Laid over what is seen by the view.
    #[expect(dead_code, reason = "the view reads it")]
    tenant: Option<String>,
    route: Option<String>,
    r#for: Option<u64>,
}

async fn follow(
    node: View,
    Extension(caller): Extension<Caller>,
    Asked(what): Asked<Followed>,
) -> Result<Response, Problem> {
    let seconds = what.r#for.unwrap_or(SECONDS_MAX);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        return Err(invalid(format!("for: seconds, between 1 and {SECONDS_MAX}")));
    }
    let follower = node.changes.follow(&caller.tenant)?;
    let (events, unread) = mpsc::channel(UNREAD_MAX);
    let route = given(what.route.as_ref()).map(str::to_owned);
    let until = Instant::now() + Duration::from_secs(seconds);
    let every = if node.engine.store().is_shared() { LOOK_EVERY } else { BEAT };
    let stream = Stream { events, until, every, is_shared: every == LOOK_EVERY };
    tokio::spawn(stream.tell(follower, move |change| {
        node.sees_change(change)
            && caller.reaches(&change.route)
            && route.as_deref().is_none_or(|route| *change.route == *route)
    }));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // A proxy that gathers answers would keep the events to itself.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, axum::body::Body::new(Events(unread))).into_response())
}

/// The end that tells.
struct Stream {
    events: mpsc::Sender<Bytes>,
    until: Instant,
    every: Duration,
    is_shared: bool,
}

impl Stream {
    /// Tells what `sees` lets through until its time is over, nobody reads, or the process ends.
    async fn tell(self, mut follower: Follower, sees: impl Fn(&Change) -> bool + Send) {
        if !self.say(&Gathered::default()) {
            return;
        }
        loop {
            let mut gathered = Gathered::default();
            let mut due = Instant::now() + self.every;
            loop {
                tokio::select! {
                    heard = follower.heard.recv() => match heard {
                        Ok(change) if sees(&change) => {
                            if gathered.is_empty() {
                                due = Instant::now() + GATHER;
                            }
                            gathered.add(&change);
                        }
                        Ok(_) => {}
                        Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                    },
                    () = sleep_until(due.min(self.until)) => break,
                    () = self.events.closed() => return,
                }
            }
            let is_said = if gathered.is_empty() && !self.is_shared {
                self.events.try_send(Bytes::from_static(b":\n\n")).is_ok()
            } else {
                self.say(&gathered)
            };
            if !is_said || Instant::now() >= self.until {
                return;
            }
        }
    }

    /// Whether there was room for it.
    fn say(&self, gathered: &Gathered) -> bool {
        self.events.try_send(gathered.event()).is_ok()
    }
}

/// Changes of one event.
#[derive(Default)]
struct Gathered {
    named: BTreeMap<OperationId, Change>,
    left_out: u64,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    fn add(&mut self, change: &Change) {
        if let Some(known) = self.named.get_mut(&change.id) {
            known.state = change.state;
        } else if self.named.len() < NAMED_MAX {
            self.named.insert(change.id, change.clone());
        } else {
            self.left_out += 1;
        }
    }

    /// One without operations says: look again.
    fn event(&self) -> Bytes {
        let named = self.named.values().map(|change| {
            json!({
                "id": change.id.to_string(), "route": &*change.route, "state": change.state,
                "new": change.is_new,
            })
        });
        let data = json!({"data": named.collect::<Vec<_>>(), "left_out": self.left_out});
        format!("event: changed\ndata: {data}\n\n").into()
    }
}

/// The end that is read.
struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Changes;
    use onceward::observe::Unobserved;

    fn change(id: u128, state: &'static str, is_new: bool) -> Change {
        let (tenant, route) = ("acme".into(), "crm".into());
        Change { id: OperationId::from_u128(id), tenant, route, state, is_new }
    }

    #[test]
    fn an_event_names_each_operation_once_as_it_is_now_and_so_many_at_most() {
        let mut gathered = Gathered::default();
        gathered.add(&change(1, "delivering", true));
        gathered.add(&change(1, "done", false));
        let event = String::from_utf8(gathered.event().to_vec()).expect("text");
        assert!(event.starts_with("event: changed\ndata: {") && event.ends_with("}\n\n"));
        assert!(event.contains(r#""new":true,"route":"crm","state":"done""#), "{event}");
        for id in 2..200 {
            gathered.add(&change(id, "done", true));
        }
        assert_eq!((gathered.named.len(), gathered.left_out), (NAMED_MAX, 99));
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_off_and_the_place_is_free() {
        let changes = Changes::before(Arc::new(Unobserved));
        let follower = changes.follow("acme").expect("there is room");
        let (events, mut unread) = mpsc::channel(UNREAD_MAX);
        let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
        let stream = Stream { events, until, every: GATHER / 200, is_shared: true };
        stream.tell(follower, |_| true).await;
        assert!(Instant::now() < until, "before its time was over");
        let mut kept = 0;
        while unread.recv().await.is_some() {
            kept += 1;
        }
        assert_eq!(kept, UNREAD_MAX);
        assert!(changes.follow("acme").is_ok());
    }
}
