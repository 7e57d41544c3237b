//! `subscriptions import`: the endpoints that another product lists become subscriptions. Each says in its
//! description whose it was, so that the same list again finds it and changes what differs, or nothing.

mod lists;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use url::Url;

use self::lists::{Endpoint, read};
use super::path_of;
use crate::cli::client::Client;
use crate::cli::list::query;
use crate::cli::output::{Printer, Table, clean, each, say, text};
use crate::cli::send::bytes_of;
use crate::exit::Exit;
use crate::operator::LIMIT_MAX;

/// Nobody's events are anybody else's: what one application's endpoints got, others' must not.
const WHOSE: &str = "an endpoint got the events of its application alone, and a subscription gets those of its tenant\n\
    help: say whose they become with --tenant: a tenant for each application, or `--tenant default` where there is one; where \
    several share a tenant, tell their events apart with --filter";

/// The longest description of a subscription, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 255;

/// Whose list it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Product {
    /// The endpoints of an application, as its API lists them
    Svix,
    /// Endpoints or subscriptions of a project, as its API lists them
    Convoy,
}

impl Product {
    fn name(self) -> &'static str {
        match self {
            Self::Svix => "svix",
            Self::Convoy => "convoy",
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// The list, JSON as the product's API gives it; - is standard input
    file: PathBuf,
    /// Whose list it is
    #[arg(long, value_enum)]
    from: Product,
    /// Each gets those events alone of which this holds, such as '{"json": {"/data/app": "acme"}}'
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: Option<String>,
}

/// What becomes of an endpoint.
#[derive(Debug)]
enum Fate {
    Create(Map<String, Value>),
    Change(String, Map<String, Value>),
    Keep(String),
    /// It cannot be as it was, and why.
    Leave(String),
}

impl Fate {
    fn word(&self, is_dry: bool) -> &'static str {
        match (self, is_dry) {
            (Self::Create(_), true) => "would be created",
            (Self::Create(_), false) => "created",
            (Self::Change(..), true) => "would be changed",
            (Self::Change(..), false) => "changed",
            (Self::Keep(_), _) => "unchanged",
            (Self::Leave(_), _) => "not taken",
        }
    }
}

/// One endpoint's line.
#[derive(Debug)]
struct Line {
    endpoint: Endpoint,
    word: &'static str,
    id: Option<String>,
    /// One that was made, which its receiver does not have yet.
    secret: Option<String>,
    notes: Vec<String>,
}

pub(super) async fn import(flags: &Import, client: &Client, out: Printer) -> Result<(), Exit> {
    let bytes = bytes_of(None, Some(&flags.file))?.unwrap_or_default();
    let list: Value = serde_json::from_slice(&bytes).map_err(|error| {
        Exit::usage(format!("{}: it is no JSON: {error}", flags.file.display()))
    })?;
    let endpoints = read(flags.from, &list)
        .map_err(|why| Exit::usage(format!("{}: {why}", flags.file.display())))?;
    if client.tenant().is_none() {
        return Err(Exit::usage(WHOSE));
    }
    let filter = flags.filter.as_deref().map(serde_json::from_str::<Value>).transpose();
    let filter =
        filter.map_err(|error| Exit::usage(format!("--filter: it is no JSON: {error}")))?;
    let known = all(client).await?;
    let by_mark = by_mark(&known, flags.from);
    let (mut lines, mut away) = (Vec::new(), None);
    for endpoint in endpoints {
        let fate = fate_of(&endpoint, flags.from, filter.as_ref(), &by_mark);
        match done(fate, endpoint, flags, client).await {
            Ok(line) => lines.push(line),
            Err(exit) => {
                away = Some(exit);
                break;
            }
        }
    }
    // What was made has secrets that are shown this once.
    tell(&lines, out)?;
    if let Some(exit) = away {
        return Err(exit);
    }
    let left = lines.iter().filter(|line| line.word == "not taken").count();
    if left > 0 {
        return Err(Exit::failed(format!("{left} of {} endpoints were not taken", lines.len())));
    }
    Ok(())
}

