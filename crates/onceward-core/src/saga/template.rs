//! What a step takes of what came before it: `{{steps.charge.body/id}}`. A place in a JSON document is
//! named by its pointer (RFC 6901), so that a template stands for one value or for none.

use std::fmt;

use serde_json::Value;

use crate::path_template::{plain, put};

/// The longest path, and the longest value of a header, that is made.
const FILLED_BYTES_MAX: usize = 8 << 10;

/// A text with places to fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Variable),
}

/// What a template puts in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// `open`: two opening braces as they are.
    Open,
    /// `saga.id`.
    SagaId,
    /// `saga.key`.
    SagaKey,
    /// `input/pointer`: of the saga's own input.
    Input(String),
    /// `steps.NAME.status`: of the answer to an earlier step.
    Status(String),
    /// `steps.NAME.headers.location`: a header of it that is kept, in lower case.
    Header(String, String),
    /// `steps.NAME.body/pointer`: a place in its JSON body.
    Body(String, String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotATemplate {
    /// `{{` without `}}`.
    #[error("{0:?} has {{{{ without }}}}; {{{{open}}}} stands for two braces")]
    Braces(String),
    /// A variable that there is not.
    #[error(
        "{{{{{0}}}}} is no variable: steps.NAME.body/pointer, steps.NAME.status, \
         steps.NAME.headers.NAME, input/pointer, saga.id, saga.key or open"
    )]
    Unknown(String),
}

/// Why a template cannot be filled: in words, without the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfilled(pub String);

/// What a request that is filled may still take, in bytes: a value may stand in it any number of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room(usize);

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Unfilled> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| Unfilled("filled it is larger than it may be".to_owned()))?;
        Ok(())
    }
}

impl Template {
    /// Reads a template; a text without braces is one too.
    pub fn read(text: &str) -> Result<Self, NotATemplate> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) =
                after.split_once("}}").ok_or_else(|| NotATemplate::Braces(text.to_owned()))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Value(Variable::read(name.trim())?));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces, text: text.to_owned() })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it puts in.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value(variable) => Some(variable),
        })
    }

    /// The text with its values: texts, numbers and booleans. What it makes is taken of `room`.
    pub fn fill(
        &self,
        value: impl Fn(&Variable) -> Option<Value>,
        room: &mut Room,
    ) -> Result<String, Unfilled> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => {
                    room.take(text.len())?;
                    filled.push_str(text);
                }
                Piece::Value(variable) => {
                    let text = text_of(variable, &value)?;
                    room.take(text.len())?;
                    filled.push_str(&text);
                }
            }
        }
        Ok(filled)
    }

    /// The same as a path: each value percent-encoded, so that none has a say in the path's shape.
    pub fn fill_path(
        &self,
        value: impl Fn(&Variable) -> Option<Value>,
    ) -> Result<String, Unfilled> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Value(variable) => {
                    let name = variable.to_string();
                    let value = value(variable).as_ref().and_then(plain);
                    let value = value.filter(|value| !value.is_empty());
                    let value = value.ok_or_else(|| missing(variable))?;
                    put(&mut filled, &name, &value).map_err(|why| Unfilled(why.to_string()))?;
                }
            }
            if filled.len() > FILLED_BYTES_MAX {
                return Err(Unfilled(format!("the path has more than {FILLED_BYTES_MAX} bytes")));
            }
        }
        Ok(filled)
    }

    /// The same as the value of a header.
    pub fn fill_header(
        &self,
        value: impl Fn(&Variable) -> Option<Value>,
    ) -> Result<String, Unfilled> {
        let filled = self.fill(value, &mut Room::new(FILLED_BYTES_MAX))?;
        let is_field = filled.bytes().all(|byte| (0x20..=0x7e).contains(&byte) || byte == b'\t');
        if !is_field {
            return Err(Unfilled("a value cannot stand in a header".to_owned()));
        }
        Ok(filled)
    }

    /// As a value in a JSON document: where it is one variable and nothing else, that value as it is.
    fn fill_json(
        &self,
        value: &impl Fn(&Variable) -> Option<Value>,
        room: &mut Room,
    ) -> Result<Value, Unfilled> {
        match &self.pieces[..] {
            [Piece::Value(variable)] => {
                let value = value(variable).ok_or_else(|| missing(variable))?;
                room.take(value.to_string().len())?;
                Ok(value)
            }
            _ => self.fill(value, room).map(Value::String),
        }
    }
}

/// Every template in the texts of a JSON document.
pub(super) fn templates_in(document: &Value) -> Result<Vec<Template>, NotATemplate> {
    Ok(match document {
        Value::String(text) => vec![Template::read(text)?],
        Value::Array(items) => all_in(items.iter())?,
        Value::Object(members) => all_in(members.values())?,
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    })
}

fn all_in<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Vec<Template>, NotATemplate> {
    let mut all = Vec::new();
    for value in values {
        all.extend(templates_in(value)?);
    }
    Ok(all)
}

/// The document with the templates in its texts filled.
pub(super) fn fill_document(
    document: &Value,
    value: &impl Fn(&Variable) -> Option<Value>,
    room: &mut Room,
) -> Result<Value, Unfilled> {
    Ok(match document {
        Value::String(text) => {
            let template = Template::read(text).map_err(|why| Unfilled(why.to_string()))?;
            template.fill_json(value, room)?
        }
        Value::Array(items) => {
            items.iter().map(|item| fill_document(item, value, room)).collect::<Result<_, _>>()?
        }
        Value::Object(members) => {
            let filled = members
                .iter()
                .map(|(name, member)| Ok((name.clone(), fill_document(member, value, room)?)));
            Value::Object(filled.collect::<Result<_, Unfilled>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => document.clone(),
    })
}

fn missing(variable: &Variable) -> Unfilled {
    Unfilled(format!("{variable} has no value that can stand there"))
}

fn text_of(
    variable: &Variable,
    value: &impl Fn(&Variable) -> Option<Value>,
) -> Result<String, Unfilled> {
    match value(variable) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(is)) => Ok(is.to_string()),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => Err(missing(variable)),
    }
}

