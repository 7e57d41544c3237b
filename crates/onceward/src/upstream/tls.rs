//! TLS to upstreams: whose certificates are trusted, and what is shown of our own.
//!
//! The door has one TLS for all; a route may have its own. What it is made of is its identity: the
//! contents of its files, so that a certificate that was renewed is another one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ConfigBuilder, DEFAULT_VERSIONS, RootCertStore, SupportedProtocolVersion,
};
use thiserror::Error;

use super::pinned::Pinned;
use crate::secret::sha256;

/// What TLS to one upstream is made of.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTlsFiles {
    /// The authorities that are trusted, and no others, PEM; without it those of the door.
    pub ca_file: Option<PathBuf>,
    /// What we show where we are asked who we are.
    pub client: Option<ClientFiles>,
    /// Whether TLS 1.2 is not spoken.
    pub only_tls13: bool,
}

/// A certificate of ours, and its key.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    /// The certificate and those that lead from it to an authority, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
}

/// TLS to one upstream, as its files were when they were read.
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    identity: String,
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").finish_non_exhaustive()
    }
}

/// Why TLS cannot be set up at all, with these certificates.
#[derive(Debug, Error)]
pub enum DoorError {
    /// The file of additional certificates cannot be read.
    #[error("cannot read certificates from {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A certificate in it is none that can be trusted.
    #[error("a certificate in {} cannot be used", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The file has no certificate in it.
    #[error("there is no certificate in {}", .0.display())]
    NoCa(PathBuf),
    /// The file of a key cannot be read.
    #[error("cannot read a key from {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A certificate and a key that cannot be shown.
    #[error("{} and {} cannot be used", cert_file.display(), key_file.display())]
    Client {
        /// The certificate's file.
        cert_file: PathBuf,
        /// The key's.
        key_file: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// The TLS provider supports none of the versions we accept.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl UpstreamTls {
    /// Reads the files. Where none of them says whom to trust, it is whom a door with `ca_file` trusts.
    pub fn load(files: &UpstreamTlsFiles, ca_file: Option<&Path>) -> Result<Arc<Self>, DoorError> {
        let mut parts = vec![vec![u8::from(files.only_tls13)]];
        let roots = match &files.ca_file {
            None => {
                parts.push(ca_file.map_or_else(|| Ok(Vec::new()), contents)?);
                roots(ca_file)?
            }
            Some(path) => {
                let pem = contents(path)?;
                let mut roots = RootCertStore::empty();
                trust(&mut roots, path, &pem)?;
                parts.push([b"alone", &*pem].concat());
                roots
            }
        };
        let versions = if files.only_tls13 { &[&TLS13] } else { DEFAULT_VERSIONS };
        let builder = trusting(roots, versions)?;
        let config = showing(builder, files.client.as_ref(), &mut parts)?;
        Ok(Self::of(config, &parts))
    }

    /// Takes the first certificate in `cert_file` from whoever is at the other end, and no other, whatever
    /// name it has: for a server whose files are at hand.
    pub fn pinned(cert_file: &Path, client: Option<&ClientFiles>) -> Result<Arc<Self>, DoorError> {
        let pem = contents(cert_file)?;
        let own = certificates(cert_file, &pem)?.swap_remove(0);
        let mut parts = vec![[b"pinned", own.as_ref()].concat()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(DEFAULT_VERSIONS)
            .map_err(DoorError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Pinned::new(own, provider));
        let config = showing(builder, client, &mut parts)?;
        Ok(Self::of(config, &parts))
    }

    /// What its parts are made of tells it from every other.
    fn of(config: ClientConfig, parts: &[Vec<u8>]) -> Arc<Self> {
        // The digest of each, so that no two ways to cut the same bytes are one.
        let digests: Vec<u8> = parts.iter().flat_map(|part| sha256(part)).collect();
        let identity = URL_SAFE_NO_PAD.encode(sha256(&digests));
        Arc::new(Self { config: Arc::new(speaking_http(config)), identity })
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// What tells it from every other: two with the same may use each other's connections.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }
}

/// With a certificate of ours, where there is one; what it is made of goes to the `parts`.
fn showing(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    client: Option<&ClientFiles>,
    parts: &mut Vec<Vec<u8>>,
) -> Result<ClientConfig, DoorError> {
    let Some(ClientFiles { cert_file, key_file }) = client else {
        return Ok(builder.with_no_client_auth());
    };
    let unreadable = |source| DoorError::KeyFile { path: key_file.clone(), source };
    let pem = contents(cert_file)?;
    let chain = certificates(cert_file, &pem)?;
    let secret = std::fs::read(key_file).map_err(|e| unreadable(pem::Error::Io(e)))?;
    let key = PrivateKeyDer::from_pem_slice(&secret).map_err(unreadable)?;
    parts.extend([pem, secret]);
    let (cert_file, key_file) = (cert_file.clone(), key_file.clone());
    let unusable = |source| DoorError::Client { cert_file, key_file, source };
    builder.with_client_auth_cert(chain, key).map_err(unusable)
}

/// TLS that trusts the machine's roots, or Mozilla's where it has none, and those in `ca_file`.
pub(crate) fn trusted(ca_file: Option<&Path>) -> Result<ClientConfig, DoorError> {
    Ok(trusting(roots(ca_file)?, DEFAULT_VERSIONS)?.with_no_client_auth())
}

fn trusting(
    roots: RootCertStore,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, DoorError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(DoorError::Tls)?
        .with_root_certificates(roots))
}

/// The same that agrees on a version of HTTP.
pub(super) fn speaking_http(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, DoorError> {
    let mut roots = RootCertStore::empty();
    // A machine's bundle may hold a certificate that we cannot read; the others still count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca_file {
        trust(&mut roots, path, &contents(path)?)?;
    }
    Ok(roots)
}

fn contents(path: &Path) -> Result<Vec<u8>, DoorError> {
    let unreadable =
        |error| DoorError::CaFile { path: path.to_owned(), source: pem::Error::Io(error) };
    std::fs::read(path).map_err(unreadable)
}

fn trust(roots: &mut RootCertStore, path: &Path, pem: &[u8]) -> Result<(), DoorError> {
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|source| DoorError::Ca { path: path.to_owned(), source })?;
    }
    Ok(())
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, DoorError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = read.map_err(|source| DoorError::CaFile { path: path.to_owned(), source })?;
    if found.is_empty() { Err(DoorError::NoCa(path.to_owned())) } else { Ok(found) }
}
