//! Which operations a list is asked for, in words, and the store's query that they mean.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;
use std::str::FromStr;

use http::Uri;
use onceward::core::key::ScopeKind;
use onceward::core::operation::Death;
use onceward::core::time::Timestamp;
use onceward::store::{Page, Query, Standing};
use serde::de::{Deserializer, Unexpected, Visitor};
use serde::{Deserialize, de};
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::handler::{given, id_of, instant, invalid, limit_of};
use crate::problem::Problem;
use crate::{shape, units};

/// What a list is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// Of those that the caller sees.
    pub(crate) tenant: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) route: Option<String>,
    /// `call`, `unique`, `callback`, `claim`, `saga` or `step`.
    pub(crate) kind: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) text: Option<String>,
    /// Of the last answer.
    pub(crate) status: Option<Statuses>,
    /// With so many attempts or more.
    pub(crate) attempts_min: Option<u32>,
    /// With no last status at all.
    pub(crate) no_status: Option<bool>,
    /// Why it is dead: `refused`, `exhausted`, `unsent`, `cancelled`, `owner_gone` or `superseded`.
    pub(crate) reason: Option<String>,
    /// In the words for what went wrong last.
    pub(crate) error: Option<String>,
    /// These words, and no others.
    pub(crate) error_is: Option<String>,
    /// With no such words.
    pub(crate) no_error: Option<bool>,
    pub(crate) parent: Option<String>,
    /// What its answer made: `NAME:ID`, or `ID` whatever its name.
    pub(crate) id: Option<String>,
    /// Came then or later: a time, or how long ago.
    pub(crate) after: Option<String>,
    /// Came earlier.
    pub(crate) before: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<usize>,
}

impl Filter {
    /// The filter that these words of an address are.
    pub(crate) fn read(words: &[(String, String)]) -> Result<Self, Problem> {
        let said = Serializer::new(String::new()).extend_pairs(words).finish();
        let address = Uri::builder().path_and_query(format!("/?{said}")).build();
        let address = address.map_err(|error| invalid(error.to_string()))?;
        let read = axum::extract::Query::<Self>::try_from_uri(&address);
        read.map(|read| read.0).map_err(|error| invalid(error.body_text()))
    }

    /// Its words, without the place and the number.
    pub(crate) fn words(&self) -> Vec<(&'static str, String)> {
        // Taken apart, so that none can be forgotten: what a page shows, links and orders is this.
        let Self {
            tenant,
            state,
            route,
            kind,
            scope,
            principal,
            key,
            label,
            subject,
            text,
            status,
            attempts_min,
            no_status,
            reason,
            error,
            error_is,
            no_error,
            parent,
            id,
            after,
            before,
            cursor: _,
            limit: _,
        } = self;
        let status = status.as_ref().map(Statuses::to_string);
        let attempts_min = attempts_min.map(|least| least.to_string());
        let yes = |said: &Option<bool>| (*said == Some(true)).then(|| "true".to_owned());
        let (no_status, no_error) = (yes(no_status), yes(no_error));
        let words = [
            ("tenant", tenant),
            ("state", state),
            ("route", route),
            ("kind", kind),
            ("scope", scope),
            ("principal", principal),
            ("key", key),
            ("label", label),
            ("subject", subject),
            ("text", text),
            ("status", &status),
            ("attempts_min", &attempts_min),
            ("no_status", &no_status),
            ("reason", reason),
            ("error", error),
            ("error_is", error_is),
            ("no_error", &no_error),
            ("parent", parent),
            ("id", id),
            ("after", after),
            ("before", before),
        ];
        let said =
            |(name, field): (_, &Option<String>)| Some((name, given(field.as_ref())?.into()));
        words.into_iter().filter_map(said).collect()
    }

    /// Its words as the query of an address.
    pub(crate) fn written(&self) -> String {
        Serializer::new(String::new()).extend_pairs(self.words()).finish()
    }

    /// Whether it leaves anything out.
    pub(crate) fn is_set(&self) -> bool {
        !self.words().is_empty()
    }

    /// The store's query.
    pub(crate) fn query(&self) -> Result<Query, Problem> {
        let text = |field: &Option<String>| given(field.as_ref()).map(str::to_owned);
        let id = |field: &Option<String>| given(field.as_ref()).map(id_of).transpose();
        let time = |field: &Option<String>| given(field.as_ref()).map(moment).transpose();
        Ok(Query {
            standing: given(self.state.as_ref()).map_or_else(|| Ok(Vec::new()), standing_of)?,
            tenant: text(&self.tenant),
            route: text(&self.route),
            kind: given(self.kind.as_ref()).map(kind_of).transpose()?,
            scope: text(&self.scope),
            principal: text(&self.principal),
            key: text(&self.key),
            label: text(&self.label),
            subject: text(&self.subject),
            text: text(&self.text),
            status: self.status.as_ref().map(|Statuses(range)| range.clone()),
            attempts_min: self.attempts_min,
            no_status: self.no_status == Some(true),
            reason: given(self.reason.as_ref()).map(reason_of).transpose()?,
            error: text(&self.error),
            error_is: text(&self.error_is),
            no_error: self.no_error == Some(true),
            parent: id(&self.parent)?,
            made: given(self.id.as_ref()).map(made_of),
            since: time(&self.after)?,
            until: time(&self.before)?,
            before: id(&self.cursor)?,
            limit: limit_of(self.limit)?,
        })
    }
}

/// The statuses that are meant: one, as `503`, or all that begin so, as `5xx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statuses(RangeInclusive<u16>);

impl Statuses {
    /// What they are written like.
    pub(crate) const TAKES: &'static str = "a status, as 503, or all that begin alike, as 5xx";

