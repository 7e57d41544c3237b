//! TLS on the main listener: both versions of HTTP, its certificate read again, verbs that speak it, and
//! what is said where it is not spoken.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::guard_tls::{Authority, Pair, runtime, send, write};
use crate::world::{Gateway, World, until};

const HOST: &str = "gateway.example";

const TLS: &str = "demo = true\n[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n";

/// A gateway whose certificate is for [`HOST`].
fn start(lines: &str, listen: &str) -> (World, Authority, Gateway) {
    let (world, authority) = (World::new(), Authority::new());
    write(&world, &authority.sign_for("gateway", HOST));
    world.write("ca.pem", &authority.pem());
    world.write("onceward.toml", &format!("{TLS}{lines}"));
    let gateway = world.serve_at(listen);
    // Where verbs find it, that are told nothing.
    world.write("onceward.toml", &format!("listen = \"{}\"\n{TLS}{lines}", gateway.address));
    (world, authority, gateway)
}

/// One request over TLS; and the certificate that was shown.
async fn ask(
    gateway: &Gateway,
    authority: &Authority,
    alpn: &[u8],
    request: http::request::Builder,
    body: &str,
) -> Option<(Response<Bytes>, CertificateDer<'static>)> {
    ask_by(gateway, authority.caller(None, &[alpn]), request, body).await
}

/// The same with a caller's own TLS.
async fn ask_by(
    gateway: &Gateway,
    config: Arc<ClientConfig>,
    request: http::request::Builder,
    body: &str,
) -> Option<(Response<Bytes>, CertificateDer<'static>)> {
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let stream = TlsConnector::from(config).connect(name, tcp).await.ok()?;
    let shown = stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned();
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let version = if is_h2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let request = if is_h2 { request } else { request.header("host", HOST) };
    let request = request.version(version).body(Full::from(body.to_owned())).unwrap();
    Some((send(stream, request, version).await?, shown))
}

fn at(method: &str, path: &str, alpn: &[u8]) -> http::request::Builder {
    let uri = if alpn == b"h2" { format!("https://{HOST}{path}") } else { path.to_owned() };
    Request::builder().method(method).uri(uri)
}

#[test]
fn the_main_listener_speaks_tls_and_both_versions_of_http_and_nothing_else() {
    let (_world, authority, gateway) = start("", "127.0.0.1:0");
    runtime().block_on(async {
        for (alpn, version) in [(&b"h2"[..], Version::HTTP_2), (b"http/1.1", Version::HTTP_11)] {
            for path in ["/healthz", "/readyz"] {
                let (answer, _) =
                    ask(&gateway, &authority, alpn, at("GET", path, alpn), "").await.unwrap();
                assert_eq!((answer.status().as_u16(), answer.version()), (200, version), "{path}");
            }
        }
        let plain = send(
            TcpStream::connect(gateway.address).await.unwrap(),
            Request::get("/healthz").header("host", HOST).body(Full::default()).unwrap(),
            Version::HTTP_11,
        );
        assert!(plain.await.is_none());
    });
}

