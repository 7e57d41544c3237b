//! What moves on a caller's connection: one that carries nothing is ended, so that nobody holds one for
//! nothing.
//!
//! That is one of HTTP/2 on which nothing is asked, and any whose caller takes nothing of what it is
//! sent. Between the requests of HTTP/1.1 the time of the next one's head runs already.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What one connection has carried so far.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    asked: AtomicU64,
    is_http2: AtomicBool,
    /// Streams of HTTP/2 that have not ended.
    open: AtomicU64,
    /// Those of them of whose answers there is more once their callers have taken what there was.
    waiting: AtomicU64,
    /// How often more of an answer was asked for on any of them.
    continued: AtomicU64,
    written: AtomicU64,
    /// Whether the last write found no room.
    is_full: AtomicBool,
}

/// A stream of HTTP/2 that has not ended.
#[derive(Debug)]
pub(crate) struct Stream {
    traffic: Arc<Traffic>,
    is_waiting: bool,
}

impl Traffic {
    /// Something is asked; the stream that it is asked on, where that is not the connection itself.
    pub(crate) fn begin(self: &Arc<Self>, is_http2: bool) -> Option<Stream> {
        // Only the connection's own task counts what is asked and what is written.
        self.asked.store(self.asked.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        is_http2.then(|| {
            self.is_http2.store(true, Ordering::Relaxed);
            self.open.fetch_add(1, Ordering::Relaxed);
            Stream { traffic: Arc::clone(self), is_waiting: false }
        })
    }
}

impl Stream {
    /// More of its answer is asked for: its caller has taken what there was.
    pub(crate) fn goes_on(&mut self) {
        self.traffic.continued.fetch_add(1, Ordering::Relaxed);
        self.stop_waiting();
    }

    /// More is asked for only once its caller has taken what there is.
    pub(crate) fn waits(&mut self) {
        self.is_waiting = true;
        self.traffic.waiting.fetch_add(1, Ordering::Relaxed);
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.traffic.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop_waiting();
        self.traffic.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Looks at a connection now and then.
pub(crate) struct Look {
    traffic: Arc<Traffic>,
    asked: u64,
    continued: u64,
    written: u64,
    /// How many looks in succession found nothing moved.
    in_vain: u32,
    is_told: bool,
}

/// In so many looks the time of a connection that carries nothing passes.
pub(crate) const LOOKS: u32 = 2;

/// Who takes less than this from one look to the next takes nothing: pings are answered, too.
const WRITTEN_MIN: u64 = 1 << 10;

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It carries something, or did a short while ago.
    Traffic,
    /// Nothing has been asked on it for its time: its caller is told that it ends.
    Idle,
    /// Nobody is there who would heed that: it ends.
    Nothing,
}

impl Look {
    /// The first look is at whether anything was asked at all.
    pub(crate) fn new(traffic: Arc<Traffic>) -> Self {
        Self { traffic, asked: 0, continued: 0, written: 0, in_vain: 0, is_told: false }
    }

    pub(crate) fn at_it(&mut self) -> Found {
        let traffic = &*self.traffic;
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (asked, written) = (now(&traffic.asked), now(&traffic.written));
        let continued = now(&traffic.continued);
        // What is in the hands of HTTP/2 goes on flowing after its stream has ended here.
        let is_quiet = now(&traffic.open) == 0 && written - self.written < WRITTEN_MIN;
        if asked == 0 || self.is_told && is_quiet {
            return Found::Nothing;
        }
        let is_http2 = traffic.is_http2.load(Ordering::Relaxed);
        let is_idle = is_http2 && is_quiet && asked == self.asked;
        // A caller of HTTP/2 may grant its streams no window, while the connection takes everything.
        let is_stuck = traffic.is_full.load(Ordering::Relaxed) && written == self.written
            || now(&traffic.waiting) > 0 && continued == self.continued;
        self.in_vain = if is_idle || is_stuck { self.in_vain + 1 } else { 0 };
        (self.asked, self.continued, self.written) = (asked, continued, written);
        match self.in_vain {
            LOOKS.. if is_stuck => Found::Nothing,
            LOOKS.. => {
                self.is_told = true;
                Found::Idle
            }
            _ => Found::Traffic,
        }
    }
}

/// A timer beside a connection, in the connection's task. It is asked only once it has gone off: that
/// task is woken for each request, and to ask a timer each time would cost more than all else here.
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// The task that it wakes.
    task: Option<Waker>,
    ring: Arc<Ring>,
}

/// What a timer rings.
#[derive(Debug, Default)]
struct Ring {
    has_rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Timer {
    pub(crate) fn new(after: Duration) -> Self {
        Self { sleep: Box::pin(sleep(after)), task: None, ring: Arc::default() }
    }

    /// Sets it anew.
    pub(crate) fn reset(&mut self, after: Duration) {
        self.sleep.as_mut().reset(Instant::now() + after);
        self.ring.has_rung.store(true, Ordering::Release);
    }

    /// Whether it has gone off; else this task is woken then.
    pub(crate) fn is_over(&mut self, cx: &Context<'_>) -> bool {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            *self.ring.task() = Some(cx.waker().clone());
            self.ring.has_rung.store(true, Ordering::Release);
        }
        if !self.ring.has_rung.load(Ordering::Acquire) {
            return false;
        }
        self.ring.has_rung.store(false, Ordering::Release);
        let ring = Waker::from(Arc::clone(&self.ring));
        self.sleep.as_mut().poll(&mut Context::from_waker(&ring)).is_ready()
    }
}

impl Ring {
    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        if let Some(task) = &*self.task() {
            task.wake_by_ref();
        }
    }
}

