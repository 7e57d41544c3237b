//! TLS to a route's upstream, as the file says it. Its files are read with it, so that what cannot be
//! used is told by `check`, and a reload takes what was renewed.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

use onceward::upstream::{ClientFiles, MailServer, Safe, UpstreamTls, UpstreamTlsFiles};
use url::Url;

use super::ConfigError;
use super::listener_tls::VERSIONS;
use super::table::Table;
use crate::tls::TlsVersion;

/// Reads `upstream_tls` of a route to `upstream`, where the gateway trusts those in `ca_file`, too.
pub(super) fn read(
    table: &Table<'_>,
    upstream: Option<&Url>,
    mail: Option<&MailServer>,
    ca_file: Option<&Path>,
) -> Result<Arc<UpstreamTls>, ConfigError> {
    let is_safe = |upstream: &Url| match mail {
        None => upstream.scheme() == "https",
        Some(server) => server.safe != Safe::Not,
    };
    if !upstream.is_none_or(is_safe) {
        return Err(table.wrong(
            "has upstream_tls, and an upstream that speaks none\nhelp: write upstream = \"https://…\"",
        ));
    }
    let client = match (table.read("cert_file")?, table.read("key_file")?) {
        (Some(cert_file), Some(key_file)) => Some(ClientFiles { cert_file, key_file }),
        (None, None) => None,
        _ => {
            return Err(table.wrong(
                "has half of a client certificate\nhelp: upstream_tls takes cert_file and key_file together",
            ));
        }
    };
    let min_version = table.word("min_version", VERSIONS)?;
    let files = UpstreamTlsFiles {
        ca_file: table.read("ca_file")?,
        client,
        only_tls13: min_version == Some(TlsVersion::Tls13),
    };
    UpstreamTls::load(&files, ca_file).map_err(|error| {
        let why = error.source().map_or_else(String::new, |why| format!(": {why}"));
        table.wrong(&format!("has upstream_tls that cannot be used: {error}{why}"))
    })
}
