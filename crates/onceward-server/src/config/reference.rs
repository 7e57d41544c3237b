//! The page of the configuration's keys: each that the reader of the file asks for, with what is read there.
//! What they mean is written by hand; here it is held that nobody has to guess that one is there, and that what
//! guides show of a file is read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

mod example;
mod schema;
mod told;

use self::told::Told;
use super::tests::load;
use super::{EXAMPLE, SCHEMA};
use crate::generated;

/// Where what the binary has of this lies.
const SCHEMA_FILE: &str = "crates/onceward-server/src/config/schema.json";
const EXAMPLE_FILE: &str = "crates/onceward-server/src/config/example.toml";

/// Tables whose names are the user's own.
const SECTIONS: [&str; 7] =
    ["alerts.to", "routes", "sources", "outbox", "claims", "tenants", "profiles"];

/// By section and key: what is read there.
type Asked = BTreeMap<(String, String), BTreeSet<String>>;

const PAGE: &str = "docs/reference/configuration-keys.md";

const HEAD: &str = "\
# Keys of the configuration

Every key that the file may have, made of the code by `cargo xtask docs`. What each means, and what holds where it is not
said, is in [configuration](../configuration.md), and for some parts on their own pages:
[guards](../guard.md), [sources](../sources.md), [outboxes](../outbox.md), [claims](../claims.md), [tenants](../access.md),
[alerts](../alerts.md), [protection](../protection.md). `onceward check` says what a file comes to.

*Names* in capitals are yours. A *duration* is written `\"30s\"`, a *size* `\"1MiB\"`; *words* are one of those that stand there.
";

/// Where what is on the page is told.
const TOLD: [&str; 13] = [
    "docs/configuration.md",
    "docs/access.md",
    "docs/alerts.md",
    "docs/chaos.md",
    "docs/claims.md",
    "docs/guard.md",
    "docs/keys.md",
    "docs/outbox.md",
    "docs/people.md",
    "docs/profiles.md",
    "docs/protection.md",
    "docs/sources.md",
    "docs/traces.md",
];

/// Files that have every table, each up to a line of dashes. What is wrong with them does not matter: what is
/// asked for counts.
const FILES: &str = include_str!("reference.txt");

/// The section whose keys a rule may say.
const POLICY: &str = "profiles.NAME";
/// Those that may say these keys, too.
const MAY_SAY_IT: [&str; 4] = ["routes.NAME", "sources.NAME", "outbox.NAME", "alerts.to.NAME"];

thread_local! {
    /// By section and key: what is read there.
    static ASKED: RefCell<Asked> = RefCell::default();
}

/// A key that was asked for.
pub(super) fn note(section: &str, key: &str, kind: &str) {
    let of = SECTIONS
        .into_iter()
        .find(|name| section.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
    let section = match of {
        Some(name) => format!("{name}.NAME"),
        None if section.is_empty() => String::new(),
        // A table that the file does not have.
        None => return,
    };
    // Of a list of tables the reader says what its section is, and not which list.
    let key = match (section.as_str(), key) {
        ("", "oidc.claim" | "oidc.value") => key.replace("oidc.", "oidc.roles."),
        _ => key.to_owned(),
    };
    ASKED.with_borrow_mut(|asked| {
        let kinds = asked.entry((section, key)).or_default();
        kinds.extend(Some(kind.to_owned()).filter(|kind| !kind.is_empty()));
    });
}

/// What is read, in words.
fn said(kinds: &BTreeSet<String>) -> String {
    let mut words = Vec::new();
    let mut said = Vec::new();
    let has_tables = kinds.contains("tables");
    for kind in kinds {
        let named = match kind.as_str() {
            "table" => "a table",
            "tables" => "a list of tables",
            "bool" => "`true` or `false`",
            "f64" => "a number",
            "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
            kind if kind.contains("Vec<") && has_tables => continue,
            kind if kind.contains("Vec<") => "a list",
            kind if kind.contains("BTreeMap") => "a table",
            kind if kind.contains("String") || kind.contains("PathBuf") || kind.contains("str") => {
                "a text"
            }
            kind if kind.contains("Span") => "a duration",
            kind if kind.contains("Size") => "a size",
            kind if kind.contains("Value") => "a condition",
            word if !word.contains("::") => {
                words.push(format!("`{word}`"));
                continue;
            }
            _ => "a text",
        };
        if !said.contains(&named) {
            said.push(named);
        }
    }
    if !words.is_empty() {
        said.retain(|named| *named != "a text");
    }
    words.extend(said.into_iter().map(str::to_owned));
    words.join(", ")
}

/// The keys that the first columns of the tables written by hand name, but for those that are no keys of the file.
fn documented(page: &str) -> Vec<&str> {
    let of_file = page.split("\n## A call\n").next().unwrap_or_default();
    let (before, hints) = of_file.split_once("asking again: `hints`").unwrap_or((of_file, ""));
    let hints = hints.split_once("\n### ").map_or("", |(_, rest)| rest);
    let rows = before.lines().chain(hints.lines()).filter(|line| line.starts_with("| `"));
    let names = rows
        .flat_map(|row| row.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2));
    names.filter(|name| !name.starts_with('[')).collect()
}

