//! The page of the command line, of the same words as `--help`; and what other pages name of it.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::Cli;
use crate::config::NOT_OVERRIDES;
use crate::generated;

const PAGE: &str = "docs/reference/cli.md";

const HEAD: &str = "\
# The command line

Every verb of `onceward` and every flag, made of the code by `cargo xtask docs`: the same words as `onceward help VERB` and
`man onceward`. What the verbs of people do is told in [what a person does](../people.md).

Verbs that ask a gateway speak to `--url` or `--context`, else to `ONCEWARD_URL` or `ONCEWARD_CONTEXT`, else to the context of
`onceward context use`, else to the configuration's `listen`; with `--access-key`, the context's, or the operator's key that
`serve` leaves in the data folder. A context's key goes to its own gateway alone. Data goes to stdout and talk to stderr; lists are tables at a terminal
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
| 75 | not now: nobody is there (`check --ready` says 1), or it is too much for them (429, 503); nothing was done, and the same again may do later. A ledger that cannot be used is 1: what was asked may be in it |
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

/// What pages have a reader type: code between backticks, and lines of blocks, from `onceward` up to where a shell
/// goes on.
fn typed(page: &str) -> Vec<String> {
    let mut is_block = false;
    let mut found = Vec::new();
    for line in page.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        }
        let pieces: Vec<&str> =
            if is_block { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for piece in pieces {
            let piece = piece.trim_start_matches("sudo -u onceward ");
            let Some(rest) = piece.strip_prefix("onceward ") else { continue };
            let goes_on = |word: &&str| {
                !["|", ">", "&&", "||", "#", "&", "<"].contains(word) && !word.contains("$(")
            };
            found.push(rest.split_whitespace().take_while(goes_on).collect::<Vec<_>>().join(" "));
        }
    }
    found
}

/// What is wrong with a command: a verb or a flag that there is not.
fn unknown(root: &Command, typed: &str) -> Option<String> {
    let mut words = typed.split(' ').peekable();
    // What every verb takes may stand before it.
    while let Some(flag) = words.next_if(|word| word.starts_with("--")) {
        let found = root.get_arguments().find(|arg| arg.get_long() == flag.strip_prefix("--"));
        let Some(arg) = found else { return Some(format!("no flag {flag}")) };
        if arg.get_action().takes_values() {
            words.next();
        }
    }
    let mut commands = vec![root];
    while let Some(word) = words.next_if(|word| !word.starts_with(['-', '[', '"', '$'])) {
        let within: Vec<&Command> =
            word.split('|').filter_map(|word| commands[0].find_subcommand(word)).collect();
        if within.len() != word.split('|').count() {
            // Where no verb can follow, it is a value.
            return commands[0].has_subcommands().then(|| format!("no verb {word:?}"));
        }
        commands = within;
        if !commands[0].has_subcommands() {
            break;
        }
    }
    let flags = words.filter_map(|word| word.trim_start_matches('[').strip_prefix("--"));
    let flags = flags.map(|flag| flag.trim_end_matches([']', ',', ';', ')', '"', '\'']));
    let is_known = |flag: &str| {
        let flag = flag.split('=').next().unwrap_or_default();
        let has = |command: &&Command| {
            command.get_arguments().any(|arg| {
                let aliases = arg.get_all_aliases().unwrap_or_default();
                arg.get_long() == Some(flag) || aliases.contains(&flag)
            })
        };
        flag == "help" || commands.iter().all(has)
    };
    flags.into_iter().find(|flag| !is_known(flag)).map(|flag| format!("no flag --{flag}"))
}

#[test]
fn every_verb_and_flag_that_a_page_names_is_there() {
    let mut root = Cli::command();
    root.build();
    assert_eq!(unknown(&root, "ls --state dead"), None);
    assert_eq!(unknown(&root, "lst --state dead"), Some("no verb \"lst\"".to_owned()));
    assert_eq!(unknown(&root, "bulk redeliver --stat"), Some("no flag --stat".to_owned()));
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in generated::papers() {
        for typed in typed(&generated::text(&page)) {
            seen += 1;
            let why = unknown(&root, &typed);
            wrong.extend(why.map(|why| format!("{page}: onceward {typed}: {why}")));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(seen > 150, "{seen} commands are named");
}

/// The variables of all flags.
fn variables(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

#[test]
fn no_variable_of_a_flag_lies_over_the_configuration() {
    for name in variables(&Cli::command()) {
        assert!(NOT_OVERRIDES.contains(&name.as_str()), "{name} belongs into NOT_OVERRIDES");
    }
}
