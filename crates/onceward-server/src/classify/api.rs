//! The operations of an OpenAPI 3 or Swagger 2 document, and how risky it is to repeat each.

use onceward::core::policy::is_safe;
use onceward::core::upstream_key::KeyPlace;
use serde_json::{Map, Value};

/// The methods that a path may have, in the order in which they are told.
const METHODS: [&str; 8] = ["get", "head", "options", "trace", "put", "delete", "post", "patch"];

/// Headers that carry an idempotency key without saying so in their name.
const KEY_HEADERS: [&str; 2] = ["paypal-request-id", "repeatability-request-id"];

/// Words by which money moves.
const MONEY: [&str; 24] = [
    "payment",
    "pay",
    "charge",
    "refund",
    "payout",
    "transfer",
    "capture",
    "checkout",
    "order",
    "invoice",
    "billing",
    "subscription",
    "withdraw",
    "withdrawal",
    "deposit",
    "purchase",
    "wallet",
    "credit",
    "debit",
    "settlement",
    "topup",
    "donation",
    "booking",
    "void",
];

/// Words by which somebody is reached.
const REACH: [&str; 12] = [
    "send",
    "mail",
    "email",
    "message",
    "sms",
    "call",
    "notification",
    "notify",
    "invite",
    "invitation",
    "publish",
    "broadcast",
];

/// How many references may lead to one another.
const REFERENCES_MAX: usize = 16;

/// What a document says.
#[derive(Debug, Default)]
pub(super) struct Api {
    pub(super) title: String,
    /// Where it is, where the document says so whole.
    pub(super) server: Option<String>,
    pub(super) operations: Vec<Operation>,
    /// What it sends by itself: names.
    pub(super) webhooks: Vec<String>,
    /// What was not read, in words for a person.
    pub(super) notes: Vec<String>,
}

/// One method of one path.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: String,
    /// As the document has it, with its templates.
    pub(super) path: String,
    pub(super) id: Option<String>,
    pub(super) key: Option<DeclaredKey>,
    /// The first word that says that money moves.
    money: Option<&'static str>,
    /// The first word that says that somebody is reached.
    reach: Option<&'static str>,
    /// What it calls back, by name.
    pub(super) callbacks: Vec<String>,
}

/// A parameter by which an operation dedupes.
#[derive(Debug)]
pub(super) struct DeclaredKey {
    pub(super) place: KeyPlace,
    pub(super) is_required: bool,
}

/// What it may cost to do an operation twice, or not to know whether it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Risk {
    None,
    Low,
    Medium,
    High,
}

impl Risk {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl Operation {
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.method.as_str(), "PUT" | "DELETE")
    }

    /// What a second arrival would do, in the configuration's words, or `safe`.
    pub(super) fn effects(&self) -> &'static str {
        match () {
            () if is_safe(&self.method) => "safe",
            () if self.is_idempotent() => "idempotent",
            () if self.key.is_some() => "keyed",
            () => "non-idempotent",
        }
    }

    pub(super) fn risk(&self) -> Risk {
        let touches = self.money.is_some() || self.reach.is_some();
        match self.effects() {
            "safe" => Risk::None,
            "non-idempotent" if touches => Risk::High,
            "non-idempotent" => Risk::Medium,
            _ if touches => Risk::Medium,
            _ => Risk::Low,
        }
    }

    /// Whether money moves.
    pub(super) fn is_payment(&self) -> bool {
        self.money.is_some()
    }

    /// Why it is classified so, in words for a person.
    pub(super) fn why(&self) -> Vec<String> {
        let mut why = vec![match (self.effects(), &self.key) {
            ("safe", _) => "it only reads".to_owned(),
            ("keyed", Some(key)) => format!("it declares a key, {}", key.place),
            ("idempotent", _) => format!("{} is idempotent by definition", self.method),
            _ => format!("{} is not idempotent, and no key is declared", self.method),
        }];
        if !is_safe(&self.method) {
            why.extend(self.money.map(|word| format!("money may move ({word})")));
            why.extend(self.reach.map(|word| format!("somebody may be reached ({word})")));
        }
        why
    }

    /// The path as a rule matches it: `*` for each segment that is not fixed.
    pub(super) fn pattern(&self) -> String {
        let fixed = |segment: &&str| !segment.contains(['{', '}', ' ', '*', '?', '#']);
        let path = self.path.split('?').next().unwrap_or_default();
        let segments: Vec<_> =
            path.split('/').map(|segment| if fixed(&segment) { segment } else { "*" }).collect();
        segments.join("/")
    }
}

impl Api {
    pub(super) fn read(document: &Value) -> Result<Self, String> {
        let is_openapi = document.get("openapi").is_some() || document.get("swagger").is_some();
        if !is_openapi {
            return Err("it says neither `openapi` nor `swagger`".to_owned());
        }
        let mut api = Self {
            title: text(&document["info"]["title"]).unwrap_or("api").to_owned(),
            server: server(document),
            ..Self::default()
        };
        let paths = document["paths"].as_object();
        for (path, item) in paths.into_iter().flatten().filter(|(path, _)| path.starts_with('/')) {
            match resolve(document, item).and_then(Value::as_object) {
                Some(item) => api.add(document, path, item),
                None => api.notes.push(format!("{path} refers to what is not in this document")),
            }
        }
        api.webhooks = names(document.get("webhooks"));
        if api.operations.is_empty() {
            api.notes.push("the document has no operation".to_owned());
        }
        Ok(api)
    }

