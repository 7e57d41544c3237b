//! Credentials of ours for an upstream: tokens that are fetched, kept and renewed, texts from files,
//! signatures; and that none of them is written down anywhere.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::HashMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use onceward::webhook;
use rustix::process::Signal;
use serde_json::json;

use crate::callbacks::{Hooks, SECRET, SECRET_BYTES};
use crate::world::{Upstream, World, call, is_in_a_file, read_head, until};

/// What came.
#[derive(Clone)]
struct Asked {
    first: String,
    headers: HashMap<String, String>,
    body: String,
}

/// A server that answers what `say` says, and keeps what came.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn start(say: impl Fn(&Asked, usize) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, say) = (Arc::clone(&asked), Arc::new(say));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, say) = (Arc::clone(&kept), Arc::clone(&say));
                // A caller that goes away is no matter of the server's.
                std::thread::spawn(move || drop(answer(stream, &kept, &*say)));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn times(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answer(
    stream: TcpStream,
    kept: &Mutex<Vec<Asked>>,
    say: &dyn Fn(&Asked, usize) -> (u16, String),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (first, headers) = read_head(&mut reader)?;
    let headers: HashMap<_, _> = headers.into_iter().collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let asked = Asked { first, headers, body: String::from_utf8_lossy(&body).into_owned() };
    let number = {
        let mut kept = kept.lock().unwrap();
        kept.push(asked.clone());
        kept.len()
    };
    let (status, body) = say(&asked, number);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    reader.into_inner().write_all(answer.as_bytes())
}

/// The token with this number, which lives so many seconds.
fn token(number: usize, seconds: u64) -> (u16, String) {
    let said = json!({
        "access_token": format!("canary-token-{number}"),
        "token_type": "Bearer",
        "expires_in": seconds,
    });
    (200, said.to_string())
}

/// A route that gets its tokens at `tokens`.
fn route(upstream: SocketAddr, tokens: SocketAddr, effects: &str) -> String {
    format!(
        "[routes.a]\nupstream = \"http://{upstream}\"\neffects = \"{effects}\"\nbreaker = false\n\
         retry = {{ attempts_max = 1000, base = \"50ms\", floor = \"10ms\", cap = \"100ms\" }}\n\
         [routes.a.auth.oauth2]\ntoken_url = \"http://{tokens}/oauth/token\"\nclient_id = \"our id\"\n\
         client_secret = \"canary-secret\"\nscope = \"orders:write orders:read\"\naudience = \"https://api\"\n"
    )
}

fn bearer(number: usize) -> String {
    format!("Bearer canary-token-{number}")
}

#[test]
fn all_who_need_a_token_ask_for_it_once_and_go_on_with_it() {
    let open = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = Arc::clone(&open);
    let tokens = Server::start(move |_, number| {
        let shut = gate.0.lock().unwrap();
        drop(gate.1.wait_while(shut, |is_open| !*is_open).unwrap());
        token(number, 3600)
    });
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    world.write("onceward.toml", &route(upstream.address, tokens.address, "non-idempotent"));
    let gateway = world.serve();
    let address = gateway.address;
    let callers: Vec<_> = (0..8)
        .map(|n| {
            let post = move || {
                let key = format!("k-{n}");
                call(address, "POST", "/to/a/x", &[("idempotency-key", key.as_str())], "{}")
                    .unwrap()
            };
            std::thread::spawn(post)
        })
        .collect();
    until("all are under way", || {
        let all = gateway.run(&["ls", "--state", "delivering", "--json"]).json();
        (all.as_array().unwrap().len() == 8).then_some(())
    });
    assert_eq!(upstream.calls(), 0);
    *open.0.lock().unwrap() = true;
    open.1.notify_all();
    for caller in callers {
        assert_eq!(caller.join().unwrap().status, 201);
    }
    // What passes without a record has the same.
    assert_eq!(gateway.call("GET", "/to/a/x", &[], "").status, 201);
    assert_eq!((upstream.calls(), upstream.authorization()), (9, Some(bearer(1))));
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].first, "POST /oauth/token HTTP/1.1");
    // `our+id:canary-secret`
    assert_eq!(asked[0].headers["authorization"], "Basic b3VyK2lkOmNhbmFyeS1zZWNyZXQ=");
    assert_eq!(
        asked[0].body,
        "grant_type=client_credentials&scope=orders%3Awrite+orders%3Aread&audience=https%3A%2F%2Fapi"
    );
}

