use serde_json::json;

use super::board::{Act, Board, Deed, Seen};
use super::keys::{Key, read};
use super::paint::{Size, ansi, room, screen};
use super::*;

#[test]
fn a_line_is_told_for_what_is_new_and_for_each_change() {
    let mut followed = Followed::default();
    let at = |state: &str, attempts: usize| json!({"id": "op_1", "state": state, "attempts": vec![json!({}); attempts]});
    assert!(followed.note(&at("pending", 0)));
    assert!(!followed.note(&at("pending", 0)));
    assert!(followed.note(&at("pending", 1)), "an attempt failed meanwhile");
    assert!(followed.note(&at("done", 2)));
    assert!(!followed.note(&at("done", 2)));
    assert!(followed.open.is_empty());
}

#[test]
fn what_was_over_before_one_began_to_follow_is_no_news_and_a_line_has_its_own_time() {
    let mut followed = Followed { floor: "op_5".to_owned(), ..Followed::default() };
    let at = |id: &str, state: &str| json!({"id": id, "state": state, "attempts": []});
    assert!(!followed.tells(&at("op_1", "dead")), "it is older than all that was looked at");
    assert!(followed.tells(&at("op_1", "done")), "it changed since");
    assert!(followed.tells(&at("op_6", "dead")));
    let mut dead = row(1, "dead");
    assert_eq!(happened(&dead), "2026-01-31T11:59:50.200Z");
    dead["ended_at"] = json!("2026-01-31T11:59:51.000Z");
    assert_eq!(happened(&dead), "2026-01-31T11:59:51.000Z");
}

const SIZE: Size = Size { columns: 100, lines: 9 };

fn flags() -> Tail {
    Tail { state: None, route: None, plain: false, color: Colour::Auto }
}

fn row(n: usize, state: &str) -> Value {
    let attempt = json!({"n": 1, "ending": "answered", "status": 404, "started_at": "2026-01-31T11:59:50.000Z",
        "ended_at": "2026-01-31T11:59:50.200Z"});
    json!({
        "id": format!("op_{n:02}"), "key": format!("order-{n}"), "state": state, "told": false, "route": "demo",
        "forgotten": null, "method": "POST", "path": "/orders", "attempts": [attempt], "outcome": null, "ok": null,
        "created_at": "2026-01-31T11:59:00.000Z", "risk": {"name": "safe", "why": "nothing was done"},
        "retry": "It was refused.",
    })
}

/// A terminal: keys go in, and what is seen comes out.
struct World {
    board: Board,
}

impl World {
    fn new(rows: &[Value]) -> Self {
        let mut world = Self { board: Board::new(&flags()) };
        world.board.room = room(SIZE);
        world.see(rows, None);
        world
    }

    fn see(&mut self, rows: &[Value], next: Option<&str>) {
        let mut newest: Vec<Value> = rows.to_vec();
        newest.reverse();
        let page = json!({"data": newest, "next": next});
        self.board.take(Seen { filter: self.board.filter.clone(), page, others: Vec::new() });
    }

    /// Types it; tells what it led to last.
    fn type_in(&mut self, text: &str) -> Option<Act> {
        read(text.as_bytes()).into_iter().filter_map(|key| self.board.press(key)).last()
    }

    fn screen(&self) -> Vec<String> {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        let (lines, _) = screen(&self.board, SIZE, "http://127.0.0.1:7077", now);
        lines.iter().map(paint::Line::plain).collect()
    }

    #[track_caller]
    fn shows(&self, words: &str) {
        assert!(
            self.screen().iter().any(|line| line.contains(words)),
            "{words}: {:#?}",
            self.screen()
        );
    }

    fn selected(&self) -> Option<String> {
        self.screen().iter().find(|line| line.starts_with('▸')).cloned()
    }
}

#[test]
fn a_screen_has_each_operation_by_icon_and_word_and_as_many_lines_as_the_terminal() {
    let world = World::new(&[row(1, "dead"), row(2, "in_doubt"), row(3, "done")]);
    let screen = world.screen();
    assert_eq!(screen.len(), SIZE.lines);
    assert!(screen[1].trim_start().starts_with("STATE"), "{screen:#?}");
    assert!(screen[2].contains("✓ done") && screen[2].contains("order-3"), "the newest first");
    assert!(screen[3].contains("? in doubt"));
    assert_eq!(
        screen[4].split_whitespace().collect::<Vec<_>>(),
        ["✗", "dead", "order-1", "demo", "1", "404", "1m"]
    );
    assert!(screen[8].contains("q quit") && screen[8].contains("r redeliver"));
    world.shows("http://127.0.0.1:7077");
}

