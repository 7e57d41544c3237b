//! Mails through a route: what is sent, when it is sent again, and what is known of it. The server at the
//! other end speaks SMTP on loopback, and counts what it takes.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeMap;

use onceward_proof::chance::Chance;
use onceward_proof::figures::{number, seed, tell};
use serde_json::{Value, json};

use crate::guard_tls::Authority;
use crate::mail_world::{Fault, MailServer, Tls};
use crate::postgres::database;
use crate::world::{Gateway, World, is_in_a_file, until};

/// A route to `server` that tries again soon.
pub(crate) fn route(server: &MailServer, more: &str) -> String {
    format!(
        "[routes.mail]\nupstream = \"smtp://{}\"\nbreaker = false\nbudget = false\n\
         retry = {{ attempts_max = 1000, base = \"20ms\", floor = \"1ms\", cap = \"50ms\" }}\n\
         held = {{ attempts_max = 3, base = \"5ms\", floor = \"1ms\" }}\n{more}\n",
        server.address
    )
}

pub(crate) fn letter(to: &[&str], subject: &str) -> String {
    json!({"from": "Shop <shop@example.com>", "to": to, "subject": subject, "text": "Hello.\n.\nBye."})
        .to_string()
}

/// A gateway with one mail route.
pub(crate) fn world(more: &str) -> (World, MailServer, Gateway) {
    let (world, server) = (World::new(), MailServer::start(Tls::Never, None));
    world.write("onceward.toml", &route(&server, more));
    let gateway = world.serve();
    (world, server, gateway)
}

pub(crate) fn post(gateway: &Gateway, key: &str, body: &str) -> crate::world::Response {
    gateway.call(
        "POST",
        "/to/mail",
        &[("idempotency-key", key), ("content-type", "application/json")],
        body,
    )
}

#[test]
fn a_mail_is_sent_once_and_its_key_tells_what_the_server_called_it() {
    let (_world, server, gateway) = world("");
    let body = json!({
        "from": "Shop <shop@example.com>",
        "to": ["Ada <ada@example.com>"],
        "bcc": "audit@example.com",
        "subject": "Welcome",
        "text": "Hello.\n.\n..two",
        "html": "<p>Hello",
    })
    .to_string();
    let first = post(&gateway, "signup-1", &body);
    assert_eq!(first.status, 200, "{first:?}");
    let told = first.json();
    assert_eq!(told["provider_id"], "Q1");
    assert_eq!(told["accepted"], json!(["ada@example.com", "audit@example.com"]));
    assert_eq!(told["rejected"], json!([]));
    let id = told["id"].as_str().unwrap();
    assert_eq!(told["message_id"], format!("<{id}@example.com>"));
    let again = post(&gateway, "signup-1", &body);
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(again.body, first.body);
    assert_eq!(post(&gateway, "signup-1", &body.replace("Welcome", "Other")).status, 409);
    let [taken] = &server.taken()[..] else { panic!("{:?}", server.taken()) };
    assert_eq!(taken.to, ["ada@example.com", "audit@example.com"]);
    assert_eq!(taken.from, "shop@example.com");
    assert_eq!(format!("\"{}\"", taken.header("Message-ID")), told["message_id"].to_string());
    assert!(!taken.text.to_lowercase().contains("bcc:") && taken.text.contains("\n.\n..two"));
}

