//! What a document of an API says about retrying it: the risk of each operation, and routes and
//! rules that begin from it.
//!
//! A document knows methods, parameters and words. It does not know what an upstream remembers,
//! so what comes of it is a draft for a person, careful where it cannot know.

mod api;
mod document;
mod draft;
#[cfg(test)]
mod fuzz;

use serde_json::{Value, json};

pub(crate) use self::document::read as read_document;

use self::api::{Api, Operation};

/// What is made of a document.
#[derive(Debug)]
pub(crate) struct Classified {
    api: Api,
    route: String,
    upstream: Option<String>,
}

impl Classified {
    /// Reads an OpenAPI 3 or Swagger 2 document, in JSON or YAML. `name` and `upstream` stand in
    /// for what the document calls itself and where it says that it is.
    pub(crate) fn read(
        text: &str,
        name: Option<&str>,
        upstream: Option<&str>,
    ) -> Result<Self, String> {
        let upstream = match upstream.map(|upstream| (upstream, api::usable(upstream))) {
            Some((upstream, None)) => {
                return Err(format!("--upstream {upstream}: no route can have this address"));
            }
            other => other.and_then(|(_, usable)| usable),
        };
        let document = document::read(text)?;
        let api = Api::read(&document)?;
        let route = slug(name.unwrap_or(&api.title));
        let upstream = upstream.or_else(|| api.server.clone());
        Ok(Self { api, route, upstream })
    }

    /// A configuration that `check` accepts.
    pub(crate) fn draft(&self) -> String {
        draft::draft(&self.api, &self.route, self.upstream.as_deref())
    }

    /// The table of operations.
    pub(crate) fn table(&self) -> Value {
        json!({
            "title": self.api.title,
            "route": self.route,
            "upstream": self.upstream,
            "operations": self.api.operations.iter().map(row).collect::<Vec<_>>(),
            "webhooks": self.api.webhooks,
            "notes": self.api.notes,
        })
    }
}

fn row(operation: &Operation) -> Value {
    json!({
        "method": operation.method,
        "path": operation.path,
        "match": operation.pattern(),
        "id": operation.id,
        "effects": operation.effects(),
        "key": operation.key.as_ref().map(|key| json!({
            "place": key.place.to_string(),
            "required": key.is_required,
        })),
        "risk": operation.risk().name(),
        "why": operation.why(),
        "callbacks": operation.callbacks,
    })
}

/// A route's name from any text.
fn slug(text: &str) -> String {
    let mut name = String::new();
    for letter in text.chars() {
        match letter {
            letter if letter.is_ascii_alphanumeric() => name.push(letter.to_ascii_lowercase()),
            _ if name.ends_with('-') || name.is_empty() => {}
            _ => name.push('-'),
        }
    }
    name.truncate(64);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "api".to_owned() } else { name.to_owned() }
}
