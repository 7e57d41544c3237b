//! Conditions on an answer or a document: JSON operators on a status, on headers and on places in
//! a JSON body. Reading one is strict; asking one is total: whatever it is asked about, it holds
//! or it does not.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use crate::exchange::Headers;

/// How deep conditions nest.
const DEPTH_MAX: usize = 16;

/// Tests in a condition, so that asking one is bounded by the size of what it is asked about.
const TESTS_MAX: usize = 256;

/// How deep two values are compared: as deep as JSON text is read.
const COMPARED_DEPTH_MAX: usize = 128;

/// What a condition is asked about. What is not there is a test that fails, unless the test wants
/// it so.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The status, where it is an answer.
    pub status: Option<u16>,
    /// The headers.
    pub headers: &'a Headers,
    /// The JSON document.
    pub document: Option<&'a Value>,
}

/// A condition, read and bounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    tests: Vec<Test>,
    /// As it was written, for people.
    source: Value,
}

/// Why a condition cannot be read: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct NotACondition {
    place: String,
    what: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Status(Vec<Operator>),
    Header(String, Vec<Operator>),
    Json(String, Vec<Operator>),
    Not(Vec<Test>),
    Any(Vec<Vec<Test>>),
    All(Vec<Vec<Test>>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operator {
    Equal(Value),
    Unequal(Value),
    In(Vec<Value>),
    Exists(bool),
    Greater(Value),
    GreaterOrEqual(Value),
    Less(Value),
    LessOrEqual(Value),
    StartsWith(String),
    EndsWith(String),
    Contains(Value),
    Not(Vec<Operator>),
    Any(Vec<Vec<Operator>>),
    All(Vec<Vec<Operator>>),
}

impl Condition {
    /// Reads a condition as JSON (or TOML) says it:
    /// `{ "status": 200, "headers": { "x": … }, "json": { "/items/0/id": { "exists": true } } }`.
    /// All of its members have to hold; `any`, `all` and `not` put conditions together.
    pub fn read(source: &Value) -> Result<Self, NotACondition> {
        let mut reader = Reader { tests: 0 };
        let tests = reader.tests(source, "", 0)?;
        Ok(Self { tests, source: source.clone() })
    }

    /// Whether it holds of `given`.
    pub fn holds(&self, given: Given<'_>) -> bool {
        all_hold(&self.tests, given)
    }

    /// Whether it says which status it wants.
    pub(crate) fn names_status(&self) -> bool {
        any_test(&self.tests, &|test| matches!(test, Test::Status(_)))
    }

    /// Whether it looks at headers.
    pub(crate) fn names_headers(&self) -> bool {
        any_test(&self.tests, &|test| matches!(test, Test::Header(..)))
    }

    /// Whether it looks into a JSON document.
    pub(crate) fn names_json(&self) -> bool {
        any_test(&self.tests, &|test| matches!(test, Test::Json(..)))
    }

    /// As it was written.
    pub fn source(&self) -> &Value {
        &self.source
    }
}

impl NotACondition {
    /// What is wrong at `place`, where whoever asks wants less than a condition can say.
    pub(crate) fn of(place: &str, what: &str) -> Self {
        wrong(place, what)
    }
}

struct Reader {
    tests: usize,
}

fn wrong(place: &str, what: impl Into<String>) -> NotACondition {
    let place = if place.is_empty() { "the condition" } else { place };
    NotACondition { place: place.to_owned(), what: what.into() }
}

fn under(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

impl Reader {
    fn count(&mut self, place: &str, depth: usize) -> Result<(), NotACondition> {
        self.tests += 1;
        if self.tests > TESTS_MAX {
            return Err(wrong(place, format!("more than {TESTS_MAX} tests")));
        }
        if depth > DEPTH_MAX {
            return Err(wrong(place, format!("nested more than {DEPTH_MAX} deep")));
        }
        Ok(())
    }

    fn tests(
        &mut self,
        source: &Value,
        place: &str,
        depth: usize,
    ) -> Result<Vec<Test>, NotACondition> {
        self.count(place, depth)?;
        let members = source.as_object().ok_or_else(|| {
            wrong(place, "write { status = 200, json = { \"/id\" = { exists = true } } }")
        })?;
        if members.is_empty() {
            return Err(wrong(place, "it is empty, so it would always hold"));
        }
        let mut tests = Vec::new();
        for (name, value) in members {
            let place = under(place, name);
            match name.as_str() {
                "status" => tests.push(Test::Status(self.operators(value, &place, depth + 1)?)),
                "headers" => {
                    for (header, value) in object(value, &place)? {
                        let operators = self.operators(value, &under(&place, header), depth + 1)?;
                        tests.push(Test::Header(header.to_ascii_lowercase(), operators));
                    }
                }
                "json" => {
                    for (pointer, value) in object(value, &place)? {
                        if !pointer.is_empty() && !pointer.starts_with('/') {
                            return Err(wrong(
                                &under(&place, pointer),
                                "a JSON pointer begins with `/` (RFC 6901)",
                            ));
                        }
                        let operators =
                            self.operators(value, &under(&place, pointer), depth + 1)?;
                        tests.push(Test::Json(pointer.clone(), operators));
                    }
                }
                "not" => tests.push(Test::Not(self.tests(value, &place, depth + 1)?)),
                "any" | "all" => {
                    let listed = list(value, &place)?;
                    let mut each = Vec::with_capacity(listed.len());
                    for one in listed {
                        each.push(self.tests(one, &place, depth + 1)?);
                    }
                    tests.push(if name == "any" { Test::Any(each) } else { Test::All(each) });
                }
                _ => {
                    return Err(wrong(
                        &place,
                        "no such test: status, headers, json, not, any or all",
                    ));
                }
            }
        }
        Ok(tests)
    }

    /// An object of operators, or a bare value that it has to be equal to.
    fn operators(
        &mut self,
        source: &Value,
        place: &str,
        depth: usize,
    ) -> Result<Vec<Operator>, NotACondition> {
        self.count(place, depth)?;
        let members = match source {
            Value::Object(members) if members.is_empty() => {
                return Err(wrong(place, "no operator: eq, ne, in, exists, gt, …"));
            }
            Value::Object(members) => members,
            Value::Array(_) => {
                return Err(wrong(place, "a list: write { in = […] } or { eq = […] }"));
            }
            bare => return Ok(vec![Operator::Equal(bare.clone())]),
        };
        let mut operators = Vec::with_capacity(members.len());
        for (name, value) in members {
            operators.push(self.operator(name, value, &under(place, name), depth)?);
        }
        Ok(operators)
    }

    fn operator(
        &mut self,
        name: &str,
        value: &Value,
        place: &str,
        depth: usize,
    ) -> Result<Operator, NotACondition> {
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong(place, "wants a text"));
        Ok(match name {
            "eq" => Operator::Equal(value.clone()),
            "ne" => Operator::Unequal(value.clone()),
            "in" => Operator::In(list(value, place)?.clone()),
            "exists" => Operator::Exists(
                value.as_bool().ok_or_else(|| wrong(place, "wants true or false"))?,
            ),
            "gt" => Operator::Greater(ordered(value, place)?),
            "gte" => Operator::GreaterOrEqual(ordered(value, place)?),
            "lt" => Operator::Less(ordered(value, place)?),
            "lte" => Operator::LessOrEqual(ordered(value, place)?),
            "starts_with" => Operator::StartsWith(text()?),
            "ends_with" => Operator::EndsWith(text()?),
            "contains" => Operator::Contains(value.clone()),
            "not" => Operator::Not(self.operators(value, place, depth + 1)?),
            "any" | "all" => {
                let listed = list(value, place)?;
                let mut each = Vec::with_capacity(listed.len());
                for one in listed {
                    each.push(self.operators(one, place, depth + 1)?);
                }
                if name == "any" { Operator::Any(each) } else { Operator::All(each) }
            }
            _ => {
                return Err(wrong(
                    place,
                    "no such operator: eq, ne, in, exists, gt, gte, lt, lte, starts_with, ends_with, contains, not, any or all",
                ));
            }
        })
    }
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, NotACondition> {
    let members = value.as_object().filter(|members| !members.is_empty());
    members.ok_or_else(|| wrong(place, "wants a table of what to look at"))
}

fn list<'a>(value: &'a Value, place: &str) -> Result<&'a Vec<Value>, NotACondition> {
    let listed = value.as_array().filter(|listed| !listed.is_empty());
    listed.ok_or_else(|| wrong(place, "wants a list that is not empty"))
}

