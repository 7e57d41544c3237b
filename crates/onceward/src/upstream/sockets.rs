//! Sockets to places of the operator's that speak something else than HTTP: the same doorway, so that
//! the same places are open.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onceward_core::attempt::Reached;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::connect::{Connector, server_name};
use super::egress::Egress;
use super::tls::{self, DoorError};
use super::{Target, Timeouts, Trust};

/// Opens sockets for what speaks something else than HTTP.
#[derive(Debug)]
pub struct Sockets {
    connector: Connector,
    tls: Arc<ClientConfig>,
}

impl Sockets {
    /// Trusts the machine's roots, or Mozilla's where it has none, and those in `ca_file`.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, DoorError> {
        let connector = Connector::new(Egress::default(), ca_file)?;
        Ok(Self { connector, tls: Arc::new(tls::trusted(ca_file)?) })
    }

    /// A socket to the host and port of `place`, as far as an operator's name may lead there.
    pub async fn dial(&self, place: &Url, within: Duration) -> io::Result<TcpStream> {
        let target = Target {
            base: place.clone(),
            trust: Trust::Operator,
            http2: false,
            tls: None,
            timeouts: Timeouts::default(),
        };
        let deadline = Instant::now() + within;
        let mut reached = Reached::Nothing;
        let dialled = self.connector.dial(&target, deadline, &mut reached).await;
        dialled.map(|(stream, _)| stream).map_err(io::Error::other)
    }

    /// Agrees on TLS with whom `place` names.
    pub async fn secure(&self, place: &Url, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = server_name(place).ok_or(io::ErrorKind::InvalidInput)?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await
    }
}
