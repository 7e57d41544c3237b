//! Which header lines of a caller's reach the upstream, by each way that a request takes.

use std::net::SocketAddr;

use onceward_proof::line::Message;

use crate::guard_world::{Crud, guard_of};
use crate::world::{World, call};

/// Header lines as they are sent.
type Lines<'a> = &'a [(&'a str, &'a str)];

/// What becomes of a header line.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It arrives as it was sent.
    Kept,
    /// It does not arrive.
    Gone,
    /// It does not arrive as it was sent: what is said there is ours.
    Ours,
    /// It arrives as it was sent where nothing is remembered; else what is said there is ours.
    KeptWherePassed,
    /// It does not arrive, but a guard says there what is true.
    OursOfAGuard,
}

use Fate::{Gone, Kept, KeptWherePassed, Ours, OursOfAGuard};

/// Further lines, then the line that is looked for, and what becomes of it.
type Row = (&'static [(&'static str, &'static str)], (&'static str, &'static str), Fate);

const ROWS: &[Row] = &[
    // A caller's own.
    (&[], ("content-type", "application/json"), Kept),
    (&[], ("accept", "text/html;q=0.1, */*"), Kept),
    (&[], ("accept-language", "de-CH, de;q=0.9"), Kept),
    (&[], ("user-agent", "x/1 (y; z)"), Kept),
    (&[], ("cookie", "a=b; c=d"), Kept),
    (&[], ("authorization", "Bearer sk_of_the_upstream"), Kept),
    (&[], ("authorization", "Basic dTpw"), Kept),
    (&[], ("x-api-key", "k"), Kept),
    (&[], ("if-match", "\"v1\""), Kept),
    (&[], ("range", "bytes=0-1"), Kept),
    (&[], ("referer", "https://a.example/"), Kept),
    (&[], ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), Kept),
    (&[], ("x-request-id", "r-1"), Kept),
    (&[], ("x-a", "a, b; c=\"d\""), Kept),
    (&[], ("x-empty", ""), Kept),
    (&[], ("x-tabs", "a\tb"), Kept),
    (&[], ("stripe-version", "2026-01-01"), Kept),
    (&[], ("content-encoding", "gzip"), Kept),
    (&[], ("content-md5", "x"), Kept),
    (&[], ("from", "a@b.example"), Kept),
    (&[], ("max-forwards", "3"), Kept),
    (&[], ("date", "Thu, 01 Jan 1970 00:00:00 GMT"), Kept),
    (&[], ("x!#$%&'*+-.^`|~", "b"), Kept),
    // Of one connection.
    (&[], ("connection", "keep-alive"), Gone),
    (&[], ("connection", "close, x-b"), Gone),
    (&[], ("keep-alive", "timeout=5"), Gone),
    (&[], ("proxy-connection", "keep-alive"), Gone),
    (&[], ("te", "gzip"), Gone),
    (&[], ("te", "chunked"), Gone),
    (&[], ("upgrade", "h2c"), Gone),
    (
        &[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")],
        ("http2-settings", "AAMA"),
        Gone,
    ),
    (&[], ("expect", "200-ok"), Gone),
    // Of a proxy.
    (&[], ("proxy-authorization", "Basic eA=="), Gone),
    (&[], ("proxy-authenticate", "Basic"), Gone),
    (&[], ("proxy-features", "x"), Gone),
    (&[], ("forwarded", "for=1.2.3.4"), OursOfAGuard),
    (&[], ("forwarded", "for=\"[2001:db8::1]\";proto=https;by=x"), OursOfAGuard),
    (&[], ("x-forwarded-for", "1.2.3.4"), OursOfAGuard),
    (&[], ("x-forwarded-for", "127.0.0.1, 1.2.3.4"), OursOfAGuard),
    (&[], ("x-forwarded-proto", "https"), OursOfAGuard),
    (&[], ("x-forwarded-host", "evil.example"), OursOfAGuard),
    (&[], ("x-real-ip", "1.2.3.4"), OursOfAGuard),
    (&[], ("x-forwarded-port", "443"), Gone),
    (&[], ("x-forwarded-server", "a"), Gone),
    (&[], ("x-forwarded-prefix", "/admin"), Gone),
    (&[], ("x-forwarded-ssl", "on"), Gone),
    (&[], ("x-forwarded-user", "root"), Gone),
    (&[], ("x-forwarded-client-cert", "Hash=0"), Gone),
    (&[], ("x-forwarded-", "1"), Gone),
    // Named by Connection: gone with it, but what is ours is said all the same.
    (&[("connection", "x-a")], ("x-a", "secret"), Gone),
    (&[("connection", "close, X-A")], ("x-a", "secret"), Gone),
    (&[("connection", "close"), ("connection", "x-a")], ("x-a", "secret"), Gone),
    (&[("connection", " ,, x-a ,")], ("x-a", "secret"), Gone),
    (&[("connection", "x-b,x-a,x-c")], ("x-a", "secret"), Gone),
    (&[("connection", "x-a")], ("x-b", "kept"), Kept),
    (&[("connection", "\"x-a\"")], ("x-a", "kept"), Kept),
    (&[("connection", "authorization")], ("authorization", "Bearer x"), Gone),
    (&[("connection", "cookie")], ("cookie", "a=b"), Gone),
    (&[("connection", "content-type")], ("content-type", "a/b"), Gone),
    (&[("connection", "x-forwarded-for")], ("x-forwarded-for", "1.2.3.4"), OursOfAGuard),
    (&[("connection", "x-forwarded-proto, forwarded")], ("forwarded", "for=1.2.3.4"), OursOfAGuard),
    (&[("connection", "host")], ("host", "orders.example"), Ours),
    (&[("connection", "onceward-attempt")], ("onceward-attempt", "77"), Ours),
    (&[("connection", "keep-alive, te, trailer")], ("x-b", "kept"), Kept),
    // Names that servers take for others.
    (&[], ("x_a", "1"), Gone),
    (&[], ("_a", "1"), Gone),
    (&[], ("a_", "1"), Gone),
    (&[], ("x_forwarded_for", "1.2.3.4"), Gone),
    (&[], ("x-forwarded_for", "1.2.3.4"), Gone),
    (&[], ("x_real_ip", "1.2.3.4"), Gone),
    (&[], ("content_length", "500"), Gone),
    (&[], ("content_type", "a/b"), Gone),
    (&[], ("transfer_encoding", "chunked"), Gone),
    (&[], ("idempotency_key", "other"), Gone),
    (&[], ("http_proxy", "http://evil.example"), Gone),
    (&[], ("remote_user", "root"), Gone),
    // Ours.
    (&[], ("host", "evil.example"), Ours),
    (&[], ("onceward-attempt", "77"), Ours),
    (&[], ("idempotent-replayed", "true"), Gone),
    (&[], ("idempotency-replayed", "true"), Gone),
    (&[], ("x-idempotent-replayed", "true"), Gone),
    (&[], ("accept-encoding", "br, gzip"), KeptWherePassed),
    (&[], ("prefer", "return=minimal"), Kept),
];

/// A way of a request to the upstream.
struct Way {
    name: &'static str,
    address: SocketAddr,
    prefix: &'static str,
    method: &'static str,
    is_guard: bool,
}

impl Way {
    /// The request as the upstream had it.
    fn take(&self, crud: &Crud, number: usize, lines: &[(&str, &str)]) -> Message {
        let key = format!("k-{number}");
        let mut headers = lines.to_vec();
        if self.method == "POST" {
            headers.push(("idempotency-key", &key));
        }
        let path = format!("/{}/{number}", self.name);
        let asked = format!("{}{path}", self.prefix);
        let answer = call(self.address, self.method, &asked, &headers, "").expect("an answer");
        let arrived = crud.heard(&format!("{} {path}", self.method)).pop();
        arrived.unwrap_or_else(|| panic!("{path} {lines:?}: {answer:?}"))
    }
}

/// Whether a line arrived as its fate has it.
fn is_met(fate: Fate, way: &Way, sent: &str, came: &[&str]) -> bool {
    let (is_kept, is_ours) = (came == [sent], came.len() == 1 && came != [sent]);
    match fate {
        Kept => is_kept,
        KeptWherePassed if way.method == "GET" => is_kept,
        OursOfAGuard if way.is_guard => is_ours,
        Ours | KeptWherePassed => is_ours,
        Gone | OursOfAGuard => came.is_empty(),
    }
}

#[test]
fn a_header_line_reaches_the_upstream_or_does_not_by_each_way_alike() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let way = |name, method, is_guard| {
        let (address, prefix) =
            if is_guard { (guard, "") } else { (gateway.address, "/to/orders") };
        Way { name, address, prefix, method, is_guard }
    };
    let ways = [
        way("remembered", "POST", false),
        way("passed", "GET", false),
        way("guarded", "POST", true),
        way("guarded-read", "GET", true),
    ];
    let (mut rows, mut wrong) = (0, Vec::new());
    for (number, (more, line, fate)) in ROWS.iter().enumerate() {
        for way in &ways {
            // An open listener answers to names of this machine only.
            if line.0 == "host" && !way.is_guard {
                continue;
            }
            let lines = [more, &[*line][..]].concat();
            let message = way.take(&crud, number, &lines);
            let came: Vec<&str> = message
                .headers
                .iter()
                .filter(|(name, _)| name == line.0)
                .map(|(_, value)| value.as_str())
                .collect();
            if !is_met(*fate, way, line.1, &came) {
                wrong.push(format!("{} {lines:?}: {fate:?}, but came {came:?}", way.name));
            }
            rows += 1;
        }
    }
    assert!(rows > 300, "{rows} rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_key_of_ours_reaches_no_upstream_and_an_upstreams_credential_beside_it_does() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let made = gateway.run(&["access", "create", "caller", "--json"]).json();
    let key = made["key"].as_str().expect("a key");
    let (bearer, lower) = (format!("Bearer {key}"), format!("bearer  {key}"));
    let basic = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("anybody:{key}"),
    );
    let basic = format!("Basic {basic}");
    let theirs = ("authorization", "Bearer sk_theirs");
    let rows: [(Lines<'_>, Option<&str>); 5] = [
        (&[("authorization", &bearer)], None),
        (&[("authorization", &lower)], None),
        (&[("authorization", &basic)], None),
        (&[("onceward-authorization", &bearer)], None),
        (&[("onceward-authorization", &bearer), theirs], Some("Bearer sk_theirs")),
    ];
    for (number, (lines, authorization)) in rows.into_iter().enumerate() {
        for (name, method) in [("remembered", "POST"), ("passed", "GET")] {
            let (address, prefix) = (gateway.address, "/to/orders");
            let way = Way { name, address, prefix, method, is_guard: false };
            let message = way.take(&crud, number, lines);
            assert_eq!(message.header("authorization"), authorization, "{name} {lines:?}");
            let says = |(_, value): &(String, String)| value.contains(&key[..11]);
            assert!(!message.headers.iter().any(says), "{:?}", message.headers);
        }
    }
}
