//! The wire between gateway and upstream, cut at every place at which a call can be: an upstream
//! that dedupes sees one effect and its caller the answer; any other sees the call once at most,
//! and where nobody can know the caller is told so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::crash_world::{Gateway, World};
use onceward_proof::auditor::Auditor;
use onceward_proof::check::Told;
use onceward_proof::cut::{How, Point, Proxy};
use onceward_proof::figures::{Figures, number};
use onceward_proof::line::Line;

/// One cut on one kind of route, with a proxy of its own.
struct Case {
    name: String,
    http2: bool,
    keyed: bool,
    point: Point,
    how: How,
    proxy: Proxy,
}

impl Case {
    /// Where the auditor counts its effects.
    fn place(&self) -> &'static str {
        if self.keyed { "keyed" } else { "once" }
    }

    fn route(&self) -> String {
        let effects = if self.keyed { "keyed" } else { "non-idempotent" };
        format!(
            "[routes.{}]\nupstream = \"http://{}/{}\"\nhttp2 = {}\neffects = \"{effects}\"\ntimeout = \"5s\"\nbreaker = false\nbudget = false\n\
             held = {{ attempts_max = 20, base = \"5ms\", floor = \"5ms\", cap = \"10ms\" }}\n",
            self.name,
            self.proxy.address,
            self.place(),
            self.http2
        )
    }
}

async fn cases(auditor: &Auditor) -> Vec<Case> {
    let translated = speak_http2_before(auditor.address).await;
    let mut cases = Vec::new();
    for (http2, upstream) in [(false, auditor.address), (true, translated)] {
        for point in Point::ALL.into_iter().filter(|point| !http2 || point.is_of_http2()) {
            for (how, keyed) in
                [How::Close, How::Reset].into_iter().flat_map(|how| [(how, false), (how, true)])
            {
                let (wire, kind) =
                    (if http2 { "h2" } else { "h1" }, if keyed { "keyed" } else { "once" });
                let name = format!("{kind}-{wire}-{point:?}-{how:?}").to_lowercase();
                let proxy = Proxy::start(upstream, http2, point, how).await;
                cases.push(Case { name, http2, keyed, point, how, proxy });
            }
        }
    }
    cases
}

/// An HTTP/2 upstream that hands every whole request to the auditor.
async fn speak_http2_before(auditor: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request| hand_over(request, auditor));
            let server = http2::Builder::new(TokioExecutor::new());
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // A connection that ends badly ends alone.
                let _ = connection.await;
            });
        }
    });
    address
}

async fn hand_over(
    request: Request<Incoming>,
    auditor: SocketAddr,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let headers: Vec<(&str, &str)> = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .filter(|(name, _)| *name != "content-length")
        .collect();
    let path = head.uri.path();
    let mut line = Line::connect(auditor).await?;
    let answer = line.ask(head.method.as_str(), path, &headers, &body).await?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in &answer.headers {
        if !["transfer-encoding", "content-length"].contains(&name.as_str()) {
            response = response.header(name, value);
        }
    }
    Ok(response.body(Full::new(answer.body.into()))?)
}

/// What was wrong with one cut.
async fn cut(case: &Case, gateway: &Gateway, auditor: &Auditor) -> Vec<String> {
    let mut wrong = Vec::new();
    // Large, so that it is still being written when the cut comes.
    let body = format!("{{\"pad\":\"{}\"}}", "c".repeat(200_000)).into_bytes();
    let path = format!("/{}/chunked/things", case.name);
    if case.point == Point::Refused {
        case.proxy.open_soon();
    }
    let first = gateway.call(&path, &case.name, &body).await.unwrap();
    let told = Told::of(&first);
    let operation = gateway.rested(&case.name, &case.name).await;
    let again = Told::of(&gateway.call(&path, &case.name, &body).await.unwrap());
    let effects = auditor.effects(case.place(), &case.name);
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!(
                "{}: {what}: told {told:?}, then {again:?}; {effects} effects, {} requests; {operation}",
                case.name,
                case.proxy.requests()
            ));
        }
    };
    if case.keyed {
        expect(effects == 1, "a keyed upstream has one effect");
        expect(is_answered(&told, &again, &operation), "its caller gets the answer, and again");
        return wrong;
    }
    expect(effects <= 1 && auditor.arrived_with(&case.name).len() <= 1, "it arrives once at most");
    expect(!case.point.is_delivered() || effects == 1, "what was delivered is an effect");
    let in_doubt = operation["state"] == "in_doubt"
        && (told.status, told.code.as_str()) == (504, "outcome-unknown")
        && (again.status, again.code.as_str()) == (409, "outcome-unknown");
    // The status came, so it is known that it was done; its answer is not.
    let is_known = operation["state"] == "done"
        && told.code == "response-not-retained"
        && again.code == "response-not-retained";
    let answered = is_answered(&told, &again, &operation);
    expect(answered || in_doubt || is_known, "it is answered, known or in doubt");
    expect(!(answered || is_known) || effects == 1, "what is done was done");
    expect(case.point.is_unsent() || case.proxy.requests() == 1, "no second try");
    let is_answering = case.point.is_delivered() && case.point != Point::RequestDelivered;
    match case.point {
        // A reset takes what was not read yet with it: how far it came is a matter of luck.
        _ if case.how == How::Reset && is_answering => {}
        Point::Refused => expect(answered, "what was not sent is sent again"),
        Point::Connected => {}
        Point::AnswerDelivered => expect(answered, "the whole answer came"),
        Point::AnswerBodyBegins | Point::AnswerBody | Point::LastChunk => {
            expect(is_known, "its status came");
        }
        _ => expect(in_doubt, "nobody can know"),
    }
    wrong
}

/// A final answer, the same to whoever asks again.
fn is_answered(told: &Told, again: &Told, operation: &Value) -> bool {
    told.status == 201
        && again.replayed
        && again.digest == told.digest
        && operation["state"] == "done"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_wire_is_cut_nothing_is_done_twice_and_nothing_is_lost() {
    let rounds = number("TEST_CUT_ROUNDS", 1);
    let mut figures = Figures::of("wire-cuts", 1);
    let (mut made, mut wrong) = (0, Vec::new());
    let (mut done, mut in_doubt) = (0, 0);
    for round in 0..rounds {
        let auditor = Auditor::start(round).await;
        let cases = cases(&auditor).await;
        let mut routes = String::new();
        for case in &cases {
            // Writing into a string does not fail.
            let _ = write!(routes, "{}", case.route());
        }
        let world = World::with(round, &routes).await;
        let gateway = world.start().await;
        for case in &cases {
            wrong.extend(cut(case, &gateway, &auditor).await);
            made += 1;
        }
        for operation in gateway.operations().await {
            done += u64::from(operation["state"] == "done");
            in_doubt += u64::from(operation["state"] == "in_doubt");
        }
    }
    figures.count("points", Point::ALL.len());
    figures.count("cuts", made as u64);
    figures.count("done", done);
    figures.count("in_doubt", in_doubt);
    figures.tell(wrong.len());
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    assert!(in_doubt >= 10 * rounds && done >= 30 * rounds, "too tame");
}
