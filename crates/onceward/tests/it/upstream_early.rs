//! An answer that comes before its request is over cuts nothing of that request off.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Frame;
use onceward::upstream::{Door, Egress, Target, Upload, Upstream as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::misbehave::{door, post, target};
use crate::upstream_pass::{Feed, body, fed, passage};
use crate::upstream_tls;

/// What a test has to wait out.
const SOON: Duration = Duration::from_millis(100);

/// More than lies between two sockets of which one is not read.
const LARGE: usize = 16 << 20;

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

const REFUSED: &str = "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// An upstream that answers once it has the head, and reads the body only when it is told to.
struct Early {
    address: SocketAddr,
    /// Lets it read.
    read: watch::Sender<bool>,
    /// How much of a body it has read.
    read_so_far: watch::Receiver<usize>,
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
        let (so_far, read_so_far) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, tell) = (tls.clone(), tell.clone());
                let (may_read, so_far) = (may_read.clone(), so_far.clone());
                tokio::spawn(async move {
                    let ended = match tls {
                        None => serve(stream, answer, may_read, so_far).await,
                        Some(tls) => {
                            let stream = tls.accept(stream).await.unwrap();
                            serve(stream, answer, may_read, so_far).await
                        }
                    };
                    // A test that does not ask is over.
                    let _ = tell.send(ended);
                });
            }
        });
        Self { address, read, read_so_far, came }
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
    so_far: watch::Sender<usize>,
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
        so_far.send_replace(came);
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
    // Longer than a goodbye may take, within which some of it would go out anyway.
    for _ in 0..3 {
        pause().await;
    }
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

/// A target whose upstream may leave a request unread for a moment.
fn impatient(upstream: &Early) -> Target {
    let mut target = upstream.target();
    target.timeouts.body = SOON;
    target
}

fn give(feed: &Feed, length: usize) {
    feed.send(Ok(Frame::data(Bytes::from(vec![b'x'; length])))).unwrap();
}

#[tokio::test]
async fn what_an_upstream_leaves_unread_after_its_answer_is_not_kept_for_ever() {
    let upstream = Early::start(ACCEPTED, None).await;
    let door = door();
    let answer = post(&door, impatient(&upstream), &vec![b'x'; LARGE]).await;
    assert_eq!(answer, Ok((202, Vec::new())));
    until_it_keeps_nothing(&door).await;
}

#[tokio::test]
async fn a_stream_that_an_upstream_leaves_unread_after_its_answer_is_not_kept_for_ever() {
    let upstream = Early::start(ACCEPTED, None).await;
    let (door, (feed, upload)) = (door(), fed());
    let passage = passage(impatient(&upstream), upload);
    let answer = door.pass(&passage).await;
    give(&feed, LARGE);
    body(answer).await.unwrap();
    until_it_keeps_nothing(&door).await;
}

#[tokio::test]
async fn an_answer_that_goes_on_keeps_the_upload_that_is_not_read_yet() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n";
    let mut upstream = Early::start(head, None).await;
    let (door, (feed, upload)) = (door(), fed());
    let passage = passage(impatient(&upstream), upload);
    let answer = door.pass(&passage).await.unwrap();
    give(&feed, LARGE);
    drop(feed);
    pause().await;
    upstream.read.send_replace(true);
    upstream.read_so_far.wait_for(|length| *length > LARGE).await.unwrap();
    drop(answer);
}

#[tokio::test]
async fn a_caller_that_pauses_after_the_answer_still_sends_all() {
    let mut upstream = Early::start(ACCEPTED, None).await;
    let (door, (feed, upload)) = (door(), fed());
    let passage = passage(impatient(&upstream), upload);
    body(door.pass(&passage).await).await.unwrap();
    upstream.read.send_replace(true);
    for _ in 0..2 {
        give(&feed, 1);
        pause().await;
    }
    drop(feed);
    assert_eq!(upstream.reads().await, ("1\r\nx\r\n1\r\nx\r\n0\r\n\r\n".len(), true));
}

/// The pace of whoever is slow.
#[expect(clippy::disallowed_methods, reason = "whoever is slow has a clock of its own")]
async fn pause() {
    tokio::time::sleep(SOON * 4).await;
}
