//! What was looked at, a line each: first how it is, then what it is; and under what is amiss the mend, and the page
//! that tells more.

use serde::Serialize;

use crate::cli::output::{clean, print};
use crate::exit::Exit;

/// How it is with what was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sign {
    Ok,
    /// Somebody should look at it.
    Warning,
    /// The gateway does not start, or does not work, as it is.
    Failed,
}

impl Sign {
    /// First on its line: a sign at a terminal, a word elsewhere.
    fn first(self, is_terminal: bool) -> &'static str {
        match (self, is_terminal) {
            (Self::Ok, true) => "√",
            (Self::Warning, true) => "‼",
            (Self::Failed, true) => "×",
            (Self::Ok, false) => "ok:",
            (Self::Warning, false) => "warning:",
            (Self::Failed, false) => "failed:",
        }
    }
}

/// Where more is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(clap::ValueEnum))]
pub(super) enum Page {
    Backup,
    Clocks,
    Commits,
    Configuration,
    Deploy,
    Disk,
    MasterKey,
    Postgres,
    Quarantine,
    Tls,
    Upgrade,
    UpstreamTls,
}

impl Page {
    /// Its path among our documents, and the heading there.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Backup => "docs/guides/backup.md",
            Self::Clocks => "docs/cluster.md#what-every-node-needs",
            Self::Commits => "docs/on-call/OncewardCommitsSlow.md",
            Self::Configuration => "docs/configuration.md",
            Self::Deploy => "docs/deploy.md",
            Self::Disk => "docs/on-call/OncewardDiskLow.md",
            Self::MasterKey => "docs/secrets.md#the-master-key",
            Self::Postgres => "docs/cluster.md#postgresqls-settings",
            Self::Quarantine => "docs/guides/backup.md#quarantine",
            Self::Tls => "docs/deploy.md#tls",
            Self::Upgrade => "docs/guides/upgrade.md",
            Self::UpstreamTls => "docs/configuration.md#tls-to-an-upstream",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    group: &'static str,
    result: Sign,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<&'static str>,
}

/// All that was looked at, group by group.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Findings {
    all: Vec<Finding>,
    #[serde(skip)]
    group: &'static str,
}

impl Findings {
    /// What is added from now on is of this group.
    pub(super) fn begin(&mut self, group: &'static str) {
        self.group = group;
    }

    pub(super) fn ok(&mut self, says: impl Into<String>) {
        self.add(Sign::Ok, says.into(), None, None);
    }

    /// What somebody should look at; the mend is in the words themselves where there is no `help`.
    pub(super) fn warn(&mut self, says: impl Into<String>, help: Option<String>, page: Page) {
        self.add(Sign::Warning, says.into(), help, Some(page));
    }

    pub(super) fn fail(&mut self, says: impl Into<String>, help: impl Into<String>, page: Page) {
        self.add(Sign::Failed, says.into(), Some(help.into()), Some(page));
    }

    fn add(&mut self, result: Sign, says: String, help: Option<String>, page: Option<Page>) {
        let page = page.map(Page::path);
        self.all.push(Finding { group: self.group, result, says, help, page });
    }

    /// How many are as they must not be.
    pub(super) fn failures(&self) -> usize {
        self.all.iter().filter(|finding| finding.result == Sign::Failed).count()
    }

    pub(super) fn print(&self, is_terminal: bool) -> Result<(), Exit> {
        let mut group = None;
        for Finding { group: of, result, says, help, page } in &self.all {
            if group.replace(of) != Some(of) {
                print(&format!("\n{of}"))?;
            }
            print(&format!("{} {}", result.first(is_terminal), clean(says)))?;
            if let Some(help) = help {
                print(&format!("    help: {}", clean(help)))?;
            }
            if let Some(page) = page {
                print(&format!("    see:  {page}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::generated;

    /// A heading as links name it.
    fn anchor(heading: &str) -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
    }

    #[test]
    fn every_page_that_a_finding_leads_to_is_there_with_its_heading() {
        for page in Page::value_variants() {
            let (file, heading) = page.path().split_once('#').unwrap_or_else(|| (page.path(), ""));
            let text = generated::text(file);
            assert!(!text.is_empty(), "{file} is not there");
            let mut headings = text.lines().filter_map(|line| line.strip_prefix('#'));
            let is_there = |line: &str| anchor(line.trim_start_matches('#')) == heading;
            assert!(heading.is_empty() || headings.any(is_there), "{} is not there", page.path());
        }
    }

    #[test]
    fn a_sign_stands_first_on_its_line_and_is_a_word_where_no_person_looks() {
        for sign in [Sign::Ok, Sign::Warning, Sign::Failed] {
            assert_eq!(sign.first(true).chars().count(), 1);
            assert!(sign.first(false).is_ascii());
        }
    }
}
