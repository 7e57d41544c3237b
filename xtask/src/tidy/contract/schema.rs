//! Whether what a schema let through is let through, and what it told stays true.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Whose word a schema is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// What callers may say: it may take more, and not less.
    Asked,
    /// What callers are told: it may say less, and members more.
    Told,
}

/// Words by which callers decide what to do: a new one is met by nobody. Others may get more of them.
const DECIDED_BY: [&str; 4] =
    ["schema Advice", "schema State", "schema Effects", "schema Claim, answered: /status"];

/// Bounds of what may be asked: whether a larger number takes less.
const BOUNDS: [(&str, bool); 10] = [
    ("minimum", true),
    ("exclusiveMinimum", true),
    ("minLength", true),
    ("minItems", true),
    ("minProperties", true),
    ("maximum", false),
    ("exclusiveMaximum", false),
    ("maxLength", false),
    ("maxItems", false),
    ("maxProperties", false),
];

/// Conditions that cannot be weighed against each other: of what may be asked, none is added or changed.
const RULES: [&str; 10] = [
    "pattern",
    "format",
    "multipleOf",
    "uniqueItems",
    "propertyNames",
    "patternProperties",
    "dependentRequired",
    "dependentSchemas",
    "contentEncoding",
    "contains",
];

/// Choices of shapes.
const CHOICES: [&str; 2] = ["anyOf", "oneOf"];

/// The thing that a reference names, or what stands there itself.
pub(super) fn resolved<'a>(document: &'a Value, said: &'a Value) -> &'a Value {
    let mut said = said;
    // As deep as any sane document refers.
    for _ in 0..16 {
        let Some(reference) = said["$ref"].as_str() else { break };
        said =
            reference.strip_prefix('#').and_then(|at| document.pointer(at)).unwrap_or(&Value::Null);
    }
    said
}

