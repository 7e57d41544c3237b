//! The book: every page is in its list once, and the list names nothing else.

use std::collections::BTreeSet;

use super::links::{links, resolve};
use super::{Complaint, Tree};

/// The list of the book's pages, in the order in which they are read.
pub(crate) const SUMMARY: &str = "docs/SUMMARY.md";

/// The pages that the list names, in its order, each with its line.
pub(crate) fn listed(tree: &Tree) -> Vec<(usize, String)> {
    let text = tree.text(SUMMARY).unwrap_or_default();
    links(text)
        .into_iter()
        .filter_map(|(line, target)| Some((line, resolve(SUMMARY, &target)?)))
        .collect()
}

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for (line, page) in listed(tree) {
        // A link that leads nowhere is told by the check of links.
        if !page.starts_with("docs/") {
            let what = format!("{page} is no page of the book: only what is in docs can be");
            complaints.push(Complaint::new(SUMMARY, line, what));
        }
        if !seen.insert(page.clone()) {
            complaints.push(Complaint::new(SUMMARY, line, format!("{page} is listed twice")));
        }
    }
    let is_page = |path: &str| {
        path.starts_with("docs/") && super::text::has_extension(path, "md") && path != SUMMARY
    };
    for (path, _) in tree.texts(is_page) {
        if !seen.contains(path) {
            let what = format!("the page is not in the book: add it to {SUMMARY}");
            complaints.push(Complaint::new(path, 1, what));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_not_listed_or_listed_twice_or_no_page_is_named() {
        let summary = "# Summary\n\n[One](one.md)\n\n- [Two](in/two.md)\n  - [One](one.md)\n\
                       - [Out](../README.md)\n";
        let files = [
            (SUMMARY, summary),
            ("docs/one.md", ""),
            ("docs/in/two.md", ""),
            ("docs/three.md", ""),
            ("README.md", ""),
        ];
        let found: Vec<_> = check(&Tree::of(&files))
            .into_iter()
            .map(|complaint| (complaint.file, complaint.line))
            .collect();
        let expected = [(SUMMARY, 6), (SUMMARY, 7), ("docs/three.md", 1)];
        assert_eq!(found, expected.map(|(file, line)| (file.to_owned(), line)));
    }
}
