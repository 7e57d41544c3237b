//! Lists: of one page or of many, as a table or as one JSON array.

use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::client::Client;
use super::output::{Printer, Table, each, print, print_bytes};
use crate::exit::Exit;
use crate::operator::LIMIT_MAX;

/// A path with what its query says.
pub(super) fn query<'a>(path: &str, words: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(words);
    format!("{path}?{}", query.finish())
}

/// A list that the gateway gives whole.
pub(super) async fn whole(
    client: &Client,
    path: &str,
    out: Printer,
    names: &'static [&'static str],
    row: impl Fn(&Value) -> Vec<String>,
) -> Result<(), Exit> {
    let page = client.get(path).await?;
    let elements = each(&page, "/data");
    if out.is_json {
        return print_array(elements);
    }
    let mut table = Table::new(names);
    for element in elements {
        table.push(row(element));
    }
    table.print(out.is_terminal)
}

/// `left` elements of a list, page by page; `path` is that of a page, by its size and its cursor. A
/// page may have few and still a next: the gateway looks at a bounded number of rows at a time.
/// Tells whether there are more.
pub(super) async fn paged(
    client: &Client,
    path: impl Fn(usize, Option<&str>) -> String,
    mut left: usize,
    out: Printer,
    names: &'static [&'static str],
    row: impl Fn(&Value) -> Vec<String>,
) -> Result<bool, Exit> {
    let mut cursor: Option<String> = None;
    let mut array = Array::default();
    let mut table = Table::new(names);
    loop {
        let page = client.get(&path(left.min(LIMIT_MAX), cursor.as_deref())).await?;
        let elements = each(&page, "/data");
        left -= elements.len().min(left);
        for element in elements {
            if out.is_json {
                array.print(element)?;
            } else {
                table.push(row(element));
            }
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || left == 0 {
            break;
        }
        if !out.is_json && !out.is_terminal {
            // Columns do not depend on each other: what is there goes out.
            table.print(false)?;
            table = Table::new(names);
        }
    }
    if out.is_json { array.end() } else { table.print(out.is_terminal) }?;
    Ok(cursor.is_some())
}

/// One JSON array, element by element, so that a list of any length needs no memory.
#[derive(Debug, Default)]
struct Array {
    begun: bool,
}

impl Array {
    fn print(&mut self, element: &Value) -> Result<(), Exit> {
        let before = if self.begun { ",\n" } else { "[" };
        self.begun = true;
        print_bytes(format!("{before}{element}").as_bytes())
    }

    fn end(self) -> Result<(), Exit> {
        print(if self.begun { "]" } else { "[]" })
    }
}

/// A list of few elements as one JSON array.
pub(super) fn print_array(elements: &[Value]) -> Result<(), Exit> {
    let mut array = Array::default();
    elements.iter().try_for_each(|element| array.print(element))?;
    array.end()
}
