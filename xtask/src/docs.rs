//! Pages that are made of something else: of the document of the API, of the rules of the alerts, of the
//! book's own list, of the figures of long runs. What is made of the code's tables, tests of the server write and hold; here it is
//! only asked for.

mod alerts;
mod api;
mod llms;
mod readme;

use crate::tidy::{Complaint, Tree};
use crate::{Outcome, steps};

const MEND: &str = "`cargo xtask docs` writes it anew";

/// The tests that write what is made of the code, where they are told to.
const WRITERS: [&str; 4] = [
    "telemetry::metrics::tests::the_page_of_the_metrics_has_them_all",
    "page::docs::tests::the_page_of_the_problems_has_them_all",
    "cli::reference::the_page_of_the_command_line_has_all_of_it",
    "config::reference::the_page_of_the_keys_has_all_that_are_asked_for",
];

/// Writes all of it.
pub(crate) fn run() -> Outcome<()> {
    let which = [&["--bin", "onceward", "--", "--exact"], &WRITERS[..]].concat();
    steps::run_tests(&which, &[("TEST_WRITE", "1".into())])?;
    let root = steps::root();
    // `llms.txt` is made of pages that may have been written just now.
    for _ in 0..2 {
        let tree = Tree::read(&root)?;
        for (path, text) in made(&tree)? {
            if tree.text(&path) != Some(text.as_str()) {
                println!("{path} is written");
                std::fs::write(root.join(path), text)?;
            }
        }
    }
    Ok(())
}

/// What is old of it.
pub(crate) fn drift(tree: &Tree) -> Vec<Complaint> {
    match made(tree) {
        Ok(made) => made
            .into_iter()
            .filter(|(path, text)| tree.text(path) != Some(text))
            .map(|(path, _)| Complaint::new(&path, 1, format!("the page is old: {MEND}")))
            .collect(),
        Err(complaint) => vec![complaint],
    }
}

/// Each page with its whole text.
fn made(tree: &Tree) -> Result<Vec<(String, String)>, Complaint> {
    let mut all = Vec::new();
    all.extend(api::page(tree)?);
    all.extend(alerts::pages(tree)?);
    all.extend(llms::file(tree));
    all.extend(readme::file(tree)?);
    Ok(all)
}