    fn add(&mut self, document: &Value, path: &str, item: &Map<String, Value>) {
        for method in METHODS {
            let Some(operation) = item.get(method).and_then(Value::as_object) else { continue };
            let declared = [item.get("parameters"), operation.get("parameters")];
            let parameters = declared.into_iter().flatten().filter_map(Value::as_array).flatten();
            let mut key = None;
            for parameter in parameters.filter_map(|parameter| resolve(document, parameter)) {
                key = key.or_else(|| key_parameter(document, parameter));
            }
            key = key.or_else(|| {
                let body = resolve(document, operation.get("requestBody")?)?;
                let mut kinds = body.get("content")?.as_object()?.iter();
                let (_, json) = kinds.find(|(kind, _)| kind.contains("json"))?;
                key_member(document, json.get("schema")?)
            });
            let id = operation.get("operationId").and_then(text).map(str::to_owned);
            let words = words(&[path, id.as_deref().unwrap_or_default()]);
            self.operations.push(Operation {
                method: method.to_ascii_uppercase(),
                path: path.to_owned(),
                id,
                key: key.filter(|_| matches!(method, "post" | "patch")),
                money: first(&MONEY, &words),
                reach: first(&REACH, &words),
                callbacks: names(operation.get("callbacks")),
            });
        }
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

fn names(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect()
}

/// What a value is, where it is a reference within the document.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> Option<&'a Value> {
    let mut value = value;
    for _ in 0..REFERENCES_MAX {
        let Some(reference) = value.get("$ref").and_then(text) else { return Some(value) };
        value = document.pointer(reference.strip_prefix('#')?)?;
    }
    None
}

/// Whether a name says that it is an idempotency key's.
fn is_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A configuration would read `${` in it as a variable.
    let fits = name.len() <= 200 && !name.contains(['$', '\n']);
    (fits && name.contains("idempoten")) || KEY_HEADERS.contains(&name.as_str())
}

fn key_parameter(document: &Value, parameter: &Value) -> Option<DeclaredKey> {
    let name = parameter.get("name").and_then(text)?;
    let is_required = parameter.get("required").and_then(Value::as_bool).unwrap_or(false);
    match parameter.get("in").and_then(text)? {
        "header" if is_key(name) && http::HeaderName::from_bytes(name.as_bytes()).is_ok() => {
            Some(DeclaredKey { place: KeyPlace::Header(name.to_ascii_lowercase()), is_required })
        }
        "query" if is_key(name) => {
            Some(DeclaredKey { place: KeyPlace::Query(name.to_owned()), is_required })
        }
        // Swagger 2 has the body among the parameters.
        "body" => key_member(document, parameter.get("schema")?),
        _ => None,
    }
}

/// A member of the body that is a key, of its schema or of one that it is made of.
fn key_member(document: &Value, schema: &Value) -> Option<DeclaredKey> {
    let schema = resolve(document, schema)?;
    let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
    let whole = parts.filter_map(|part| resolve(document, part)).chain([schema]);
    whole.into_iter().find_map(|schema| {
        let members = schema.get("properties")?.as_object()?;
        let name = members.keys().find(|name| is_key(name))?;
        let required = schema.get("required").and_then(Value::as_array);
        let is_required =
            required.is_some_and(|names| names.iter().any(|other| text(other) == Some(name)));
        let escaped = name.replace('~', "~0").replace('/', "~1");
        Some(DeclaredKey { place: KeyPlace::Json(format!("/{escaped}")), is_required })
    })
}

/// The words of a path and an id, in lower case and without a plural's s.
fn words(texts: &[&str]) -> Vec<String> {
    let mut words = vec![String::new()];
    for text in texts {
        let mut was_lower = false;
        for letter in text.chars() {
            let begins =
                !letter.is_ascii_alphabetic() || (was_lower && letter.is_ascii_uppercase());
            if begins {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut().filter(|_| letter.is_ascii_alphabetic()) {
                word.push(letter.to_ascii_lowercase());
            }
            was_lower = letter.is_ascii_lowercase();
        }
        words.push(String::new());
    }
    words.iter().map(|word| word.strip_suffix('s').unwrap_or(word).to_owned()).collect()
}

fn first(listed: &[&'static str], words: &[String]) -> Option<&'static str> {
    listed.iter().copied().find(|word| words.iter().any(|other| other == word))
}

/// The first server's address, whole: variables have their defaults.
fn server(document: &Value) -> Option<String> {
    if let Some(server) = document["servers"].get(0) {
        let mut url = text(&server["url"])?.to_owned();
        for (name, variable) in server["variables"].as_object().into_iter().flatten() {
            url = url.replace(&format!("{{{name}}}"), text(&variable["default"])?);
        }
        return usable(&url);
    }
    let host = text(&document["host"])?;
    let schemes = document["schemes"].as_array().into_iter().flatten().filter_map(text);
    let scheme = schemes.into_iter().max().unwrap_or("https");
    usable(&format!("{scheme}://{host}{}", text(&document["basePath"]).unwrap_or_default()))
}

/// An address that a route can have.
pub(super) fn usable(text: &str) -> Option<String> {
    let url = url::Url::parse(text.trim_end_matches('/')).ok()?;
    let is_plain = url.username().is_empty() && url.query().is_none() && url.fragment().is_none();
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain;
    let is_whole = !text.contains(['{', '}', '$', '"', '\\']);
    (fits && is_whole).then(|| text.trim_end_matches('/').to_owned())
}
