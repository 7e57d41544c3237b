//! Connections of callers: how many there may be, and how long each may take to say what it wants.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;

/// How long the head of a request may take to arrive.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections there are, in all and by address, on every listener.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    of_address_max: usize,
    count: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// One connection, for as long as it lives.
pub(crate) struct Connected(Arc<Connections>, IpAddr);

impl Connections {
    /// None yet; so many at most.
    pub(crate) fn new(max: usize, of_address_max: usize) -> Arc<Self> {
        Arc::new(Self { max, of_address_max, count: Mutex::default() })
    }

    /// Counts one more, where there may be one.
    pub(crate) fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Connected> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = count.1.get(&address).copied().unwrap_or_default();
        if count.0 >= self.max || of_address >= self.of_address_max {
            return None;
        }
        count.0 += 1;
        count.1.insert(address, of_address + 1);
        Some(Connected(Arc::clone(self), address))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.0 -= 1;
        let left = count.1.get(&self.1).map_or(0, |left| left - 1);
        if left == 0 {
            count.1.remove(&self.1);
        } else {
            count.1.insert(self.1, left);
        }
    }
}

/// Whoever speaks HTTP/1.1 or HTTP/2 on one connection, within limits.
pub(crate) fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(HeadTimer::default())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(32 << 10);
    builder
}

/// Times the heads of a connection, one after the other, by one timer: where it is set for an earlier
/// one it goes off in vain, which costs less than to set it for each.
#[derive(Debug, Default)]
struct HeadTimer(SharedTimer);

type SharedTimer = Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>;

/// The time of one head.
#[derive(Debug)]
struct HeadDue {
    timer: SharedTimer,
    due: Instant,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, due: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadDue { timer: Arc::clone(&self.0), due })
    }
}

impl Future for HeadDue {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        let due = self.due.into();
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl Sleep for HeadDue {}
