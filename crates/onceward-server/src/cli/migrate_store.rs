//! `migrate-store`: a ledger from the embedded store into a shared one, while no gateway runs on
//! either. Nothing is changed in the old one, and the new one has all of it or nothing.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args;
use onceward::store::moving::{MoveError, Moved, Progress, Step, move_ledger, try_move};
use onceward::store::postgres::PostgresOptions;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;

use super::Global;
use super::output::{print, say};
use crate::config::Places;
use crate::exit::Exit;
use crate::ledger::Ledger;
use crate::node::{MASTER_KEY, RESTORING};
use crate::quarantine::QUARANTINE;

#[derive(Debug, Args)]
pub(super) struct MigrateStore {
    /// The new ledger, an empty database: postgres://user@host/database
    #[arg(long, value_name = "URL", env = "ONCEWARD_TO", hide_env_values = true)]
    to: String,
    /// Read everything and look whether it can be moved; write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn migrate_store(flags: &MigrateStore, global: &Global) -> Result<(), Exit> {
    let places = Places::load(global.config.as_deref())?;
    let new = Ledger::read(Some(&flags.to), None, "--to").map_err(|error| Exit::usage(error.0))?;
    let Ledger::Postgres { url, .. } = &new else {
        return Err(Exit::usage(
            "--to is an embedded ledger\nhelp: name a database: --to postgres://user@host/database",
        ));
    };
    let Ledger::Sqlite(index) = &places.store else {
        return Err(Exit::failed(
            "the configuration's ledger is in PostgreSQL already\nhelp: name the old one with ONCEWARD_STORE=sqlite:onceward-data/ledger.db",
        ));
    };
    let old = open(index, &places.data())?;
    let to = PostgresOptions { url: url.clone(), ca_file: places.ca_file.clone() };
    let shown = std::io::stderr().is_terminal();
    let told = |progress: Progress| tell_progress(shown, progress);
    let moved = if flags.dry_run {
        try_move(&old, &to, told).await
    } else {
        move_ledger(&old, &to, told).await
    };
    if shown {
        say("");
    }
    let moved = moved.map_err(|error| explain(&error, &new))?;
    if global.json {
        let Moved { operations, keys, bodies, bytes, settings } = moved;
        let document = json!({
            "from": index, "to": new.to_string(), "dry_run": flags.dry_run,
            "operations": operations, "keys": keys, "bodies": bodies, "bytes": bytes,
            "settings": settings,
        });
        return print(&document.to_string());
    }
    print(&new.to_string())?;
    let counts = format!(
        "{} operations, {} requests and answers ({} bytes), {} settings",
        moved.operations, moved.bodies, moved.bytes, moved.settings
    );
    if flags.dry_run {
        say(&format!("would move {counts}; every one could be read, and nothing was written"));
    } else {
        say(&format!("moved {counts}; every one was read back and is the same"));
        say(&next(index, &places.data()));
    }
    Ok(())
}

/// Opens the old ledger and holds its lock.
fn open(index: &Path, data: &Path) -> Result<SqliteStore, Exit> {
    // Opening makes a ledger where there is none.
    if !index.exists() {
        return Err(Exit::not_found(format!("there is no ledger {}", index.display())));
    }
    if data.join(RESTORING).exists() {
        return Err(Exit::failed(format!(
            "a restore into {} broke off, so what is there is no whole ledger\nhelp: run `onceward restore FOLDER` again; it begins anew",
            data.display()
        )));
    }
    if data.join(QUARANTINE).exists() {
        return Err(Exit::failed(
            "the ledger was restored and is in quarantine: moved, it would send at once\nhelp: start the gateway, look at what it would send, and `onceward restore --release`; then stop it and move",
        ));
    }
    SqliteStore::open(index, &SqliteOptions::default()).map_err(|error| {
        Exit::failed(format!("{error}\nhelp: stop the gateway before its ledger is moved"))
    })
}

/// One line at a terminal, written over itself.
fn tell_progress(shown: bool, progress: Progress) {
    if shown {
        let step = match progress.step {
            Step::Copy => "read",
            Step::Compare => "compared",
        };
        // Where nobody listens, there is nobody to tell.
        let _ = write!(
            std::io::stderr(),
            "\r{step} {} of {} operations\u{1b}[K",
            progress.operations,
            progress.of
        );
    }
}

fn explain(error: &MoveError, new: &Ledger) -> Exit {
    let help = match error {
        MoveError::NotEmpty(_) => {
            "nothing was changed; make a new database (or a schema of its own, with options=-c%20search_path%3DNAME in the URL), and start no gateway on it before the move"
        }
        MoveError::InUse => "nothing was changed; stop it, or wait for its end",
        MoveError::From(_) => {
            "nothing was moved; `onceward backup` and `onceward restore` mend no damage, an older backup may"
        }
        MoveError::To(_) => {
            "nothing was moved, and it can be run again; see that the server can be reached and that the user may make tables"
        }
        MoveError::Different(_) => {
            "nothing was moved, and the old ledger is as it was: please report it"
        }
        MoveError::Unknown(_) => {
            "run it again once the server is back: where the move was kept, the database is not empty"
        }
    };
    Exit::failed(format!("moving into {new}: {error}\nhelp: {help}"))
}

/// What a person does then.
fn next(index: &Path, data: &Path) -> String {
    let key = data.join(MASTER_KEY).display().to_string();
    let master = if data.join(MASTER_KEY).exists() {
        format!(
            "give every node the ledger's master key: the file {key} in its data folder, or\n     \
             ONCEWARD_MASTER_KEY_FILE with the path of a copy"
        )
    } else {
        "give every node the ledger's master key: the ONCEWARD_MASTER_KEY of before".to_owned()
    };
    format!(
        "\
The old ledger {} is as it was. Never start a gateway on it again: what is pending would be sent by
both. Next:
  1. store = \"postgres://…\" in the configuration (or ONCEWARD_STORE), as --to had it
  2. {master}
  3. onceward serve, on as many machines as you like; what was under way when the old gateway
     stopped is judged as after a crash",
        index.display()
    )
}
