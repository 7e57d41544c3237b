//! The screen as text: what stands where, and in which colour; a state is an icon and a word as well.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::ls::{last, place};
use super::super::output::{ago, clean, each, text};
use super::super::show::story;
use super::board::{Ask, Board, Deed, Details, Mode};

/// How text looks, where the terminal can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Soft,
    Strong,
    Red,
    Amber,
    Green,
    Blue,
}

impl Style {
    /// What switches it on; a colour only where colours are wanted.
    fn code(self, has_colour: bool) -> &'static str {
        match self {
            Self::Strong => "\u{1b}[1m",
            Self::Soft if has_colour => "\u{1b}[2m",
            Self::Red if has_colour => "\u{1b}[31m",
            Self::Amber if has_colour => "\u{1b}[33m",
            Self::Green if has_colour => "\u{1b}[32m",
            Self::Blue if has_colour => "\u{1b}[34m",
            _ => "",
        }
    }
}

/// A line: pieces, and whether it is the selected one.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pieces: Vec<(Style, String)>,
    is_selected: bool,
}

impl Line {
    fn of(style: Style, text: impl Into<String>) -> Self {
        Self { pieces: vec![(style, text.into())], is_selected: false }
    }

    /// Its letters alone.
    #[cfg(test)]
    pub(super) fn plain(&self) -> String {
        self.pieces.iter().map(|(_, text)| text.as_str()).collect::<String>().trim_end().to_owned()
    }
}

/// Columns and lines of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) lines: usize,
}

/// What is no row: the title, the names of the columns, what is said, and the keys.
const AROUND: usize = 4;

/// How many rows a terminal has room for.
pub(super) fn room(size: Size) -> usize {
    size.lines.saturating_sub(AROUND).max(1)
}

/// The whole screen, a line for each of the terminal's; and from which line on a story is shown.
pub(super) fn screen(
    board: &Board,
    size: Size,
    gateway: &str,
    now: jiff::Timestamp,
) -> (Vec<Line>, usize) {
    let mut lines = vec![title(board, gateway)];
    let mut from = 0;
    if let Some(details) = &board.details {
        let shown;
        (shown, from) = told(details, size.columns, board.room);
        lines.push(Line::default());
        lines.extend(shown);
    } else {
        let columns = Columns::of(size.columns, board.key_letters());
        lines.push(columns.names());
        let shown = board.shown();
        if shown.is_empty() {
            lines.push(Line::of(Style::Soft, nothing(board)));
        }
        let rows = shown.into_iter();
        lines.extend(rows.map(|(row, is_selected)| columns.row(row, is_selected, now)));
    }
    lines.resize(size.lines.saturating_sub(2).max(1), Line::default());
    let (said, keys) = bottom(board);
    lines.push(said);
    lines.push(keys);
    (lines, from)
}

/// A story, from where it is scrolled to, and where that is.
fn told(details: &Details, width: usize, room: usize) -> (Vec<Line>, usize) {
    let told = details.story.as_ref().map_or_else(|| "…".to_owned(), |it| story(it, true));
    let told: Vec<String> = told.lines().flat_map(|line| wrapped(line, width)).collect();
    // One that is still to come may be long.
    let end = if details.story.is_some() { told.len().saturating_sub(1) } else { details.from };
    let from = details.from.min(end);
    let shown = told.into_iter().enumerate().skip(from).take(room);
    let style = |n| if n == 0 { Style::Strong } else { Style::Plain };
    (shown.map(|(n, line)| Line::of(style(n), line)).collect(), from)
}

fn nothing(board: &Board) -> &'static str {
    match (board.has_looked, board.filter.is_empty()) {
        (false, _) => "looking …",
        (true, true) => "Nothing yet. What goes through the gateway comes here.",
        (true, false) => "Nothing matches. / changes the filter.",
    }
}

fn title(board: &Board, gateway: &str) -> Line {
    let mut line = Line::of(Style::Strong, "onceward tail");
    let mut add = |style, text: String| line.pieces.push((style, text));
    add(Style::Soft, format!("  {gateway}"));
    if !board.filter.is_empty() {
        add(Style::Blue, format!("  /{}", clean(&board.filter)));
    }
    if board.is_paused {
        add(Style::Amber, "  paused".to_owned());
    }
    if let Some(since) = &board.away {
        add(Style::Red, format!("  the gateway is away since {since}; asking again"));
    }
    let (above, _) = board.counts();
    if above > 0 && board.details.is_none() {
        add(Style::Blue, format!("  ↑ {above} above"));
    }
    line
}

/// What is said or typed, and which keys there are.
fn bottom(board: &Board) -> (Line, Line) {
    let said = board.said.as_ref().map(|said| {
        // A refusal's help stands on a line of its own.
        Line::of(Style::Amber, clean(&said.replace('\n', "; ")))
    });
    let keys = match (&board.mode, &board.details) {
        (Mode::Filter(_), _) => {
            "Enter filter  Esc leave it  words: state: route: key: label: subject: status: principal:"
        }
        (Mode::Ask(_), _) => "Enter go on  Esc leave it",
        (Mode::List, Some(_)) => {
            "↑↓ scroll  r redeliver  v resolve  c cancel  o open  p pause  Esc back  q quit"
        }
        (Mode::List, None) => {
            "↑↓  ⏎ story  r redeliver  v resolve  c cancel  o open  / filter  p pause  q quit"
        }
    };
    let line = match &board.mode {
        Mode::List => said.unwrap_or_default(),
        Mode::Filter(typed) => Line::of(Style::Strong, format!("/{typed}▏")),
        Mode::Ask(ask) => said.unwrap_or_else(|| asked(ask)),
    };
    (line, Line::of(Style::Soft, keys))
}

