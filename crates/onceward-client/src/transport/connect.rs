//! Connections to the gateway, with TLS where its address wants it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::error::BoxError;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Opens connections.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    #[cfg(feature = "tls")]
    tls: tls::Trust,
}

impl Connector {
    pub(super) fn new() -> Self {
        Self {
            tcp: tcp(),
            #[cfg(feature = "tls")]
            tls: tls::Trust::system(),
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn with_tls(config: std::sync::Arc<rustls::ClientConfig>) -> Self {
        Self { tcp: tcp(), tls: tls::Trust::of(config) }
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let is_secure = to.scheme_str() == Some("https");
        #[cfg(feature = "tls")]
        let (tls, host) = (self.tls.clone(), to.host().unwrap_or_default().to_owned());
        let connecting = self.tcp.call(to);
        Box::pin(async move {
            if !is_secure {
                return Ok(Stream::Plain(connecting.await?));
            }
            #[cfg(feature = "tls")]
            {
                let shaken = tls.shake(&host, connecting.await?.into_inner());
                let stream = tokio::time::timeout(CONNECT, shaken).await??;
                Ok(Stream::Secure(Box::new(TokioIo::new(stream))))
            }
            #[cfg(not(feature = "tls"))]
            Err("`https` needs the feature `tls` of onceward-client".into())
        })
    }
}

/// A connection.
pub(super) enum Stream {
    Plain(TokioIo<TcpStream>),
    #[cfg(feature = "tls")]
    Secure(Box<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>>),
}

/// Hands a verb on to whichever it is.
macro_rules! either {
    ($stream:expr, $inner:ident => $said:expr) => {
        match $stream.get_mut() {
            Stream::Plain(plain) => {
                let $inner = Pin::new(plain);
                $said
            }
            #[cfg(feature = "tls")]
            Stream::Secure(secure) => {
                let $inner = Pin::new(&mut **secure);
                $said
            }
        }
    };
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_read(cx, into))
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_shutdown(cx))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::{Arc, OnceLock};

    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use crate::error::BoxError;

    /// What is trusted; the system is asked with the first connection that wants it.
    #[derive(Debug, Clone)]
    pub(super) struct Trust(Arc<OnceLock<Arc<ClientConfig>>>);

    impl Trust {
        pub(super) fn system() -> Self {
            Self(Arc::new(OnceLock::new()))
        }

        pub(super) fn of(config: Arc<ClientConfig>) -> Self {
            Self(Arc::new(OnceLock::from(config)))
        }

        pub(super) async fn shake(
            &self,
            host: &str,
            stream: TcpStream,
        ) -> Result<TlsStream<TcpStream>, BoxError> {
            // What cannot be read now may be read with the next connection.
            let config = if let Some(config) = self.0.get() {
                config
            } else {
                let read = from_system()?;
                self.0.get_or_init(|| read)
            };
            // An address of version 6 stands in brackets.
            let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name)?;
            Ok(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)
        }
    }

    fn from_system() -> Result<Arc<ClientConfig>, BoxError> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err("the system trusts no certificate: give a configuration of your own".into());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}
