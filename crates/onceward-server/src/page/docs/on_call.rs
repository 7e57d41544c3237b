//! `/docs/on-call/{alert}`: what an alert means and what to do, as the docs have it. It is in the binary, so
//! that whoever is woken reads it where the alert leads them.

use maud::{Markup, html};

use super::text;

/// The page of each alert, by its name.
macro_rules! pages {
    ($($name:literal)*) => {
        const PAGES: &[(&str, &str)] = &[$((
            $name,
            include_str!(concat!("../../../../../docs/on-call/", $name, ".md")),
        )),*];
    };
}

pages! {
    "OncewardBacklogOld"
    "OncewardBreakerOpen"
    "OncewardCommitsSlow"
    "OncewardDeadLetters"
    "OncewardDiskLow"
    "OncewardInDoubt"
    "OncewardInDoubtOld"
    "OncewardLateDuplicates"
    "OncewardOutboxLags"
    "OncewardReconcileDiffers"
    "OncewardSagaStuck"
    "OncewardSuspectedDoubles"
    "OncewardWebhooksRejected"
}

/// The page of the alert of this name.
pub(super) fn page(alert: &str) -> Option<Markup> {
    let (name, page) = PAGES.iter().find(|(name, _)| *name == alert)?;
    Some(html! {
        h1 { (name) }
        @for block in page.split("\n\n").map(str::trim).skip(1).filter(|block| !block.is_empty()) {
            (shown(block))
        }
    })
}

/// A heading, a list of steps or a paragraph: those pages have nothing else.
fn shown(block: &str) -> Markup {
    if let Some(heading) = block.strip_prefix("## ") {
        return html! { h2 { (text::line(&text::unlinked(heading))) } };
    }
    if block.starts_with("1. ") {
        return html! { ol { @for step in steps(block) { li { (text::line(&text::unlinked(&step))) } } } };
    }
    html! { p { (text::line(&text::unlinked(block))) } }
}

/// The steps of a list; a line that is no new one goes on with the last.
fn steps(block: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for line in block.lines() {
        let number = line.split_once(". ").filter(|(number, _)| number.parse::<u8>().is_ok());
        match (number, steps.last_mut()) {
            (None, Some(last)) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            (number, _) => steps.push(number.map_or(line, |(_, step)| step).to_owned()),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_has_its_page_whole_and_nothing_of_how_it_is_written() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/on-call");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), PAGES.len());
        for (name, _) in PAGES {
            let shown = page(name).unwrap().into_string();
            for mark in ["](", "`", "## ", ".md"] {
                assert!(!shown.contains(mark), "{name} has {mark}: {shown}");
            }
            assert!(shown.len() > 300, "{name}: {shown}");
        }
        let saga = page("OncewardSagaStuck").unwrap().into_string();
        assert_eq!(saga.matches("<li>").count(), 4, "{saga}");
        assert!(saga.contains("<code>--as not-done</code>"), "{saga}");
        assert!(page("OncewardNothing").is_none());
    }
}
