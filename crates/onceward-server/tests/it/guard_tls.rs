//! TLS on a guard's listener: both versions of HTTP, callers who show certificates, and certificates
//! that are renewed while it runs.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::guard_world::{Crud, guard_of};
use crate::world::{World, until};

const HOST: &str = "api.example";

/// An authority and what it signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) key: Vec<u8>,
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn sign(&self, name: &str) -> Pair {
        self.sign_for(name, &format!("{name}.example"))
    }

    /// The same for a host.
    pub(crate) fn sign_for(&self, name: &str, host: &str) -> Pair {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair {
            cert: cert.der().clone(),
            key: key.serialize_der(),
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A caller's TLS that trusts this authority.
    pub(crate) fn caller(&self, own: Option<&Pair>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key.clone()).unwrap();
                builder.with_client_auth_cert(vec![own.cert.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

pub(crate) fn write(world: &World, pair: &Pair) {
    world.write("cert.pem", &pair.cert_pem);
    world.write("key.pem", &pair.key_pem);
}

fn order(key: &str, version: Version) -> Request<Full<Bytes>> {
    let uri = if version == Version::HTTP_2 { "https://api.example/orders" } else { "/orders" };
    let request = Request::post(uri).header("idempotency-key", key);
    let request = if version == Version::HTTP_2 { request } else { request.header("host", HOST) };
    request.body(Full::from(format!("{{\"ref\":\"{key}\"}}"))).unwrap()
}

/// One request on a connection of its own that stands.
pub(crate) async fn send<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    version: Version,
) -> Option<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let response = if version == Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await.ok()?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await.ok()?
    };
    let (head, body) = response.into_parts();
    Some(Response::from_parts(head, body.collect().await.ok()?.to_bytes()))
}

/// One order over TLS; nothing where it does not come to one. And the certificate that was shown.
async fn order_by(
    at: SocketAddr,
    config: &Arc<ClientConfig>,
    key: &str,
) -> Option<(Response<Bytes>, CertificateDer<'static>)> {
    let tcp = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.ok()?;
    let session = stream.get_ref().1;
    let shown = session.peer_certificates()?.first()?.clone().into_owned();
    let version =
        if session.alpn_protocol() == Some(b"h2") { Version::HTTP_2 } else { Version::HTTP_11 };
    Some((send(stream, order(key, version), version).await?, shown))
}

fn is_replay(response: &Response<Bytes>) -> bool {
    response.headers().get("idempotent-replayed").is_some_and(|value| value == "true")
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const TLS: &str = "tls = { cert_file = \"cert.pem\", key_file = \"key.pem\" }";

#[test]
fn one_key_is_one_operation_over_tls_whatever_version_of_http_a_caller_speaks() {
    let (world, crud, authority) = (World::new(), Crud::start(), Authority::new());
    write(&world, &authority.sign("api"));
    world.write("onceward.toml", &crud.guard(TLS));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    runtime().block_on(async {
        let (h2, h1) = (authority.caller(None, &[b"h2"]), authority.caller(None, &[b"http/1.1"]));
        let (first, _) = order_by(guard, &h2, "tls").await.unwrap();
        assert_eq!((first.status().as_u16(), first.version()), (201, Version::HTTP_2));
        let (again, _) = order_by(guard, &h1, "tls").await.unwrap();
        assert_eq!((again.status().as_u16(), again.version()), (201, Version::HTTP_11));
        assert!(is_replay(&again) && again.body() == first.body());
        let plain = send(
            TcpStream::connect(guard).await.unwrap(),
            order("x", Version::HTTP_11),
            Version::HTTP_11,
        );
        assert!(plain.await.is_none(), "it speaks TLS and nothing else");
    });
    let heard = &crud.heard("POST /orders")[0];
    let way = "for=127.0.0.1;host=\"api.example\";proto=https";
    assert_eq!(heard.header("forwarded"), Some(way));
    assert_eq!(heard.header("via"), Some("2 onceward"));
    assert_eq!((heard.header("x-forwarded-proto"), crud.made()), (Some("https"), 1));
}

#[test]
fn http2_is_spoken_without_tls_to_whoever_begins_with_it() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    runtime().block_on(async {
        let ask = async |version| {
            let stream = TcpStream::connect(guard).await.unwrap();
            send(stream, order("h2c", version), version).await.unwrap()
        };
        let first = ask(Version::HTTP_2).await;
        assert_eq!((first.status().as_u16(), first.version()), (201, Version::HTTP_2));
        assert!(is_replay(&ask(Version::HTTP_11).await));
    });
    assert_eq!(crud.heard("POST /orders")[0].header("x-forwarded-host"), Some(HOST));
}

#[test]
fn a_callers_certificate_is_its_principal() {
    let (world, crud, authority) = (World::new(), Crud::start(), Authority::new());
    write(&world, &authority.sign("api"));
    world.write("ca.pem", &authority.pem());
    let tls = TLS.replace(" }", ", client_ca_file = \"ca.pem\" }");
    world.write("onceward.toml", &crud.guard(&format!("{tls}\nprincipal = {{ mtls = \"san\" }}")));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    runtime().block_on(async {
        let (crm, shop) = (authority.sign("crm"), authority.sign("shop"));
        let by = |own: &Pair| authority.caller(Some(own), &[b"h2"]);
        let (first, _) = order_by(guard, &by(&crm), "mine").await.unwrap();
        let (other, _) = order_by(guard, &by(&shop), "mine").await.unwrap();
        assert!(!is_replay(&first) && !is_replay(&other), "another certificate is another caller");
        let (renewed, _) = order_by(guard, &by(&authority.sign("crm")), "mine").await.unwrap();
        assert!(is_replay(&renewed) && renewed.body() == first.body(), "a renewed one is the same");
        let nobody = authority.caller(None, &[b"h2"]);
        assert!(order_by(guard, &nobody, "mine").await.is_none(), "one is required");
        let stranger = Authority::new().sign("crm");
        assert!(order_by(guard, &by(&stranger), "mine").await.is_none(), "of this authority");
    });
    assert_eq!(crud.made(), 2);
    let kept = gateway.run(&["ls", "--key", "mine", "--json"]).json();
    assert_eq!(kept[1]["principal"], "mtls:dns crm.example", "{kept}");
}

#[test]
fn a_certificate_is_renewed_while_it_runs_and_a_half_written_one_is_not_taken() {
    let (world, crud, authority) = (World::new(), Crud::start(), Authority::new());
    let (old, new) = (authority.sign("api"), authority.sign("api"));
    write(&world, &old);
    world.write("onceward.toml", &crud.guard(TLS));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let caller = authority.caller(None, &[b"http/1.1"]);
    let shown = || runtime().block_on(order_by(guard, &caller, "any")).unwrap().1;
    assert_eq!(shown(), old.cert);
    world.write("cert.pem", &new.cert_pem[..200]);
    gateway.signal(Signal::HUP);
    gateway.log.until("the certificate is kept as it was");
    assert_eq!(shown(), old.cert);
    // Nobody says a word from here on: that it changed is seen.
    write(&world, &new);
    gateway.log.until("the certificate was read again");
    until("the new one is shown", || (shown() == new.cert).then_some(()));
    assert_eq!(crud.made(), 1);
}
