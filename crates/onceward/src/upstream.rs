//! Door 2, the network: one request to an upstream, and how far it got.
//!
//! Every outbound connection there is goes through here, so that the egress policy holds
//! everywhere. Nothing is followed, decoded, retried or pooled past a broken promise: one call is
//! one attempt.
//!
//! Below, each story has its file: where a caller's URL may lead (`egress`), how a socket is
//! opened (`connect`) and whom it trusts (`tls`), what proves that nothing was written to it
//! (`wire`), how it speaks HTTP (`line`: `http1`, `bell`, `http2`) and waits for its next use
//! (`pool`), what goes out and comes in (`message`, `upload`, `answer`), what only passes through
//! (`passage`), mails by SMTP (`smtp`), how long something is waited for (`patience`, `silence`), the attempt that strings
//! them together (`door`), how far it has got (`progress`) and how it breaks (`broken`), and the same with faults on purpose
//! (`chaos`).

mod answer;
mod bell;
mod broken;
mod chaos;
mod connect;
mod distrusted;
mod door;
mod egress;
mod http1;
mod http2;
mod line;
mod message;
mod passage;
mod patience;
mod pinned;
mod pool;
mod progress;
mod silence;
mod smtp;
mod sockets;
mod tls;
mod upload;
mod wire;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use onceward_core::attempt::{Ending, Reached, Timings};
use onceward_core::exchange::{Headers, Request};
use url::Url;

pub use chaos::{Chaos, Doom, Fault, Faulty};
pub use door::{Door, DoorOptions};
pub use egress::{AD_HOC_URL_BYTES_MAX, Egress, EgressRefusal, Mend, UrlRefusal, parse_ad_hoc};
pub(crate) use message::lines;
pub(crate) use passage::forward;
pub use passage::{Download, Passage};
pub use smtp::{Handed, Login, MailServer, Reply, Safe, SmtpError};
pub use sockets::Sockets;
pub(crate) use tls::trusted;
pub use tls::{ClientFiles, DoorError, UpstreamTls, UpstreamTlsFiles};
pub use upload::Upload;

/// Whom a request goes to: read at each attempt, never stored with an operation.
#[derive(Debug, Clone)]
pub struct Target {
    /// Scheme, host, port and the path that goes before the request's own.
    pub base: Url,
    /// Whose word the address is.
    pub trust: Trust,
    /// Whether an `http` upstream speaks HTTP/2 without being asked; `https` agrees by ALPN.
    pub http2: bool,
    /// TLS of its own, where it is not that of the door.
    pub tls: Option<Arc<UpstreamTls>>,
    /// How mails are handed over, where it is a mail server; else it speaks HTTP.
    pub mail: Option<Arc<MailServer>>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
}

impl Target {
    /// One that an operator names, spoken to as is usual: HTTP/2 by ALPN alone, and the door's TLS.
    pub fn of_operator(base: Url, timeouts: Timeouts) -> Self {
        Self { base, trust: Trust::Operator, http2: false, tls: None, mail: None, timeouts }
    }
}

/// Whose word an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The operator's: a named route, which may be private.
    Operator,
    /// A caller's: the egress policy decides on the address that is dialled.
    Caller,
}

/// How long each phase of an attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving, connecting and TLS together.
    pub connect: Duration,
    /// From the first byte sent to the head of the answer.
    pub head: Duration,
    /// Between two pieces of the answer's body.
    pub body: Duration,
    /// The attempt in all, the answer's body included.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let total = Duration::from_secs(30);
        Self { connect: Duration::from_secs(5), head: total, body: total, total }
    }
}

/// One request, as it goes out in one attempt.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Whom it goes to.
    pub target: Arc<Target>,
    /// What was remembered: the same bytes for every attempt.
    pub request: Arc<Request>,
    /// Headers set at send (credentials, keys, the attempt's number): each replaces its name.
    pub headers: Headers,
    /// The attempt that it is, where its route wants faults; a plain door does not look.
    pub doom: Option<Box<Doom>>,
}

/// What came of it.
#[derive(Debug)]
pub enum Sent {
    /// The head of an answer came; its body is still to be read.
    Answered(Answer),
    /// None came.
    Failed(Failure),
}

/// The head of an answer, and its body as it comes.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All of its headers.
    pub headers: Headers,
    /// The rest. Dropping it unread closes the connection.
    pub body: Box<dyn AnswerBody>,
    /// What whoever looks at the attempt has to know beside the answer.
    pub note: Option<String>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The body of an answer, read piece by piece, within the attempt's timeouts.
pub trait AnswerBody: Send + Sync {
    /// The next piece, `None` at the end.
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>>;

    /// The trailers, once the end was reached.
    fn trailers(&mut self) -> Headers;

    /// How long each phase of its attempt took up to now; nothing where nobody measures.
    fn timings(&self) -> Timings {
        Timings::default()
    }
}

/// Why no whole answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// `Unsent` where that is proven; else `Unanswered`, or `Truncated` from a body that began.
    pub ending: Ending,
    /// How far it got.
    pub reached: Reached,
    /// What went wrong, in words for a person: never a body, never a credential.
    pub error: String,
    /// Whether trying again cannot help: an address the egress policy refuses, a certificate
    /// that does not hold.
    pub permanent: bool,
    /// How long each phase took, the one that it broke off in too; nothing where nobody measured.
    pub timings: Timings,
}

/// The door: whatever carries a request to its upstream.
pub trait Upstream: Send + Sync + 'static {
    /// Sends one request once. Dropping the future gives the attempt up and closes its
    /// connection: whoever does so has to treat it as unanswered.
    fn send(&self, dispatch: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>>;

    /// Passes one request on as it comes, once, and its answer back the same way. An upstream that
    /// has no way of its own for that takes it whole.
    fn pass<'a>(
        &'a self,
        passage: &'a Passage,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Download>, Failure>> + Send + 'a>> {
        Box::pin(passage::dispatched(self, passage))
    }
}