#[test]
fn a_token_is_renewed_before_it_expires() {
    let tokens = Server::start(|_, number| token(number, 1));
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    world.write("onceward.toml", &route(upstream.address, tokens.address, "non-idempotent"));
    let gateway = world.serve();
    let mut n = 0;
    until("it was renewed", || {
        n += 1;
        let key = format!("k-{n}");
        let headers = [("idempotency-key", key.as_str())];
        assert_eq!(gateway.call("POST", "/to/a/x", &headers, "{}").status, 201);
        (tokens.times() >= 3).then_some(())
    });
    assert_ne!(upstream.authorization(), Some(bearer(1)));
}

#[test]
fn without_a_token_nothing_is_sent_and_it_is_tried_again() {
    let is_up = Arc::new(Mutex::new(false));
    let up = Arc::clone(&is_up);
    let tokens = Server::start(move |_, number| {
        let refusal = json!({ "error": "invalid_client", "error_description": "canary-word" });
        if *up.lock().unwrap() { token(number, 3600) } else { (401, refusal.to_string()) }
    });
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    world.write("onceward.toml", &route(upstream.address, tokens.address, "non-idempotent"));
    let gateway = world.serve();
    gateway.run(&["send", "a/orders", "--key", "waits", "--accepted"]).ok();
    let waits = gateway.run(&["ls", "--key", "waits", "--json"]).json();
    let id = waits[0]["id"].as_str().unwrap();
    let shown = until("it was tried", || {
        let shown = gateway.run(&["show", id, "--json"]).json();
        shown["attempts"][1]["ending"].is_string().then_some(shown)
    });
    assert_eq!(shown["attempts"][0]["ending"], "unsent", "{shown}");
    let error = shown["attempts"][0]["error"].as_str().unwrap();
    assert!(error.contains("no access token: 127.0.0.1 answers 401 (invalid_client)"), "{error}");
    // Who fails to get one leaves the server of tokens alone for a while.
    let attempts = gateway.run(&["show", id, "--json"]).json();
    assert!(attempts["attempts"].as_array().unwrap().len() >= tokens.times());
    assert_eq!(upstream.calls(), 0);
    *is_up.lock().unwrap() = true;
    gateway.until_state("waits", "done");
    assert_eq!(upstream.calls(), 1);
    gateway.run(&["routes"]).ok();
    let checked = world.run(&["check"]);
    for secret in ["canary", "Y2FuYXJ5", "b3VyK2lkOmNhbmFyeS1zZWNyZXQ="] {
        assert!(!gateway.log.has(secret), "{secret} in the log");
        assert!(!checked.out.contains(secret) && !checked.err.contains(secret), "{checked:?}");
        assert!(!shown.to_string().contains(secret), "{shown}");
    }
    gateway.kill();
    for secret in ["canary", "Bearer ", "b3VyK2lk"] {
        assert!(!is_in_a_file(&world.path("onceward-data"), secret), "{secret} in the ledger");
    }
}

/// An upstream that takes no token but the second.
fn second_only() -> Server {
    Server::start(|asked, _| {
        let is_it = asked.headers.get("authorization") == Some(&bearer(2));
        if is_it { (201, "done".to_owned()) } else { (401, "who is it?".to_owned()) }
    })
}

