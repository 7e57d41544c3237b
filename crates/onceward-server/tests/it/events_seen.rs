//! Events as people see them: what is told of one and of its deliveries, what is hidden, what is noted, and
//! that every digit comes through.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use serde_json::{Value, json};

use crate::callbacks::Hooks;
use crate::world::{Gateway, Response, World, until};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn world(more: &str) -> World {
    let world = World::new();
    world.write("onceward.toml", &format!("[egress]\nallow = [\"127.0.0.0/8\"]\n{more}"));
    world
}

fn post(gateway: &Gateway, path: &str, document: &Value) -> Response {
    gateway.call("POST", path, &JSON, &document.to_string())
}

fn get(gateway: &Gateway, path: &str) -> Response {
    gateway.call("GET", path, &[], "")
}

fn subscribe(gateway: &Gateway, hooks: &Hooks, types: &[&str]) -> String {
    let wanted = json!({"url": format!("http://{}/hooks", hooks.address), "types": types});
    let made = post(gateway, "/v1/subscriptions", &wanted);
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["id"].as_str().unwrap().to_owned()
}

fn publish(gateway: &Gateway, event: &Value) -> String {
    let published = post(gateway, "/v1/events", event);
    assert_eq!(published.status, 202, "{}", published.text());
    published.json()["id"].as_str().unwrap().to_owned()
}

fn until_fanned_out(gateway: &Gateway, id: &str) -> Value {
    until(&format!("{id} is fanned out"), || {
        let story = get(gateway, &format!("/v1/events/{id}")).json();
        (story["state"] == "done").then_some(story)
    })
}

#[test]
fn every_digit_of_an_event_comes_through_by_the_command_line_and_nothing_that_is_said_is_left_out()
{
    let (world, hooks) = (world(""), Hooks::start());
    let gateway = world.serve();
    let id = subscribe(&gateway, &hooks, &[]);
    let data = r#"{"big": 123456789012345678901234567890, "price": 1.10, "n": 1e2}"#;
    gateway.run(&["publish", "order.made", "--data", data]).ok();
    gateway.run(&["subscriptions", "test", &id, "--data", data, "--reason", "a look"]).ok();
    for said in [r#"{"type": "order.none", "data": null}"#, r#"{"type": "order.bare"}"#] {
        assert_eq!(gateway.call("POST", "/v1/events", &JSON, said).status, 202);
    }
    let told = until("all are told", || Some(hooks.told()).filter(|told| told.len() == 4));
    let bodies: Vec<_> =
        told.iter().map(|told| String::from_utf8(told.body.clone()).unwrap()).collect();
    for kind in ["order.made", "onceward.test"] {
        let body = bodies.iter().find(|body| body.contains(kind)).unwrap();
        assert!(body.contains(&format!("\"data\":{data}")), "{body}");
    }
    let none = bodies.iter().find(|body| body.contains("order.none")).unwrap();
    assert!(none.ends_with("\"data\":null}"), "{none}");
    let bare = bodies.iter().find(|body| body.contains("order.bare")).unwrap();
    assert!(!bare.contains("data"), "{bare}");
}

