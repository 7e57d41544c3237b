//! The text of a configuration: the file, what variables put into it, and what they lay over it. It
//! may hold secrets, so nothing that is said of it repeats a line.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// How the variables begin that lie over the file.
const OURS: &str = "ONCEWARD_";

/// Variables that are ours and no part of the file: master keys, what flags of the command line may come from, and what a
/// build was told.
pub(crate) const NOT_OVERRIDES: [&str; 14] = [
    "ONCEWARD_ACCESS_KEY",
    "ONCEWARD_CA_FILE",
    "ONCEWARD_CERT_FILE",
    "ONCEWARD_COMMIT",
    "ONCEWARD_CONFIG",
    "ONCEWARD_CONTEXT",
    "ONCEWARD_KEY_FILE",
    "ONCEWARD_LOG",
    "ONCEWARD_MASTER_KEY",
    "ONCEWARD_MASTER_KEY_FILE",
    "ONCEWARD_TENANT",
    "ONCEWARD_TO",
    "ONCEWARD_URL",
    "ONCEWARD_WEBHOOK_SECRET",
];

/// A text that is read as configuration.
pub(super) struct Text {
    /// What errors call it.
    pub(super) name: String,
    written: String,
    overrides: Vec<Override>,
    /// What is a secret of it, as whoever reads it says: by their paths, those of a whole table with a star.
    hidden: RefCell<BTreeSet<String>>,
}

/// A variable that lies over the file.
struct Override {
    variable: String,
    value: String,
    /// Its value as the file would have it.
    line: String,
}

impl Text {
    /// A text over which `overrides` lie, variables with their values.
    pub(super) fn new(
        text: impl Into<String>,
        name: &str,
        overrides: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let read = |(variable, value): (String, String)| {
            let line = format!("v = {value}");
            Override { variable, value, line }
        };
        let overrides = overrides.map(read).collect();
        let hidden = RefCell::default();
        Self { name: name.to_owned(), written: text.into(), overrides, hidden }
    }

    /// What stands at `path` is shown nowhere.
    pub(super) fn hide(&self, path: String) {
        self.hidden.borrow_mut().insert(path);
    }

    pub(super) fn is_hidden(&self, path: &str) -> bool {
        let hidden = self.hidden.borrow();
        // A key of a table may have dots of its own.
        let mut tables = path.match_indices('.').map(|(at, _)| &path[..at]);
        hidden.contains(path) || tables.any(|table| hidden.contains(&format!("{table}.*")))
    }

    /// Who says what stands at `place`: the file with its line, or a variable; and its lines in the file, from 0.
    pub(super) fn source(&self, place: &Range<usize>) -> (String, Range<usize>) {
        let line = |at: usize| Some(self.written.get(..at)?.matches('\n').count());
        if let (Some(first), Some(last)) = (line(place.start), line(place.end)) {
            return (format!("{}:{}", self.name, first + 1), first..last + 1);
        }
        let over = self.overrides.get(usize::MAX - place.start);
        (over.map_or_else(|| self.name.clone(), |over| over.variable.clone()), 0..0)
    }

    /// Its tables, where it is TOML.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        let mut file = DeTable::parse(&self.written)
            .map_err(|error| self.unreadable(error.span(), error.message()))?;
        for (number, over) in self.overrides.iter().enumerate() {
            let path = over.variable[OURS.len()..].to_lowercase();
            // A number or a list is written as in the file; anything else is text.
            let written = DeTable::parse(&over.line).ok();
            let value = written.and_then(|mut table| table.get_mut().remove("v"));
            let value = value
                .filter(|value| !is_text(value.get_ref()))
                .map_or_else(|| DeValue::String(Cow::Borrowed(&*over.value)), Spanned::into_inner);
            put(file.get_mut(), &path, &place_of_override(number), value).ok_or_else(|| {
                ConfigError(format!(
                    "the variable {} names no place in the configuration",
                    over.variable
                ))
            })?;
        }
        Ok(file)
    }

    /// What is wrong at `place`.
    pub(super) fn wrong(&self, place: Option<Range<usize>>, what: &str) -> ConfigError {
        let name = &self.name;
        let Some(at) = place.map(|place| place.start) else {
            return ConfigError(format!("{name}: {what}"));
        };
        if let Some(before) = self.written.get(..at) {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            return ConfigError(format!("{name}: at line {line}, column {column}: {what}"));
        }
        match self.overrides.get(usize::MAX - at) {
            Some(over) => ConfigError(format!("{name}, with {}: {what}", over.variable)),
            None => ConfigError(format!("{name}: {what}")),
        }
    }

    /// What cannot be read at `place`.
    pub(super) fn unreadable(&self, place: Option<Range<usize>>, what: &str) -> ConfigError {
        let help = "help: `onceward check --config FILE` checks a file without starting";
        self.wrong(place, &format!("{what}\n{help}"))
    }

    /// Whether what stands there was laid over the file.
    pub(super) fn is_laid_over(&self, place: &Range<usize>) -> bool {
        place.start > self.written.len()
    }
}

