//! The reference of the API: what it shows to be typed is typed, at a shell, against the gateway that shows it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::process::Command;

use onceward::core::backoff;
use onceward::core::policy::Backoff;

use crate::browser_world::on_path;
use crate::world::{Gateway, World};

const HTML: (&str, &str) = ("accept", "text/html");

/// The examples of all pages: their method, and the command.
fn examples(gateway: &Gateway, headers: &[(&str, &str)]) -> Vec<(String, String)> {
    let index = gateway.call("GET", "/docs", headers, "");
    assert_eq!(index.status, 200, "{}", index.text());
    let text = index.text();
    let mut places: Vec<&str> = text
        .split("href=\"/docs/")
        .skip(1)
        .filter_map(|rest| rest.split(['"', '#']).next())
        .collect();
    places.sort_unstable();
    places.dedup();
    assert!(places.len() > 10, "{places:?}");
    let mut examples = Vec::new();
    for place in places {
        let page = gateway.call("GET", &format!("/docs/{place}"), headers, "");
        assert_eq!(page.status, 200, "{place}: {}", page.text());
        for piece in page.text().split("<pre class=\"curl\" data-method=\"").skip(1) {
            let (method, rest) = piece.split_once('"').unwrap();
            let (_, rest) = rest.split_once("<code>").unwrap();
            let command = rest.split_once("</code>").unwrap().0;
            let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")]
                .iter()
                .fold(command.to_owned(), |text, (from, to)| text.replace(from, to));
            examples.push((method.to_owned(), plain));
        }
    }
    examples
}

/// Types it; tells the status of the answer.
fn typed(command: &str, key: &str) -> u16 {
    let quiet = "curl -s -o /dev/null -w '%{http_code}' --max-time 60 ";
    let line = command.replacen("curl ", quiet, 1);
    let done = Command::new("sh").args(["-c", &line]).env("ONCEWARD_ACCESS_KEY", key).output();
    let done = done.unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{command}: {done:?}");
    said.parse().unwrap()
}

fn has_curl() -> bool {
    let has = on_path("curl").is_some();
    if !has {
        eprintln!("SKIPPED: there is no curl");
    }
    has
}

#[test]
fn every_example_that_reads_is_answered_as_it_stands_on_the_page() {
    if !has_curl() {
        return;
    }
    let world = World::new();
    let gateway = world.serve();
    let mut read = 0;
    for (method, command) in examples(&gateway, &[HTML]) {
        assert!(command.contains(&format!("http://{}", gateway.address)), "{command}");
        assert!(!command.contains("ONCEWARD_ACCESS_KEY"), "no key is asked for: {command}");
        if method == "get" || method == "head" {
            // It would go on.
            let command = command.replace("/v1/changes'", "/v1/changes?for=1'");
            let status = typed(&command, "");
            assert!((200..300).contains(&status) || status == 404, "{status}: {command}");
            read += 1;
        }
    }
    assert!(read > 30, "{read} were read");
}

#[test]
fn every_example_that_changes_something_is_understood() {
    if !has_curl() {
        return;
    }
    let world = World::new();
    let gateway = world.serve();
    let mut tried = 0;
    for (method, command) in examples(&gateway, &[HTML]) {
        // It would be written where the example says.
        let is_backup = command.contains("/v1/backup'");
        // From then on nobody gets in without a key.
        let makes_key = method == "post" && command.contains("/v1/access'");
        if method == "get" || is_backup || makes_key {
            continue;
        }
        let status = typed(&command, "");
        assert!(![400, 401, 403, 405, 413, 415, 500].contains(&status), "{status}: {command}");
        tried += 1;
    }
    assert!(tried > 30, "{tried} were tried");
}

#[test]
fn where_a_key_is_asked_for_the_examples_bear_one_and_the_pages_are_for_any_key() {
    if !has_curl() {
        return;
    }
    let world = World::new();
    let gateway = world.serve();
    let made = |name: &str, role: &str| {
        let made = gateway.run(&["access", "create", name, "--role", role, "--json"]).json();
        made["key"].as_str().unwrap().to_owned()
    };
    let (admin, sender) = (made("ada", "admin"), made("shop", "send"));
    let bearer = format!("Bearer {sender}");
    assert_eq!(gateway.call("GET", "/docs/operations", &[], "").status, 401);
    let examples = examples(&gateway, &[HTML, ("authorization", &bearer)]);
    for (method, command) in examples {
        let is_open = ["/healthz", "/readyz", "/in/"].iter().any(|open| command.contains(open));
        assert_eq!(command.contains("$ONCEWARD_ACCESS_KEY"), !is_open, "{command}");
        if method == "get" {
            let status = typed(&command, &admin);
            // Some want another role than that one.
            let is_well = (200..300).contains(&status) || status == 404 || status == 403;
            assert!(is_well, "{status}: {command}");
        }
    }
}

fn page(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn how_long_accepted_work_is_tried_is_told_as_it_is() {
    let usual = Backoff::accepted();
    let (longest, attempts) = (backoff::span(&usual), usual.attempts_max);
    let hours = |seconds: f64| (seconds / 3600.0).ceil();
    let told = format!("within {} hours", hours(longest.as_secs_f64()));
    for path in [
        "docs/concepts/effects.md",
        "docs/guides/from-hookdeck.md",
        "docs/guides/webhooks-in.md",
        "docs/mail.md",
        "docs/people.md",
        "docs/sagas.md",
        "sdk/python/README.md",
        "sdk/typescript/README.md",
        "crates/onceward-client/README.md",
    ] {
        let text = page(path);
        assert!(text.contains(&told), "{path} does not say: {told}");
        let before = text.split(&told).next().unwrap();
        let line = &before[before.len().saturating_sub(60)..];
        assert!(line.contains(&attempts.to_string()), "{path}: {line}");
    }
    // Each wait is drawn evenly from nothing to its bound.
    let effects = page("docs/concepts/effects.md");
    let average = hours(longest.as_secs_f64() / 2.0);
    assert!(effects.contains(&format!("{average} on average")), "{average}");
    assert!(effects.contains(&format!("up to {}\nhours", usual.horizon.as_secs() / 3600)));
}

#[test]
fn the_guide_to_upgrades_names_the_schemas_of_this_release() {
    let count = |store: &str| {
        let folder = format!("{}/../onceward/migrations/{store}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_dir(folder).unwrap().count()
    };
    let row =
        format!("| {} | {} | {} |", env!("CARGO_PKG_VERSION"), count("postgres"), count("sqlite"));
    assert!(page("docs/guides/upgrade.md").contains(&row), "{row}");
}
