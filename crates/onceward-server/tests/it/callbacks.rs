//! Callbacks of the real gateway: a listener is told of each end, signed, and a kill -9 between the end
//! and its telling loses none.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::HashMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use onceward::webhook;
use serde_json::{Value, json};

use crate::world::{Upstream, World, read_head, route, until};

/// The secret of the standard's own example, and its bytes.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const SECRET_BYTES: [u8; 24] =
    *b"\x31\xf2\x90\xf6\xbf\x06\x29\x8a\xab\x4f\x08\xd4\x3c\x3f\x08\x2c\xf6\x48\xa3\x62\xda\x2d\xa4\xb0";

/// What was told.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// Whoever wants to be told.
pub(crate) struct Hooks {
    pub(crate) address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Hooks {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let Ok((_, headers)) = read_head(&mut reader) else { continue };
                let headers: HashMap<_, _> = headers.into_iter().collect();
                let length = headers.get("content-length").and_then(|length| length.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                // Whoever was killed in the midst of it told nothing.
                if !headers.contains_key("webhook-id") || reader.read_exact(&mut body).is_err() {
                    continue;
                }
                heard.lock().unwrap().push(Told { headers, body });
                let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                // A gateway that was killed hears no answer.
                let _ = reader.into_inner().write_all(answer.as_bytes());
            }
        });
        Self { address, told }
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

pub(crate) fn configure(world: &World, upstream: SocketAddr) {
    let route = route("a", upstream);
    let text =
        format!("[callbacks]\nsecret = \"{SECRET}\"\n[egress]\nallow = [\"127.0.0.0/8\"]\n{route}");
    world.write("onceward.toml", &text);
}

#[test]
fn an_end_is_told_with_the_operation_and_a_signature_that_holds() {
    let (world, hooks) = (World::new(), Hooks::start());
    let upstream = Upstream::answering(Some(201));
    configure(&world, upstream.address);
    let gateway = world.serve();
    let url = format!("http://{}/told?x=1", hooks.address);
    let headers = [("idempotency-key", "k-1"), ("onceward-callback", url.as_str())];
    assert_eq!(gateway.call("POST", "/to/a/x", &headers, "the body").status, 201);
    let told = until("it is told", || hooks.told().first().cloned());
    let shown: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!((&shown["key"], &shown["state"]), (&json!("k-1"), &json!("done")));
    assert!(!String::from_utf8_lossy(&told.body).contains("the body"));
    let id = &told.headers["webhook-id"];
    assert_eq!(*id, format!("{}/done", shown["id"].as_str().unwrap()));
    let seconds = told.headers["webhook-timestamp"].parse().unwrap();
    let wanted = webhook::sign(&SECRET_BYTES, id, seconds, &told.body);
    assert_eq!(told.headers["webhook-signature"], wanted);
    let parent = shown["id"].as_str().unwrap();
    let born = until("it has ended", || {
        let born = gateway.run(&["ls", "--parent", parent, "--json"]).json();
        (born[0]["state"] == "done").then(|| born[0].clone())
    });
    assert_eq!((&born["key"], &born["effects"]), (&json!(id), &json!("keyed")));
    let path = format!("/v1/operations/{}/resend", born["id"].as_str().unwrap());
    let json = [("content-type", "application/json")];
    assert_eq!(gateway.call("POST", &path, &json, "{\"reason\": \"r\"}").status, 409);
}

#[test]
fn a_callback_that_nobody_may_reach_or_sign_is_refused_and_nothing_is_sent() {
    let world = World::new();
    let upstream = Upstream::answering(Some(201));
    configure(&world, upstream.address);
    let gateway = world.serve();
    for (url, code) in [
        ("http://169.254.169.254/", "egress-refused"),
        ("ftp://hooks.example.com/", "url-invalid"),
        ("not a url", "url-invalid"),
    ] {
        let refused = gateway.call("POST", "/to/a/x", &[("onceward-callback", url)], "");
        assert_eq!(refused.json()["code"], code, "{url}");
    }
    drop(gateway);
    world.write("onceward.toml", &route("a", upstream.address));
    let gateway = world.serve();
    let asks = [("onceward-callback", "https://hooks.example.com/")];
    let refused = gateway.call("POST", "/to/a/x", &asks, "");
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("option-invalid")));
    assert_eq!(upstream.calls(), 0);
    world.write(
        "bad.toml",
        &format!("{}callback = \"https://a.example.com\"\n", route("a", upstream.address)),
    );
    let said = world.run(&["check", "--config", "bad.toml"]).failed(78);
    assert!(said.contains("callbacks.secret"), "{said}");
    world.write("bad.toml", "[callbacks]\nsecret = \"whsec_c2hvcnQ=\"\n");
    let said = world.run(&["check", "--config", "bad.toml"]).failed(78);
    assert!(said.contains("24 to 64 bytes") && !said.contains("c2hvcnQ"), "{said}");
}

#[test]
fn killed_at_any_moment_around_an_end_the_gateway_tells_of_it_after_all() {
    let (world, hooks) = (World::new(), Hooks::start());
    let upstream = Upstream::answering(Some(201));
    configure(&world, upstream.address);
    let url = format!("http://{}/told", hooks.address);
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let gateway = world.serve();
        let address = gateway.address;
        let callers: Vec<_> = (0..8)
            .map(|n| {
                let url = url.clone();
                std::thread::spawn(move || {
                    let key = format!("k-{round}-{n}");
                    let headers = [("idempotency-key", key.as_str()), ("onceward-callback", &url)];
                    let answer = crate::world::call(address, "POST", "/to/a/x", &headers, "");
                    answer
                        .ok()
                        .filter(|answer| answer.status == 201)
                        .map(|answer| answer.header("onceward-operation").unwrap().to_owned())
                })
            })
            .collect();
        // The first answer is out: its end is on disk, and its callback may be anywhere.
        until("one was answered", || {
            callers.iter().any(std::thread::JoinHandle::is_finished).then_some(())
        });
        gateway.kill();
        // Whose connection broke was not told anything, and is promised nothing here.
        acknowledged.extend(callers.into_iter().filter_map(|caller| caller.join().ok().flatten()));
    }
    let gateway = world.serve();
    assert!(acknowledged.len() >= 8, "{acknowledged:?}");
    until("all are told", || {
        let told = hooks.told();
        let is_told = |id: &String| {
            let wanted = format!("{id}/done");
            told.iter().any(|told| told.headers["webhook-id"] == wanted)
        };
        acknowledged.iter().all(is_told).then_some(())
    });
    for id in &acknowledged {
        let born = gateway.run(&["ls", "--parent", id, "--json"]).json();
        assert_eq!(born.as_array().unwrap().len(), 1, "{id}: born once");
    }
}
