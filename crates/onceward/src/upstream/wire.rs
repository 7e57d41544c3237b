//! One connection's socket, and the proof of what was written to it.
//!
//! "Nothing was sent" must be known, not guessed: on a route that is not idempotent it decides
//! between trying again and asking a person. So the socket stands behind a gate. Each exchange
//! closes the gate to *armed*; the first write opens it, and whoever wants to claim that nothing
//! was sent has to *seal* it first. Whichever of the two comes first wins, and the other learns
//! of it: after a seal no byte of the request can leave any more.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::pool::Berth;

/// Writes pass: a handshake, HTTP/2's shared frames, or an exchange that has begun to write.
const OPEN: u8 = 0;
/// An exchange on a fresh connection has written nothing yet.
const ARMED: u8 = 1;
/// The same on a connection that lay idle: it is looked at once more before the first write.
const ARMED_REUSED: u8 = 2;
/// No write passes any more: it was sealed, or a write failed.
const SHUT: u8 = 3;

/// What is known of one open connection; shared by its socket, its task and whoever uses it.
#[derive(Debug)]
pub(super) struct Wire {
    /// Which one it is in the pool.
    pub(super) id: u64,
    /// Its place in the pool.
    pub(super) berth: Berth,
    /// The address that was judged and dialled.
    pub(super) peer: SocketAddr,
    /// Whether TLS is on it.
    pub(super) secured: bool,
    /// The runtime that tells of its bytes.
    pub(super) runtime: Id,
    /// Bytes that the kernel took, TLS included.
    written: AtomicU64,
    /// How many those were when it last took no more.
    full_at: AtomicU64,
    /// When it last took some, in microseconds after `opened_at`.
    wrote_at: AtomicU64,
    opened_at: Instant,
    gate: AtomicU8,
}

impl Wire {
    pub(super) fn new(id: u64, berth: Berth, peer: SocketAddr, secured: bool) -> Self {
        Self {
            id,
            berth,
            peer,
            secured,
            runtime: Handle::current().id(),
            written: AtomicU64::new(0),
            full_at: AtomicU64::new(u64::MAX),
            wrote_at: AtomicU64::new(0),
            opened_at: Instant::now(),
            gate: AtomicU8::new(OPEN),
        }
    }

    /// Begins an exchange that has the connection for itself. Returns what has to be handed to
    /// [`Wire::was_silent`] to ask about it.
    pub(super) fn arm(&self, reused: bool) -> u64 {
        let before = self.written();
        // A gate that is shut stays shut: on such a connection the exchange finds out at once.
        if self.gate.load(Ordering::Acquire) != SHUT {
            let armed = if reused { ARMED_REUSED } else { ARMED };
            self.gate.store(armed, Ordering::Release);
        }
        before
    }

    /// Whether provably no byte was written since [`Wire::arm`], nor ever will be. To say yes it
    /// shuts the connection.
    pub(super) fn was_silent(&self, before: u64) -> bool {
        let shut = |armed| {
            self.gate.compare_exchange(armed, SHUT, Ordering::AcqRel, Ordering::Acquire).is_ok()
        };
        shut(ARMED)
            || shut(ARMED_REUSED)
            || (self.gate.load(Ordering::Acquire) == SHUT && self.written() == before)
    }

    /// How many bytes were written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// When the last of an exchange that was armed at `before` bytes was written; nothing where none
    /// of it was, or the other side takes no more of it.
    pub(super) fn wrote_at(&self, before: u64) -> Option<Instant> {
        let written = self.written();
        let at = Duration::from_micros(self.wrote_at.load(Ordering::Acquire));
        (written != before && !self.is_stuck(written)).then(|| self.opened_at + at)
    }

    /// Whether more than `before` bytes are to be written and the other side takes none.
    pub(super) fn is_stuck(&self, before: u64) -> bool {
        self.written() == before && self.full_at.load(Ordering::Acquire) == before
    }
}

