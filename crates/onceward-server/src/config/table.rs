//! A table of the file while it is read: each key is asked for by its name, in one place, and what is
//! wrong is said with where it stands. A key that nobody asked for is unknown.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::ConfigError;
use super::text::{NOWHERE, Text};
use crate::units::{Size, Span};

/// Words and what they mean.
pub(super) type Words<T> = [(&'static str, T)];

/// A table, and what was asked of it.
pub(super) struct Table<'a> {
    text: &'a Text,
    /// Where errors say that it is: `routes.a`, or nothing.
    section: String,
    /// Its own name within that, with a dot: `timeouts.`.
    within: String,
    keys: &'a DeTable<'a>,
    place: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
    said: RefCell<Vec<String>>,
}

/// `true`, `false`, or a table.
pub(super) enum Switch<T> {
    On,
    Off,
    As(T),
}

impl<'a> Table<'a> {
    /// The whole of a text.
    pub(super) fn whole(text: &'a Text, keys: &'a Spanned<DeTable<'a>>) -> Self {
        Self::part(text, String::new(), String::new(), keys.get_ref(), keys.span())
    }

    /// A table that stands in no file, or not as it is; errors say that it is in `section`.
    pub(super) fn made(text: &'a Text, section: &str, keys: &'a DeTable<'a>) -> Self {
        Self::part(text, section.to_owned(), String::new(), keys, NOWHERE)
    }

    fn part(
        text: &'a Text,
        section: String,
        within: String,
        keys: &'a DeTable<'a>,
        place: Range<usize>,
    ) -> Self {
        let (asked, said) = (RefCell::default(), RefCell::default());
        Self { text, section, within, keys, place, asked, said }
    }

    /// The same with other keys, of which nothing was asked yet.
    pub(super) fn with<'b>(&self, keys: &'b DeTable<'b>) -> Table<'b>
    where
        'a: 'b,
    {
        let (section, within) = (self.section.clone(), self.within.clone());
        Table::part(self.text, section, within, keys, self.place.clone())
    }

    /// The same, of which nothing was asked yet.
    pub(super) fn again(&self) -> Self {
        self.with(self.keys)
    }

    /// What errors call the file.
    pub(super) fn file(&self) -> &'a str {
        &self.text.name
    }

    /// Its own name within its section: `timeouts`.
    pub(super) fn name(&self) -> &str {
        self.within.trim_end_matches('.')
    }

    /// The name of a key within its section: `timeouts.head`.
    pub(super) fn whole_name(&self, key: &str) -> String {
        format!("{}{key}", self.within)
    }

    /// Whether it says this key; that asks for nothing.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Those of these keys that it says; they count as asked for.
    pub(super) fn says(&self, keys: &[&'static str]) -> Option<&'static str> {
        self.asked.borrow_mut().extend(keys);
        keys.iter().copied().find(|key| self.has(key))
    }

    /// Whether this key says a text; that asks for nothing.
    pub(super) fn is_text(&self, key: &str) -> bool {
        matches!(self.value(key), Some(DeValue::String(_)))
    }

    /// Whether this key says a list; that asks for nothing.
    pub(super) fn is_list(&self, key: &str) -> bool {
        matches!(self.value(key), Some(DeValue::Array(_)))
    }

    /// Whether this key says `true` or `false`; that asks for nothing.
    pub(super) fn is_switch(&self, key: &str) -> bool {
        matches!(self.value(key), Some(DeValue::Boolean(_)))
    }

    /// The keys that were asked for and are said, with those of its tables: `window`, `key.missing`.
    pub(super) fn said(&self) -> Vec<String> {
        self.said.borrow().clone()
    }

    /// What is left when the keys that were asked for are taken out, but for those of `also`.
    pub(super) fn rest(&self, also: &[&str]) -> DeTable<'a> {
        let mut rest = self.keys.clone();
        for key in self.asked.borrow().iter().filter(|key| !also.contains(key)) {
            rest.remove(*key);
        }
        rest
    }

    fn value(&self, key: &str) -> Option<&'a DeValue<'a>> {
        self.keys.get(key).map(Spanned::get_ref)
    }

    fn look(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        #[cfg(test)]
        self.note(key, "");
        self.keys.get(key)
    }

    /// For the page of the keys, which a test holds: what was asked for, and what is read there.
    #[cfg(test)]
    pub(super) fn note(&self, key: &str, kind: &str) {
        super::reference::note(&self.section, &self.whole_name(key), kind);
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let found = self.look(key)?;
        self.said.borrow_mut().push(key.to_owned());
        Some(found)
    }

    /// What this key says is a secret, or with a star all that this table says. It may be shown nowhere.
    pub(super) fn hide(&self, key: &str) {
        let named = self.whole_name(key);
        let section = &self.section;
        let dot = if section.is_empty() { "" } else { "." };
        self.text.hide(format!("{section}{dot}{named}"));
    }

    /// A value as it stands.
    pub(super) fn read<T: Deserialize<'a>>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        #[cfg(test)]
        self.note(key, std::any::type_name::<T>());
        let Some(value) = self.get(key) else { return Ok(None) };
        T::deserialize(value.clone().into_deserializer()).map(Some).map_err(|error| {
            let place = Some(value.span()).filter(|place| self.text.is_laid_over(place));
            let place = place.or_else(|| error.span()).unwrap_or_else(|| value.span());
            self.unreadable(place, key, &words_of(error.message()))
        })
    }

    /// A value, or what is usual.
    pub(super) fn or<T: Deserialize<'a>>(
        &self,
        key: &'static str,
        usual: T,
    ) -> Result<T, ConfigError> {
        Ok(self.read(key)?.unwrap_or(usual))
    }

    /// What has to be there.
    pub(super) fn need<T>(&self, key: &str, found: Option<T>) -> Result<T, ConfigError> {
        found.ok_or_else(|| {
            let what = format!("{}missing field `{}`", self.bracketed(), self.whole_name(key));
            self.slip(key).unwrap_or_else(|| self.text.unreadable(Some(self.place.clone()), &what))
        })
    }

    /// Where a key is missing, and one that nobody asked for is nearly that: what is said of it.
    pub(super) fn slip(&self, key: &str) -> Option<ConfigError> {
        let (slip, _) = self.unknown().find(|(slip, _)| is_near(slip.get_ref(), key))?;
        Some(self.unknown_key(slip, &format!(": did you mean {key:?}?")))
    }

    /// A length of time.
    pub(super) fn span(&self, key: &'static str) -> Result<Option<Duration>, ConfigError> {
        Ok(self.read::<Span>(key)?.map(|span| span.0))
    }

    /// A length of time, or the usual one.
    pub(super) fn span_or(
        &self,
        key: &'static str,
        usual: Duration,
    ) -> Result<Duration, ConfigError> {
        Ok(self.span(key)?.unwrap_or(usual))
    }

    /// A number of bytes.
    pub(super) fn size(&self, key: &'static str) -> Result<Option<usize>, ConfigError> {
        Ok(self.read::<Size>(key)?.map(|size| size.0))
    }

    /// A text that `read` makes something of.
    pub(super) fn text<T, E: Display>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.read::<String>(key)? else { return Ok(None) };
        read(&text).map(Some).map_err(|why| self.cannot(key, &why.to_string()))
    }

    /// A list of such texts.
    pub(super) fn texts<T, E: Display>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let Some(texts) = self.read::<Vec<String>>(key)? else { return Ok(None) };
        let read: Result<Vec<T>, E> = texts.iter().map(|text| read(text)).collect();
        read.map(Some).map_err(|why| self.cannot(key, &why.to_string()))
    }

    /// One such text, or a list that is not empty; `mend` says what to write.
    pub(super) fn one_or_more<T>(
        &self,
        key: &'static str,
        mend: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        #[cfg(test)]
        for kind in [std::any::type_name::<String>(), std::any::type_name::<Vec<String>>()] {
            self.note(key, kind);
        }
        let texts = match self.value(key) {
            Some(DeValue::String(_)) => self.read(key)?.map(|text| vec![text]),
            Some(DeValue::Array(texts))
                if !texts.is_empty() && texts.iter().all(|text| text.get_ref().is_str()) =>
            {
                self.read(key)?
            }
            None => self.read::<Vec<String>>(key)?,
            Some(_) => {
                let what = format!("neither a text nor a list of them: write {mend}");
                return Err(self.cannot(key, &what));
            }
        };
        let read = |text: &String| {
            let what = || self.cannot(key, &format!("{text:?} cannot be read: write {mend}"));
            read(text).ok_or_else(what)
        };
        texts.map(|texts| texts.iter().map(read).collect()).transpose()
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(
        &self,
        key: &'static str,
        words: &Words<T>,
    ) -> Result<Option<T>, ConfigError> {
        #[cfg(test)]
        for (word, _) in words {
            self.note(key, word);
        }
        self.text(key, |text| one_of(text, words))
    }

    /// Names of the user's own, each with a text.
    pub(super) fn pairs<N, V>(
        &self,
        key: &'static str,
        name: impl Fn(&str) -> Result<N, String>,
        value: impl Fn(&str) -> Result<V, String>,
    ) -> Result<Option<Vec<(N, V)>>, ConfigError> {
        let Some((keys, place)) = self.keys_of(key)? else { return Ok(None) };
        self.said.borrow_mut().push(key.to_owned());
        let mut pairs = Vec::with_capacity(keys.len());
        for (named, written) in keys {
            let named = named.get_ref();
            let at = |what: String| self.unreadable(place_in(&place, written), key, &what);
            let text = written.get_ref().as_str();
            let text = text.ok_or_else(|| at(format!("{named} is a text")))?;
            pairs.push((name(named).map_err(at)?, value(text).map_err(at)?));
        }
        Ok(Some(pairs))
    }

    fn keys_of(
        &self,
        key: &'static str,
    ) -> Result<Option<(&'a DeTable<'a>, Range<usize>)>, ConfigError> {
        #[cfg(test)]
        self.note(key, "table");
        let Some(value) = self.look(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(keys) => Ok(Some((keys, value.span()))),
            other => {
                let what = format!("what belongs here is a table, and no {}", kind(other));
                Err(self.cannot(key, &what))
            }
        }
    }

    /// A table of its own, which `read` reads the whole of.
    pub(super) fn within<R>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Table<'a>) -> Result<R, ConfigError>,
    ) -> Result<Option<R>, ConfigError> {
        let Some((keys, place)) = self.keys_of(key)? else { return Ok(None) };
        let within = format!("{}.", self.whole_name(key));
        let table = Table::part(self.text, self.section.clone(), within, keys, place);
        let made = read(&table)?;
        table.done()?;
        let said = table.said.into_inner().into_iter().map(|inner| format!("{key}.{inner}"));
        self.said.borrow_mut().extend(said);
        Ok(Some(made))
    }

    /// The same, or whether it is on; `mend` says what to write.
    pub(super) fn switch<R>(
        &self,
        key: &'static str,
        mend: &str,
        read: impl FnOnce(&Table<'a>) -> Result<R, ConfigError>,
    ) -> Result<Option<Switch<R>>, ConfigError> {
        #[cfg(test)]
        self.note(key, std::any::type_name::<bool>());
        match self.value(key) {
            Some(DeValue::Boolean(_)) => {
                Ok(self.read(key)?.map(|is_on| if is_on { Switch::On } else { Switch::Off }))
            }
            Some(DeValue::Table(_)) | None => Ok(self.within(key, read)?.map(Switch::As)),
            Some(_) => Err(self.cannot(key, mend)),
        }
    }

    /// Tables with names of the user's own, each a section: `[routes.NAME]`.
    pub(super) fn named(
        &self,
        key: &'static str,
        name: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Vec<(String, Table<'a>)>, ConfigError> {
        let Some((keys, _)) = self.keys_of(key)? else { return Ok(Vec::new()) };
        let mut tables = Vec::with_capacity(keys.len());
        for (named, value) in keys {
            let named = named.get_ref();
            let at = |what: String| self.unreadable(value.span(), key, &what);
            let name = name(named).map_err(at)?;
            let DeValue::Table(keys) = value.get_ref() else {
                return Err(at(format!("{named} is a table")));
            };
            let section = format!("{}.{name}", self.whole_name(key));
            tables.push((name, Table::part(self.text, section, String::new(), keys, value.span())));
        }
        Ok(tables)
    }

    /// Tables in a row: `[[routes.NAME.rules]]`; what is wrong in one is said of this section.
    pub(super) fn list(&self, key: &'static str) -> Result<Vec<Table<'a>>, ConfigError> {
        #[cfg(test)]
        self.note(key, "tables");
        let Some(value) = self.look(key) else { return Ok(Vec::new()) };
        let wrong = || self.cannot(key, "what belongs here is a list of tables");
        let DeValue::Array(tables) = value.get_ref() else { return Err(wrong()) };
        let table = |value: &'a Spanned<DeValue<'a>>| {
            let DeValue::Table(keys) = value.get_ref() else { return Err(wrong()) };
            let section = self.section.clone();
            Ok(Table::part(self.text, section, self.within.clone(), keys, value.span()))
        };
        tables.iter().map(table).collect()
    }

    /// Refuses what nobody asked for.
    pub(super) fn done(&self) -> Result<(), ConfigError> {
        let Some((key, _)) = self.unknown().next() else { return Ok(()) };
        Err(self.unknown_key(key, &meant(key.get_ref(), self.asked.borrow().iter().copied())))
    }

    fn unknown(
        &self,
    ) -> impl Iterator<Item = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        let asked = self.asked.borrow().clone();
        self.keys
            .iter()
            .filter(move |(key, _)| asked.iter().all(|asked| *asked != &**key.get_ref()))
    }

    fn unknown_key(&self, key: &Spanned<DeString<'_>>, nearest: &str) -> ConfigError {
        let (section, named) = (self.bracketed(), self.whole_name(key.get_ref()));
        let what = if section.is_empty() {
            format!("unknown field `{named}`{nearest}")
        } else {
            format!("{section}has an unknown key {named:?}{nearest}")
        };
        let help = "help: the keys are in docs/configuration.md";
        self.text.wrong(Some(key.span()), &format!("{what}\n{help}"))
    }

    /// What is wrong with it.
    pub(super) fn wrong(&self, what: &str) -> ConfigError {
        let is_whole = self.section.is_empty() && self.within.is_empty();
        let place = (!is_whole).then(|| self.place.clone());
        self.text.wrong(place, &format!("{}{what}", self.bracketed()))
    }

    /// What is wrong with the value of a key.
    pub(super) fn cannot(&self, key: &str, what: &str) -> ConfigError {
        let place = self.keys.get(key).map_or_else(|| self.place.clone(), Spanned::span);
        self.unreadable(place, key, what)
    }

    fn unreadable(&self, place: Range<usize>, key: &str, what: &str) -> ConfigError {
        let (section, named) = (self.bracketed(), self.whole_name(key));
        self.text.unreadable(Some(place), &format!("{section}{named}: {what}"))
    }

    fn bracketed(&self) -> String {
        if self.section.is_empty() { String::new() } else { format!("[{}] ", self.section) }
    }
}

/// Where a value stands; within what was laid over the file, where that is.
fn place_in(table: &Range<usize>, value: &Spanned<DeValue<'_>>) -> Range<usize> {
    if table.start > value.span().start { table.clone() } else { value.span() }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "truth value",
        DeValue::Datetime(_) => "time",
        DeValue::Array(_) => "list",
        DeValue::Table(_) => "table",
    }
}

