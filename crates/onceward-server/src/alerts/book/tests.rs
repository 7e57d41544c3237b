use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn at(minute: u64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000).plus(MINUTE * minute as u32)
}

fn alert(kind: Kind, route: &str) -> Alert {
    let (tenant, route) = (Some("default".to_owned()), Some(route.to_owned()));
    Alert { kind, tenant, route, node: None }
}

fn at_node(node: &str) -> Alert {
    Alert { kind: Kind::DiskLow, tenant: None, route: None, node: Some(node.to_owned()) }
}

fn rules() -> Rules {
    let rule = |bound, hold| Rule { bound, hold: MINUTE * hold, within: MINUTE * 15 };
    let of = BTreeMap::from([
        (Kind::InDoubt, rule(0, 3)),
        (Kind::DeadLetters, rule(5, 0)),
        (Kind::DiskLow, rule(100, 0)),
    ]);
    Rules { of, recover_after: MINUTE * 5 }
}

fn wish(name: &str) -> Wish {
    Wish {
        name: name.to_owned(),
        kinds: Vec::new(),
        tenant: None,
        routes: Vec::new(),
        repeat: Some(MINUTE * 60),
        group: MINUTE * 2,
    }
}

/// A book, the receiver that is told, and what it was told.
struct World {
    book: Book,
    to: Vec<Wish>,
    told: Vec<Notice>,
    /// Receivers that cannot be reached.
    away: Vec<&'static str>,
    in_part: Vec<Kind>,
}

impl World {
    fn new() -> Self {
        let (book, to) = (Book::default(), vec![wish("oncall")]);
        Self { book, to, told: Vec::new(), away: Vec::new(), in_part: Vec::new() }
    }

    fn look(&mut self, minute: u64, measures: &[(Alert, u64)]) {
        self.look_as("n1", minute, measures);
    }

    fn look_as(&mut self, node: &str, minute: u64, measures: &[(Alert, u64)]) {
        let measures: Vec<_> = measures
            .iter()
            .map(|(alert, value)| Measure { alert: alert.clone(), value: *value })
            .collect();
        let (now, rules) = (at(minute), rules());
        let (measures, in_part) = (&*measures, &*self.in_part);
        let seen = Seen { now, node, measures, in_part, rules: &rules, to: &self.to };
        self.book.step(&seen);
        for notice in self.book.take(1, false, now) {
            if self.away.contains(&notice.to.as_str()) {
                self.book.failed(&notice.id, "away", &[], now);
                continue;
            }
            self.book.sent(&notice.id);
            self.told.push(notice);
        }
        // What lies in the ledger is the same when it is read again.
        let kept = serde_json::to_vec(&self.book).unwrap();
        assert_eq!(self.book, serde_json::from_slice(&kept).unwrap());
    }

    fn turns(&self) -> Vec<Turn> {
        self.told.iter().flat_map(|notice| &notice.lines).map(|line| line.turn).collect()
    }
}

#[test]
fn an_alert_begins_goes_on_is_told_again_and_recovers() {
    let mut world = World::new();
    let held = [(alert(Kind::InDoubt, "crm"), 2)];
    for minute in 0..=2 {
        world.look(minute, &held);
    }
    assert_eq!(world.book.firing().count(), 0, "it has to be held for three minutes");
    world.look(3, &held);
    assert_eq!((world.book.firing().count(), world.told.len()), (1, 0), "it is collected");
    for minute in 4..=64 {
        world.look(minute, &held);
    }
    assert_eq!(world.turns(), [Turn::Firing]);
    world.look(65, &held);
    assert_eq!(world.turns(), [Turn::Firing, Turn::StillFiring]);
    for minute in 66..=72 {
        world.look(minute, &[]);
    }
    assert_eq!(world.turns().len(), 2, "it has not been over for five minutes and two");
    world.look(73, &[]);
    assert_eq!(world.turns(), [Turn::Firing, Turn::StillFiring, Turn::Recovered]);
    let line = &world.told[2].lines[0];
    assert_eq!((line.since, line.until), (at(0), Some(at(66))));
    assert_eq!(world.book.standing, []);
}

