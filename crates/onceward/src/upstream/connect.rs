//! From a URL to an open socket: resolve once, judge every address, dial what was judged, agree
//! on TLS.
//!
//! Nothing of a request is written here, so whatever goes wrong here is *unsent*.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use onceward_core::attempt::{Phase, Reached};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

use super::distrusted::Distrusted;
use super::egress::{Egress, EgressRefusal};
use super::progress::Progress;
use super::smtp::Safe;
use super::tls::{self, DoorError};
use super::{Target, Trust};

/// How many addresses of a name are tried. More is no name of one upstream.
const ADDRESSES_MAX: usize = 16;

/// How many names of callers are looked up at once. A server of names that takes its time holds a
/// thread of the runtime for as long, and others need those.
const LOOKUPS_MAX: usize = 64;

/// Opens sockets: there is no other place that does.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) egress: Egress,
    tls: Arc<ClientConfig>,
    lookups: Arc<Semaphore>,
}

/// Why no connection came about.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("the upstream's URL is neither http nor https, or has no host")]
    Url,
    #[error("cannot resolve {0}: {1}")]
    Resolve(String, io::Error),
    #[error("{0} has no address")]
    NoAddress(String),
    #[error(transparent)]
    Egress(#[from] EgressRefusal),
    #[error("cannot connect to {0}: {1}")]
    Dial(String, io::Error),
    #[error("cannot agree on TLS with {0}: {1}")]
    Tls(String, io::Error),
    #[error("the certificate of {0} does not hold: {1}")]
    Certificate(String, Distrusted),
    #[error("cannot speak HTTP with {0}")]
    Http(String, #[source] hyper::Error),
    #[error("no connection to {0} within {1:?}")]
    Timeout(String, std::time::Duration),
}

impl ConnectError {
    /// Whether trying again cannot help, as far as anyone can tell.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Url | Self::Egress(_) | Self::Certificate(..) => true,
            Self::Resolve(..)
            | Self::NoAddress(_)
            | Self::Dial(..)
            | Self::Tls(..)
            | Self::Http(..)
            | Self::Timeout(..) => false,
        }
    }
}

impl Connector {
    /// For HTTP. Trusts the machine's roots, or Mozilla's where it has none, and those in `ca_file`.
    pub(super) fn new(egress: Egress, ca_file: Option<&Path>) -> Result<Self, DoorError> {
        Ok(Self::with_tls(egress, tls::speaking_http(tls::trusted(ca_file)?)))
    }

    /// Agrees on TLS by `tls`, where a target has none of its own.
    pub(super) fn with_tls(egress: Egress, tls: ClientConfig) -> Self {
        Self { egress, tls: Arc::new(tls), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// Opens a TCP connection to one of the target's addresses. Notes how far it came.
    pub(super) async fn dial(
        &self,
        target: &Target,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let addresses = self.resolve(target).await?;
        progress.reached = Reached::Resolved;
        progress.enter(Phase::Connect);
        let mut failed = None;
        for (i, address) in addresses.iter().enumerate() {
            // One address that swallows packets must not use up the time of the others.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / (addresses.len() - i) as u32;
            let outcome = timeout_at(now + share, TcpStream::connect(address)).await;
            match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    self.check_peer(target, &stream, *address)?;
                    progress.reached = Reached::Connected;
                    // A request is written in one go; waiting for more to send only delays it.
                    stream.set_nodelay(true).map_err(|e| ConnectError::Dial(named(target), e))?;
                    return Ok((stream, *address));
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(match failed {
            Some(error) => ConnectError::Dial(named(target), error),
            None => ConnectError::NoAddress(named(target)),
        })
    }

    /// Agrees on TLS, with the name in the URL as the one that the certificate has to have.
    pub(super) async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        target: &Target,
        stream: S,
    ) -> Result<TlsStream<S>, ConnectError> {
        self.agree(target, stream, Arc::clone(self.config(target))).await
    }

    /// The same with a mail server, which speaks no HTTP.
    pub(super) async fn secure_for_mail<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        target: &Target,
        stream: S,
    ) -> Result<TlsStream<S>, ConnectError> {
        let mut config = ClientConfig::clone(self.config(target));
        config.alpn_protocols.clear();
        self.agree(target, stream, Arc::new(config)).await
    }

    /// Opens a connection as an attempt would, as far as nothing has to be said for it.
    pub(super) async fn knock(
        &self,
        target: &Target,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(), ConnectError> {
        let (stream, _) = self.dial(target, deadline, progress).await?;
        progress.enter(Phase::Tls);
        match &target.mail {
            Some(server) if server.safe == Safe::Implicit => {
                self.secure_for_mail(target, stream).await?;
            }
            None if target.base.scheme() == "https" => {
                self.secure(target, stream).await?;
            }
            _ => return Ok(()),
        }
        progress.reached = Reached::Secured;
        Ok(())
    }

    fn config<'a>(&'a self, target: &'a Target) -> &'a Arc<ClientConfig> {
        target.tls.as_ref().map_or(&self.tls, |own| own.config())
    }

    async fn agree<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        target: &Target,
        stream: S,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<S>, ConnectError> {
        let name = server_name(&target.base).ok_or(ConnectError::Url)?;
        let connector = TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(|error| {
            match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(why)) => {
                    ConnectError::Certificate(named(target), Distrusted(why.clone()))
                }
                _ => ConnectError::Tls(named(target), error),
            }
        })
    }