/// Where what the override of this number lays over the file stands: behind all that a file can hold.
fn place_of_override(number: usize) -> Range<usize> {
    usize::MAX - number..usize::MAX - number
}

/// Where what we add ourselves stands.
pub(super) const NOWHERE: Range<usize> = usize::MAX / 2..usize::MAX / 2;

/// Whether what reads as something else is meant as a text: no key is a date, and digits that are more than a number
/// of the configuration can be are a key or a secret.
fn is_text(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Datetime(_) => true,
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).is_err(),
        _ => false,
    }
}

fn put<'a>(
    table: &mut DeTable<'a>,
    path: &str,
    place: &Range<usize>,
    value: DeValue<'a>,
) -> Option<()> {
    let key = |part: &str| Spanned::new(place.clone(), Cow::Owned(part.to_owned()));
    let Some((first, rest)) = path.split_once("__") else {
        // The key that is there would keep its own place.
        table.remove(path);
        table.insert(key(path), Spanned::new(place.clone(), value));
        return Some(());
    };
    let empty = || Spanned::new(place.clone(), DeValue::Table(DeTable::new()));
    match table.entry(key(first)).or_insert_with(empty).get_mut() {
        DeValue::Table(table) => put(table, rest, place, value),
        _ => None,
    }
}

/// Adds the keys of `text` that `keys` does not say.
pub(super) fn add(keys: &mut DeTable<'_>, text: &'static str) {
    let added = DeTable::parse(text).map(Spanned::into_inner).unwrap_or_default();
    for (key, value) in added {
        keys.entry(key).or_insert_with(|| Spanned::new(NOWHERE, value.into_inner()));
    }
}

/// Adds a text, whatever `keys` says.
pub(super) fn add_text(keys: &mut DeTable<'_>, key: &'static str, text: &str) {
    let value = DeValue::String(Cow::Owned(text.to_owned()));
    keys.insert(Spanned::new(NOWHERE, Cow::Borrowed(key)), Spanned::new(NOWHERE, value));
}

/// The variables of the environment that lie over the file.
pub(super) fn overrides() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(variable, value)| {
        variable.starts_with(OURS)
            && !NOT_OVERRIDES.contains(&variable.as_str())
            && !is_service(variable, value)
    })
}

/// Whether Kubernetes says with it where a Service is whose name begins as ours does (it gives them to every container,
/// as Docker's links did): `ONCEWARD_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_HTTP`, `ONCEWARD_PORT`,
/// `…_PORT_7077_TCP` and what is behind that. The value has to look so too: no slip of a person's is passed over.
pub(super) fn is_service(variable: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_place = value.split_once("://").is_some_and(|(name, _)| PROTOCOLS.contains(&name));
    if variable.ends_with("_SERVICE_HOST") {
        return value.parse::<IpAddr>().is_ok();
    }
    if variable.ends_with("_SERVICE_PORT") || variable.contains("_SERVICE_PORT_") {
        return is_digits(value);
    }
    let Some((_, behind)) = variable
        .rsplit_once("_PORT_")
        .filter(|(_, behind)| behind.split('_').next().is_some_and(is_digits))
    else {
        return variable.ends_with("_PORT") && is_place;
    };
    match behind.split('_').skip(2).collect::<Vec<_>>()[..] {
        [] => is_place,
        ["PROTO"] => PROTOCOLS.contains(&value),
        ["PORT"] => is_digits(value),
        ["ADDR"] => value.parse::<IpAddr>().is_ok(),
        _ => false,
    }
}