/// All that the readers ask for. Most of the files are refused, after what they have was asked for.
fn asked() -> Asked {
    for file in FILES.split("---\n") {
        let _ = load(file);
    }
    ASKED.take()
}

#[test]
fn the_page_of_the_keys_has_all_that_are_asked_for() {
    let asked = asked();
    let pages: Vec<String> = TOLD.iter().map(|page| generated::text(page)).collect();
    let mut page = HEAD.to_owned();
    let mut section = None;
    for ((of, key), kinds) in &asked {
        // What a rule may say, a profile may say too; it stands there once.
        let is_policy = schema::is_of_policy(&asked, key);
        if of != POLICY && is_policy && MAY_SAY_IT.contains(&of.as_str()) {
            continue;
        }
        if section != Some(of) {
            section = Some(of);
            let heading =
                if of.is_empty() { "The gateway".to_owned() } else { format!("`[{of}]`") };
            let _ = writeln!(page, "\n## {heading}\n");
            if MAY_SAY_IT.contains(&of.as_str()) {
                page += "And every key of [a rule or a profile](#profilesname).\n\n";
            }
            page += "| key | what is read |\n| --- | --- |\n";
        }
        let _ = writeln!(page, "| `{key}` | {} |", said(kinds));
        let leaf = key.rsplit('.').next().unwrap();
        let is_told = pages.iter().any(|page| page.contains(leaf));
        assert!(is_told, "no page tells what [{of}] {key} is: add it to docs/configuration.md");
    }
    let named: BTreeSet<&str> =
        asked.keys().flat_map(|(_, key)| key.split('.').chain([key.as_str()])).collect();
    for key in documented(&pages[0]) {
        let leaf = key.rsplit('.').next().unwrap();
        assert!(
            named.contains(leaf),
            "docs/configuration.md tells of {key:?}, which nobody asks for"
        );
    }
    assert!(asked.len() > 200, "{} keys were asked for", asked.len());
    generated::hold(PAGE, &page);
    let told = Told::of_pages(TOLD.iter().zip(&pages));
    let made = schema::schema(&asked, &told);
    generated::hold(SCHEMA_FILE, &format!("{made:#}\n"));
    generated::hold(EXAMPLE_FILE, &example::example(&asked, &told, &made));
}

#[test]
fn every_key_that_is_asked_for_is_in_the_schema_and_in_the_example() {
    let leaves: BTreeSet<String> = asked()
        .into_keys()
        .map(|(_, key)| key.rsplit('.').next().unwrap_or_default().to_owned())
        .collect();
    let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix("# "));
    let named = lines.filter_map(|line| {
        let table = line.strip_prefix('[').map(|line| line.trim_matches(['[', ']']));
        table.or_else(|| line.split_once(" = ").map(|(key, _)| key).filter(|it| !it.contains(' ')))
    });
    let of_example: BTreeSet<&str> = named.flat_map(|name| name.split('.')).collect();
    for leaf in leaves {
        assert!(SCHEMA.contains(&format!("\"{leaf}\": {{")), "the schema has no {leaf}");
        assert!(of_example.contains(&*leaf), "the example has no {leaf}");
    }
}