fn ordered(value: &Value, place: &str) -> Result<Value, NotACondition> {
    match value {
        Value::Number(_) | Value::String(_) => Ok(value.clone()),
        _ => Err(wrong(place, "wants a number or a text")),
    }
}

fn any_test(tests: &[Test], is_it: &impl Fn(&Test) -> bool) -> bool {
    tests.iter().any(|test| {
        is_it(test)
            || match test {
                Test::Not(tests) => any_test(tests, is_it),
                Test::Any(each) | Test::All(each) => {
                    each.iter().any(|tests| any_test(tests, is_it))
                }
                Test::Status(_) | Test::Header(..) | Test::Json(..) => false,
            }
    })
}

fn all_hold(tests: &[Test], given: Given<'_>) -> bool {
    tests.iter().all(|test| match test {
        Test::Status(operators) => {
            let status = given.status.map(Value::from);
            all_true(operators, status.as_ref(), false)
        }
        Test::Header(name, operators) => {
            let text = given.headers.text(name).map(Value::from);
            all_true(operators, text.as_ref(), true)
        }
        Test::Json(pointer, operators) => {
            let value = given.document.and_then(|document| document.pointer(pointer));
            all_true(operators, value, false)
        }
        Test::Not(tests) => !all_hold(tests, given),
        Test::Any(each) => each.iter().any(|tests| all_hold(tests, given)),
        Test::All(each) => each.iter().all(|tests| all_hold(tests, given)),
    })
}