#[test]
fn a_token_that_the_upstream_refuses_is_replaced_and_only_what_may_arrive_twice_is_sent_again() {
    for (effects, answers) in
        [("idempotent", [201, 201]), ("keyed", [201, 201]), ("non-idempotent", [401, 201])]
    {
        let tokens = Server::start(|_, number| token(number, 3600));
        let (world, upstream) = (World::new(), second_only());
        world.write("onceward.toml", &route(upstream.address, tokens.address, effects));
        let gateway = world.serve();
        for (key, status) in ["k-1", "k-2"].into_iter().zip(answers) {
            let headers = [("idempotency-key", key)];
            let answer = gateway.call("POST", "/to/a/x", &headers, "{}");
            assert_eq!(answer.status, status, "{effects} {}", answer.text());
        }
        let sent: Vec<_> =
            upstream.asked().iter().map(|it| it.headers["idempotency-key"].clone()).collect();
        let wanted = ["k-1", "k-1", "k-2"];
        let left_out = usize::from(effects == "non-idempotent");
        assert_eq!(sent, wanted[left_out..], "{effects}");
        assert_eq!(tokens.times(), 2, "{effects}");
    }
}

#[test]
fn an_upstream_that_refuses_every_token_is_not_answered_with_ever_new_ones() {
    let tokens = Server::start(|_, number| token(number, 3600));
    let (world, upstream) = (World::new(), Upstream::answering(Some(401)));
    world.write("onceward.toml", &route(upstream.address, tokens.address, "idempotent"));
    let gateway = world.serve();
    for n in 0..20 {
        let key = format!("k-{n}");
        let headers = [("idempotency-key", key.as_str())];
        assert_eq!(gateway.call("POST", "/to/a/x", &headers, "{}").status, 401);
    }
    // One more for each ten seconds that a busy machine takes over it.
    assert!(tokens.times() < 10, "{}", tokens.times());
}

#[test]
fn a_credential_in_a_file_is_read_again_with_the_configuration() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    let base = format!("[routes.a]\nupstream = \"http://{}\"\n", upstream.address);
    world.write("token", "canary-one\n");
    world.write("onceward.toml", &format!("{base}auth.bearer = {{ file = \"token\" }}\n"));
    let gateway = world.serve();
    let post = |key: &str| {
        let headers = [("idempotency-key", key), ("authorization", "Bearer of the caller")];
        assert_eq!(gateway.call("POST", "/to/a/x", &headers, "{}").status, 201);
        upstream.authorization()
    };
    assert_eq!(post("k-1").as_deref(), Some("Bearer canary-one"));
    world.write("token", "canary-two\n");
    gateway.signal(Signal::HUP);
    gateway.log.until("the routes were read again");
    assert_eq!(post("k-2").as_deref(), Some("Bearer canary-two"));
    let basic = "auth.basic = { user = \"us\", password = { file = \"token\" } }\n";
    world.write("onceward.toml", &format!("{base}{basic}"));
    gateway.signal(Signal::HUP);
    until("it is another", || {
        // `us:canary-two`
        let key = format!("k-{}", upstream.calls() + 1);
        (post(&key).as_deref() == Some("Basic dXM6Y2FuYXJ5LXR3bw==")).then_some(())
    });
    assert!(!gateway.log.has("canary"));
    gateway.kill();
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary"));
}

#[test]
fn a_route_that_signs_has_the_operation_for_an_id_and_a_signature_that_holds() {
    let (world, hooks) = (World::new(), Hooks::start());
    let text = format!(
        "[routes.a]\nupstream = \"http://{}\"\nauth.standard_webhooks.secret = \"{SECRET}\"\n",
        hooks.address
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let headers = [("idempotency-key", "k-1"), ("webhook-id", "of the caller")];
    let answer = gateway.call("POST", "/to/a/x", &headers, "{\"n\":1}");
    assert_eq!(answer.status, 204);
    let told = until("it is told", || hooks.told().first().cloned());
    let id = &told.headers["webhook-id"];
    assert_eq!(answer.header("onceward-operation"), Some(id.as_str()));
    let seconds = told.headers["webhook-timestamp"].parse().unwrap();
    let wanted = webhook::sign(&SECRET_BYTES, id, seconds, &told.body);
    assert_eq!(told.headers["webhook-signature"], wanted);
    assert_eq!(told.body, b"{\"n\":1}");
}