#[test]
fn the_example_is_read_as_it_is_and_each_of_its_keys_is_as_the_schema_says() {
    load(EXAMPLE).unwrap();
    let root: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let (mut section, mut seen) = (String::new(), 0);
    for line in EXAMPLE.lines().filter_map(|line| line.strip_prefix("# ")) {
        if line.starts_with('[') && line.ends_with(']') {
            line.clone_into(&mut section);
        } else if toml::from_str::<toml::Table>(line).is_ok() {
            let file: toml::Table = toml::from_str(&format!("{section}\n{line}\n")).unwrap();
            let why = schema::wrong(&file.into(), &root, &root);
            assert_eq!(why, None, "{section} {line}");
            seen += 1;
        }
    }
    assert!(seen > 200, "{seen} keys are in the example");
}

#[test]
fn what_the_reader_takes_the_schema_takes() {
    let root: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let mut texts: Vec<(String, String)> = Vec::new();
    texts.extend(FILES.split("---\n").map(|file| ("reference.txt".to_owned(), file.to_owned())));
    for page in generated::papers() {
        let text = generated::text(&page);
        let blocks = text.split("\n```toml").skip(1).filter_map(|block| block.split_once('\n'));
        let blocks = blocks.map(|(_, block)| block.split("```").next().unwrap_or_default());
        let secret = |_: &str| Some("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned());
        let shown = |block| super::interpolate(block, &page, None, secret).unwrap();
        texts.extend(blocks.map(|block| (page.clone(), whole(&shown(block)))));
    }
    let (mut seen, mut wrong) = (0, Vec::new());
    for (page, text) in texts {
        // What only shows a piece is none that the reader takes.
        if load(&text).is_err() {
            continue;
        }
        seen += 1;
        let file: toml::Table = toml::from_str(&text).unwrap();
        let why = schema::wrong(&file.into(), &root, &root);
        wrong.extend(why.map(|why| format!("{page}: {why}\n{text}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 20, "{seen} were read");
}

/// What a page shows of a file, with what it leaves out: that its keys are a route's, and where the route leads.
fn whole(shown: &str) -> String {
    const UPSTREAM: &str = "upstream = \"https://a.example\"\n";
    let mut whole = String::new();
    let first = shown.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let is_of_route = first.is_some_and(|line| !line.starts_with('['))
        && !["demo = ", "listen = ", "store ", "public_url"]
            .iter()
            .any(|key| shown.starts_with(key));
    if is_of_route {
        whole.extend(["[routes.r]\n", UPSTREAM]);
    }
    let rules = shown.lines().find_map(|line| line.strip_prefix("[[routes.")?.split('.').next());
    if let Some(route) = rules.filter(|route| !shown.contains(&format!("[routes.{route}]\n"))) {
        whole.extend(["[routes.", route, "]\n", UPSTREAM]);
    }
    for section in shown.split_inclusive('\n') {
        whole += section;
        let is_route = section.starts_with("[routes.") && section.matches('.').count() == 1;
        let behind = shown.split_once(section).map_or("", |(_, behind)| behind);
        let own = behind.split("\n[").next().unwrap_or_default();
        if is_route && !own.contains("upstream ") {
            whole += UPSTREAM;
        }
    }
    whole
}

#[test]
fn what_guides_show_of_a_file_is_read() {
    let (mut read, mut wrong) = (0, Vec::new());
    // Pages of reference show pieces that stand elsewhere in a file, and files of a machine of their own.
    let is_followed = |page: &String| {
        let followed =
            ["README.md", "docs/start.md", "docs/patterns.md", "docs/concepts", "docs/guides"];
        followed.iter().any(|of| page.starts_with(of))
    };
    for page in generated::papers().into_iter().filter(is_followed) {
        let text = generated::text(&page);
        for block in text.split("\n```toml").skip(1) {
            let Some((_, block)) = block.split_once('\n') else { continue };
            let shown = block.split("```").next().unwrap_or_default();
            let secret = |_: &str| Some("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned());
            let shown = super::interpolate(shown, &page, None, secret).unwrap();
            read += 1;
            let why = load(&whole(&shown)).err();
            wrong.extend(why.map(|why| format!("{page}: {why}\n{shown}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(read > 15, "{read} were read");
}