#[test]
fn what_begins_within_a_while_is_one_notice_and_what_is_over_before_it_is_none() {
    let mut world = World::new();
    let (one, other) = (alert(Kind::DeadLetters, "a"), alert(Kind::DeadLetters, "b"));
    world.look(0, &[(one.clone(), 9)]);
    world.look(1, &[(one.clone(), 9), (other.clone(), 6)]);
    world.look(2, &[(one, 9), (other, 5)]);
    assert_eq!(world.told.len(), 1);
    assert_eq!(world.told[0].lines.len(), 2);
    assert_eq!(world.told[0].id, format!("alert-1-{}", at(2).as_millis()));
    let mut world = World { to: vec![Wish { group: MINUTE * 9, ..wish("slow") }], ..World::new() };
    world.look(0, &[(alert(Kind::DeadLetters, "a"), 9)]);
    (1..30).for_each(|minute| world.look(minute, &[]));
    assert_eq!(world.told, []);
    assert_eq!(world.book.standing, []);
}

#[test]
fn each_is_told_of_what_it_wants() {
    let to = vec![
        Wish { kinds: vec![Kind::InDoubt], ..wish("doubt") },
        Wish { tenant: Some("acme".to_owned()), ..wish("acme") },
        Wish { routes: vec!["crm".to_owned()], ..wish("crm") },
        wish("all"),
    ];
    let mut world = World { to, ..World::new() };
    let measures = [(alert(Kind::DeadLetters, "crm"), 9), (at_node("n1"), 10)];
    (0..4).for_each(|minute| world.look(minute, &measures));
    let told: Vec<_> = world.told.iter().map(|it| (it.to.as_str(), it.lines.len())).collect();
    assert_eq!(told, [("crm", 1), ("all", 2)]);
}

#[test]
fn what_one_node_alone_can_tell_stays_until_it_says_so_or_is_gone() {
    let mut world = World::new();
    world.look_as("n1", 0, &[(at_node("n1"), 10)]);
    world.look_as("n1", 2, &[(at_node("n1"), 10)]);
    (3..=6).for_each(|minute| world.look_as("n2", minute, &[]));
    assert_eq!(world.turns(), [Turn::Firing], "another node cannot judge it");
    (7..=12).for_each(|minute| world.look_as("n2", minute, &[]));
    assert_eq!(world.turns(), [Turn::Firing, Turn::Recovered], "its node is gone");
}

#[test]
fn what_was_counted_in_part_is_over_only_once_all_was_counted() {
    let mut world = World::new();
    let (old, young) = (alert(Kind::InDoubt, "old"), alert(Kind::InDoubt, "young"));
    let dead = alert(Kind::DeadLetters, "a");
    (0..6).for_each(|minute| world.look(minute, &[(old.clone(), 1), (dead.clone(), 9)]));
    world.in_part = vec![Kind::InDoubt];
    (6..40).for_each(|minute| world.look(minute, &[(young.clone(), 5000)]));
    let fires: Vec<_> = world.book.firing().map(|it| it.alert.clone()).collect();
    assert_eq!(fires, [old, young], "what is of another kind is over");
    world.in_part.clear();
    (40..50).for_each(|minute| world.look(minute, &[]));
    assert_eq!(world.book.standing, []);
}

