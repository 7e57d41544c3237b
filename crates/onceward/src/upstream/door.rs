//! One attempt over HTTP: connect or take up a connection, send, wait for the head.
//!
//! Whether anything was sent is known in each case:
//!
//! - Before a connection stands, nothing of the request exists anywhere else: *unsent*.
//! - hyper hands the request back if it never began with it: *unsent*.
//! - On HTTP/1.1 the socket itself proves that no byte left (see `wire`): *unsent*.
//! - HTTP/2 upstreams say so: `REFUSED_STREAM`, or a `GOAWAY` that leaves this stream out.
//! - Everything else is *unanswered*.
//!
//! A connection from the pool that turns out to be closed before a byte left is replaced once by
//! a fresh one: that is still the same attempt, because nothing was sent. Nothing else is sent
//! again, no redirect is followed, nothing is decoded, and no proxy is asked.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderValue, StatusCode};
use onceward_core::attempt::{Ending, Reached};
use tokio::time::{Instant, timeout_at};
use url::Position;

use crate::sabotage::{self, Sabotage};

use super::answer::Reading;
use super::connect::{ConnectError, Connector, DoorError, named};
use super::egress::Egress;
use super::line::{self, Line, Sender};
use super::message::{Message, lines};
use super::pool::{self, Pool};
use super::wire::{Metered, Wire};
use super::{Answer, Dispatch, Failure, Sent, Target, Upstream};

/// What can be set on a [`Door`].
#[derive(Debug, Clone)]
pub struct DoorOptions {
    /// A PEM file of certificates that are trusted besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// How many idle connections are kept to one upstream.
    pub idle_per_origin_max: usize,
    /// How many idle connections are kept in all.
    pub idle_max: usize,
    /// How long a connection may lie idle. Shorter than most servers' own patience, so that we
    /// close first and no request meets a closing connection.
    pub idle_for_max: Duration,
}

impl Default for DoorOptions {
    fn default() -> Self {
        Self {
            ca_file: None,
            idle_per_origin_max: 64,
            idle_max: 256,
            idle_for_max: Duration::from_mins(1),
        }
    }
}

/// The door over HTTP/1.1 and HTTP/2. Its clones share their connections.
#[derive(Clone)]
pub struct Door {
    connector: Arc<Connector>,
    pool: Arc<Pool>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("egress", self.egress()).finish_non_exhaustive()
    }
}

impl Upstream for Door {
    fn send(&self, dispatch: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        Box::pin(async move {
            let mut ended = self.attempt(&dispatch).await;
            if Sabotage::ResendOnReset.is_on() && ended.is_err() {
                ended = self.attempt(&dispatch).await;
            }
            if Sabotage::RedirectFollowed.is_on()
                && let Some(next) = sabotage::followed(&dispatch, &ended)
            {
                ended = self.attempt(&next).await;
            }
            match ended {
                Ok(answer) => Sent::Answered(answer),
                Err(failure) => Sent::Failed(failure),
            }
        })
    }
}

impl Door {
    /// A door that lets callers' URLs through as `egress` says.
    pub fn new(egress: Egress, options: &DoorOptions) -> Result<Self, DoorError> {
        let connector = Arc::new(Connector::new(egress, options.ca_file.as_deref())?);
        let pool = Arc::new(Pool::new(options.clone()));
        Ok(Self { connector, pool })
    }

    /// The policy for callers' URLs, to ask before anything is remembered.
    pub fn egress(&self) -> &Egress {
        &self.connector.egress
    }

    /// How many connections lie idle.
    pub fn idle_connections(&self) -> usize {
        self.pool.idle()
    }