/// `is_text` where numbers come as text, as they do in headers.
fn all_true(operators: &[Operator], value: Option<&Value>, is_text: bool) -> bool {
    operators.iter().all(|operator| is_true(operator, value, is_text))
}

fn is_true(operator: &Operator, value: Option<&Value>, is_text: bool) -> bool {
    let read = |wanted: &Value| value.and_then(|value| as_wanted(value, wanted, is_text));
    let equal = |wanted: &Value| read(wanted).is_some_and(|value| is_equal(&value, wanted, 0));
    let order = |wanted: &Value| read(wanted).and_then(|value| compare(&value, wanted));
    let text = value.and_then(Value::as_str);
    match operator {
        Operator::Equal(wanted) => equal(wanted),
        Operator::Unequal(wanted) => !equal(wanted),
        Operator::In(listed) => listed.iter().any(equal),
        Operator::Exists(wanted) => value.is_some_and(|value| !value.is_null()) == *wanted,
        Operator::Greater(wanted) => order(wanted) == Some(Ordering::Greater),
        Operator::GreaterOrEqual(wanted) => order(wanted).is_some_and(Ordering::is_ge),
        Operator::Less(wanted) => order(wanted) == Some(Ordering::Less),
        Operator::LessOrEqual(wanted) => order(wanted).is_some_and(Ordering::is_le),
        Operator::StartsWith(start) => text.is_some_and(|text| text.starts_with(start.as_str())),
        Operator::EndsWith(end) => text.is_some_and(|text| text.ends_with(end.as_str())),
        Operator::Contains(wanted) => match (value, wanted) {
            (Some(Value::String(text)), Value::String(part)) => text.contains(part.as_str()),
            (Some(Value::Array(items)), wanted) => {
                items.iter().any(|item| is_equal(item, wanted, 0))
            }
            _ => false,
        },
        Operator::Not(operators) => !all_true(operators, value, is_text),
        Operator::Any(each) => each.iter().any(|operators| all_true(operators, value, is_text)),
        Operator::All(each) => each.iter().all(|operators| all_true(operators, value, is_text)),
    }
}

