//! What is known of a mail: who may see whom it is for, when it is the same one again, and what it is found
//! by.

use serde_json::json;

use crate::mail::{letter, post, route, world};
use crate::mail_world::{Fault, MailServer, Tls};
use crate::tenants_world::{ask, make};
use crate::world::{World, until};

#[test]
fn whom_a_mail_is_for_is_told_to_those_alone_who_may_see_what_was_sent() {
    let (_world, _server, gateway) = world("");
    let [sender, stranger, reader, seer] =
        [("sender", "send"), ("stranger", "send"), ("reader", "read"), ("seer", "payloads")]
            .map(|(name, role)| make(&gateway, "default", name, &["--role", role]));
    let bearer = format!("Bearer {sender}");
    let headers = [
        ("idempotency-key", "k-1"),
        ("content-type", "application/json"),
        ("onceward-authorization", &*bearer),
    ];
    let mail = json!({
        "from": "shop@example.com", "to": "canary-to@example.com", "bcc": "canary-bcc@example.com",
        "subject": "canary-subject", "text": "canary-text",
    });
    let sent = gateway.call("POST", "/to/mail", &headers, &mail.to_string());
    assert_eq!(sent.status, 200, "{sent:?}");
    let id = sent.json()["id"].as_str().unwrap().to_owned();
    let story = format!("GET /v1/operations/{id}");
    let page = format!("GET /operations/{id}");
    let list = "GET /v1/operations?limit=10";
    for path in [&*story, &*page, list] {
        let answer = ask(&gateway, &reader, path, "");
        let text = answer.text();
        assert_eq!(answer.status, 200, "{text}");
        assert!(text.contains(&format!("{id}@example.com")), "it is found by its name: {path}");
        assert!(!text.contains("canary"), "told to a reader: {path}\n{text}");
        let text = ask(&gateway, &seer, path, "").text();
        assert!(text.contains("canary-to@example.com"), "{path}\n{text}");
        assert!(text.contains("canary-bcc@example.com") && text.contains("canary-subject"));
    }
    let own = ask(&gateway, &sender, &story, "").json();
    assert_eq!(own["ids"]["subject"], "canary-subject", "who sent it knows it");
    assert_eq!(ask(&gateway, &stranger, &story, "").status, 404);
    // Who knows an address may look for it.
    let found = ask(&gateway, &reader, &format!("{list}&id=to:canary-to@example.com"), "");
    assert_eq!(found.json()["data"][0]["id"], id.as_str(), "{found:?}");
}

#[test]
fn whoever_started_a_saga_is_told_whom_its_mails_are_for() {
    let (_world, _server, gateway) = world("");
    let [sender, stranger] =
        ["sender", "stranger"].map(|name| make(&gateway, "default", name, &["--role", "send"]));
    let mail = json!({
        "from": "shop@example.com", "to": "ada@example.com", "subject": "Welcome", "text": "Hi",
    });
    let saga = json!({"key": "s-1", "steps": [{"name": "mail", "to": "mail", "body": mail}]});
    let started = ask(&gateway, &sender, "POST /v1/sagas", &saga.to_string());
    assert_eq!(started.status, 202, "{started:?}");
    let step = until("its mail is sent", || {
        let list = gateway.run(&["ls", "--id", "to:ada@example.com", "--json"]).json();
        list[0]["id"].as_str().map(str::to_owned)
    });
    let story = format!("GET /v1/operations/{step}");
    let request = ask(&gateway, &sender, &format!("{story}/request"), "");
    assert_eq!(request.status, 200, "{request:?}");
    let own = ask(&gateway, &sender, &story, "").json();
    assert_eq!(own["ids"]["to"], "ada@example.com", "as in its request: {own}");
    assert_eq!(ask(&gateway, &stranger, &story, "").status, 404);
}

