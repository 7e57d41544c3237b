//! What a saga is to do: its steps in their order, each with what undoes it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::template::{
    NotATemplate, Room, Template, Unfilled, Variable, fill_document, templates_in,
};
use super::{Plan, STEPS_MAX, Shape};
use crate::exchange::{Headers, Request};
use crate::policy::is_safe;

/// The longest name of a step, in bytes: it is part of a key.
pub const NAME_BYTES_MAX: usize = 64;

/// How deep its input, a body or a value that is taken of an answer nests: what is kept of a saga nests deeper
/// by a few, and is read by a reader that ends at 127.
pub const DEPTH_MAX: usize = 100;

/// Whether a document nests no deeper than a saga keeps.
pub fn is_shallow(document: &Value) -> bool {
    fn fits(document: &Value, left: usize) -> bool {
        match document {
            Value::Array(items) => left > 0 && items.iter().all(|item| fits(item, left - 1)),
            Value::Object(members) => left > 0 && members.values().all(|it| fits(it, left - 1)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
    }
    fits(document, DEPTH_MAX)
}

/// What a saga is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its steps.
    pub steps: Vec<Step>,
    /// What templates take from `input`.
    pub input: Value,
    /// Whether a step that failed waits for a person.
    pub stops: bool,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it is called: part of its key, and what templates call it.
    pub name: String,
    /// What is asked.
    pub ask: Ask,
    /// What undoes it.
    pub undo: Option<Ask>,
    /// Whether nothing is undone any more once it is done.
    pub is_pivot: bool,
}

/// One request that is to be made, with templates in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The name of a route, or the origin of an ad hoc upstream.
    pub route: String,
    /// The method.
    pub method: String,
    /// Path and query, beginning with `/`.
    pub path: Template,
    /// Headers, their names in lower case.
    pub headers: Vec<(String, Template)>,
    /// The body.
    pub body: Body,
    /// Attempts, at most, where that is not as its route says.
    pub attempts_max: Option<u32>,
    /// How long it is tried, from its own beginning, where that is less than its route says.
    pub within: Option<Duration>,
}

/// The body of a request that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// None.
    Empty,
    /// A text with templates in it.
    Text(Template),
    /// A JSON document with templates in its texts.
    Json(Value),
    /// Bytes as they are.
    Bytes(Bytes),
}

/// Why something is no saga; with the place of what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotASaga {
    /// No step, or too many.
    #[error("steps: between 1 and {STEPS_MAX}")]
    Count,
    /// A name that cannot be part of a key.
    #[error(
        "steps[{0}].name: 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`, and no two steps have the same"
    )]
    Name(usize),
    /// A document that is deeper than what is kept.
    #[error("{0}: it nests deeper than {DEPTH_MAX}")]
    TooDeep(String),
    /// A template that cannot be read.
    #[error("{0}: {1}")]
    Template(String, NotATemplate),
    /// It takes a value that cannot be there yet, or never.
    #[error("{place}: {{{{{variable}}}}} is not there by then: {why}")]
    Unavailable {
        /// What takes it.
        place: String,
        /// What it takes.
        variable: String,
        /// Why it is not there.
        why: &'static str,
    },
    /// It only reads, and there is no operation of what only reads.
    #[error("{0}: {1} only reads; a step has an effect")]
    OnlyReads(String, String),
    /// More than one pivot.
    #[error("steps[{0}].pivot: a saga has one pivot at most")]
    SecondPivot(usize),
    /// A compensation that can never run.
    #[error("steps[{0}].compensate: nothing is undone once the pivot is done; leave it out")]
    NeverUndone(usize),
}