impl Variable {
    fn read(name: &str) -> Result<Self, NotATemplate> {
        let unknown = || NotATemplate::Unknown(name.to_owned());
        let is_pointer = |text: &str| text.is_empty() || text.starts_with('/');
        match name {
            "open" => return Ok(Self::Open),
            "saga.id" => return Ok(Self::SagaId),
            "saga.key" => return Ok(Self::SagaKey),
            _ => {}
        }
        if let Some(pointer) = name.strip_prefix("input").filter(|rest| is_pointer(rest)) {
            return Ok(Self::Input(pointer.to_owned()));
        }
        let rest = name.strip_prefix("steps.").ok_or_else(unknown)?;
        let (step, what) = rest.split_once('.').ok_or_else(unknown)?;
        let step = step.to_owned();
        if what == "status" {
            return Ok(Self::Status(step));
        }
        if let Some(header) = what.strip_prefix("headers.").filter(|header| !header.is_empty()) {
            return Ok(Self::Header(step, header.to_ascii_lowercase()));
        }
        let pointer = what.strip_prefix("body").filter(|rest| is_pointer(rest));
        pointer.map(|pointer| Self::Body(step, pointer.to_owned())).ok_or_else(unknown)
    }

    /// The step whose answer it is of.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Status(step) | Self::Header(step, _) | Self::Body(step, _) => Some(step),
            Self::Open | Self::SagaId | Self::SagaKey | Self::Input(_) => None,
        }
    }
}

/// As it stands between the braces.
impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::SagaId => f.write_str("saga.id"),
            Self::SagaKey => f.write_str("saga.key"),
            Self::Input(pointer) => write!(f, "input{pointer}"),
            Self::Status(step) => write!(f, "steps.{step}.status"),
            Self::Header(step, name) => write!(f, "steps.{step}.headers.{name}"),
            Self::Body(step, pointer) => write!(f, "steps.{step}.body{pointer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value(variable: &Variable) -> Option<Value> {
        let answer = json!({"id": "ch_1/ä", "amount": 100, "of": {"none": null}});
        match variable {
            Variable::Open => Some(json!("{{")),
            Variable::SagaId => Some(json!("op_1")),
            Variable::Body(step, pointer) if step == "charge" => answer.pointer(pointer).cloned(),
            _ => None,
        }
    }

    fn fill(text: &str) -> Result<String, Unfilled> {
        Template::read(text).unwrap().fill(value, &mut Room::new(1 << 10))
    }

    #[test]
    fn a_value_keeps_its_kind_where_it_is_alone_and_is_text_within_one() {
        let body = json!({"a": "{{steps.charge.body/amount}}", "b": ["x{{steps.charge.body/amount}}"],
            "c": "{{steps.charge.body/of}}", "d": 1});
        let filled = fill_document(&body, &value, &mut Room::new(1 << 10)).unwrap();
        assert_eq!(filled, json!({"a": 100, "b": ["x100"], "c": {"none": null}, "d": 1}));
        assert_eq!(fill("{{open}}x}} {{saga.id}}"), Ok("{{x}} op_1".to_owned()));
    }

    #[test]
    fn no_value_has_a_say_in_the_shape_of_a_path_or_a_header() {
        let path = Template::read("/refunds/{{steps.charge.body/id}}").unwrap();
        assert_eq!(path.fill_path(value), Ok("/refunds/ch_1%2F%C3%A4".to_owned()));
        let header = Template::read("{{steps.charge.body/id}}").unwrap();
        assert!(header.fill_header(value).is_err());
    }

    #[test]
    fn what_is_missing_is_an_error_and_never_an_empty_text() {
        for text in ["{{steps.charge.body/nothing}}", "{{steps.other.body/id}}", "{{input/x}}"] {
            assert!(fill(text).is_err(), "{text}");
        }
        assert!(fill("a{{steps.charge.body/of/none}}").is_err());
    }

    #[test]
    fn a_value_that_stands_in_many_places_fills_no_more_than_there_is_room() {
        let many = json!(vec!["{{input/long}}"; 10_000]);
        let asked = std::cell::Cell::new(0);
        let value = |_: &Variable| {
            asked.set(asked.get() + 1);
            Some(json!("x".repeat(1 << 10)))
        };
        assert!(fill_document(&many, &value, &mut Room::new(8 << 10)).is_err());
        let text = Template::read(&"{{input/long}}".repeat(10_000)).unwrap();
        assert!(text.fill(value, &mut Room::new(8 << 10)).is_err());
        assert!(text.fill_header(value).is_err());
        assert!(asked.get() < 50, "no more of it is made than fits");
    }

    #[test]
    fn a_template_that_says_nothing_known_is_refused() {
        for text in ["{{", "{{x", "{{x}}", "{{steps.a}}", "{{steps.a.bodyx}}", "{{inputx}}", "{{}}"]
        {
            assert!(Template::read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_refused(text in ".{0,40}", braces in "[{}a.]{0,12}") {
            for text in [&text, &braces] {
                if let Ok(template) = Template::read(text)
                    && template.variables().next().is_none()
                {
                    prop_assert_eq!(&template.fill(|_| None, &mut Room::new(1 << 10)).unwrap(), text);
                }
            }
        }
    }
}
