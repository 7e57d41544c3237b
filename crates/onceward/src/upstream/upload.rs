//! The body of a request that passes: kept whole, or taken from its caller as the upstream takes it.
//!
//! What streams is there once. An attempt that failed before it took the first piece leaves all of
//! it to the next one; after that there is no second. A caller that stops sending is given up, and a
//! body that broke off never looks whole to the upstream: its framing is not ended.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use thiserror::Error;
use tokio::time::Instant;

use super::silence::Silence;
use crate::alarm::Alarm;

/// How long a caller may take between two pieces of its body.
const PAUSE_MAX: Duration = Duration::from_mins(1);

type Source = Pin<Box<dyn Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>> + Send>>;

/// The body of a request that passes. Its clones are the same body.
#[derive(Debug, Clone)]
pub struct Upload(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Whole(Bytes),
    Streamed(Arc<Streamed>),
}

/// A body that is there once.
pub(super) struct Streamed {
    /// Its length, where its caller said it.
    length: Option<u64>,
    state: Mutex<State>,
}

struct State {
    source: Source,
    /// The attempt that may take from it.
    attempt: u32,
    /// Whether the head of this attempt has had its turn.
    head_went: bool,
    /// Whether a piece of it was taken.
    is_taken: bool,
    /// Whether the upstream would take more and the caller sends none.
    is_awaited: bool,
    /// When a piece was last taken, or it ended.
    moved_at: Instant,
    end: Option<End>,
    silence: Silence,
    alarm: Alarm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
    Stalled,
}

/// Why a body ends before its end.
#[derive(Debug, Error)]
pub(super) enum Broken {
    #[error("the caller's body broke off")]
    Off,
    #[error("the caller's body stopped coming")]
    Stalled,
    #[error("another attempt has the body")]
    NotOurs,
}

impl Default for Upload {
    fn default() -> Self {
        Self::whole(Bytes::new())
    }
}

impl From<Bytes> for Upload {
    fn from(body: Bytes) -> Self {
        Self::whole(body)
    }
}

impl Upload {
    /// A body that is there whole, and can be sent again.
    pub fn whole(body: Bytes) -> Self {
        Self(Kind::Whole(body))
    }

    /// A body that is taken piece by piece as the upstream takes it.
    pub fn streamed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let state = State {
            attempt: 0,
            head_went: false,
            is_taken: false,
            is_awaited: false,
            moved_at: Instant::now(),
            end: None,
            silence: Silence::default(),
            alarm: Alarm::default(),
            source: Box::pin(body.map_err(Into::into)),
        };
        let length = state.source.size_hint().exact();
        Self(Kind::Streamed(Arc::new(Streamed { length, state: Mutex::new(state) })))
    }

    /// Whether it can be sent from its beginning: a stream of which a piece was taken cannot.
    pub(crate) fn is_fresh(&self) -> bool {
        match &self.0 {
            Kind::Whole(_) => true,
            Kind::Streamed(streamed) => !streamed.state().is_taken,
        }
    }

    /// Its length, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Whole(body) => Some(body.len() as u64),
            Kind::Streamed(streamed) => streamed.length,
        }
    }

    /// Whether nothing of it is still to be sent.
    pub(super) fn is_over(&self) -> bool {
        match &self.0 {
            Kind::Whole(_) => true,
            Kind::Streamed(streamed) => streamed.state().end.is_some(),
        }
    }

    /// Why it ended before its end, if it did: then the attempt failed by its caller.
    pub(super) fn broken(&self) -> Option<Broken> {
        match &self.0 {
            Kind::Whole(_) => None,
            Kind::Streamed(streamed) => match streamed.state().end {
                Some(End::Broken) => Some(Broken::Off),
                Some(End::Stalled) => Some(Broken::Stalled),
                Some(End::Whole) | None => None,
            },
        }
    }

    /// The body as an attempt sends it; none where an earlier one has taken some of it.
    pub(super) fn load(&self) -> Option<Load> {
        match &self.0 {
            Kind::Whole(body) => Some(Load::Whole(body.clone())),
            Kind::Streamed(streamed) => {
                let mut state = streamed.state();
                if state.is_taken {
                    return None;
                }
                state.attempt += 1;
                state.head_went = false;
                state.is_awaited = false;
                state.moved_at = Instant::now();
                Some(Load::Streamed(Arc::clone(streamed), state.attempt))
            }
        }
    }

    /// Until when the head of an answer is waited for: an upload that goes on is no silence, and
    /// whoever has it whole gets all of `head`.
    pub(super) fn head_due(&self, begun: Instant, head: Duration, pause: Duration) -> Instant {
        let Kind::Streamed(streamed) = &self.0 else { return begun + head };
        let state = streamed.state();
        match state.end {
            Some(_) => state.moved_at + head,
            // The caller is the one who is waited for, and has its own bound.
            None if state.is_awaited => Instant::now() + PAUSE_MAX,
            None => state.moved_at + pause,
        }
    }

    /// All of it at once, where it is not larger than `bytes_max`.
    pub(super) async fn collect(&self, bytes_max: usize) -> Option<Bytes> {
        let mut load = match self.load()? {
            Load::Whole(body) => return Some(body),
            streamed @ Load::Streamed(..) => streamed,
        };
        let mut whole = Vec::new();
        while let Some(frame) = load.frame().await {
            whole.extend_from_slice(&frame.ok()?.into_data().unwrap_or_default());
            if whole.len() > bytes_max {
                return None;
            }
        }
        Some(whole.into())
    }
}

impl Streamed {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is half done when a panic could strike.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("length", &self.length).finish_non_exhaustive()
    }
}

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.end {
            Some(End::Whole) => return Poll::Ready(None),
            Some(End::Broken) => return Poll::Ready(Some(Err(Broken::Off))),
            Some(End::Stalled) => return Poll::Ready(Some(Err(Broken::Stalled))),
            None => {}
        }
        if !self.head_went {
            // The head goes first and by itself. So whether the connection still stands is known
            // before a piece is taken, and no caller is told to continue before that.
            self.head_went = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Poll::Ready(frame) = self.source.as_mut().poll_frame(cx) else {
            self.is_awaited = true;
            if self.silence.is_over(&mut self.alarm, PAUSE_MAX, None, cx) {
                self.end = Some(End::Stalled);
                return Poll::Ready(Some(Err(Broken::Stalled)));
            }
            return Poll::Pending;
        };
        self.silence.ends();
        self.is_awaited = false;
        self.moved_at = Instant::now();
        match frame {
            Some(Ok(frame)) => {
                self.is_taken = true;
                if self.source.is_end_stream() {
                    self.end = Some(End::Whole);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => {
                self.end = Some(End::Broken);
                Poll::Ready(Some(Err(Broken::Off)))
            }
            None => {
                self.end = Some(End::Whole);
                Poll::Ready(None)
            }
        }
    }
}

/// A body in the hands of one attempt.
#[derive(Debug)]
pub(super) enum Load {
    Whole(Bytes),
    Streamed(Arc<Streamed>, u32),
}

impl Body for Load {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Whole(body) if body.is_empty() => Poll::Ready(None),
            Self::Whole(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
            Self::Streamed(streamed, attempt) => {
                let mut state = streamed.state();
                // What an attempt that failed still does takes no piece from the next one.
                if state.attempt == *attempt {
                    state.poll(cx)
                } else {
                    Poll::Ready(Some(Err(Broken::NotOurs)))
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_empty(),
            Self::Streamed(streamed, _) => streamed.state().end == Some(End::Whole),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Self::Streamed(streamed, _) => {
                streamed.length.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}