/// Finds and reads the file: its path, its text, and what errors call it.
pub(super) fn find(path: Option<&Path>) -> Result<(Option<PathBuf>, String, String), ConfigError> {
    let found = path.map(Path::to_owned).or_else(|| {
        ["onceward.toml", "/etc/onceward/onceward.toml"]
            .map(PathBuf::from)
            .into_iter()
            .find(|candidate| candidate.exists())
    });
    let text = match &found {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            ConfigError(format!("{}: {error}\nhelp: name the file with --config, or leave --config out to run without one", path.display()))
        })?,
    };
    let name = found
        .as_deref()
        .map_or_else(|| "the environment".to_owned(), |path| path.display().to_string());
    Ok((found, text, name))
}

/// Puts `${NAME}`, `${NAME:-default}` and `${NAME:?message}` in, but for comments; a value may not break out of its
/// string. `unset` stands for a variable that is not set and has no default; without it that is an error, with the
/// message.
pub(super) fn interpolate(
    text: &str,
    name: &str,
    unset: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, ConfigError> {
    let mut out = String::with_capacity(text.len());
    let mut comments = comments(text).into_iter().peekable();
    let mut end = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let begin = end;
        end += line.len();
        let comment = comments.next_if(|comment| *comment < end).unwrap_or(end);
        let (mut rest, comment) = line.split_at(comment - begin);
        while let Some(at) = rest.find("${") {
            let wrong = |why: &str| ConfigError(format!("{name}:{}: {why}", number + 1));
            let length = rest[at..].find('}').ok_or_else(|| wrong("`${` without `}`"))?;
            let inside = &rest[at + 2..at + length];
            let (wanted, otherwise) = match inside.split_once(':') {
                Some((wanted, otherwise)) if otherwise.starts_with(['-', '?']) => {
                    (wanted, otherwise.split_at(1))
                }
                _ => (inside, ("", "")),
            };
            let default = Some(otherwise.1).filter(|_| otherwise.0 == "-");
            let value = variable(wanted).or_else(|| default.or(unset).map(str::to_owned));
            let value = value.ok_or_else(|| {
                wrong(&match otherwise {
                    ("?", message) if !message.is_empty() => {
                        format!("the variable {wanted} is not set: {message}")
                    }
                    _ => format!("the variable {wanted} is not set\nhelp: set it, or give it a default: ${{{wanted}:-…}}"),
                })
            })?;
            if value.contains(['"', '\\', '\n', '\r']) {
                return Err(wrong(&format!(
                    "the value of {wanted} has a quote, a backslash or a line break"
                )));
            }
            out.push_str(&rest[..at]);
            out.push_str(&value);
            rest = &rest[at + length + 1..];
        }
        out.push_str(rest);
        out.push_str(comment);
    }
    Ok(out)
}

/// Where comments begin: at a `#` that is in no string.
fn comments(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].find(['#', '"', '\'']) {
        at += next;
        if text[at..].starts_with('#') {
            found.push(at);
            at += text[at..].find('\n').unwrap_or(text.len() - at);
        } else {
            at += string_length(&text[at..]);
        }
    }
    found
}

/// How long the string is that `text` begins with, its quotes included (TOML 1.0). One that is not ended goes to
/// the end of its line, or of the text where it may have many.
fn string_length(text: &str) -> usize {
    let (quote, three) = if text.starts_with('"') { ('"', "\"\"\"") } else { ('\'', "'''") };
    let delimiter = if text.starts_with(three) { three } else { &text[..1] };
    let mut at = delimiter.len();
    loop {
        let rest = &text[at..];
        let Some(letter) = rest.chars().next() else { return at };
        if let Some(behind) = rest.strip_prefix(delimiter) {
            // Of many lines the last quotes may be the text's own.
            let own = if delimiter == three { behind.trim_start_matches(quote) } else { behind };
            return text.len() - own.len();
        }
        if letter == '\n' && delimiter.len() == 1 {
            return at;
        }
        at += letter.len_utf8();
        if letter == '\\' && quote == '"' {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
}
