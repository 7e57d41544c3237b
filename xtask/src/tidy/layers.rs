//! Layering: a pure core, verbs that do not know each other, and one place that opens sockets.

use super::{Complaint, Tree};

const CORE: &str = "crates/onceward-core/Cargo.toml";
/// What would bring effects into the core.
const EFFECTS: [&str; 4] = ["tokio", "hyper", "rusqlite", "rand"];

/// The map, and the crates whose files it names, one by one.
const MAP: &str = "ARCHITECTURE.md";
const MAPPED: [&str; 3] =
    ["crates/onceward-core/src/", "crates/onceward/src/", "crates/onceward-server/src/"];

const VERBS_FOLDER: &str = "crates/onceward/src/";
/// The story in its order; only the engine puts them into it.
const VERBS: [&str; 5] = ["receive", "remember", "deliver", "settle", "replay"];

/// The one file that connects to an upstream: what judges addresses stands there.
const CONNECTOR: &str = "crates/onceward/src/upstream/connect.rs";
/// What opens a socket, or looks up the name that one is opened to.
const OPENS: [&str; 6] = [
    "TcpStream::connect",
    "UnixStream::connect",
    "TcpSocket::new",
    "lookup_host",
    "to_socket_addrs",
    "client::legacy",
];

/// The core depends on nothing that has effects.
pub(super) fn core_manifest(tree: &Tree) -> Vec<Complaint> {
    let Some(text) = tree.texts.get(CORE) else {
        return Vec::new();
    };
    let manifest: toml::Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![Complaint::new(CORE, 1, format!("not a manifest: {error}"))],
    };
    super::dependencies(&manifest)
        .into_iter()
        .filter(|dependency| EFFECTS.contains(&dependency.package()))
        .map(|dependency| {
            let what = format!(
                "the core must not depend on {}: take its result as an argument, and do the effect \
                 in crates/onceward",
                dependency.package()
            );
            Complaint::new(CORE, dependency.line(text), what)
        })
        .collect()
}

/// Who looks for something finds its file on the map.
pub(super) fn map(tree: &Tree) -> Vec<Complaint> {
    let Some(map) = tree.text(MAP) else { return Vec::new() };
    let is_named = |name: &str| {
        ["`", "/"].iter().any(|before| {
            map.contains(&format!("{before}{name}.rs`"))
                || map.contains(&format!("{before}{name}`"))
        })
    };
    let sources = tree.texts(|path| path.starts_with("crates/"));
    sources
        .filter_map(|(path, _)| {
            let (_, file) = path.split_once("/src/")?;
            let name = file.strip_suffix(".rs").filter(|name| !name.contains('/'))?;
            let is_of_all = ["lib", "main"].contains(&name);
            let is_mapped = MAPPED.iter().any(|folder| path.starts_with(folder));
            (is_mapped && !is_of_all && !is_named(name))
                .then(|| Complaint::new(path, 1, format!("{MAP} does not name it: say what it is")))
        })
        .collect()
}

/// No verb calls another.
pub(super) fn verbs(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for verb in VERBS {
        let file = format!("{VERBS_FOLDER}{verb}.rs");
        let folder = format!("{VERBS_FOLDER}{verb}/");
        for (path, text) in tree.texts(|path| path == file || path.starts_with(&folder)) {
            for other in VERBS.into_iter().filter(|other| *other != verb) {
                for line in mentions(text, other) {
                    let what = format!(
                        "the verb {verb} must not know the verb {other}: return a value and let \
                         engine.rs pass it on"
                    );
                    complaints.push(Complaint::new(path, line, what));
                }
            }
        }
    }
    complaints
}

/// Nothing that ships opens a socket past the judge of addresses. The ledger's own server is another
/// matter: its client connects by itself, to where the operator said.
pub(super) fn sockets(tree: &Tree) -> Vec<Complaint> {
    let ships = |path: &str| {
        let of = ["crates/onceward/src/", "crates/onceward-server/src/"];
        path != CONNECTOR && of.iter().any(|folder| path.starts_with(folder))
    };
    let mut complaints = Vec::new();
    for (path, text) in tree.texts(ships) {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (n, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for opens in OPENS.into_iter().filter(|opens| line.contains(opens)) {
                let what = format!(
                    "{opens} goes past the egress policy: ask through the door, whose sockets {CONNECTOR} opens"
                );
                complaints.push(Complaint::new(path, n + 1, what));
            }
        }
    }
    complaints
}

