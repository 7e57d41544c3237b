//! The ledger, as far as it can be looked at from beside it, and the keys: to the ledger, of listeners, and for what
//! is signed.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use onceward::master_key::KeyRing;
use onceward::store::Schema;
use onceward::store::postgres::{PostgresOptions, PostgresStore};
use onceward::store::sqlite::SqliteStore;

use super::finding::{Findings, Page};
use super::machine::CLOCK_OFF;
use crate::config::Config;
use crate::given_key::{Source, given_keys};
use crate::ledger::Ledger;
use crate::node::{MASTER_KEY, QUARANTINE, RESTORING};
use crate::tls::TlsFiles;

/// A certificate that is renewed by a machine is renewed earlier.
const RENEWED_BEFORE: Duration = Duration::from_hours(14 * 24);

pub(super) async fn ledger(config: &Config, connect: bool, found: &mut Findings) {
    found.begin("ledger");
    let data = config.data();
    if data.join(RESTORING).exists() {
        let says = format!("a restore into {} broke off", data.display());
        let help = "run `onceward restore FOLDER` again: it begins anew";
        found.fail(says, help, Page::Backup);
    }
    if data.join(QUARANTINE).exists() {
        let help = Some("`onceward restore --release` lets it send".to_owned());
        found.warn("the ledger was restored and sends nothing", help, Page::Quarantine);
    }
    match &config.store {
        Ledger::Sqlite(path) => embedded(path, found),
        Ledger::Postgres { url, .. } if connect => shared(url, config, found).await,
        Ledger::Postgres { .. } => {}
    }
}

fn embedded(path: &Path, found: &mut Findings) {
    let name = path.display();
    match SqliteStore::schema(path) {
        Ok(Some(schema)) => shape(&name.to_string(), schema, found),
        Ok(None) => found.ok(format!("{name} is made at the first start")),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let help = Some("check as the user that the gateway runs as".to_owned());
            found.warn(format!("{name} cannot be read by this user"), help, Page::Deploy);
        }
        Err(error) => {
            let help = "keep its folder, and put a backup in its place: onceward restore FOLDER";
            found.fail(format!("{name}: {error}"), help, Page::Backup);
        }
    }
}

async fn shared(url: &str, config: &Config, found: &mut Findings) {
    let options = PostgresOptions { url: url.to_owned(), ca_file: config.ca_file.clone() };
    let looked = match PostgresStore::look(&options).await {
        Ok(looked) => looked,
        Err(error) => {
            let help = "look at store, and whether this machine may connect (pg_hba.conf)";
            let says = format!("{}: {error}", config.store);
            return found.fail(says, help, Page::Postgres);
        }
    };
    found.ok(format!("{} is PostgreSQL {}", config.store, looked.release));
    shape(&config.store.to_string(), looked.schema, found);
    let here = crate::shape::now();
    let off = here.since(looked.now).max(looked.now.since(here));
    if off > CLOCK_OFF {
        let says = format!("the server's clock and this one differ by {:.0} s", off.as_secs_f64());
        let help = "keep both by NTP: leases go by the server's, windows by each node's";
        found.fail(says, help, Page::Clocks);
    } else {
        found.ok("the server's clock is as this one");
    }
}

fn shape(name: &str, schema: Schema, found: &mut Findings) {
    let Schema { found: theirs, ours, is_usable } = schema;
    if !is_usable {
        let says = format!("{name} is of a later release: schema {theirs}, this one knows {ours}");
        found.fail(says, "start that release, or a later one", Page::Upgrade);
    } else if theirs == 0 {
        found.ok(format!("{name} is empty: the first start makes its tables"));
    } else if theirs < ours {
        let says =
            format!("{name} has schema {theirs}: the next start of this release makes it {ours}");
        found.warn(says, Some("make a backup before".to_owned()), Page::Upgrade);
    } else {
        found.ok(format!("{name} has schema {theirs}, as this release wants it"));
    }
}

pub(super) fn keys(config: &Config, found: &mut Findings) {
    found.begin("keys");
    match given_keys() {
        Ok(Some((_, Source::File(path)))) => {
            found.ok(format!("the master key is in {}", path.display()));
        }
        Ok(Some(_)) => found.ok("the master key is in the environment"),
        Ok(None) => made_key(config, found),
        Err(exit) => {
            let usual = (exit.message.as_str(), "give the one that the ledger has");
            let (says, help) = exit.message.split_once("\nhelp: ").unwrap_or(usual);
            found.fail(says, help, Page::MasterKey);
        }
    }
    let guards = config.guards.values();
    let guards = guards.map(|guard| (format!("routes.{}.tls", guard.route), guard.tls.as_ref()));
    for (section, files) in [("tls".to_owned(), config.tls.as_ref())].into_iter().chain(guards) {
        // One that cannot be read is told of among the warnings.
        if let Some(until) = files.and_then(TlsFiles::holds_until) {
            certificate(&section, until, found);
        }
    }
    if config.callbacks_secret.is_some() {
        found.ok("callbacks are signed");
    }
    let signed = config.routes.values().filter(|route| route.auth.signing.is_some()).count();
    if signed > 0 {
        found.ok(format!("{signed} routes sign what they send"));
    }
}

/// The master key that the gateway made itself.
fn made_key(config: &Config, found: &mut Findings) {
    let path = config.data().join(MASTER_KEY);
    let name = path.display();
    match std::fs::read(&path) {
        Ok(bytes) if KeyRing::of_file(&bytes).is_none() => {
            let help = "restore it from a backup: what is sealed cannot be opened without it";
            found.fail(format!("{name} holds no master key"), help, Page::MasterKey);
        }
        Ok(_) => {
            // Nothing for the group and for others.
            let mode = path.metadata().map_or(0, |it| it.permissions().mode());
            if mode.trailing_zeros() >= 6 {
                return found.ok(format!("{name} holds the master key"));
            }
            let help = Some(format!("chmod 600 {name}"));
            found.warn(format!("others can read the master key in {name}"), help, Page::MasterKey);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if matches!(&config.store, Ledger::Sqlite(ledger) if ledger.exists()) {
                let help = "put it back from a backup: what is sealed cannot be opened without it";
                return found.fail(format!("{name} is missing"), help, Page::MasterKey);
            }
            found.ok(format!("{name} is made at the first start"));
        }
        Err(error) => {
            let help = Some("check as the user that the gateway runs as".to_owned());
            found.warn(format!("{name}: {error}"), help, Page::Deploy);
        }
    }
}

fn certificate(section: &str, until: jiff::Timestamp, found: &mut Findings) {
    let left = until.as_second() - jiff::Timestamp::now().as_second();
    let says = format!("the certificate of [{section}] holds until {until:.0}");
    if left <= 0 {
        let says = format!("the certificate of [{section}] has held until {until:.0}");
        found.fail(says, "renew it: it is read again as soon as its file changes", Page::Tls);
    } else if left.unsigned_abs() < RENEWED_BEFORE.as_secs() {
        found.warn(says, Some("look whether it is renewed by itself".to_owned()), Page::Tls);
    } else {
        found.ok(says);
    }
}
