//! The lists of other products, read: what of an endpoint can be as it was, what is lost, and what would come to
//! mean something else, so that it is left.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Product;

/// An endpoint of another product.
#[derive(Debug, Clone, Default)]
pub(super) struct Endpoint {
    /// What it is called there.
    pub(super) id: String,
    pub(super) url: String,
    /// Of these types; of all where there is none.
    pub(super) types: Vec<String>,
    pub(super) headers: BTreeMap<String, String>,
    /// As Standard Webhooks have it.
    pub(super) secret: Option<String>,
    /// Why one has to be made, where it is made.
    pub(super) without_secret: Option<&'static str>,
    pub(super) is_enabled: bool,
    pub(super) description: String,
    /// What is not taken.
    pub(super) notes: Vec<String>,
    /// Why it is not taken at all: it would get what it did not.
    pub(super) broken: Option<String>,
}

/// Reads a list as the product's API gives it.
pub(super) fn read(product: Product, list: &Value) -> Result<Vec<Endpoint>, String> {
    let (places, shape): (&[&str], _) = match product {
        Product::Svix => (&["", "/data"], "the answer to GET /api/v1/app/{app}/endpoint"),
        Product::Convoy => (
            &["", "/content", "/data", "/data/content"],
            "the answer to GET /api/v1/projects/{project}/subscriptions, or …/endpoints",
        ),
    };
    let found = places.iter().find_map(|place| list.pointer(place)?.as_array());
    let found =
        found.ok_or_else(|| format!("there is no list of {}: {shape}", product_name(product)))?;
    let mut all = Vec::new();
    for (place, endpoint) in found.iter().enumerate() {
        let read = match product {
            Product::Svix => of_svix(endpoint),
            Product::Convoy => of_convoy(endpoint),
        };
        let read = read.ok_or_else(|| {
            format!("number {} of the list has no id or no url; it is to be {shape}", place + 1)
        })?;
        if all.iter().any(|known: &Endpoint| known.id == read.id) {
            return Err(format!("{} is there twice", read.id));
        }
        all.push(read);
    }
    let more = match product {
        Product::Svix => list["done"] == false,
        // Where the answer's data was cut out, it stands a step higher.
        Product::Convoy => ["/data/pagination", "/pagination"]
            .iter()
            .any(|at| list.pointer(at).is_some_and(|of| of["has_next_page"] == true)),
    };
    if more {
        return Err(
            "it is one page of several: put their lists into one array, or ask for a longer page"
                .to_owned(),
        );
    }
    Ok(all)
}

fn product_name(product: Product) -> &'static str {
    match product {
        Product::Svix => "Svix' endpoints",
        Product::Convoy => "Convoy's endpoints or subscriptions",
    }
}

fn text(document: &Value, pointer: &str) -> Option<String> {
    let text = document.pointer(pointer)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn is_there(document: &Value, pointer: &str) -> bool {
    match document.pointer(pointer) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(all)) => !all.is_empty(),
        Some(Value::Object(all)) => !all.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Bool(true)) => true,
    }
}

/// Types, where it does not want all.
fn types(document: &Value, pointer: &str) -> Vec<String> {
    let all = document.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let all: Vec<String> = all.filter_map(Value::as_str).map(str::to_owned).collect();
    if all.iter().any(|kind| kind == "*") { Vec::new() } else { all }
}

/// Takes a secret where it is one of Standard Webhooks.
fn take_secret(endpoint: &mut Endpoint, secret: Option<String>) {
    let Some(secret) = secret else {
        endpoint.without_secret = Some(
            "its secret is not in the list: one is made, and its receiver has to take it over",
        );
        return;
    };
    let decoded = secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    if decoded.is_some_and(|bytes| (24..=64).contains(&bytes.len())) {
        endpoint.secret = Some(secret);
        return;
    }
    endpoint.without_secret = Some(
        "its secret is not one of Standard Webhooks (whsec_…): one is made, and its receiver has to take it over",
    );
}

