//! An answer that comes before its request is over cuts nothing of that request off.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use onceward::upstream::{Door, Egress, Target, Upload, Upstream as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::misbehave::{door, post, target};
use crate::upstream_pass::{body, passage};
use crate::upstream_tls;

/// More than lies between two sockets of which one is not read.
const LARGE: usize = 16 << 20;

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

const REFUSED: &str =
    "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// An upstream that answers once it has the head, and reads the body only when it is told to.
struct Early {
    address: SocketAddr,
    /// Lets it read.
    read: watch::Sender<bool>,
    /// How much of each body came, and whether the connection was ended in order.
    came: mpsc::UnboundedReceiver<(usize, bool)>,
}

impl Early {
    async fn start(answer: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, came) = mpsc::unbounded_channel();
        let read = watch::Sender::new(false);
        let may_read = read.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, may_read, tell) = (tls.clone(), may_read.clone(), tell.clone());
                tokio::spawn(async move {
                    let ended = match tls {
                        Some(tls) => serve(tls.accept(stream).await.unwrap(), answer, may_read).await,
                        None => serve(stream, answer, may_read).await,
                    };
                    // A test that does not ask is over.
                    let _ = tell.send(ended);
                });
            }
        });
        Self { address, read, came }
    }

    fn target(&self) -> Target {
        target(&format!("http://{}/", self.address))
    }

    /// How much of a body comes from now on.
    async fn reads(&mut self) -> (usize, bool) {
        self.read.send_replace(true);
        self.came.recv().await.unwrap()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &str,
    mut may_read: watch::Receiver<bool>,
) -> (usize, bool) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    if may_read.wait_for(|may_read| *may_read).await.is_err() {
        return (0, false);
    }
    let (mut came, mut piece) = (0, vec![0; 64 << 10]);
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => return (came, true),
            Ok(length) => came += length,
            Err(_) => return (came, false),
        }
    }
}

async fn until_it_keeps_nothing(door: &Door) {
    while door.origins() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_receiver_that_says_yes_first_and_reads_then_gets_all() {
    let mut upstream = Early::start(ACCEPTED, None).await;
    let door = door();
    let answer = post(&door, upstream.target(), &vec![b'x'; LARGE]).await;
    assert_eq!(answer, Ok((202, Vec::new())));
    assert_eq!(upstream.reads().await, (LARGE, true));
    until_it_keeps_nothing(&door).await;
}

#[tokio::test]
async fn under_tls_it_gets_all_too_and_is_told_that_this_is_the_end() {
    let (acceptor, options, _folder) = upstream_tls::acceptor("localhost", &[]);
    let mut upstream = Early::start(ACCEPTED, Some(acceptor)).await;
    let door = Door::new(Egress::default(), &options).unwrap();
    let target = target(&format!("https://localhost:{}/", upstream.address.port()));
    let answer = post(&door, target, &vec![b'x'; LARGE]).await;
    assert_eq!(answer, Ok((202, Vec::new())));
    assert_eq!(upstream.reads().await, (LARGE, true));
    until_it_keeps_nothing(&door).await;
}

#[tokio::test]
async fn it_gets_the_tail_of_a_stream_whose_caller_is_done() {
    let mut upstream = Early::start(ACCEPTED, None).await;
    let upload = Upload::streamed(Full::new(Bytes::from(vec![b'x'; LARGE])));
    body(door().pass(&passage(upstream.target(), upload)).await).await.unwrap();
    assert_eq!(upstream.reads().await, (LARGE, true));
}

#[tokio::test]
async fn a_receiver_that_says_no_and_closes_is_sent_no_more() {
    let mut upstream = Early::start(REFUSED, None).await;
    let door = door();
    let answer = post(&door, upstream.target(), &vec![b'x'; LARGE]).await;
    assert_eq!(answer, Ok((413, Vec::new())));
    let (came, _) = upstream.reads().await;
    assert!(came < LARGE, "{came} bytes");
    until_it_keeps_nothing(&door).await;
}
