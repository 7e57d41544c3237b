//! `classify`: a draft of routes and rules from the document of an API.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::output::{print, print_bytes};
use crate::classify::Classified;
use crate::exit::Exit;

/// Reads no more than a document may have.
const BYTES_MAX: u64 = (32 << 20) + 1;

#[derive(Debug, Args)]
pub(super) struct Classify {
    /// The document, OpenAPI 3 or Swagger 2, in JSON or YAML; - for stdin
    file: PathBuf,
    /// The route's name; without it from the document's title
    #[arg(long)]
    name: Option<String>,
    /// Where the API is; without it from the document's servers
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

pub(super) fn classify(flags: &Classify, global: &Global) -> Result<(), Exit> {
    let name = flags.file.display();
    let text = read(flags)?;
    let classified = Classified::read(&text, flags.name.as_deref(), flags.upstream.as_deref());
    let classified = classified.map_err(|why| {
        Exit::failed(format!(
            "{name}: {why}\nhelp: give the API's OpenAPI 3 or Swagger 2 document, in JSON or YAML"
        ))
    })?;
    if global.json {
        return print(&classified.table().to_string());
    }
    print_bytes(classified.draft().as_bytes())
}

fn read(flags: &Classify) -> Result<String, Exit> {
    let name = flags.file.display();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Exit::not_found(format!("there is no file {name}")),
        _ => Exit::failed(format!("{name}: {error}")),
    };
    let mut text = String::new();
    if flags.file.as_os_str() == "-" {
        std::io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(&flags.file).map_err(failed)?;
        file.take(BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}