/// Lines where `crate::{module}` is named in code, alone or in a braced list.
fn mentions(text: &str, module: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    // Inside `use crate::{ … }`: how deep.
    let mut depth = 0usize;
    for (n, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut hit = names(code, &format!("crate::{module}"));
        let list =
            if depth > 0 { Some(code) } else { code.split_once("crate::{").map(|(_, rest)| rest) };
        if let Some(list) = list {
            depth = depth.max(1);
            let mut top = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ if depth == 1 => top.push(c),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            // Only what stands first in a path is a module of ours.
            hit |= top.split(',').any(|path| path.trim().split("::").next() == Some(module));
        }
        if hit {
            lines.push(n + 1);
        }
    }
    lines
}

/// Whether `code` holds `path` and the name does not go on behind it.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let next = code[at + path.len()..].chars().next();
        !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(complaints: &[Complaint]) -> Vec<usize> {
        complaints.iter().map(|complaint| complaint.line).collect()
    }

    #[test]
    fn a_file_that_the_map_does_not_name_is_missed() {
        let tree = Tree::of(&[
            (MAP, "`seal.rs`, and `store/row.rs` behind `key`"),
            ("crates/onceward/src/seal.rs", ""),
            ("crates/onceward/src/agenda.rs", ""),
            ("crates/onceward/src/store/postgres.rs", ""),
            ("crates/onceward-core/src/key.rs", ""),
            ("crates/onceward-core/src/lib.rs", ""),
            ("crates/onceward-sim/src/world.rs", ""),
        ]);
        let missed: Vec<_> = map(&tree).into_iter().map(|complaint| complaint.file).collect();
        assert_eq!(missed, ["crates/onceward/src/agenda.rs"]);
    }

    #[test]
    fn a_core_with_effects_is_refused_however_it_names_them() {
        let manifest = "[dependencies]\nbytes = \"1\"\ntokio = \"1\"\n\n[dev-dependencies]\n\
                        chance = { package = \"rand\", version = \"0.9\" }\n\n\
                        [target.'cfg(unix)'.dependencies]\nhyper = \"1\"\n";
        let mut found = lines(&core_manifest(&Tree::of(&[(CORE, manifest)])));
        found.sort_unstable();
        assert_eq!(found, [3, 6, 9]);
    }

    #[test]
    fn a_socket_that_is_opened_elsewhere_is_found() {
        let opens = "fn f() {\n    TcpStream::connect(a).await;\n} // lookup_host\n\
                     #[cfg(test)]\nmod tests {\n    fn g() { TcpStream::connect(a); }\n}\n";
        let tree = Tree::of(&[
            ("crates/onceward/src/alert.rs", opens),
            ("crates/onceward-server/src/cli/import.rs", "tokio::net::lookup_host((a, 1));\n"),
            (CONNECTOR, opens),
            ("crates/onceward-proof/src/line.rs", opens),
        ]);
        let found: Vec<_> =
            sockets(&tree).into_iter().map(|found| (found.file, found.line)).collect();
        let at = |file: &str, line| (file.to_owned(), line);
        assert_eq!(
            found,
            [
                at("crates/onceward-server/src/cli/import.rs", 1),
                at("crates/onceward/src/alert.rs", 2)
            ]
        );
    }

    #[test]
    fn a_pure_core_passes() {
        let manifest = "[dependencies]\nbytes = \"1\"\nrandom-but-not-rand = \"1\"\n";
        assert_eq!(core_manifest(&Tree::of(&[(CORE, manifest)])), []);
    }

    #[test]
    fn a_verb_that_uses_another_is_found_in_every_form() {
        let text = "use crate::settle::Settled;\n\
                    use crate::{store::Store, replay};\n\
                    use crate::{\n    store::{self, deliver},\n    remember::X,\n};\n\
                    fn f() { crate::receive::receive() }\n";
        let tree = Tree::of(&[("crates/onceward/src/deliver.rs", text)]);
        let mut found = lines(&verbs(&tree));
        found.sort_unstable();
        assert_eq!(found, [1, 2, 5, 7]);
    }

    #[test]
    fn words_comments_the_engine_and_the_verb_itself_are_fine() {
        let text = "//! See [`crate::replay`].\nuse crate::settlement::X; // not crate::settle\n\
                    use crate::deliver::Y;\nuse crate::store::{self, settle};\n";
        let engine = "use crate::{receive, remember, deliver, settle, replay};\n";
        let tree = Tree::of(&[
            ("crates/onceward/src/deliver.rs", text),
            ("crates/onceward/src/engine.rs", engine),
        ]);
        assert_eq!(verbs(&tree), []);
    }
}
