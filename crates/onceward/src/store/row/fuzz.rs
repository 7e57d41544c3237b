//! A fuzz target: a row reads back as the operation it was, and no other bytes make its reader
//! fall, nor whoever is handed what it read.

use onceward_core::admission;
use onceward_core::policy::Policy;
use onceward_core::time::Timestamp;
use onceward_core::verdict;
use onceward_fuzz::Fuzz;

use super::{decode, encode};

const WORDS: &[&str] = &["\x01", "\x02", "\0", "\x7f", "\u{7ff}", "k", "POST"];

#[test]
fn a_row_reads_back_and_other_bytes_are_refused_or_harmless() {
    let policy = Policy::default();
    Fuzz::new("row", 10_000, WORDS).run(|input| {
        let Ok(operation) = decode(input) else { return None };
        let mut row = Vec::new();
        encode(&operation, &mut row);
        assert_eq!(decode(&row).expect("just written"), operation);
        let now = Timestamp::from_micros(1);
        let admitted = admission::admit(&operation, &operation.fingerprint, &policy, now);
        let ruled = verdict::decide_unstarted(&operation, &policy, now);
        let mark = operation.forgotten_but_for_its_mark();
        assert!(mark.request.is_none() && mark.attempts_in_run() == 0);
        let attempts = operation.attempts.len().min(3);
        Some((operation.state.name(), format!("{admitted:?}"), ruled.is_some(), attempts))
    });
}
