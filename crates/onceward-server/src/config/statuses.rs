//! What a route says of statuses, where its upstream means something else by them than is usual.

use std::collections::BTreeMap;

use onceward::core::policy::{Meaning, Policy};
use serde::Deserialize;

/// Five lists; a status stands in one of them.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct StatusesFile {
    success: Option<Vec<u16>>,
    not_processed: Option<Vec<u16>>,
    refused: Option<Vec<u16>>,
    r#final: Option<Vec<u16>>,
    ambiguous: Option<Vec<u16>>,
}

impl StatusesFile {
    /// Lays the lists over `policy`: a list replaces the one of its name, and what is said last of
    /// a status holds. The error says what is wrong, and how to mend it.
    pub(super) fn lay_over(&self, policy: &mut Policy) -> Result<(), String> {
        self.examine()?;
        for (_, list, meaning) in self.lists() {
            policy.statuses.retain(|_, known| *known != meaning);
            policy.statuses.extend(list.iter().map(|status| (*status, meaning)));
        }
        if let Some(success) = &self.success {
            policy.success.clone_from(success);
        }
        let wins = policy.success.clone();
        policy.statuses.retain(|status, _| !wins.contains(status));
        Ok(())
    }

    /// The names of the lists that were said.
    pub(super) fn said(&self) -> impl Iterator<Item = &'static str> {
        let success = self.success.as_ref().map(|_| "success");
        success.into_iter().chain(self.lists().map(|(name, ..)| name))
    }

    /// The lists that were said, but for what is a success.
    fn lists(&self) -> impl Iterator<Item = (&'static str, &Vec<u16>, Meaning)> {
        [
            ("not_processed", &self.not_processed, Meaning::NotProcessed),
            ("refused", &self.refused, Meaning::Refused),
            ("final", &self.r#final, Meaning::Final),
            ("ambiguous", &self.ambiguous, Meaning::Ambiguous),
        ]
        .into_iter()
        .filter_map(|(name, list, meaning)| Some((name, list.as_ref()?, meaning)))
    }

    fn examine(&self) -> Result<(), String> {
        let success = self.success.iter().map(|list| ("success", list));
        let mut seen = BTreeMap::new();
        for (name, list) in success.chain(self.lists().map(|(name, list, _)| (name, list))) {
            for status in list {
                if !(200..600).contains(status) {
                    return Err(format!(
                        "lists {status} under {name}\nhelp: a final status lies between 200 and 599"
                    ));
                }
                if let Some(other) = seen.insert(*status, name).filter(|other| *other != name) {
                    return Err(format!(
                        "lists {status} under {other} and under {name}\nhelp: leave it in one of them"
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(mut policy: Policy, text: &str) -> Result<Policy, String> {
        let file: StatusesFile = toml::from_str(text).unwrap();
        file.lay_over(&mut policy).map(|()| policy)
    }

    #[test]
    fn what_is_said_last_of_a_status_holds() {
        let route = laid(Policy::default(), "not_processed = [502, 503]\nfinal = [500]").unwrap();
        let rule = laid(route, "not_processed = [503]\nambiguous = [500]\nsuccess = [200, 404]");
        let rule = rule.unwrap();
        let said = [(500, Meaning::Ambiguous), (503, Meaning::NotProcessed)];
        assert_eq!(rule.statuses, said.into());
        let success = laid(rule, "success = [200, 503]").unwrap();
        assert_eq!(success.statuses, [(500, Meaning::Ambiguous)].into());
    }

    #[test]
    fn a_status_in_two_lists_or_in_none_that_there_is_is_refused() {
        let refused = |text| laid(Policy::default(), text).unwrap_err();
        assert!(
            refused("success = [404]\nfinal = [404]").contains("under success and under final")
        );
        assert!(refused("ambiguous = [100]").contains("between 200 and 599"));
        assert!(refused("refused = [5000]").contains("5000"));
    }
}