#[test]
fn a_selection_stays_with_its_row_when_new_ones_come() {
    let mut world = World::new(&[row(1, "done"), row(2, "dead")]);
    assert_eq!(world.selected(), None);
    world.type_in("jj");
    assert!(world.selected().unwrap().contains("order-1"));
    world.type_in("k");
    assert!(world.selected().unwrap().contains("order-2"));
    let line = world.screen().iter().position(|line| line.starts_with('▸')).unwrap();
    let all: Vec<Value> = (1..=30).map(|n| row(n, "done")).collect();
    world.see(&all, None);
    assert!(world.selected().unwrap().contains("order-2"));
    assert_eq!(
        world.screen().iter().position(|line| line.starts_with('▸')),
        Some(line),
        "it does not jump"
    );
    world.shows("↑ 28 above");
    world.type_in("g");
    assert!(world.selected().unwrap().contains("order-30"));
    // Past both ends it stays where it is.
    world.type_in("kkG");
    assert!(world.selected().unwrap().contains("order-1 "));
    world.type_in("jjj\u{1b}[5~");
    assert!(world.selected().unwrap().contains("order-6 "));
    world.type_in("\u{1b}");
    assert_eq!(world.selected(), None);
    world.shows("order-30");
}

#[test]
fn what_the_list_has_no_more_goes_but_for_what_is_selected_and_what_it_does_not_reach() {
    let mut world = World::new(&[row(1, "dead"), row(2, "dead"), row(3, "dead"), row(4, "dead")]);
    world.type_in("jj");
    assert!(world.selected().unwrap().contains("order-3"));
    // The page reaches down to 2 and has 4 alone.
    world.see(&[row(4, "dead")], Some("op_02"));
    let screen = world.screen().join("\n");
    assert!(screen.contains("order-4") && screen.contains("order-3") && screen.contains("order-1"));
    assert!(!screen.contains("order-2"), "{screen}");
    let page = json!({"data": [row(4, "dead")], "next": null});
    world.board.take(Seen {
        filter: String::new(),
        page,
        others: vec![("op_03".to_owned(), None)],
    });
    assert_eq!(world.selected(), None, "it is not there any more");
}

#[test]
fn a_redelivery_wants_a_reason_and_a_yes() {
    let mut world = World::new(&[]);
    assert_eq!(world.type_in("r"), None);
    world.shows("nothing is here to select");
    let mut world = World::new(&[row(1, "dead")]);
    assert_eq!(world.type_in("r"), None);
    world.shows("redeliver order-1, why? ▏");
    world.type_in("\r");
    world.shows("a reason is needed");
    world.type_in("it was jq\u{7f}ust away");
    world.shows("why? it was just away▏");
    assert_eq!(world.type_in("\r"), None);
    world.shows("Its risk: safe. y or n");
    assert_eq!(world.type_in("n\r"), None);
    world.shows("nothing was done");
    world.type_in("rit was away\r");
    let document = json!({"reason": "it was away"});
    let act = Act::Do { deed: Deed::Redeliver, id: "op_01".to_owned(), document };
    assert_eq!(world.type_in("y\r"), Some(act));
    world.board.done(Deed::Redeliver, Ok(row(1, "pending")));
    world.shows("redelivered order-1: pending");
    world.shows("○ pending");
    world.board.done(Deed::Redeliver, Err("That cannot be done now: x\nhelp: y".to_owned()));
    world.shows("That cannot be done now: x; help: y");
}

