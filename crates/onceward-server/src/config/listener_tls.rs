//! TLS of a listener, the main one's or a guard's, as the file says it.

use std::path::PathBuf;

use super::ConfigError;
use super::table::{Table, Words};
use crate::tls::{ClientCertificate, TlsFiles, TlsVersion};

/// Whether a client has to show a certificate.
const CLIENTS: &Words<bool> = &[("required", true), ("optional", false)];
pub(super) const VERSIONS: &Words<TlsVersion> =
    &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

/// Whether a certificate names its caller: by what else it is called. A subject is no name of a key.
const PRINCIPALS: &Words<bool> = &[("san", true)];

/// What belongs to a listener beside its certificate.
const WITH_IT: [&str; 4] = ["key_file", "client_ca_file", "client", "min_version"];

/// Reads `tls` of a guard.
pub(super) fn read(table: &Table<'_>) -> Result<TlsFiles, ConfigError> {
    let (cert_file, key_file) = (table.read("cert_file")?, table.read("key_file")?);
    let ca_file = table.read("client_ca_file")?;
    let is_required = table.word("client", CLIENTS)?;
    let min_version = table.word("min_version", VERSIONS)?.unwrap_or(TlsVersion::Tls12);
    if is_required.is_some() && ca_file.is_none() {
        return Err(table.wrong(
            "says tls.client, and not whose certificates are taken\nhelp: add client_ca_file to its tls",
        ));
    }
    let is_required = is_required.unwrap_or(true);
    Ok(TlsFiles {
        cert_file: table.need("cert_file", cert_file)?,
        key_file: table.need("key_file", key_file)?,
        client: ca_file.map(|ca_file| ClientCertificate { ca_file, is_required }),
        min_version,
    })
}

/// What `[tls]` comes to.
#[derive(Default)]
pub(super) struct OfGateway {
    /// The authorities that are trusted beside the system's.
    pub(super) ca_file: Option<PathBuf>,
    /// How the main listener speaks TLS, where it does.
    pub(super) files: Option<TlsFiles>,
    /// Whether a caller's certificate stands for the access key of its name.
    pub(super) names_callers: bool,
}

/// Reads `[tls]`.
pub(super) fn of_gateway(table: &Table<'_>) -> Result<OfGateway, ConfigError> {
    let ca_file = table.read("ca_file")?;
    let names_callers = table.word("principal", PRINCIPALS)?.unwrap_or(false);
    let is_spoken = table.has("cert_file") || table.says(&WITH_IT).is_some() || names_callers;
    let files = if is_spoken { Some(read(table)?) } else { None };
    if names_callers && files.as_ref().is_none_or(|files| files.client.is_none()) {
        return Err(table.wrong(
            "[tls] takes callers by their certificates, and asks for none\nhelp: add client_ca_file",
        ));
    }
    Ok(OfGateway { ca_file, files, names_callers })
}
