//! How an attempt over HTTP/2 ends: what the upstream says it did not process is unsent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use onceward::core::attempt::{Ending, Reached};
use onceward::upstream::{Target, Upstream};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::misbehave::{answered, dispatch, door, headers, post, rest, target};

/// What an HTTP/2 upstream does with each request.
#[derive(Debug, Clone, Copy)]
enum Does {
    Answer,
    Refuse,
    Cancel,
    GoAwayGracefully,
    Drop,
    CutBody,
    Hang,
}

struct Upstream2 {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    /// Lets a body that is to be cut be cut, once its head was seen.
    cut: Arc<Notify>,
}

impl Upstream2 {
    /// An upstream that does these with its requests, in order; the last one for all that follow.
    async fn new(does: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (connections, requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let cut = Arc::new(Notify::new());
        let upstream = Self { address, connections, requests, cut: Arc::clone(&cut) };
        let (connections, requests) =
            (Arc::clone(&upstream.connections), Arc::clone(&upstream.requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, cut) = (Arc::clone(&requests), Arc::clone(&cut));
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let n = requests.fetch_add(1, Ordering::SeqCst);
                        match does[n.min(does.len() - 1)] {
                            Does::Drop => return,
                            Does::GoAwayGracefully => {
                                // Says which streams it processed (none), and closes.
                                connection.abrupt_shutdown(Reason::NO_ERROR);
                                break;
                            }
                            does => {
                                tokio::spawn(handle(does, request, respond, Arc::clone(&cut)));
                            }
                        }
                    }
                    let _ = std::future::poll_fn(|cx| connection.poll_closed(cx)).await;
                });
            }
        });
        upstream
    }

    fn target(&self) -> Target {
        Target { http2: true, ..target(&format!("http://{}/", self.address)) }
    }

    fn counts(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }
}

async fn handle(
    does: Does,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    cut: Arc<Notify>,
) {
    match does {
        Does::Refuse => return respond.send_reset(Reason::REFUSED_STREAM),
        Does::Cancel => return respond.send_reset(Reason::CANCEL),
        Does::Hang => std::future::pending().await,
        Does::Answer | Does::CutBody | Does::GoAwayGracefully | Does::Drop => {}
    }
    let (head, mut body) = request.into_parts();
    let mut echo = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
        echo.extend_from_slice(&piece);
    }
    let answer = http::Response::builder()
        .header("x-uri", head.uri.to_string())
        .header("x-many", "1")
        .header("x-many", "2")
        .body(())
        .expect("an answer");
    let mut stream = respond.send_response(answer, false).expect("an open stream");
    stream.send_data(echo.into(), false).expect("an open stream");
    if matches!(does, Does::CutBody) {
        cut.notified().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    } else {
        let trailers = [("x-sum".parse().expect("a name"), "7".parse().expect("a value"))];
        stream.send_trailers(trailers.into_iter().collect()).expect("an open stream");
    }
}

async fn ending(does: &'static [Does]) -> (Ending, Reached) {
    let upstream = Upstream2::new(does).await;
    let failure = post(&door(), upstream.target(), b"x").await.expect_err("a failure");
    assert_eq!(upstream.counts().1, 1, "sent once");
    assert!(!failure.permanent);
    (failure.ending, failure.reached)
}

#[tokio::test]
async fn prior_knowledge_carries_bytes_headers_and_trailers() {
    let upstream = Upstream2::new(&[Does::Answer]).await;
    let body: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let door = door();
    let sent = door.send(dispatch(upstream.target(), "POST", "/a/../b?c", &body)).await;
    let mut answer = answered(sent).expect("an answer");
    assert_eq!(answer.headers.all("x-many").collect::<Vec<_>>(), ["1", "2"]);
    let uri = format!("http://{}/a/../b?c", upstream.address);
    assert_eq!(answer.headers.text("x-uri"), Some(uri.as_str()));
    assert!(rest(&mut answer).await.expect("whole") == body, "other bytes came back");
    assert_eq!(answer.body.trailers(), headers(&[("x-sum", b"7")]));
}

#[tokio::test]
async fn a_refused_stream_is_unsent() {
    assert_eq!(ending(&[Does::Refuse]).await, (Ending::Unsent, Reached::Sent));
}

#[tokio::test]
async fn a_refused_stream_does_not_cost_the_connection() {
    let upstream = Upstream2::new(&[Does::Refuse, Does::Answer]).await;
    let door = door();
    post(&door, upstream.target(), b"x").await.expect_err("refused");
    assert_eq!(post(&door, upstream.target(), b"x").await, Ok((200, b"x".to_vec())));
    assert_eq!(upstream.counts(), (1, 2));
}

#[tokio::test]
async fn a_stream_reset_for_another_reason_is_unanswered() {
    assert_eq!(ending(&[Does::Cancel]).await, (Ending::Unanswered, Reached::Sent));
}

#[tokio::test]
async fn a_dropped_connection_is_unanswered() {
    assert_eq!(ending(&[Does::Drop]).await, (Ending::Unanswered, Reached::Sent));
}

#[tokio::test]
async fn a_body_that_is_reset_is_truncated() {
    let upstream = Upstream2::new(&[Does::CutBody]).await;
    let sent = door().send(dispatch(upstream.target(), "POST", "/", b"x")).await;
    let mut answer = answered(sent).expect("a head");
    upstream.cut.notify_one();
    let failure = rest(&mut answer).await.expect_err("cut");
    assert_eq!((failure.ending, failure.reached), (Ending::Truncated, Reached::Head));
}

#[tokio::test]
async fn a_stream_that_a_goaway_counts_as_processed_is_unanswered() {
    assert_eq!(ending(&[Does::GoAwayGracefully]).await, (Ending::Unanswered, Reached::Sent));
}

#[tokio::test]
async fn a_stream_that_a_goaway_leaves_out_is_unsent() {
    // Written by hand: SETTINGS, then GOAWAY with last stream 0 and NO_ERROR once a request came.
    use crate::misbehave::{Act, Misbehave};
    const FRAMES: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    // The preface is `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`: its first half reads as a request.
    let upstream = Misbehave::always([Act::Read, Act::Write(FRAMES), Act::Hang]).await;
    let target = Target { http2: true, ..upstream.target() };
    let failure = post(&door(), target, b"x").await.expect_err("nobody answers");
    assert_eq!(failure.ending, Ending::Unsent, "{failure:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unanswered_and_the_next_request_does_not_wait_behind_it() {
    let upstream = Upstream2::new(&[Does::Hang, Does::Answer]).await;
    let door = door();
    let mut impatient = upstream.target();
    impatient.timeouts.head = Duration::from_millis(200);
    let failure = post(&door, impatient, b"x").await.expect_err("too late");
    assert_eq!((failure.ending, failure.reached), (Ending::Unanswered, Reached::Sent));
    assert_eq!(post(&door, upstream.target(), b"x").await, Ok((200, b"x".to_vec())));
    assert_eq!(upstream.counts(), (2, 2));
}

#[tokio::test]
async fn requests_at_once_share_one_connection() {
    let upstream = Upstream2::new(&[Does::Answer]).await;
    let door = door();
    let posts: Vec<_> = (0..20)
        .map(|_| {
            let (door, target) = (door.clone(), upstream.target());
            tokio::spawn(async move { post(&door, target, b"x").await })
        })
        .collect();
    for post in posts {
        assert_eq!(post.await.expect("no panic"), Ok((200, b"x".to_vec())));
    }
    assert_eq!(upstream.counts(), (1, 20));
}