fn of_svix(given: &Value) -> Option<Endpoint> {
    let mut endpoint = Endpoint {
        // A `uid` is one of its application's alone.
        id: text(given, "/id")?,
        url: text(given, "/url")?,
        types: types(given, "/filterTypes"),
        is_enabled: given["disabled"] != true,
        description: text(given, "/description").unwrap_or_default(),
        ..Endpoint::default()
    };
    let secret = ["/secret", "/key", "/secret/key"].iter().find_map(|at| text(given, at));
    take_secret(&mut endpoint, secret);
    if is_there(given, "/channels") {
        endpoint.broken = Some(format!(
            "it wants events of the channels {} alone, and there are no channels: make it by hand, with a filter",
            given["channels"]
        ));
    }
    for (member, why) in [
        ("/rateLimit", "its rate limit is not taken: subscribe by a route with a rate (`to`)"),
        ("/throttleRate", "its rate limit is not taken: subscribe by a route with a rate (`to`)"),
        ("/metadata", "its metadata is not taken"),
    ] {
        if is_there(given, member) {
            endpoint.notes.push(why.to_owned());
        }
    }
    Some(endpoint)
}

/// An endpoint, or a subscription with its endpoint in it.
fn of_convoy(given: &Value) -> Option<Endpoint> {
    let within = ["/endpoint_metadata", "/endpoint"]
        .iter()
        .find(|at| given.pointer(at).is_some_and(Value::is_object));
    let of = within.and_then(|at| given.pointer(at)).unwrap_or(given);
    let status = text(of, "/status").unwrap_or_else(|| "active".to_owned());
    let name = ["/name", "/title"].iter().find_map(|at| text(of, at));
    let mut endpoint = Endpoint {
        id: text(given, "/uid")?,
        url: ["/url", "/target_url"].iter().find_map(|at| text(of, at))?,
        types: types(given, "/filter_config/event_types"),
        is_enabled: status == "active",
        description: text(of, "/description").or(name).unwrap_or_default(),
        ..Endpoint::default()
    };
    let newest = of.pointer("/secrets").and_then(Value::as_array).and_then(|all| all.last());
    take_secret(&mut endpoint, newest.and_then(|secret| text(secret, "/value")));
    if let Some(name) = text(of, "/authentication/api_key/header_name") {
        let value = text(of, "/authentication/api_key/header_value").unwrap_or_default();
        endpoint.headers.insert(name.to_ascii_lowercase(), value);
    } else if is_there(of, "/authentication/type") {
        endpoint.notes.push(
            "what it is authenticated by is not taken: subscribe by a route with auth (`to`)"
                .to_owned(),
        );
    }
    for part in ["body", "headers"] {
        if is_there(given, &format!("/filter_config/filter/{part}")) {
            endpoint.broken = Some(format!(
                "it wants events by a filter on their {part}, which is written otherwise here: make it by hand, with a filter"
            ));
        }
    }
    if is_there(given, "/function") {
        endpoint.broken = Some("a function changes its events, and there are none here".to_owned());
    }
    endpoint.notes.push("Convoy signs in X-Convoy-Signature, and this as Standard Webhooks: its receiver has to verify webhook-signature".to_owned());
    for (document, member, why) in [
        (of, "/rate_limit", "its rate limit is not taken: subscribe by a route with a rate (`to`)"),
        (of, "/http_timeout", "its timeout is not taken: an attempt takes 30 s at most"),
        (of, "/slack_webhook_url", "who is told of its failures is not taken: alerts tell"),
        (of, "/support_email", "who is told of its failures is not taken: alerts tell"),
        (
            given,
            "/retry_config",
            "its retries are not taken: Standard Webhooks' table holds, or say --retry",
        ),
    ] {
        if is_there(document, member) && !endpoint.notes.iter().any(|note| note == why) {
            endpoint.notes.push(why.to_owned());
        }
    }
    Some(endpoint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    #[test]
    fn a_list_of_svix_is_read_and_what_cannot_be_as_it_was_is_named() {
        let list = json!({"done": true, "iterator": "i", "data": [
            {"id": "ep_1", "uid": "acme", "url": "https://a.example/h", "filterTypes": ["order.created", "order.paid"],
             "description": "Acme", "disabled": true, "rateLimit": 10, "secret": SECRET, "metadata": {}},
            {"id": "ep_2", "uid": null, "url": "https://b.example/h", "filterTypes": null, "channels": ["a"], "disabled": false},
        ]});
        let all = read(Product::Svix, &list).unwrap();
        let first = &all[0];
        assert_eq!((first.id.as_str(), first.is_enabled), ("ep_1", false));
        assert_eq!(first.types, ["order.created", "order.paid"]);
        assert_eq!(first.secret.as_deref(), Some(SECRET));
        assert_eq!(first.notes.len(), 1, "{:?}", first.notes);
        let second = &all[1];
        assert_eq!((second.id.as_str(), second.types.len(), second.is_enabled), ("ep_2", 0, true));
        assert!(second.broken.as_ref().unwrap().contains("channels"));
        assert!(second.without_secret.unwrap().contains("secret is not in the list"));
    }

    #[test]
    fn lists_of_convoy_are_read_of_subscriptions_and_of_endpoints() {
        let endpoint = json!({
            "uid": "01E", "name": "Acme", "url": "https://a.example/h", "status": "paused", "rate_limit": 5,
            "secrets": [{"value": "old"}, {"value": "plain"}],
            "authentication": {"type": "api_key", "api_key": {"header_name": "X-Key", "header_value": "k"}},
        });
        let list = json!({"status": true, "data": {"pagination": {"has_next_page": false}, "content": [
            {"uid": "01S", "name": "s", "endpoint_metadata": endpoint,
             "filter_config": {"event_types": ["order.created"], "filter": {"body": {}, "headers": {}}}},
            {"uid": "01T", "endpoint_metadata": endpoint,
             "filter_config": {"event_types": ["*"], "filter": {"body": {"amount": 1}}}},
        ]}});
        for page in [&list, &list["data"]] {
            let mut page = page.clone();
            let at = if page["data"].is_object() { &mut page["data"] } else { &mut page };
            at["pagination"]["has_next_page"] = true.into();
            assert!(read(Product::Convoy, &page).unwrap_err().contains("one page of several"));
        }
        let all = read(Product::Convoy, &list).unwrap();
        assert_eq!((all[0].id.as_str(), all[0].is_enabled), ("01S", false));
        assert_eq!((all[0].description.as_str(), all[0].headers["x-key"].as_str()), ("Acme", "k"));
        assert_eq!(all[0].types, ["order.created"]);
        assert!(all[0].secret.is_none() && all[0].broken.is_none());
        assert!(all[0].notes.iter().any(|note| note.contains("X-Convoy-Signature")));
        assert!(all[1].types.is_empty() && all[1].broken.as_ref().unwrap().contains("filter"));
        let alone = read(Product::Convoy, &json!({"data": {"content": [endpoint]}})).unwrap();
        assert_eq!(alone[0].id, "01E");
    }

    #[test]
    fn what_is_no_list_or_not_all_of_it_is_refused() {
        let bad = |list: Value| read(Product::Svix, &list).unwrap_err();
        assert!(bad(json!({"detail": "not found"})).contains("GET /api/v1/app"));
        assert!(bad(json!([{"id": "ep_1"}])).contains("number 1"));
        assert!(
            bad(json!([{"id": "a", "url": "https://a"}, {"id": "a", "url": "https://a"}]))
                .contains("twice")
        );
        assert!(bad(json!({"done": false, "data": []})).contains("one page of several"));
    }
}
