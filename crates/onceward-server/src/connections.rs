//! Connections of callers: how many there may be, and how long each may take to say what it wants.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use onceward::upstream::poll_write_gathered;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long the head of a request may take to arrive.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections there are, in all and by address.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<(usize, HashMap<IpAddr, usize>)>);

/// One connection, for as long as it lives.
pub(crate) struct Connected(Arc<Connections>, IpAddr);

impl Connections {
    /// Counts one more, where there may be one.
    pub(crate) fn begin(
        self: &Arc<Self>,
        address: IpAddr,
        max: usize,
        of_address_max: usize,
    ) -> Option<Connected> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = count.1.get(&address).copied().unwrap_or_default();
        if count.0 >= max || of_address >= of_address_max {
            return None;
        }
        count.0 += 1;
        count.1.insert(address, of_address + 1);
        Some(Connected(Arc::clone(self), address))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        count.0 -= 1;
        let left = count.1.get(&self.1).map_or(0, |left| left - 1);
        if left == 0 {
            count.1.remove(&self.1);
        } else {
            count.1.insert(self.1, left);
        }
    }
}

/// A caller's socket, to which small answers are written in one piece.
pub(crate) struct Gathering<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_gathered(Pin::new(&mut self.0), cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Whoever speaks HTTP/1.1 or HTTP/2, within limits.
pub(crate) fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(32 << 10);
    builder
}
