//! What the connection string says holds: the schema, the time limits, and TLS with a certificate
//! that is believed.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use onceward::core::operation::State;
use onceward::core::policy::Mode;
use onceward::store::contract::operation;
use onceward::store::postgres::{PostgresOptions, PostgresStore};
use onceward::store::{Birth, Remembered, Store, StoreError, Which};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::config::{Config, Host};
use tokio_rustls::TlsAcceptor;

use crate::postgres;

async fn open(url: String, ca_file: Option<PathBuf>) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(&PostgresOptions { url, ca_file }).await
}

async fn remember(store: &dyn Store, n: u64) -> Remembered {
    let operation = operation(n, "k", "r", Mode::Accepted);
    store
        .remember(Birth { operation, request: Bytes::from_static(b"{}"), replaces: None })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_lives_in_the_schema_that_the_connection_string_names() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    postgres::run(&url, "CREATE SCHEMA one; CREATE SCHEMA two").await;
    for schema in ["one", "two"] {
        let within = format!("{url} options='-c search_path={schema}'");
        let store = open(within.clone(), None).await.unwrap();
        assert!(matches!(remember(&store, 1).await, Remembered::Fresh(_)), "{schema} is apart");
        drop(store);
        let again = open(within, None).await.unwrap();
        assert!(matches!(remember(&again, 2).await, Remembered::Known(_)), "{schema}");
    }
    postgres::run(&url, "SELECT * FROM one.op JOIN two.op USING (id)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_longer_than_the_connection_string_allows_is_given_up() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let store = open(format!("{url} options='-c statement_timeout=300ms'"), None).await.unwrap();
    let (other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    other.batch_execute("BEGIN; LOCK TABLE setting").await.unwrap();
    let refused = store.set("a".to_owned(), Some(Bytes::from_static(b"v"))).await;
    let Err(StoreError::Away(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("57014"), "{why}");
    other.batch_execute("ROLLBACK").await.unwrap();
    store.set("a".to_owned(), Some(Bytes::from_static(b"v"))).await.unwrap();
}

/// The port of something that speaks TLS as the server would, and passes on to it what it says
/// then; the file holds its certificate, which is for `localhost`.
async fn secured(url: &str, folder: &std::path::Path) -> (u16, PathBuf) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server: Config = url.parse().unwrap();
    let Some(Host::Tcp(host)) = server.get_hosts().first().cloned() else { panic!("{url}") };
    let address = (host, server.get_ports().first().copied().unwrap_or(5432));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (acceptor, address) = (acceptor.clone(), address.clone());
            tokio::spawn(async move {
                // SSLRequest: its length, and a code that is no version of the protocol.
                let mut asked = [0; 8];
                stream.read_exact(&mut asked).await?;
                assert_eq!(asked[4..], 80_877_103u32.to_be_bytes(), "it asks for TLS first");
                stream.write_all(b"S").await?;
                let mut secure = acceptor.accept(stream).await?;
                copy_bidirectional(&mut secure, &mut TcpStream::connect(address).await?).await
            });
        }
    });
    (port, ca_file)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_agreed_only_with_a_certificate_that_is_believed() {
    let Some(server) = postgres::server() else { return };
    let (url, folder) = (server.database().await, tempfile::tempdir().unwrap());
    let (port, ca_file) = secured(&url, folder.path()).await;
    let parsed: Config = url.parse().unwrap();
    let (user, database) = (parsed.get_user().unwrap(), parsed.get_dbname().unwrap());
    let at = |host: &str| format!("postgres://{user}@{host}:{port}/{database}?sslmode=require");
    let refused = open(at("localhost"), None).await;
    let Err(StoreError::Away(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("certificate"), "{why}");
    let other_name = open(at("127.0.0.1"), Some(ca_file.clone())).await;
    assert!(other_name.is_err(), "the certificate is for another name: {other_name:?}");
    let store = open(at("localhost"), Some(ca_file)).await.unwrap();
    let Remembered::Fresh(made) = remember(&store, 1).await else { panic!("new") };
    let found = store.find(Which::Id(made.id)).await.unwrap().unwrap();
    assert!(matches!(found.state, State::Pending { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let mut asked = [0; 8];
            // Whoever asked goes away after the answer.
            let _ = stream.read_exact(&mut asked).await;
            let _ = stream.write_all(b"N").await;
        }
    });
    let refused = open(format!("postgres://once@localhost:{port}/x?sslmode=require"), None).await;
    assert!(matches!(&refused, Err(StoreError::Away(why)) if why.contains("TLS")), "{refused:?}");
}
