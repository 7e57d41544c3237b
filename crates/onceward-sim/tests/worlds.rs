//! Some hundred worlds, others each time; found seeds always.

use std::time::{SystemTime, UNIX_EPOCH};

use onceward_sim::{Amount, run, run_many};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[expect(clippy::print_stdout, reason = "whoever reads the run has to see it")]
fn tell(line: &str) {
    println!("{line}");
}

/// How often so many more worlds are looked at, where one of these never happened: the rarest
/// happens about once in some hundred worlds.
const ROUNDS_MAX: u64 = 10;

const ARROWS: [(&str, &str); 16] = [
    ("", "delivering"),
    ("", "pending"),
    ("pending", "delivering"),
    ("pending", "cancelled"),
    ("pending", "superseded"),
    ("delivering", "pending"),
    ("delivering", "done"),
    ("delivering", "in_doubt"),
    ("delivering", "refused"),
    ("delivering", "exhausted"),
    ("delivering", "unsent"),
    ("delivering", "owner_gone"),
    ("exhausted", "delivering"),
    ("exhausted", "pending"),
    ("in_doubt", "done"),
    ("in_doubt", "pending"),
];

const OCCASIONS: [&str; 22] = [
    "an event was published",
    "an event was published again",
    "late evidence",
    "replayed",
    "joined",
    "revived",
    "mismatch",
    "key expired",
    "a doubt was looked for",
    "found by a lookup",
    "not done by a lookup",
    "a claim was begun",
    "a claim was completed",
    "a claim was done already",
    "a claim was given back",
    "a claim lapsed",
    "an old fence was refused",
    "a saga was done",
    "a saga was in doubt",
    "a saga began to unwind",
    "a saga was stuck",
    "a saga was unwound",
];

#[test]
fn worlds_with_faults_at_every_door_keep_every_promise() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("TEST_SEED", now.as_nanos() as u64 & 0xffff_ffff);
    let worlds = number("TEST_WORLDS", 100);
    // Worlds in which nothing happens prove nothing.
    let (mut arrows, mut occasions) = (ARROWS.to_vec(), OCCASIONS.to_vec());
    for round in 0..ROUNDS_MAX {
        let tally = run_many(seed + round * worlds, Amount::Worlds(worlds));
        tell(&format!(
            "{} worlds from seed {}, {} faults, {:.0} hours",
            tally.worlds,
            tally.first,
            tally.faults_in_all(),
            tally.simulated.as_secs_f64() / 3600.0
        ));
        assert!(tally.broken.is_empty(), "{}", tally.account());
        assert!(tally.faults.len() >= 16, "some faults never happen: {:?}", tally.faults);
        arrows.retain(|arrow| !tally.arrows.contains_key(arrow));
        occasions.retain(|occasion| !tally.occasions.contains_key(occasion));
        if arrows.is_empty() && occasions.is_empty() {
            return;
        }
    }
    panic!("nothing ever went {arrows:?}, and never: {occasions:?}");
}

#[test]
fn a_seed_is_always_the_same_world() {
    for seed in 1000..1015 {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.arrows, other.arrows, "seed {seed}");
    }
    assert_ne!(run(1).trace, run(2).trace);
}

#[test]
fn worlds_that_once_broke_a_promise_keep_it_now() {
    let lines = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        for seed in line.split(' ').map_while(|word| word.parse::<u64>().ok()) {
            let violations = run(seed).violations;
            assert!(violations.is_empty(), "seed {seed}: {violations:?}");
        }
    }
}

/// Ends at the first world that breaks a promise: so a promise that is broken on purpose is seen
/// as soon as it can be.
#[test]
fn the_first_worlds_keep_every_promise() {
    for seed in 1..=40 {
        let violations = run(seed).violations;
        assert!(violations.is_empty(), "world {seed} broke a promise: {violations:?}");
    }
}
