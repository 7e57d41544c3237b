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
//! A request that passes has no bound as a whole: while its upload goes on, and while its answer
//! comes, it is under way.
//!
//! A connection from the pool that turns out to be closed before a byte left is replaced once by
//! a fresh one: that is still the same attempt, because nothing was sent. Nothing else is sent
//! again, no redirect is followed, nothing is decoded, and no proxy is asked.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::response::Parts;
use http::uri::Authority;
use http::{HeaderValue, Response, StatusCode, Version};
use hyper::body::Incoming;
use onceward_core::attempt::{Ending, Phase, Reached, Timings};
use tokio::time::{Instant, timeout_at};
use url::Position;

use crate::sabotage::{self, Sabotage};

use super::answer::Reading;
use super::broken::Broken;
use super::connect::{ConnectError, Connector, named};
use super::egress::Egress;
use super::http1::Http1;
use super::http2;
use super::line::{Line, Way};
use super::message::{Message, Unfit, lines};
use super::passage::{self, Passage};
use super::patience::Patience;
use super::pool::Pool;
use super::progress::Progress;
use super::smtp;
use super::tls::DoorError;
use super::wire::{Metered, Wire};
use super::{Answer, Dispatch, Download, Failure, Sent, Target, Upstream};

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

    fn pass<'a>(
        &'a self,
        passage: &'a Passage,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Download>, Failure>> + Send + 'a>> {
        Box::pin(self.through(passage))
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

    /// Connects to the target as an attempt would, TLS with it, sends nothing and hangs up.
    pub async fn knock(&self, target: &Target) -> Result<(), Failure> {
        let mut progress = Progress::begin(Instant::now());
        progress.turn_to(Phase::Resolve);
        let deadline = Instant::now() + target.timeouts.connect;
        let knocked = self.connector.knock(target, deadline, &mut progress);
        let knocked = timeout_at(deadline, knocked).await;
        let late = |_| Err(ConnectError::Timeout(named(target), target.timeouts.connect));
        knocked.unwrap_or_else(late).map_err(|error| unreached(&error, &progress))
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Result<Answer, Failure> {
        let target = &*dispatch.target;
        if let Some(server) = &target.mail {
            return Box::pin(smtp::attempt(&self.connector, dispatch, server)).await;
        }
        let begun = Instant::now();
        let total = begun + target.timeouts.total;
        let (patience, mut progress) = (Patience::Within(total), Progress::begin(begun));
        let compose = || Message::compose(dispatch);
        let (head, body, line) = self.carry(target, compose, &patience, &mut progress).await?;
        let pool = Arc::clone(&self.pool);
        let pause_max = target.timeouts.body;
        let body = Reading::new(body, line, pool, pause_max, Some(total), None, progress);
        Ok(Answer {
            status: head.status.as_u16(),
            headers: lines(head.headers),
            body: Box::new(Download::from(body)),
            note: None,
        })
    }

    async fn through(&self, passage: &Passage) -> Result<Response<Download>, Failure> {
        let Passage { target, upload, .. } = passage;
        if target.mail.is_some() {
            return Err(unfit(&Unfit::Method(passage.method.to_string())));
        }
        let patience = Patience::WhileMoving(upload);
        let mut progress = Progress::begin(Instant::now());
        let compose = || Message::pass(passage);
        let (mut head, body, mut line) =
            self.carry(target, compose, &patience, &mut progress).await?;
        passage::give_back(&mut head.headers);
        // Which HTTP its caller is answered in is for the edge to say.
        head.version = Version::HTTP_11;
        let pool = Arc::clone(&self.pool);
        let upload = (!upload.is_over()).then(|| upload.clone());
        if upload.is_some() {
            line.go_both_ways(target.timeouts.body);
        }
        let body = Reading::new(body, line, pool, target.timeouts.body, None, upload, progress);
        Ok(Response::from_parts(head, body.into()))
    }

    /// Sends what `compose` makes, once, and waits for the head of its answer.
    async fn carry(
        &self,
        target: &Target,
        compose: impl Fn() -> Result<Message, Unfit>,
        patience: &Patience<'_>,
        progress: &mut Progress,
    ) -> Result<(Parts, Incoming, Line), Failure> {
        let mut kept = self.take(target);
        if kept.is_none() {
            progress.turn_to(Phase::Connect);
        }
        loop {
            let message = compose().map_err(|why| unfit(&why))?;
            let was_kept = kept.is_some();
            let line = match kept.take() {
                Some(line) => line,
                // Connecting is rare and its future large: it is not carried through every attempt.
                None => Box::pin(self.open(target, patience, progress)).await?,
            };
            match self.exchange(line, message, target, patience, progress).await {
                Err(Failed { stale: true, .. }) if was_kept => {
                    progress.on(false);
                    progress.enter(Phase::Connect);
                }
                ended => return ended.map_err(|failed| failed.failure),
            }
        }
    }

    fn take(&self, target: &Target) -> Option<Line> {
        self.pool.take(target, |ip| self.connector.judge(target, ip).is_ok())
    }

    /// A fresh connection, or one that somebody else opened meanwhile and that can be shared.
    async fn open(
        &self,
        target: &Target,
        patience: &Patience<'_>,
        progress: &mut Progress,
    ) -> Result<Line, Failure> {
        let deadline = patience.least(Instant::now() + target.timeouts.connect);
        let outcome = timeout_at(deadline, async {
            let turn = self.pool.turn(target).await;
            if let Some(line) = turn.may_share().then(|| self.take(target)).flatten() {
                return Ok(line);
            }
            if turn.has_waited {
                progress.enter(Phase::Resolve);
            } else {
                progress.turn_to(Phase::Resolve);
            }
            self.connect(target, deadline, progress).await
        })
        .await;
        if let Ok(Ok(line)) = outcome {
            progress.enter(Phase::Send);
            return Ok(line);
        }
        let late = |_| Err(ConnectError::Timeout(named(target), target.timeouts.connect));
        outcome.unwrap_or_else(late).map_err(|error| unreached(&error, progress))
    }

    async fn connect(
        &self,
        target: &Target,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<Line, ConnectError> {
        let secured = match target.base.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(ConnectError::Url),
        };
        let (stream, peer) = self.connector.dial(target, deadline, progress).await?;
        let id = self.pool.next_id();
        let berth = self.pool.berth(target);
        let wire = Arc::new(Wire::new(id, berth, peer, secured));
        let socket = Metered::new(stream, Arc::clone(&wire));
        if !secured {
            return self.speak(target, socket, wire, target.http2).await;
        }
        progress.enter(Phase::Tls);
        let socket = self.connector.secure(target, socket).await?;
        progress.reached = Reached::Secured;
        let http2 = socket.get_ref().1.alpn_protocol() == Some(b"h2");
        self.speak(target, socket, wire, http2).await
    }

    /// Begins to speak HTTP on a socket.
    async fn speak<I>(
        &self,
        target: &Target,
        io: I,
        wire: Arc<Wire>,
        http2: bool,
    ) -> Result<Line, ConnectError>
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let mute = |error| ConnectError::Http(named(target), error);
        let origin = &target.base[Position::BeforeHost..Position::AfterPort];
        if !http2 {
            self.pool.cannot_share(&wire);
            let host = HeaderValue::from_str(origin).map_err(|_| ConnectError::Url)?;
            let own = Http1::begin(io, wire, host, self.pool.stirred()).await.map_err(mute)?;
            return Ok(Line::fresh(Way::Http1(Box::new(own))));
        }
        let authority = Authority::try_from(origin).map_err(|_| ConnectError::Url)?;
        let (own, idle_for_max) = (Arc::clone(&wire), self.pool.options.idle_for_max);
        let (shared, tending) =
            http2::begin(io, own, authority, idle_for_max).await.map_err(mute)?;
        let line = Line::fresh(Way::Http2(shared.take_up()));
        self.pool.share(shared);
        let pool = Arc::downgrade(&self.pool);
        tokio::spawn(async move {
            tending.await;
            if let Some(pool) = pool.upgrade() {
                pool.retire(&wire);
            }
        });
        Ok(line)
    }

    async fn exchange(
        &self,
        mut line: Line,
        message: Message,
        target: &Target,
        patience: &Patience<'_>,
        progress: &mut Progress,
    ) -> Result<(Parts, Incoming, Line), Failed> {
        let http2 = line.is_http2();
        progress.on(line.reused);
        if http2 {
            progress.turn_to(Phase::Head);
        }
        let request = line.request(message);
        // A last look at a connection that lay idle is a system call: what is safe is sent again anyway.
        let with_a_look = line.reused && !request.method().is_safe();
        let before = if http2 { 0 } else { line.wire().arm(with_a_look) };
        let mut alarm = std::mem::take(&mut line.alarm);
        let came = patience.wait(&target.timeouts, &mut alarm, line.exchange(request)).await;
        line.alarm = alarm;
        if !http2 && let Some(at) = line.wire().wrote_at(before) {
            progress.enter_at(Phase::Head, at);
        }
        let cause = match came {
            Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Broken::Upgraded
            }
            Some(Ok(response)) => {
                let (head, body) = response.into_parts();
                progress.enter(Phase::Body);
                return Ok((head, body, line));
            }
            Some(Err(error)) => {
                Broken::Off { handed_back: error.message().is_some(), error: error.into_error() }
            }
            None => Broken::Late,
        };
        let by_caller = patience.broken_upload();
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
            error: by_caller.as_ref().map_or_else(|| cause.to_string(), ToString::to_string),
            // What its caller broke off cannot be sent by anyone.
            permanent: by_caller.is_some(),
            timings: progress.timings(),
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

/// No connection came about.
fn unreached(error: &ConnectError, progress: &Progress) -> Failure {
    Failure {
        ending: Ending::Unsent,
        reached: progress.reached,
        permanent: error.is_permanent(),
        error: error.to_string(),
        timings: progress.timings(),
    }
}

fn unfit(unfit: &Unfit) -> Failure {
    Failure {
        ending: Ending::Unsent,
        reached: Reached::Nothing,
        error: unfit.to_string(),
        permanent: true,
        timings: Timings::default(),
    }
}
