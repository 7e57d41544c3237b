//! TLS of a listener: certificates from files, read again when they change. What cannot be read
//! leaves what was there before.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// What a listener's TLS is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The certificate and those that lead from it to an authority, PEM.
    pub(crate) cert_file: PathBuf,
    /// Its key, PEM.
    pub(crate) key_file: PathBuf,
    /// Whether callers show a certificate, too.
    pub(crate) client: Option<ClientCertificate>,
    pub(crate) min_version: TlsVersion,
}

/// Whose certificates callers show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The authorities, PEM.
    pub(crate) ca_file: PathBuf,
    /// Whether a caller without one is turned away.
    pub(crate) is_required: bool,
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    Tls12,
    Tls13,
}

/// TLS as it is spoken now.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    read: Mutex<Read>,
}

/// What was read last.
#[derive(Debug)]
struct Read {
    marks: Vec<Option<Mark>>,
    /// Why it could not be used, where it could not.
    failed: Option<String>,
}

/// What changes when a file is written.
type Mark = (SystemTime, u64);

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: &TlsFiles) -> Result<Arc<Self>, String> {
        // First, so that what is written meanwhile is seen as a change.
        let marks = files.marks();
        let config = files.config()?;
        Ok(Arc::new(Self {
            files: files.clone(),
            current: RwLock::new(Arc::new(config)),
            read: Mutex::new(Read { marks, failed: None }),
        }))
    }

    pub(crate) fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// What a connection that begins now agrees on TLS with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }

    /// Reads the files again where they changed since, or could not be used then; `whose` is for the
    /// log. Connections that stand keep what they agreed on.
    pub(crate) fn refresh(&self, whose: &str) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = self.files.marks();
        if marks == read.marks && read.failed.is_none() {
            return;
        }
        read.marks = marks;
        match self.files.config() {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                read.failed = None;
                info!(listener = whose, "the certificate was read again");
            }
            // Halfway through being written, as a rule: said once, and tried again.
            Err(why) => {
                if read.failed.as_ref() != Some(&why) {
                    warn!(listener = whose, "the certificate is kept as it was: {why}");
                }
                read.failed = Some(why);
            }
        }
    }
}

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let ca_file = self.client.as_ref().map(|client| client.ca_file.as_path());
        [self.cert_file.as_path(), self.key_file.as_path()].into_iter().chain(ca_file)
    }

    fn marks(&self) -> Vec<Option<Mark>> {
        let mark = |path: &Path| {
            let there = fs::metadata(path).ok()?;
            Some((there.modified().ok()?, there.len()))
        };
        self.paths().map(mark).collect()
    }

    /// Until when the certificate holds, where it can be read.
    pub(crate) fn holds_until(&self) -> Option<jiff::Timestamp> {
        let chain = certificates(&self.cert_file).ok()?;
        let own = Certificate::from_der(chain.first()?).ok()?;
        let until = own.tbs_certificate.validity.not_after.to_unix_duration();
        jiff::Timestamp::from_second(i64::try_from(until.as_secs()).ok()?).ok()
    }

    fn config(&self) -> Result<ServerConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions: &[_] = match self.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = match &self.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(&client.ca_file)? {
                    let added = roots.add(authority);
                    added.map_err(|error| in_file(&client.ca_file, error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier =
                    if client.is_required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(
                    verifier.build().map_err(|error| in_file(&client.ca_file, error))?,
                )
            }
        };
        let chain = certificates(&self.cert_file)?;
        let key = PrivateKeyDer::from_pem_file(&self.key_file)
            .map_err(|error| in_file(&self.key_file, error))?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            format!("{} and {}: {error}", self.cert_file.display(), self.key_file.display())
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn in_file(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| in_file(path, error))?;
    if found.is_empty() { Err(in_file(path, "it has no certificate")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(folder: &Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let files = TlsFiles {
            cert_file: folder.join("cert.pem"),
            key_file: folder.join("key.pem"),
            client: None,
            min_version: TlsVersion::Tls12,
        };
        fs::write(&files.cert_file, made.cert.pem()).unwrap();
        fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_certificate_that_is_halfway_written_leaves_the_old_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let files = pair(folder.path(), "one.example");
        let tls = Tls::load(&files).unwrap();
        let now = || Arc::as_ptr(&tls.current.read().unwrap());
        let first = now();
        tls.refresh("a");
        assert_eq!(now(), first, "nothing has changed");
        let old = fs::read(&files.cert_file).unwrap();
        let other = tempfile::tempdir().unwrap();
        let new = pair(other.path(), "two.example");
        for half in [&b""[..], &old[..100], &fs::read(&new.cert_file).unwrap()] {
            fs::write(&files.cert_file, half).unwrap();
            tls.refresh("a");
            assert_eq!(now(), first, "cut off, or of another key");
            assert!(tls.read.lock().unwrap().failed.is_some());
        }
        fs::copy(&new.key_file, &files.key_file).unwrap();
        tls.refresh("a");
        assert_ne!(now(), first, "now they belong together");
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = pair(folder.path(), "one.example");
        fs::write(&files.cert_file, "nothing").unwrap();
        let why = Tls::load(&files).unwrap_err();
        assert!(why.contains("cert.pem") && why.contains("no certificate"), "{why}");
        fs::remove_file(&files.cert_file).unwrap();
        assert!(Tls::load(&files).unwrap_err().contains("cert.pem"));
    }
}
