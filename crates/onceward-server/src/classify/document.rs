//! A document as JSON, whether it is written in JSON or in YAML; bounded, whatever it holds.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The largest document, in bytes: the largest public ones have about ten million.
pub(super) const BYTES_MAX: usize = 32 << 20;

/// How many values a document may hold, those of its aliases counted each time.
const VALUES_MAX: usize = 4_000_000;

/// How deep values may be nested; a JSON parser's own bound.
const DEPTH_MAX: usize = 128;

/// Reads `text`. The error says what is wrong, and where.
pub(crate) fn read(text: &str) -> Result<Value, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("it is larger than {BYTES_MAX} bytes"));
    }
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("it is no YAML: {error}"))?;
        let line = span.start.line();
        builder.take(event).map_err(|why| format!("line {line}: {why}"))?;
        if let Some(document) = builder.whole.take() {
            return Ok(document);
        }
    }
    Err("it is empty".to_owned())
}

/// A collection that is not closed yet.
enum Open {
    Sequence(Vec<Value>),
    /// With the name whose value is to come.
    Mapping(Map<String, Value>, Option<String>),
}

#[derive(Default)]
struct Builder {
    /// Each with the number of its anchor, 0 for none.
    open: Vec<(Open, usize)>,
    /// What has an anchor, and its size.
    anchors: HashMap<usize, (Value, Size)>,
    values: usize,
    whole: Option<Value>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_plain = style == ScalarStyle::Plain;
                self.put(if is_plain { plain(&text) } else { text.into() }, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::Sequence(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => self.begin(Open::Mapping(Map::new(), None), anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let (open, anchor) = self.open.pop().ok_or("it closes what is not open")?;
                let value = match open {
                    Open::Sequence(items) => Value::Array(items),
                    Open::Mapping(members, _) => Value::Object(members),
                };
                self.put(value, anchor, 1)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).ok_or("an alias of what is not whole yet")?;
                let (value, size) = known.clone();
                if self.open.len() + size.depth > DEPTH_MAX {
                    return Err(format!("it is nested more than {DEPTH_MAX} deep"));
                }
                self.put(value, 0, size.count)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, anchor: usize) -> Result<(), String> {
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("it is nested more than {DEPTH_MAX} deep"));
        }
        self.open.push((open, anchor));
        Ok(())
    }

    fn put(&mut self, value: Value, anchor: usize, count: usize) -> Result<(), String> {
        self.values += count;
        if self.values > VALUES_MAX {
            return Err(format!("it holds more than {VALUES_MAX} values"));
        }
        if anchor > 0 {
            let size = size_of(&value);
            // What an anchor keeps counts as well: it is in memory twice.
            self.values += size.count;
            self.anchors.insert(anchor, (value.clone(), size));
        }
        match self.open.last_mut() {
            None => self.whole = Some(value),
            Some((Open::Sequence(items), _)) => items.push(value),
            Some((Open::Mapping(members, name), _)) => match name.take() {
                Some(name) => {
                    members.insert(name, value);
                }
                None => *name = Some(name_of(value)),
            },
        }
        Ok(())
    }
}

/// How many values a value is, and how deep.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    count: usize,
    depth: usize,
}

fn size_of(value: &Value) -> Size {
    let around = |parts: &mut dyn Iterator<Item = &Value>| {
        let whole = parts.map(size_of).fold(Size::default(), |all, part| Size {
            count: all.count + part.count,
            depth: all.depth.max(part.depth),
        });
        Size { count: whole.count + 1, depth: whole.depth + 1 }
    };
    match value {
        Value::Array(items) => around(&mut items.iter()),
        Value::Object(members) => around(&mut members.values()),
        _ => Size { count: 1, depth: 0 },
    }
}

/// Statuses stand unquoted in many documents: a member's name is text in any case.
fn name_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A plain scalar; numbers that are not whole stay text, since nothing here reckons with them.
fn plain(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        text => match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => number.into(),
            _ => text.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "a: &x\n  - 1\n  - 01\n  - 'true'\n  - true\nb: {c: *x, 200: ~}\n";
        let json =
            json!({"a": [1, "01", "true", true], "b": {"c": [1, "01", "true", true], "200": null}});
        assert_eq!(read(yaml).unwrap(), json);
        assert_eq!(read(&json.to_string()).unwrap(), json);
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_place() {
        assert!(read("a: [1,\nb: 2").unwrap_err().contains("line"));
        assert!(read("{\"a\": }").unwrap_err().contains("line 1"));
        assert_eq!(read("# nothing\n").unwrap_err(), "it is empty");
        let deep = "- ".repeat(DEPTH_MAX + 1);
        assert!(read(&deep).unwrap_err().contains("deep"));
    }

    #[test]
    fn aliases_of_aliases_do_not_grow_without_bound() {
        let ten = |n: usize| vec![format!("*a{n}"); 10].join(", ");
        let lines: Vec<_> = (1..12).map(|n| format!("a{n}: &a{n} [{}]", ten(n - 1))).collect();
        let bomb = format!("a0: &a0 [x, x, x, x, x]\n{}", lines.join("\n"));
        assert!(read(&bomb).unwrap_err().contains("values"));
        let lines: Vec<_> = (1..200).map(|n| format!("- &a{n} [*a{}]", n - 1)).collect();
        assert!(read(&format!("- &a0 [x]\n{}", lines.join("\n"))).unwrap_err().contains("deep"));
        assert!(read("a: &a [*a]").unwrap_err().contains("not whole"));
    }
}