/// Every subscription there is: one that was missed would be made once more.
async fn all(client: &Client) -> Result<Vec<Value>, Exit> {
    let (mut known, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let words = cursor.map(|cursor| ("cursor", cursor));
        let words = words.into_iter().chain([("limit", LIMIT_MAX.to_string())]);
        let page = client.get(&query("/v1/subscriptions", words)).await?;
        known.extend_from_slice(each(&page, "/data"));
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(known);
        }
    }
}

/// Does what is to be done, where it is.
async fn done(
    fate: Fate,
    endpoint: Endpoint,
    flags: &Import,
    client: &Client,
) -> Result<Line, Exit> {
    let mut line = Line {
        word: fate.word(flags.dry_run),
        id: None,
        secret: None,
        notes: endpoint.notes.clone(),
        endpoint,
    };
    let reason = json!(flags.reason.as_deref().unwrap_or("import"));
    let answer = match fate {
        Fate::Leave(why) => {
            line.notes.insert(0, why);
            return Ok(line);
        }
        Fate::Keep(id) => {
            line.id = Some(id);
            return Ok(line);
        }
        Fate::Change(id, _) if flags.dry_run => {
            line.id = Some(id);
            return Ok(line);
        }
        Fate::Create(_) if flags.dry_run => {
            line.notes.extend(line.endpoint.without_secret.map(str::to_owned));
            return Ok(line);
        }
        Fate::Change(id, mut wanted) => {
            wanted.insert("reason".to_owned(), reason);
            client.post(&path_of(&id), &Value::Object(wanted)).await
        }
        Fate::Create(mut wanted) => {
            line.notes.extend(line.endpoint.without_secret.map(str::to_owned));
            wanted.insert("reason".to_owned(), reason);
            client.post("/v1/subscriptions", &Value::Object(wanted)).await
        }
    };
    match answer {
        Ok(made) => {
            line.id = made["id"].as_str().map(str::to_owned);
            // The one that came with the list, its receiver has.
            let is_new = line.endpoint.secret.is_none();
            line.secret = made["secret"].as_str().filter(|_| is_new).map(str::to_owned);
        }
        // What one of them cannot be says nothing of the others.
        Err(refused) if !refused.is_away => {
            line.word = "not taken";
            line.notes.insert(0, refused.exit.message.replace('\n', "; "));
        }
        Err(refused) => return Err(refused.into()),
    }
    Ok(line)
}