fn asked(ask: &Ask) -> Line {
    let (deed, key) = (ask.deed.name(), &ask.key);
    let Some(typed) = &ask.typed else {
        return Line::of(Style::Strong, format!("{deed} {key}, why? {}▏", ask.reason));
    };
    match (ask.risk_to_take(), &ask.risk) {
        _ if ask.deed == Deed::Resolve => Line::of(
            Style::Strong,
            format!("{key}: type done, or not-sent, which has it sent again: {typed}▏"),
        ),
        (Some(risk), Some((_, why))) => {
            let mut line = Line::of(Style::Red, format!("{risk}: {why} "));
            line.pieces
                .push((Style::Strong, format!("{deed}? Type {risk} to take that risk: {typed}▏")));
            line
        }
        (_, Some((name, _))) => {
            Line::of(Style::Strong, format!("{deed} {key}? Its risk: {name}. y or n: {typed}▏"))
        }
        (_, None) => Line::of(Style::Strong, format!("{deed} {key}? y or n: {typed}▏")),
    }
}

/// How wide the columns are; narrow terminals have fewer.
#[derive(Debug, Clone, Copy)]
struct Columns {
    key: usize,
    route: usize,
    last: usize,
}

const STATE: usize = 13;
const ATTEMPTS: usize = 3;
/// At least; what keys leave over is for it.
const LAST: usize = 11;
const KEY_MIN: usize = 16;
const KEY_MAX: usize = 36;
const AGE: usize = 8;

impl Columns {
    /// Of a terminal this wide, where the longest key has so many letters.
    fn of(width: usize, key_letters: usize) -> Self {
        // Two before the state, and a space behind each column.
        let fixed = 2 + STATE + ATTEMPTS + LAST + AGE + 5;
        let left = width.saturating_sub(fixed);
        let route = if left < 24 { 0 } else { (left / 3).min(24) };
        let key = left.saturating_sub(route).max(8);
        let over = key.saturating_sub(key_letters.clamp(KEY_MIN, KEY_MAX));
        Self { key: key - over, route, last: LAST + over }
    }

    fn names(self) -> Line {
        let names = [
            ("STATE", STATE),
            ("KEY", self.key),
            ("ROUTE", self.route),
            ("TRY", ATTEMPTS),
            ("LAST", self.last),
            ("AGE", AGE),
        ];
        let cells = names.iter().filter(|(_, width)| *width > 0);
        let text: Vec<String> = cells.map(|(name, width)| fit(name, *width)).collect();
        Line::of(Style::Soft, format!("  {}", text.join(" ")))
    }

    fn row(self, row: &Value, is_selected: bool, now: jiff::Timestamp) -> Line {
        let (style, icon, word) = state(row);
        let mark = if is_selected { "▸ " } else { "  " };
        let attempts = each(row, "/attempts").len();
        // What is over is as old as its end.
        let ended = text(row, "/ended_at");
        let since = if ended == "-" { text(row, "/created_at") } else { ended };
        let age = ago(&since, now);
        let mut cells = vec![fit(&text(row, "/key"), self.key)];
        if self.route > 0 {
            cells.push(fit(&place(row), self.route));
        }
        cells.push(format!("{:>ATTEMPTS$}", attempts.min(999)));
        cells.push(fit(&met(row), self.last));
        cells.push(fit(age.trim_end_matches(" ago"), AGE));
        let pieces = vec![
            (Style::Plain, mark.to_owned()),
            (style, fit(&format!("{icon} {word}"), STATE)),
            (Style::Plain, format!(" {}", cells.join(" "))),
        ];
        Line { pieces, is_selected }
    }
}

/// What it met last, and what went wrong in words, as far as there is room.
fn met(row: &Value) -> String {
    let error = each(row, "/attempts").last().map(|attempt| text(attempt, "/error"));
    match error.filter(|error| error != "-") {
        Some(error) if row["outcome"].is_null() => format!("{}: {}", last(row), clean(&error)),
        _ => last(row),
    }
}

/// A state in colour, as an icon and in a word.
fn state(row: &Value) -> (Style, &'static str, &'static str) {
    match row["state"].as_str().unwrap_or_default() {
        _ if !row["forgotten"].is_null() => (Style::Soft, "–", "forgotten"),
        "pending" => (Style::Blue, "○", "pending"),
        "delivering" => (Style::Blue, "→", "delivering"),
        "in_doubt" => (Style::Amber, "?", "in doubt"),
        "done" if row["ok"] == false => (Style::Amber, "!", "done, not ok"),
        "done" => (Style::Green, "✓", "done"),
        "dead" if row["told"] == true => (Style::Soft, "×", "dead, told"),
        "dead" => (Style::Red, "✗", "dead"),
        _ => (Style::Plain, " ", "?"),
    }
}

/// Exactly so many letters.
fn fit(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return format!("{text:<width$}");
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A line in pieces that fit.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = line.chars().collect();
    if letters.is_empty() {
        return vec![String::new()];
    }
    letters.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect()
}

/// What the terminal is sent: each line in its place, the rest of it empty, nothing past its end.
pub(super) fn ansi(lines: &[Line], size: Size, has_colour: bool) -> String {
    let mut out = String::new();
    for (n, line) in lines.iter().take(size.lines).enumerate() {
        // Writing into a string does not fail.
        let _ = write!(out, "\u{1b}[{};1H", n + 1);
        let mut left = size.columns;
        for (style, text) in &line.pieces {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            let on = style.code(has_colour);
            let reverse = if line.is_selected { "\u{1b}[7m" } else { "" };
            let _ = write!(out, "{reverse}{on}{text}\u{1b}[0m");
        }
        out.push_str("\u{1b}[K");
    }
    out
}
