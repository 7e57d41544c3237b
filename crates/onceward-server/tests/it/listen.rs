//! `listen` and `trigger`: webhooks while what handles them is being written.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::{BTreeSet, HashMap};
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use onceward::webhook::{Algorithm, hmac};
use rustix::process::Signal;
use serde_json::Value;

use crate::sources::hex;
use crate::world::{Ended, Log, Running, World, read_head, until};

/// A port of this machine that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What is being written: it refuses as many as it is told to.
struct App {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    refuses: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Told {
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl App {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self {
            address: listener.local_addr().unwrap(),
            told: Arc::default(),
            refuses: Arc::default(),
        };
        let (told, refuses) = (Arc::clone(&app.told), Arc::clone(&app.refuses));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let Ok((_, headers)) = read_head(&mut reader) else { continue };
                let headers: HashMap<_, _> = headers.into_iter().collect();
                let length = headers.get("content-length").and_then(|length| length.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                told.lock().unwrap().push(Told { headers, body });
                let one_less = |left: usize| left.checked_sub(1);
                let is_refused = refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
                let status = if is_refused.is_ok() { "503 Service Unavailable" } else { "200 OK" };
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // Whoever has gone hears no answer.
                let _ = reader.into_inner().write_all(answer.as_bytes());
            }
        });
        app
    }

    fn refuse(&self, count: usize) {
        self.refuses.store(count, Ordering::SeqCst);
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

/// A person at a machine of their own.
struct Developer {
    world: World,
    app: App,
}

/// `listen`, and where.
struct Listening {
    running: Running,
    out: Log,
    err: Log,
    url: String,
}

impl Developer {
    fn new() -> Self {
        Self { world: World::new(), app: App::start() }
    }

    fn listen(&self, flags: &[&str]) -> Listening {
        let to = format!("http://{}/hook", self.app.address);
        let always = ["listen", "--forward-to", &to, "--listen", "127.0.0.1:0"];
        let mut command = self.world.command(&[&always, flags].concat());
        command.env("HOME", self.world.path(""));
        let (running, out, err) = Running::start(command);
        let first = err.until("/in/");
        let url = first.trim().rsplit_once("/in/").unwrap().0.to_owned();
        err.until("Ctrl-C");
        Listening { running, out, err, url }
    }

    fn trigger(&self, at: &Listening, flags: &[&str]) -> Ended {
        let mut command = self.world.command(&[&["trigger", "--url", &at.url], flags].concat());
        command.env("HOME", self.world.path(""));
        Ended::from(command.output().unwrap())
    }

    fn secret(&self) -> String {
        let mut command = self.world.command(&["listen", "--print-secret"]);
        command.env("HOME", self.world.path(""));
        Ended::from(command.output().unwrap()).ok().trim().to_owned()
    }
}

#[test]
fn each_scheme_that_sources_verify_is_triggered_delivered_once_and_has_a_line() {
    let ada = Developer::new();
    let at = ada.listen(&[]);
    let list = ada.world.run(&["trigger", "--list", "--json"]).json();
    let mut schemes = BTreeSet::new();
    for sample in list.as_array().unwrap() {
        let event = sample["event"].as_str().unwrap();
        let (scheme, kind) = event.split_once(':').unwrap();
        let came = ada.trigger(&at, &[event, "--json"]).json();
        assert_eq!((&came["status"], &came["duplicate"]), (&200.into(), &false.into()), "{came}");
        let id = came["id"].as_str().unwrap();
        let line = at.out.until(id);
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns[1], scheme);
        let has_type = scheme != "twilio" && event != "slack:command";
        assert_eq!(columns[2], if has_type { kind } else { "-" }, "{line}");
        assert_eq!((columns[4], columns[6]), ("200", "done"), "{line}");
        schemes.insert(scheme.to_owned());
    }
    assert_eq!(schemes.len(), 7);
    let told = ada.app.told();
    assert_eq!(told.len(), list.as_array().unwrap().len(), "each is delivered once");
    assert!(told.iter().all(|told| told.headers.contains_key("webhook-id")));
    // The receiver verifies with the same secret as the source.
    let stripe = told.iter().find(|told| told.headers.contains_key("stripe-signature")).unwrap();
    let signed = stripe.headers["stripe-signature"].strip_prefix("t=").unwrap();
    let (seconds, signature) = signed.split_once(",v1=").unwrap();
    let content = [seconds.as_bytes(), b".", &stripe.body].concat();
    let secret = ada.secret();
    let wanted = hmac(Algorithm::Sha256, secret.as_bytes(), &content);
    assert_eq!(signature, hex(&wanted));
}

#[test]
fn the_secret_is_the_same_each_time_and_the_ledger_ends_with_it() {
    let ada = Developer::new();
    let at = ada.listen(&[]);
    let secret = ada.secret();
    assert!(secret.starts_with("whsec_"));
    at.err.until(&secret);
    ada.trigger(&at, &["github:push"]).ok();
    until("it is delivered", || (ada.app.told().len() == 1).then_some(()));
    assert!(std::fs::read_dir(ada.world.path("tmp")).unwrap().next().is_some());
    at.running.signal(Signal::INT);
    assert!(at.running.ended().success());
    let left: Vec<_> = std::fs::read_dir(ada.world.path("tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let again = ada.listen(&[]);
    again.err.until(&secret);
}

#[test]
fn what_is_refused_is_delivered_again_and_the_same_id_is_a_duplicate() {
    let ada = Developer::new();
    ada.app.refuse(2);
    let at = ada.listen(&["--json"]);
    let first = ada.trigger(&at, &["stripe:charge.refunded", "--id", "evt_mine"]).ok();
    assert!(first.starts_with("evt_mine\t200\top_"), "{first}");
    let line = at.out.until("\"attempt\":3");
    let last: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&last["status"], &last["state"]), (&200.into(), &"done".into()), "{last}");
    let refused: Value = serde_json::from_str(&at.out.until("\"attempt\":1")).unwrap();
    assert_eq!((&refused["status"], &refused["state"]), (&503.into(), &"pending".into()));
    assert!(refused["due"].is_string(), "{refused}");
    let again = ada.trigger(&at, &["stripe:charge.refunded", "--id", "evt_mine"]);
    assert!(again.err.contains("nothing new"), "{again:?}");
    at.out.until("\"duplicate\":true");
    assert_eq!(ada.app.told().len(), 3);
}