#[test]
fn who_tries_a_subscription_is_noted_and_what_came_to_nothing_too() {
    let (world, hooks) = (world(""), Hooks::start());
    let gateway = world.serve();
    let id = subscribe(&gateway, &hooks, &["order.*"]);
    let path = format!("/v1/subscriptions/{id}/test");
    assert_eq!(post(&gateway, &path, &json!({"reason": "is it there?"})).status, 202);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let by_page =
        gateway.call("POST", &format!("/subscriptions/{id}/test"), &form, "reason=a+look");
    assert_eq!(by_page.status, 303, "{}", by_page.text());
    until("both are told", || (hooks.told().len() == 2).then_some(()));
    let audit = get(&gateway, "/v1/audit").json();
    let notes: Vec<_> = audit["data"].as_array().unwrap().iter().collect();
    let tested: Vec<_> = notes.iter().filter(|it| it["deed"] == "tested a subscription").collect();
    let reasons: Vec<_> = tested.iter().map(|it| it["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["a look", "is it there?"], "{audit}");
    assert!(tested.iter().all(|it| it["about"].as_str().unwrap().contains(&id)), "{tested:?}");
}

#[test]
fn what_is_redacted_of_all_is_shown_of_no_event_and_no_delivery() {
    let redact = "[redact]\npointers = [\"/data/card\"]\n";
    let (world, hooks) = (world(redact), Hooks::start());
    let gateway = world.serve();
    subscribe(&gateway, &hooks, &[]);
    let data = json!({"card": "canary-of-a-card", "seen": "visible-member"});
    let id = publish(&gateway, &json!({"type": "order.paid", "key": "k-1", "data": data}));
    let told = until("it is told", || hooks.told().into_iter().next());
    assert!(String::from_utf8_lossy(&told.body).contains("canary-of-a-card"), "receivers get it");
    until_fanned_out(&gateway, &id);
    let of_event = get(&gateway, &format!("/v1/operations?parent={id}")).json();
    let delivery = of_event["data"][0]["id"].as_str().unwrap().to_owned();
    let mut shown = String::new();
    for of in [&id, &delivery] {
        for path in [
            "/v1/operations/ID",
            "/v1/operations/ID/request",
            "/operations/ID",
            "/operations/ID/request",
            "/v1/operations/ID/evidence",
        ] {
            let answer = get(&gateway, &path.replace("ID", of));
            assert_eq!(answer.status, 200, "{path}");
            assert!(!answer.text().contains("canary"), "{path} of {of}: {}", answer.text());
            shown += &answer.text();
        }
        let told = gateway.run(&["show", of, "--request"]).ok();
        assert!(!told.contains("canary"), "{told}");
    }
    assert!(shown.contains("visible-member"), "something is seen at all");
    for path in ["/v1/events", "/events", &format!("/events/{id}"), &format!("/v1/events/{id}")] {
        assert!(!get(&gateway, path).text().contains("canary"), "{path}");
    }
    assert!(!gateway.log.has("canary"));
}

#[test]
fn the_page_of_an_event_says_what_became_of_it_and_lists_go_on_as_they_were_asked_for() {
    let (world, hooks) = (world(""), Hooks::start());
    let gateway = world.serve();
    subscribe(&gateway, &hooks, &["order.*"]);
    let nowhere = publish(&gateway, &json!({"type": "user.made", "subject": "s 1"}));
    let story = until_fanned_out(&gateway, &nowhere);
    assert_eq!((&story["deliveries"], &story["exact"]), (&json!({}), &json!(true)));
    let page = get(&gateway, &format!("/events/{nowhere}")).text();
    assert!(page.contains("It went nowhere: nobody wanted it."), "{page}");
    let wanted = publish(&gateway, &json!({"type": "order.paid"}));
    until_fanned_out(&gateway, &wanted);
    for number in 0..3 {
        publish(
            &gateway,
            &json!({"type": "user.made", "subject": "s 1", "key": format!("k-{number}")}),
        );
    }
    let page = get(&gateway, &format!("/events/{wanted}")).text();
    assert!(
        page.contains("It was sent off to all who wanted it.") && !page.contains("nowhere"),
        "{page}"
    );
    let list = get(&gateway, "/events?type=user.made&subject=s+1&after=1h&limit=2").text();
    let next =
        list.split("href=\"").find(|rest| rest.starts_with("/events?type=user.made")).unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    for said in ["subject=s+1", "after=1h", "limit=2", "cursor=op_"] {
        assert!(next.contains(said), "{next}");
    }
    assert!(get(&gateway, &next).text().contains(&nowhere), "the oldest is on the next page");
}

#[test]
fn a_delivery_that_was_given_up_is_counted_as_what_became_of_it() {
    let (world, hooks) = (world(""), Hooks::start());
    let gateway = world.serve();
    let id = subscribe(&gateway, &hooks, &[]);
    gateway.run(&["subscriptions", "pause", &id, "--reason", "a look"]).ok();
    let event = publish(&gateway, &json!({"type": "order.paid"}));
    let story = until_fanned_out(&gateway, &event);
    assert_eq!(story["deliveries"], json!({"pending": 1}));
    let listed = get(&gateway, &format!("/v1/operations?parent={event}")).json();
    let delivery = listed["data"][0]["id"].as_str().unwrap();
    gateway.run(&["cancel", delivery, "--reason", "not wanted"]).ok();
    let story = get(&gateway, &format!("/v1/events/{event}")).json();
    assert_eq!((&story["deliveries"], &story["exact"]), (&json!({"dead_told": 1}), &json!(true)));
}

#[test]
fn subscriptions_are_listed_page_by_page_the_oldest_first() {
    let (world, hooks) = (world(""), Hooks::start());
    let gateway = world.serve();
    let made: Vec<String> = (0..5).map(|_| subscribe(&gateway, &hooks, &[])).collect();
    let (mut listed, mut path) = (Vec::new(), "/v1/subscriptions?limit=2".to_owned());
    loop {
        let page = get(&gateway, &path).json();
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 2);
        listed.extend(data.iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/subscriptions?limit=2&cursor={next}");
    }
    assert_eq!(listed, made);
    assert_eq!(gateway.run(&["subscriptions", "ls", "--json"]).json().as_array().unwrap().len(), 5);
    assert_eq!(get(&gateway, "/v1/subscriptions?limit=0").status, 400);
    let left =
        format!("/subscriptions?left={}&since=24h&cursor=op_01kb2n9f5nep3b8m6wq6r9t2vx", made[0]);
    let page = get(&gateway, &left).text();
    assert!(page.contains("older events that were not looked at yet"), "{page}");
    assert!(page.contains("op_01kb2n9f5nep3b8m6wq6r9t2vx") && page.contains("Go on"));
}
