//! What must not be left in files: markers, weak features, paths of one machine.

use super::{Complaint, Tree};

// Joined here, so that this file is not a find of its own.
const MARKERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const DEBUG: &str = concat!("dbg", "!(");
const WEAK: &str = concat!("?", "/");
/// Where people and build machines keep their files.
const MACHINE: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// What was to be done later is done or written down where people look for it.
pub(super) fn markers(tree: &Tree) -> Vec<Complaint> {
    let rust = |path: &str| has_extension(path, "rs");
    each_line(tree, rust, |line| {
        if line.contains(DEBUG) {
            return Some(format!("leftover {DEBUG}…): remove it, or say it with tracing"));
        }
        let marker = MARKERS.into_iter().find(|marker| is_word(line, marker))?;
        Some(format!("leftover {marker}: do it, or open an issue and remove the marker"))
    })
}

/// Cargo locks a weakly named optional dependency for everybody, whether they use it or not.
pub(super) fn weak_features(tree: &Tree) -> Vec<Complaint> {
    let manifest = |path: &str| path == "Cargo.toml" || path.ends_with("/Cargo.toml");
    each_line(tree, manifest, |line| {
        let code = line.split('#').next().unwrap_or_default();
        code.contains(WEAK).then(|| {
            format!("weak feature `{WEAK}`: name the dependency's features where it is declared")
        })
    })
}

/// A path of one machine is wrong on all others.
pub(super) fn machine_paths(tree: &Tree) -> Vec<Complaint> {
    each_line(
        tree,
        |_| true,
        |line| {
            let path = MACHINE.into_iter().find(|path| starts_absolute(line, path))?;
            Some(format!(
                "a path of one machine ({path}…): make it relative, or take it from a variable"
            ))
        },
    )
}

fn each_line(
    tree: &Tree,
    which: impl Fn(&str) -> bool,
    check: impl Fn(&str) -> Option<String>,
) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (path, text) in tree.texts(which) {
        for (n, line) in text.lines().enumerate() {
            complaints.extend(check(line).map(|what| Complaint::new(path, n + 1, what)));
        }
    }
    complaints
}

/// Whether `path` begins in `line` where a path can begin: the tail of a longer one, or of an
/// address on the web, is another matter.
fn starts_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-~/}*".contains(c))
    })
}

fn is_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

pub(crate) fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, found)| found.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_as_words_in_rust_files_only() {
        let text = format!("// {}: later\nlet {}S = 1;\n{}x);\n", MARKERS[0], MARKERS[0], DEBUG);
        let tree = Tree::of(&[("src/a.rs", &text), ("notes.md", &text)]);
        let found: Vec<_> =
            markers(&tree).into_iter().map(|found| (found.file, found.line)).collect();
        assert_eq!(found, [("src/a.rs".into(), 1), ("src/a.rs".into(), 3)]);
    }

    #[test]
    fn weak_features_are_found_in_manifests_but_not_in_their_comments() {
        let text = format!("[features]\na = [\"b{WEAK}c\"]\n# b{WEAK}c is why\n");
        let tree = Tree::of(&[("crates/x/Cargo.toml", &text), ("Cargo.toml", "[workspace]\n")]);
        let found = weak_features(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }

    #[test]
    fn machine_paths_are_found_where_a_path_can_begin() {
        for bad in ["cd {}x", "\"{}x\"", "[a]({}x)", "file:{}x", "A={}x"] {
            for path in MACHINE {
                let line = bad.replace("{}", path);
                assert_eq!(machine_paths(&Tree::of(&[("a.md", &line)])).len(), 1, "{line}");
            }
        }
        for good in ["https://example.com{}x", "target{}x", "..{}x", "${DIR}{}x"] {
            for path in MACHINE {
                let line = good.replace("{}x", &format!("{path}x"));
                assert_eq!(machine_paths(&Tree::of(&[("a.md", &line)])), [], "{line}");
            }
        }
    }
}