/// A walk through two documents.
pub(super) struct Walk<'a> {
    pub(super) before: &'a Value,
    pub(super) after: &'a Value,
    /// What does not hold any more, in order and each once.
    pub(super) said: Vec<String>,
    seen: BTreeSet<(Side, String, String)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(before: &'a Value, after: &'a Value) -> Self {
        Self { before, after, said: Vec::new(), seen: BTreeSet::new() }
    }

    pub(super) fn say(&mut self, place: &str, what: &str) {
        let said = format!("{place}: {what}");
        if !self.said.contains(&said) {
            self.said.push(said);
        }
    }

    /// Compares two schemas that stand at a place. What both name alike is told of under that name.
    pub(super) fn schemas(&mut self, side: Side, place: &str, before: &Value, after: &Value) {
        let name = |said: &Value| {
            said["$ref"].as_str().and_then(|at| at.rsplit('/').next()).map(str::to_owned)
        };
        let (name, name_now) = (name(before), name(after));
        let mut place = place.to_owned();
        if let Some(name) = name {
            let key = (side, name.clone(), name_now.clone().unwrap_or_else(|| after.to_string()));
            if !self.seen.insert(key) {
                return;
            }
            if name_now.is_none_or(|now| now == name) {
                let word = match side {
                    Side::Asked => "asked",
                    Side::Told => "answered",
                };
                place = format!("schema {name}, {word}");
            }
        }
        let before = Shape::of(self.before, before);
        let after = Shape::of(self.after, after);
        self.shapes(side, &Place { at: place, member: String::new() }, &before, &after);
    }

    /// Compares within a place: a member's own place is its pointer.
    fn within(&mut self, side: Side, place: &Place, before: &Value, after: &Value) {
        if before.get("$ref").is_some() {
            return self.schemas(side, &place.to_string(), before, after);
        }
        let before = Shape::of(self.before, before);
        let after = Shape::of(self.after, after);
        self.shapes(side, place, &before, &after);
    }

    fn shapes(&mut self, side: Side, place: &Place, before: &Shape, after: &Shape) {
        self.types(side, place, before, after);
        self.words(side, place, before, after);
        self.members(side, place, before, after);
        if side == Side::Asked {
            self.bounds(place, before, after);
        } else if let Some(format) = before.said.get("format")
            && after.said.get("format") != Some(format)
        {
            self.say(&place.to_string(), &format!("its format is {format} no more"));
        }
        match (before.said.get("items"), after.said.get("items")) {
            (Some(items), Some(now)) => self.within(side, &place.deeper("[]"), items, now),
            (None, Some(_)) if side == Side::Asked => {
                self.say(&place.to_string(), "its items have a shape now");
            }
            (Some(_), None) if side == Side::Told => {
                self.say(&place.to_string(), "its items have no shape now");
            }
            _ => {}
        }
        // One kind of choice may become the other; where there are both, each stays by itself.
        let kinds = |shape: &Shape| CHOICES.map(|kind| shape.said.contains_key(kind));
        if kinds(before) == [true, true] || kinds(before) == kinds(after) {
            for kind in CHOICES {
                self.choices(side, place, before.choices(&[kind]), after.choices(&[kind]));
            }
        } else {
            self.choices(side, place, before.choices(&CHOICES), after.choices(&CHOICES));
        }
    }

    fn types(&mut self, side: Side, place: &Place, before: &Shape, after: &Shape) {
        let (types, types_now) = (before.types(), after.types());
        let (wide, narrow) = match side {
            Side::Asked => (&types_now, &types),
            Side::Told => (&types, &types_now),
        };
        let Some(wide) = wide else { return };
        // What may be anything may be what the other is not.
        let narrow = narrow.clone().unwrap_or_else(|| vec!["anything".to_owned()]);
        let is_within =
            |kind: &str| wide.iter().any(|it| it == kind || (it == "number" && kind == "integer"));
        for kind in narrow.iter().filter(|kind| !is_within(kind)) {
            let what = match side {
                Side::Asked => format!("it may not be {kind}, which it was"),
                Side::Told => format!("it may be {kind}, which it was not"),
            };
            self.say(&place.to_string(), &what);
        }
    }

    fn words(&mut self, side: Side, place: &Place, before: &Shape, after: &Shape) {
        let (words, words_now) = (before.words(), after.words());
        let at = place.to_string();
        match (side, words, words_now) {
            (Side::Asked, Some(words), Some(now)) => {
                for word in words.iter().filter(|word| !now.contains(word)) {
                    self.say(&at, &format!("the word {word} is gone"));
                }
            }
            (Side::Asked, None, Some(_)) => self.say(&at, "it takes only certain words now"),
            (Side::Told, Some(words), Some(now)) => {
                let is_closed = before.said.contains_key("const")
                    || DECIDED_BY.iter().any(|closed| at.starts_with(closed));
                for word in now.iter().filter(|word| is_closed && !words.contains(word)) {
                    self.say(&at, &format!("the word {word} is new, and callers decide by these"));
                }
            }
            (Side::Told, Some(_), None) => self.say(&at, "it may say any word now"),
            _ => {}
        }
    }

    fn members(&mut self, side: Side, place: &Place, before: &Shape, after: &Shape) {
        for (name, said) in &before.members {
            let place = place.deeper(&format!("/{name}"));
            match after.members.get(name) {
                None => self.say(&place.at, &format!("{} is gone", place.member)),
                Some(now) => self.within(side, &place, said, now),
            }
        }
        let (wants, wanted) = match side {
            Side::Asked => (&after.required, &before.required),
            Side::Told => (&before.required, &after.required),
        };
        for name in wants.difference(wanted) {
            let member = place.deeper(&format!("/{name}")).member;
            let what = match side {
                Side::Asked => "is required now",
                // One that is gone was told of.
                Side::Told if after.members.contains_key(name) => "may be missing now",
                Side::Told => continue,
            };
            self.say(&place.at, &format!("{member} {what}"));
        }
        let more = before.said.get("additionalProperties").filter(|more| more.is_object());
        match after.said.get("additionalProperties") {
            Some(Value::Bool(false)) if side == Side::Asked && !before.is_closed() => {
                self.say(&place.to_string(), "it takes no other members now");
            }
            Some(now @ Value::Object(_)) => {
                let any = Value::Bool(true);
                self.within(side, &place.deeper("/*"), more.unwrap_or(&any), now);
            }
            _ => {}
        }
    }

    fn bounds(&mut self, place: &Place, before: &Shape, after: &Shape) {
        for (bound, is_lower) in BOUNDS {
            let number = |shape: &Shape| shape.said.get(bound).and_then(Value::as_f64);
            let (was, now) = (number(before), number(after));
            let Some(now) = now else { continue };
            match was {
                None => {
                    self.say(&place.to_string(), &format!("{bound} is {now} and was not there"));
                }
                Some(was) if (is_lower && now > was) || (!is_lower && now < was) => {
                    self.say(&place.to_string(), &format!("{bound} is {now} and was {was}"));
                }
                Some(_) => {}
            }
        }
        for rule in RULES {
            let now = after.said.get(rule);
            if now.is_some() && now != before.said.get(rule) {
                self.say(&place.to_string(), &format!("its {rule} is another"));
            }
        }
        for rule in after.rules.iter().filter(|rule| !before.rules.contains(rule)) {
            self.say(&place.to_string(), &format!("a condition is new: {rule}"));
        }
    }

    /// Of what may be asked each choice stays; of what is told none is new.
    fn choices(
        &mut self,
        side: Side,
        place: &Place,
        choices: Option<&Vec<Value>>,
        choices_now: Option<&Vec<Value>>,
    ) {
        let (kept, among) = match side {
            Side::Asked => (choices, choices_now),
            Side::Told => (choices_now, choices),
        };
        // Without a choice it takes, or says, whatever its other words let.
        let Some(among) = among else { return };
        let Some(kept) = kept else {
            return self.say(&place.to_string(), "it is a choice of shapes now");
        };
        for choice in kept {
            let fits = among.iter().any(|other| {
                let seen = self.seen.clone();
                let mut trial = Self { seen, ..Self::new(self.before, self.after) };
                match side {
                    Side::Asked => trial.within(side, place, choice, other),
                    Side::Told => trial.within(side, place, other, choice),
                }
                let is_fit = trial.said.is_empty();
                if is_fit {
                    self.seen = trial.seen;
                }
                is_fit
            });
            if !fits {
                let what = match side {
                    Side::Asked => format!("a choice is gone: {choice}"),
                    Side::Told => format!("a choice is new: {choice}"),
                };
                self.say(&place.to_string(), &what);
            }
        }
    }
}

