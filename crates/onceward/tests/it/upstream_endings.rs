//! How an attempt over HTTP/1.1 ends: unsent only where that is proven, and whole only where
//! it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use onceward::core::attempt::{Ending, Reached};
use onceward::upstream::{Door, DoorOptions, Egress, Failure, Target, Timeouts, Upstream};
use tokio::runtime::Builder;

use crate::misbehave::{Act, Misbehave, OK, answered, dispatch, door, headers, post, rest, target};

const SOON: Duration = Duration::from_millis(200);

/// A target that loses patience in one phase only.
fn impatient(upstream: &Misbehave, set: impl Fn(&mut Timeouts)) -> Target {
    let mut target = upstream.target();
    set(&mut target.timeouts);
    target
}

/// How an attempt ended that met this script, with nothing sent twice.
async fn failure(script: Vec<Act>) -> Failure {
    let upstream = Misbehave::always(script).await;
    let failure = post(&door(), upstream.target(), b"x").await.expect_err("a failure");
    assert_eq!(upstream.arrived().len(), 1, "sent once");
    failure
}

async fn unanswered(script: Vec<Act>) {
    let failure = failure(script).await;
    assert_eq!(
        (failure.ending, failure.reached),
        (Ending::Unanswered, Reached::Sent),
        "{failure:?}"
    );
    assert!(!failure.permanent);
}

async fn truncated(script: Vec<Act>) {
    let failure = failure(script).await;
    assert_eq!(
        (failure.ending, failure.reached),
        (Ending::Truncated, Reached::Head),
        "{failure:?}"
    );
    assert!(!failure.permanent);
}

#[tokio::test]
async fn a_whole_answer_is_answered() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let answer = post(&door(), upstream.target(), b"x").await;
    assert_eq!(answer, Ok((200, b"ok".to_vec())));
    assert_eq!(upstream.arrived().len(), 1);
}

#[tokio::test]
async fn a_refused_port_is_unsent() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let base = format!("http://{}/", free.local_addr().expect("an address"));
    drop(free);
    let failure = post(&door(), target(&base), b"x").await.expect_err("nobody listens");
    assert_eq!(
        (failure.ending, failure.reached),
        (Ending::Unsent, Reached::Resolved),
        "{failure:?}"
    );
    assert!(!failure.permanent, "somebody may listen later");
}

#[tokio::test]
async fn a_name_without_an_address_is_unsent() {
    let failure =
        post(&door(), target("http://nowhere.invalid/"), b"x").await.expect_err("no name");
    assert_eq!(
        (failure.ending, failure.reached),
        (Ending::Unsent, Reached::Nothing),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_unsent_for_good() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    for (method, path) in
        [("P ST", "/"), ("CONNECT", "/"), ("POST", "x"), ("POST", "/a b"), ("POST", "/a#b")]
    {
        let sent = door().send(dispatch(upstream.target(), method, path, b"")).await;
        let failure = answered(sent).expect_err("unfit");
        assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, true), "{method} {path}");
    }
    let mut split = dispatch(upstream.target(), "POST", "/", b"");
    split.headers = headers(&[("x-a", b"1\r\nx-b: 2")]);
    let failure = answered(door().send(split).await).expect_err("unfit");
    assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, true));
    assert_eq!(upstream.arrived().len(), 0);
}

#[tokio::test]
async fn a_request_that_was_read_and_dropped_is_unanswered() {
    unanswered(vec![Act::Read]).await;
    unanswered(vec![Act::Read, Act::Reset]).await;
}

#[tokio::test]
async fn a_head_that_breaks_off_is_unanswered() {
    unanswered(vec![Act::Read, Act::Write(b"HTTP/1.1 200 OK\r\ncontent-le")]).await;
    unanswered(vec![Act::Read, Act::Write(b"HTTP/1.1 200 OK\r\ncontent-le"), Act::Reset]).await;
}

