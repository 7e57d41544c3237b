//! Ledgers that earlier releases wrote are kept as fixtures: this release opens each of them, finds
//! everything, and goes on with it. `cargo xtask fixture` writes this release's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::crash_world::{Gateway, World, copy_folder, until};
use onceward_proof::auditor::Auditor;
use onceward_proof::figures::tell;
use onceward_proof::line::{Line, Message};

/// Windows that outlast the project, since a fixture grows old; and one that is over at once.
const ROUTES: &str = r#"
[routes.kept]
upstream = "http://AUDITOR"
effects = "non-idempotent"
window = "36500d"
tombstone = "36500d"
timeout = "60s"

[routes.patient]
upstream = "http://AUDITOR"
effects = "idempotent"
window = "36500d"
tombstone = "36500d"
timeout = "60s"
retry = { attempts_max = 1000000, horizon = "36500d", table = ["100ms"] }
held = { attempts_max = 2, base = "5ms", floor = "1ms", cap = "20ms" }

[routes.brief]
upstream = "http://AUDITOR"
effects = "non-idempotent"
window = "1ms"
tombstone = "36500d"
"#;

/// A caller's credential: sealed in the ledger, and sent on.
const CREDENTIAL: &str = "Basic Zml4dHVyZTprZXk=";

/// What is written beside the files: every key, and what it gets from any later release.
const EXPECTED: &str = "expected.json";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../onceward/tests/fixtures")
}

/// An upstream that keeps every request; where it obliges, each is answered with 201, else as the
/// end of its path says.
#[derive(Clone)]
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Upstream {
    async fn start(obliges: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Self { address, seen: Arc::default() };
        let seen = Arc::clone(&upstream.seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    // A connection that ends badly ends alone.
                    let _ = answer(Line::new(stream), &seen, obliges).await;
                });
            }
        });
        upstream
    }

    fn with_key(&self, key: &str) -> Vec<Message> {
        let seen = self.seen.lock().unwrap();
        let is_its = |message: &&Message| message.header("idempotency-key") == Some(key);
        seen.iter().filter(is_its).cloned().collect()
    }
}

async fn answer(mut line: Line, seen: &Mutex<Vec<Message>>, obliges: bool) -> std::io::Result<()> {
    while let Some(message) = line.read().await? {
        let path = message.start.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = format!("{{\"answer to\":{}}}", String::from_utf8_lossy(&message.body));
        seen.lock().unwrap().push(message);
        let status = match path.rsplit('/').next().unwrap_or_default() {
            _ if obliges => "201 Created",
            "refuse" => "503 Service Unavailable",
            "gone" => "404 Not Found",
            "lose" => return Ok(()),
            "hang" => std::future::pending().await,
            _ => "201 Created",
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        line.write(format!("{head}{body}").as_bytes()).await?;
    }
    Ok(())
}

/// One key of the fixture.
fn key(route: &str, path: &str, key: &str, expect: &str) -> Value {
    json!({ "route": route, "path": path, "key": key, "expect": expect })
}

/// Every state in which an operation can be, and how a fixture comes to it.
fn keys() -> Vec<Value> {
    vec![
        key("kept", "ok", "done", "replayed"),
        key("kept", "gone", "dead-letter", "dead"),
        key("kept", "lose", "in-doubt", "in doubt"),
        key("kept", "lose", "resolved", "resolved"),
        key("kept", "ok", "forgotten", "invalidated"),
        key("kept", "hang", "delivering-once", "in doubt"),
        key("patient", "refuse", "pending", "goes on"),
        key("patient", "refuse", "cancelled", "cancelled"),
        key("patient", "hang", "delivering", "goes on"),
        key("patient", "refuse", "exhausted", "revived"),
        key("brief", "ok", "tombstone", "expired"),
    ]
}

fn text<'a>(key: &'a Value, name: &str) -> &'a str {
    key[name].as_str().unwrap_or_default()
}

fn body_of(key: &Value) -> String {
    json!({ "order": text(key, "key"), "pad": "f".repeat(300) }).to_string()
}

async fn ask(
    gateway: &Gateway,
    of: &Value,
    body: &str,
    accepted: bool,
) -> std::io::Result<Message> {
    let mut headers = vec![
        ("idempotency-key", text(of, "key")),
        ("content-type", "application/json"),
        ("authorization", CREDENTIAL),
    ];
    if accepted {
        headers.push(("prefer", "respond-async"));
    }
    let path = format!("/to/{}/{}", text(of, "route"), text(of, "path"));
    gateway.line().await.ask("POST", &path, &headers, body.as_bytes()).await
}