/// A place within a schema.
struct Place {
    at: String,
    /// The pointer of a member within it.
    member: String,
}

impl Place {
    fn deeper(&self, step: &str) -> Self {
        Self { at: self.at.clone(), member: format!("{}{step}", self.member) }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.member {
            "" => f.write_str(&self.at),
            member => write!(f, "{}: {member}", self.at),
        }
    }
}

/// A schema with what it extends laid into it.
struct Shape {
    said: Map<String, Value>,
    members: BTreeMap<String, Value>,
    required: BTreeSet<String>,
    /// Conditions that are whole schemas.
    rules: Vec<Value>,
}

impl Shape {
    fn of(document: &Value, schema: &Value) -> Self {
        let mut shape = Self {
            said: Map::new(),
            members: BTreeMap::new(),
            required: BTreeSet::new(),
            rules: Vec::new(),
        };
        shape.take(document, schema, 0);
        shape
    }

    fn take(&mut self, document: &Value, schema: &Value, depth: usize) {
        let Some(said) = resolved(document, schema).as_object() else { return };
        for (word, value) in said {
            match word.as_str() {
                "properties" => {
                    let members = value.as_object().into_iter().flatten();
                    self.members.extend(members.map(|(name, said)| (name.clone(), said.clone())));
                }
                "required" => {
                    let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                    self.required.extend(names.map(str::to_owned));
                }
                // What extends itself says nothing more.
                "allOf" if depth < 16 => {
                    for part in value.as_array().into_iter().flatten() {
                        self.take(document, part, depth + 1);
                    }
                }
                "not" | "if" | "then" | "else" => {
                    self.rules.push(Value::Object(Map::from_iter([(word.clone(), bare(value))])));
                }
                _ => {
                    self.said.insert(word.clone(), value.clone());
                }
            }
        }
    }

    fn types(&self) -> Option<Vec<String>> {
        let said = match self.said.get("type")? {
            Value::String(one) => vec![one.clone()],
            several => {
                let several = several.as_array().into_iter().flatten().filter_map(Value::as_str);
                several.map(str::to_owned).collect()
            }
        };
        Some(said)
    }

    fn words(&self) -> Option<Vec<Value>> {
        let one = self.said.get("const").map(|word| vec![word.clone()]);
        one.or_else(|| self.said.get("enum")?.as_array().cloned())
    }

    fn choices(&self, kinds: &[&str]) -> Option<&Vec<Value>> {
        kinds.iter().find_map(|kind| self.said.get(*kind)?.as_array())
    }

