//! What a compiler does not check: layering, links, the book, what callers rely on, markers, manifests, paths.
//!
//! Every check is a function from the tree's text to complaints, so that it can be tested without
//! a tree. A complaint says where, what, and the mend.

pub(crate) mod book;
pub(crate) mod contract;
mod layers;
pub(crate) mod links;
mod manifest;
pub(crate) mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::Command;

pub(crate) use manifest::dependencies;

use crate::{Outcome, docs, steps};

/// What one check found at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: usize,
    /// What is wrong, and how to mend it.
    pub(crate) what: String,
}

impl Complaint {
    pub(crate) fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for Complaint {}

/// The files of the project: what is tracked, or would be with `git add`.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Every path, text or not.
    paths: BTreeSet<String>,
    /// What can be read as text.
    texts: BTreeMap<String, String>,
}

impl Tree {
    pub(crate) fn read(root: &Path) -> Outcome<Self> {
        let list = steps::output(
            Command::new("git")
                .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
                .current_dir(root),
        )?;
        let mut tree = Self::default();
        for path in list.split('\0').filter(|path| !path.is_empty()) {
            // What is deleted but not yet committed is still listed.
            let Ok(bytes) = std::fs::read(root.join(path)) else {
                continue;
            };
            tree.paths.insert(path.to_owned());
            if !bytes.contains(&0)
                && let Ok(text) = String::from_utf8(bytes)
            {
                tree.texts.insert(path.to_owned(), text);
            }
        }
        Ok(tree)
    }

    /// A tree that a test makes up.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self {
            paths: files.iter().map(|(path, _)| (*path).to_owned()).collect(),
            texts: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    /// Whether there is a file or folder at `path`; the root is the empty path.
    fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.paths.contains(path)
            || self
                .paths
                .range(folder.clone()..)
                .next()
                .is_some_and(|next| next.starts_with(&folder))
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// The text files whose path `which` picks.
    pub(crate) fn texts<'a>(
        &'a self,
        which: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| which(path))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// Checks the tree at `root` and prints what is wrong.
pub(crate) fn run(root: &Path) -> Outcome<()> {
    let tree = Tree::read(root)?;
    let complaints = complaints(&tree);
    for complaint in &complaints {
        println!("{complaint}");
    }
    match complaints.len() {
        0 => {
            println!("tidy: {} files", tree.paths.len());
            Ok(())
        }
        1 => Err("one thing to mend".into()),
        n => Err(format!("{n} things to mend").into()),
    }
}

fn complaints(tree: &Tree) -> Vec<Complaint> {
    let mut all = layers::core_manifest(tree);
    all.extend(layers::verbs(tree));
    all.extend(layers::map(tree));
    all.extend(layers::sockets(tree));
    all.extend(links::check(tree));
    all.extend(book::check(tree));
    all.extend(docs::drift(tree));
    all.extend(contract::check(tree));
    all.extend(text::markers(tree));
    all.extend(text::weak_features(tree));
    all.extend(text::machine_paths(tree));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_there_when_a_file_in_it_is() {
        let tree = Tree::of(&[("docs/start.md", ""), ("docs.md", "")]);
        assert!(tree.has("docs"));
        assert!(tree.has("docs/start.md"));
        assert!(tree.has(""));
        assert!(!tree.has("doc"));
        assert!(!tree.has("docs/start"));
    }

    #[test]
    fn a_complaint_names_the_place_as_editors_read_it() {
        assert_eq!(Complaint::new("a.rs", 3, "why").to_string(), "a.rs:3: why");
    }

    #[test]
    fn this_tree_is_tidy() {
        let tree = Tree::read(&steps::root()).unwrap();
        assert_eq!(complaints(&tree), []);
    }
}
