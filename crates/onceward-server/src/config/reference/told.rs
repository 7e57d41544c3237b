//! What pages tell of a key: the tables that are written by hand.

use std::collections::BTreeMap;
use std::path::Path;

/// A row of such a table.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// What holds where nothing is said, where the row has a value for it.
    pub(super) usual: Option<String>,
    pub(super) meaning: String,
}

/// By section and key.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(String, String), Said>);

impl Told {
    pub(super) fn of_pages<'a>(
        pages: impl Iterator<Item = (&'a &'static str, &'a String)>,
    ) -> Self {
        let mut told = Self::default();
        for (name, page) in pages {
            let is_reference = name.ends_with("configuration.md");
            let mut section: Option<(String, String)> = None;
            for line in page.lines() {
                if line.starts_with("| `") {
                    if let Some((section, before)) = &section {
                        told.row(section, before, line);
                    }
                } else if line.starts_with('#') || line.contains("`[") {
                    let is_heading = line.starts_with('#');
                    let found = place(line, is_reference && is_heading);
                    section = if is_heading { found } else { found.or(section) };
                }
            }
        }
        told
    }

    fn row(&mut self, section: &str, before: &str, line: &str) {
        // A bar that is escaped is one of the text.
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<String> =
            line.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect();
        let cells = cells.get(1..cells.len() - 1).unwrap_or_default();
        let (Some(keys), Some(meaning)) = (cells.first(), cells.last().filter(|_| cells.len() > 1))
        else {
            return;
        };
        let keys: Vec<&str> = keys.split('`').skip(1).step_by(2).collect();
        let usual = (cells.len() > 2 && keys.len() == 1).then(|| usual(&cells[1])).flatten();
        for key in keys {
            let key = format!("{before}{key}");
            // What holds for the keys of a table stands in one cell.
            for (within, value) in usual.iter().flat_map(|usual| table(usual)) {
                let said = Said { usual: Some(value.to_string()), meaning: String::new() };
                self.0.entry((section.to_owned(), format!("{key}.{within}"))).or_insert(said);
            }
            let said = Said { usual: usual.clone(), meaning: plain(meaning) };
            let place = self.0.entry((section.to_owned(), key)).or_default();
            if place.meaning.is_empty() {
                *place = Said { usual: said.usual.or_else(|| place.usual.take()), ..said };
            }
        }
    }

    /// Whether a page tells of this key right there.
    pub(super) fn tells(&self, section: &str, key: &str) -> bool {
        self.0.contains_key(&(section.to_owned(), key.to_owned()))
    }

    /// What is told of a key; of one that a rule may say, where it is told of routes.
    pub(super) fn of(&self, section: &str, key: &str) -> Option<&Said> {
        let at = |section: &str| self.0.get(&(section.to_owned(), key.to_owned()));
        at(section).or_else(|| if section.is_empty() { None } else { at("routes.NAME") })
    }
}

/// The value that a cell is of: code, or a number as people write it.
fn usual(cell: &str) -> Option<String> {
    if let Some(code) = cell.strip_prefix('`') {
        let (code, more) = code.split_once('`')?;
        return (more.is_empty() || more.starts_with(';')).then(|| code.to_owned());
    }
    let is_number = !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || c == ',');
    is_number.then(|| cell.replace(',', ""))
}

/// The keys and values of a table, in braces or without.
fn table(code: &str) -> toml::Table {
    let inner = code.trim().trim_start_matches('{').trim_end_matches('}');
    let whole = toml::from_str::<toml::Table>(&format!("v = {{ {inner} }}"));
    let table = whole.ok().and_then(|mut whole| whole.remove("v"));
    table.and_then(|table| table.as_table().cloned()).unwrap_or_default()
}

/// The section that a heading or a sentence names, and what goes before the keys of its table.
fn place(line: &str, is_reference: bool) -> Option<(String, String)> {
    let named = line.split("`[").nth(1).and_then(|rest| rest.split(']').next());
    let Some(named) = named.map(|named| named.trim_start_matches('[')) else {
        if line == "## The gateway" {
            return Some((String::new(), String::new()));
        }
        // Of a route and its rules.
        let word = line.split('`').nth(1).filter(|_| is_reference)?;
        return Some(("routes.NAME".to_owned(), format!("{word}.")));
    };
    for section in super::SECTIONS {
        let Some(rest) = named.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        let within = rest.split_once('.').map_or("", |(_, within)| within);
        let before = if within.is_empty() { String::new() } else { format!("{within}.") };
        return Some((format!("{section}.NAME"), before));
    }
    Some((String::new(), format!("{named}.")))
}

/// A sentence whose links are told as files, and which ends by itself.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("](") {
        let (sentence, words) = before.rsplit_once('[').unwrap_or(("", before));
        let (target, more) = behind.split_once(')').unwrap_or((behind, ""));
        out.push_str(sentence);
        out.push_str(words);
        let file = target.split('#').next().map(Path::new);
        if file.and_then(Path::extension).is_some_and(|extension| extension == "md") {
            out.extend([" (docs/", target, ")"]);
        }
        rest = more;
    }
    out.push_str(rest);
    let out = out.replace("**", "");
    let whole = [": below", " below"].iter().find_map(|end| out.strip_suffix(end));
    whole.unwrap_or(&out).to_owned()
}