async fn order(gateway: &Gateway, method: &str, path: &str, body: Value) {
    let json = [("content-type", "application/json")];
    let body = body.to_string();
    let answer = gateway.line().await.ask(method, path, &json, body.as_bytes()).await.unwrap();
    assert!(answer.status() < 300, "{path}: {}", answer.json());
}

async fn operation(gateway: &Gateway, of: &Value) -> Value {
    gateway.get(&format!("/v1/keys/{}/{}", text(of, "route"), text(of, "key"))).await
}

/// Makes a ledger with an operation in every state, as kill -9 leaves it.
async fn make(into: &Path) {
    let upstream = Upstream::start(false).await;
    let world = World::before(Auditor::start(1).await, upstream.address, ROUTES);
    let keys = keys();
    let mut gateway = world.start().await;
    for of in &keys {
        begin(&gateway, &upstream, of).await;
    }
    // The next start forgets what is over.
    gateway.stop().await;
    let mut gateway = world.start().await;
    let tombstone = keys.iter().find(|of| of["expect"] == "expired").unwrap();
    until("a tombstone", async || {
        let operation = operation(&gateway, tombstone).await;
        operation["attempts"].as_array()?.is_empty().then_some(())
    })
    .await;
    for of in keys.iter().filter(|of| of["path"] == "hang") {
        let before = upstream.with_key(text(of, "key")).len();
        assert_eq!(before, 0, "{of}: not before");
        let accepted = ask(&gateway, of, &body_of(of), true).await.unwrap();
        assert_eq!(accepted.status(), 202, "{of}");
        until("a call that hangs", async || {
            (!upstream.with_key(text(of, "key")).is_empty()).then_some(())
        })
        .await;
    }
    gateway.kill();
    keep(&world.data(), into);
    fs::write(into.join(EXPECTED), serde_json::to_string_pretty(&keys).unwrap() + "\n").unwrap();
}

/// Brings one operation where the fixture wants it.
async fn begin(gateway: &Gateway, upstream: &Upstream, of: &Value) {
    let place = format!("/v1/keys/{}/{}", text(of, "route"), text(of, "key"));
    let accepted = ["goes on", "dead", "cancelled"].contains(&text(of, "expect"));
    if of["path"] == "hang" {
        return;
    }
    let told = ask(gateway, of, &body_of(of), accepted).await.unwrap();
    let reason = "as a fixture wants it";
    match text(of, "expect") {
        "dead" => drop(gateway.rested(text(of, "route"), text(of, "key")).await),
        "in doubt" => assert_eq!(told.code(), "outcome-unknown", "{of}"),
        "resolved" | "cancelled" => {
            until("an attempt", async || {
                (!upstream.with_key(text(of, "key")).is_empty()).then_some(())
            })
            .await;
            let id = operation(gateway, of).await["id"].as_str().unwrap().to_owned();
            let (act, document) = if of["expect"] == "cancelled" {
                ("cancel", json!({ "reason": reason }))
            } else {
                let body = "it was done";
                ("resolve", json!({ "as": "done", "reason": reason, "status": 200, "body": body }))
            };
            order(gateway, "POST", &format!("/v1/operations/{id}/{act}"), document).await;
        }
        "invalidated" => {
            order(gateway, "DELETE", &place, json!({ "reason": reason, "then": "refuse" })).await;
        }
        "goes on" => {
            until("an attempt", async || {
                (!upstream.with_key(text(of, "key")).is_empty()).then_some(())
            })
            .await;
        }
        "revived" => assert_eq!(told.status(), 503, "{of}"),
        _ => assert_eq!(told.status(), 201, "{of}"),
    }
}

/// What is kept of a segment is a whole number of these: a frame may end with zeros.
const PAGE_BYTES: usize = 4096;

/// Copies a ledger without what was only allocated: zeros at the ends of segments.
fn keep(data: &Path, into: &Path) {
    fs::create_dir_all(into.join("ledger.journal")).unwrap();
    for name in ["ledger.db", "ledger.db-wal", "master.key"] {
        // A log is there only where the index has one.
        if data.join(name).exists() {
            fs::copy(data.join(name), into.join(name)).unwrap();
        }
    }
    for entry in fs::read_dir(data.join("ledger.journal")).unwrap().flatten() {
        let bytes = fs::read(entry.path()).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used > 0 {
            let target = into.join("ledger.journal").join(entry.file_name());
            let used = used.next_multiple_of(PAGE_BYTES).min(bytes.len());
            fs::write(target, &bytes[..used]).unwrap();
        }
    }
}