/// The value as it is compared: a header's number is a text that reads as one.
fn as_wanted(value: &Value, wanted: &Value, is_text: bool) -> Option<Value> {
    match (value, wanted) {
        (Value::String(text), Value::Number(_)) if is_text => {
            text.trim().parse::<Number>().ok().map(Value::Number)
        }
        _ => Some(value.clone()),
    }
}

/// Equal as JSON says it: 1 and 1.0 are one number.
fn is_equal(a: &Value, b: &Value, depth: usize) -> bool {
    if depth > COMPARED_DEPTH_MAX {
        return false;
    }
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b, depth + 1))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_equal(a, b, depth + 1)))
        }
        _ => a == b,
    }
}

/// Whether two values are the same: the same number however it is written.
pub fn is_same(a: &Value, b: &Value) -> bool {
    is_equal(a, b, 0)
}

/// Numbers by size, texts by their characters (so are RFC 3339 times in UTC); else nothing.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    fn holds(condition: &Value, document: &Value) -> bool {
        let headers = Headers(vec![
            ("x-count".to_owned(), Bytes::from_static(b"12")),
            ("x-kind".to_owned(), Bytes::from_static(b"charge")),
        ]);
        let given = Given { status: Some(200), headers: &headers, document: Some(document) };
        Condition::read(condition).unwrap().holds(given)
    }

    #[test]
    fn each_operator_says_what_it_says() {
        let document = json!({
            "id": "ch_1", "amount": 100, "big": 9_007_199_254_740_993_u64, "none": null,
            "items": [{"id": 7}], "tags": ["a", "b"], "at": "2026-01-31T12:00:00Z",
        });
        for (condition, expected) in [
            (json!({"status": 200}), true),
            (json!({"status": {"in": [201, 202]}}), false),
            (json!({"status": {"gte": 200, "lt": 300}}), true),
            (json!({"json": {"/items/0/id": {"exists": true}}}), true),
            (json!({"json": {"/items/1/id": {"exists": true}}}), false),
            (json!({"json": {"/items/1/id": {"exists": false}}}), true),
            (json!({"json": {"/none": {"exists": true}}}), false),
            (json!({"json": {"/id": "ch_1"}}), true),
            (json!({"json": {"/id": {"ne": "ch_1"}}}), false),
            (json!({"json": {"/missing": {"ne": "ch_1"}}}), true),
            (json!({"json": {"/amount": 100.0}}), true),
            (json!({"json": {"/amount": "100"}}), false),
            (json!({"json": {"/amount": {"gt": 99, "lte": 100}}}), true),
            (json!({"json": {"/amount": {"gt": "99"}}}), false),
            (json!({"json": {"/big": 9_007_199_254_740_992_u64}}), false),
            (json!({"json": {"/at": {"gt": "2026-01-31T11:59:59Z"}}}), true),
            (
                json!({"json": {"/id": {"starts_with": "ch_", "ends_with": "1", "contains": "h_"}}}),
                true,
            ),
            (json!({"json": {"/tags": {"contains": "b"}}}), true),
            (json!({"json": {"/items": {"contains": {"id": 7.0}}}}), true),
            (json!({"json": {"/tags": {"eq": ["a", "b"]}}}), true),
            (json!({"json": {"/amount": {"not": {"in": [1, 2]}}}}), true),
            (json!({"json": {"/amount": {"any": [1, {"gt": 50}]}}}), true),
            (json!({"headers": {"X-Count": 12}}), true),
            (json!({"headers": {"x-count": {"gt": 9}}}), true),
            (json!({"headers": {"x-count": "12"}}), true),
            (json!({"headers": {"x-kind": {"ne": 5}}}), true),
            (json!({"headers": {"x-none": {"exists": true}}}), false),
            (json!({"status": 200, "json": {"/id": "other"}}), false),
            (json!({"any": [{"status": 404}, {"json": {"/id": "ch_1"}}]}), true),
            (json!({"all": [{"status": 200}, {"not": {"json": {"/id": "ch_1"}}}]}), false),
        ] {
            assert_eq!(holds(&condition, &document), expected, "{condition}");
        }
    }

    #[test]
    fn what_is_not_a_condition_is_refused_with_its_place() {
        for (condition, place) in [
            (json!({}), "always hold"),
            (json!([]), "status = 200"),
            (json!({"stauts": 200}), "stauts"),
            (json!({"json": {"id": 1}}), "json.id"),
            (json!({"json": {"/id": {"exits": true}}}), "json./id.exits"),
            (json!({"json": {"/id": [1]}}), "in = "),
            (json!({"json": {"/id": {}}}), "no operator"),
            (json!({"status": {"gt": true}}), "status.gt"),
            (json!({"headers": {"x": {"starts_with": 1}}}), "headers.x.starts_with"),
            (json!({"any": []}), "any"),
        ] {
            let error = Condition::read(&condition).unwrap_err().to_string();
            assert!(error.contains(place), "{condition}: {error}");
        }
        let mut deep = json!({"status": 200});
        for _ in 0..40 {
            deep = json!({"not": deep});
        }
        assert!(Condition::read(&deep).unwrap_err().to_string().contains("deep"));
        let many: Vec<Value> = (0..300).map(|status| json!({"status": status})).collect();
        assert!(Condition::read(&json!({"any": many})).unwrap_err().to_string().contains("tests"));
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (0u16..600).prop_map(Value::from),
            "[a-c/]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            let name = prop_oneof![
                Just("status"),
                Just("headers"),
                Just("json"),
                Just("not"),
                Just("any"),
                Just("all"),
                Just("eq"),
                Just("ne"),
                Just("in"),
                Just("exists"),
                Just("gt"),
                Just("gte"),
                Just("lt"),
                Just("lte"),
                Just("starts_with"),
                Just("ends_with"),
                Just("contains"),
                Just("/a"),
                Just("a"),
                Just("/0"),
                Just(""),
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Conditions that read, so that asking them is tested and not only their refusal.
    fn operators() -> impl Strategy<Value = Value> {
        let operator = (
            prop_oneof![
                Just("eq"),
                Just("ne"),
                Just("gt"),
                Just("gte"),
                Just("lt"),
                Just("lte"),
                Just("contains"),
                Just("starts_with"),
                Just("ends_with"),
            ],
            prop_oneof![(0i64..3).prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)],
        );
        operator.prop_map(|(name, value)| match name {
            "starts_with" | "ends_with" => json!({name: value.to_string()}),
            _ => json!({name: value}),
        })
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused_and_what_is_read_answers(
            source in anything(),
            document in proptest::option::of(anything()),
            status in proptest::option::of(any::<u16>()),
            header in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            if let Ok(condition) = Condition::read(&source) {
                let headers = Headers(vec![("a".to_owned(), header.into())]);
                let given = Given { status, headers: &headers, document: document.as_ref() };
                let once = condition.holds(given);
                prop_assert_eq!(once, condition.holds(given));
                prop_assert_eq!(condition.source(), &source);
                let not = Condition::read(&json!({"not": source}));
                if let Ok(not) = not {
                    prop_assert_eq!(not.holds(given), !once);
                }
            }
        }

        #[test]
        fn not_any_and_all_are_logic(
            a in operators(), b in operators(),
            value in prop_oneof![(0i64..3).prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)],
        ) {
            let of = |operators: &Value| {
                Condition::read(&json!({"json": {"/v": operators}})).unwrap()
            };
            let headers = Headers::default();
            let document = json!({"v": value});
            let given = Given { status: None, headers: &headers, document: Some(&document) };
            let (left, right) = (of(&a).holds(given), of(&b).holds(given));
            prop_assert_eq!(of(&json!({"not": a})).holds(given), !left);
            prop_assert_eq!(of(&json!({"any": [a, b]})).holds(given), left || right);
            prop_assert_eq!(of(&json!({"all": [a, b]})).holds(given), left && right);
        }
    }
}