fn tell(lines: &[Line], out: Printer) -> Result<(), Exit> {
    let document: Value = lines
        .iter()
        .map(|line| {
            json!({
                "from": line.endpoint.id, "what": line.word, "id": line.id, "url": line.endpoint.url,
                "types": line.endpoint.types, "secret": line.secret, "notes": line.notes,
            })
        })
        .collect();
    out.document(&document, || {
        let mut table = Table::new(&["FROM", "WHAT", "ID", "URL", "TYPES", "NEW SECRET"]);
        for line in lines {
            let types = &line.endpoint.types;
            table.push(vec![
                clean(&line.endpoint.id),
                line.word.to_owned(),
                line.id.clone().unwrap_or_else(|| "-".to_owned()),
                clean(&line.endpoint.url),
                if types.is_empty() { "*".to_owned() } else { clean(&types.join(" ")) },
                line.secret.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table.print(out.is_terminal)?;
        for line in lines {
            for note in &line.notes {
                say(&format!("{}: {}", clean(&line.endpoint.id), clean(note)));
            }
        }
        Ok(())
    })
}

/// How a description says whose a subscription was.
fn mark(product: Product, id: &str) -> String {
    format!("[{}:{id}]", product.name())
}

/// Those that were imported from `product` before, by its ids.
fn by_mark(known: &[Value], product: Product) -> HashMap<String, &Value> {
    let begin = format!("[{}:", product.name());
    let of = |subscription: &Value| {
        let description = subscription["description"].as_str()?;
        let (_, id) = description.strip_suffix(']')?.rsplit_once(begin.as_str())?;
        Some(id.to_owned())
    };
    known.iter().filter_map(|subscription| Some((of(subscription)?, subscription))).collect()
}

/// What becomes of an endpoint, by what is there.
fn fate_of(
    endpoint: &Endpoint,
    product: Product,
    filter: Option<&Value>,
    known: &HashMap<String, &Value>,
) -> Fate {
    if let Some(why) = &endpoint.broken {
        return Fate::Leave(why.clone());
    }
    let mut wanted = wanted(endpoint, product);
    if let Some(filter) = filter {
        wanted.insert("filter".to_owned(), filter.clone());
    }
    let Some(is) = known.get(&endpoint.id) else {
        let mut wanted = wanted;
        if let Some(secret) = &endpoint.secret {
            wanted.insert("secret".to_owned(), json!(secret));
        }
        return Fate::Create(wanted);
    };
    // Of headers nothing is shown but their names.
    let is_alike = |name: &str, value: &Value| match (name, value) {
        ("headers", Value::Object(headers)) => {
            let names = each(is, "/headers").iter().filter_map(Value::as_str);
            names.collect::<BTreeSet<_>>() == headers.keys().map(String::as_str).collect()
        }
        // One that is written otherwise leads to the same place.
        ("url", Value::String(url)) => Url::parse(url).is_ok_and(|url| is["url"] == url.as_str()),
        _ => is[name] == *value,
    };
    let differs: Map<String, Value> =
        wanted.into_iter().filter(|(name, value)| !is_alike(name, value)).collect();
    let id = text(is, "/id");
    if differs.is_empty() { Fate::Keep(id) } else { Fate::Change(id, differs) }
}

/// The subscription that an endpoint is.
fn wanted(endpoint: &Endpoint, product: Product) -> Map<String, Value> {
    let mark = mark(product, &endpoint.id);
    let room = DESCRIPTION_BYTES_MAX.saturating_sub(mark.len() + 1);
    let said = endpoint.description.trim();
    let said = &said[..said.floor_char_boundary(room)];
    let joint = if said.is_empty() { "" } else { " " };
    let wanted = json!({
        "url": endpoint.url,
        "types": endpoint.types,
        "signature": if product == Product::Svix { "svix" } else { "standard" },
        "enabled": endpoint.is_enabled,
        "description": format!("{said}{joint}{mark}"),
    });
    let Value::Object(mut wanted) = wanted else { return Map::new() };
    // Svix lists none, and those that a person gave it here are to stay.
    if product == Product::Convoy {
        wanted.insert("headers".to_owned(), json!(endpoint.headers));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_list_again_changes_nothing_and_another_what_differs() {
        let list = json!({"data": [{
            "id": "ep_1", "url": "https://a.example/h", "filterTypes": ["order.created"],
            "description": "orders", "disabled": false,
        }]});
        let mut endpoint = read(Product::Svix, &list).unwrap().remove(0);
        let none = HashMap::new();
        let Fate::Create(made) = fate_of(&endpoint, Product::Svix, None, &none) else { panic!() };
        assert_eq!(made["description"], "orders [svix:ep_1]");
        assert_eq!(made["signature"], "svix", "its receiver reads these names");
        let mut is = Value::Object(made);
        is["id"] = json!("sub_1");
        is["headers"] = json!([]);
        let all = [is];
        let known = by_mark(&all, Product::Svix);
        assert!(
            matches!(fate_of(&endpoint, Product::Svix, None, &known), Fate::Keep(id) if id == "sub_1")
        );
        assert!(by_mark(&all, Product::Convoy).is_empty());
        endpoint.is_enabled = false;
        let Fate::Change(id, differs) = fate_of(&endpoint, Product::Svix, None, &known) else {
            panic!()
        };
        assert_eq!((id.as_str(), Value::Object(differs)), ("sub_1", json!({"enabled": false})));
        // A long description leaves room for whose it was.
        endpoint.description = "é".repeat(300);
        let long = wanted(&endpoint, Product::Svix);
        let text = long["description"].as_str().unwrap();
        assert!(text.len() <= DESCRIPTION_BYTES_MAX && text.ends_with(" [svix:ep_1]"), "{text}");
    }
}
