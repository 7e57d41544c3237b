//! Where in a webhook something stands: its id, what it is about, its place in an order.

use std::cell::OnceCell;

use onceward_core::reconcile::name_of;
use serde_json::Value;
use url::form_urlencoded;

use super::Delivery;

/// A place in a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A header, its name in lower case.
    Header(String),
    /// A member of a JSON body (RFC 6901).
    Json(String),
    /// A field of a body that is a form.
    Form(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Json(pointer) => write!(f, "json {pointer}"),
            Self::Form(field) => write!(f, "form {field}"),
        }
    }
}

/// A webhook whose body is read as JSON once, and only where somebody asks.
#[derive(Debug)]
pub struct Document<'a> {
    delivery: Delivery<'a>,
    json: OnceCell<Option<Value>>,
}

impl<'a> Document<'a> {
    /// The webhook as a document.
    pub fn new(delivery: Delivery<'a>) -> Self {
        Self { delivery, json: OnceCell::new() }
    }

    /// Its JSON, where it is that.
    pub fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| serde_json::from_slice(self.delivery.body).ok()).as_ref()
    }

    /// What stands at `place`: text that is not empty, or a number.
    pub fn at(&self, place: &Place) -> Option<String> {
        let found = match place {
            Place::Header(name) => self.delivery.headers.text(name).map(str::to_owned),
            Place::Json(pointer) => self.json()?.pointer(pointer).and_then(name_of),
            Place::Form(field) => {
                let mut pairs = form_urlencoded::parse(self.delivery.body);
                pairs.find(|(name, _)| name == field).map(|(_, value)| value.into_owned())
            }
        };
        found.filter(|found| !found.is_empty())
    }
}