#[test]
fn what_is_in_doubt_is_resolved_by_a_reason_and_the_word_for_what_became_of_it() {
    let mut world = World::new(&[row(1, "in_doubt"), row(2, "dead")]);
    world.type_in("v");
    world.shows("order-2 is dead: only what is in doubt is resolved");
    world.type_in("jv");
    world.shows("resolve order-1, why? ▏");
    world.type_in("the bank has it\r");
    world.shows("order-1: type done, or not-sent, which has it sent again: ▏");
    assert_eq!(world.type_in("y\r"), None);
    world.shows("nothing was done");
    for word in ["done", "not-sent"] {
        world.type_in("vthe bank says so\r");
        let document = json!({"reason": "the bank says so", "as": word});
        let act = Act::Do { deed: Deed::Resolve, id: "op_01".to_owned(), document };
        assert_eq!(world.type_in(&format!("{word}\r")), Some(act));
    }
    world.board.done(Deed::Resolve, Ok(row(1, "done")));
    world.shows("resolved order-1: done");
}

#[test]
fn what_keys_have_too_much_of_is_for_what_went_wrong_last() {
    let mut lost = row(1, "pending");
    lost["attempts"][0]["error"] = json!("the connection broke off after 17 bytes of the answer");
    let world = World::new(&[lost.clone()]);
    world.shows("404: the connection broke off");
    lost["key"] = json!("0123456789012345678901234567890123456789");
    let world = World::new(&[lost]);
    world.shows("01234567890123456789012345678901");
    world.shows("404: the c");
}

#[test]
fn a_risk_that_somebody_has_to_take_is_typed_out() {
    let mut doubtful = row(1, "dead");
    doubtful["risk"] = json!({"name": "unknown", "why": "it may have been done"});
    let mut world = World::new(&[doubtful]);
    world.type_in("jrchecked\r");
    world.shows("unknown: it may have been done redeliver? Type unknown to take that risk");
    assert_eq!(world.type_in("y\r"), None);
    world.type_in("rchecked\r");
    let document = json!({"reason": "checked", "risk": "unknown"});
    let act = Act::Do { deed: Deed::Redeliver, id: "op_01".to_owned(), document };
    assert_eq!(world.type_in("unknown\r"), Some(act));
}

#[test]
fn a_story_is_opened_scrolled_and_left_and_its_operation_is_acted_upon() {
    let mut world = World::new(&[row(1, "dead"), row(2, "pending")]);
    assert_eq!(world.type_in("jj\r"), Some(Act::Look));
    let wanted = world.board.wanted();
    assert_eq!(wanted.story.as_deref(), Some("op_01"));
    let page = json!({"data": [row(2, "pending"), row(1, "dead")], "next": null});
    let others = vec![("op_01".to_owned(), Some(row(1, "dead")))];
    world.board.take(Seen { filter: String::new(), page, others });
    world.shows("op_01  dead");
    world.shows("POST /orders on demo");
    world.type_in("jjjjjjjjjjjjjjjjjjjjjjjjj");
    assert!(!world.screen().iter().any(|line| line.contains("op_01  dead")));
    world.type_in("c");
    world.shows("order-1 is dead: only what is pending is cancelled");
    assert_eq!(world.type_in("o"), Some(Act::Open("op_01".to_owned())));
    world.type_in("\u{1b}");
    world.shows("STATE");
    assert_eq!(world.type_in("kc"), None);
    world.shows("cancel order-2, why?");
    assert_eq!(
        world.type_in("no need\ry\r").map(|act| matches!(act, Act::Do { deed: Deed::Cancel, .. })),
        Some(true)
    );
}

#[test]
fn a_filter_names_what_the_api_can_look_for_and_the_rest_is_text() {
    let mut world = World::new(&[row(1, "dead")]);
    assert_eq!(world.type_in("/state:dead_letter route:a/b two words"), None);
    world.shows("/state:dead_letter route:a/b two words▏");
    assert_eq!(world.type_in("\r"), Some(Act::Look));
    world.shows("looking …");
    let wanted = world.board.wanted();
    assert_eq!(
        wanted.list,
        "/v1/operations?state=dead_letter&route=a%2Fb&text=two+words&limit=100"
    );
    // What an earlier filter asked for is of no use.
    let page = json!({"data": [row(1, "dead")], "next": null});
    world.board.take(Seen { filter: String::new(), page, others: Vec::new() });
    world.shows("looking …");
    world.see(&[], None);
    world.shows("Nothing matches");
    world.type_in("/\u{1b}p");
    world.shows("paused");
}

