//! How long each phase of an attempt took, wherever its operation is told: kept in the ledger with the
//! attempt, whatever becomes of the process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::mail;
use crate::nodes_server::Database;
use crate::world::{Gateway, World, route, until};

/// What an upstream does with each request, in order; the last one for all that follow.
#[derive(Clone, Copy)]
enum Does {
    Fail,
    Hang,
    Answer,
}

/// Where such an upstream is, and how many requests it has read.
fn upstream(does: &'static [Does]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let read = Arc::clone(&counted);
            thread::spawn(move || serve(stream, does, &read));
        }
    });
    (address, read)
}

/// Until the other side ends the connection.
fn serve(stream: TcpStream, does: &[Does], read: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            length = line.strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
        }
        lines.read_exact(&mut vec![0; length]).ok()?;
        let n = read.fetch_add(1, Ordering::SeqCst);
        let (status, body) = match does[n.min(does.len() - 1)] {
            Does::Fail => ("503 Service Unavailable", "later"),
            Does::Answer => ("201 Created", "made"),
            Does::Hang => return lines.read_line(&mut String::new()).ok().map(drop),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        (&stream).write_all(answer.as_bytes()).ok()?;
    }
}

fn accept(gateway: &Gateway, key: &str) -> String {
    let headers = [("idempotency-key", key), ("prefer", "respond-async")];
    let answer = gateway.call("POST", "/to/shop/orders", &headers, "{}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// The phases that have a time, each of which is one.
fn phases(attempt: &Value) -> Vec<&'static str> {
    let all = ["token", "resolve", "connect", "tls", "send", "head", "body"];
    let timings = &attempt["timings"];
    all.into_iter().filter(|phase| timings[phase].as_f64().is_some_and(|took| took > 0.0)).collect()
}

#[test]
fn an_attempt_tells_its_phases_in_the_api_on_its_page_and_in_show() {
    let (upstream, _) = upstream(&[Does::Fail, Does::Answer]);
    let world = World::new();
    world.write("onceward.toml", &route("shop", upstream));
    let gateway = world.serve();
    let id = accept(&gateway, "k-1");
    let done = gateway.until_state("k-1", "done");
    let (first, second) = (&done["attempts"][0], &done["attempts"][1]);
    assert_eq!(phases(first), ["resolve", "connect", "send", "head", "body"], "{first}");
    assert_eq!(first["timings"]["tls"], Value::Null);
    let of_second = phases(second);
    // On the connection of the first, where the gateway's loop that makes it is the same.
    if second["timings"]["reused"] == true {
        assert_eq!(of_second, ["send", "head", "body"], "{second}");
    } else {
        assert_eq!(of_second, phases(first), "{second}");
    }
    let page = gateway.call("GET", &format!("/operations/{id}"), &[], "").text();
    for words in ["svg class=\"phases\"", "address found<span class=\"took\"> in ", "whole answer"]
    {
        assert!(page.contains(words), "{words}\n{page}");
    }
    assert!(!page.contains("style="), "the page has no style of its own");
    let story = gateway.run(&["show", &id]).ok();
    let head = format!("head {} ms", first["timings"]["head"]);
    assert!(story.contains("resolve ") && story.contains(&head), "{head}\n{story}");
}

#[test]
fn a_mails_dialogue_is_told_in_the_same_phases() {
    let (_world, _server, gateway) = mail::world("");
    assert_eq!(mail::post(&gateway, "k-1", &mail::letter(&["ada@example.com"], "One")).status, 200);
    let done = gateway.until_state("k-1", "done");
    let told = phases(&done["attempts"][0]);
    assert_eq!(told, ["resolve", "connect", "send", "head", "body"], "{done}");
    assert_eq!(done["attempts"][0]["timings"]["reused"], false);
}

/// Through the death of the process that makes the second attempt.
fn through_a_kill(more: &[&str]) {
    let (upstream, read) = upstream(&[Does::Fail, Does::Hang, Does::Answer]);
    let world = World::new();
    world.write("onceward.toml", &route("shop", upstream));
    let flags = [&["--listen", "127.0.0.1:0"], more].concat();
    let gateway = world.serve_with(&flags);
    let id = accept(&gateway, "k-1");
    until("the second attempt is under way", || (read.load(Ordering::SeqCst) == 2).then_some(()));
    let before = gateway.run(&["show", &id, "--json"]).json();
    assert_eq!(before["attempts"][1]["timings"], Value::Null, "it is under way");
    gateway.kill();
    let gateway = world.serve_with(&flags);
    let done = gateway.until_state("k-1", "done");
    let attempts = done["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3, "{done}");
    assert_eq!(attempts[0], before["attempts"][0], "as it was written");
    assert!(phases(&attempts[0]).contains(&"head"), "{done}");
    assert_eq!(attempts[1]["ending"], "unanswered", "{done}");
    assert_eq!(attempts[1]["timings"], Value::Null, "nobody saw how it ended");
    assert_eq!(phases(&attempts[2]), phases(&attempts[0]), "the new process opens a connection");
}

#[test]
fn what_phases_took_outlives_the_process_and_what_it_left_has_none() {
    through_a_kill(&[]);
}

#[test]
fn the_same_on_a_ledger_in_postgres() {
    let Some(url) = Database::shared().map(|database| database.url()) else { return };
    through_a_kill(&["--store", &url]);
}
