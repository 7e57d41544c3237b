//! How long each phase of an attempt took: what was slow is told as slow, and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use onceward::core::attempt::{Phase, Timings};
use onceward::upstream::{Door, Egress, Failure, Target, Upstream};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::misbehave::{Act, Misbehave, OK, answered, dispatch, door, post, rest, target};
use crate::upstream_tls::acceptor;

/// How long an upstream holds back.
const HELD_BACK: Duration = Duration::from_millis(50);

/// Posts `body`, reads the whole answer, and tells what each phase took.
async fn timed(door: &Door, target: Target, body: &[u8]) -> Result<Timings, Failure> {
    timed_and_told(door, target, body, &Notify::new()).await
}

/// The same; the upstream is told once the head of its answer is there.
async fn timed_and_told(
    door: &Door,
    target: Target,
    body: &[u8],
    head_came: &Notify,
) -> Result<Timings, Failure> {
    let begun = Instant::now();
    let told = async {
        let mut answer = answered(door.send(dispatch(target, "POST", "/", body)).await)?;
        head_came.notify_one();
        rest(&mut answer).await?;
        Ok(answer.body.timings())
    };
    let told = told.await;
    let timings = told.as_ref().map_or_else(|failure: &Failure| failure.timings, |it| *it);
    // Each is counted up by less than a microsecond.
    let most = begun.elapsed() + Duration::from_micros(Phase::ALL.len() as u64);
    assert!(timings.sum() <= most, "nothing is counted twice: {timings:?} in {most:?}");
    told
}

fn phases(timings: &Timings) -> Vec<Phase> {
    timings.each().map(|(phase, _)| phase).collect()
}

/// What it broke off in, after how long.
fn last(timings: &Timings) -> (Phase, Duration) {
    timings.each().last().expect("a phase")
}

/// An HTTPS upstream that holds back once whoever calls is in the phase `slow`; of a body it is told by
/// what comes back.
async fn holds_back(slow: Phase, alpn: &[&[u8]]) -> (Target, Door, TempDir, Arc<Notify>) {
    let (acceptor, options, folder) = acceptor("localhost", alpn);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let is_http2 = !alpn.is_empty();
    let head_came = Arc::new(Notify::new());
    let told = Arc::clone(&head_came);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                stream.set_nodelay(true).expect("a socket");
                // Its hello shows that whoever calls is in that phase.
                stream.peek(&mut [0]).await.expect("a hello");
                hold_back(slow == Phase::Tls).await;
                let mut stream = acceptor.accept(stream).await.expect("TLS");
                if is_http2 {
                    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        respond.send_response(http::Response::new(()), true).expect("a stream");
                    }
                    return;
                }
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.expect("a request"));
                }
                hold_back(slow == Phase::Head).await;
                let (head, body) = OK.split_at(OK.len() - 2);
                stream.write_all(head.as_bytes()).await.expect("a reader");
                stream.flush().await.expect("a reader");
                if slow == Phase::Body {
                    told.notified().await;
                    hold_back(true).await;
                }
                stream.write_all(body.as_bytes()).await.expect("a reader");
                stream.flush().await.expect("a reader");
                // It is the other side that closes.
                let _ = stream.read_u8().await;
            });
        }
    });
    let door = Door::new(Egress::default(), &options).expect("a door");
    (target(&format!("https://localhost:{port}/")), door, folder, head_came)
}

#[expect(clippy::disallowed_methods, reason = "an upstream has a clock of its own")]
async fn hold_back(does_so: bool) {
    if does_so {
        tokio::time::sleep(HELD_BACK).await;
    }
}

#[tokio::test]
async fn what_an_upstream_holds_back_is_told_in_its_phase() {
    for slow in [Phase::Tls, Phase::Head, Phase::Body] {
        let (target, door, _folder, head_came) = holds_back(slow, &[]).await;
        let timings = timed_and_told(&door, target, b"", &head_came).await.expect("an answer");
        let all =
            [Phase::Resolve, Phase::Connect, Phase::Tls, Phase::Send, Phase::Head, Phase::Body];
        assert_eq!(phases(&timings), all, "{slow:?}");
        // With nothing counted twice, it is in no other phase.
        assert!(timings.of(slow).expect("told") >= HELD_BACK, "{slow:?} in {timings:?}");
        assert!(!timings.reused);
    }
}

#[tokio::test]
async fn a_connection_that_is_used_again_is_told_as_such_and_takes_no_time_to_open() {
    let twice = [Act::Read, Act::Write(OK.as_bytes()), Act::Read, Act::Write(OK.as_bytes())];
    let (upstream, door) = (Misbehave::always(twice).await, door());
    let first = timed(&door, upstream.target(), b"x").await.expect("an answer");
    let opened = [Phase::Resolve, Phase::Connect, Phase::Send, Phase::Head, Phase::Body];
    assert_eq!((phases(&first), first.reused), (opened.to_vec(), false));
    let second = timed(&door, upstream.target(), b"x").await.expect("an answer");
    let sent = [Phase::Send, Phase::Head, Phase::Body];
    assert_eq!((phases(&second), second.reused), (sent.to_vec(), true));
}