    fn is_closed(&self) -> bool {
        self.said.get("additionalProperties") == Some(&Value::Bool(false))
    }
}

/// A schema without the words that are for people.
fn bare(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let is_bones = |name: &str| !["description", "example", "title"].contains(&name);
            let bones = members.iter().filter(|(name, _)| is_bones(name));
            Value::Object(bones.map(|(name, value)| (name.clone(), bare(value))).collect())
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is said of one schema that became another, as what is asked and as what is told.
    fn both(before: &Value, after: &Value) -> [Vec<String>; 2] {
        [Side::Asked, Side::Told].map(|side| {
            let mut walk = Walk::new(&Value::Null, &Value::Null);
            walk.schemas(side, "here", before, after);
            walk.said
        })
    }

    #[track_caller]
    fn says(before: &Value, after: &Value, asked: &[&str], told: &[&str]) {
        let [asks, tells] = both(before, after);
        assert_eq!(asks, asked, "asked");
        assert_eq!(tells, told, "told");
    }

    #[test]
    fn a_type_may_be_wider_in_what_is_asked_and_narrower_in_what_is_told() {
        let (text, perhaps) = (json!({ "type": "string" }), json!({ "type": ["string", "null"] }));
        says(&text, &perhaps, &[], &["here: it may be null, which it was not"]);
        says(&perhaps, &text, &["here: it may not be null, which it was"], &[]);
        let (whole, number) = (json!({ "type": "integer" }), json!({ "type": "number" }));
        says(&whole, &number, &[], &["here: it may be number, which it was not"]);
        says(&number, &whole, &["here: it may not be number, which it was"], &[]);
        says(&json!({}), &text, &["here: it may not be anything, which it was"], &[]);
        says(&text, &json!({}), &[], &["here: it may be anything, which it was not"]);
    }

    #[test]
    fn words_may_be_added_to_what_is_asked_and_to_most_of_what_is_told() {
        let (few, more) = (json!({ "enum": ["a"] }), json!({ "enum": ["a", "b"] }));
        says(&few, &more, &[], &[]);
        says(&more, &few, &["here: the word \"b\" is gone"], &[]);
        says(&few, &json!({}), &[], &["here: it may say any word now"]);
        says(&json!({}), &few, &["here: it takes only certain words now"], &[]);
        let what = "here: the word \"b\" is new, and callers decide by these";
        says(&json!({ "const": "a" }), &more, &[], &[what]);
    }

    #[test]
    fn words_by_which_callers_decide_get_no_more() {
        let document =
            |words: Value| json!({ "components": { "schemas": { "State": { "enum": words } } } });
        let state = json!({ "$ref": "#/components/schemas/State" });
        let (before, after) = (document(json!(["done"])), document(json!(["done", "asleep"])));
        let mut walk = Walk::new(&before, &after);
        walk.schemas(Side::Told, "here", &state, &state);
        walk.schemas(Side::Told, "there", &state, &state);
        walk.schemas(Side::Asked, "here", &state, &state);
        let what =
            "schema State, answered: the word \"asleep\" is new, and callers decide by these";
        assert_eq!(walk.said, [what]);
    }

    #[test]
    fn a_member_that_is_gone_breaks_and_one_that_is_new_does_not() {
        let object = |members: Value| json!({ "type": "object", "properties": members });
        let one = object(json!({ "a": { "type": "string" } }));
        let two = object(json!({ "a": { "type": "string" }, "b": {} }));
        says(&one, &two, &[], &[]);
        says(&two, &one, &["here: /b is gone"], &["here: /b is gone"]);
        let other = object(json!({ "a": { "type": "integer" } }));
        let [asked, told] = both(&one, &other);
        assert_eq!(asked, ["here: /a: it may not be string, which it was"]);
        assert_eq!(told, ["here: /a: it may be integer, which it was not"]);
    }

    #[test]
    fn nothing_more_is_required_and_nothing_less_is_told() {
        let object = |required: Value| json!({ "properties": { "a": {} }, "required": required });
        let (none, a) = (object(json!([])), object(json!(["a"])));
        says(&none, &a, &["here: /a is required now"], &[]);
        says(&a, &none, &[], &["here: /a may be missing now"]);
    }

    #[test]
    fn what_is_asked_is_not_closed_and_what_is_told_may_be_open() {
        let (open, closed) = (json!({}), json!({ "additionalProperties": false }));
        says(&open, &closed, &["here: it takes no other members now"], &[]);
        says(&closed, &open, &[], &[]);
        let map = |kind: &str| json!({ "additionalProperties": { "type": kind } });
        says(
            &map("string"),
            &map("integer"),
            &["here: /*: it may not be string, which it was"],
            &["here: /*: it may be integer, which it was not"],
        );
    }

    #[test]
    fn bounds_of_what_is_asked_are_not_narrowed_and_those_of_what_is_told_are_nobodys_matter() {
        for (bound, narrower) in
            [("maximum", 8), ("maxLength", 8), ("maxItems", 8), ("minimum", 10), ("minLength", 10)]
        {
            let at = |number: i32| json!({ bound: number });
            let said = format!("here: {bound} is {narrower} and was 9");
            says(&at(9), &at(narrower), &[&said], &[]);
            says(&at(narrower), &at(9), &[], &[]);
            says(&json!({}), &at(9), &[&format!("here: {bound} is 9 and was not there")], &[]);
            says(&at(9), &json!({}), &[], &[]);
        }
    }

    #[test]
    fn conditions_of_what_is_asked_are_not_added_and_a_format_that_was_told_stays() {
        let (plain, dated) = (json!({}), json!({ "format": "date-time", "pattern": "^2" }));
        says(&plain, &dated, &["here: its pattern is another", "here: its format is another"], &[]);
        says(&dated, &plain, &[], &["here: its format is \"date-time\" no more"]);
        let not = json!({ "not": { "required": ["a", "b"], "description": "words" } });
        says(
            &plain,
            &not,
            &["here: a condition is new: {\"not\":{\"required\":[\"a\",\"b\"]}}"],
            &[],
        );
        says(
            &not,
            &json!({ "not": { "required": ["a", "b"], "description": "other words" } }),
            &[],
            &[],
        );
    }

    #[test]
    fn items_are_compared_too() {
        let list = |kind: &str| json!({ "type": "array", "items": { "type": kind } });
        says(
            &list("string"),
            &list("integer"),
            &["here: []: it may not be string, which it was"],
            &["here: []: it may be integer, which it was not"],
        );
        says(
            &list("string"),
            &json!({ "type": "array" }),
            &[],
            &["here: its items have no shape now"],
        );
    }

    #[test]
    fn a_choice_stays_in_what_is_asked_and_none_is_new_in_what_is_told() {
        let either = |kinds: &[&str]| {
            let choices: Vec<_> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
            json!({ "anyOf": choices })
        };
        let (one, two) = (either(&["string"]), either(&["null", "string"]));
        says(&one, &two, &[], &["here: a choice is new: {\"type\":\"null\"}"]);
        says(&two, &one, &["here: a choice is gone: {\"type\":\"null\"}"], &[]);
        says(&json!({}), &one, &["here: it is a choice of shapes now"], &[]);
        says(&two, &json!({ "oneOf": two["anyOf"] }), &[], &[]);
        let of = |kind: &str| json!({ "anyOf": [{}], "oneOf": [{ "type": kind }] });
        let said = [
            "here: a choice is gone: {\"type\":\"null\"}",
            "here: a choice is new: {\"type\":\"string\"}",
        ];
        says(&of("null"), &of("string"), &said[..1], &said[1..]);
    }

    #[test]
    fn what_a_schema_extends_is_part_of_it() {
        let extended = json!({ "allOf": [{ "properties": { "a": {} }, "required": ["a"] }, { "properties": { "b": {} } }] });
        let whole = json!({ "properties": { "a": {}, "b": {} }, "required": ["a"] });
        says(&extended, &whole, &[], &[]);
        says(&whole, &extended, &[], &[]);
    }

    #[test]
    fn a_schema_that_refers_to_itself_has_an_end() {
        let document = json!({ "components": { "schemas": { "Tree": {
            "properties": { "of": { "type": "array", "items": { "$ref": "#/components/schemas/Tree" } } },
        } } } });
        let tree = json!({ "$ref": "#/components/schemas/Tree" });
        let mut walk = Walk::new(&document, &document);
        walk.schemas(Side::Told, "here", &tree, &tree);
        assert_eq!(walk.said, [] as [&str; 0]);
    }
}