/// A TCP stream that counts what is written, behind the gate of its [`Wire`].
#[derive(Debug)]
pub(super) struct Metered {
    stream: TcpStream,
    wire: std::sync::Arc<Wire>,
}

impl Metered {
    pub(super) fn new(stream: TcpStream, wire: std::sync::Arc<Wire>) -> Self {
        Self { stream, wire }
    }

    /// Lets a write through or not; the first write of an exchange takes the gate with it.
    fn pass(&self) -> io::Result<()> {
        let gate = &self.wire.gate;
        match gate.load(Ordering::Acquire) {
            OPEN => return Ok(()),
            ARMED_REUSED if !is_quiet(&self.stream) => gate.store(SHUT, Ordering::Release),
            armed @ (ARMED | ARMED_REUSED) => {
                let took = gate.compare_exchange(armed, OPEN, Ordering::AcqRel, Ordering::Acquire);
                if took.is_ok() {
                    return Ok(());
                }
            }
            _ => {}
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    fn count(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let wire = &*self.wire;
        match &outcome {
            Poll::Ready(Ok(n)) => {
                let at = wire.opened_at.elapsed().as_micros() as u64;
                wire.wrote_at.store(at, Ordering::Release);
                wire.written.fetch_add(*n as u64, Ordering::AcqRel);
            }
            // What failed once is not tried again, so that the count stays what it is.
            Poll::Ready(Err(_)) => wire.gate.store(SHUT, Ordering::Release),
            Poll::Pending => wire.full_at.store(wire.written(), Ordering::Release),
        }
        outcome
    }
}

/// A last look at a connection that lay idle, straight at the socket: the runtime may not have
/// heard yet that the other side closed it, and a request written now would be lost with nobody
/// knowing whether it was read. What still lies in it is no answer to us either.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let looked = rustix::net::recv(stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(looked, Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR))
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pass()?;
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pass()?;
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A metered socket, its wire, and the other end.
    async fn pair() -> (Metered, Arc<Wire>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).await.expect("a listener");
        let (other, _) = listener.accept().await.expect("a connection");
        let wire = Arc::new(Wire::new(0, Berth::nowhere(), address, false));
        (Metered::new(stream, Arc::clone(&wire)), wire, other)
    }

    #[tokio::test]
    async fn after_a_seal_no_byte_leaves() {
        let (mut socket, wire, mut other) = pair().await;
        let before = wire.arm(false);
        assert!(wire.was_silent(before));
        socket.write_all(b"x").await.expect_err("sealed");
        drop(socket);
        assert_eq!(other.read(&mut [0]).await.expect("an end"), 0, "nothing arrived");
    }

    #[tokio::test]
    async fn after_a_byte_left_nothing_claims_silence() {
        let (mut socket, wire, other) = pair().await;
        let before = wire.arm(false);
        socket.write_all(b"x").await.expect("open");
        assert!(!wire.was_silent(before));
        // Not even once a later write fails.
        drop(other);
        while socket.write_all(b"x").await.is_ok() {}
        assert!(!wire.was_silent(before));
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_idle_takes_no_byte() {
        let (mut socket, wire, other) = pair().await;
        drop(other);
        let before = wire.arm(true);
        // The runtime was never asked whether the socket is readable: the look is our own.
        socket.write_all(b"x").await.expect_err("closed");
        assert!(wire.was_silent(before));
    }

    #[tokio::test]
    async fn a_connection_with_something_left_in_it_takes_no_byte() {
        let (mut socket, wire, mut other) = pair().await;
        other.write_all(b"HTTP/1.1 408 Too slow").await.expect("open");
        let before = wire.arm(true);
        socket.write_all(b"x").await.expect_err("it is not quiet");
        assert!(wire.was_silent(before));
    }

    #[tokio::test]
    async fn a_quiet_idle_connection_takes_the_next_request() {
        let (mut socket, wire, _other) = pair().await;
        for _ in 0..3 {
            let before = wire.arm(true);
            socket.write_all(b"x").await.expect("open");
            assert!(!wire.was_silent(before));
        }
    }
}
