//! What is on the screen, and what a key does to it. It knows neither terminal nor network: keys and what was
//! seen come in, and what is wanted goes out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::list::query;
use super::super::output::{each, text};
use super::Tail;
use super::keys::Key;

/// Rows that are kept: more than anybody walks through by hand.
const ROWS_MAX: usize = 1000;

/// How many a look takes in.
const PAGE: usize = 100;

/// Rows that go on or wait for somebody, that a page does not reach, and that are asked for by id in one look.
const OLDER_MAX: usize = 10;

/// The longest reason, as the API takes it.
const REASON_LETTERS_MAX: usize = 250;

/// Words that a filter may begin with, as in `route:pay`; what has none of them is text to look for.
const WORDS: [&str; 7] = ["state", "route", "key", "label", "subject", "status", "principal"];

/// What a person can do to an operation from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Redeliver,
    Cancel,
    Resolve,
}

impl Deed {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Redeliver => "redeliver",
            Self::Cancel => "cancel",
            Self::Resolve => "resolve",
        }
    }

    /// The state that it starts from, and what is said of any other.
    fn from(self) -> (&'static str, &'static str) {
        match self {
            Self::Redeliver => ("dead", "only what is dead is redelivered"),
            Self::Cancel => ("pending", "only what is pending is cancelled"),
            Self::Resolve => ("in_doubt", "only what is in doubt is resolved"),
        }
    }
}

/// A deed that a person is asked about.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) deed: Deed,
    pub(super) id: String,
    pub(super) key: String,
    pub(super) reason: String,
    /// What was typed to confirm it, once there is a reason.
    pub(super) typed: Option<String>,
    /// The name of its risk, and why.
    pub(super) risk: Option<(String, String)>,
}

impl Ask {
    /// The risk that somebody has to take by its name; any other is confirmed by a `y`.
    pub(super) fn risk_to_take(&self) -> Option<&str> {
        let (name, _) = self.risk.as_ref()?;
        matches!(name.as_str(), "unknown" | "window-over").then_some(name)
    }

    fn is_confirmed(&self) -> bool {
        let typed = self.answer();
        match self.risk_to_take() {
            _ if self.deed == Deed::Resolve => matches!(typed, "done" | "not-sent"),
            Some(risk) => typed == risk,
            None => typed.eq_ignore_ascii_case("y") || typed.eq_ignore_ascii_case("yes"),
        }
    }

    fn answer(&self) -> &str {
        self.typed.as_deref().unwrap_or_default().trim()
    }

    fn document(&self) -> Value {
        match (self.deed, self.risk_to_take()) {
            (Deed::Resolve, _) => json!({"reason": self.reason, "as": self.answer()}),
            (Deed::Redeliver, Some(risk)) => json!({"reason": self.reason, "risk": risk}),
            _ => json!({"reason": self.reason}),
        }
    }
}

/// What takes the keys.
#[derive(Debug, Clone)]
pub(super) enum Mode {
    List,
    /// A filter is typed.
    Filter(String),
    Ask(Ask),
}

/// The story of one operation, over the list.
#[derive(Debug, Clone)]
pub(super) struct Details {
    pub(super) id: String,
    pub(super) story: Option<Value>,
    /// The first line that is shown.
    pub(super) from: usize,
}

/// What a key leads to beyond the screen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    /// It ends, with this exit code.
    Quit(u8),
    /// The gateway is asked for it.
    Do { deed: Deed, id: String, document: Value },
    /// The operation is opened in a browser.
    Open(String),
    /// It is looked at once.
    Look,
}

/// What a look has to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) filter: String,
    pub(super) list: String,
    /// Those that are asked for by id where the list does not have them.
    pub(super) others: Vec<String>,
    /// The one whose story is open.
    pub(super) story: Option<String>,
}