impl Definition {
    /// The definition, where each of its steps can be made once those before it are done.
    pub fn check(self) -> Result<Self, NotASaga> {
        if !(1..=STEPS_MAX).contains(&self.steps.len()) {
            return Err(NotASaga::Count);
        }
        if !is_shallow(&self.input) {
            return Err(NotASaga::TooDeep("input".to_owned()));
        }
        let pivot = self.steps.iter().position(|step| step.is_pivot);
        let mut before = BTreeSet::new();
        for (at, step) in self.steps.iter().enumerate() {
            if !is_name(&step.name) || before.contains(step.name.as_str()) {
                return Err(NotASaga::Name(at));
            }
            if step.is_pivot && pivot != Some(at) {
                return Err(NotASaga::SecondPivot(at));
            }
            if step.undo.is_some() && pivot.is_some_and(|pivot| at >= pivot) {
                return Err(NotASaga::NeverUndone(at));
            }
            self.check_ask(&step.ask, &format!("steps[{at}]"), &before)?;
            before.insert(step.name.as_str());
            if let Some(undo) = &step.undo {
                self.check_ask(undo, &format!("steps[{at}].compensate"), &before)?;
            }
        }
        Ok(self)
    }

    fn check_ask(&self, ask: &Ask, place: &str, before: &BTreeSet<&str>) -> Result<(), NotASaga> {
        if is_safe(&ask.method) {
            return Err(NotASaga::OnlyReads(place.to_owned(), ask.method.clone()));
        }
        if let Body::Json(document) = &ask.body
            && !is_shallow(document)
        {
            return Err(NotASaga::TooDeep(format!("{place}.body")));
        }
        let unfit = |why| NotASaga::Template(place.to_owned(), why);
        for variable in ask.variables().map_err(unfit)? {
            let why = match &variable {
                Variable::Input(pointer) if self.input.pointer(pointer).is_none() => {
                    "the saga's input does not have it"
                }
                other => match other.step() {
                    Some(step) if !before.contains(step) => "no step of that name comes before",
                    _ => continue,
                },
            };
            let variable = variable.to_string();
            return Err(NotASaga::Unavailable { place: place.to_owned(), variable, why });
        }
        Ok(())
    }

    /// The order alone.
    pub fn plan(&self) -> Plan {
        let shape = |step: &Step| Shape { can_undo: step.undo.is_some(), is_pivot: step.is_pivot };
        Plan { steps: self.steps.iter().map(shape).collect(), stops: self.stops }
    }

    /// What is taken of the answer to the step at `at`: what the saga does not go forward without, and what only
    /// the compensation of the last step takes. Behind that step nothing can fail any more.
    pub fn taken_of(&self, at: usize) -> (BTreeSet<Variable>, BTreeSet<Variable>) {
        let Some(name) = self.steps.get(at).map(|step| step.name.as_str()) else {
            return Default::default();
        };
        let of_it = |ask: &Ask| {
            let all = ask.variables().unwrap_or_default();
            all.into_iter().filter(|variable| variable.step() == Some(name)).collect::<Vec<_>>()
        };
        let Some((last, before)) = self.steps.split_last() else { return Default::default() };
        let asks = self.steps.iter().map(|step| &step.ask);
        let needed = asks.chain(before.iter().filter_map(|step| step.undo.as_ref()));
        (needed.flat_map(of_it).collect(), last.undo.iter().flat_map(of_it).collect())
    }
}

impl Ask {
    /// What it takes.
    pub fn variables(&self) -> Result<Vec<Variable>, NotATemplate> {
        let in_json = match &self.body {
            Body::Json(document) => templates_in(document)?,
            Body::Text(template) => vec![template.clone()],
            Body::Empty | Body::Bytes(_) => Vec::new(),
        };
        let in_headers = self.headers.iter().map(|(_, template)| template);
        let all = in_headers.chain([&self.path]).chain(&in_json);
        Ok(all.flat_map(Template::variables).cloned().collect())
    }

    /// The request with its values: what they fill takes `bytes_max` at most.
    pub fn fill(
        &self,
        value: impl Fn(&Variable) -> Option<Value>,
        bytes_max: usize,
    ) -> Result<Request, Unfilled> {
        let mut room = Room::new(bytes_max);
        let mut headers = Headers::default();
        for (name, template) in &self.headers {
            let filled = template.fill_header(&value)?;
            room.take(filled.len())?;
            headers.set(name, filled);
        }
        let body = match &self.body {
            Body::Empty => Bytes::new(),
            Body::Text(template) => template.fill(&value, &mut room)?.into(),
            Body::Bytes(bytes) => bytes.clone(),
            Body::Json(document) => {
                if headers.get("content-type").is_none() {
                    headers.set("content-type", "application/json");
                }
                fill_document(document, &value, &mut room)?.to_string().into()
            }
        };
        let target = self.path.fill_path(&value)?;
        Ok(Request { method: self.method.clone(), target, headers, body })
    }
}

