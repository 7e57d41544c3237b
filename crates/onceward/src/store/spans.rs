//! A span of time is a span of ids: for every history of clocks that are set, nodes that start beside others
//! and times that are asked for.

use std::time::Duration;

use onceward_core::id::{OperationId, next_sequence};
use onceward_core::operation::{Intent, Operation};
use onceward_core::policy::Mode;
use onceward_core::time::Timestamp;
use proptest::prelude::*;

use super::Query;
use super::contract::operation;

/// What a node does next, and how far its clock moves first, in microseconds.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// It remembers an operation.
    Remember { node: usize, by: i64 },
    /// It starts anew, from the newest id that there is.
    Start { node: usize, by: i64 },
}

const NODES: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Within a millisecond and over a day, either way.
    let by = || prop_oneof![0..900i64, -5_000..50_000i64, -86_400_000_000..86_400_000_000i64];
    let step = prop_oneof![
        8 => (0..NODES, by()).prop_map(|(node, by)| Step::Remember { node, by }),
        1 => (0..NODES, by()).prop_map(|(node, by)| Step::Start { node, by }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What is in the ledger after these steps, the newest first.
fn ledger(steps: &[Step]) -> Vec<Operation> {
    let mut clocks = [1_800_000_000_000_000i64; NODES];
    let (mut last, mut newest) = ([0u64; NODES], 0);
    let mut ledger = Vec::new();
    for (n, step) in (1..).zip(steps) {
        let (Step::Remember { node, by } | Step::Start { node, by }) = *step;
        clocks[node] += by;
        if let Step::Start { .. } = step {
            last[node] = newest;
            continue;
        }
        let now = Timestamp::from_micros(clocks[node]);
        last[node] = next_sequence(last[node], now);
        newest = newest.max(last[node]);
        let born = operation(n, &format!("k{n}"), "r", Mode::Held);
        let intent = Intent {
            id: OperationId::new(last[node], n),
            created_at: now,
            ..(*born.intent).clone()
        };
        ledger.push(Operation::new(intent));
    }
    ledger.sort_by_key(|operation| std::cmp::Reverse(operation.id));
    ledger
}

proptest! {
    #[test]
    fn a_list_of_a_time_reads_that_time_alone_and_misses_nothing(
        steps in steps(),
        (since, until) in (proptest::option::of((0..60usize, -3_000..3_000i64)), proptest::option::of((0..60usize, -3_000..3_000i64))),
    ) {
        let ledger = ledger(&steps);
        prop_assume!(!ledger.is_empty());
        let near = |(n, by): (usize, i64)| {
            let it = &ledger[n % ledger.len()];
            Timestamp::from_micros(it.created_at.as_micros() + by)
        };
        let query = Query { since: since.map(near), until: until.map(near), ..Query::default() };
        let is_read = |it: &&Operation| {
            it.id < query.begins_before() && !query.ends_before(it.id.sequence())
        };
        let read: Vec<_> = ledger.iter().filter(is_read).collect();
        let wanted: Vec<_> = ledger.iter().filter(|it| query.wants(it)).collect();
        for it in &wanted {
            prop_assert!(read.contains(it), "{} is missed", it.id);
        }
        // What is read beside it shares a millisecond with an end of the span.
        let ends = [query.since, query.until].map(|end| end.map(Timestamp::as_millis));
        for it in read.iter().filter(|it| !query.wants(it)) {
            prop_assert!(ends.contains(&Some(it.came_at().as_millis())), "{} is read in vain", it.id);
        }
        // And they came in the order in which they are listed.
        prop_assert!(ledger.is_sorted_by_key(|it| std::cmp::Reverse(it.came_at().as_millis())));
    }

    #[test]
    fn whoever_came_by_a_clock_that_nobody_set_came_when_it_was_made(
        micros in 0..253_402_300_799_000_000i64,
    ) {
        let now = Timestamp::from_micros(micros);
        let born = operation(1, "k", "r", Mode::Held);
        let id = OperationId::new(next_sequence(0, now), 1);
        let intent = Intent { id, created_at: now, ..(*born.intent).clone() };
        prop_assert_eq!(intent.came_at(), now);
        prop_assert!(id >= OperationId::first_at(now));
        prop_assert!(id < OperationId::first_at(now.plus(Duration::from_millis(1))));
    }
}
