//! What is printed: data on stdout, talk on stderr. Tables for a person at a terminal, columns
//! between tabs for everything else; times relative to now only at a terminal.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use serde_json::{Value, json};

use super::client::Client;
use crate::exit::Exit;

/// The widest that a column of a table grows, so that a row stays a row.
const COLUMN_MAX: usize = 44;

/// What stands where there is nothing.
const NOTHING: &str = "-";

/// Whether a person sees what is printed.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// How what came back is printed: JSON as it is, or words and tables for whoever reads them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printer {
    pub(super) is_json: bool,
    /// Whether a person reads them.
    pub(super) is_terminal: bool,
}

impl Printer {
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json, is_terminal: is_terminal() }
    }

    /// A document as it is, or what it says in words.
    pub(super) fn document(
        self,
        document: &Value,
        words: impl FnOnce() -> Result<(), Exit>,
    ) -> Result<(), Exit> {
        if self.is_json { print(&document.to_string()) } else { words() }
    }

    /// A time in a document: relative for a person, as it is elsewhere.
    pub(super) fn when(self, document: &Value, pointer: &str) -> String {
        when(&text(document, pointer), self.is_terminal)
    }
}

/// Prints data and ends the line.
pub(super) fn print(line: &str) -> Result<(), Exit> {
    print_bytes(format!("{line}\n").as_bytes())
}

/// Prints data as it is.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Exit::quiet(0)),
        Err(error) => Err(Exit::failed(format!("stdout: {error}"))),
    }
}

/// Tells a person something beside the data.
pub(super) fn say(words: &str) {
    // Where nobody listens, there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// What does much at once is said twice: by `--yes`, or by whoever is at the terminal.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Sure {
    /// Do not ask whether to go on; where nobody is at a terminal it has to be said
    #[arg(long)]
    yes: bool,
}

impl Sure {
    /// Tells what `document` would do there, and asks whether to go on, where somebody still has to be asked.
    pub(super) async fn go_on(
        self,
        client: &Client,
        path: &str,
        document: &Value,
        tell: impl FnOnce(&Value),
    ) -> Result<(), Exit> {
        if !self.is_to_ask()? {
            return Ok(());
        }
        let mut plan = document.clone();
        plan["dry_run"] = json!(true);
        tell(&client.post(path, &plan).await?);
        Self::ask()
    }

    /// Whether somebody still has to be asked; where nobody can be, that is wrong.
    fn is_to_ask(self) -> Result<bool, Exit> {
        let is_asked = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if self.yes || is_asked {
            return Ok(!self.yes);
        }
        Err(Exit::usage(
            "nobody is at a terminal who could be asked whether to go on\nhelp: look with --dry-run what it would do, then say --yes",
        ))
    }

    /// Asks.
    fn ask() -> Result<(), Exit> {
        // Where nobody sees the question, nobody answers it.
        let _ = write!(std::io::stderr(), "go on? [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        match answer.trim() {
            "y" | "Y" | "yes" if read.is_ok() => Ok(()),
            _ => Err(Exit::failed("nothing was done")),
        }
    }
}

/// A member's text; numbers and truth values as text, and `-` where there is nothing.
pub(super) fn text(document: &Value, pointer: &str) -> String {
    match document.pointer(pointer) {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(Value::String(text)) if text.is_empty() => NOTHING.to_owned(),
        Some(Value::String(text)) => clean(text),
        Some(other) => other.to_string(),
    }
}

/// A list's elements.
pub(super) fn each<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Text that was somebody else's, with its control characters made visible: a label shall not
/// move the cursor, and a tab shall not make a column.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            clean.extend(letter.escape_default());
        } else {
            clean.push(letter);
        }
    }
    clean
}

/// A time: relative at a terminal, as it is elsewhere.
pub(super) fn when(at: &str, terminal: bool) -> String {
    if terminal { ago(at, jiff::Timestamp::now()) } else { at.to_owned() }
}

/// "3m ago", "in 2h".
pub(super) fn ago(at: &str, now: jiff::Timestamp) -> String {
    let Ok(parsed) = at.parse::<jiff::Timestamp>() else { return at.to_owned() };
    let seconds = now.as_second() - parsed.as_second();
    let (size, unit) = match seconds.unsigned_abs() {
        0..60 => (1, "s"),
        60..3600 => (60, "m"),
        3600..172_800 => (3600, "h"),
        _ => (86_400, "d"),
    };
    let count = seconds.abs() / size;
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{count}{unit} ago"),
        _ => format!("in {count}{unit}"),
    }
}

/// Rows under their names.
#[derive(Debug)]
pub(super) struct Table {
    names: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(names: &'static [&'static str]) -> Self {
        Self { names, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Prints the rows; without any it prints nothing.
    pub(super) fn print(&self, terminal: bool) -> Result<(), Exit> {
        if self.rows.is_empty() {
            return Ok(());
        }
        print_bytes(self.lay_out(terminal).as_bytes())
    }

    fn lay_out(&self, terminal: bool) -> String {
        if !terminal {
            return self.rows.iter().fold(String::new(), |out, row| out + &row.join("\t") + "\n");
        }
        let names: Vec<String> = self.names.iter().map(|&name| name.to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&names).chain(&self.rows).collect();
        let width = |column: usize| {
            let longest =
                lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count());
            longest.max().unwrap_or_default().min(COLUMN_MAX)
        };
        let widths: Vec<usize> = (0..names.len()).map(width).collect();
        let mut out = String::new();
        for line in lines {
            let mut row = String::new();
            for (cell, &width) in line.iter().zip(&widths) {
                // Writing into a string does not fail.
                let _ = write!(row, "{:<width$}  ", shorten(cell));
            }
            out.push_str(row.trim_end());
            out.push('\n');
        }
        out
    }
}

fn shorten(cell: &str) -> String {
    if cell.chars().count() <= COLUMN_MAX {
        return cell.to_owned();
    }
    cell.chars().take(COLUMN_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_as_people_tell_it() {
        let now: jiff::Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (at, told) in [
            ("2026-01-31T12:00:00Z", "now"),
            ("2026-01-31T11:59:18Z", "42s ago"),
            ("2026-01-31T11:30:00Z", "30m ago"),
            ("2026-01-30T12:00:00Z", "24h ago"),
            ("2026-01-01T12:00:00Z", "30d ago"),
            ("2026-01-31T14:00:00Z", "in 2h"),
            ("-", "-"),
        ] {
            assert_eq!(ago(at, now), told, "{at}");
        }
    }

    #[test]
    fn a_table_is_aligned_at_a_terminal_and_has_tabs_elsewhere() {
        let mut table = Table::new(&["NAME", "N"]);
        table.push(vec!["a".to_owned(), "1".to_owned()]);
        table.push(vec!["x".repeat(60), "2".to_owned()]);
        let seen = table.lay_out(true);
        assert!(seen.starts_with("NAME ") && seen.contains('…'), "{seen}");
        assert_eq!(table.lay_out(false), format!("a\t1\n{}\t2\n", "x".repeat(60)));
    }

    #[test]
    fn what_others_wrote_cannot_steer_a_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\tc"), "a\\u{1b}[2Jb\\tc");
    }
}