    /// How many origins there are connections to, idle or in use.
    pub fn origins(&self) -> usize {
        self.pool.origins()
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Result<Answer, Failure> {
        let target = &*dispatch.target;
        let total = Instant::now() + target.timeouts.total;
        let mut message = compose(dispatch)?;
        if let Some(line) = self.take(target) {
            match self.exchange(line, message, target, total).await {
                Err(Failed { stale: true, .. }) => message = compose(dispatch)?,
                ended => return ended.map_err(|failed| failed.failure),
            }
        }
        // Connecting is rare and its future large: it is not carried through every attempt.
        let line = Box::pin(self.open(target, total)).await?;
        let ended = self.exchange(line, message, target, total).await;
        ended.map_err(|failed| failed.failure)
    }

    fn take(&self, target: &Target) -> Option<Line> {
        self.pool.take(target, |ip| self.connector.judge(target, ip).is_ok())
    }

    /// A fresh connection, or one that somebody else opened meanwhile and that can be shared.
    async fn open(&self, target: &Target, total: Instant) -> Result<Line, Failure> {
        let deadline = total.min(Instant::now() + target.timeouts.connect);
        let mut reached = Reached::Nothing;
        let outcome = timeout_at(deadline, async {
            let turn = self.pool.turn(target).await;
            match turn.may_share().then(|| self.take(target)).flatten() {
                Some(line) => Ok(line),
                None => self.connect(target, deadline, &mut reached).await,
            }
        })
        .await;
        let late = |_| Err(ConnectError::Timeout(named(target), target.timeouts.connect));
        outcome.unwrap_or_else(late).map_err(|error| Failure {
            ending: Ending::Unsent,
            reached,
            permanent: error.is_permanent(),
            error: error.to_string(),
        })
    }

    async fn connect(
        &self,
        target: &Target,
        deadline: Instant,
        reached: &mut Reached,
    ) -> Result<Line, ConnectError> {
        let secured = match target.base.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(ConnectError::Url),
        };
        let authority = &target.base[Position::BeforeHost..Position::AfterPort];
        let host = HeaderValue::from_str(authority).map_err(|_| ConnectError::Url)?;
        let authority = Authority::try_from(authority).map_err(|_| ConnectError::Url)?;
        let (stream, peer) = self.connector.dial(target, deadline, reached).await?;
        let id = self.pool.next_id();
        let wire = Arc::new(Wire::new(id, pool::name(target), peer, authority, host, secured));
        let socket = Metered::new(stream, Arc::clone(&wire));
        if !secured {
            return self.speak(target, socket, wire, target.http2).await;
        }
        let socket = self.connector.secure(target, socket).await?;
        *reached = Reached::Secured;
        let http2 = socket.get_ref().1.alpn_protocol() == Some(b"h2");
        self.speak(target, socket, wire, http2).await
    }

