//! What passes a door as it comes: sent once, from its beginning, and whole or not at all.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use onceward::core::attempt::Ending;
use onceward::upstream::{Download, Failure, Passage, Target, Upload, Upstream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::misbehave::{Act, Misbehave, OK, door, target};

/// A body of which a test hands in each piece.
struct Fed(mpsc::UnboundedReceiver<Result<Frame<Bytes>, String>>);

/// Where the pieces go in.
pub(crate) type Feed = mpsc::UnboundedSender<Result<Frame<Bytes>, String>>;

impl Body for Fed {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        self.0.poll_recv(cx)
    }
}

pub(crate) fn fed() -> (Feed, Upload) {
    let (feed, pieces) = mpsc::unbounded_channel();
    (feed, Upload::streamed(Fed(pieces)))
}

fn give(feed: &Feed, piece: &'static str) {
    feed.send(Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).unwrap();
}

pub(crate) fn passage(target: Target, upload: Upload) -> Passage {
    Passage {
        target: Arc::new(target),
        method: Method::POST,
        path: "/up?x=1".parse().unwrap(),
        headers: HeaderMap::new(),
        upload,
    }
}

/// What an upstream that speaks HTTP/2 heard of one request.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Whole(Vec<u8>, Option<String>),
    Reset(Reason),
}

/// An upstream that refuses `refused` requests unprocessed, and hears out each one after them.
async fn upstream2(refused: usize) -> (SocketAddr, mpsc::UnboundedReceiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut count = 0;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            count += 1;
            if count <= refused {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            let tell = tell.clone();
            tokio::spawn(async move {
                let heard = hear(request.into_body()).await;
                if matches!(heard, Heard::Whole(..)) {
                    respond.send_response(Response::new(()), true).unwrap();
                }
                tell.send(heard).unwrap();
            });
        }
    });
    (address, heard)
}

async fn hear(mut body: RecvStream) -> Heard {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => whole.extend_from_slice(&piece),
            Err(error) => return Heard::Reset(error.reason().unwrap()),
        }
    }
    let trailers = body.trailers().await.unwrap();
    Heard::Whole(whole, trailers.map(|it| it["x-sum"].to_str().unwrap().to_owned()))
}

fn target2(address: SocketAddr) -> Target {
    Target { http2: true, ..target(&format!("http://{address}/")) }
}

pub(crate) async fn body(answer: Result<Response<Download>, Failure>) -> Result<Bytes, Failure> {
    answer?.into_body().collect().await.map(http_body_util::Collected::to_bytes)
}

#[tokio::test]
async fn over_http2_a_body_goes_through_with_its_trailers() {
    let (address, mut heard) = upstream2(0).await;
    let (feed, upload) = fed();
    let passage = passage(target2(address), upload);
    give(&feed, "a");
    give(&feed, "b");
    let trailers = [("x-sum".parse().unwrap(), "2".parse().unwrap())].into_iter().collect();
    feed.send(Ok(Frame::trailers(trailers))).unwrap();
    drop(feed);
    body(door().pass(&passage).await).await.unwrap();
    assert_eq!(heard.recv().await, Some(Heard::Whole(b"ab".to_vec(), Some("2".to_owned()))));
}

#[tokio::test]
async fn over_http2_a_body_that_breaks_off_is_reset() {
    let (address, mut heard) = upstream2(0).await;
    let (feed, upload) = fed();
    let passage = passage(target2(address), upload);
    give(&feed, "a");
    feed.send(Err("the caller went away".to_owned())).unwrap();
    let failure = door().pass(&passage).await.unwrap_err();
    assert_eq!((failure.ending, failure.permanent), (Ending::Unanswered, true), "{failure}");
    let heard = heard.recv().await.unwrap();
    assert!(matches!(heard, Heard::Reset(_)), "{heard:?}");
}

#[tokio::test]
async fn what_an_attempt_left_untouched_the_next_one_has_whole() {
    let (address, mut heard) = upstream2(1).await;
    let (door, (feed, upload)) = (door(), fed());
    let passage = passage(target2(address), upload);
    let failure = door.pass(&passage).await.unwrap_err();
    assert_eq!(failure.ending, Ending::Unsent, "{failure}");
    give(&feed, "a");
    give(&feed, "b");
    drop(feed);
    body(door.pass(&passage).await).await.unwrap();
    assert_eq!(heard.recv().await, Some(Heard::Whole(b"ab".to_vec(), None)));
}

#[tokio::test]
async fn nothing_goes_out_again_once_a_piece_was_taken() {
    let upstream = Misbehave::new([
        vec![Act::ReadHead, Act::ReadBytes(6), Act::Reset],
        vec![Act::Read, Act::Write(OK.as_bytes())],
    ])
    .await;
    let (door, (feed, upload)) = (door(), fed());
    let passage = passage(upstream.target(), upload);
    give(&feed, "a");
    let failure = door.pass(&passage).await.unwrap_err();
    assert_eq!(failure.ending, Ending::Unanswered, "{failure}");
    give(&feed, "b");
    drop(feed);
    let failure = door.pass(&passage).await.unwrap_err();
    assert!(failure.permanent, "{failure}");
    assert_eq!(upstream.arrived().len(), 0, "no second request, and no half one");
}

#[tokio::test]
async fn a_body_that_is_there_whole_goes_out_again() {
    let upstream =
        Misbehave::new([vec![Act::Read, Act::Reset], vec![Act::Read, Act::Write(OK.as_bytes())]])
            .await;
    let door = door();
    let passage = passage(upstream.target(), Upload::whole(Bytes::from_static(b"ab")));
    door.pass(&passage).await.unwrap_err();
    assert_eq!(body(door.pass(&passage).await).await.unwrap(), "ok");
    let arrived = upstream.arrived();
    assert_eq!(arrived[0].body, arrived[1].body);
    assert_eq!(arrived[1].request_line(), "POST /up?x=1 HTTP/1.1");
    assert_eq!(arrived[1].header("content-length"), ["2"]);
}

#[tokio::test]
async fn a_connection_with_half_a_request_on_it_is_not_used_again() {
    let upstream = Misbehave::always([
        Act::ReadHead,
        Act::Write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"),
        Act::Hang,
    ])
    .await;
    let (door, (feed, upload)) = (door(), fed());
    let answer = door.pass(&passage(upstream.target(), upload)).await.unwrap();
    assert_eq!(answer.status(), 413);
    body(Ok(answer)).await.unwrap();
    assert_eq!(door.idle_connections(), 0);
    drop(feed);
}

#[tokio::test]
async fn an_upload_goes_on_while_nobody_reads_the_answer_that_came_before_its_end() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
    let upstream =
        Misbehave::always([Act::ReadHead, Act::Write(head), Act::ReadBytes(6), Act::Write(b"ok")])
            .await;
    let (feed, upload) = fed();
    let answer = door().pass(&passage(upstream.target(), upload)).await.unwrap();
    give(&feed, "a");
    upstream.closed(1).await;
    assert_eq!(body(Ok(answer)).await.unwrap(), "ok");
}

#[tokio::test]
async fn an_answer_that_nobody_wants_any_more_ends_its_connection() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let upstream = Misbehave::always([Act::Read, Act::Write(head), Act::Hang]).await;
    let answer = door().pass(&passage(upstream.target(), Upload::default())).await.unwrap();
    drop(answer);
    upstream.closed(1).await;
}
