//! What people do not see of requests and answers. Whatever shows one to a person goes through here;
//! what is sent, kept and replayed never does.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use crate::exchange::{Headers, Request, Response};

/// What stands in the place of a value.
const REDACTED: &str = "[redacted]";

/// Which values people do not see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redaction {
    /// Headers and trailers, by name in lower case.
    pub headers: Vec<String>,
    /// Members of bodies: JSON pointers (RFC 6901), where `*` is any member or item.
    pub pointers: Vec<String>,
}

impl Redaction {
    /// Whether people see everything.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.pointers.is_empty()
    }

    /// Adds what `more` says: nothing that is redacted is seen again.
    pub fn add(&mut self, more: &Self) {
        let add = |all: &mut Vec<String>, more: &[String]| {
            let new: Vec<_> = more.iter().filter(|it| !all.contains(it)).cloned().collect();
            all.extend(new);
        };
        add(&mut self.headers, &more.headers);
        add(&mut self.pointers, &more.pointers);
    }

    /// A request as people see it, and whether that is not all of it.
    pub fn request(&self, mut request: Request) -> (Request, bool) {
        let body = self.body(request.headers.text("content-type"), &request.body);
        let mut is_less = body.is_some();
        request.body = body.unwrap_or(request.body);
        is_less |= self.lines(&mut request.headers);
        (request, is_less)
    }

    /// An answer as people see it, and whether that is not all of it.
    pub fn response(&self, mut response: Response) -> (Response, bool) {
        let body = self.body(response.headers.text("content-type"), &response.body);
        let mut is_less = body.is_some();
        response.body = body.unwrap_or(response.body);
        is_less |= self.lines(&mut response.headers);
        is_less |= self.lines(&mut response.trailers);
        (response, is_less)
    }

    /// Redacts header lines; tells whether there were such.
    pub fn lines(&self, headers: &mut Headers) -> bool {
        let mut is_less = false;
        for (name, value) in &mut headers.0 {
            if self.headers.contains(name) {
                *value = Bytes::from_static(REDACTED.as_bytes());
                is_less = true;
            }
        }
        is_less
    }

    /// A body as people see it; nothing where that is all of it. JSON is told by itself, a form by its
    /// `content_type`. Where a pointer is to be followed and the body is neither, it is withheld whole,
    /// because nobody knows what is in it.
    pub fn body(&self, content_type: Option<&str>, body: &Bytes) -> Option<Bytes> {
        if self.pointers.is_empty() || body.is_empty() {
            return None;
        }
        if let Ok(mut value) = serde_json::from_slice::<Value>(body) {
            let mut is_less = false;
            for pointer in &self.pointers {
                is_less |= hide(&mut value, &segments(pointer));
            }
            return is_less.then(|| Bytes::from(value.to_string()));
        }
        let kind = content_type.and_then(|it| it.split(';').next()).unwrap_or_default();
        if kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return self.form(body);
        }
        Some(Bytes::from_static(REDACTED.as_bytes()))
    }

    /// The same of a form: `/card/number` is the field `card[number]`, or `card.number`.
    fn form(&self, body: &Bytes) -> Option<Bytes> {
        let withheld = Some(Bytes::from_static(REDACTED.as_bytes()));
        let Ok(text) = std::str::from_utf8(body) else { return withheld };
        let mut is_less = false;
        let mut fields = Vec::new();
        for field in text.split('&') {
            let name = field.split('=').next().unwrap_or_default();
            let Some(read) = decoded(name) else { return withheld };
            // What is no name may be a value, or a body of another kind.
            if !read.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte)) {
                return withheld;
            }
            let parts: Vec<&str> =
                read.split(['[', '.']).map(|part| part.trim_end_matches(']')).collect();
            if self.pointers.iter().any(|pointer| leads(&segments(pointer), &parts)) {
                fields.push(Cow::Owned(format!("{name}={REDACTED}")));
                is_less = true;
            } else {
                fields.push(Cow::Borrowed(field));
            }
        }
        is_less.then(|| Bytes::from(fields.join("&")))
    }

    /// The place of a member as people see it: no further than to what they do not see, for names of
    /// members can be data too.
    pub fn path(&self, path: String) -> String {
        let parts = segments(&path);
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let hides = |pointer: &&String| leads(&segments(pointer), &parts);
        self.pointers.iter().find(hides).cloned().unwrap_or(path)
    }
}

/// The segments of a pointer, read.
fn segments(pointer: &str) -> Vec<Cow<'_, str>> {
    let read = |segment: &'_ str| segment.replace("~1", "/").replace("~0", "~");
    pointer
        .split('/')
        .skip(1)
        .map(
            |segment| {
                if segment.contains('~') {
                    Cow::Owned(read(segment))
                } else {
                    Cow::Borrowed(segment)
                }
            },
        )
        .collect()
}