#[test]
fn no_answer_says_otherwise_what_a_mail_says_of_itself() {
    let ids = "ids = { message_id = \"/provider_id\", to = \"/id\", queued = \"/provider_id\" }";
    let (_world, _server, gateway) = world(ids);
    // So long a domain makes a name that no other id could have.
    let label = "d".repeat(58);
    let from = format!("shop@{label}.{label}.{label}.{label}.example");
    let mails = [("k-1", "shop@example.com"), ("k-2", &*from)].map(|(key, from)| {
        let mail =
            json!({"from": from, "to": "ada@example.com", "subject": "Canary", "text": "Hi"});
        let sent = post(&gateway, key, &mail.to_string());
        assert_eq!(sent.status, 200, "{sent:?}");
        let id = sent.json()["id"].as_str().unwrap().to_owned();
        let (_, domain) = from.split_once('@').unwrap();
        let ids = gateway.until_state(key, "done")["ids"].clone();
        assert_eq!(ids["message_id"], format!("<{id}@{domain}>"));
        assert_eq!((&ids["to"], ids["queued"].is_string()), (&json!("ada@example.com"), true));
        (id, ids)
    });
    // Until there is a key, everybody may see all of it.
    let reader = make(&gateway, "default", "reader", &["--role", "read"]);
    for (id, ids) in mails {
        let told = ask(&gateway, &reader, &format!("GET /v1/operations/{id}"), "").json();
        let told = &told["ids"];
        assert_eq!((&told["to"], &told["subject"]), (&json!(null), &json!(null)), "{told}");
        assert_eq!(told["message_id"], ids["message_id"]);
    }
}

#[test]
fn a_mail_is_the_same_one_however_it_is_spelt_and_whatever_its_route_says_by_then() {
    let (world, server, gateway) = world("");
    let first = r#"{"from":"a@example.com","to":"b@example.com","subject":"One","text":"Hi"}"#;
    let spelt = "{ \"to\": \"b@example.com\",\n\"from\": \"a@example.com\", \"text\": \"\\u0048i\", \"subject\": \"One\" }";
    let sent = post(&gateway, "k-1", first);
    assert_eq!(sent.status, 200, "{sent:?}");
    let is_again = |answer: &crate::world::Response| {
        (answer.status, answer.header("idempotent-replayed")) == (200, Some("true"))
    };
    assert!(is_again(&post(&gateway, "k-1", spelt)));
    // Of one that is whole, its envelope counts, which stands nowhere in it.
    let whole = "From: a@example.com\r\nSubject: Two\r\n\r\nHi\r\n";
    let envelope = |to: &'static str| {
        [
            ("idempotency-key", "k-2"),
            ("content-type", "message/rfc822"),
            ("mail-from", "a@example.com"),
            ("rcpt-to", to),
        ]
    };
    let ask_whole = |gateway: &crate::world::Gateway, to| {
        gateway.call("POST", "/to/mail", &envelope(to), whole)
    };
    assert_eq!(ask_whole(&gateway, "b@example.com").status, 200);
    assert!(is_again(&ask_whole(&gateway, "b@example.com")));
    assert_eq!(
        ask_whole(&gateway, "c@example.com").status,
        409,
        "another recipient is another mail"
    );
    drop(gateway);
    let rule = "fingerprint = { headers = [\"x-campaign\"], ignore = [\"/headers\"] }";
    world.write("onceward.toml", &route(&server, rule));
    let gateway = world.serve();
    assert!(is_again(&post(&gateway, "k-1", first)), "its route has another rule by now");
    assert!(is_again(&post(&gateway, "k-1", spelt)));
    assert!(is_again(&ask_whole(&gateway, "b@example.com")));
    for other in [first.replace("One", "Other"), first.replace("b@example", "c@example")] {
        assert_eq!(post(&gateway, "k-1", &other).status, 409, "{other}");
    }
    assert_eq!(ask_whole(&gateway, "c@example.com").status, 409);
    assert_eq!(server.taken().len(), 2);
}