/// The words for what a value is not. They name its kind and not the value, which may be a secret.
fn words_of(message: &str) -> String {
    if message == "invalid IP address syntax" {
        return "what belongs here is a network, as 10.2.0.0/16; one address alone is 127.0.0.1/32"
            .to_owned();
    }
    let told = ["invalid type: ", "invalid value: "].iter().find_map(|of| message.strip_prefix(of));
    let Some((is, wanted)) = told.and_then(|told| told.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let is = is.split(['"', '`']).next().unwrap_or_default().trim_end();
    let wanted = match wanted {
        "a string" => "text",
        "a sequence" => "a list",
        "a map" => "a table",
        other => other,
    };
    let is = match is {
        "string" => "text",
        "sequence" => "list",
        "map" => "table",
        other => other,
    };
    format!("what belongs here is {wanted}, and no {is}")
}

/// What a word means.
pub(super) fn one_of<T: Copy>(text: &str, words: &Words<T>) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meant)| *meant).ok_or_else(|| {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let nearest = meant(text, words.iter().map(|(word, _)| *word));
        format!("{text:?} is none of {}{nearest}", all.join(", "))
    })
}

/// What was meant, where one of `words` is near.
fn meant<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> String {
    let near = words.filter(|word| is_near(text, word)).min_by_key(|word| distance(text, word));
    near.map_or_else(String::new, |word| format!(": did you mean {word:?}?"))
}

/// Whether one is a slip of the pen for the other.
fn is_near(one: &str, other: &str) -> bool {
    distance(one, other) <= 2.min(other.len().saturating_sub(1))
}

/// How many letters have to be put in, left out or changed, to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, letter) in one.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], n + 1);
        for (m, their) in other.iter().enumerate() {
            let changed = corner + usize::from(letter != *their);
            corner = row[m + 1];
            row[m + 1] = changed.min(row[m] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}