#[test]
fn a_filter_selects_the_first_that_it_finds_and_without_one_nothing_is() {
    let mut world = World::new(&[row(1, "dead")]);
    world.type_in("/dead\r");
    world.see(&[row(1, "dead"), row(2, "dead")], None);
    assert!(world.selected().unwrap().contains("order-2"), "the first that it finds");
    world.see(&[row(1, "dead"), row(2, "dead"), row(3, "dead")], None);
    assert!(world.selected().unwrap().contains("order-2"), "and it stays");
    world.type_in("/\u{7f}\u{7f}\u{7f}\u{7f}\r");
    world.see(&[row(1, "dead")], None);
    assert_eq!(world.selected(), None, "without one nothing is");
}

#[test]
fn what_is_lost_is_said_and_ends_are_told_apart() {
    let mut world = World::new(&[row(1, "dead")]);
    world.board.away = Some("12:00:00Z".to_owned());
    world.shows("the gateway is away since 12:00:00Z; asking again");
    world.see(&[row(1, "dead")], None);
    assert!(!world.screen()[0].contains("away"));
    assert_eq!(world.type_in("q"), Some(Act::Quit(0)));
    assert_eq!(world.type_in("j\r\u{3}"), Some(Act::Quit(130)));
    assert_eq!(world.board.press(Key::Interrupt), Some(Act::Quit(130)));
}

#[test]
fn without_colours_nothing_is_coloured_and_nothing_from_outside_steers_the_terminal() {
    let mut evil = row(1, "dead");
    evil["key"] = json!("a\u{1b}[2Jb");
    let mut world = World::new(&[evil]);
    world.type_in("j");
    let now = "2026-01-31T12:00:00Z".parse().unwrap();
    let (lines, _) = screen(&world.board, SIZE, "http://[::1]:1", now);
    let (bare, coloured) = (ansi(&lines, SIZE, false), ansi(&lines, SIZE, true));
    let is_coloured = |text: &str| (31..35).any(|code| text.contains(&format!("\u{1b}[{code}m")));
    assert!(!is_coloured(&bare) && is_coloured(&coloured));
    assert!(bare.contains("\u{1b}[7m"), "what is selected is seen without colours");
    assert!(!coloured.contains("\u{1b}[2J"));
    let narrow = Size { columns: 20, lines: 5 };
    let cut = ansi(&screen(&world.board, narrow, "x", now).0, narrow, false);
    assert_eq!(cut.matches("\u{1b}[K").count(), 5);
}

#[test]
fn each_row_below_the_page_that_goes_on_or_is_in_doubt_is_asked_for_in_its_turn() {
    let open = |n| if n % 2 == 0 { "pending" } else { "in_doubt" };
    let all: Vec<Value> = (1..=30).map(|n| row(n, if n == 7 { "done" } else { open(n) })).collect();
    let mut world = World::new(&all);
    assert_eq!(world.board.wanted().others, [""; 0], "the page has them");
    // The page reaches down to 26 from now on.
    world.see(&all[25..], Some("op_26"));
    let mut asked: Vec<String> = Vec::new();
    for _ in 0..3 {
        let others = world.board.wanted().others;
        assert_eq!(others.len(), 10);
        asked.extend(others);
    }
    let ids = |range: std::ops::RangeInclusive<usize>| {
        range.filter(|n| *n != 7).map(|n| format!("op_{n:02}")).collect::<Vec<_>>()
    };
    assert_eq!(asked, [ids(1..=25), ids(1..=6)].concat());
}

#[test]
fn who_scrolled_past_the_end_of_a_story_is_back_by_as_much_as_is_shown() {
    let mut world = World::new(&[row(1, "dead")]);
    world.type_in("j\r");
    let page = json!({"data": [row(1, "dead")], "next": null});
    let others = vec![("op_01".to_owned(), Some(row(1, "dead")))];
    world.board.take(Seen { filter: String::new(), page, others });
    world.type_in("jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj");
    let now = "2026-01-31T12:00:00Z".parse().unwrap();
    let (_, end) = screen(&world.board, SIZE, "x", now);
    world.board.scrolled_to(end);
    let last = world.screen()[2].clone();
    world.type_in("k");
    assert_eq!(world.screen()[3], last, "one key is one line");
}