#[tokio::test]
async fn a_shared_connection_that_another_call_opens_is_waited_for_in_connect() {
    let (target, door, _folder, _) = holds_back(Phase::Tls, &[b"h2"]).await;
    let (first, second) =
        tokio::join!(timed(&door, target.clone(), b"x"), timed(&door, target, b"x"));
    let first = first.expect("an answer");
    let opened = [Phase::Resolve, Phase::Connect, Phase::Tls, Phase::Head, Phase::Body];
    let opened = opened.map(|phase| first.of(phase).is_some());
    assert!(opened.iter().all(|told| *told) && !first.reused, "{first:?}");
    let second = second.expect("an answer");
    assert!(second.reused, "{second:?}");
    assert!(second.of(Phase::Connect).expect("it waited") >= HELD_BACK, "{second:?}");
    assert_eq!((second.of(Phase::Resolve), second.of(Phase::Tls)), (None, None));
}

#[tokio::test]
async fn over_http2_what_is_sent_is_within_the_wait_for_the_head() {
    let (target, door, _folder, _) = holds_back(Phase::Head, &[b"h2"]).await;
    let first = timed(&door, target.clone(), b"x").await.expect("an answer");
    assert!(first.of(Phase::Head).is_some() && !first.reused, "{first:?}");
    let second = timed(&door, target, b"x").await.expect("an answer");
    assert_eq!(phases(&second), [Phase::Head, Phase::Body]);
    assert!(second.reused);
}

#[tokio::test]
async fn a_name_or_port_that_is_not_there_breaks_off_in_its_phase() {
    let failure =
        timed(&door(), target("http://nowhere.invalid/"), b"").await.expect_err("no name");
    assert_eq!(phases(&failure.timings), [Phase::Resolve]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let base = format!("http://{}/", free.local_addr().expect("an address"));
    drop(free);
    let failure = timed(&door(), target(&base), b"").await.expect_err("nobody listens");
    assert_eq!(phases(&failure.timings), [Phase::Resolve, Phase::Connect]);
}

#[tokio::test]
async fn what_times_out_says_in_which_phase_and_how_long_it_waited_there() {
    let soon = Duration::from_millis(100);
    let silent = Misbehave::always([Act::Read, Act::Hang]).await;
    let half = Misbehave::always([
        Act::Read,
        Act::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
        Act::Hang,
    ]);
    let half = half.await;
    for (upstream, scheme, phase) in [
        (&silent, "https", Phase::Tls),
        (&silent, "http", Phase::Head),
        (&half, "http", Phase::Body),
    ] {
        let mut target = target(&format!("{scheme}://{}/", upstream.address));
        target.timeouts.connect = soon;
        target.timeouts.head = soon;
        target.timeouts.body = soon;
        let failure = timed(&door(), target, b"").await.expect_err("too late");
        let timings = failure.timings;
        assert_eq!(last(&timings).0, phase, "{timings:?}");
        // What is bounded together is waited for together.
        let bounded = match phase {
            Phase::Tls => timings.sum(),
            Phase::Head => timings.of(Phase::Send).expect("sent") + last(&timings).1,
            _ => last(&timings).1,
        };
        assert!(bounded >= soon, "{timings:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_takes_no_more_of_a_request_is_told_as_slow_to_send_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}/", listener.local_addr().expect("an address"));
    let over = Arc::new(Notify::new());
    let is_over = Arc::clone(&over);
    let takes_none = tokio::spawn(async move {
        let taken = listener.accept().await;
        is_over.notified().await;
        drop(taken);
    });
    let mut target = target(&base);
    target.timeouts.head = Duration::from_millis(100);
    let more_than_sockets_hold = vec![b'x'; 64 << 20];
    let failure = timed(&door(), target, &more_than_sockets_hold).await.expect_err("too late");
    assert_eq!(last(&failure.timings).0, Phase::Send, "{failure:?}");
    assert!(last(&failure.timings).1 >= Duration::from_millis(100), "{failure:?}");
    over.notify_one();
    takes_none.await.expect("it ended");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_opened_anew_within_the_same_attempt() {
    let once = [Act::Read, Act::Write(OK.as_bytes())];
    let (upstream, door) = (Misbehave::always(once).await, door());
    post(&door, upstream.target(), b"x").await.expect("an answer");
    upstream.closed(1).await;
    let second = timed(&door, upstream.target(), b"x").await.expect("an answer");
    assert!(second.of(Phase::Connect).is_some() && !second.reused, "{second:?}");
}

#[tokio::test]
async fn what_has_no_connection_of_ours_has_no_timings() {
    let unfit = dispatch(target("http://127.0.0.1:9/"), "P ST", "/", b"");
    let failure = answered(door().send(unfit).await).expect_err("unfit");
    assert!(failure.timings.is_empty(), "{failure:?}");
}