/// What a look brought.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The filter that it was asked with.
    pub(super) filter: String,
    pub(super) page: Value,
    /// By id; nothing where it is not there any more.
    pub(super) others: Vec<(String, Option<Value>)>,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct Board {
    /// By id, which sorts by time.
    rows: BTreeMap<String, Value>,
    selected: Option<String>,
    /// The first row that is shown; none: the newest, whatever that is.
    top: Option<String>,
    pub(super) mode: Mode,
    pub(super) details: Option<Details>,
    pub(super) filter: String,
    pub(super) is_paused: bool,
    /// Since when the gateway is away.
    pub(super) away: Option<String>,
    /// The last word to the person; any key takes it away.
    pub(super) said: Option<String>,
    /// How many rows there is room for.
    pub(super) room: usize,
    /// What the flags said.
    given: Vec<(&'static str, String)>,
    pub(super) has_looked: bool,
    /// A filter was typed: what a key is about is the first that it finds.
    is_to_select: bool,
    /// Where the last page ended: the rows below are asked for by id.
    floor: String,
    /// Of these the one that was asked for last.
    turn: String,
}

impl Board {
    pub(super) fn new(flags: &Tail) -> Self {
        let given = [("state", &flags.state), ("route", &flags.route)];
        let given = given.into_iter().filter_map(|(name, word)| Some((name, word.clone()?)));
        Self {
            rows: BTreeMap::new(),
            selected: None,
            top: None,
            mode: Mode::List,
            details: None,
            filter: String::new(),
            is_paused: false,
            away: None,
            said: None,
            room: 1,
            given: given.collect(),
            has_looked: false,
            is_to_select: false,
            floor: String::new(),
            turn: String::new(),
        }
    }

    /// The rows, the newest first.
    fn list(&self) -> Vec<&String> {
        self.rows.keys().rev().collect()
    }

    /// The rows that are on the screen, and whether each is selected.
    pub(super) fn shown(&self) -> Vec<(&Value, bool)> {
        let from = self.first();
        let rows = self.rows.iter().rev().skip(from).take(self.room);
        rows.map(|(id, row)| (row, self.selected.as_ref() == Some(id))).collect()
    }

    /// How many letters the longest key has.
    pub(super) fn key_letters(&self) -> usize {
        let keys = self.rows.values().filter_map(|row| row["key"].as_str());
        keys.map(|key| key.chars().count()).max().unwrap_or_default()
    }

    /// How many are above the screen, and how many there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.first(), self.rows.len())
    }

    /// The index of the first row on the screen.
    fn first(&self) -> usize {
        let Some(top) = &self.top else { return 0 };
        let above = self.rows.keys().rev().take_while(|id| *id > top).count();
        above.min(self.rows.len().saturating_sub(1))
    }

    /// What the flags and the filter ask for, and rows below the page that go on or wait for somebody: some of
    /// them at each look, in turn.
    pub(super) fn wanted(&mut self) -> Wanted {
        let mut words = self.given.clone();
        let mut texts = Vec::new();
        for word in self.filter.split_whitespace() {
            let named = word.split_once(':');
            let known = named.and_then(|(name, value)| {
                Some((*WORDS.iter().find(|known| **known == name)?, value.to_owned()))
            });
            match known {
                Some(known) => {
                    words.retain(|(name, _)| *name != known.0);
                    words.push(known);
                }
                None => texts.push(word),
            }
        }
        if !texts.is_empty() {
            words.push(("text", texts.join(" ")));
        }
        words.push(("limit", PAGE.to_string()));
        let is_open = |row: &Value| {
            matches!(row["state"].as_str(), Some("pending" | "delivering" | "in_doubt"))
        };
        let below = self.rows.range(..self.floor.clone()).filter(|(_, row)| is_open(row));
        let (earlier, later): (Vec<_>, Vec<_>) =
            below.map(|(id, _)| id.clone()).partition(|id| *id <= self.turn);
        let older: Vec<String> = later.into_iter().chain(earlier).take(OLDER_MAX).collect();
        self.turn = older.last().cloned().unwrap_or_default();
        Wanted {
            filter: self.filter.clone(),
            list: query("/v1/operations", words.into_iter()),
            others: self.selected.clone().into_iter().chain(older).collect(),
            story: self.details.as_ref().map(|details| details.id.clone()),
        }
    }

    /// Takes in what was seen. What the list would have and has not is gone, but for what is selected.
    pub(super) fn take(&mut self, seen: Seen) {
        if seen.filter != self.filter {
            return;
        }
        let page: Vec<&Value> = each(&seen.page, "/data").iter().collect();
        let named = |row: &Value| row["id"].as_str().map(str::to_owned);
        let listed: BTreeMap<String, Value> =
            page.into_iter().filter_map(|row| Some((named(row)?, row.clone()))).collect();
        // A page reaches down to where the next begins.
        let floor = seen.page["next"].as_str().unwrap_or_default().to_owned();
        let selected = self.selected.clone();
        self.floor = floor;
        let floor = &self.floor;
        self.rows
            .retain(|id, _| id < floor || listed.contains_key(id) || selected.as_ref() == Some(id));
        self.rows.extend(listed);
        for (id, row) in seen.others {
            if let Some(details) = self.details.as_mut().filter(|details| details.id == id) {
                details.story.clone_from(&row);
            }
            match row {
                Some(row) if self.rows.contains_key(&id) => _ = self.rows.insert(id, row),
                Some(_) => {}
                None => _ = self.rows.remove(&id),
            }
        }
        while self.rows.len() > ROWS_MAX {
            self.rows.pop_first();
        }
        if self.selected.as_ref().is_some_and(|id| !self.rows.contains_key(id)) {
            self.selected = None;
        }
        self.away = None;
        self.has_looked = true;
        if std::mem::take(&mut self.is_to_select) && self.selected.is_none() {
            self.step(0);
        }
    }

    /// What came of a deed.
    pub(super) fn done(&mut self, deed: Deed, told: Result<Value, String>) {
        self.said = Some(match told {
            Ok(operation) => {
                let id = text(&operation, "/id");
                let said = format!(
                    "{} {}: {}",
                    past(deed),
                    text(&operation, "/key"),
                    text(&operation, "/state")
                );
                if let Some(row) = self.rows.get_mut(&id) {
                    *row = operation;
                }
                said
            }
            Err(why) => why,
        });
    }

    /// A story is shown from this line on: nobody scrolls past its end.
    pub(super) fn scrolled_to(&mut self, from: usize) {
        if let Some(details) = &mut self.details {
            details.from = from;
        }
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: Key) -> Option<Act> {
        if key == Key::Interrupt {
            return Some(Act::Quit(130));
        }
        self.said = None;
        match std::mem::replace(&mut self.mode, Mode::List) {
            Mode::List if self.details.is_some() => self.press_in_details(key),
            Mode::List => self.press_in_list(key),
            Mode::Filter(typed) => self.press_in_filter(typed, key),
            Mode::Ask(ask) => self.press_in_ask(ask, key),
        }
    }

    fn press_in_list(&mut self, key: Key) -> Option<Act> {
        match key {
            Key::Up | Key::Char('k') => self.step(-1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::PageUp => self.step(-(self.room as isize)),
            Key::PageDown => self.step(self.room as isize),
            Key::Home | Key::Char('g') => {
                self.top = None;
                self.selected = self.list().first().map(|id| (*id).clone());
            }
            Key::End | Key::Char('G') => self.step(isize::MAX),
            Key::Escape => {
                (self.top, self.selected) = (None, None);
            }
            Key::Char('/') => self.mode = Mode::Filter(self.filter.clone()),
            Key::Enter | Key::Char('d') => {
                let id = self.selected()?;
                self.details = Some(Details { id, story: None, from: 0 });
                return Some(Act::Look);
            }
            key => return self.press_anywhere(key),
        }
        None
    }

    fn press_in_details(&mut self, key: Key) -> Option<Act> {
        let scroll = |details: &mut Option<Details>, by: isize| {
            if let Some(details) = details {
                details.from = details.from.saturating_add_signed(by);
            }
        };
        let room = self.room as isize;
        match key {
            Key::Escape | Key::Char('d') | Key::Enter => self.details = None,
            Key::Up | Key::Char('k') => scroll(&mut self.details, -1),
            Key::Down | Key::Char('j') => scroll(&mut self.details, 1),
            Key::PageUp => scroll(&mut self.details, -room),
            Key::PageDown => scroll(&mut self.details, room),
            key => return self.press_anywhere(key),
        }
        None
    }

    /// What a key does over the list and over a story alike.
    fn press_anywhere(&mut self, key: Key) -> Option<Act> {
        match key {
            Key::Char('q') => return Some(Act::Quit(0)),
            Key::Char('p') => self.is_paused = !self.is_paused,
            Key::Char('r') => self.begin(Deed::Redeliver),
            Key::Char('c') => self.begin(Deed::Cancel),
            Key::Char('v') => self.begin(Deed::Resolve),
            Key::Char('o') => return self.selected().map(Act::Open),
            _ => {}
        }
        None
    }

    /// The one that keys are about: where none is selected, the first on the screen is from now on.
    fn selected(&mut self) -> Option<String> {
        if self.selected.is_none() {
            self.step(0);
        }
        if self.selected.is_none() {
            self.said = Some("nothing is here to select".to_owned());
        }
        self.selected.clone()
    }

    fn begin(&mut self, deed: Deed) {
        let Some(id) = self.selected() else { return };
        let Some(row) = self.rows.get(&id) else { return };
        let (state, otherwise) = deed.from();
        if row["state"] != state {
            self.said =
                Some(format!("{} is {}: {otherwise}", text(row, "/key"), text(row, "/state")));
            return;
        }
        let has_risk = deed == Deed::Redeliver && row["risk"].is_object();
        let risk = has_risk.then(|| (text(row, "/risk/name"), text(row, "/risk/why")));
        let (key, reason) = (text(row, "/key"), String::new());
        self.mode = Mode::Ask(Ask { deed, id, key, reason, typed: None, risk });
    }

    fn press_in_filter(&mut self, mut typed: String, key: Key) -> Option<Act> {
        match key {
            Key::Escape => return None,
            Key::Enter => {
                typed.trim().clone_into(&mut self.filter);
                self.rows.clear();
                (self.top, self.selected, self.has_looked) = (None, None, false);
                self.is_to_select = !self.filter.is_empty();
                return Some(Act::Look);
            }
            key => edit(&mut typed, key),
        }
        self.mode = Mode::Filter(typed);
        None
    }

    fn press_in_ask(&mut self, mut ask: Ask, key: Key) -> Option<Act> {
        match key {
            Key::Enter if ask.typed.is_none() && ask.reason.trim().is_empty() => {
                self.said = Some("a reason is needed: it stays with what is done".to_owned());
            }
            Key::Enter if ask.typed.is_none() => ask.typed = Some(String::new()),
            Key::Enter if ask.is_confirmed() => {
                let document = ask.document();
                return Some(Act::Do { deed: ask.deed, id: ask.id, document });
            }
            Key::Enter | Key::Escape => {
                self.said = Some("nothing was done".to_owned());
                return None;
            }
            key => edit(ask.typed.as_mut().unwrap_or(&mut ask.reason), key),
        }
        self.mode = Mode::Ask(ask);
        None
    }

    /// Selects the row so many further down, and brings it onto the screen.
    fn step(&mut self, by: isize) {
        let list: Vec<String> = self.list().into_iter().cloned().collect();
        let Some(oldest) = list.len().checked_sub(1) else { return };
        let first = self.first();
        let at = self.selected.as_ref().and_then(|id| list.iter().position(|it| it == id));
        let to = match at {
            Some(at) => at.saturating_add_signed(by).min(oldest),
            // The first step selects what is first on the screen.
            None => first,
        };
        let first =
            if to < first { to } else { first.max((to + 1).saturating_sub(self.room.max(1))) };
        self.selected = list.get(to).cloned();
        // From now on what comes does not move what is being read.
        self.top = list.get(first).cloned();
    }
}

/// What a deed is called once it is done.
fn past(deed: Deed) -> &'static str {
    match deed {
        Deed::Redeliver => "redelivered",
        Deed::Cancel => "cancelled",
        Deed::Resolve => "resolved",
    }
}

/// A line that is typed.
fn edit(line: &mut String, key: Key) {
    match key {
        Key::Char(letter) if line.chars().count() < REASON_LETTERS_MAX => line.push(letter),
        Key::Back => _ = line.pop(),
        _ => {}
    }
}
