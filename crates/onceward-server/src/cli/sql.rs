//! `sql ddl`: what belongs into one's own database.

use clap::{Args, Subcommand, ValueEnum};
use onceward::sql::{Schema, VERSION, postgres, sqlite};
use serde_json::json;

use super::Global;
use super::output::{print, print_bytes};
use crate::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Sql {
    /// Print the tables and functions, as SQL that can be run again
    Ddl(Ddl),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  onceward sql ddl --dialect postgres | psql -1 -v ON_ERROR_STOP=1 \"$DATABASE_URL\"
  onceward sql ddl --dialect sqlite | sqlite3 own.db

A later release brings what is there up to its version; rows stay. What it is for: docs/within.md")]
pub(super) struct Ddl {
    /// The database's dialect
    #[arg(long)]
    dialect: Named,
    /// The PostgreSQL schema for it
    #[arg(long, value_name = "NAME", default_value = "onceward")]
    schema: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Named {
    Postgres,
    Sqlite,
}

pub(super) fn sql(Sql::Ddl(flags): &Sql, global: &Global) -> Result<(), Exit> {
    let schema = Schema::new(&flags.schema);
    let schema = schema.map_err(|why| Exit::usage(format!("--schema {}: {why}", flags.schema)))?;
    let script = match flags.dialect {
        Named::Postgres => postgres::ddl(&schema),
        Named::Sqlite if schema == Schema::default() => sqlite::ddl(),
        Named::Sqlite => {
            return Err(Exit::usage(
                "--schema: SQLite has no schemas\nhelp: leave it out; the tables' names begin with \
                 onceward_",
            ));
        }
    };
    if global.json {
        return print(&json!({ "version": VERSION, "sql": script }).to_string());
    }
    print_bytes(script.as_bytes())
}