/// A stream whose writes are counted.
pub(crate) struct Counted<I> {
    stream: I,
    traffic: Arc<Traffic>,
}

impl<I> Counted<I> {
    pub(crate) fn new(stream: I, traffic: Arc<Traffic>) -> Self {
        Self { stream, traffic }
    }

    fn count(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &wrote {
            let written = &self.traffic.written;
            written.store(written.load(Ordering::Relaxed) + *bytes as u64, Ordering::Relaxed);
        }
        self.traffic.is_full.store(wrote.is_pending(), Ordering::Relaxed);
        wrote
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.traffic.is_full.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt as _;

    fn looking() -> (Arc<Traffic>, Look) {
        let traffic = Arc::<Traffic>::default();
        (Arc::clone(&traffic), Look::new(traffic))
    }

    fn carries(look: &mut Look, looks: usize) -> bool {
        (0..looks).all(|_| look.at_it() == Found::Traffic)
    }

    #[test]
    fn a_connection_on_which_nothing_was_asked_ends_at_the_first_look() {
        assert_eq!(looking().1.at_it(), Found::Nothing);
    }

    #[test]
    fn one_of_http2_on_which_nothing_is_asked_any_more_is_told_and_ends() {
        let (traffic, mut look) = looking();
        let stream = traffic.begin(true);
        assert!(carries(&mut look, 9), "its answer is under way");
        drop(stream);
        assert!(carries(&mut look, 1));
        let last = traffic.begin(true);
        assert!(carries(&mut look, 1), "asked again");
        drop(last);
        assert!(carries(&mut look, 1));
        assert_eq!((look.at_it(), look.at_it()), (Found::Idle, Found::Nothing));
    }

    #[test]
    fn what_still_flows_of_an_answer_is_no_idleness() {
        let (traffic, mut look) = looking();
        drop(traffic.begin(true));
        let counted = Counted::new((), Arc::clone(&traffic));
        for _ in 0..9 {
            let _ = counted.count(Poll::Ready(Ok(WRITTEN_MIN as usize)));
            assert!(carries(&mut look, 1), "its answer has not left");
        }
        let _ = counted.count(Poll::Ready(Ok(17)));
        assert!(carries(&mut look, 1), "a ping");
        assert_eq!(look.at_it(), Found::Idle);
    }

    #[test]
    fn one_of_http2_whose_callers_streams_take_nothing_ends() {
        let (traffic, mut look) = looking();
        let (mut stream, mut other) = (traffic.begin(true).unwrap(), traffic.begin(true).unwrap());
        assert!(carries(&mut look, 9), "their answers are under way");
        stream.waits();
        assert!(carries(&mut look, 1));
        stream.goes_on();
        assert!(carries(&mut look, 9), "it was taken");
        stream.waits();
        assert!(carries(&mut look, 1));
        other.goes_on();
        assert!(carries(&mut look, 2), "the other goes on");
        assert_eq!(look.at_it(), Found::Nothing);
        drop(stream);
        assert!(carries(&mut look, 9), "who waited is gone");
    }

    #[tokio::test]
    async fn one_whose_last_bytes_were_flushed_in_the_end_is_not_stuck() {
        struct Slow(bool);
        impl AsyncWrite for Slow {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(buf.len()))
            }
            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut self.0, true) {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                }
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let (traffic, mut look) = looking();
        traffic.begin(false);
        let mut counted = Counted::new(Slow(false), Arc::clone(&traffic));
        counted.write_all(b"answer").await.unwrap();
        counted.flush().await.unwrap();
        assert!(carries(&mut look, 9));
    }

    #[test]
    fn one_of_http1_is_timed_by_its_heads() {
        let (traffic, mut look) = looking();
        assert!(traffic.begin(false).is_none());
        assert!(carries(&mut look, 9));
    }

    #[tokio::test]
    async fn a_timer_goes_off_whenever_it_was_asked_before_and_again_where_it_is_set_again() {
        let begun = Instant::now();
        let mut timer = Timer::new(Duration::from_millis(20));
        let mut looks = 0;
        for after in [20, 50] {
            poll_fn(|cx| {
                looks += 1;
                if timer.is_over(cx) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert!(begun.elapsed() >= Duration::from_millis(after));
            timer.reset(Duration::from_millis(30));
        }
        assert_eq!(looks, 4, "it wakes once, and no more");
        let other =
            tokio::spawn(poll_fn(
                move |cx| {
                    if timer.is_over(cx) { Poll::Ready(()) } else { Poll::Pending }
                },
            ));
        other.await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(80), "it wakes whoever asked last");
    }

    #[test]
    fn one_whose_caller_takes_nothing_ends() {
        let (traffic, mut look) = looking();
        traffic.begin(false);
        let counted = Counted::new((), Arc::clone(&traffic));
        let _ = counted.count(Poll::Ready(Ok(10)));
        assert!(carries(&mut look, 9), "there is nothing to write");
        let _ = counted.count(Poll::Pending);
        assert!(carries(&mut look, 1));
        let _ = counted.count(Poll::Ready(Ok(1)));
        let _ = counted.count(Poll::Pending);
        assert!(carries(&mut look, 2), "it took a byte");
        assert_eq!(look.at_it(), Found::Nothing);
    }
}
