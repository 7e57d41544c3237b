//! The signup example, as its tutorial has it: a user, a mail, a record and a charge for each signup, three
//! times over, under faults and kills.

use std::process::Command;

use onceward_proof::figures::{number, seed, tell};
use serde_json::Value;

use crate::world::BINARY;

#[test]
fn a_signup_is_one_user_one_mail_one_record_and_one_charge_however_often_it_is_replayed() {
    let (seed, signups) = (seed(), number("TEST_SIGNUPS", 20));
    tell(&format!("TEST_SEED={seed} TEST_SIGNUPS={signups}"));
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/signup/run.py");
    let ran = Command::new("python3")
        .args([run, "--onceward", BINARY, "--json"])
        .args(["--signups", &signups.to_string(), "--seed", &seed.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    for effect in ["users", "mails", "contacts", "charges"] {
        assert_eq!(report[effect], signups, "{effect}: {report}");
    }
    assert!(report["kills"].as_u64() >= Some(3), "{report}");
    // A run in which nothing broke proves nothing.
    let calls = report["calls_of_billing"].as_u64().unwrap();
    assert!(calls > signups && report["resolved"].as_u64() > Some(0), "too tame: {report}");
    tell(&report.to_string());
}