#[test]
fn past_a_change_of_the_rule_a_mail_is_compared_by_the_one_under_which_it_was_first_asked_for() {
    let (world, server) = (World::new(), MailServer::start(Tls::Never, None));
    let first_rule = "fingerprint = { headers = [\"x-campaign\"], ignore = [\"/headers\"] }";
    world.write("onceward.toml", &route(&server, first_rule));
    let mail = |at: &str| {
        json!({"from": "a@example.com", "to": "b@example.com", "subject": "S", "text": "Hi",
            "headers": {"X-Sent-At": at}})
        .to_string()
    };
    let ask = |gateway: &crate::world::Gateway, campaign, at| {
        let headers = [
            ("idempotency-key", "k-1"),
            ("content-type", "application/json"),
            ("x-campaign", campaign),
        ];
        gateway.call("POST", "/to/mail", &headers, &mail(at)).status
    };
    let gateway = world.serve();
    assert_eq!(ask(&gateway, "spring", "noon"), 200);
    drop(gateway);
    let more = first_rule.replace("\"x-campaign\"", "\"x-campaign\", \"x-other\"");
    for rule in [more.as_str(), ""] {
        world.write("onceward.toml", &route(&server, rule));
        let gateway = world.serve();
        assert_eq!(ask(&gateway, "spring", "one"), 200, "its rule left that out: {rule}");
        assert_eq!(ask(&gateway, "autumn", "noon"), 409, "its rule counted that: {rule}");
    }
    assert_eq!(server.taken().len(), 1);
}

#[test]
fn what_is_no_mail_is_never_taken_for_one_that_was_sent() {
    let (world, server) = (World::new(), MailServer::start(Tls::Never, None));
    let waits = "mode = \"accepted\"\neffects = \"idempotent\"\n\
                 retry = { attempts_max = 1000, base = \"20ms\", floor = \"1ms\", cap = \"50ms\" }";
    let web =
        format!("[routes.mail]\nupstream = \"http://127.0.0.1:1\"\nbreaker = false\n{waits}\n");
    world.write("onceward.toml", &web);
    let gateway = world.serve();
    // One is a mail as it is posted and not as it is remembered, and one says so itself.
    assert_eq!(post(&gateway, "k-1", &letter(&["ada@example.com"], "One")).status, 202);
    let headers = [
        ("idempotency-key", "k-2"),
        ("content-type", "message/rfc822"),
        ("mail-from", "a@example.com"),
        ("rcpt-to", "b@example.com"),
        ("message-id", "<x@example.com>"),
    ];
    assert_eq!(gateway.call("POST", "/to/mail", &headers, "From: a@b.c\r\n\r\nHi\r\n").status, 202);
    // It ends between two attempts: what a kill meets under way could have been sent.
    gateway.signal(rustix::process::Signal::TERM);
    gateway.ended();
    world.write("onceward.toml", &route(&server, ""));
    let gateway = world.serve();
    for key in ["k-1", "k-2"] {
        let dead = gateway.until_state(key, "dead");
        assert_eq!(dead["reason"], "unsent", "{dead}");
        let last = dead["attempts"].as_array().unwrap().last().unwrap().clone();
        assert!(last["error"].as_str().unwrap().contains("no mail"), "{last}");
    }
    assert!(server.taken().is_empty());
}

#[test]
fn a_list_of_the_names_of_mails_ends_their_doubt() {
    let (_world, server, gateway) = world("");
    server.break_off([Fault::Taken, Fault::Lost]);
    for key in ["k-1", "k-2"] {
        assert_eq!(post(&gateway, key, &letter(&["ada@example.com"], key)).status, 504);
    }
    let name = server.taken()[0].header("Message-ID");
    let list = json!({
        "route": "mail", "items": [{"id": name}], "match": "/id", "reason": "the provider's list",
    });
    let json = [("content-type", "application/json")];
    let resolved = gateway.call("POST", "/v1/resolve", &json, &list.to_string());
    assert_eq!(resolved.status, 200, "{resolved:?}");
    gateway.until_state("k-1", "done");
    gateway.until_state("k-2", "in_doubt");
    assert_eq!(server.taken().len(), 1, "nothing was sent again");
}

#[test]
fn a_mail_is_found_by_what_it_says_in_each_life_of_its_key() {
    let (_world, server, gateway) = world("");
    server.break_off([Fault::Say("MAIL", "554 not today")]);
    let body = letter(&["ada@example.com"], "Your order");
    assert_eq!(post(&gateway, "k-1", &body).status, 422);
    assert_eq!(post(&gateway, "k-1", &body).status, 200, "its key runs again");
    for id in ["to:ada@example.com", "subject:Your order"] {
        let found = gateway.run(&["ls", "--id", id, "--json"]).json();
        assert_eq!(found[0]["key"], "k-1", "{id}: {found}");
    }
    assert_eq!(gateway.until_state("k-1", "done")["ids"]["to"], "ada@example.com");
}
