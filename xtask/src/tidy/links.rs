//! Links in the papers, which are all Markdown files, lead somewhere.
//!
//! Relative links only: whether an address on the web answers today is not for a build to say.

use std::collections::{BTreeMap, BTreeSet};

use super::{Complaint, Tree};

/// Every relative link of the papers leads to a file or folder of the tree, and to a heading that
/// is there.
pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let is_paper = |path: &str| super::text::has_extension(path, "md");
    let mut complaints = Vec::new();
    for (path, text) in tree.texts(is_paper) {
        for (line, target) in links(text) {
            complaints
                .extend(broken(tree, path, &target).map(|what| Complaint::new(path, line, what)));
        }
    }
    complaints
}

/// Why a link does not lead anywhere.
fn broken(tree: &Tree, from: &str, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = path.split('?').next().unwrap_or_default();
    let file = if path.is_empty() {
        from.to_owned()
    } else {
        match resolve(from, path) {
            Some(file) if tree.has(&file) => file,
            _ => {
                return Some(format!(
                    "the link {target} leads nowhere: mend the path, or add the file"
                ));
            }
        }
    };
    if anchor.is_empty() || !super::text::has_extension(&file, "md") {
        return None;
    }
    let text = tree.texts.get(&file)?;
    (!anchors(text).contains(anchor))
        .then(|| format!("the link {target} names no heading of {file}: mend the part after #"))
}

/// `target` as seen from the file `from`, as a path from the root; `None` when it leaves the tree.
pub(crate) fn resolve(from: &str, target: &str) -> Option<String> {
    let target = target.replace("%20", " ");
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').collect(),
    };
    // Without the file's own name.
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Line and target of each relative link: `[text](target)`, `[name]: target`, `src="…"`, `href="…"`.
pub(crate) fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (n, line) in prose(text) {
        let mut targets = Vec::new();
        let trimmed = line.trim_start();
        if trimmed.starts_with('[')
            && let Some((_, rest)) = trimmed.split_once("]: ")
        {
            targets.push(rest);
        }
        for opening in ["](", "href=\"", "src=\""] {
            targets.extend(line.match_indices(opening).map(|(at, _)| &line[at + opening.len()..]));
        }
        for target in targets {
            let target = target.trim_start();
            let end = match target.strip_prefix('<') {
                Some(_) => target.find('>'),
                None => target.find(|c: char| c.is_whitespace() || c == ')' || c == '"'),
            };
            let target = target[..end.unwrap_or(target.len())].trim_start_matches('<');
            if is_relative(target) {
                found.push((n, target.to_owned()));
            }
        }
    }
    found
}

/// Not on the web, not a mail address.
fn is_relative(target: &str) -> bool {
    let scheme = target.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
    });
    !target.is_empty() && !target.starts_with("//") && !scheme
}

/// Lines outside of code blocks, with code spans blanked out.
pub(crate) fn prose(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(n, line)| {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => {
                fence = Some(mark);
                None
            }
            (Some(open), Some(mark)) if open == mark => {
                fence = None;
                None
            }
            (Some(_), _) => None,
            (None, None) => Some((n + 1, without_code(line))),
        }
    })
}

fn without_code(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    // An odd backtick opens nothing.
    let last = parts.len() - 1;
    let code = |n: usize| n % 2 == 1 && n < last;
    parts.iter().enumerate().filter(|(n, _)| !code(*n)).map(|(_, part)| *part).collect()
}

/// The names that a page's headings can be linked by, as the common forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
            fenced = !fenced;
        }
        for mark in ["id=\"", "name=\""] {
            for (at, _) in line.match_indices(mark) {
                anchors.extend(line[at + mark.len()..].split('"').next().map(str::to_owned));
            }
        }
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if fenced || !(1..=6).contains(&level) || !line[level..].starts_with(' ') {
            continue;
        }
        let slug = slug(line[level..].trim().trim_end_matches('#').trim_end());
        let times = seen.entry(slug.clone()).or_default();
        anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    anchors
}

fn slug(heading: &str) -> String {
    // A link in a heading counts by its text alone.
    let mut plain = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        plain.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_to_files_folders_and_headings_that_are_there_pass() {
        let readme = "# Onceward\n[a](docs/start.md) [b](./docs/) ![c](docs/p.svg \"title\")\n\
                      [d](#onceward) [e](docs/start.md#the-first-run) [f](https://example.com/x)\n\
                      [g](mailto:a@example.com) `[not](a link)`\n\n[h]: docs/start.md\n\
                      ```\n[nor](this)\n```\n";
        let start = "## The `first` run\n[up](../README.md) [also up](/README.md)\n";
        let files = [("README.md", readme), ("docs/start.md", start), ("docs/p.svg", "")];
        assert_eq!(found(&files), Vec::<String>::new());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named_with_its_line() {
        let found = found(&[("docs/a.md", "\n[x](b.md)\n[y](../../out.md)\n\n[z]: c.md\n")]);
        assert_eq!(found.len(), 3);
        assert!(found[0].starts_with("docs/a.md:2: the link b.md leads nowhere"), "{}", found[0]);
        assert!(found[1].starts_with("docs/a.md:3:"));
        assert!(found[2].starts_with("docs/a.md:5:"));
    }

    #[test]
    fn an_anchor_without_a_heading_is_named() {
        let found = found(&[("README.md", "# One\n[x](#two)\n"), ("other.txt", "[x](nowhere.md)")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("names no heading of README.md"), "{}", found[0]);
    }

    #[test]
    fn headings_become_anchors_as_forges_make_them() {
        let anchors = anchors("# A, b & C\n## A, b & C\n```\n# not\n```\n### [Link](x.md)s_1\n");
        let expected = ["a-b--c", "a-b--c-1", "links_1"];
        assert_eq!(anchors.into_iter().collect::<Vec<_>>(), expected);
    }
}