/// Opens a copy of a fixture and asks for everything that is in it.
async fn open_and_ask(fixture: &Path) -> usize {
    let upstream = Upstream::start(true).await;
    let world = World::before(Auditor::start(1).await, upstream.address, ROUTES);
    copy_folder(fixture, &world.data());
    let name = fixture.display();
    assert_eq!(world.examine().faults, Vec::<String>::new(), "{name}");
    let mut gateway = world.start().await;
    let keys: Vec<Value> =
        serde_json::from_slice(&fs::read(fixture.join(EXPECTED)).unwrap()).unwrap();
    for of in &keys {
        look_at(&gateway, &upstream, of).await;
    }
    gateway.quiet().await;
    gateway.stop().await;
    assert_eq!(world.examine().faults, Vec::<String>::new(), "{name}");
    keys.len()
}

async fn look_at(gateway: &Gateway, upstream: &Upstream, of: &Value) {
    let body = body_of(of);
    let sent = || upstream.with_key(text(of, "key"));
    let expect = text(of, "expect");
    if expect == "goes on" {
        // Nobody asks for it: it was accepted.
        let rested = gateway.rested(text(of, "route"), text(of, "key")).await;
        assert_eq!(rested["state"], "done", "{of}: {rested}");
        assert_eq!(sent().len(), 1, "{of}");
        assert_eq!(sent()[0].header("authorization"), Some(CREDENTIAL), "{of}: its credential");
        assert_eq!(String::from_utf8_lossy(&sent()[0].body), body, "{of}");
    }
    let told = ask(gateway, of, &body, false).await.unwrap();
    let is = (told.status(), told.code(), told.header("idempotent-replayed") == Some("true"));
    let answer = format!("{{\"answer to\":{body}}}").into_bytes();
    match expect {
        "replayed" | "goes on" => {
            assert_eq!((is, &told.body), ((201, String::new(), true), &answer), "{of}");
        }
        "resolved" => assert_eq!((is.0, told.body.as_slice()), (200, &b"it was done"[..]), "{of}"),
        // The answer that made it a dead letter is its outcome.
        "dead" => assert_eq!((is, &told.body), ((404, String::new(), true), &answer), "{of}"),
        "revived" => {
            assert_eq!((is.0, sent().len()), (201, 1), "{of}: {}", told.json());
            assert_eq!(sent()[0].header("authorization"), Some(CREDENTIAL), "{of}");
        }
        "in doubt" => assert_eq!((is.0, is.1.as_str()), (409, "outcome-unknown"), "{of}"),
        "invalidated" => assert_eq!((is.0, is.1.as_str()), (410, "key-invalidated"), "{of}"),
        "cancelled" => assert_eq!(is.0, 410, "{of}: {}", told.json()),
        "expired" => assert_eq!((is.0, is.1.as_str()), (410, "key-expired"), "{of}"),
        other => panic!("{other} is not known here"),
    }
    if !["goes on", "revived"].contains(&expect) {
        assert_eq!(sent().len(), 0, "{of}: it was sent again");
    }
    let other = ask(gateway, of, "{}", false).await.unwrap();
    if expect != "invalidated" {
        assert_eq!((other.status(), other.code().as_str()), (409, "key-mismatch"), "{of}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_an_earlier_release_is_found_whole_and_goes_on() {
    let mut opened = 0;
    for entry in fs::read_dir(fixtures()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("ledger-") {
            let keys = open_and_ask(&entry.path()).await;
            tell(&format!("{}: {keys} operations", entry.file_name().display()));
            opened += 1;
        }
    }
    assert!(opened > 0, "there is no fixture");
}

/// Made anew each time, so that a fixture can be written when a release wants one: into the folder
/// that `TEST_FIXTURE` names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_this_release_can_be_kept_as_a_fixture() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("fixture");
    make(&into).await;
    open_and_ask(&into).await;
    if let Some(kept) = std::env::var_os("TEST_FIXTURE").map(PathBuf::from) {
        fs::create_dir_all(&kept).unwrap();
        copy_folder(&into, &kept);
        tell(&format!("written: {}", kept.display()));
    }
}