#[tokio::test]
async fn garbage_is_unanswered() {
    unanswered(vec![Act::Read, Act::Write(b"\x16\x03\x01 good day to you\r\n\r\n"), Act::Hang])
        .await;
    unanswered(vec![
        Act::Read,
        Act::Write(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
        Act::Hang,
    ])
    .await;
}

#[tokio::test]
async fn a_head_without_end_is_unanswered() {
    let head = b"HTTP/1.1 200 OK\r\n";
    let line = b"x-long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    unanswered(vec![Act::Read, Act::Write(head), Act::Flood(line)]).await;
    unanswered(vec![Act::Read, Act::Write(head), Act::Flood(b"a: 1\r\n")]).await;
}

#[tokio::test]
async fn a_change_of_protocol_is_unanswered() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    unanswered(vec![Act::Read, Act::Write(switch), Act::Hang]).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_truncated() {
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
    truncated(vec![Act::Read, Act::Write(short)]).await;
    truncated(vec![Act::Read, Act::Write(short), Act::Reset]).await;
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
    truncated(vec![Act::Read, Act::Write(chunked)]).await;
    truncated(vec![Act::Read, Act::Write(chunked), Act::Write(b"zz\r\n"), Act::Hang]).await;
}

#[tokio::test]
async fn a_body_that_broke_off_never_looks_whole_afterwards() {
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
    let upstream = Misbehave::always([Act::Read, Act::Write(short)]).await;
    let sent = door().send(dispatch(upstream.target(), "POST", "/", b"")).await;
    let mut answer = answered(sent).expect("a head came");
    let first = rest(&mut answer).await.expect_err("it broke off");
    let second = answer.body.chunk().await.expect_err("it still has");
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_unanswered() {
    for script in [
        vec![Act::Read, Act::Hang],
        vec![Act::Read, Act::Trickle(b"HTTP/1.1 200 OK\r\nx-slow: aaaa")],
        vec![Act::Read, Act::Flood(b"HTTP/1.1 103 Early Hints\r\n\r\n")],
    ] {
        let upstream = Misbehave::always(script).await;
        for set in [|t: &mut Timeouts| t.head = SOON, |t: &mut Timeouts| t.total = SOON] {
            let target = impatient(&upstream, set);
            let failure = post(&door(), target, b"x").await.expect_err("too late");
            assert_eq!((failure.ending, failure.reached), (Ending::Unanswered, Reached::Sent));
        }
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_truncated() {
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
    let upstream = Misbehave::always([Act::Read, Act::Write(short), Act::Hang]).await;
    let target = impatient(&upstream, |t| t.body = SOON);
    let failure = post(&door(), target, b"x").await.expect_err("too late");
    assert_eq!(failure.ending, Ending::Truncated, "{failure:?}");
}

#[tokio::test]
async fn a_body_that_comes_for_ever_ends_with_the_attempt() {
    let slow = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
    let endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for script in [
        vec![Act::Read, Act::Write(slow), Act::Trickle(b"a")],
        vec![Act::Read, Act::Write(endless), Act::Flood(b"2\r\nok\r\n")],
    ] {
        let upstream = Misbehave::always(script).await;
        let target = impatient(&upstream, |t| t.total = SOON);
        let failure = post(&door(), target, b"x").await.expect_err("too long");
        assert_eq!(failure.ending, Ending::Truncated, "{failure:?}");
        upstream.closed(1).await;
    }
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let upstream =
        Misbehave::always([Act::Read, Act::Write(interim), Act::Write(OK.as_bytes())]).await;
    let answer = post(&door(), upstream.target(), b"x").await;
    assert_eq!(answer, Ok((200, b"ok".to_vec())));
}

#[tokio::test]
async fn a_redirect_is_the_answer() {
    let elsewhere = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let location = format!(
        "HTTP/1.1 307 Moved\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        elsewhere.address
    );
    let upstream = Misbehave::always([Act::Read, Act::Write(location.leak().as_bytes())]).await;
    let answer = post(&door(), upstream.target(), b"x").await;
    assert_eq!(answer, Ok((307, Vec::new())));
    assert_eq!((upstream.arrived().len(), elsewhere.arrived().len()), (1, 0));
}

#[tokio::test]
async fn a_body_keeps_its_bytes_and_its_coding_both_ways() {
    let coded = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 6\r\n\r\n\x1f\x8b\x00\xff\r\n";
    let upstream = Misbehave::always([Act::Read, Act::Write(coded)]).await;
    let every: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let answer = post(&door(), upstream.target(), &every).await;
    assert_eq!(answer, Ok((200, b"\x1f\x8b\x00\xff\r\n".to_vec())));
    let arrived = upstream.arrived();
    assert!(arrived[0].body == every, "the upstream got other bytes");
    assert_eq!(arrived[0].header("content-length"), ["300000"]);
    assert_eq!(arrived[0].header("transfer-encoding"), Vec::<&str>::new());
}

#[tokio::test]
async fn header_lines_keep_their_repeats_and_their_bytes() {
    let head = b"HTTP/1.1 200 OK\r\nset-cookie: a=1; Expires=Mon, 21 Oct\r\nX-Raw: \xe9\xff\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n";
    let upstream = Misbehave::always([Act::Read, Act::Write(head)]).await;
    let mut request = dispatch(upstream.target(), "POST", "/", b"");
    request.headers = headers(&[("x-many", b"1"), ("x-many", b"2, 3")]);
    let answer = answered(door().send(request).await).expect("an answer");
    let cookies: Vec<_> = answer.headers.all("set-cookie").collect();
    assert_eq!(cookies, ["a=1; Expires=Mon, 21 Oct", "b=2"]);
    assert_eq!(answer.headers.get("x-raw").expect("a line")[..], b"\xe9\xff"[..]);
    assert_eq!(upstream.arrived()[0].header("x-many"), ["1", "2, 3"]);
}

#[tokio::test]
async fn what_is_set_at_send_replaces_what_was_remembered_and_framing_is_ours() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let mut request = dispatch(upstream.target(), "POST", "/", b"four");
    let remembered = headers(&[
        ("authorization", b"old"),
        ("x-kept", b"1"),
        ("authorization", b"older"),
        ("content-length", b"9"),
        ("transfer-encoding", b"chunked"),
        ("connection", b"close"),
    ]);
    Arc::get_mut(&mut request.request).expect("alone").headers = remembered;
    request.headers = headers(&[("authorization", b"new"), ("host", b"elsewhere")]);
    answered(door().send(request).await).expect("an answer");
    let arrived = &upstream.arrived()[0];
    assert_eq!(arrived.header("authorization"), ["new"]);
    assert_eq!(arrived.header("x-kept"), ["1"]);
    assert_eq!(arrived.header("content-length"), ["4"]);
    assert_eq!(arrived.header("host"), [upstream.address.to_string()]);
    assert_eq!(arrived.header("transfer-encoding").len() + arrived.header("connection").len(), 0);
}

#[tokio::test]
async fn a_length_is_told_where_the_method_has_a_body() {
    let upstream =
        Misbehave::always([Act::Read, Act::Write(b"HTTP/1.1 204 No Content\r\n\r\n")]).await;
    for (method, length) in [
        ("POST", Some("0")),
        ("PUT", Some("0")),
        ("PATCH", Some("0")),
        ("CHARGE", Some("0")),
        ("GET", None),
        ("HEAD", None),
        ("DELETE", None),
        ("OPTIONS", None),
    ] {
        answered(door().send(dispatch(upstream.target(), method, "/", b"")).await).expect("204");
        let arrived = upstream.arrived().pop().expect("a request");
        assert_eq!(arrived.header("content-length").first().copied(), length, "{method}");
    }
    answered(door().send(dispatch(upstream.target(), "DELETE", "/", b"x")).await).expect("204");
    assert_eq!(upstream.arrived().pop().expect("a request").header("content-length"), ["1"]);
}

#[tokio::test]
async fn the_base_goes_before_the_target_and_neither_is_tidied() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    for (base, path, line) in [
        ("/api/", "/x?y", "POST /api/x?y HTTP/1.1"),
        ("/api", "/x?y", "POST /api/x?y HTTP/1.1"),
        ("/", "/x//y/../z/%2e%2e/?q=a%20b&&c", "POST /x//y/../z/%2e%2e/?q=a%20b&&c HTTP/1.1"),
        ("", "//elsewhere/x", "POST //elsewhere/x HTTP/1.1"),
        ("", "/", "POST / HTTP/1.1"),
    ] {
        let target = target(&format!("http://{}{base}", upstream.address));
        answered(door().send(dispatch(target, "POST", path, b"")).await).expect("an answer");
        let arrived = upstream.arrived().pop().expect("a request");
        assert_eq!(arrived.request_line(), line);
    }
}

#[tokio::test]
async fn answers_without_a_body_end_at_their_head_and_keep_the_connection() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let upstream = Misbehave::always([
        Act::Read,
        Act::Write(head),
        Act::Read,
        Act::Write(b"HTTP/1.1 204 No Content\r\n\r\n"),
        Act::Read,
        Act::Write(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n"),
        Act::Read,
        Act::Write(OK.as_bytes()),
    ])
    .await;
    let door = door();
    for (method, status) in [("HEAD", 200), ("POST", 204), ("GET", 304), ("POST", 200)] {
        let sent = door.send(dispatch(upstream.target(), method, "/", b"")).await;
        let mut answer = answered(sent).expect("an answer");
        assert_eq!(answer.status, status);
        let body = rest(&mut answer).await.expect("whole");
        assert_eq!(body.len(), if status == 200 && method == "POST" { 2 } else { 0 });
    }
    assert!(upstream.arrived().iter().all(|request| request.connection == 0));
}

#[tokio::test]
async fn trailers_come_after_the_end() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let upstream = Misbehave::always([Act::Read, Act::Write(chunked), Act::Hang]).await;
    let sent = door().send(dispatch(upstream.target(), "POST", "/", b"")).await;
    let mut answer = answered(sent).expect("an answer");
    assert_eq!(rest(&mut answer).await.expect("whole"), b"ok");
    assert_eq!(answer.body.trailers(), headers(&[("x-sum", b"7")]));
}

#[tokio::test]
async fn an_answer_that_was_not_read_to_its_end_closes_its_connection() {
    let long = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\nfirst";
    let upstream = Misbehave::new([
        vec![Act::Read, Act::Write(long), Act::Hang],
        vec![Act::Read, Act::Write(OK.as_bytes()), Act::Hang],
    ])
    .await;
    let door = door();
    let sent = door.send(dispatch(upstream.target(), "POST", "/", b"")).await;
    let mut answer = answered(sent).expect("an answer");
    assert!(answer.body.chunk().await.expect("a piece").is_some());
    drop(answer);
    upstream.closed(1).await;
    assert_eq!(door.idle_connections(), 0);
    assert_eq!(post(&door, upstream.target(), b"").await, Ok((200, b"ok".to_vec())));
    assert_eq!(upstream.arrived()[1].connection, 1);
}

#[tokio::test]
async fn a_caller_that_gives_up_closes_the_connection() {
    let upstream = Misbehave::always([Act::Read, Act::Hang]).await;
    let door = door();
    let target = upstream.target();
    let attempt = tokio::spawn(async move { post(&door, target, b"x").await });
    while upstream.arrived().is_empty() {
        tokio::task::yield_now().await;
    }
    attempt.abort();
    upstream.closed(1).await;
    assert_eq!(upstream.arrived().len(), 1);
}

#[tokio::test]
async fn a_connection_that_said_close_is_not_used_again() {
    let last = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let upstream = Misbehave::always([Act::Read, Act::Write(last), Act::Hang]).await;
    let door = door();
    for n in 0..3 {
        assert_eq!(post(&door, upstream.target(), b"").await, Ok((200, b"ok".to_vec())));
        assert_eq!(upstream.arrived()[n].connection, n);
    }
}

#[tokio::test]
async fn a_closed_keep_alive_connection_is_replaced_and_the_request_sent_once() {
    // The upstream has closed for sure, but our side may not have heard of it yet: the runtime
    // has had no turn to look.
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let door = door();
    for n in 0..50 {
        let body = n.to_string();
        let answer = post(&door, upstream.target(), body.as_bytes()).await;
        assert_eq!(answer, Ok((200, b"ok".to_vec())), "request {n}");
        upstream.closed(n + 1).await;
    }
    let bodies: Vec<_> = upstream.arrived().into_iter().map(|request| request.body).collect();
    let sent: Vec<_> = (0..50).map(|n| n.to_string().into_bytes()).collect();
    assert_eq!(bodies, sent, "each arrived once, in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_races_with_a_closing_connection_is_never_doubled() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let door = door();
    let mut answers = HashSet::new();
    for n in 0..50 {
        let body = n.to_string();
        match post(&door, upstream.target(), body.as_bytes()).await {
            Ok(answer) => {
                assert_eq!(answer, (200, b"ok".to_vec()));
                answers.insert(body.into_bytes());
            }
            // Only a request of which something was written may be left open.
            Err(failure) => assert_eq!(failure.reached, Reached::Sent, "{failure:?}"),
        }
    }
    let arrived: Vec<_> = upstream.arrived().into_iter().map(|request| request.body).collect();
    let once: HashSet<_> = arrived.iter().cloned().collect();
    assert_eq!(arrived.len(), once.len(), "none arrived twice");
    assert!(answers.is_subset(&once), "what was answered had arrived");
}

#[tokio::test]
async fn a_stale_connection_whose_upstream_is_gone_is_unsent() {
    let mut upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let door = door();
    post(&door, upstream.target(), b"").await.expect("an answer");
    upstream.closed(1).await;
    upstream.stop().await;
    let failure = post(&door, upstream.target(), b"").await.expect_err("nobody listens");
    assert_eq!(
        (failure.ending, failure.reached),
        (Ending::Unsent, Reached::Resolved),
        "{failure:?}"
    );
    assert_eq!(upstream.arrived().len(), 1);
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_the_next_ones() {
    let two = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let upstream = Misbehave::always([Act::Read, Act::Write(two), Act::Hang]).await;
    let door = door();
    for _ in 0..5 {
        assert_eq!(post(&door, upstream.target(), b"").await, Ok((200, b"ok".to_vec())));
    }
}

#[tokio::test]
async fn idle_connections_are_used_again_and_closed_in_time() {
    let script =
        [Act::Read, Act::Write(OK.as_bytes()), Act::Read, Act::Write(OK.as_bytes()), Act::Hang];
    let upstream = Misbehave::always(script).await;
    let options = DoorOptions { idle_for_max: SOON, ..Default::default() };
    let door = Door::new(Egress::default(), &options).expect("a door");
    for _ in 0..2 {
        post(&door, upstream.target(), b"").await.expect("an answer");
    }
    assert!(upstream.arrived().iter().all(|request| request.connection == 0), "one connection");
    assert_eq!((door.idle_connections(), door.origins()), (1, 1));
    upstream.closed(1).await;
    while door.origins() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(door.idle_connections(), 0, "nothing of the upstream is kept");
}

#[tokio::test]
async fn an_idle_connection_that_its_upstream_closes_is_let_go_though_nobody_asks() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let door = door();
    post(&door, upstream.target(), b"").await.expect("an answer");
    while (door.idle_connections(), door.origins()) != (0, 0) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_more_connections_lie_idle_than_may() {
    let script = [Act::Read, Act::Write(OK.as_bytes()), Act::Hang];
    let upstream = Misbehave::always(script).await;
    let options = DoorOptions { idle_per_origin_max: 2, ..Default::default() };
    let door = Door::new(Egress::default(), &options).expect("a door");
    let mut answers = Vec::new();
    for _ in 0..4 {
        let sent = door.send(dispatch(upstream.target(), "POST", "/", b"")).await;
        answers.push(answered(sent).expect("an answer"));
    }
    for answer in &mut answers {
        rest(answer).await.expect("whole");
    }
    assert_eq!(door.idle_connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_taken_up_again_only_in_the_runtime_that_opened_it() {
    let script = [Act::Read, Act::Write(OK.as_bytes()), Act::Read, Act::Write(OK.as_bytes())];
    let upstream = Misbehave::always(script).await;
    let door = Arc::new(door());
    let post_here = |target: Target| {
        let door = Arc::clone(&door);
        async move { post(&door, target, b"").await.map(drop).expect("an answer") }
    };
    let other = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let other = other.expect("a runtime");
    post_here(upstream.target()).await;
    other.spawn(post_here(upstream.target())).await.expect("it is there");
    other.spawn(post_here(upstream.target())).await.expect("it is there");
    post_here(upstream.target()).await;
    let connections: Vec<_> = upstream.arrived().iter().map(|it| it.connection).collect();
    assert_eq!(connections, [0, 1, 1, 0]);
    other.shutdown_background();
}

#[tokio::test]
async fn the_connection_that_lay_longest_gives_way_to_another() {
    let script = [Act::Read, Act::Write(OK.as_bytes()), Act::Read, Act::Write(OK.as_bytes())];
    let upstream = Misbehave::always(script).await;
    let options = DoorOptions { idle_per_origin_max: 1, ..Default::default() };
    let door = Door::new(Egress::default(), &options).expect("a door");
    let mut answers = Vec::new();
    for _ in 0..2 {
        let sent = door.send(dispatch(upstream.target(), "POST", "/", b"")).await;
        answers.push(answered(sent).expect("an answer"));
    }
    for answer in &mut answers {
        rest(answer).await.expect("whole");
    }
    post(&door, upstream.target(), b"").await.expect("an answer");
    let connections: Vec<_> = upstream.arrived().iter().map(|it| it.connection).collect();
    assert_eq!(connections, [0, 1, 1]);
}
