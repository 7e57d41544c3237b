//! TLS that a route has of its own, by the real gateway: a client certificate that is renewed, and a file
//! that cannot be used.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::guard_tls::{Authority, Pair};
use crate::world::{World, until};

/// Starts an upstream on `localhost` that answers nobody without a certificate of this authority, and
/// says which of these it was shown.
fn upstream(authority: &Authority, known: Vec<CertificateDer<'static>>) -> SocketAddr {
    let own = authority.sign_for("upstream", "localhost");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(authority.roots());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![own.cert], PrivateKeyDer::try_from(own.key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, known) = (acceptor.clone(), known.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                    let which = known.iter().position(|known| *known == shown).unwrap();
                    let mut request = Vec::new();
                    while let Ok(byte) = stream.read_u8().await {
                        request.push(byte);
                        if request.ends_with(b"\r\n\r\n{}") {
                            let answer =
                                format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{which}");
                            stream.write_all(answer.as_bytes()).await.unwrap();
                            request.clear();
                        }
                    }
                });
            }
        });
    });
    address
}

fn write(world: &World, pair: &Pair) {
    world.write("us.pem", &pair.cert_pem);
    world.write("us.key", &pair.key_pem);
}

#[test]
fn a_renewed_certificate_is_shown_after_a_reload_and_one_that_cannot_be_read_changes_nothing() {
    let (world, authority) = (World::new(), Authority::new());
    let (first, second) = (authority.sign_for("us", "us"), authority.sign_for("us", "us"));
    let address = upstream(&authority, vec![first.cert.clone(), second.cert.clone()]);
    world.write("ca.pem", &authority.pem());
    write(&world, &first);
    let port = address.port();
    let text = format!(
        "[routes.a]\nupstream = \"https://localhost:{port}\"\neffects = \"idempotent\"\n\
         upstream_tls = {{ ca_file = \"ca.pem\", cert_file = \"us.pem\", key_file = \"us.key\", min_version = \"1.3\" }}\n"
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let mut n = 0;
    let mut shown = || {
        n += 1;
        let key = format!("k-{n}");
        let answer = gateway.call("POST", "/to/a/x", &[("idempotency-key", key.as_str())], "{}");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    };
    assert_eq!((shown(), shown()), ("0".to_owned(), "0".to_owned()));
    world.write("us.key", "half of a k");
    gateway.signal(Signal::HUP);
    gateway.log.until("us.key");
    let told = world.run(&["check"]).failed(78);
    assert!(told.contains("[routes.a]") && told.contains("us.key"), "{told}");
    assert_eq!(shown(), "0");
    write(&world, &second);
    assert_eq!(world.run(&["check"]).code, Some(0));
    gateway.signal(Signal::HUP);
    gateway.log.until("the routes were read again");
    until("the other is shown", || (shown() == "1").then_some(()));
    assert_eq!(shown(), "1");
}