#[test]
fn whether_a_mail_was_sent_to_whom_and_when_is_found_by_what_it_says() {
    let (world, server, gateway) = world("");
    server.break_off([Fault::Taken]);
    let lost =
        post(&gateway, "k-1", &letter(&["ada@example.com", "bob@example.com"], "Your order"));
    assert_eq!((lost.status, lost.json()["code"].clone()), (504, json!("outcome-unknown")));
    post(&gateway, "k-2", &letter(&["ada@example.com"], "Your bill"));
    let found = |id: &str| {
        let found = gateway.run(&["ls", "--id", id, "--json"]).json();
        let keys =
            found.as_array().unwrap().iter().map(|it| it["key"].as_str().unwrap().to_owned());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(found("ada@example.com"), ["k-2", "k-1"]);
    assert_eq!(found("to:bob@example.com"), ["k-1"]);
    assert_eq!(found("subject:Your bill"), ["k-2"]);
    assert_eq!(found("provider_id:Q1"), ["k-2"]);
    let name = server.taken()[0].header("Message-ID");
    assert_eq!(found(&name), ["k-1"], "it is in doubt, and it is found");
    let shown = gateway.until_state("k-1", "in_doubt");
    assert_eq!(shown["ids"]["to"], "ada@example.com, bob@example.com");
    let id = shown["id"].as_str().unwrap();
    let story = gateway.run(&["show", id]).ok();
    for wanted in [&*name, "Your order", "bob@example.com", "the mail server hung up"] {
        assert!(story.contains(wanted), "{wanted}\n{story}");
    }
    let page = gateway.call("GET", &format!("/operations/{id}"), &[], "").body;
    assert!(String::from_utf8_lossy(&page).contains("Your order"));
    let sent = gateway.run(&["show", id, "--request"]).ok();
    let taken = server.taken()[0].text.clone();
    assert!(sent.replace("\r\n", "\n").contains(&taken), "{sent}");
    // Who knows that it came says so, and no key sends it again.
    gateway.run(&["resolve", id, "--as", "done", "--reason", "it is in the inbox"]).ok();
    assert_eq!(server.taken().len(), 2);
    drop(world);
}

#[test]
fn what_breaks_off_before_the_last_dot_is_sent_again_and_what_breaks_off_after_it_is_in_doubt() {
    let (_world, server, gateway) = world("mode = \"accepted\"");
    let commands = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"];
    let before = commands.iter().map(|at| Fault::Before(at));
    let later = commands[1..].iter().map(|at| Fault::Say(at, "451 later"));
    // What goes on for longer than the way there holds breaks off in the middle.
    let after = commands.iter().map(|at| Fault::After(at)).chain([Fault::InData]);
    let faults: Vec<_> = before.chain(later).chain(after).collect();
    let count = faults.len();
    server.break_off(faults);
    let line = format!("{}\r\n", "x".repeat(900));
    let long = format!("From: shop@example.com\r\nSubject: One\r\n\r\n{}", line.repeat(7000));
    let envelope = [
        ("idempotency-key", "k-1"),
        ("content-type", "message/rfc822"),
        ("mail-from", "shop@example.com"),
        ("rcpt-to", "ada@example.com"),
    ];
    assert_eq!(gateway.call("POST", "/to/mail", &envelope, &long).status, 202);
    let done = gateway.until_state("k-1", "done");
    let attempts = done["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), server.faults()), (count + 1, 0), "{attempts:#?}");
    for attempt in &attempts[..count] {
        let is_known =
            attempt["ending"] == "unsent" || attempt["status"] == 503 || attempt["status"] == 429;
        assert!(is_known, "{attempt}");
    }
    assert_eq!(server.taken().len(), 1);
    for (n, fault) in [Fault::Taken, Fault::Lost].into_iter().enumerate() {
        let key = format!("doubt-{n}");
        server.break_off([fault]);
        post(&gateway, &key, &letter(&["ada@example.com"], "Two"));
        let doubted = gateway.until_state(&key, "in_doubt");
        assert_eq!(doubted["attempts"][0]["ending"], "unanswered");
    }
    assert_eq!(server.taken().len(), 2, "nothing is sent again by itself");
    let lost = gateway.until_state("doubt-1", "in_doubt");
    gateway
        .run(&["resolve", lost["id"].as_str().unwrap(), "--as", "not-sent", "--reason", "bounced"])
        .ok();
    gateway.until_state("doubt-1", "done");
    assert_eq!(server.taken().len(), 3);
}

#[test]
fn a_refused_mail_is_dead_and_one_that_is_put_off_is_sent_later_byte_for_byte() {
    let (_world, server, gateway) = world("");
    let refused = post(&gateway, "k-1", &letter(&["nobody@example.com"], "One"));
    assert_eq!(refused.status, 422, "{refused:?}");
    let rejected = &refused.json()["rejected"][0];
    assert_eq!((&rejected["to"], &rejected["code"]), (&json!("nobody@example.com"), &json!(550)));
    assert_eq!(gateway.until_state("k-1", "dead")["reason"], "refused");
    for (at, status) in [("MAIL", 422), ("DATA", 422), ("EHLO", 503)] {
        // A held call is tried three times, where that may help.
        server.break_off([Fault::Say(at, "554 5.7.1 not from you"); 3]);
        let key = format!("k-{at}");
        assert_eq!(post(&gateway, &key, &letter(&["ada@example.com"], at)).status, status, "{at}");
        server.clear();
    }
    server.fail(&[Some("451 later"), Some("452 full")]);
    let sent = post(&gateway, "k-2", &letter(&["ada@example.com"], "Two"));
    assert_eq!(sent.status, 200, "{sent:?}");
    let all = [server.refused(), server.taken()].concat();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|mail| mail.text == all[0].text && !mail.header("Date").is_empty()));
}

#[test]
fn a_mail_for_several_is_told_for_each_and_nobody_gets_it_twice() {
    let (world, server, gateway) = world("mode = \"accepted\"");
    server.put_off(2);
    let to = ["ada@example.com", "nobody@example.com", "grey@example.com"];
    post(&gateway, "k-1", &letter(&to, "News"));
    let done = gateway.until_state("k-1", "done");
    let to: Vec<_> = server.taken().iter().map(|mail| mail.to.clone()).collect();
    assert_eq!(to, [["ada@example.com"], ["grey@example.com"]]);
    let taken = server.taken();
    assert_eq!(taken[0].text, taken[1].text);
    assert_eq!(done["attempts"][0]["status"], 429, "the server is well");
    let told: Value = serde_json::from_str(
        &gateway.run(&["show", done["id"].as_str().unwrap(), "--response"]).ok(),
    )
    .unwrap();
    assert_eq!(told["accepted"], json!(["ada@example.com", "grey@example.com"]));
    assert_eq!(told["rejected"][0]["to"], "nobody@example.com");
    // Who has it has it across a restart, and a life of its key.
    server.put_off(1000);
    let few =
        route(&server, "mode = \"accepted\"").replace("attempts_max = 1000", "attempts_max = 2");
    drop(gateway);
    world.write("onceward.toml", &few);
    let gateway = world.serve();
    let body = letter(&["ada@example.com", "grey@example.com"], "More");
    post(&gateway, "k-2", &body);
    assert_eq!(gateway.until_state("k-2", "dead")["reason"], "exhausted");
    drop(gateway);
    server.put_off(0);
    let gateway = world.serve();
    post(&gateway, "k-2", &body);
    gateway.until_state("k-2", "done");
    let to: Vec<_> = server.taken()[2..].iter().map(|mail| mail.to.clone()).collect();
    assert_eq!(to, [["ada@example.com"], ["grey@example.com"]]);
}

#[test]
fn a_mail_goes_out_by_tls_and_login_and_never_in_the_clear_where_that_is_wanted() {
    let (world, authority) = (World::new(), Authority::new());
    let own = authority.sign_for("mail", "localhost");
    let starts = MailServer::start(Tls::Start, Some(&own));
    let implicit = MailServer::start(Tls::Implicit, Some(&own));
    let clear = MailServer::start(Tls::Never, None);
    world.write("ca.pem", &authority.pem());
    world.write("password", "canary-pw\n");
    let (starts_at, implicit_at) = (starts.address.port(), implicit.address.port());
    world.write(
        "onceward.toml",
        &format!(
            "[tls]\nca_file = \"ca.pem\"\n\
             [routes.starts]\nupstream = \"smtp://localhost:{starts_at}\"\nstarttls = \"required\"\nuser = \"me\"\npassword = {{ file = \"password\" }}\n\
             [routes.implicit]\nupstream = \"smtps://me:canary-url@localhost:{implicit_at}\"\n\
             [routes.strict]\nupstream = \"smtp://{}\"\nstarttls = \"required\"\n\
             [routes.stranger]\nupstream = \"smtps://localhost:{implicit_at}\"\nupstream_tls = {{ ca_file = \"other.pem\" }}\n",
            clear.address
        ),
    );
    world.write("other.pem", &Authority::new().pem());
    let gateway = world.serve();
    let send = |route: &str| {
        let headers = [("idempotency-key", route)];
        gateway.call(
            "POST",
            &format!("/to/{route}"),
            &headers,
            &letter(&["ada@example.com"], route),
        )
    };
    assert_eq!(send("starts").status, 200);
    assert_eq!(send("implicit").status, 200);
    for (server, login) in [(&starts, "/me/canary-pw"), (&implicit, "/me/canary-url")] {
        let taken = server.taken();
        assert_eq!((taken.len(), taken[0].is_safe), (1, true));
        assert_eq!(taken[0].login.as_deref(), Some(login));
    }
    for (route, why) in [("strict", "STARTTLS"), ("stranger", "certificate")] {
        let refused = send(route);
        assert_eq!(refused.status, 503, "{refused:?}");
        let detail = refused.json()["detail"].as_str().unwrap().to_lowercase();
        assert!(detail.contains(&why.to_lowercase()), "{detail}");
    }
    assert!(clear.taken().is_empty());
    let shown = format!(
        "{}{}",
        world.run(&["check", "--json"]).ok(),
        gateway.run(&["routes", "--json"]).ok()
    );
    assert!(shown.contains("smtps://localhost") && !shown.contains("canary"), "{shown}");
    assert!(!gateway.log.has("canary"));
    drop(gateway);
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary"));
}

#[test]
fn what_is_no_mail_is_refused_before_anything_is_remembered() {
    let (_world, server, gateway) = world("");
    for body in [
        "",
        "{}",
        r#"{"from": "a@example.com\r\nRCPT TO:<eve@example.com>", "to": "b@example.com", "subject": "x", "text": "y"}"#,
        r#"{"from": "a@example.com", "to": "b@example.com", "subject": "x\r\nBcc: eve@example.com", "text": "y"}"#,
        r#"{"from": "a@example.com", "to": [], "subject": "x", "text": "y"}"#,
    ] {
        let refused = post(&gateway, "k-1", body);
        assert_eq!(
            (refused.status, refused.json()["code"].clone()),
            (400, json!("request-invalid"))
        );
    }
    assert_eq!(gateway.call("GET", "/to/mail", &[], "").status, 400);
    assert_eq!(gateway.run(&["ls", "--json"]).json(), json!([]));
    let explained =
        gateway.run(&["explain", "mail", "--body", &letter(&["ada@example.com"], "Why"), "--json"]);
    let explained = explained.json();
    assert_eq!(
        (&explained["effects"], &explained["mail"]["subject"]),
        (&json!("non-idempotent"), &json!("Why"))
    );
    assert_eq!(
        explained["after"]["no reply after the last dot"],
        "in doubt, never sent again by itself"
    );
    assert!(server.taken().is_empty());
}

#[test]
fn a_mail_that_is_asked_anew_is_another_mail() {
    let (_world, server, gateway) = world("");
    let first = post(&gateway, "k-1", &letter(&["ada@example.com"], "One")).json();
    let id = first["id"].as_str().unwrap();
    gateway.run(&["resend", id, "--reason", "she lost it", "--key", "k-2"]).ok();
    gateway.until_state("k-2", "done");
    let taken = server.taken();
    assert_eq!(taken.len(), 2);
    assert_ne!(taken[0].header("Message-ID"), taken[1].header("Message-ID"));
    assert_eq!(taken[0].header("Subject"), taken[1].header("Subject"));
}

#[test]
fn of_mails_under_500_faults_none_is_doubled_and_none_lost() {
    under_faults("");
}

#[test]
fn of_mails_under_500_faults_none_is_doubled_and_none_lost_in_postgresql() {
    let Some(database) = database() else { return };
    under_faults(&format!("store = \"{database}\"\n"));
}

/// Whom the mails under faults are for: two or three, one of whom is put off time and again.
pub(crate) fn several(chance: &mut Chance) -> &'static [&'static str] {
    match chance.below(3) {
        0 => &["ada@example.com"],
        1 => &["ada@example.com", "grey@example.com"],
        _ => &["ada@example.com", "grey@example.com", "bob@example.com"],
    }
}