    pub(crate) fn one(status: u16) -> Self {
        Self(status..=status)
    }

    pub(super) fn of(range: &RangeInclusive<u16>) -> Self {
        Self(range.clone())
    }

    fn is_one(&self) -> bool {
        self.0.start() == self.0.end()
    }

    /// The one that it is, where it is one.
    pub(super) fn the_one(&self) -> Option<u16> {
        self.is_one().then(|| *self.0.start())
    }

    /// As documents have them: a number, or a word.
    pub(crate) fn told(&self) -> Value {
        self.the_one().map_or_else(|| json!(self.to_string()), |status| json!(status))
    }
}

impl Display for Statuses {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let first = self.0.start();
        if self.is_one() { write!(f, "{first}") } else { write!(f, "{}xx", first / 100) }
    }
}

/// What is no status and no hundred of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoStatus;

impl FromStr for Statuses {
    type Err = NoStatus;

    fn from_str(text: &str) -> Result<Self, NoStatus> {
        match text.as_bytes() {
            [first @ b'1'..=b'9', b'x' | b'X', b'x' | b'X'] => {
                let from = u16::from(first - b'0') * 100;
                Ok(Self(from..=from + 99))
            }
            _ => text.parse().map(Self::one).map_err(|_| NoStatus),
        }
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // A document has a number or a word, an address a word for both.
        from.deserialize_any(StatusWord)
    }
}

struct StatusWord;

impl Visitor<'_> for StatusWord {
    type Value = Statuses;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(Statuses::TAKES)
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<Statuses, E> {
        let known = u16::try_from(status).map(Statuses::one);
        known.map_err(|_| E::invalid_value(Unexpected::Unsigned(status), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A time, or how long ago it is.
pub(crate) fn moment(text: &str) -> Result<Timestamp, Problem> {
    match units::duration(text) {
        Ok(ago) => Ok(shape::now().minus(ago)),
        Err(_) => instant("", text),
    }
}

/// The cursor that goes on behind `page`.
pub(crate) fn cursor(page: &Page) -> Option<String> {
    page.next.map(|id| id.to_string())
}

/// `order:ord_123`, or `ord_123` whatever its name.
fn made_of(text: &str) -> (Option<String>, String) {
    match text.split_once(':') {
        Some((name, id)) => (Some(name.to_owned()), id.to_owned()),
        None => (None, text.to_owned()),
    }
}

/// Where the operations stand that a filter's words name.
fn standing_of(state: &str) -> Result<Vec<Standing>, Problem> {
    Ok(match state {
        "pending" => vec![Standing::Pending, Standing::Held],
        "delivering" => vec![Standing::Delivering],
        "in_doubt" => vec![Standing::InDoubt],
        "done" => vec![Standing::Done],
        "dead" => vec![Standing::DeadLetter, Standing::Told],
        "dead_letter" => vec![Standing::DeadLetter],
        "forgotten" => vec![Standing::Tombstone],
        other => {
            return Err(invalid(format!(
                "state {other:?}: pending, delivering, in_doubt, done, dead, dead_letter or forgotten"
            )));
        }
    })
}

/// Why something is dead, by its word.
fn reason_of(word: &str) -> Result<Death, Problem> {
    let named = Death::ALL.into_iter().find(|reason| reason.name() == word);
    named.ok_or_else(|| {
        let all = Death::ALL.map(Death::name).join(", ");
        invalid(format!("reason {word:?}: one of {all}"))
    })
}

/// The kind of a key by its word.
fn kind_of(word: &str) -> Result<ScopeKind, Problem> {
    let named = ScopeKind::ALL.into_iter().find(|kind| kind.name() == word);
    named.ok_or_else(|| {
        invalid(format!(
            "kind {word:?}: call, unique, callback, claim, event, delivery, saga or step"
        ))
    })
}

/// The name of a standing in counts.
pub(crate) fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Pending => "pending",
        Standing::Held => "pending_held",
        Standing::Delivering => "delivering",
        Standing::InDoubt => "in_doubt",
        Standing::Done => "done",
        Standing::DeadLetter => "dead_letters",
        Standing::Told => "dead_told",
        Standing::Tombstone => "forgotten",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_filter_is_written_as_it_was_read() {
        let words = "tenant=acme&state=dead&route=crm&kind=call&scope=crm&principal=ada&key=k%261&label=l\
                     &subject=contact-1&text=a+b&status=404&attempts_min=2&no_status=true&reason=refused&error=no+answer\
                     &error_is=no+answer+came&no_error=true&parent=op_1&id=order%3A1&after=1&before=2";
        let uri = format!("/operations?{words}&cursor=op_2&limit=3").parse().expect("an address");
        let read = axum::extract::Query::<Filter>::try_from_uri(&uri).expect("a filter");
        assert_eq!(read.0.written(), words);
    }

    #[test]
    fn a_status_is_one_or_all_that_begin_alike() {
        let read = |text: &str| text.parse().ok().map(|Statuses(range)| range);
        assert_eq!(read("503"), Some(503..=503));
        assert_eq!((read("5xx"), read("4XX")), (Some(500..=599), Some(400..=499)));
        for wrong in ["", "5x", "xx5", "0xx", "70000", "-50", "5xx ", "5xxx", "five"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        for (given, told) in
            [(json!(503), json!(503)), (json!("503"), json!(503)), (json!("5XX"), json!("5xx"))]
        {
            let read: Statuses = serde_json::from_value(given).expect("statuses");
            assert_eq!(read.told(), told);
        }
        let wrong = serde_json::from_value::<Statuses>(json!("teapot")).expect_err("no status");
        assert!(wrong.to_string().contains(Statuses::TAKES), "{wrong}");
    }
}