    /// Begins to speak HTTP on a socket, and leaves the connection to its task.
    async fn speak<I>(
        &self,
        target: &Target,
        io: I,
        wire: Arc<Wire>,
        http2: bool,
    ) -> Result<Line, ConnectError>
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mute = |error| ConnectError::Http(named(target), error);
        if http2 {
            let (sender, connection) = line::http2(io).await.map_err(mute)?;
            Ok(self.tend(sender, connection, wire))
        } else {
            let (sender, connection) = line::http1(io).await.map_err(mute)?;
            Ok(self.tend(sender, connection, wire))
        }
    }

    fn tend(
        &self,
        sender: Sender,
        connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
        wire: Arc<Wire>,
    ) -> Line {
        let berth = self.pool.opened(&sender, &wire);
        let idle_for_max = self.pool.options.idle_for_max;
        let line = Line::new(sender, Arc::clone(&wire), false);
        tokio::spawn(async move {
            line::tend(connection, &wire, idle_for_max).await;
            drop(berth);
        });
        line
    }

    async fn exchange(
        &self,
        mut line: Line,
        message: Message,
        target: &Target,
        total: Instant,
    ) -> Result<Answer, Failed> {
        let deadline = total.min(Instant::now() + target.timeouts.head);
        let http2 = line.is_http2();
        let (request, before) = if http2 {
            (message.for_http2(line.wire()), 0)
        } else {
            let request = message.for_http1(line.wire());
            (request, line.wire().arm(line.reused))
        };
        let cause = match timeout_at(deadline, line.exchange(request)).await {
            Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Broken::Upgraded
            }
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                let pool = Arc::clone(&self.pool);
                let body = Reading::new(body, line, pool, target.timeouts.body, total);
                return Ok(Answer {
                    status: head.status.as_u16(),
                    headers: lines(head.headers),
                    body: Box::new(body),
                    note: None,
                });
            }
            Ok(Err(error)) => {
                Broken::Off { handed_back: error.message().is_some(), error: error.into_error() }
            }
            Err(_) => Broken::Late,
        };
        // No further request shall meet a connection that failed; one that reset a single
        // stream did not.
        if !cause.is_reset() {
            self.pool.retire(line.wire());
        }
        let handed_back = matches!(cause, Broken::Off { handed_back: true, .. });
        let silent = handed_back || (!http2 && line.wire().was_silent(before));
        let unsent = silent || cause.is_refused() || Sabotage::UnansweredIsUnsent.is_on();
        let failure = Failure {
            ending: if unsent { Ending::Unsent } else { Ending::Unanswered },
            reached: match (silent, line.wire().secured) {
                (true, true) => Reached::Secured,
                (true, false) => Reached::Connected,
                (false, _) => Reached::Sent,
            },
            error: cause.to_string(),
            permanent: false,
        };
        let stale = silent && line.reused && !matches!(cause, Broken::Late);
        Err(Failed { failure, stale })
    }
}

/// A request that failed on a connection that stood.
struct Failed {
    failure: Failure,
    /// Whether the connection came from the pool and was closed before anything was sent on it.
    stale: bool,
}

/// What went wrong on it.
enum Broken {
    /// hyper says why, and whether it had not begun with the request.
    Off { error: hyper::Error, handed_back: bool },
    /// No head came in time.
    Late,
    /// The upstream left HTTP.
    Upgraded,
}

impl Broken {
    /// Whether only this request's stream ended, by the upstream's wish.
    fn is_reset(&self) -> bool {
        matches!(self, Self::Off { error, .. } if h2_error(error).is_some_and(h2::Error::is_reset))
    }

    /// Whether the upstream said that it did not process this request: by refusing its stream,
    /// or by a graceful GOAWAY, which reaches only the streams that it leaves out (RFC 9113,
    /// sections 6.8 and 8.7).
    fn is_refused(&self) -> bool {
        let Self::Off { error, .. } = self else {
            return false;
        };
        let Some(error) = h2_error(error) else {
            return false;
        };
        error.is_remote()
            && match error.reason() {
                Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
                Some(h2::Reason::NO_ERROR) => error.is_go_away(),
                _ => false,
            }
    }
}

/// In words of ours: what the other side wrote into an error is not repeated.
impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Late => return f.write_str("no answer came in time"),
            Self::Upgraded => {
                return f.write_str("the upstream wanted to change the protocol (101)");
            }
            Self::Off { handed_back: true, .. } => {
                return f.write_str("the connection closed before the request was sent");
            }
            Self::Off { error, .. } => error,
        };
        if let Some(reason) = h2_error(error).and_then(h2::Error::reason) {
            write!(f, "HTTP/2 ended the request: {reason}")
        } else if error.is_parse() {
            f.write_str("the answer is not HTTP, or its head is too large")
        } else if error.is_incomplete_message() {
            f.write_str("the connection closed before an answer came")
        } else {
            f.write_str("the connection broke before an answer came")
        }
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

fn compose(dispatch: &Dispatch) -> Result<Message, Failure> {
    Message::compose(dispatch).map_err(|unfit| Failure {
        ending: Ending::Unsent,
        reached: Reached::Nothing,
        error: unfit.to_string(),
        permanent: true,
    })
}
