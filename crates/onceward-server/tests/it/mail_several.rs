//! Mails for several, some of whom the server puts off or refuses, and what follows from what it says.

use serde_json::json;

use crate::mail::{letter, post, route, world};
use crate::mail_world::{Fault, MailServer, Tls};
use crate::world::{World, until};

#[test]
fn a_mail_that_some_have_was_done_however_its_last_attempt_ended() {
    let (_world, server, gateway) = world("mode = \"accepted\"");
    server.put_off(1);
    // Its first attempt is taken for one of two, its second is refused.
    server.break_off([Fault::Before("NONE"), Fault::Say("MAIL", "554 5.7.1 not from you")]);
    post(&gateway, "k-1", &letter(&["ada@example.com", "grey@example.com"], "News"));
    let dead = gateway.until_state("k-1", "dead");
    assert_eq!(dead["reason"], "exhausted", "it was not refused: somebody has it\n{dead}");
    let advice = dead["retry"].as_str().unwrap();
    assert!(!advice.contains("nothing was done"), "{advice}");
    assert_eq!(server.taken().len(), 1);
}

#[test]
fn whom_the_server_did_not_want_is_named_where_nobody_knows_of_the_others() {
    let (_world, server, gateway) = world("");
    server.put_off(1);
    server.break_off([Fault::Taken]);
    let to = ["ada@example.com", "grey@example.com", "nobody@example.com"];
    assert_eq!(post(&gateway, "k-1", &letter(&to, "News")).status, 504);
    let doubted = gateway.until_state("k-1", "in_doubt");
    let error = doubted["attempts"][0]["error"].as_str().unwrap();
    assert!(error.contains("not for its recipients 2, 3"), "{error}");
    let id = doubted["id"].as_str().unwrap();
    gateway.run(&["resolve", id, "--as", "done", "--reason", "the server's log"]);
    let advice = gateway.until_state("k-1", "done")["retry"].as_str().unwrap().to_owned();
    assert!(advice.contains("for those that the server had not refused"), "{advice}");
}

#[test]
fn what_no_server_says_to_the_dot_tells_nothing_of_the_mail() {
    let (_world, server, gateway) = world("");
    for (key, said) in [("k-1", "354 go on"), ("k-2", "334 VXNlcg==")] {
        server.fail(&[Some(said)]);
        assert_eq!(post(&gateway, key, &letter(&["ada@example.com"], key)).status, 504, "{said}");
        gateway.until_state(key, "in_doubt");
    }
    assert_eq!(server.refused().len(), 2, "neither was sent again");
}

#[test]
fn greylisting_opens_no_breaker_and_its_words_stay_in_the_answer() {
    let (world, server) = (World::new(), MailServer::start(Tls::Never, None));
    let guarded = route(&server, "mode = \"accepted\"").replace("breaker = false\n", "");
    world.write("onceward.toml", &guarded);
    let gateway = world.serve();
    server.put_off(u32::MAX);
    let keys: Vec<String> = (0..30).map(|n| format!("grey-{n}")).collect();
    for key in &keys {
        assert_eq!(post(&gateway, key, &letter(&["grey@example.com"], key)).status, 202);
    }
    for key in &keys {
        let waiting = until(&format!("{key} was put off"), || {
            let found = gateway.run(&["ls", "--key", key, "--json"]).json()[0].clone();
            let attempts = found["attempts"].as_array().map_or(0, Vec::len);
            (attempts >= 2).then_some(found)
        });
        let first = &waiting["attempts"][0];
        assert_eq!(first["status"], 429, "{first}");
        let error = first["error"].as_str().unwrap();
        assert!(error.contains("450") && !error.contains("come again"), "{error}");
    }
    let routes = gateway.run(&["routes", "--json"]).json();
    let mail = routes.as_array().unwrap().iter().find(|route| route["name"] == "mail").unwrap();
    assert_eq!(mail["gate"]["breaker"], "closed", "{mail}");
    assert_eq!(post(&gateway, "k-1", &letter(&["ada@example.com"], "Now")).status, 202);
    gateway.until_state("k-1", "done");
    assert!(!gateway.log.has("come again"), "a server's words may name a recipient");
}

#[test]
fn who_refused_a_mail_is_told_and_the_others_have_it() {
    let (_world, server, gateway) = world("");
    let to = ["nobody@example.com", "ada@example.com", "bob@example.com"];
    let sent = post(&gateway, "k-1", &letter(&to, "News"));
    assert_eq!(sent.status, 200, "{sent:?}");
    let told = sent.json();
    assert_eq!(told["accepted"], json!(["ada@example.com", "bob@example.com"]));
    assert_eq!(told["rejected"][0]["to"], "nobody@example.com");
    assert_eq!(server.taken()[0].to, ["ada@example.com", "bob@example.com"]);
    // Who may not read the answer is told too.
    let done = gateway.until_state("k-1", "done");
    let error = done["attempts"][0]["error"].as_str().unwrap();
    assert_eq!(error, "taken for 2 of 3; not for its recipients 1");
    assert!(done["retry"].as_str().unwrap().starts_with("Done for some"), "{done}");
    post(&gateway, "k-2", &letter(&["ada@example.com"], "News"));
    let whole = gateway.until_state("k-2", "done");
    assert!(whole["attempts"][0]["error"].is_null(), "{whole}");
    assert!(!whole["retry"].as_str().unwrap().contains("some"), "{whole}");
}
