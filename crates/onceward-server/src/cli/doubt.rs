//! Doubts from the command line: the upstream asked again, and many resolved by a provider's list.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::act::for_each;
use super::client::{Client, part};
use super::output::{Printer, print, text};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Lookup {
    /// The operations
    #[arg(required_unless_present = "route", value_name = "ID")]
    ids: Vec<String>,
    /// All that are in doubt on this route
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    route: Option<String>,
}

/// Resolving many at once, by a provider's list.
#[derive(Debug, Args)]
pub(super) struct ByList {
    /// The provider's list: JSON (a list, or one a line) or CSV with names in its first line
    #[arg(long, value_name = "FILE", requires = "match", requires = "route")]
    pub(super) from: Option<PathBuf>,
    /// The pointer, within an item, to a key, a key at the upstream, an id or a label
    #[arg(long, value_name = "POINTER", requires = "from")]
    r#match: Option<String>,
    /// The pointer to the list within the file
    #[arg(long, value_name = "POINTER", requires = "from")]
    items: Option<String>,
    /// The route whose doubts the list resolves
    #[arg(long, value_name = "NAME", requires = "from")]
    route: Option<String>,
    /// What an item has to say to count, as a condition in JSON
    #[arg(long, value_name = "JSON", requires = "from")]
    found: Option<String>,
    /// Send again what is not in the list
    #[arg(long, value_name = "WHAT", value_parser = ["not-sent"], requires = "as_of")]
    absent: Option<String>,
    /// When the list was taken: what was sent later is left alone
    #[arg(long, value_name = "TIME", requires = "from")]
    as_of: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long, requires = "from")]
    dry_run: bool,
}

/// Asks the upstream what became of each.
pub(super) async fn lookup(flags: &Lookup, client: &Client, out: Printer) -> Result<(), Exit> {
    if let Some(route) = &flags.route {
        let path = format!("/v1/routes/{}/lookup", part(route));
        let tally = client.post(&path, &json!({})).await?;
        if out.is_json {
            return print(&tally.to_string());
        }
        for name in ["found", "absent", "unknown", "left"] {
            print(&format!("{name}\t{}", text(&tally, &format!("/{name}"))))?;
        }
        return Ok(());
    }
    for_each("lookup", &flags.ids, &json!({}), client, |shown| {
        out.document(shown, || {
            let field = |pointer| text(shown, pointer);
            print(&format!("{}\t{}\t{}", field("/id"), field("/finding"), field("/state")))
        })
    })
    .await
}

/// Resolves the doubts of a route by a list.
pub(super) async fn by_list(
    flags: &ByList,
    file: &Path,
    reason: &str,
    client: &Client,
    out: Printer,
) -> Result<(), Exit> {
    let wrong = |why: String| Exit::usage(format!("{}: {why}", file.display()));
    let text_of = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let items = items(&text_of, flags.items.as_deref()).map_err(wrong)?;
    let mut document = json!({
        "route": flags.route, "items": items, "match": flags.r#match,
        "reason": reason, "dry_run": flags.dry_run,
    });
    if let Some(found) = &flags.found {
        document["found"] = serde_json::from_str(found)
            .map_err(|error| Exit::usage(format!("--found: {error}")))?;
    }
    if let Some(absent) = &flags.absent {
        document["absent"] = json!(absent);
        document["as_of"] = json!(flags.as_of);
    }
    let sifted = client.post("/v1/resolve", &document).await?;
    if out.is_json {
        return print(&sifted.to_string());
    }
    for name in ["listed", "doubled", "unclear", "absent", "recent"] {
        print(&format!("{name}\t{}", text(&sifted, &format!("/{name}/count"))))?;
    }
    if !flags.dry_run {
        print(&format!("resolved\t{}", text(&sifted, "/resolved")))?;
    }
    Ok(())
}

/// The items of a file: JSON with a list in it, JSON lines, or CSV.
fn items(text: &str, pointer: Option<&str>) -> Result<Vec<Value>, String> {
    if let Ok(document) = serde_json::from_str::<Value>(text) {
        let listed = document.pointer(pointer.unwrap_or_default()).cloned();
        return match listed {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(format!(
                "no list at {:?}; say where it is with --items, such as --items /data",
                pointer.unwrap_or("/")
            )),
        };
    }
    if text.trim_start().starts_with(['{', '[']) {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let read = |(n, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", n + 1))
        };
        return lines.enumerate().map(read).collect();
    }
    let mut rows = csv(text)?.into_iter();
    let names = rows.next().ok_or("it is empty")?;
    Ok(rows
        .map(|row| {
            let members = names.iter().cloned().zip(row.into_iter().map(Value::from));
            Value::Object(members.collect::<Map<_, _>>())
        })
        .collect())
}

/// Rows of CSV (RFC 4180): fields between commas, in quotes where they have one themselves.
fn csv(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    let (mut row, mut field) = (Vec::new(), String::new());
    let mut is_quoted = false;
    let mut letters = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                field.push('"');
                letters.next();
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => row.push(std::mem::take(&mut field)),
            '\r' if !is_quoted => {}
            '\n' if !is_quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            letter => field.push(letter),
        }
    }
    if is_quoted {
        return Err("a quote is open at the end".to_owned());
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows.retain(|row| row.iter().any(|field| !field.is_empty()));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_in_each_of_its_forms() {
        let expected = vec![json!({"ref": "a", "n": "1"}), json!({"ref": "b,\"c\"", "n": "2"})];
        for (text, pointer) in [
            (r#"[{"ref": "a", "n": "1"}, {"ref": "b,\"c\"", "n": "2"}]"#, None),
            (r#"{"data": [{"ref": "a", "n": "1"}, {"ref": "b,\"c\"", "n": "2"}]}"#, Some("/data")),
            ("{\"ref\": \"a\", \"n\": \"1\"}\n{\"ref\": \"b,\\\"c\\\"\", \"n\": \"2\"}\n", None),
            ("ref,n\r\na,1\r\n\"b,\"\"c\"\"\",2\r\n", None),
        ] {
            assert_eq!(items(text, pointer).unwrap(), expected, "{text}");
        }
        for (text, why) in [
            ("{\"data\": []}", "--items"),
            ("a,b\n\"1", "quote"),
            ("", "empty"),
            ("{\n{", "line 1"),
        ] {
            assert!(items(text, None).unwrap_err().contains(why), "{text}");
        }
    }
}