fn is_name(text: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_sign)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(method: &str, path: &str, body: Value) -> Ask {
        Ask {
            route: "pay".to_owned(),
            method: method.to_owned(),
            path: Template::read(path).unwrap(),
            headers: Vec::new(),
            body: Body::Json(body),
            attempts_max: None,
            within: None,
        }
    }

    fn step(name: &str, body: Value, undo: Option<&str>) -> Step {
        let undo = undo.map(|path| ask("DELETE", path, Value::Null));
        Step { name: name.to_owned(), ask: ask("POST", "/", body), undo, is_pivot: false }
    }

    fn saga(steps: Vec<Step>) -> Result<Definition, NotASaga> {
        Definition { steps, input: json!({"user": 7}), stops: false }.check()
    }

    #[test]
    fn a_step_takes_only_of_what_came_before_it_and_a_compensation_of_its_own_too() {
        let taken = json!("{{steps.a.body/id}}");
        let undo = Some("/{{steps.a.body/id}}");
        assert!(
            saga(vec![step("a", json!("{{input/user}}"), undo), step("b", taken.clone(), undo)])
                .is_ok()
        );
        for steps in [
            vec![step("b", taken.clone(), None), step("a", Value::Null, None)],
            vec![step("a", taken, None)],
            vec![step("a", json!("{{input/nobody}}"), None)],
            vec![step("a", Value::Null, Some("/{{steps.b.status}}")), step("b", Value::Null, None)],
        ] {
            assert!(matches!(saga(steps), Err(NotASaga::Unavailable { .. })));
        }
    }

    #[test]
    fn what_can_never_run_is_refused_before_anything_is_sent() {
        let plain = |name: &str| step(name, Value::Null, None);
        let pivot = |name: &str| Step { is_pivot: true, ..plain(name) };
        assert_eq!(saga(Vec::new()), Err(NotASaga::Count));
        assert_eq!(saga(vec![plain("a"), plain("a")]), Err(NotASaga::Name(1)));
        assert_eq!(saga(vec![plain("a/undo")]), Err(NotASaga::Name(0)));
        assert_eq!(saga(vec![pivot("a"), pivot("b")]), Err(NotASaga::SecondPivot(1)));
        let late = step("b", Value::Null, Some("/"));
        assert_eq!(saga(vec![pivot("a"), late]), Err(NotASaga::NeverUndone(1)));
        let reads = Step { ask: ask("GET", "/", Value::Null), ..plain("a") };
        assert!(matches!(saga(vec![reads]), Err(NotASaga::OnlyReads(..))));
    }

    #[test]
    fn what_nests_deeper_than_can_be_read_again_is_refused() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        let of = |input: Value, body: Value| {
            Definition { steps: vec![step("a", body, None)], input, stops: false }.check()
        };
        assert!(of(nested(DEPTH_MAX), nested(DEPTH_MAX)).is_ok());
        let deep = |place: &str| Err(NotASaga::TooDeep(place.to_owned()));
        assert_eq!(of(nested(DEPTH_MAX + 1), json!(1)), deep("input"));
        assert_eq!(of(json!(1), nested(DEPTH_MAX + 1)), deep("steps[0].body"));
    }

    #[test]
    fn what_is_taken_of_a_step_is_known_beforehand() {
        let undo = Some("/{{steps.a.headers.location}}");
        let saga =
            saga(vec![step("a", Value::Null, undo), step("b", json!("{{steps.a.status}}"), None)]);
        let (needed, by_last_undo) = saga.unwrap().taken_of(0);
        let status = Variable::Status("a".to_owned());
        assert_eq!((needed.len(), needed.contains(&status)), (2, true));
        assert!(by_last_undo.is_empty());
        let alone = self::saga(vec![step("a", Value::Null, undo)]).unwrap();
        let (needed, by_last_undo) = alone.taken_of(0);
        assert_eq!((needed.len(), by_last_undo.len()), (0, 1), "behind it nothing can fail");
    }
}
