//! Paths with places to fill: what an upstream is asked about one operation.

use serde_json::Value;

/// The longest path that is asked for.
const FILLED_BYTES_MAX: usize = 8 << 10;

/// A path and query with `{names}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    parts: Vec<Part>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
    /// A place in the request's JSON body.
    Json(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAPathTemplate {
    /// It does not begin a path.
    #[error("{0:?} is no path: write \"/orders?ref={{key}}\"")]
    NoPath(String),
    /// A brace is left open, or what is in it is nothing.
    #[error("{0:?} has a brace without a name in it: write {{key}} or {{json:/pointer}}")]
    Brace(String),
}

/// Why a template cannot be filled for an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfilled {
    /// There is no such value: asking without it would ask for everything.
    #[error("{0} has no value for it")]
    Missing(String),
    /// A value that would be read as part of the path's shape.
    #[error("the value of {0} cannot stand in a path")]
    Unfit(String),
    /// The path became too long.
    #[error("the path would be longer than {FILLED_BYTES_MAX} bytes")]
    TooLong,
}

impl PathTemplate {
    /// Reads `/orders?ref={key}`.
    pub fn read(text: &str) -> Result<Self, NotAPathTemplate> {
        let is_path = text.starts_with('/')
            && !text.starts_with("//")
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_path {
            return Err(NotAPathTemplate::NoPath(text.to_owned()));
        }
        let brace = || NotAPathTemplate::Brace(text.to_owned());
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            let inside = after.strip_prefix('{').ok_or_else(brace)?;
            let (name, behind) = inside.split_once('}').ok_or_else(brace)?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(match name.strip_prefix("json:") {
                Some(pointer) if pointer.starts_with('/') => Part::Json(pointer.to_owned()),
                None if !name.is_empty() && !name.contains('{') => Part::Name(name.to_owned()),
                _ => return Err(brace()),
            });
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts, text: text.to_owned() })
    }

    /// The names in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) | Part::Json(_) => None,
        })
    }

    /// Whether it has places of the request's body in it.
    pub fn needs_body(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Json(_)))
    }

    /// The path for one operation: every value percent-encoded (RFC 3986, section 2.3). An empty
    /// value is none.
    pub fn fill<'a>(
        &self,
        value: impl Fn(&str) -> Option<&'a str>,
        body: Option<&Value>,
    ) -> Result<String, Unfilled> {
        let mut filled = String::with_capacity(self.text.len() + 64);
        for part in &self.parts {
            let missing = |name: &str| Unfilled::Missing(format!("{{{name}}}"));
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Name(name) => {
                    let value = value(name).filter(|value| !value.is_empty());
                    put(&mut filled, name, value.ok_or_else(|| missing(name))?)?;
                }
                Part::Json(pointer) => {
                    let name = format!("json:{pointer}");
                    let value = body.and_then(|body| body.pointer(pointer)).and_then(plain);
                    let value = value.filter(|value| !value.is_empty());
                    put(&mut filled, &name, &value.ok_or_else(|| missing(&name))?)?;
                }
            }
            if filled.len() > FILLED_BYTES_MAX {
                return Err(Unfilled::TooLong);
            }
        }
        Ok(filled)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A value as text; a number only where it is whole, because others have several spellings.
pub(crate) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(crate) fn put(filled: &mut String, name: &str, value: &str) -> Result<(), Unfilled> {
    use std::fmt::Write as _;
    // Dots alone are steps in a path, encoded or not (RFC 3986, section 5.2.4).
    if value.bytes().all(|byte| byte == b'.') && !filled.contains('?') {
        return Err(Unfilled::Unfit(format!("{{{name}}}")));
    }
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            filled.push(byte as char);
        } else {
            // Writing into a string does not fail.
            let _ = write!(filled, "%{byte:02X}");
        }
        if filled.len() > FILLED_BYTES_MAX {
            return Err(Unfilled::TooLong);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fill(template: &str, key: &str, body: &Value) -> Result<String, Unfilled> {
        let key = |name: &str| (name == "key").then_some(key);
        PathTemplate::read(template).unwrap().fill(key, Some(body))
    }

    #[test]
    fn values_are_put_in_and_cannot_break_out() {
        let body = json!({"ref": "a/b", "n": 12, "x": 1.5, "empty": "", "list": []});
        for (template, key, filled) in [
            ("/orders?ref={key}", "k 1&x=2", Ok("/orders?ref=k%201%26x%3D2")),
            ("/orders/{json:/ref}/{key}", "k", Ok("/orders/a%2Fb/k")),
            ("/orders?n={json:/n}", "k", Ok("/orders?n=12")),
            ("/orders", "k", Ok("/orders")),
            ("/orders/{key}", "..", Err("cannot stand in a path")),
            ("/orders?ref={key}", "..", Ok("/orders?ref=..")),
            ("/orders?ref={json:/none}", "k", Err("{json:/none}")),
            ("/orders?ref={json:/empty}", "k", Err("{json:/empty}")),
            ("/orders?ref={json:/list}", "k", Err("{json:/list}")),
            ("/orders?ref={json:/x}", "k", Err("{json:/x}")),
            ("/orders?ref={operation}", "k", Err("{operation}")),
        ] {
            match (fill(template, key, &body), filled) {
                (Ok(path), Ok(wanted)) => assert_eq!(path, wanted),
                (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{error}"),
                (other, _) => panic!("{template}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in
            ["", "orders", "//host/x", "/a b", "/a#b", "/a{", "/a}", "/a{}", "/{json:x}", "/{a{b}"]
        {
            assert!(PathTemplate::read(text).is_err(), "{text}");
        }
        let read = PathTemplate::read("/a/{key}?b={json:/c}&d={since}").unwrap();
        assert_eq!(read.names().collect::<Vec<_>>(), ["key", "since"]);
        assert!(read.needs_body());
    }

    proptest! {
        #[test]
        fn any_value_stays_where_it_was_put(key in "\\PC{1,30}") {
            match fill("/a/{key}/b?c={key}", &key, &Value::Null) {
                Ok(path) => {
                    prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
                    prop_assert_eq!(path.matches(['/', '?', '&', '=', '#']).count(), 5);
                }
                Err(error) => prop_assert!(matches!(error, Unfilled::Unfit(_)), "{}", error),
            }
        }

        #[test]
        fn any_text_is_a_template_or_refused(text in "\\PC{0,30}") {
            if let Ok(template) = PathTemplate::read(&text) {
                prop_assert_eq!(template.as_str(), text);
            }
        }
    }
}
