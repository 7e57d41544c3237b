//! TLS to an upstream: a certificate that does not hold is told, and nothing is sent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onceward::core::attempt::{Ending, Reached};
use onceward::upstream::{Door, DoorError, DoorOptions, Egress};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::misbehave::{Act, Misbehave, OK, door, post, target};

/// Starts an HTTPS upstream whose certificate, its own CA, is for `name`.
async fn upstream(name: &str, alpn: &[&[u8]]) -> (SocketAddr, DoorOptions, TempDir) {
    let (address, options, folder, _) = upstream_that(name, alpn, false).await;
    (address, options, folder)
}

/// The same, one that closes after each answer where `just_once` says so, and tells how often it did.
async fn upstream_that(
    name: &str,
    alpn: &[&[u8]],
    just_once: bool,
) -> (SocketAddr, DoorOptions, TempDir, watch::Receiver<usize>) {
    let (closed_tx, closed) = watch::channel(0);
    let (acceptor, options, folder) = acceptor(name, alpn);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, closed) = (acceptor.clone(), closed_tx.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    serve_http2(stream).await;
                } else {
                    serve_http1(stream, just_once).await;
                }
                closed.send_modify(|n| *n += 1);
            });
        }
    });
    (address, options, folder, closed)
}

/// The other end of TLS with a certificate for `name`, and what makes a door trust it.
pub(crate) fn acceptor(name: &str, alpn: &[&[u8]]) -> (TlsAcceptor, DoorOptions, TempDir) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let folder = TempDir::new().expect("a folder");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, cert.pem()).expect("a file");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate and its key");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let options = DoorOptions { ca_file: Some(ca_file), ..DoorOptions::default() };
    (TlsAcceptor::from(Arc::new(config)), options, folder)
}

type Tls = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

async fn serve_http1(mut stream: Tls, just_once: bool) {
    let mut request = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        request.push(byte);
        if request.ends_with(b"\r\n\r\n") {
            stream.write_all(OK.as_bytes()).await.expect("a reader");
            stream.flush().await.expect("a reader");
            request.clear();
            if just_once {
                return stream.shutdown().await.expect("a reader");
            }
        }
    }
}

async fn serve_http2(stream: Tls) {
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let mut body = respond.send_response(http::Response::new(()), false).expect("a stream");
        body.send_data(bytes::Bytes::from_static(b"h2"), true).expect("a stream");
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_unsent_for_good() {
    let (address, _, _folder) = upstream("localhost", &[]).await;
    let target = target(&format!("https://localhost:{}/", address.port()));
    let failure = post(&door(), target, b"").await.expect_err("not trusted");
    assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, true), "{failure:?}");
    assert_eq!(failure.reached, Reached::Connected);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_unsent_for_good() {
    let (address, options, _folder) = upstream("elsewhere.example", &[]).await;
    let door = Door::new(Egress::default(), &options).expect("a door");
    let target = target(&format!("https://localhost:{}/", address.port()));
    let failure = post(&door, target, b"").await.expect_err("another name");
    assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, true), "{failure:?}");
}

#[tokio::test]
async fn an_authority_of_our_own_is_trusted_and_the_connection_used_again() {
    for (alpn, body) in [(&[][..], "ok"), (&[&b"http/1.1"[..]], "ok"), (&[&b"h2"[..]], "h2")] {
        let (address, options, _folder) = upstream("localhost", alpn).await;
        let door = Door::new(Egress::default(), &options).expect("a door");
        for _ in 0..3 {
            let target = target(&format!("https://localhost:{}/", address.port()));
            assert_eq!(post(&door, target, b"").await, Ok((200, body.into())));
        }
    }
}

#[tokio::test]
async fn a_closed_connection_under_tls_is_replaced_before_anything_is_sent() {
    let (address, options, _folder, mut closed) = upstream_that("localhost", &[], true).await;
    let door = Door::new(Egress::default(), &options).expect("a door");
    for n in 1..=20 {
        let target = target(&format!("https://localhost:{}/", address.port()));
        assert_eq!(post(&door, target, b"").await, Ok((200, b"ok".to_vec())), "request {n}");
        closed.wait_for(|closed| *closed >= n).await.expect("the upstream runs");
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_unsent() {
    for script in [vec![Act::Write(b"HTTP/1.1 400 Bad Request\r\n\r\n")], vec![]] {
        let upstream = Misbehave::always(script).await;
        let target = target(&format!("https://{}/", upstream.address));
        let failure = post(&door(), target, b"").await.expect_err("no TLS");
        assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, false), "{failure:?}");
        assert_eq!(failure.reached, Reached::Connected);
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_in_time_is_unsent() {
    let upstream = Misbehave::always([Act::Hang]).await;
    let mut target = target(&format!("https://{}/", upstream.address));
    target.timeouts.connect = Duration::from_millis(200);
    let failure = post(&door(), target, b"").await.expect_err("too late");
    assert_eq!((failure.ending, failure.reached), (Ending::Unsent, Reached::Connected));
}

#[test]
fn a_file_without_a_certificate_is_told() {
    let folder = TempDir::new().expect("a folder");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").expect("a file");
    let open = |path: PathBuf| {
        let options = DoorOptions { ca_file: Some(path), ..DoorOptions::default() };
        Door::new(Egress::default(), &options).map(|_| ())
    };
    assert!(matches!(open(empty), Err(DoorError::NoCa(_))));
    assert!(matches!(open(folder.path().join("missing.pem")), Err(DoorError::CaFile { .. })));
}