    /// All addresses of the target: one resolution, and what it says is what is dialled.
    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, ConnectError> {
        let port = target.base.port_or_known_default().ok_or(ConnectError::Url)?;
        let addresses = match target.base.host().ok_or(ConnectError::Url)? {
            Host::Ipv4(ip) => vec![SocketAddr::new(ip.into(), port)],
            Host::Ipv6(ip) => vec![SocketAddr::new(ip.into(), port)],
            Host::Domain(name) => self
                .look_up(name, port, target.trust)
                .await
                .map_err(|error| ConnectError::Resolve(name.to_owned(), error))?,
        };
        self.judge_all(target, &addresses)?;
        Ok(addresses.into_iter().take(ADDRESSES_MAX).collect())
    }

    /// What the machine's resolver says of a name. It goes on with a name that nobody waits for any
    /// more, so that it is only then that another caller's gets its place.
    async fn look_up(&self, name: &str, port: u16, trust: Trust) -> io::Result<Vec<SocketAddr>> {
        let place = match trust {
            Trust::Operator => None,
            // It is never closed.
            Trust::Caller => Arc::clone(&self.lookups).acquire_owned().await.ok(),
        };
        let name = name.to_owned();
        let looking = tokio::spawn(async move {
            let found = tokio::net::lookup_host((name, port)).await.map(Iterator::collect);
            drop(place);
            found
        });
        looking.await.map_err(io::Error::other)?
    }

    /// Each of them, before any is dialled: an answer that mixes public and private addresses is
    /// an attempt to get through.
    fn judge_all(&self, target: &Target, addresses: &[SocketAddr]) -> Result<(), EgressRefusal> {
        addresses.iter().try_for_each(|address| self.judge(target, address.ip()))
    }

    /// Whether the target may be reached at this address.
    pub(super) fn judge(&self, target: &Target, ip: IpAddr) -> Result<(), EgressRefusal> {
        match target.trust {
            Trust::Operator => Egress::admits_operator(&target.base, ip),
            Trust::Caller => self.egress.admits(&target.base, ip),
        }
    }

    /// That the socket leads where it was sent, by its own word.
    fn check_peer(
        &self,
        target: &Target,
        stream: &TcpStream,
        dialled: SocketAddr,
    ) -> Result<(), ConnectError> {
        let peer = stream.peer_addr().map_err(|e| ConnectError::Dial(named(target), e))?;
        if peer.ip() != dialled.ip() {
            self.judge(target, peer.ip())?;
        }
        // A socket to an address of this machine comes from the same one.
        let is_here = stream.local_addr().is_ok_and(|local| local.ip() == peer.ip());
        if target.trust == Trust::Caller && self.egress.is_own(peer.ip(), peer.port(), is_here) {
            return Err(EgressRefusal::Own(named(target)).into());
        }
        Ok(())
    }
}

/// The upstream as its URL names it, for a person.
pub(super) fn named(target: &Target) -> String {
    let host = target.base.host_str().unwrap_or_default();
    match target.base.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Ipv4(ip) => Some(ServerName::IpAddress(IpAddr::V4(ip).into())),
        Host::Ipv6(ip) => Some(ServerName::IpAddress(IpAddr::V6(ip).into())),
        Host::Domain(name) => {
            // A certificate names the host without the dot that ends an absolute name.
            let name = name.strip_suffix('.').unwrap_or(name);
            ServerName::try_from(name.to_owned()).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Timeouts;

    fn judged(trust: Trust, addresses: &[&str]) -> bool {
        let connector = Connector::new(Egress::default(), None).expect("roots");
        let base = Url::parse("https://rebinds.example/").expect("a URL");
        let target = Target { trust, ..Target::of_operator(base, Timeouts::default()) };
        let addresses: Vec<_> = addresses.iter().map(|a| a.parse().expect("an address")).collect();
        connector.judge_all(&target, &addresses).is_ok()
    }

    #[test]
    fn a_name_with_one_private_address_among_public_ones_is_refused_to_callers() {
        let mixed = ["93.184.216.34:443", "[2606:4700::1]:443", "127.0.0.1:443", "1.1.1.1:443"];
        assert!(!judged(Trust::Caller, &mixed));
        assert!(!judged(Trust::Caller, &["93.184.216.34:443", "[::1]:443"]));
        assert!(judged(Trust::Caller, &["93.184.216.34:443", "[2606:4700::1]:443"]));
        assert!(judged(Trust::Operator, &mixed));
    }

    #[test]
    fn a_name_of_the_operators_does_not_lead_to_a_clouds_metadata() {
        for address in ["169.254.169.254:80", "[fd00:ec2::254]:80", "[::ffff:a9fe:a9fe]:80"] {
            assert!(!judged(Trust::Operator, &["10.0.0.1:443", address]), "{address}");
        }
        assert!(judged(Trust::Operator, &["10.0.0.1:443", "127.0.0.1:443", "[fd12::1]:443"]));
    }
}
