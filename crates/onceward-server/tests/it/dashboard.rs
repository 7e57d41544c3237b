//! The overview and what stands behind its figures, as a person on call reads them: what is wrong, what
//! was sent and came again, which upstream hurts, what became of a key.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::browser_world::{Browser, Server};
use crate::tenants_world::{ask, echo, make};
use crate::world::{World, until};

/// What a browser asks for.
const HTML: (&str, &str) = ("Accept", "text/html");

fn page(server: &Server, path: &str) -> String {
    let answer = server.ask("GET", path, &[HTML], "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

fn call(server: &Server, path: &str, key: &str, body: &str) -> u16 {
    server.ask("POST", path, &[("Idempotency-Key", key)], body).status
}

fn accept(server: &Server, path: &str, key: &str) {
    let headers = [("Idempotency-Key", key), ("Prefer", "respond-async")];
    assert_eq!(server.ask("POST", path, &headers, "{}").status, 202, "{path}");
}

/// What is sent: three that are done at once, one after a retry, a dead letter, one in doubt; then three
/// that came again, one of them with another body.
fn send_some(server: &Server) {
    for n in 1..=3 {
        assert_eq!(call(server, "/to/demo/orders", &format!("order-{n}"), "{}"), 201);
    }
    assert_eq!(call(server, "/to/demo/orders?script=503,201", "order-4", "{}"), 201);
    accept(server, "/to/demo/orders?script=404", "order-5");
    server.operation_in("dead");
    assert_eq!(call(server, "/to/demo-unsafe/orders?script=drop", "order-6", "{}"), 504);
    for _ in 0..2 {
        assert_eq!(call(server, "/to/demo/orders", "order-1", "{}"), 201);
    }
    assert_eq!(call(server, "/to/demo/orders", "order-2", "{\"other\": 1}"), 409);
}

/// The number of the figure that is called so.
fn figure(page: &str, name: &str) -> u64 {
    let figures = page.split("class=\"figures\"").nth(1).unwrap();
    let rest =
        figures.split(&format!("{name}</span>")).nth(1).unwrap_or_else(|| panic!("no {name}"));
    let number = rest.split("class=\"number\">").nth(1).unwrap().split('<').next().unwrap();
    number.parse().unwrap()
}

#[test]
fn figures_and_charts_have_the_numbers_of_what_was_sent() {
    let server = Server::start();
    let empty = page(&server, "/");
    assert!(empty.contains("Nothing has come through yet.") && empty.contains("curl"), "{empty}");
    send_some(&server);
    for path in ["/", "/?over=24h", "/?over=7d"] {
        let page = page(&server, path);
        for (name, number) in [
            ("Duplicates blocked, 24 h", 2),
            ("Delivered", 4),
            ("Success after retry", 1),
            ("In doubt", 1),
            ("Dead letters", 1),
            ("Not ended", 0),
            ("Open breakers", 0),
            ("Late duplicates", 0),
        ] {
            assert_eq!(figure(&page, name), number, "{path}: {name}");
        }
        for said in [
            "In all: 6 operations, 2 duplicates blocked.",
            "In all: 3 done, 1 done after retry, 0 dead, caller told, 1 dead letters, 1 in doubt.",
            "1 in doubt</strong>: sent or begun, and nobody has said whether it was done; the oldest came",
            "1 dead letter</strong>: ended badly",
        ] {
            assert!(page.contains(said), "{path}: {said}: {page}");
        }
        assert!(!page.contains("Over all: p50 -"), "{path}: how long calls took is told: {page}");
        assert!(page.len() < 100_000, "{path}: {} bytes", page.len());
    }
    let history = server.ask("GET", "/v1/stats?over=1h", &[], "").json();
    assert_eq!(history["history"]["total"]["operations"], 6, "the page has the API's numbers");
    let wrong = server.ask("GET", "/?over=2h", &[HTML], "");
    assert_eq!(wrong.status, 400, "{}", wrong.text());
}

#[test]
fn duplicates_are_told_with_what_they_got_and_what_they_would_have_doubled() {
    let server = Server::start();
    assert!(page(&server, "/duplicates").contains("No call came twice"));
    send_some(&server);
    let shown = page(&server, "/duplicates");
    assert!(shown.contains("<strong>2</strong> blocked"), "{shown}");
    let list = |page: &str| {
        let list = page.split("id=\"latest\"").nth(1).unwrap();
        list.split("</section>").next().unwrap().to_owned()
    };
    let latest = list(&shown);
    assert_eq!(latest.matches("<tr>").count(), 4, "a head, and three that came again: {latest}");
    let first = server.operations().into_iter().find(|it| it["key"] == "order-1").unwrap();
    let link = format!("/operations/{}\">order-1</a>", first["id"].as_str().unwrap());
    assert_eq!(latest.matches(&link).count(), 2, "{latest}");
    let mismatches = list(&page(&server, "/duplicates?got=mismatch"));
    assert!(mismatches.contains("order-2") && !mismatches.contains("order-1"), "{mismatches}");
    assert_eq!(server.ask("GET", "/duplicates?got=all", &[HTML], "").status, 400);
    assert_eq!(server.ask("GET", "/duplicates?cursor=x", &[HTML], "").status, 400);
}

#[test]
fn the_same_request_under_another_key_is_listed_with_the_first_one() {
    let server = Server::start();
    assert!(page(&server, "/duplicates").contains("None was seen."));
    for key in ["retry-1", "retry-2", "retry-3"] {
        assert_eq!(call(&server, "/to/demo/orders", key, "{\"qty\": 1}"), 201);
    }
    let list = page(&server, "/duplicates");
    let list = list.split("id=\"suspects\"").nth(1).unwrap();
    let row = list.split("<tr>").nth(2).unwrap();
    for said in [">retry-3</a>", ">retry-1</a>", "no. 2 since it", "POST /orders", "anybody"] {
        assert!(row.contains(said), "{said}: {row}");
    }
    let seen = server.ask("GET", "/v1/suspects?limit=1", &[], "").json();
    let (newest, next) = (&seen["data"][0], seen["next"].as_str().unwrap());
    let id = |key: &str| {
        let all = server.operations();
        all.into_iter().find(|it| it["key"] == key).unwrap()["id"].clone()
    };
    assert_eq!((&newest["operation"], &newest["first"]), (&id("retry-3"), &id("retry-1")));
    assert_eq!((&newest["again"], &newest["route"]), (&2.into(), &"demo".into()));
    let rest = server.ask("GET", &format!("/v1/suspects?cursor={next}"), &[], "").json();
    assert_eq!(rest["data"].as_array().map(Vec::len), Some(1), "{rest}");
    assert_eq!(rest["data"][0]["operation"], id("retry-2"));
}

#[test]
fn the_overview_says_what_ended_badly_since_somebody_last_looked() {
    let server = Server::start();
    let look = |cookie: Option<&str>, more: &[(&str, &str)]| {
        let cookie = cookie.map(|cookie| ("Cookie", cookie));
        let headers: Vec<_> =
            [HTML].into_iter().chain(cookie).chain(more.iter().copied()).collect();
        let answer = server.ask("GET", "/", &headers, "");
        let kept = answer.header("set-cookie").map(|it| it.split(';').next().unwrap().to_owned());
        let text = answer.text();
        let since = text.split("id=\"since\">").nth(1).map(|it| it.split("</p>").next().unwrap());
        (kept, since.map(str::to_owned))
    };
    let (kept, since) = look(None, &[]);
    assert_eq!(since, None, "without a cookie nothing is said");
    let first = kept.unwrap();
    let now: i64 = first.strip_prefix("onceward-looked=0.").unwrap().parse().unwrap();
    assert_eq!(look(Some(&first), &[]).1, None, "it is the same visit");
    send_some(&server);
    let yesterday = format!("onceward-looked=0.{}", now - 20 * 3_600_000);
    let (kept, since) = look(Some(&yesterday), &[]);
    let since = since.unwrap();
    for said in [
        "<strong>1</strong> dead</a>",
        "<strong>1</strong> in doubt</a>, ",
        "of 6 operations that came",
        "href=\"/operations?state=dead\"",
        "href=\"/operations?state=in_doubt\"",
    ] {
        assert!(since.replace("<span class=\"soft\">", "").contains(said), "{said}: {since}");
    }
    assert!(!since.contains("in the last"), "{since}");
    let long_ago = format!("onceward-looked=0.{}", now - 20 * 24 * 3_600_000);
    let longer = look(Some(&long_ago), &[]).1.unwrap();
    assert!(longer.contains(": in the last 7 days <a"), "no more than that is known: {longer}");
    let kept = kept.unwrap();
    assert!(kept.starts_with(&format!("onceward-looked={}.", now - 20 * 3_600_000)), "{kept}");
    assert!(look(Some(&kept), &[]).1.is_some(), "read again it is the same visit");
    let by_itself = look(Some(&yesterday), &[("Onceward-By-Itself", "true")]);
    assert_eq!(by_itself, (None, None), "what a page reads by itself is no look");
    let list = since.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(page(&server, &list.replace("&amp;", "&")).contains("order-5"));
    assert_eq!(look(Some("onceward-looked=7.99999999999999999"), &[]).1, None);
}

#[test]
fn a_duplicate_that_was_sent_is_nowhere_said_to_be_answered_without_sending() {
    let upstream = echo();
    let server = Server::with(&format!(
        "[routes.brief]\nupstream = \"http://{upstream}\"\neffects = \"idempotent\"\nwindow = \"1ms\"\non_expired = \"execute\"\n"
    ));
    assert_eq!(call(&server, "/to/brief/orders", "order-1", "{}"), 201);
    let first = server.operations()[0]["id"].as_str().unwrap().to_owned();
    until("its window is over and it is sent anew", || {
        assert_eq!(call(&server, "/to/brief/orders", "order-1", "{}"), 201);
        (server.operations().len() > 1).then_some(())
    });
    let shown = page(&server, "/duplicates");
    assert!(shown.contains("<td data-label=\"It got\"><span class=\"chip doubt\">"), "{shown}");
    assert!(shown.contains("on_expired = &quot;execute&quot;, it was sent"), "{shown}");
    let story = until("it is noted that it was asked for again", || {
        Some(page(&server, &format!("/operations/{first}")))
            .filter(|story| story.matches("Asked again").count() > 1)
    });
    assert!(!story.contains("without sending"), "{story}");
}

#[test]
fn a_story_counts_those_too_who_asked_again_at_times_that_are_not_kept() {
    let server = Server::start();
    for _ in 0..24 {
        assert_eq!(call(&server, "/to/demo/orders", "order-1", "{}"), 201);
    }
    let id = server.operations()[0]["id"].as_str().unwrap().to_owned();
    let said = "Asked again</strong> 20 times, the last ";
    let story = until("all are noted", || {
        Some(page(&server, &format!("/operations/{id}")))
            .filter(|it| it.contains("<strong>23 times<"))
    });
    assert!(story.contains(said) && story.contains(", and 3 times before"), "{story}");
}

#[test]
fn the_upstream_that_hurts_most_comes_first_and_says_why() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::with(&format!(
        "demo = true\n[routes.zz-broken]\nupstream = \"http://{gone}\"\neffects = \"keyed\"\nwindow = \"24h\"\n"
    ));
    send_some(&server);
    for n in 0..5 {
        call(&server, "/to/zz-broken/orders", &format!("lost-{n}"), "{}");
    }
    let overview = page(&server, "/");
    assert!(overview.contains("Upstream zz-broken</strong>: breaker open"), "{overview}");
    assert_eq!(figure(&overview, "Open breakers"), 1);
    let hurting = overview.split("id=\"worst\"").nth(1).unwrap();
    let at = |page: &str, what: &str| page.find(what).unwrap_or_else(|| panic!("{what}: {page}"));
    assert!(at(hurting, "#upstream-zz-broken") < at(hurting, "#upstream-demo-unsafe"));
    assert!(at(hurting, "#upstream-demo-unsafe\"") < at(hurting, "#upstream-demo\""));
    let all = page(&server, "/upstreams");
    let (broken, next) =
        (at(&all, "id=\"upstream-zz-broken\""), at(&all, "id=\"upstream-demo-unsafe\""));
    assert!(broken < next);
    let card = &all[broken..next];
    for said in
        ["breaker open", "100 %", "lost-0", "unsent", "its answer for 24 h", "up to 3 attempts"]
    {
        assert!(card.contains(said), "{said}: {card}");
    }
}

#[test]
fn a_key_is_looked_up_and_its_routes_window_is_judged() {
    let server = Server::start();
    send_some(&server);
    let found = page(&server, "/keys?key=order-4&route=demo");
    assert!(
        found.contains("the same key gets the same answer") && found.contains("Its window ends")
    );
    assert!(found.contains("/v1/operations?route=demo&amp;key=order-4"), "{found}");
    let doubt = page(&server, "/keys?key=order-6&route=");
    assert!(doubt.contains("what is unfinished never expires"), "{doubt}");
    let unknown = page(&server, "/keys?key=%3Cb%3Enope");
    assert!(
        unknown.contains("No operation has this key here") && unknown.contains("&lt;b&gt;nope")
    );
    assert!(!page(&server, "/keys").contains("id=\"found\""));
    assert!(unknown.contains("99.9 % of your duplicates came within"), "{unknown}");
    assert_eq!(figure(&unknown, "Unfinished"), 1);
    assert_eq!(figure(&unknown, "In their window"), 5);
}

/// Calls on kept connections, each with a key that goes on where `key` ends.
fn call_often(server: &Server, key: &str, count: usize) {
    const AT_ONCE: usize = 16;
    let address = server.gateway().address;
    std::thread::scope(|scope| {
        for caller in 0..AT_ONCE {
            let _ = scope.spawn(move || {
                let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
                for n in (caller..count).step_by(AT_ONCE) {
                    let head = format!("POST /to/demo/orders HTTP/1.1\r\nHost: {address}\r\n");
                    let rest =
                        format!("Idempotency-Key: {key}-{n}\r\nContent-Length: 2\r\n\r\n{{}}");
                    stream.get_mut().write_all((head + &rest).as_bytes()).unwrap();
                    let mut line = String::new();
                    let _ = stream.read_line(&mut line).unwrap();
                    assert!(line.starts_with("HTTP/1.1 201"), "{line}");
                    let mut length = 0;
                    while line != "\r\n" {
                        line.clear();
                        let _ = stream.read_line(&mut line).unwrap();
                        let said = line.to_ascii_lowercase();
                        if let Some(said) = said.strip_prefix("content-length:") {
                            length = said.trim().parse().unwrap();
                        }
                    }
                    stream.read_exact(&mut vec![0; length]).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_key_that_is_older_than_what_one_list_reads_is_never_said_to_be_new() {
    let server = Server::start();
    assert_eq!(call(&server, "/to/demo/orders", "order", "{}"), 201);
    // One more than a list reads, and none that it could pass over by its bytes.
    call_often(&server, "order", 20_001);
    let list = server.ask("GET", "/v1/operations?key=order", &[], "").json();
    assert!(list["data"].as_array().unwrap().is_empty() && list["next"].is_string(), "{list}");

    let unknown = page(&server, "/keys?key=order");
    assert!(unknown.contains("not known yet") && !unknown.contains("would be new"), "{unknown}");
    let further = unknown.split("<a href=\"/operations?key=order&amp;cursor=").nth(1).unwrap();
    let cursor = further.split('"').next().unwrap();
    let further = page(&server, &format!("/operations?key=order&cursor={cursor}"));
    assert!(further.contains(">order</a>"), "{further}");

    // By its route it is found however old it is; and of another key the same is known.
    let found = page(&server, "/keys?key=order&route=demo");
    assert!(found.contains("the same key gets the same answer"), "{found}");
    let other = page(&server, "/keys?key=rder&route=demo");
    assert!(other.contains("No call on <strong>demo</strong> is remembered"), "{other}");
    assert!(!other.contains("would be new"), "{other}");
}

#[test]
fn the_audit_is_narrowed_by_what_it_is_about_and_tells_its_head() {
    let server = Server::start();
    for route in ["demo", "demo-unsafe"] {
        let reason = format!("{{\"reason\": \"about {route}\"}}");
        let paused = server.ask(
            "POST",
            &format!("/v1/routes/{route}/pause"),
            &[("Content-Type", "application/json")],
            &reason,
        );
        assert_eq!(paused.status, 200, "{}", paused.text());
    }
    let all = page(&server, "/audit");
    assert!(all.contains("The chain ends with number <strong>2</strong>"), "{all}");
    let one = page(&server, "/audit?about=demo");
    assert!(one.contains("about demo</bdi>") && !one.contains("about demo-unsafe"), "{one}");
    let told = server.ask("GET", "/v1/audit?about=demo-unsafe", &[], "").json();
    assert_eq!(told["data"].as_array().unwrap().len(), 1, "{told}");
}

#[test]
fn a_tenant_sees_its_own_numbers_and_duplicates_alone() {
    let world = World::new();
    let upstream = echo();
    world.write(
        "onceward.toml",
        &format!("[routes.shared]\nupstream = \"http://{upstream}\"\neffects = \"idempotent\"\n"),
    );
    let gateway = world.serve();
    let keys = ["acme", "bolt"].map(|tenant| (tenant, make(&gateway, tenant, "ada", &[])));
    for ((tenant, key), times) in keys.iter().zip([3, 1]) {
        let bearer = format!("Bearer {key}");
        let named = format!("order-of-{tenant}");
        for _ in 0..times {
            let headers = [("onceward-authorization", &*bearer), ("idempotency-key", &*named)];
            assert_eq!(gateway.call("POST", "/to/shared/orders", &headers, "{}").status, 201);
        }
    }
    let look = |key: &str, path: &str| {
        let answer = ask(&gateway, key, &format!("GET {path}"), "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    };
    for ((tenant, key), (other, blocked)) in keys.iter().zip([("bolt", 2), ("acme", 0)]) {
        let overview = look(key, "/");
        assert!(overview.contains(&format!("In all: 1 operations, {blocked} duplicates blocked.")));
        for path in ["/", "/duplicates", "/keys", "/upstreams"] {
            assert!(!look(key, path).contains(&format!("order-of-{other}")), "{tenant} {path}");
        }
        let stolen = look(key, &format!("/keys?key=order-of-{other}"));
        assert!(stolen.contains("No operation has this key here"), "{tenant}: {stolen}");
        let own = look(key, "/duplicates").contains(&format!("order-of-{tenant}"));
        assert_eq!(own, blocked > 0, "{tenant}");
    }
}

#[test]
fn a_tenant_is_not_told_of_the_breaker_of_a_route_that_others_use_too() {
    let world = World::new();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.write(
        "onceward.toml",
        &format!("[routes.shared]\nupstream = \"http://{gone}\"\neffects = \"idempotent\"\n"),
    );
    let gateway = world.serve();
    let acme = make(&gateway, "acme", "ada", &[]);
    let house = make(&gateway, "default", "house", &[]);
    let story = {
        let bearer = format!("Bearer {acme}");
        let headers = [
            ("onceward-authorization", &*bearer),
            ("idempotency-key", "order-1"),
            ("prefer", "respond-async"),
        ];
        let answer = gateway.call("POST", "/to/shared/orders", &headers, "{}");
        assert_eq!(answer.status, 202, "{}", answer.text());
        let id = answer.header("onceward-operation").unwrap();
        format!("/operations/{id}")
    };
    let breakers =
        |key: &str| ask(&gateway, key, "GET /v1/stats", "").json()["breakers_open"].clone();
    let mut sent = 0;
    until("the breaker opens", || {
        sent += 1;
        let bearer = format!("Bearer {acme}");
        let named = format!("held-{sent}");
        let headers = [("onceward-authorization", &*bearer), ("idempotency-key", &*named)];
        gateway.call("POST", "/to/shared/orders", &headers, "{}");
        (breakers(&house) == serde_json::json!(["shared"])).then_some(())
    });
    let said = "the breaker of <bdi>shared</bdi> is open";
    assert_eq!(breakers(&acme), serde_json::json!([]));
    assert!(ask(&gateway, &house, &format!("GET {story}"), "").text().contains(said));
    let seen = ask(&gateway, &acme, &format!("GET {story}"), "").text();
    assert!(seen.contains("order-1") && !seen.contains(said), "{seen}");
}

#[test]
fn the_ways_are_behind_a_button_where_it_is_narrow_and_need_no_script() {
    let server = Server::start();
    send_some(&server);
    let browser = Browser::start();
    browser.set_width(360);
    browser.open(&server.url("/"));
    let is_seen = "document.querySelector('#pages').checkVisibility()";
    assert_eq!(browser.evaluate(is_seen), false);
    browser.click("button.menu");
    assert_eq!(browser.evaluate(is_seen), true);
    browser.click_link("Duplicates");
    until("it is there", || browser.url().ends_with("/duplicates").then_some(()));
    for path in [
        "/duplicates",
        "/keys?key=order-1",
        "/upstreams",
        "/sources",
        "/outboxes",
        "/events",
        "/subscriptions",
        "/audit",
    ] {
        browser.open(&server.url(path));
        let width = browser.evaluate("document.documentElement.scrollWidth");
        assert_eq!(width, 360, "{path} scrolls sideways");
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}
