//! A page for each alert: below its heading stands what the rules of Prometheus say of it, and the rest of
//! the page is written by hand.

use crate::tidy::{Complaint, Tree};

const RULES: &str = "deploy/prometheus/alerts.yml";
const FOLDER: &str = "docs/on-call";

/// What a rule says.
#[derive(Debug, Default)]
struct Rule {
    name: String,
    /// The line of its name, from 1.
    line: usize,
    expr: String,
    held_for: String,
    severity: String,
    description: String,
}

/// Each page with its whole text.
pub(super) fn pages(tree: &Tree) -> Result<Vec<(String, String)>, Complaint> {
    let Some(rules) = tree.text(RULES) else { return Ok(Vec::new()) };
    rules_of(rules).into_iter().map(|rule| page(tree, &rule)).collect()
}

/// The rules of the file, which is written in one way throughout; `promtool` holds it to YAML.
fn rules_of(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut folded = false;
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("- alert: ") {
            rules.push(Rule { name: name.to_owned(), line: n + 1, ..Rule::default() });
        } else if line.starts_with("- record: ") {
            rules.push(Rule::default());
        }
        let Some(rule) = rules.last_mut() else { continue };
        if folded {
            let ends = line.contains(": ") && !line.contains('(');
            if !ends {
                rule.expr.extend([" ", line]);
                continue;
            }
            folded = false;
        }
        if let Some(expr) = line.strip_prefix("expr: ") {
            folded = expr == ">-";
            rule.expr = if folded { String::new() } else { expr.to_owned() };
        } else if let Some(time) = line.strip_prefix("for: ") {
            time.clone_into(&mut rule.held_for);
        } else if let Some(labels) = line.strip_prefix("labels: { severity: ") {
            labels.trim_end_matches(" }").clone_into(&mut rule.severity);
        } else if let Some(description) = line.strip_prefix("description: ") {
            description.clone_into(&mut rule.description);
        }
    }
    rules.retain(|rule| !rule.name.is_empty());
    rules
}

fn page(tree: &Tree, rule: &Rule) -> Result<(String, String), Complaint> {
    let path = format!("{FOLDER}/{}.md", rule.name);
    let title = format!("# {}\n\n", rule.name);
    let Some(rest) = tree.text(&path).and_then(|page| page.strip_prefix(&title)) else {
        let what = format!(
            "{} has no page: add {path}, which begins with its name as a heading",
            rule.name
        );
        return Err(Complaint::new(RULES, rule.line, what));
    };
    // The paragraph below the heading is ours.
    let by_hand = rest.split_once("\n\n").map_or("", |(_, rest)| rest);
    let held = if rule.held_for.is_empty() {
        String::new()
    } else {
        format!(", held for {}", rule.held_for)
    };
    let said =
        format!("*{}*, where `{}`{held}. {}", rule.severity, rule.expr.trim(), rule.description);
    Ok((path, format!("{title}{said}\n\n{by_hand}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "groups:\n  - name: a\n    rules:\n      - record: r\n        expr: sum(x)\n      - alert: Late\n        \
        expr: >-\n          max(late_seconds)\n          > 3\n        for: 5m\n        labels: { severity: page }\n        \
        annotations:\n          description: It is late.\n";

    #[test]
    fn what_the_rule_says_stands_below_the_heading_and_the_rest_stays() {
        let old = "# Late\n\nWhat it said before.\n\nBy hand.\n\nMore.\n";
        let pages = pages(&Tree::of(&[(RULES, TWO), ("docs/on-call/Late.md", old)])).unwrap();
        let expected = "# Late\n\n*page*, where `max(late_seconds) > 3`, held for 5m. It is late.\n\nBy hand.\n\nMore.\n";
        assert_eq!(pages, [("docs/on-call/Late.md".to_owned(), expected.to_owned())]);
    }

    #[test]
    fn an_alert_without_a_page_is_named_at_its_rule() {
        let complaint = pages(&Tree::of(&[(RULES, TWO)])).unwrap_err();
        assert_eq!((complaint.file.as_str(), complaint.line), (RULES, 6));
    }
}
