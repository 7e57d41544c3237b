//! What goes wrong, and with what: a seed decides it for each post and each of its arrivals, so
//! that two senders of the same load meet the same faults.

use crate::chance::{Chance, digest};

/// A post whose upstream is out for it is refused this often: longer than most callers go on.
const OUTAGE: u64 = 10;

/// What is tried again lands in the end: other faults are met at most so often.
const FAULTS_MAX: u64 = 2;

/// Something that goes wrong between a caller and the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// 503, and nothing done.
    Refused,
    /// 429, and nothing done.
    Limited,
    /// 500, and it was done all the same.
    Failed,
    /// Done, and the connection closed without an answer.
    Lost,
    /// Done, and no answer within anybody's patience.
    Hung,
    /// The connection reset, and nothing done.
    Reset,
    /// Done, and the answer breaks off.
    Cut,
    /// Done, and the answer comes in drops.
    Slow,
    /// On the way from the caller: the request arrives twice.
    Duplicated,
    /// On the way from the caller: the request arrives after the one that was sent later.
    Reordered,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::Limited,
        Self::Failed,
        Self::Lost,
        Self::Hung,
        Self::Reset,
        Self::Cut,
        Self::Slow,
        Self::Duplicated,
        Self::Reordered,
    ];

    /// The word for it in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Hung => "hung",
            Self::Reset => "reset",
            Self::Cut => "cut",
            Self::Slow => "slow",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
        }
    }

    /// How a gateway sees an attempt end that met this, or nothing.
    pub fn ending(met: Option<Self>) -> &'static str {
        match met {
            Some(Self::Lost | Self::Hung | Self::Reset) => "unanswered",
            Some(Self::Cut) => "truncated",
            _ => "answered",
        }
    }
}

/// One thing that somebody wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Post {
    /// Its name, which is its key too.
    pub name: String,
    /// `keyed` or `once`.
    pub route: &'static str,
    /// Whether its caller does not wait for the outcome.
    pub accepted: bool,
    /// What is sent.
    pub body: Vec<u8>,
}

impl Post {
    /// Where it goes.
    pub fn path(&self) -> String {
        format!("/{}/storm/orders", self.route)
    }
}

/// All that a seed decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
}

impl Plan {
    fn chance(self, what: &str, post: &str, nth: u64) -> Chance {
        Chance(digest(&(self.seed, what, post, nth)))
    }

    /// So many posts, whose names begin with `name`.
    pub fn posts(self, name: &str, count: usize) -> Vec<Post> {
        let post = |n| {
            let name = format!("{name}-{n}");
            let mut chance = self.chance("post", &name, 0);
            let route = if chance.percent(75) { "keyed" } else { "once" };
            let accepted = chance.percent(40);
            let note = "y".repeat(chance.below(900) as usize);
            let body = format!(
                "{{\"post\":\"{name}\",\"amount\":{},\"note\":\"{note}\"}}",
                1 + chance.below(500)
            );
            Post { name, route, accepted, body: body.into_bytes() }
        };
        (0..count).map(post).collect()
    }

    /// What the `nth` arrival of a post meets at its upstream; the first is 0.
    pub fn upstream(self, route: &str, post: &str, nth: u64) -> Option<Fault> {
        let refused = if route == "once" { Fault::Limited } else { Fault::Refused };
        if self.chance("outage", post, 0).percent(2) {
            return (nth < OUTAGE).then_some(refused);
        }
        if nth >= FAULTS_MAX {
            return None;
        }
        Some(match self.chance("upstream", post, nth).below(100) {
            0..6 => refused,
            6..9 => Fault::Failed,
            9..13 => Fault::Lost,
            13..15 => Fault::Hung,
            15..18 => Fault::Reset,
            18..21 => Fault::Cut,
            21..26 => Fault::Slow,
            _ => return None,
        })
    }

    /// What a post's first request meets on its way.
    pub fn wire(self, post: &str) -> Option<Fault> {
        match self.chance("wire", post, 0).below(100) {
            0..4 => Some(Fault::Duplicated),
            4..8 => Some(Fault::Reordered),
            _ => None,
        }
    }

    /// After how many of `posts` each of `kills` comes: spread evenly, but not quite.
    pub fn kills(self, posts: usize, kills: usize) -> Vec<usize> {
        let mut chance = self.chance("kills", "", 0);
        let part = posts / (kills + 1);
        let late = |chance: &mut Chance| chance.below(part.max(2) as u64 / 2) as usize;
        (1..=kills).map(|n| n * part + late(&mut chance)).collect()
    }

    /// A mark of the whole plan for these posts: equal plans have equal marks.
    pub fn mark(self, posts: &[Post], kills: usize) -> String {
        let of_post = |post: &Post| {
            let met = [0, 1, 2].map(|nth| self.upstream(post.route, &post.name, nth));
            digest(&(post, met, self.wire(&post.name)))
        };
        let all: Vec<u64> = posts.iter().map(of_post).collect();
        format!("{:016x}", digest(&(all, self.kills(posts.len(), kills))))
    }
}

/// The same things in an order that `chance` gives.
pub fn shuffled<T>(mut things: Vec<T>, chance: &mut Chance) -> Vec<T> {
    for last in (1..things.len()).rev() {
        things.swap(last, chance.below(last as u64 + 1) as usize);
    }
    things
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let mark = |seed| {
            let plan = Plan { seed };
            plan.mark(&plan.posts("post", 200), 3)
        };
        assert_eq!(mark(1), mark(1));
        assert_ne!(mark(1), mark(2));
    }

    #[test]
    fn every_fault_comes_and_everything_lands_in_the_end() {
        let plan = Plan { seed: 5 };
        let posts = plan.posts("post", 2000);
        let mut met = HashSet::new();
        for post in &posts {
            met.extend(plan.wire(&post.name));
            met.extend((0..OUTAGE).filter_map(|nth| plan.upstream(post.route, &post.name, nth)));
            assert_eq!(plan.upstream(post.route, &post.name, OUTAGE), None, "{}", post.name);
        }
        assert_eq!(met.len(), Fault::ALL.len(), "{met:?}");
        assert!(posts.iter().any(|post| post.accepted) && posts.iter().any(|post| !post.accepted));
    }

    #[test]
    fn kills_come_while_there_is_load() {
        for (posts, kills) in [(1000, 8), (30, 2), (5, 5), (1, 1), (0, 3)] {
            let at = Plan { seed: 9 }.kills(posts, kills);
            assert_eq!(at.len(), kills);
            assert!(at.is_sorted() && at.iter().all(|at| *at <= posts), "{posts}, {kills}: {at:?}");
        }
    }

    #[test]
    fn shuffling_loses_nothing() {
        let mut seen = shuffled((0..100).collect(), &mut Chance(3));
        assert!(!seen.is_sorted());
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..100));
    }
}
