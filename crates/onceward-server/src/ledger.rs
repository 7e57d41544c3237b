//! Where the ledger is, and opening it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onceward::relay::without_secrets;
use onceward::store::postgres::{PostgresOptions, PostgresStore};
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Store, StoreError};

use crate::config::{Config, ConfigError};
use crate::exit::Exit;

/// The ledger where nothing says otherwise.
const SQLITE: &str = "sqlite:onceward-data/ledger.db";

/// The data folder of a ledger that is elsewhere, where nothing says otherwise.
const DATA: &str = "onceward-data";

/// Where the ledger is. What it shows of itself has no password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Ledger {
    /// Embedded: the file of its index.
    Sqlite(PathBuf),
    /// Shared with other nodes.
    Postgres {
        /// The connection string.
        url: String,
        /// The folder of this node's keys.
        data: PathBuf,
    },
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres { url, .. } => f.write_str(&without_secrets(url)),
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Ledger {
    /// Reads `store` and `data` as the configuration `name` has them.
    pub(crate) fn read(
        store: Option<&str>,
        data: Option<PathBuf>,
        name: &str,
    ) -> Result<Self, ConfigError> {
        let store = store.unwrap_or(SQLITE);
        if let Some(path) = store.strip_prefix("sqlite:") {
            if data.is_some() {
                return Err(ConfigError(format!(
                    "{name}: data has no meaning beside store = {store:?}: the keys of an embedded ledger lie beside it"
                )));
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if ["postgres://", "postgresql://"].iter().any(|scheme| store.starts_with(scheme)) {
            let data = data.unwrap_or_else(|| DATA.into());
            return Ok(Self::Postgres { url: store.to_owned(), data });
        }
        // It may hold a password, so it is not repeated.
        Err(ConfigError(format!(
            "{name}: store is neither sqlite:PATH nor postgres://…\nhelp: write store = \"{SQLITE}\", or store = \"postgres://user@host/database\" for a ledger that several nodes share"
        )))
    }

    /// The folder of this node's keys.
    pub(crate) fn data(&self) -> PathBuf {
        match self {
            Self::Sqlite(path) => path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .unwrap_or_else(|| Path::new("."))
                .to_owned(),
            Self::Postgres { data, .. } => data.clone(),
        }
    }

    /// The file of an embedded ledger.
    pub(crate) fn file(&self) -> Result<&Path, Exit> {
        match self {
            Self::Sqlite(path) => Ok(path),
            Self::Postgres { .. } => Err(Exit::failed(
                "this ledger is in PostgreSQL\nhelp: back it up and restore it with PostgreSQL's own tools, and keep master.key with the copy".to_owned(),
            )),
        }
    }
}

/// Opens the ledger of `config`.
pub(crate) async fn open(config: &Config) -> Result<Arc<dyn Store>, Exit> {
    let failed = |error: &dyn fmt::Display| {
        Exit::failed(format!("the ledger {} cannot be opened: {error}", config.store))
    };
    match &config.store {
        Ledger::Sqlite(path) => {
            let (path, options) =
                (path.clone(), SqliteOptions { segment_bytes: config.segment_bytes });
            let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path, &options));
            let store = opened.await.map_err(|error| failed(&error))?;
            Ok(Arc::new(store.map_err(|error| failed(&error))?))
        }
        Ledger::Postgres { url, data } => {
            std::fs::create_dir_all(data)
                .map_err(|error| Exit::failed(format!("{}: {error}", data.display())))?;
            let options = PostgresOptions { url: url.clone(), ca_file: config.ca_file.clone() };
            let store = PostgresStore::open(&options).await.map_err(|error| Exit {
                may_pass: matches!(error, StoreError::Away(_)),
                ..failed(&error)
            });
            Ok(Arc::new(store?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_shows_itself_without_its_password() {
        let read = |store: &str| Ledger::read(Some(store), None, "f");
        let shared = read("postgres://once:s3cret@a:5432,b:5432/ledger?sslmode=require").unwrap();
        assert_eq!(
            format!("{shared} {shared:?}"),
            "postgres://a:5432,b:5432/ledger postgres://a:5432,b:5432/ledger"
        );
        assert_eq!(shared.data(), Path::new("onceward-data"));
        assert_eq!(read("sqlite:d/l.db").unwrap().data(), Path::new("d"));
        let wrong = read("mysql://root:s3cret@h/d").unwrap_err().to_string();
        assert!(!wrong.contains("s3cret") && wrong.contains("postgres://"), "{wrong}");
    }

    #[test]
    fn a_data_folder_beside_an_embedded_ledger_is_refused() {
        assert!(Ledger::read(None, Some("d".into()), "f").is_err());
    }
}
