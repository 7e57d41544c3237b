//! `check --ledger`: whether a ledger that no gateway has open is whole.

use std::os::unix::fs::FileExt as _;

use rustix::process::Signal;

use crate::world::World;

#[test]
fn a_ledger_that_is_whole_is_told_from_one_that_is_not() {
    let world = World::new();
    assert!(world.run(&["check", "--ledger"]).failed(3).contains("there is no ledger"));
    let gateway = world.serve();
    gateway.run(&["send", "demo/orders", "--key", "known", "--body", "{\"qty\": 1}"]).ok();
    let said = world.run(&["check", "--ledger"]).failed(1);
    assert!(said.contains("another process") && said.contains("help: stop"), "{said}");
    gateway.signal(Signal::TERM);
    gateway.ended();
    let told = world.run(&["check", "--ledger", "--json"]).json();
    assert_eq!((&told["operations"], &told["faults"]), (&1.into(), &serde_json::json!([])));
    // One byte of the request, deep in the journal.
    let segment = world.path("onceward-data/ledger.journal/segment-00000001");
    let bytes = std::fs::read(&segment).unwrap();
    let place = bytes.windows(6).position(|window| window == b"\"qty\":").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(b"Q", place as u64 + 1).unwrap();
    let damaged = world.run(&["check", "--ledger"]);
    assert!(damaged.out.contains("segment-00000001"), "{damaged:?}");
    assert!(damaged.failed(5).contains("onceward restore"));
}
