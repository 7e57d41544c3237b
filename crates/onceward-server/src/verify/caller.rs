//! Sends what a case asks, through the one outbound door.
//!
//! A caller that hangs up is a request whose answer may take next to no time: the door gives it
//! up, closes its connection, and says whether anything was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward::core::attempt::Ending;
use onceward::core::exchange::{Headers, Request};
use onceward::upstream::{
    Dispatch, Door, DoorError, DoorOptions, Egress, Sent, Target, Timeouts, Upstream as _,
};
use url::{Position, Url};

use super::ask::Wire;
use super::heard::{Answer, Reply};

/// More than this of an answer is counted and not kept: a run holds about a hundred of them.
const KEPT_MAX: usize = 1 << 20;

/// The shortest time after which a caller hangs up: less sends nothing at all.
const HANG_UP_MIN: Duration = Duration::from_micros(500);

/// Sends requests.
#[derive(Debug)]
pub(crate) struct Caller {
    door: Door,
    timeout: Duration,
}

impl Caller {
    /// A caller that waits for an answer no longer than `timeout`.
    pub(crate) fn new(timeout: Duration, options: &DoorOptions) -> Result<Self, DoorError> {
        Ok(Self { door: Door::new(Egress::default(), options)?, timeout })
    }

    /// Sends one request once, and reads its answer to the end.
    pub(crate) async fn send(&self, wire: &Wire) -> Reply {
        let begun = Instant::now();
        let mut answer = match self.door.send(self.dispatch(wire, self.timeout)).await {
            Sent::Answered(answer) => answer,
            Sent::Failed(failure) => return Reply::Lost(failure.error),
        };
        let (mut body, mut length) = (Vec::new(), 0);
        let cut = loop {
            match answer.body.chunk().await {
                Ok(Some(piece)) => {
                    let room = KEPT_MAX - body.len();
                    body.extend_from_slice(&piece[..piece.len().min(room)]);
                    length += piece.len() as u64;
                }
                Ok(None) => break None,
                Err(failure) => break Some(failure.error),
            }
        };
        let (status, headers, body) = (answer.status, answer.headers, body.into());
        Reply::Answer(Answer { status, headers, body, length, cut, took: begun.elapsed() })
    }

    /// Sends one request, and is gone `after` it began to send.
    pub(crate) async fn hang_up(&self, wire: &Wire, after: Duration) -> Reply {
        let mut after = after.max(HANG_UP_MIN);
        loop {
            match self.door.send(self.dispatch(wire, after)).await {
                // Its answer came sooner: nobody reads it, and the connection is closed.
                Sent::Answered(_) => return Reply::Lost("hung up before its body".to_owned()),
                // Gone before a byte left: that is no hang-up yet.
                Sent::Failed(failure)
                    if failure.ending == Ending::Unsent && after < self.timeout =>
                {
                    after *= 2;
                }
                Sent::Failed(failure) if failure.ending == Ending::Unsent => {
                    return Reply::Lost(failure.error);
                }
                Sent::Failed(_) => return Reply::Lost("hung up".to_owned()),
            }
        }
    }

    fn dispatch(&self, wire: &Wire, head: Duration) -> Dispatch {
        let mut base = wire.url.clone();
        base.set_path("/");
        base.set_query(None);
        base.set_fragment(None);
        let timeouts = Timeouts {
            connect: Timeouts::default().connect,
            head,
            body: self.timeout,
            total: self.timeout,
        };
        let request = Request {
            method: wire.method.clone(),
            target: target_of(&wire.url),
            headers: wire.headers.clone(),
            body: wire.body.clone(),
        };
        Dispatch {
            target: Arc::new(Target::of_operator(base, timeouts)),
            request: Arc::new(request),
            headers: Headers::default(),
            doom: None,
        }
    }
}

/// Path and query, as they go out.
pub(crate) fn target_of(url: &Url) -> String {
    url[Position::BeforePath..Position::AfterQuery].to_owned()
}
