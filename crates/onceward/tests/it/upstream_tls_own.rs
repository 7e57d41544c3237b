//! TLS that a route has of its own: whom it trusts, what it shows, and that no connection is used by
//! whoever did not agree on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use onceward::core::attempt::Ending;
use onceward::secret::sha256;
use onceward::upstream::{
    ClientFiles, Door, DoorError, DoorOptions, Egress, Target, UpstreamTls, UpstreamTlsFiles,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::misbehave::{door, post, target};

const ANY: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// An authority, and a folder for what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate of it.
struct Pair {
    files: ClientFiles,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, folder }
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn sign(&self, name: &str) -> Pair {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        let files = ClientFiles { cert_file: file("pem"), key_file: file("key") };
        std::fs::write(&files.cert_file, cert.pem()).expect("a file");
        std::fs::write(&files.key_file, key.serialize_pem()).expect("a file");
        Pair { files, der: cert.der().clone() }
    }

    /// A route's TLS that trusts this authority alone, and shows `client`.
    fn tls(&self, client: Option<&Pair>, only_tls13: bool) -> Arc<UpstreamTls> {
        let client = client.map(|pair| pair.files.clone());
        let files = UpstreamTlsFiles { ca_file: Some(self.ca_file()), client, only_tls13 };
        UpstreamTls::load(&files, None).expect("TLS")
    }

    /// Starts an upstream that says whose certificate it was shown, and tells how many requests it
    /// had. `wants` is whether it serves nobody without one.
    async fn serve(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
        wants: bool,
    ) -> (SocketAddr, watch::Receiver<usize>) {
        let pair = self.sign("localhost");
        let key = std::fs::read(&pair.files.key_file).expect("a file");
        let key = <PrivateKeyDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(&key);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("versions");
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if wants { verifier } else { verifier.allow_unauthenticated() };
        let mut config = builder
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![pair.der], key.expect("a key"))
            .expect("a certificate and its key");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (count, counted) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, count) = (acceptor.clone(), count.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer(stream, &count).await;
                    }
                });
            }
        });
        (address, counted)
    }
}

/// Who shows this certificate, as the upstream says it.
fn who(certificate: &CertificateDer<'_>) -> Vec<u8> {
    format!("{:x?}", sha256(certificate)).into_bytes()
}

async fn answer(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    served: &watch::Sender<usize>,
) {
    let session = stream.get_ref().1;
    let shown =
        session.peer_certificates().and_then(<[_]>::first).map_or_else(|| b"nobody".to_vec(), who);
    if session.alpn_protocol() == Some(b"h2") {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            served.send_modify(|n| *n += 1);
            let mut body = respond.send_response(http::Response::new(()), false).expect("a stream");
            body.send_data(shown.clone().into(), true).expect("a stream");
        }
        return;
    }
    let mut request = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        request.push(byte);
        if request.ends_with(b"\r\n\r\n") {
            served.send_modify(|n| *n += 1);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", shown.len());
            stream.write_all(&[head.as_bytes(), &shown].concat()).await.expect("a reader");
            stream.flush().await.expect("a reader");
            request.clear();
        }
    }
}

fn at(address: SocketAddr, tls: &Arc<UpstreamTls>) -> Target {
    let base = format!("https://localhost:{}/", address.port());
    Target { tls: Some(Arc::clone(tls)), ..target(&base) }
}

#[tokio::test]
async fn an_upstream_that_wants_to_know_who_asks_is_shown_the_routes_certificate() {
    for versions in [&[&TLS12][..], &[&TLS13], ANY] {
        let authority = Authority::new();
        let (address, _) = authority.serve(versions, &[], true).await;
        let client = authority.sign("client.example");
        let target = at(address, &authority.tls(Some(&client), false));
        assert_eq!(post(&door(), target, b"").await, Ok((200, who(&client.der))));
    }
}

#[tokio::test]
async fn without_a_certificate_that_the_upstream_takes_it_is_asked_nothing() {
    for (versions, ending) in [(&[&TLS12][..], Ending::Unsent), (&[&TLS13], Ending::Unanswered)] {
        let (authority, another) = (Authority::new(), Authority::new());
        let (address, served) = authority.serve(versions, &[], true).await;
        let stranger = another.sign("client.example");
        for client in [None, Some(&stranger)] {
            let target = at(address, &authority.tls(client, false));
            let failure = post(&door(), target, b"").await.expect_err("nobody we know");
            // By TLS 1.3 a client is refused after it may have sent its request.
            assert_eq!(failure.ending, ending, "{failure:?}");
        }
        assert_eq!(*served.borrow(), 0);
    }
}

