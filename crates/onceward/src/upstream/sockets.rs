//! Sockets to places of the operator's that speak something else than HTTP: the same doorway, so that
//! the same places are open.

use std::io;
use std::path::Path;
use std::time::Duration;

use onceward_core::attempt::Reached;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::connect::Connector;
use super::egress::Egress;
use super::tls::{self, DoorError};
use super::{Target, Timeouts, Trust};

/// Opens sockets for what speaks something else than HTTP.
#[derive(Debug)]
pub struct Sockets(Connector);

impl Sockets {
    /// Trusts the machine's roots, or Mozilla's where it has none, and those in `ca_file`; reads their files.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, DoorError> {
        Ok(Self(Connector::with_tls(Egress::default(), tls::trusted(ca_file)?)))
    }

    /// A socket to the host and port of `place`, as far as an operator's name may lead there.
    pub async fn dial(&self, place: &Url, within: Duration) -> io::Result<TcpStream> {
        let deadline = Instant::now() + within;
        let mut reached = Reached::Nothing;
        let dialled = self.0.dial(&target(place), deadline, &mut reached).await;
        dialled.map(|(stream, _)| stream).map_err(io::Error::other)
    }

    /// Agrees on TLS with whom `place` names.
    pub async fn secure(&self, place: &Url, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.secure(&target(place), stream).await.map_err(io::Error::other)
    }
}

fn target(place: &Url) -> Target {
    Target {
        base: place.clone(),
        trust: Trust::Operator,
        http2: false,
        tls: None,
        timeouts: Timeouts::default(),
    }
}
