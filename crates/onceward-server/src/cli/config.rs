//! `config`: what holds and who says so; what a file may have, for editors; and a file to begin with. Whether one can be
//! read is asked of `check`.

use std::path::Path;

use clap::Subcommand;
use serde_json::Value;

use super::Global;
use super::output::{Table, clean, is_terminal, print, print_bytes};
use crate::config::{EXAMPLE, Overrides, SCHEMA, shown};
use crate::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show what is said and what holds without it, and who says so; secrets are not shown
    Show {
        /// Take a configuration whose routes fail on purpose ([routes.NAME.chaos])
        #[arg(long)]
        allow_chaos: bool,
    },
    /// Print the schema of the file (JSON Schema), for editors and linters
    Schema,
    /// Print a file with every key, each in a comment, with what it means
    Example,
}

pub(super) fn config(verb: &Verb, global: &Global) -> Result<(), Exit> {
    match verb {
        Verb::Show { allow_chaos } => show(*allow_chaos, global.config.as_deref(), global.json),
        Verb::Schema => print_bytes(SCHEMA.as_bytes()),
        Verb::Example => print_bytes(EXAMPLE.as_bytes()),
    }
}

fn show(allow_chaos: bool, path: Option<&Path>, is_json: bool) -> Result<(), Exit> {
    let flags = Overrides { allow_chaos, ..Overrides::default() };
    let shown = shown(path, &flags)?;
    if is_json {
        return print(&serde_json::json!(shown).to_string());
    }
    let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
    for shown in shown {
        let value = match shown.value {
            Value::String(text) => clean(&text),
            other => other.to_string(),
        };
        table.push(vec![clean(&shown.key), value, shown.from]);
    }
    table.print(is_terminal())
}