/// Whether a pointer leads to what is at `path`, or to what it is in.
fn leads(pointer: &[Cow<'_, str>], path: &[&str]) -> bool {
    pointer.len() <= path.len()
        && pointer.iter().zip(path).all(|(wanted, part)| wanted == "*" || wanted == part)
}

/// Hides what the segments lead to; tells whether there was something.
fn hide(value: &mut Value, segments: &[Cow<'_, str>]) -> bool {
    let Some((first, rest)) = segments.split_first() else {
        *value = Value::String(REDACTED.to_owned());
        return true;
    };
    match value {
        Value::Object(members) if first == "*" => {
            members.values_mut().fold(false, |is_less, member| hide(member, rest) | is_less)
        }
        Value::Array(items) if first == "*" => {
            items.iter_mut().fold(false, |is_less, item| hide(item, rest) | is_less)
        }
        Value::Object(members) => members.get_mut(&**first).is_some_and(|it| hide(it, rest)),
        Value::Array(items) => {
            let item = first.parse().ok().and_then(|place: usize| items.get_mut(place));
            item.is_some_and(|item| hide(item, rest))
        }
        _ => false,
    }
}

/// The name of a form's field, read; nothing where it cannot be.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                *crate::hex::decode(std::str::from_utf8(&digits).ok()?)?.first()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=utf-8");

    fn shown(kind: Option<&str>, body: &str, redact: &[&str]) -> Option<String> {
        let pointers = redact.iter().map(ToString::to_string).collect();
        let rule = Redaction { pointers, ..Redaction::default() };
        let shown = rule.body(kind, &Bytes::copy_from_slice(body.as_bytes()))?;
        Some(String::from_utf8(shown.to_vec()).unwrap())
    }

    #[test]
    fn what_a_pointer_leads_to_is_not_seen() {
        let body = r#"{"card":{"number":"4242","cvc":1},"n":[{"a":1},{"a":2}]}"#;
        for (redact, expected) in [
            (
                &["/card/number", "/none"][..],
                Some(r#"{"card":{"cvc":1,"number":"[redacted]"},"n":[{"a":1},{"a":2}]}"#),
            ),
            (&["/card"], Some(r#"{"card":"[redacted]","n":[{"a":1},{"a":2}]}"#)),
            (
                &["/n/*/a"],
                Some(
                    r#"{"card":{"cvc":1,"number":"4242"},"n":[{"a":"[redacted]"},{"a":"[redacted]"}]}"#,
                ),
            ),
            (
                &["/*/cvc", "/n/1/a"],
                Some(
                    r#"{"card":{"cvc":"[redacted]","number":"4242"},"n":[{"a":1},{"a":"[redacted]"}]}"#,
                ),
            ),
            (&["/none", "/n/2", "/card/number/deeper", "/none/*"], None),
            (&[], None),
        ] {
            assert_eq!(shown(None, body, redact).as_deref(), expected, "{redact:?}");
        }
        assert_eq!(
            shown(None, r#"{"a/b":{"~":1}}"#, &["/a~1b/~0"]).as_deref(),
            Some(r#"{"a/b":{"~":"[redacted]"}}"#)
        );
        assert_eq!(shown(None, "", &["/a"]), None);
        for unreadable in ["number=4242", r#"{"number":"42"#, "<n>4242</n>", "\u{feff}{}"] {
            assert_eq!(
                shown(None, unreadable, &["/number"]).as_deref(),
                Some("[redacted]"),
                "{unreadable}"
            );
        }
    }

    #[test]
    fn a_field_of_a_form_is_not_seen_by_its_name() {
        for (body, expected) in [
            ("n=1&card[number]=4242", Some("n=1&card[number]=[redacted]")),
            ("card%5Bnumber%5D=4242&n=1", Some("card%5Bnumber%5D=[redacted]&n=1")),
            ("card.number=4242", Some("card.number=[redacted]")),
            (
                "card[number][0]=42&card[number][]=42",
                Some("card[number][0]=[redacted]&card[number][]=[redacted]"),
            ),
            ("card[numbers]=1&n", None),
            // No form after all, or one that cannot be read.
            ("{\"card\":{\"number\":\"42", Some("[redacted]")),
            ("card%5=4242", Some("[redacted]")),
            ("4242 4242=&n=1", Some("[redacted]")),
        ] {
            assert_eq!(shown(FORM, body, &["/card/number"]).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn header_lines_and_names_below_what_is_hidden_are_not_seen() {
        let rule = Redaction { headers: vec!["x-ssn".into()], pointers: vec!["/people/*".into()] };
        let mut headers = Headers::default();
        headers.set("x-ssn", "078-05-1120");
        headers.set("x-other", "seen");
        assert!(rule.lines(&mut headers));
        assert_eq!(headers.text("x-ssn"), Some("[redacted]"));
        assert_eq!(headers.text("x-other"), Some("seen"));
        assert_eq!(rule.path("/people/078-05-1120/name".into()), "/people/*");
        assert_eq!(rule.path("/people".into()), "/people");
        let mut both = Redaction { headers: vec!["x-a".into()], ..Redaction::default() };
        both.add(&rule);
        both.add(&rule);
        assert_eq!((both.headers.len(), both.pointers.len()), (2, 1));
    }

    proptest! {
        #[test]
        fn a_value_that_is_redacted_is_nowhere_in_what_is_seen(secret in "[a-z]{12,20}", other in "[0-9]{0,9}") {
            let body = serde_json::json!({"deep": [{"it": secret}], "other": other}).to_string();
            for pointer in ["/deep/0/it", "/deep/*/it", "/*/*/it", "/deep"] {
                let seen = shown(None, &body, &[pointer]).unwrap();
                prop_assert!(!seen.contains(&secret) && seen.contains(&other));
            }
            let body = format!("deep[it]={secret}&other={other}");
            let seen = shown(FORM, &body, &["/deep/it"]).unwrap();
            prop_assert!(!seen.contains(&secret) && seen.contains(&other));
        }
    }
}