#[test]
fn a_notice_is_tried_until_it_is_sent_and_by_one_process_at_a_time() {
    let mut world = World::new();
    let seen = [Measure { alert: alert(Kind::DeadLetters, "a"), value: 9 }];
    let (rules, to) = (rules(), [wish("oncall")]);
    let seen =
        |now| Seen { now, node: "n1", measures: &seen, in_part: &[], rules: &rules, to: &to };
    let book = &mut world.book;
    book.step(&seen(at(0)));
    book.step(&seen(at(2)));
    let taken = book.take(1, false, at(2));
    assert_eq!(taken.len(), 1);
    assert_eq!(book.take(2, false, at(2)), [], "another process leaves it alone");
    assert_eq!(book.take(1, true, at(2)), [], "and so does this one");
    let again = book.take(2, true, at(2));
    assert_eq!(again[0].id, taken[0].id, "of a process that is gone it is free at once");
    assert!(book.failed(&again[0].id, "away", &[], at(2)));
    assert_eq!(book.take(2, false, at(2).plus(RETRY_FIRST)), [], "the second pause is longer");
    assert_eq!(book.take(2, false, at(2).plus(RETRY_FIRST * 2)).len(), 1);
    assert!(!book.failed(&taken[0].id, "away", &[], at(2).plus(GIVEN_UP_AFTER)), "it is old news");
    assert_eq!(book.take(2, true, at(9999)), []);
    assert_eq!(book.test("oncall", "n1", at(3)).id, format!("alert-2-{}", at(3).as_millis()));
}

#[test]
fn a_receiver_that_is_away_takes_no_place_of_others_and_learns_each_end_once_it_is_back() {
    let to = ["dead", "oncall"].map(|name| Wish { group: Duration::ZERO, ..wish(name) });
    let mut world = World { to: to.to_vec(), away: vec!["dead"], ..World::new() };
    // Each is told at its beginning and at its end: far more than may wait.
    let routes: Vec<_> = (0..120).map(|n| n.to_string()).collect();
    for (n, route) in routes.iter().enumerate() {
        let begins = n as u64 * 7;
        for minute in begins..begins + 7 {
            let held =
                [(alert(Kind::DeadLetters, route), 9), (alert(Kind::DeadLetters, "long"), 9)];
            let is_held = [minute == begins, minute < 100];
            let held = held.into_iter().zip(is_held).filter(|(_, is_held)| *is_held);
            world.look(minute, &held.map(|(it, _)| it).collect::<Vec<_>>());
        }
    }
    let told = world.turns().iter().filter(|turn| **turn == Turn::Recovered).count();
    assert_eq!(told, routes.len() + 1, "whoever can be reached is told all");
    assert_eq!(world.book.outgoing.len(), OUTGOING_MAX);
    world.away.clear();
    (840..860).for_each(|minute| world.look(minute, &[]));
    let mut fires = BTreeSet::new();
    // What waited comes when its pause is over, and bears its time.
    world.told.sort_by_key(|notice| notice.at);
    for notice in world.told.iter().filter(|notice| notice.to == "dead") {
        for Line { turn, alert, .. } in &notice.lines {
            let is_news = match turn {
                Turn::Firing => fires.insert(alert),
                Turn::StillFiring => fires.contains(alert),
                Turn::Recovered | Turn::Test => fires.remove(alert),
            };
            assert!(is_news, "{turn:?} {alert:?}");
        }
    }
    assert!(fires.is_empty(), "{fires:?}");
    assert_eq!(world.book.standing.len() + world.book.outgoing.len(), 0);
}

#[test]
fn what_a_lost_notice_was_to_tell_was_not_told_and_is_news_again() {
    let mut world = World { away: vec!["oncall"], ..World::new() };
    world.to[0].repeat = None;
    let held = [(alert(Kind::DeadLetters, "a"), 9)];
    let told = |world: &World| {
        world.book.firing().next().unwrap().told.get("oncall").map(|told| told.notice.clone())
    };
    world.look(0, &held);
    world.look(2, &held);
    let first = told(&world).unwrap();
    assert!(world.book.outgoing(&first).is_some());
    (3..4400).step_by(8).for_each(|minute| world.look(minute, &held));
    let second = told(&world).unwrap();
    assert!(second != first && world.book.outgoing(&second).is_some());
    world.away.clear();
    (4400..4420).for_each(|minute| world.look(minute, &held));
    assert_eq!(world.turns(), [Turn::Firing]);
    assert_eq!(world.told[0].id, second);
}

