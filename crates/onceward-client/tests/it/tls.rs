//! A gateway behind TLS.

use std::sync::Arc;

use onceward_client::{Call, Error, HttpTransport, Onceward};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::world::RETRY;

#[tokio::test]
async fn a_gateway_behind_tls_is_asked_where_it_is_trusted_and_not_where_it_is_not() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Whoever does not trust it hangs up.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                assert!(head.starts_with(b"POST /to/demo HTTP/1.1\r\n"));
                stream
                    .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\ndone")
                    .await
                    .unwrap();
            }
        }
    });
    let asked = async |roots: RootCertStore| {
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let transport = HttpTransport::with_tls(Arc::new(config));
        let once = Onceward::builder().url(&url).transport(transport).retry(RETRY).build().unwrap();
        once.send(Call::to("demo")).await
    };
    let mut trusted = RootCertStore::empty();
    trusted.add(cert.der().clone()).unwrap();
    assert_eq!(asked(trusted).await.unwrap().text(), "done");
    let told = asked(RootCertStore::empty()).await.unwrap_err();
    assert!(
        matches!(&told, Error::Unreachable { .. }) && told.to_string().contains("certificate"),
        "{told}"
    );
}