#[test]
fn over_tls_the_cookie_is_the_hosts_own_and_a_browsers_origin_is_heard_by_http2_too() {
    let (world, authority, gateway) = start("", "127.0.0.1:0");
    let key = world.run(&["access", "create", "ada"]).ok().trim().to_owned();
    let (h2, origin) = (&b"h2"[..], format!("https://{HOST}"));
    runtime().block_on(async {
        let log_in = async |origin: &str| {
            let request = at("POST", "/login", h2)
                .header("content-type", "application/x-www-form-urlencoded")
                .header("origin", origin);
            ask(&gateway, &authority, h2, request, &format!("key={key}")).await.unwrap().0
        };
        assert_eq!(log_in("https://evil.example").await.status().as_u16(), 403);
        let answer = log_in(&origin).await;
        assert_eq!(answer.status().as_u16(), 303);
        let line = answer.headers()["set-cookie"].to_str().unwrap();
        for part in ["__Host-onceward=", "; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains("Domain"), "{line}");
        let cookie = line.split(';').next().unwrap();
        let look = at("GET", "/", h2).header("cookie", cookie).header("accept", "text/html");
        let (page, _) = ask(&gateway, &authority, h2, look, "").await.unwrap();
        assert_eq!(page.status().as_u16(), 200);
        let page = String::from_utf8(page.body().to_vec()).unwrap();
        assert!(page.contains(&format!("https://{HOST}/to/demo/")), "{page}");
    });
}

#[test]
fn verbs_know_the_listener_by_its_own_certificate_and_others_by_their_authority() {
    let (world, _, gateway) = start("", "127.0.0.1:0");
    assert_eq!(world.run(&["ls", "--json"]).ok(), "[]\n");
    world.run(&["check", "--ready"]).ok();
    let elsewhere = format!("https://localhost:{}", gateway.address.port());
    let said = world.run(&["--url", &elsewhere, "ls"]).failed(1);
    assert!(said.contains("certificate"), "{said}");
    let said = world.run(&["--url", &elsewhere, "--ca-file", "ca.pem", "ls"]).failed(1);
    assert!(said.contains("certificate"), "it is for another name: {said}");
    // Whoever else listens there has not its key.
    write(&world, &Authority::new().sign_for("gateway", HOST));
    let said = world.run(&["ls"]).failed(1);
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn a_gateway_by_its_name_is_believed_by_an_authority_of_ones_own() {
    let (world, authority) = (World::new(), Authority::new());
    write(&world, &authority.sign_for("gateway", "localhost"));
    world.write("ca.pem", &authority.pem());
    world.write("onceward.toml", TLS);
    let gateway = world.serve();
    let url = format!("https://localhost:{}", gateway.address.port());
    world.run(&["--url", &url, "--ca-file", "ca.pem", "ls"]).ok();
    world.write("ca.pem", &Authority::new().pem());
    world.run(&["--url", &url, "--ca-file", "ca.pem", "ls"]).failed(1);
    let said = world.run(&["--url", &url, "--ca-file", "none.pem", "ls"]).failed(78);
    assert!(said.contains("none.pem"), "{said}");
}

#[test]
fn callers_show_a_certificate_where_the_listener_wants_one() {
    let (world, authority, gateway) = start("client_ca_file = \"ca.pem\"\n", "127.0.0.1:0");
    let own = authority.sign("probe");
    world.write("own.pem", &own.cert_pem);
    world.write("own-key.pem", &own.key_pem);
    world.run(&["check", "--ready"]).failed(1);
    world.run(&["check", "--ready", "--cert-file", "own.pem", "--key-file", "own-key.pem"]).ok();
    let nobody =
        runtime().block_on(ask(&gateway, &authority, b"h2", at("GET", "/healthz", b"h2"), ""));
    assert!(nobody.is_none());
}

#[test]
fn a_callers_certificate_stands_for_the_access_key_of_its_name() {
    let lines = "client_ca_file = \"ca.pem\"\nclient = \"optional\"\nprincipal = \"san\"\n";
    let (world, authority, gateway) = start(lines, "127.0.0.1:0");
    let read = ["access", "create", "probe.example", "--role", "read", "--json"];
    let made = world.run(&read).json();
    let status = |own: Option<&Pair>, request: http::request::Builder| {
        runtime().block_on(async {
            let config = authority.caller(own, &[b"h2"]);
            ask_by(&gateway, config, request, "").await.unwrap().0.status().as_u16()
        })
    };
    let look = || at("GET", "/v1/operations", b"h2");
    let (probe, other) = (authority.sign("probe"), authority.sign("crm"));
    assert_eq!(status(Some(&probe), look()), 200);
    assert_eq!(status(Some(&probe), at("POST", "/to/demo/orders", b"h2")), 403, "it only reads");
    assert_eq!(status(Some(&other), look()), 401, "no key is called so");
    assert_eq!(status(None, look()), 401);
    for said in ["sec-fetch-site", "sec-fetch-mode"] {
        let by_browser = look().header(said, "none");
        assert_eq!(status(Some(&probe), by_browser), 401, "a browser shows it for any page");
    }
    let of_acme = ["--tenant", "acme", "access", "create", "probe.example", "--json"];
    let of_acme = world.run(&of_acme).json();
    assert_eq!(status(Some(&probe), look()), 401, "two tenants have that name: it is neither's");
    world.run(&["access", "revoke", of_acme["prefix"].as_str().unwrap()]).ok();
    assert_eq!(status(Some(&probe), look()), 200);
    let bearer = format!("Bearer {}", made["key"].as_str().unwrap());
    assert_eq!(status(Some(&other), look().header("authorization", &bearer)), 200, "a key counts");
    // A second one stays, so that the gateway does not stand open again.
    world.run(&["access", "create", "ada"]).ok();
    world.run(&["access", "revoke", made["prefix"].as_str().unwrap()]).ok();
    assert_eq!(status(Some(&probe), look()), 401);
    world.write("onceward.toml", &format!("{TLS}principal = \"san\"\n"));
    assert!(world.run(&["check"]).failed(78).contains("client_ca_file"));
}

#[test]
fn its_certificate_is_renewed_while_it_runs() {
    let (world, authority, gateway) = start("", "127.0.0.1:0");
    let shown = || {
        let asked = ask(&gateway, &authority, b"h2", at("GET", "/healthz", b"h2"), "");
        runtime().block_on(asked).unwrap().1
    };
    let new = authority.sign_for("gateway", HOST);
    assert_ne!(shown(), new.cert);
    write(&world, &new);
    gateway.log.until("the certificate was read again");
    until("the new one is shown", || (shown() == new.cert).then_some(()));
}

#[test]
fn what_is_readable_on_the_way_is_said_by_the_start_and_by_check() {
    let open = World::new();
    let gateway = open.serve_at("0.0.0.0:0");
    gateway.log.until("speaks no TLS");
    open.write("onceward.toml", "listen = \"0.0.0.0:7077\"\n");
    assert!(open.run(&["check"]).ok().contains("speaks no TLS"));
    open.write("onceward.toml", "listen = \"0.0.0.0:7077\"\nbehind_proxy = true\n");
    assert!(!open.run(&["check"]).ok().contains("speaks no TLS"));

    let (world, _, gateway) = start("", "0.0.0.0:0");
    assert!(!gateway.log.has("speaks no TLS"));
    let shown = world.run(&["check", "--json"]).json();
    assert_eq!((&shown["tls"], &shown["warnings"]), (&true.into(), &serde_json::json!([])));
    world.write("key.pem", "nothing");
    assert!(world.run(&["check"]).ok().contains("[tls] could not speak TLS now"));
    let said = world.run(&["serve", "--listen", "127.0.0.1:0"]).failed(78);
    assert!(said.contains("[tls]") && said.contains("key.pem"), "{said}");
    world.write("onceward.toml", "[tls]\ncert_file = \"cert.pem\"\n");
    assert!(world.run(&["check"]).failed(78).contains("key_file"));
}
