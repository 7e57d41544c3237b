//! The sum of a run, post by post: what its callers were told, beside what was done.

use crate::check::Told;

/// One post's whole story.
#[derive(Debug, Clone, Default)]
pub struct Story {
    /// The post's name.
    pub post: String,
    /// How often it was done.
    pub effects: u64,
    /// Every answer about it, in order.
    pub told: Vec<Told>,
    /// Whether it stands in the ledger as in doubt, for a person to resolve.
    pub in_doubt: bool,
}

/// What all stories amount to: posts, by what is wrong with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often anything was done.
    pub effects: u64,
    /// Acknowledged, never done, and not in doubt.
    pub missing: Vec<String>,
    /// Done more than once.
    pub doubled: Vec<String>,
    /// Answered in two different ways.
    pub differing: Vec<String>,
    /// Never acknowledged and never done, so their callers know that they failed.
    pub given_up: Vec<String>,
    /// Done, and never told so: their callers believe that they failed.
    pub done_unknown: Vec<String>,
    /// Answers from memory.
    pub replayed: usize,
}

impl Tally {
    /// Adds the stories up.
    pub fn of<'a>(stories: impl IntoIterator<Item = &'a Story>) -> Self {
        let mut tally = Self::default();
        for story in stories {
            tally.add(story);
        }
        tally
    }

    fn add(&mut self, story: &Story) {
        let name = || story.post.clone();
        let acknowledged = story.told.iter().any(Told::is_acknowledged);
        let is_known = acknowledged || story.told.iter().any(Told::is_not_retained);
        self.effects += story.effects;
        self.replayed += story.told.iter().filter(|told| told.replayed).count();
        match (story.effects, acknowledged) {
            _ if story.in_doubt => {}
            (0, true) => self.missing.push(name()),
            (0, false) => self.given_up.push(name()),
            (_, _) if !is_known => self.done_unknown.push(name()),
            _ => {}
        }
        if story.effects > 1 {
            self.doubled.push(name());
        }
        let mut finals = story.told.iter().filter(|told| told.is_final());
        let first = finals.next();
        if first.is_some_and(|first| finals.any(|told| told.digest != first.digest)) {
            self.differing.push(name());
        }
    }

    /// The promises that were broken, in words.
    pub fn violations(&self) -> Vec<String> {
        let each = |posts: &[String], what: &str| {
            posts.iter().map(|post| format!("{post}: {what}")).collect::<Vec<_>>()
        };
        let mut all = each(&self.missing, "acknowledged, and never done");
        all.extend(each(&self.doubled, "done more than once"));
        all.extend(each(&self.differing, "two different answers to one key"));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, digest: u64) -> Told {
        Told {
            status,
            code: String::new(),
            replayed: false,
            operation: "op_1".to_owned(),
            digest,
            length: 0,
        }
    }

    fn story(effects: u64, told: Vec<Told>) -> Story {
        Story { post: "post-1".to_owned(), effects, told, in_doubt: false }
    }

    fn broken(story: &Story) -> Vec<String> {
        Tally::of([story]).violations()
    }

    #[test]
    fn what_was_done_once_and_told_alike_is_in_order() {
        assert_eq!(broken(&story(1, vec![told(202, 1), told(201, 2), told(201, 2)])), [""; 0]);
        assert_eq!(broken(&story(0, vec![told(503, 1)])), [""; 0], "its caller knows");
        assert_eq!(broken(&story(0, vec![])), [""; 0], "nobody was told anything");
    }

    #[test]
    fn a_gateway_that_acknowledges_and_forgets_is_found() {
        for acknowledged in [201, 202] {
            let found = broken(&story(0, vec![told(acknowledged, 1)]));
            assert_eq!(found, ["post-1: acknowledged, and never done"]);
        }
    }

    #[test]
    fn a_gateway_that_sends_twice_is_found() {
        let twice = story(2, vec![told(201, 1)]);
        assert_eq!(broken(&twice), ["post-1: done more than once"]);
        let in_doubt = Story { in_doubt: true, ..twice };
        assert_eq!(broken(&in_doubt), ["post-1: done more than once"], "doubt excuses nothing");
    }

    #[test]
    fn a_gateway_whose_replay_differs_is_found() {
        let found = broken(&story(1, vec![told(201, 1), told(201, 2)]));
        assert_eq!(found, ["post-1: two different answers to one key"]);
    }

    #[test]
    fn what_is_in_doubt_is_neither_missing_nor_given_up() {
        let doubtful = Story { in_doubt: true, ..story(0, vec![told(202, 1)]) };
        assert_eq!(Tally::of([&doubtful]), Tally::default());
    }

    #[test]
    fn what_was_done_though_its_caller_gave_up_is_told_apart() {
        let tally = Tally::of([&story(1, vec![told(500, 1)]), &story(0, vec![])]);
        assert_eq!((tally.done_unknown.len(), tally.given_up.len(), tally.effects), (1, 1, 1));
    }
}