#[test]
fn only_the_events_that_are_wanted_go_on_and_the_rest_is_acknowledged() {
    let ada = Developer::new();
    let at = ada.listen(&["--source", "stripe", "--events", "payment_intent.*,charge.refunded"]);
    for event in
        ["stripe:customer.created", "stripe:payment_intent.created", "stripe:charge.refunded"]
    {
        ada.trigger(&at, &[event]).ok();
    }
    at.out.until("charge.refunded");
    at.out.until("payment_intent.created");
    assert!(!at.out.has("customer.created"));
    assert_eq!(ada.app.told().len(), 2);
    // Of another provider there is no source.
    let other = ada.trigger(&at, &["github:push"]);
    assert!(other.failed(1).contains("no such source"));
}

#[test]
fn what_waits_is_kept_where_a_folder_is_named() {
    let ada = Developer::new();
    ada.app.refuse(1000);
    let data = ada.world.path("kept");
    let data = data.to_str().unwrap();
    let at = ada.listen(&["--data", data]);
    ada.trigger(
        &at,
        &["standard-webhooks:anything.of.mine", "--data", "{\"type\":\"anything.of.mine\"}"],
    )
    .ok();
    at.out.until("again in");
    at.running.signal(Signal::INT);
    assert!(at.running.ended().success());
    ada.app.refuse(0);
    let again = ada.listen(&["--data", data]);
    let line = again.out.until("anything.of.mine");
    assert!(line.contains("\t200\t"), "{line}");
    // Without one it is said what is lost.
    ada.app.refuse(1000);
    let third = ada.listen(&[]);
    ada.trigger(&third, &["github:ping"]).ok();
    third.out.until("ping");
    third.running.signal(Signal::INT);
    third.err.until("1 not delivered");
}

#[test]
fn a_providers_own_secret_is_taken_and_a_forged_webhook_is_refused_with_a_hint() {
    let ada = Developer::new();
    let own = "It's a Secret to Everybody";
    let at = ada.listen(&["--source", "github", "--secret", own]);
    assert!(ada.trigger(&at, &["github:push", "--secret", own]).ok().contains("\t200\t"));
    let forged = ada.trigger(&at, &["github:push", "--secret", "another"]);
    assert!(forged.failed(1).contains("is it the source's secret?"));
    at.err.until("webhook refused");
    // Without one, and with none made, it is said where it comes from.
    let none = ada.trigger(&at, &["github:push"]);
    assert!(none.failed(2).contains("onceward listen --forward-to"));
}

#[test]
fn a_project_that_serves_others_and_an_environment_of_a_gateway_change_nothing() {
    let ada = Developer::new();
    let port = free_port();
    let own = format!("listen = \"0.0.0.0:{port}\"\n[routes.a]\nupstream = \"http://a.example\"\n");
    ada.world.write("onceward.toml", &own);
    let to = format!("http://{}/hook?a=${{HOME}}", ada.app.address);
    let mut command = ada.world.command(&["listen", "--forward-to", &to, "--source", "github"]);
    command.env("HOME", ada.world.path("")).env("ONCEWARD_DATA", ada.world.path("other"));
    command.env("ONCEWARD_STORE", "postgres://nobody@127.0.0.1:1/none");
    let (_running, _, err) = Running::start(command);
    let first = err.until("/in/");
    assert_eq!(first.trim(), format!("http://127.0.0.1:{port}/in/github"));
    // What it prints finds it.
    err.until("try: onceward trigger github:push");
    err.until("Ctrl-C");
    let mut trigger = ada.world.command(&["trigger", "github:push"]);
    trigger.env("HOME", ada.world.path(""));
    assert!(Ended::from(trigger.output().unwrap()).ok().contains("\t200\t"));
    assert!(!ada.world.path("other").exists());
}

#[test]
fn a_handler_is_tried_without_a_gateway() {
    let ada = Developer::new();
    let to = format!("http://{}/hook", ada.app.address);
    let own = ["trigger", "twilio:message.received", "--to", &to, "--secret", "token"];
    assert!(ada.world.run(&own).ok().contains("\t200\t-"));
    let told = &ada.app.told()[0];
    assert!(told.headers.contains_key("x-twilio-signature"));
    assert!(String::from_utf8_lossy(&told.body).starts_with("MessageSid=SM"));
    // One that is away is told as that, and not as a gateway that is.
    let nobody = format!("http://127.0.0.1:{}/hook", free_port());
    let away = ada.world.run(&["trigger", "github:push", "--to", &nobody, "--secret", "s"]);
    let said = away.failed(75);
    assert!(said.contains(&format!("nobody is reached at {nobody}")), "{said}");
    assert!(!said.contains("onceward serve"), "{said}");
}
