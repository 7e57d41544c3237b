//! Pages of the documentation, or parts of them, that are made of the code: held by tests, and written by
//! the same tests where `cargo xtask docs` tells them to.

use std::fs;
use std::path::PathBuf;

fn place(page: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(page)
}

/// A page as it is; nothing where it is not there yet.
pub(crate) fn text(page: &str) -> String {
    fs::read_to_string(place(page)).unwrap_or_default()
}

/// A page with other text between two marks.
#[track_caller]
pub(crate) fn between(page: &str, begin: &str, end: &str, text: &str) -> String {
    let both =
        page.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = both.unwrap_or_else(|| panic!("{begin}and {end}are not on the page"));
    format!("{before}{begin}{text}{end}{after}")
}

/// Holds that a page is as it should be.
#[track_caller]
pub(crate) fn hold(page: &str, wanted: &str) {
    if std::env::var_os("TEST_WRITE").is_some() {
        fs::create_dir_all(place(page).parent().unwrap()).unwrap();
        fs::write(place(page), wanted).unwrap();
    }
    assert!(text(page) == wanted, "{page} is old: `cargo xtask docs` writes it anew");
}

/// Every paper that tells people what to type.
pub(crate) fn papers() -> Vec<String> {
    let mut papers = vec!["README.md".to_owned(), "SECURITY.md".to_owned()];
    let folders = ["docs", "docs/concepts", "docs/guides", "docs/on-call"];
    for folder in folders {
        let entries = fs::read_dir(place(folder)).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let pages =
            names.filter(|name| PathBuf::from(name).extension().is_some_and(|it| it == "md"));
        papers.extend(pages.map(|name| format!("{folder}/{name}")));
    }
    papers.sort();
    papers
}
