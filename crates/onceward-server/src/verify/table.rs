//! A report as a person reads it: a line for each case, and under it what is broken; and for
//! programs a row for each check, with tabs.

use std::fmt::Write as _;

use super::judge::Held;
use super::profile::Level;
use super::report::{Judged, Report};

/// The narrowest that text is set.
const WIDTH_MIN: usize = 40;

/// How the lines look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Columns there are.
    pub(crate) width: usize,
    /// Whether colours are welcome.
    pub(crate) colour: bool,
}

/// Where the second column begins.
pub(crate) const NAME_COLUMNS: usize = 19;
/// Where text under a case begins.
const LEVEL_COLUMNS: usize = 9;

/// The table for a person.
pub(crate) fn table(report: &Report, style: Style) -> String {
    let mut out = String::new();
    for judged in &report.cases {
        let (mark, colour) = mark(report, judged);
        let name = format!("{mark} {}", judged.case.kind.name());
        let line = set(&name, NAME_COLUMNS, judged.case.kind.title(), style.width);
        out.push_str(&paint(&line, mark, colour, style));
        for (level, rule, why) in notes(report, judged) {
            let text = if rule.is_empty() { why.to_owned() } else { format!("{rule}: {why}") };
            let line = set(
                &format!("    {level}"),
                NAME_COLUMNS.min(LEVEL_COLUMNS + 4),
                &text,
                style.width,
            );
            out.push_str(&paint(&line, level, level_colour(level), style));
        }
    }
    out
}

/// What stands under a case: what is broken; and why it was not judged, where nothing was.
fn notes<'a>(report: &'a Report, judged: &'a Judged) -> Vec<(&'static str, &'static str, &'a str)> {
    let mut notes = Vec::new();
    let mut reasons: Vec<&str> = Vec::new();
    for finding in &judged.findings {
        match finding.result {
            Held::No => notes.push((
                report.profile.level(finding.check).name(),
                finding.check.rule(),
                finding.why.as_str(),
            )),
            Held::Unknown if !reasons.contains(&finding.why.as_str()) => {
                reasons.push(&finding.why);
                notes.push(("", "", finding.why.as_str()));
            }
            Held::Unknown | Held::Yes => {}
        }
    }
    notes
}

/// The rows for programs: result, level, case, check, why.
pub(crate) fn rows(report: &Report) -> String {
    let mut out = String::new();
    for judged in &report.cases {
        for finding in &judged.findings {
            // Writing into a string does not fail.
            let _ = writeln!(
                out,
                "{}\t{}\t{}\t{}\t{}",
                finding.result.name(),
                report.profile.level(finding.check).name(),
                judged.case.kind.name(),
                finding.check.name(),
                finding.why
            );
        }
    }
    out
}

/// How a case came out, as a sign, and its colour (of ECMA-48). What it is made for comes first.
fn mark(report: &Report, judged: &Judged) -> (&'static str, u8) {
    match (report.worst(judged), judged.findings.first().map(|finding| finding.result)) {
        (Some(Level::Must), _) => ("✗", 31),
        (Some(Level::Should), _) => ("!", 33),
        (_, None | Some(Held::Unknown)) => ("-", 2),
        (_, Some(Held::No)) => ("i", 36),
        (_, Some(Held::Yes)) => ("✓", 32),
    }
}

fn level_colour(level: &str) -> u8 {
    match level {
        "MUST" => 31,
        "SHOULD" => 33,
        "INFO" => 36,
        _ => 2,
    }
}

/// The sign or word in its colour; where there is none, the whole line fades.
fn paint(line: &str, word: &str, colour: u8, style: Style) -> String {
    if !style.colour {
        line.to_owned()
    } else if word.is_empty() || word == "-" {
        format!("\u{1b}[{colour}m{}\u{1b}[0m\n", line.trim_end())
    } else {
        line.replacen(word, &format!("\u{1b}[{colour}m{word}\u{1b}[0m"), 1)
    }
}

/// A head, and text that is folded into the columns after it.
pub(crate) fn set(head: &str, columns: usize, text: &str, width: usize) -> String {
    let room = width.max(WIDTH_MIN) - columns;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > room {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let mut out = String::new();
    for (n, line) in lines.iter().enumerate() {
        let head = if n == 0 { head } else { "" };
        let padding = columns.saturating_sub(head.chars().count()).max(1);
        let row = format!("{head}{}{line}", " ".repeat(padding));
        out.push_str(row.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_folded_under_itself() {
        let text = "a used key with another payload is refused";
        let lines = set("✗ other", 10, text, 40);
        assert_eq!(lines, "✗ other   a used key with another\n          payload is refused\n");
        assert!(lines.lines().all(|line| line.chars().count() <= 40));
        assert_eq!(set("name", 10, "", 80), "name\n");
    }

    #[test]
    fn colour_is_there_where_it_is_welcome_and_nowhere_else() {
        let style = |colour| Style { width: 80, colour };
        assert_eq!(paint("✓ a\n", "✓", 32, style(false)), "✓ a\n");
        assert_eq!(paint("✓ a\n", "✓", 32, style(true)), "\u{1b}[32m✓\u{1b}[0m a\n");
    }
}
