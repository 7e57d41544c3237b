//! The chain of the audit as people see it: verified, exported, recomputed, noted in the log and in the
//! evidence; and whole after a crash.

use std::sync::atomic::{AtomicBool, Ordering};

use onceward::core::hex;
use onceward::secret::sha256;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Gateway, World, call, until};

const JSON: (&str, &str) = ("content-type", "application/json");

fn pause(gateway: &Gateway, reason: &str) {
    let said = json!({"reason": reason}).to_string();
    assert_eq!(gateway.call("POST", "/v1/routes/demo/pause", &[JSON], &said).status, 200);
}

/// The head that `lines` end with, by nothing but their bytes; each has to follow the one before it.
fn recomputed(lines: &str) -> String {
    let mut before = "0".repeat(64);
    let mut number = Value::Null;
    for line in lines.lines() {
        let note: Value = serde_json::from_str(line).expect("a document");
        assert_eq!(note["previous"], before, "{line}");
        assert_eq!(note.to_string(), line, "its members by name, and no space between");
        before = hex::encode(&sha256(line.as_bytes()));
        number = note["number"].clone();
    }
    format!("{number}:{before}")
}

#[test]
fn the_audit_is_verified_exported_and_recomputed_by_its_bytes_alone() {
    let world = World::new();
    let gateway = world.serve();
    let empty = gateway.log.until("the audit ends here now");
    assert!(empty.contains("\"number\":0"), "{empty}");
    for reason in ["a \u{1f980} \"quoted\"\n\u{7f}\u{1}", "two", "three"] {
        pause(&gateway, reason);
    }
    let lines = gateway.run(&["audit", "export"]).ok();
    let head = recomputed(&lines);
    let told = gateway.run(&["audit", "verify"]).ok();
    assert_eq!(told, format!("intact\t3 notes\thead {head}\n"));
    let second = lines.lines().nth(1).unwrap();
    let earlier = format!("2:{}", hex::encode(&sha256(second.as_bytes())));
    gateway.run(&["audit", "verify", "--expect", &earlier]).ok();
    let wrong = format!("2:{}", "ab".repeat(32));
    let broken = gateway.run(&["audit", "verify", "--expect", &wrong]);
    assert!(broken.out.starts_with("note 2: its digest is not"), "{broken:?}");
    broken.failed(5);
    gateway.run(&["audit", "verify", "--expect", "2:ab"]).failed(2);
    let page = gateway.call("GET", "/v1/audit/export?behind=1&limit=1", &[], "");
    assert_eq!(page.header("content-type"), Some("application/jsonl"));
    assert_eq!(page.text(), format!("{second}\n"));
    assert_eq!(gateway.call("GET", "/v1/audit/verify?expect=x", &[], "").status, 400);
    let listed = gateway.call("GET", "/v1/audit?limit=2", &[], "").json();
    assert_eq!(listed["data"][0]["number"], 3);
    assert!(head.ends_with(listed["data"][0]["hash"].as_str().unwrap()), "{listed}");
    let next = listed["next"].as_str().unwrap();
    let rest = gateway.call("GET", &format!("/v1/audit?cursor={next}"), &[], "").json();
    assert_eq!((&rest["data"][0]["number"], &rest["next"]), (&json!(1), &Value::Null));
    gateway.run(&["audit", "verify", "--ledger"]).failed(1);
    gateway.signal(Signal::TERM);
    gateway.ended();
    // Without a gateway: from the ledger's files, and from what was exported.
    world.run(&["audit", "verify", "--ledger", "--expect", &head]).ok();
    world.write("audit.jsonl", &lines);
    world.run(&["audit", "verify", "--file", "audit.jsonl", "--expect", &head]).ok();
    for (what, changed, place) in [
        ("reworded", lines.replace("\"two\"", "\"tow\""), "note 3: it does not follow"),
        ("one left out", lines.replace(&format!("{second}\n"), ""), "note 3: note 2 is missing"),
        (
            "the end cut off",
            lines.lines().take(2).collect::<Vec<_>>().join("\n"),
            "note 3: it was noted earlier",
        ),
    ] {
        world.write("audit.jsonl", &changed);
        let found = world.run(&["audit", "verify", "--file", "audit.jsonl", "--expect", &head]);
        assert!(found.out.contains(place), "{what}: {found:?}");
        found.failed(5);
    }
    let gateway = world.serve();
    let said = gateway.log.until("the audit ends here now");
    assert!(said.contains(&head[2..]), "the log has the head that was: {said}");
}

#[test]
fn the_evidence_of_an_operation_has_its_acts_as_the_audit_has_them() {
    let world = World::new();
    let gateway = world.serve();
    pause(&gateway, "first of all");
    let resumed = json!({"reason": "go"}).to_string();
    gateway.call("POST", "/v1/routes/demo/resume", &[JSON], &resumed);
    for key in ["e-1", "e-2"] {
        gateway.run(&["send", "demo/orders?script=404,201", "--key", key, "--accepted"]).ok();
        gateway.until_state(key, "dead");
    }
    let id = gateway.until_state("e-1", "dead")["id"].as_str().unwrap().to_owned();
    gateway.run(&["redeliver", &id, "--reason", "one by one"]).ok();
    gateway.until_state("e-1", "done");
    let bulk = [
        "bulk",
        "redeliver",
        "--state",
        "dead",
        "--reason",
        "all of them",
        "--rate",
        "100",
        "--yes",
    ];
    gateway.run(&bulk).ok();
    let second = gateway.until_state("e-2", "done")["id"].as_str().unwrap().to_owned();
    for (id, number, deed) in [(&id, 3, "redelivered"), (&second, 4, "began to redeliver in bulk")]
    {
        let evidence = gateway.call("GET", &format!("/v1/operations/{id}/evidence"), &[], "");
        let audit = &evidence.json()["audit"];
        assert_eq!(audit.as_array().unwrap().len(), 1, "{audit}");
        assert_eq!((&audit[0]["number"], &audit[0]["deed"]), (&json!(number), &json!(deed)));
        let line = gateway.call(
            "GET",
            &format!("/v1/audit/export?behind={}&limit=1", number - 1),
            &[],
            "",
        );
        let digest = hex::encode(&sha256(line.text().trim_end().as_bytes()));
        assert_eq!(audit[0]["hash"], digest);
    }
}

#[test]
fn a_process_that_is_killed_while_it_notes_leaves_a_chain_that_is_whole() {
    let world = World::new();
    let mut head = None;
    for _ in 0..4 {
        let gateway = world.serve();
        let (address, over) = (gateway.address, AtomicBool::new(false));
        let noted = || gateway.run(&["audit", "verify", "--json"]).json();
        let before = noted()["notes"].as_u64().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let over = &over;
                scope.spawn(move || {
                    let said = json!({"reason": format!("writer {writer}")}).to_string();
                    while !over.load(Ordering::Relaxed) {
                        // It goes away in the midst of it.
                        let _ = call(address, "POST", "/v1/routes/demo/pause", &[JSON], &said);
                    }
                });
            }
            let now = until("some are noted", || {
                let found = noted();
                (found["notes"].as_u64()? > before + 20).then_some(found)
            });
            let hash = now["head"]["hash"].as_str().unwrap();
            head = Some(format!("{}:{hash}", now["head"]["number"]));
            gateway.signal(Signal::KILL);
            over.store(true, Ordering::Relaxed);
        });
        gateway.ended();
        let expected = head.as_deref().unwrap();
        world.run(&["audit", "verify", "--ledger", "--expect", expected]).ok();
    }
}