#[test]
fn a_notice_to_nobody_is_dropped_and_to_whom_another_node_knows_it_is_kept() {
    let mut world = World { away: vec!["oncall"], ..World::new() };
    let held = [(alert(Kind::DeadLetters, "a"), 9)];
    (0..=2).for_each(|minute| world.look(minute, &held));
    assert_eq!(world.book.outgoing.len(), 1);
    for minute in 3..200 {
        let to = if minute % 30 == 0 { vec![wish("oncall")] } else { Vec::new() };
        world.to = to;
        world.look(minute, &held);
        assert!(!world.book.outgoing.is_empty(), "another node knows it");
    }
    world.to.clear();
    (200..239).for_each(|minute| world.look(minute, &held));
    assert!(!world.book.outgoing.is_empty());
    world.look(240, &held);
    assert_eq!(world.book.outgoing, []);
}

#[test]
fn however_many_have_ended_there_is_room_for_what_begins() {
    let mut world = World { away: vec!["oncall"], ..World::new() };
    let begun: Vec<_> =
        (0..STANDING_MAX).map(|n| (alert(Kind::DeadLetters, &n.to_string()), 9)).collect();
    (0..=2).for_each(|minute| world.look(minute, &begun));
    (3..=8).for_each(|minute| world.look(minute, &[]));
    assert_eq!((world.book.firing().count(), world.book.standing.len()), (0, STANDING_MAX));
    world.look(9, &[(alert(Kind::DeadLetters, "late"), 9)]);
    assert_eq!((world.book.firing().count(), world.book.standing.len()), (1, STANDING_MAX));
}

/// What is held at each minute of an hour or two, by route.
fn story() -> impl Strategy<Value = Vec<[bool; 2]>> {
    prop::collection::vec(any::<[bool; 2]>(), 1..120)
}

fn held(minute: [bool; 2]) -> Vec<(Alert, u64)> {
    let routes = ["a", "b"].into_iter().zip(minute);
    routes
        .filter(|(_, is_held)| *is_held)
        .map(|(route, _)| (alert(Kind::DeadLetters, route), 9))
        .collect()
}

proptest! {
    #[test]
    fn a_beginning_and_an_end_take_turns_and_nothing_is_left(story in story()) {
        let mut world = World::new();
        for (n, minute) in story.iter().enumerate() {
            world.look(n as u64, &held(*minute));
        }
        let end = story.len() as u64;
        (end..end + 10).for_each(|minute| world.look(minute, &[]));
        for route in ["a", "b"] {
            let (mut fires, mut last) = (false, None);
            for notice in &world.told {
                for line in notice.lines.iter().filter(|it| it.alert.route.as_deref() == Some(route)) {
                    match line.turn {
                        Turn::Firing => {
                            prop_assert!(!fires);
                            fires = true;
                        }
                        Turn::StillFiring => {
                            prop_assert!(fires && Some(notice.at.minus(MINUTE * 60)) >= last);
                        }
                        Turn::Recovered => {
                            prop_assert!(fires);
                            fires = false;
                        }
                        Turn::Test => prop_assert!(false),
                    }
                    last = Some(notice.at);
                }
            }
            prop_assert!(!fires, "{route} was told to fire, and never that it is over");
        }
        prop_assert_eq!(world.book.standing.len() + world.book.outgoing.len(), 0);
    }

    #[test]
    fn however_it_flaps_it_is_told_no_more_than_the_pauses_allow(story in story()) {
        let mut world = World::new();
        for (n, minute) in story.iter().enumerate() {
            world.look(n as u64, &held([minute[0], false]));
        }
        // From one beginning to the next it has to be over for five minutes, and both are collected.
        let begun = world.turns().iter().filter(|turn| **turn == Turn::Firing).count();
        prop_assert!(begun <= story.len() / 7 + 1, "{begun} in {} minutes", story.len());
    }

    #[test]
    fn two_nodes_tell_together_what_one_would_tell(story in story()) {
        let (mut one, mut two) = (World::new(), World::new());
        for (n, minute) in story.iter().enumerate() {
            one.look(n as u64, &held(*minute));
            two.look_as("n1", n as u64, &held(*minute));
            two.look_as("n2", n as u64, &held(*minute));
        }
        prop_assert_eq!(one.told, two.told);
    }
}