/// How often each recipient has each mail, by its subject.
pub(crate) fn had(server: &MailServer) -> BTreeMap<(String, String), usize> {
    let mut had = BTreeMap::new();
    for mail in server.taken() {
        for to in &mail.to {
            *had.entry((mail.header("Subject"), to.clone())).or_insert(0) += 1;
        }
    }
    had
}

/// Says of an operation in doubt what the server's log says of it: whether it took the mail once more than
/// the gateway knows. Tells whether it did.
pub(crate) fn resolve_by_the_log(gateway: &Gateway, server: &MailServer, doubted: &Value) -> bool {
    let attempts = doubted["attempts"].as_array().unwrap();
    let is_known = |attempt: &&Value| {
        let said = attempt["error"].as_str().unwrap_or_default();
        attempt["status"] == 200 || said.starts_with("taken for")
    };
    let known = attempts.iter().filter(is_known).count();
    let log = server.taken().into_iter();
    let taken = log.filter(|mail| mail.header("Subject") == doubted["key"].as_str().unwrap());
    let is_taken = taken.count() > known;
    let said = if is_taken { "done" } else { "not-sent" };
    let id = doubted["id"].as_str().unwrap();
    gateway.run(&["resolve", id, "--as", said, "--reason", "the server's log"]).ok();
    is_taken
}

