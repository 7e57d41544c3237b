//! The page of the command line, of the same words as `--help`.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::Cli;
use crate::generated;

const PAGE: &str = "docs/reference/cli.md";

const HEAD: &str = "\
# The command line

Every verb of `onceward` and every flag, made of the code by `cargo xtask docs`: the same words as `onceward help VERB` and
`man onceward`. What the verbs of people do is told in [what a person does](../people.md).

Verbs that ask a gateway speak to `--url`, `ONCEWARD_URL`, or the configuration's `listen`, with `--access-key` or the
operator's key that `serve` leaves in the data folder. Data goes to stdout and talk to stderr; lists are tables at a terminal
and lines of tab-separated columns elsewhere.
";

const CODES: &str = "
## Exit codes

| code | |
| --- | --- |
| 0 | done |
| 1 | failed |
| 2 | usage |
| 3 | not found |
| 4 | access |
| 5 | a check, `verify` or `chaos` found something |
| 70 | the ledger broke: start again, it recovers |
| 78 | bad configuration |
| 130 | interrupted |
";

/// Text as a cell of a table has it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}

fn name(arg: &Arg) -> String {
    let values: String = arg
        .get_value_names()
        .filter(|_| arg.get_action().takes_values())
        .map(|names| names.iter().flat_map(|name| [" ", name.as_str()]).collect())
        .unwrap_or_default();
    let more = if matches!(arg.get_action(), ArgAction::Append) { " …" } else { "" };
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("`-{short}`, `--{long}{values}`{more}"),
        (None, Some(long)) => format!("`--{long}{values}`{more}"),
        (Some(short), None) => format!("`-{short}{values}`{more}"),
        (None, None) => format!("`{}`{more}", values.trim()),
    }
}

fn row(arg: &Arg) -> String {
    let mut said = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let words: Vec<_> =
        arg.get_possible_values().iter().map(|word| format!("`{}`", word.get_name())).collect();
    if !words.is_empty() && arg.get_action().takes_values() {
        let _ = write!(said, ": {}", words.join(", "));
    }
    let usual: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !usual.is_empty() && arg.get_action().takes_values() {
        let _ = write!(said, "; `{}` where nothing is said", usual.join(" "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(said, "; or `{}`", variable.to_string_lossy());
    }
    format!("| {} | {} |\n", cell(&name(arg)), cell(&said))
}

fn table<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let shown =
        |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help" && arg.get_id() != "version";
    let rows: String = args.filter(shown).map(row).collect();
    if rows.is_empty() { rows } else { format!("\n| | |\n| --- | --- |\n{rows}") }
}

/// A verb, and those within it.
fn verb(path: &str, command: &mut Command) -> String {
    let path = format!("{path} {}", command.get_name());
    let about = command
        .get_long_about()
        .or_else(|| command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    let usage = command.render_usage().to_string().replace("Usage: ", "");
    let mut text =
        format!("\n## {path}\n\n{}.\n\n```text\n{usage}\n```\n", about.trim_end_matches('.'));
    text += &table(command.get_arguments().filter(|arg| !arg.is_global_set()));
    for within in command.get_subcommands_mut().filter(|within| within.get_name() != "help") {
        text += &verb(&path, within);
    }
    text
}

#[test]
fn the_page_of_the_command_line_has_all_of_it() {
    let mut command = Cli::command();
    command.build();
    let mut page = HEAD.to_owned();
    page += "\n## What every verb takes\n";
    page += &table(command.get_arguments());
    for within in command.get_subcommands_mut().filter(|within| within.get_name() != "help") {
        page += &verb("onceward", within);
    }
    page += CODES;
    generated::hold(PAGE, &page);
}
