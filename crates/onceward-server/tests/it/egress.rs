//! Where a caller's URL may lead, asked of the real gateway over sockets: whatever is written in it, and
//! by whichever way it is asked, nothing private is dialled.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onceward_proof::figures::tell;
use serde_json::json;

use crate::callbacks::SECRET;
use crate::guard_world::{Crud, guard_of};
use crate::world::{BINARY, Gateway, World, clean, until};

/// Whoever is not to be reached: counts connections, and answers each.
struct Private {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Private {
    fn start() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")
    }

    fn answering(answer: &str) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    fn on(listener: TcpListener, answer: &str) -> Self {
        let (address, answer) = (listener.local_addr().unwrap(), answer.to_owned());
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                // Whoever leaves is not answered.
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Ways to write this machine's own address.
const HERE: [&str; 33] = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7f.1",
    "0x7f.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.0.0.0x1",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "127。0。0。1",
    "127．0．0．1",
    "127｡0｡0｡1",
    "１２７.0.0.1",
    "0",
    "0.0.0.0",
    "0x0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.b.localhost",
    "ⓛocalhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
];

/// What is no less private, whether anybody is there or not.
const PRIVATE: [&str; 25] = [
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "172.16.0.1",
    "192.0.0.192",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[::7f00:1]",
    "[::ffff:0:7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2001:0:808:808::80ff:fffe]",
];

/// What readers of URLs disagree about: `PORT` is the port of whoever is not to be reached.
const AMBIGUOUS: [&str; 14] = [
    "http://a@127.0.0.1:PORT/",
    "https://example.com@127.0.0.1:PORT/",
    "https://example.com:443@127.0.0.1:PORT/",
    "https://example.com\\@127.0.0.1:PORT/",
    "https://127.0.0.1:PORT\\@example.com/",
    "https:\\\\127.0.0.1:PORT/",
    "https:/127.0.0.1:PORT/",
    "https:///127.0.0.1:PORT/",
    "https://127.0.0.1..:PORT/",
    "https://[::1%25lo]:PORT/",
    "https://[::1%lo]:PORT/",
    "https://127.0.0.1:PORT/#f",
    "gopher://127.0.0.1:PORT/",
    "file:///etc/passwd",
];

/// The status and the code of what is answered to a URL: as an address, in a document, and as whom
/// to tell.
fn asked(gateway: &Gateway, url: &str) -> Vec<(&'static str, u16, String)> {
    let mut answers = Vec::new();
    let document = json!({"to": url, "method": "POST", "body": "x"}).to_string();
    let json = [("content-type", "application/json")];
    let mut ask = |way, path: &str, headers: &[(&str, &str)], body: &str| {
        let answer = gateway.call("POST", path, headers, body);
        answers.push((way, answer.status, answer.json()["code"].as_str().unwrap().to_owned()));
    };
    if url.is_ascii() && !url.contains('#') {
        ask("path", &format!("/to/{url}"), &[], "x");
    }
    ask("document", "/v1/operations", &json, &document);
    if url.is_ascii() {
        ask("callback", "/to/quiet/x", &[("onceward-callback", url)], "x");
    }
    answers
}

#[test]
fn nothing_private_is_dialled_however_it_is_written_and_by_whichever_way_it_is_asked_for() {
    let (world, private) = (World::new(), Private::start());
    let text = format!(
        "[callbacks]\nsecret = \"{SECRET}\"\n[routes.quiet]\nupstream = \"http://{}\"\n",
        private.address
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let (port, mut rows) = (private.address.port(), 0);
    for host in HERE.iter().chain(&PRIVATE) {
        for url in [
            format!("http://{host}:{port}/x"),
            format!("https://{host}:{port}/x"),
            format!("HTTPS://{host}/x"),
        ] {
            for (way, status, code) in asked(&gateway, &url) {
                assert_eq!((status, code.as_str()), (403, "egress-refused"), "{way}: {url}");
                rows += 1;
            }
        }
    }
    for url in AMBIGUOUS {
        let url = url.replace("PORT", &port.to_string());
        for (way, status, code) in asked(&gateway, &url) {
            let refusals = ["url-invalid", "route-unknown", "request-invalid"];
            assert!(matches!(status, 400 | 404), "{way}: {url}: {status}");
            assert!(refusals.contains(&code.as_str()), "{way}: {url}: {code}");
            rows += 1;
        }
    }
    assert!(rows > 400, "{rows} rows");
    assert_eq!(private.connections(), 0);
    let kept = gateway.run(&["ls", "--json"]).json();
    assert_eq!(kept.as_array().map(Vec::len), Some(0), "nothing was remembered");
}

#[test]
fn a_redirect_is_the_answer_and_nobody_goes_where_it_leads() {
    let (world, private) = (World::new(), Private::start());
    let mut text = "[egress]\nallow = [\"127.0.0.0/8\"]\n".to_owned();
    let statuses = [301, 302, 303, 307, 308];
    let to = format!("http://{}/stolen", private.address);
    let upstreams = statuses.map(|status| {
        let answer =
            format!("HTTP/1.1 {status} There\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        let upstream = Private::answering(&answer);
        // Writing into a string does not fail.
        let _ = write!(text, "[routes.r{status}]\nupstream = \"http://{}\"\n", upstream.address);
        upstream
    });
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let credential = [("authorization", "Bearer sk_upstream")];
    for (status, upstream) in statuses.into_iter().zip(&upstreams) {
        let ad_hoc = format!("/to/http://{}/x", upstream.address);
        for path in [format!("/to/r{status}/x"), ad_hoc] {
            for method in ["GET", "POST", "PUT"] {
                let answer = gateway.call(method, &path, &credential, "");
                assert_eq!(answer.status, status, "{method} {path}");
                assert_eq!(answer.header("location"), Some(to.as_str()), "{method} {path}");
            }
        }
        assert!(upstream.connections() > 0);
    }
    assert_eq!(private.connections(), 0);
}

#[test]
fn proxies_that_the_environment_names_are_not_asked() {
    let (world, proxy, upstream) = (World::new(), Private::start(), Private::start());
    let text = format!(
        "[egress]\nallow = [\"127.0.0.0/8\"]\n[routes.a]\nupstream = \"http://{}\"\n",
        upstream.address
    );
    world.write("onceward.toml", &text);
    let to = format!("http://{}", proxy.address);
    let variables =
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    let environment = variables.map(|name| (name, to.as_str()));
    let gateway = world.serve_in(&environment);
    for path in ["/to/a/x".to_owned(), format!("/to/http://{}/x", upstream.address)] {
        for method in ["GET", "POST"] {
            assert_eq!(gateway.call(method, &path, &[], "").text(), "secret", "{method} {path}");
        }
    }
    assert!(upstream.connections() > 0);
    assert_eq!(proxy.connections(), 0);
}

/// An address of this machine that is not loopback's, where it has one. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn no_caller_reaches_a_listener_of_ours_through_us() {
    let (world, crud) = (World::new(), Crud::start());
    let open = "[egress]\nallow = [\"0.0.0.0/0\", \"::/0\"]\n";
    world.write("onceward.toml", &format!("{open}{}", crud.guard("")));
    let gateway = world.serve();
    let refused = |gateway: &Gateway, url: &str, headers: &[(&str, &str)]| {
        let answer = gateway.call("GET", &format!("/to/{url}"), headers, "");
        let found = (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned());
        assert_eq!(found, (403, "egress-refused".to_owned()), "{url}");
    };
    let guard = guard_of(&gateway, "orders");
    for port in [gateway.address.port(), guard.port()] {
        for host in ["127.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            refused(&gateway, &format!("http://{host}:{port}/v1/operations"), &[]);
        }
    }
    let other = format!("http://{}/orders", crud.address);
    assert_eq!(gateway.call("GET", &format!("/to/{other}"), &[], "").status, 200, "it is open");
    drop(gateway);
    // One that listens on all of this machine's addresses is reached by each.
    let world = World::new();
    world.write("onceward.toml", open);
    let gateway = world.serve_at("0.0.0.0:0");
    let key = gateway.run(&["access", "create", "caller", "--json"]).json();
    let key = format!("Bearer {}", key["key"].as_str().unwrap());
    let headers = [("onceward-authorization", key.as_str())];
    let port = gateway.address.port();
    for host in ["127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0", "[::ffff:127.9.9.9]"] {
        refused(&gateway, &format!("http://{host}:{port}/healthz"), &headers);
    }
    if let Some(own) = own_address() {
        let answer = gateway.call("GET", &format!("/to/http://{own}:{port}/healthz"), &headers, "");
        assert_eq!(answer.json()["code"], "upstream-unreachable", "{own}: {}", answer.text());
    }
}

/// Names that lead to two places: what is written there once is there for each look-up.
const NAMES: &str = "127.0.0.2 rebinds.example\n\
    127.0.0.2 mixed.example\n127.0.0.1 mixed.example\n\
    127.0.0.2 mixed6.example\n::1 mixed6.example\n\
    169.254.169.254 metadata.example\n";

/// Starts the gateway with this file in the place of the machine's names; nothing where that cannot be.
fn serve_with_names(world: &World, names: &str) -> Option<Gateway> {
    let within = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args([
            "-r",
            "-m",
            "sh",
            "-c",
            "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
            names,
        ]);
        command.args(words).current_dir(world.path(""));
        command
    };
    let can = within(&["true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        tell("skipped: names of our own need a mount namespace");
        return None;
    }
    let mut command = within(&[BINARY, "serve", "--listen", "127.0.0.1:0"]);
    clean(&mut command);
    Some(world.serve_by(command))
}

/// Two listeners on one port: one that the operator opened, and one that is private.
fn opened_and_private() -> (Private, Private) {
    until("a port is free at both addresses", || {
        let opened = TcpListener::bind("127.0.0.2:0").unwrap();
        let private = TcpListener::bind(("127.0.0.1", opened.local_addr().unwrap().port())).ok()?;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nopened";
        Some((Private::on(opened, answer), Private::on(private, answer)))
    })
}

#[test]
fn a_name_that_changes_its_mind_leads_to_no_private_address() {
    let (world, (opened, private)) = (World::new(), opened_and_private());
    let port = opened.address.port();
    world.write(
        "onceward.toml",
        &format!(
            "[egress]\nallow = [\"127.0.0.2/32\"]\n[routes.meta]\nupstream = \"http://metadata.example:{port}\"\n"
        ),
    );
    world.write("names", NAMES);
    let names = world.path("names");
    let Some(gateway) = serve_with_names(&world, names.to_str().unwrap()) else { return };
    let asked = |url: &str, method: &str| {
        let answer = gateway.call(method, &format!("/to/{url}"), &[], "x");
        (answer.status, answer.text())
    };
    let rebinds = format!("http://rebinds.example:{port}/x");
    assert_eq!(asked(&rebinds, "GET"), (200, "opened".to_owned()));
    for name in ["mixed.example", "mixed6.example"] {
        let (status, why) = asked(&format!("http://{name}:{port}/x"), "GET");
        assert!(status == 503 && why.contains("not a public address"), "{name}: {status} {why}");
    }
    for method in ["GET", "POST"] {
        let (status, why) = asked("meta/latest", method);
        assert!(status == 503 && why.contains("metadata address"), "{status} {why}");
    }
    // Each line of the file keeps its length, so that no look-up finds it half written.
    let file = OpenOptions::new().write(true).open(&names).unwrap();
    let (mut reached, mut refused) = (0, 0);
    for n in 0..200 {
        file.write_all_at(if n % 3 == 0 { b"127.0.0.2" } else { b"127.0.0.1" }, 0).unwrap();
        match asked(&rebinds, if n % 2 == 0 { "GET" } else { "POST" }) {
            (200, text) if text == "opened" => reached += 1,
            (503, _) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(reached > 0 && refused > 0, "{reached} reached, {refused} refused");
    assert_eq!(private.connections(), 0);
}

/// Passes bytes on, and counts the connections.
fn relay(to: Arc<std::sync::OnceLock<SocketAddr>>) -> Private {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            let far = TcpStream::connect(to.wait()).unwrap();
            for (mut from, mut to) in
                [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
            {
                // Either side may end it.
                std::thread::spawn(move || std::io::copy(&mut from, &mut to).map(drop));
            }
        }
    });
    Private { address, connections }
}

#[test]
fn a_circle_of_gateways_ends_after_five_of_them() {
    let (world, there) = (World::new(), Arc::<std::sync::OnceLock<SocketAddr>>::default());
    let relay = relay(Arc::clone(&there));
    let at = relay.address;
    let text = format!(
        "[routes.round]\nupstream = \"http://{at}/to/round\"\ntimeout = \"5s\"\neffects = \"idempotent\"\nkey.missing = \"pass\"\nbreaker = false\n\
         [routes.hooks]\nupstream = \"http://{at}/in/hooks\"\neffects = \"idempotent\"\n\
         [sources.hooks]\nverify = {{ scheme = \"none\" }}\nid = \"content\"\nto = \"hooks\"\n"
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    there.set(gateway.address).unwrap();
    for method in ["GET", "POST"] {
        let before = relay.connections();
        let answer = gateway.call(method, "/to/round/x", &[], "");
        assert_eq!((answer.status, &answer.json()["code"]), (508, &json!("loop")), "{method}");
        assert!(relay.connections() - before <= 5, "{}", relay.connections());
    }
    for (hop, status) in [("4", 508), ("5", 508), ("9", 508), ("x", 400)] {
        let headers = [("onceward-attempt", "1"), ("onceward-hop", hop)];
        assert_eq!(gateway.call("GET", "/to/round/x", &headers, "").status, status, "{hop}");
    }
    let before = relay.connections();
    let taken = gateway.call("POST", "/in/hooks", &[("onceward-hop", "5")], "{}");
    assert_eq!((taken.status, &taken.json()["code"]), (508, &json!("loop")));
    assert_eq!(relay.connections(), before, "it went no further");
}