#[tokio::test]
async fn a_routes_own_authority_is_trusted_alone() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (address, _) = theirs.serve(ANY, &[], false).await;
    let options = DoorOptions { ca_file: Some(theirs.ca_file()), ..DoorOptions::default() };
    let door = Door::new(Egress::default(), &options).expect("a door");
    let of_the_door = target(&format!("https://localhost:{}/", address.port()));
    let nobody = Ok((200, b"nobody".to_vec()));
    assert_eq!(post(&door, of_the_door, b"").await, nobody);
    let failure = post(&door, at(address, &ours.tls(None, false)), b"").await.expect_err("another");
    assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, true), "{failure:?}");
    assert_eq!(post(&door, at(address, &theirs.tls(None, false)), b"").await, nobody);
    let usual = UpstreamTls::load(&UpstreamTlsFiles::default(), Some(&theirs.ca_file()));
    assert_eq!(post(&door, at(address, &usual.expect("TLS")), b"").await, nobody);
}

#[tokio::test]
async fn an_upstream_of_an_older_tls_than_the_route_speaks_is_unsent() {
    let authority = Authority::new();
    let (address, served) = authority.serve(&[&TLS12], &[], false).await;
    let failure = post(&door(), at(address, &authority.tls(None, true)), b"").await;
    let failure = failure.expect_err("TLS 1.2");
    assert_eq!(failure.ending, Ending::Unsent, "{failure:?}");
    assert_eq!(*served.borrow(), 0);
    let answered = post(&door(), at(address, &authority.tls(None, false)), b"").await;
    assert_eq!(answered, Ok((200, b"nobody".to_vec())));
}

#[tokio::test]
async fn nobody_uses_a_connection_on_which_another_showed_its_certificate() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let authority = Authority::new();
        let (address, _) = authority.serve(ANY, &[alpn], false).await;
        let options = DoorOptions { ca_file: Some(authority.ca_file()), ..DoorOptions::default() };
        let door = Door::new(Egress::default(), &options).expect("a door");
        let (one, other) = (authority.sign("one.example"), authority.sign("other.example"));
        for _ in 0..3 {
            for (client, shown) in [
                (Some(&one), who(&one.der)),
                (Some(&other), who(&other.der)),
                (None, b"nobody".to_vec()),
            ] {
                // Read anew each time, as by a reload: the same files are the same identity.
                let target = at(address, &authority.tls(client, false));
                assert_eq!(post(&door, target, b"").await, Ok((200, shown)));
            }
            let of_the_door = target(&format!("https://localhost:{}/", address.port()));
            assert_eq!(post(&door, of_the_door, b"").await, Ok((200, b"nobody".to_vec())));
        }
        assert_eq!(door.origins(), 4);
    }
}

#[test]
fn a_file_of_a_route_that_cannot_be_used_is_named() {
    let authority = Authority::new();
    let (one, other) = (authority.sign("one.example"), authority.sign("other.example"));
    let load = |ca_file: PathBuf, cert_file: &PathBuf, key_file: &PathBuf| {
        let client = ClientFiles { cert_file: cert_file.clone(), key_file: key_file.clone() };
        let files =
            UpstreamTlsFiles { ca_file: Some(ca_file), client: Some(client), only_tls13: false };
        UpstreamTls::load(&files, None).map(|_| ()).expect_err("a file that cannot be used")
    };
    let (cert, key) = (&one.files.cert_file, &one.files.key_file);
    let missing = authority.folder.path().join("missing.pem");
    for (error, named) in [
        (load(missing.clone(), cert, key), "missing.pem"),
        (load(key.clone(), cert, key), "one.example.key"),
        (load(authority.ca_file(), key, key), "one.example.key"),
        (load(authority.ca_file(), cert, &missing), "missing.pem"),
        (load(authority.ca_file(), cert, cert), "one.example.pem"),
    ] {
        assert!(error.to_string().contains(named), "{error}");
    }
    let mixed = load(authority.ca_file(), cert, &other.files.key_file);
    assert!(matches!(mixed, DoorError::Client { .. }), "{mixed}");
}