/// Mails to a server that breaks off, puts off and forgets to answer, 500 times.
fn under_faults(store: &str) {
    let (seed, count) = (seed(), number("TEST_MAIL_FAULTS", 500));
    tell(&format!("TEST_SEED={seed} TEST_MAIL_FAULTS={count}"));
    let (world, server) = (World::new(), MailServer::start(Tls::Never, None));
    world.write("onceward.toml", &format!("{store}{}", route(&server, "mode = \"accepted\"")));
    let gateway = world.serve();
    let mut chance = Chance(seed);
    let kinds = [
        Fault::Before("CONNECT"),
        Fault::Before("EHLO"),
        Fault::After("EHLO"),
        Fault::Before("MAIL"),
        Fault::Say("MAIL", "451 later"),
        Fault::Before("RCPT"),
        Fault::Say("RCPT", "450 grey"),
        Fault::After("RCPT"),
        Fault::Before("DATA"),
        Fault::Say("DATA", "452 full"),
        Fault::InData,
        Fault::Taken,
        Fault::Lost,
    ];
    server.break_off((0..count).map(|_| kinds[chance.below(kinds.len() as u64) as usize]));
    server.put_off(u32::try_from(count / 3).unwrap());
    let mut mails = Vec::new();
    // As many as it takes: each meets its share of the faults.
    while server.faults() > 0 {
        let (key, to) = (format!("k-{}", mails.len()), several(&mut chance));
        let taken = post(&gateway, &key, &letter(to, &key));
        assert_eq!(taken.status, 202, "{taken:?}");
        mails.push((key, to));
    }
    let at_rest = |key: &str| {
        until(&format!("{key} is at rest"), || {
            let found = gateway.run(&["ls", "--key", key, "--json"]).json();
            let found = found[0].clone();
            matches!(found["state"].as_str(), Some("done" | "in_doubt" | "dead")).then_some(found)
        })
    };
    let (mut doubts, mut partly, mut ended) = (0, 0, Vec::new());
    for (key, to) in &mails {
        let mut is_by_a_person = false;
        let done = until(&format!("{key} is done"), || {
            let rested = at_rest(key);
            if rested["state"] == "in_doubt" {
                doubts += 1;
                is_by_a_person |= resolve_by_the_log(&gateway, &server, &rested);
            }
            (rested["state"] == "done").then_some(rested)
        });
        let attempts = done["attempts"].as_array().unwrap();
        let is_partly =
            |it: &&Value| it["error"].as_str().is_some_and(|said| said.starts_with("taken for"));
        partly += attempts.iter().filter(is_partly).count();
        // Whom the server did not want is named by the attempt that a person spoke for.
        let last = attempts.last().and_then(|it| it["error"].as_str()).unwrap_or_default();
        let named = last.rsplit_once("recipients ").map_or("", |(_, numbers)| numbers);
        let named: Vec<usize> = named.split(", ").filter_map(|it| it.parse().ok()).collect();
        ended.push((key, to, if is_by_a_person { named } else { Vec::new() }));
    }
    let had = had(&server);
    assert!(had.values().all(|count| *count == 1), "none is doubled: {had:?}");
    for (key, to, left) in ended {
        for (n, to) in (1..).zip(*to) {
            let has = had.contains_key(&(key.clone(), (*to).to_owned()));
            assert_ne!(has, left.contains(&n), "{key} for {to}, and not for {left:?}");
        }
    }
    assert!(doubts > count / 20 && partly > 0, "too tame: {doubts} doubts, {partly} in part");
    tell(&format!(
        "{count} faults, {} mails, {doubts} in doubt, {partly} taken in part, each had once",
        mails.len()
    ));
}
