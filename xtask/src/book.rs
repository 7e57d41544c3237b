//! The book: the pages of `docs` as a site, by mdBook, in `target/book`.
//!
//! Papers beside `docs` that its pages lead to become its last part, and what leads to a file of the
//! source, which is no page, becomes that file's name: a site has no source beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::on_path;
use crate::tidy::Tree;
use crate::tidy::book::{SUMMARY, listed};
use crate::tidy::links::{links, resolve};
use crate::tidy::text::has_extension;
use crate::{Outcome, steps};

/// What renders it; the version is part of how it looks.
const VERSION: &str = "0.5.4";

/// Papers that are part of the site although they stand beside `docs`.
const PAPERS: [(&str, &str); 13] = [
    ("ARCHITECTURE.md", "Architecture"),
    ("CONTRIBUTING.md", "Contributing"),
    ("SECURITY.md", "Security"),
    ("CHANGELOG.md", "Changes"),
    ("bench/README.md", "How fast it is"),
    ("examples/stripe-behind-a-route/README.md", "Example: Stripe behind a route"),
    ("examples/guard-an-api/README.md", "Example: a guard"),
    ("examples/github-webhooks-in/README.md", "Example: webhooks in"),
    ("examples/outbox-sqlalchemy/README.md", "Example: an outbox, SQLAlchemy"),
    ("examples/outbox-tokio-postgres/README.md", "Example: an outbox, Rust"),
    ("examples/saga/README.md", "Example: a saga"),
    ("examples/agent-tool-calls/README.md", "Example: an agent's tools"),
    ("examples/signup/README.md", "Example: a signup"),
];

/// Builds it.
pub(crate) fn run() -> Outcome<()> {
    let root = steps::root();
    let mdbook = find_or_install(&root)?;
    let tree = Tree::read(&root)?;
    let folder = root.join("target/book");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    for (path, text) in staged(&tree) {
        write(&folder.join("src").join(path), text.as_bytes())?;
    }
    for path in ["book.toml", "openapi.json", "llms.txt"] {
        fs::copy(root.join("docs").join(path), folder.join("src").join(path))?;
    }
    steps::succeed(
        Command::new(mdbook)
            .arg("build")
            .arg(folder.join("src"))
            .arg("--dest-dir")
            .arg(folder.join("site")),
    )?;
    println!("{} is written", folder.join("site/index.html").display());
    Ok(())
}

fn write(place: &Path, bytes: &[u8]) -> Outcome<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(place, bytes)?)
}

/// mdBook: `TEST_MDBOOK`, that on the path, or one that is installed below the target folder.
fn find_or_install(root: &Path) -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os("TEST_MDBOOK") {
        return Ok(named.into());
    }
    if let Some(found) = on_path("mdbook") {
        return Ok(found);
    }
    let folder = root.join("target/mdbook");
    let binary = folder.join("bin/mdbook");
    if !binary.exists() {
        println!("book: installing mdbook {VERSION} into {}", folder.display());
        let folder = folder.display().to_string();
        let args = [
            "install",
            "mdbook",
            "--locked",
            "--version",
            VERSION,
            "--no-default-features",
            "--features",
            "search",
            "--root",
            &folder,
        ];
        steps::cargo(&args, &[])?;
    }
    Ok(binary)
}

/// Where each page and paper is on the site.
fn places(tree: &Tree) -> BTreeMap<String, String> {
    let pages = listed(tree).into_iter().map(|(_, page)| page);
    let mut places: BTreeMap<_, _> = pages
        .filter_map(|page| Some((page.clone(), page.strip_prefix("docs/")?.to_owned())))
        .collect();
    for (paper, _) in PAPERS {
        places.insert(paper.to_owned(), format!("project/{}", paper.replace('/', "-")));
    }
    for file in ["openapi.json", "llms.txt"] {
        places.insert(format!("docs/{file}"), file.to_owned());
    }
    // The front page of the repository is the front page of the site.
    places.insert("README.md".to_owned(), "index.md".to_owned());
    places
}

/// Each page of the site with its text.
fn staged(tree: &Tree) -> Vec<(String, String)> {
    let places = places(tree);
    let mut all = Vec::new();
    let mut summary = tree.text(SUMMARY).unwrap_or_default().to_owned();
    summary += "\n# The project\n\n";
    for (paper, title) in PAPERS {
        let _ = writeln!(summary, "- [{title}]({})", places[paper]);
    }
    all.push(("SUMMARY.md".to_owned(), summary));
    let mut written = BTreeSet::new();
    for (path, place) in &places {
        let is_page = has_extension(path, "md") && path != "README.md";
        if let Some(text) = tree.text(path).filter(|_| is_page && written.insert(place)) {
            all.push((place.clone(), moved(path, text, &places)));
        }
    }
    all
}

/// A page's text with its links as they lead on the site.
fn moved(path: &str, text: &str, places: &BTreeMap<String, String>) -> String {
    let mut by_line: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (line, target) in links(text) {
        by_line.entry(line).or_default().push(target);
    }
    let lines = text.lines().enumerate().map(|(n, line)| {
        let targets = by_line.get(&(n + 1)).into_iter().flatten();
        targets.fold(line.to_owned(), |line, target| moved_link(&line, path, target, places))
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn moved_link(line: &str, path: &str, target: &str, places: &BTreeMap<String, String>) -> String {
    let (file, anchor) =
        target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    if file.is_empty() {
        return line.to_owned();
    }
    let whole = resolve(path, file);
    if let (Some(to), Some(from)) =
        (whole.as_ref().and_then(|file| places.get(file)), places.get(path))
    {
        let up = "../".repeat(from.matches('/').count());
        let anchor = anchor.map(|anchor| format!("#{anchor}")).unwrap_or_default();
        return line.replace(&format!("]({target})"), &format!("]({up}{to}{anchor})"));
    }
    unlinked(line, target)
}

/// The line with the words of the link alone.
fn unlinked(line: &str, target: &str) -> String {
    let end = format!("]({target})");
    let Some((before, after)) = line.split_once(&end) else { return line.to_owned() };
    let Some((before, words)) = before.rsplit_once('[') else { return line.to_owned() };
    format!("{before}{words}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_where_pages_are_on_the_site_and_those_to_the_source_become_words() {
        let files = [
            (SUMMARY, "# Summary\n\n- [A](in/a.md)\n- [B](b.md)\n"),
            (
                "docs/in/a.md",
                "[b](../b.md#x) [s](../../SECURITY.md) [`c.rs`](../../src/c.rs), [here](#y)\n```\n[n](../b.md)\n```\n",
            ),
            ("docs/b.md", ""),
            ("SECURITY.md", "[a](docs/in/a.md)\n"),
        ];
        let staged: BTreeMap<_, _> = staged(&Tree::of(&files)).into_iter().collect();
        let page = "[b](../b.md#x) [s](../project/SECURITY.md) `c.rs`, [here](#y)\n```\n[n](../b.md)\n```\n";
        assert_eq!(staged["in/a.md"], page);
        assert_eq!(staged["project/SECURITY.md"], "[a](../in/a.md)\n");
        assert!(staged["SUMMARY.md"].contains("\n- [How fast it is](project/bench-README.md)\n"));
    }
}
