//! Traces, as a collector has them: which spans there are, what they say and how they hang together.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use onceward::sql::{Dialect, ddl};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use crate::outbox_tables::sqlite;
use crate::traces_world::{Collector, Hearing, Span, hex, serve};
use crate::world::{World, call, route, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const TRACEPARENT: (&str, &str) =
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");

/// The trace of an operation whose caller named none: its UUID.
fn own_trace(id: &str) -> String {
    let alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
    let digits = id.strip_prefix("op_").unwrap().chars();
    let uuid = digits.fold(0u128, |uuid, digit| uuid << 5 | alphabet.find(digit).unwrap() as u128);
    hex(&uuid.to_be_bytes())
}

/// Trace and span that an upstream was told of.
fn told(traceparent: Option<&str>) -> (String, String, String) {
    let parts: Vec<_> = traceparent.unwrap().split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{traceparent:?}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

#[test]
fn a_held_call_is_one_trace_from_its_caller_through_each_attempt_to_its_upstream() {
    let (world, collector) = (World::new(), Collector::start());
    let upstream = Hearing::answering(&[503, 201]);
    world.write("onceward.toml", &(collector.lines() + &route("shop", upstream.address)));
    let gateway = serve(&world);
    let headers = [TRACEPARENT, ("tracestate", "a=1,b=2"), ("idempotency-key", "order-1")];
    let first = gateway.call("POST", "/to/shop/orders?secret=1", &headers, "{}");
    assert_eq!(first.status, 201);
    let operation = first.header("onceward-operation").unwrap();

    let call = collector.one(SpanKind::Server, "POST /to/shop/{path}");
    assert_eq!((call.trace.as_str(), call.parent.as_str()), (TRACE, CALLER));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("url.path", "/to/shop/orders"),
        ("url.scheme", "http"),
        ("http.route", "/to/shop/{path}"),
        ("http.response.status_code", "201"),
        ("server.address", "127.0.0.1"),
        ("server.port", &gateway.address.port().to_string()),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("idempotency.key", "order-1"),
        ("onceward.operation", operation),
        ("onceward.state", "done"),
    ] {
        assert_eq!(call.says(name), Some(value), "{name}");
    }
    assert!(!call.is_failed && call.links.is_empty() && call.nanos > 0, "{call:?}");

    let remember = collector.one(SpanKind::Internal, "remember shop");
    assert_eq!((remember.trace.as_str(), &remember.parent), (TRACE, &call.id));
    let settled = collector.until(2, |span| span.name == "settle shop");
    assert!(settled.iter().all(|span| span.parent == call.id), "{settled:?}");
    let attempts = collector.until(2, |span| span.kind == SpanKind::Client);
    assert_eq!(attempts.len(), 2);
    let (failed, done) = (&attempts[0], &attempts[1]);
    for (attempt, heard) in attempts.iter().zip(upstream.heard()) {
        assert_eq!((attempt.name.as_str(), attempt.trace.as_str()), ("POST shop", TRACE));
        assert_eq!(attempt.parent, call.id);
        let (trace, span, flags) = told(heard.header("traceparent"));
        assert_eq!((trace.as_str(), &span, flags.as_str()), (TRACE, &attempt.id, "01"));
        assert_eq!(heard.header("tracestate"), Some("a=1,b=2"));
        assert_eq!(
            (heard.header("idempotency-key"), heard.body.as_slice()),
            (Some("order-1"), &b"{}"[..])
        );
        assert_eq!(attempt.says("url.full"), Some(&*format!("http://{}/orders", upstream.address)));
        assert_eq!(attempt.says("server.port"), Some(&*upstream.address.port().to_string()));
        assert_eq!(attempt.says("onceward.reached"), Some("body"));
        assert_eq!(attempt.says("onceward.ending"), Some("answered"));
        for phase in ["send", "head", "body"] {
            let took = attempt.says(&format!("onceward.phase.{phase}")).unwrap();
            assert!(took.parse::<f64>().unwrap() > 0.0, "{phase}: {took} ms");
        }
        let opened = attempt.says("onceward.phase.connect").is_some();
        assert_eq!(attempt.says("onceward.connection.reused"), Some(&*(!opened).to_string()));
        assert_eq!(attempt.says("onceward.phase.tls"), None);
        assert_eq!(attempt.says("idempotency.key"), Some("order-1"));
    }
    assert_eq!((failed.says("error.type"), failed.is_failed), (Some("503"), true));
    assert_eq!(
        (failed.says("onceward.state"), failed.says("http.request.resend_count")),
        (Some("pending"), None)
    );
    assert_eq!((done.says("http.response.status_code"), done.is_failed), (Some("201"), false));
    assert_eq!(
        (done.says("onceward.state"), done.says("http.request.resend_count")),
        (Some("done"), Some("1"))
    );

    // Another trace asks again: it is the same answer, and one link tells whose.
    let other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let again = [("traceparent", other), ("idempotency-key", "order-1")];
    let again = gateway.call("POST", "/to/shop/orders?secret=1", &again, "{}");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let duplicate = &collector.until(1, |span| span.says("onceward.duplicate").is_some())[0];
    assert_eq!(duplicate.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(duplicate.says("onceward.duplicate"), Some("replayed"));
    assert_eq!(duplicate.says("onceward.operation"), Some(operation));
    assert_eq!(duplicate.links, [(TRACE.to_owned(), remember.id)]);
    assert_eq!(upstream.heard().len(), 2);

    // Whoever reads of it finds the trace.
    let shown = gateway.call("GET", &format!("/v1/operations/{operation}"), &[], "").json();
    assert_eq!(shown["trace"], TRACE);
    let line = gateway.log.until("done after retries");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["trace"], &line["key"]), (&json!(TRACE), &json!("order-1")));
    until("the spans are counted", || {
        let metrics = gateway.call("GET", "/metrics", &[], "").text();
        let count =
            format!("onceward_spans_total{{result=\"sent\"}} {}\n", collector.spans().len());
        metrics.contains(&count).then_some(())
    });
}

/// The spans of accepted work, by the time that it is done.
fn delivered(collector: &Collector, name: &str) -> (Span, Span, Vec<Span>) {
    let remember = collector.one(SpanKind::Producer, &format!("remember {name}"));
    let deliver = collector.one(SpanKind::Consumer, &format!("deliver {name}"));
    let attempts = collector.until(2, |span| span.kind == SpanKind::Client);
    for span in attempts.iter().chain([&deliver]) {
        assert_eq!(span.trace, remember.trace, "{span:?}");
    }
    assert_eq!(deliver.parent, remember.id);
    assert!(attempts.iter().all(|attempt| attempt.parent == deliver.id), "{attempts:?}");
    (remember, deliver, attempts)
}

#[test]
fn accepted_work_goes_on_in_its_trace_after_its_process_was_killed() {
    let (world, collector) = (World::new(), Collector::start());
    let upstream = Hearing::answering(&[503]);
    world.write("onceward.toml", &(collector.lines() + &route("shop", upstream.address)));
    for (key, headers) in [("given", &[TRACEPARENT][..]), ("own", &[])] {
        collector.0.forget();
        upstream.set(503);
        let gateway = serve(&world);
        let asked = [headers, &[("idempotency-key", key), ("prefer", "respond-async")]].concat();
        let answer = gateway.call("POST", "/to/shop/orders", &asked, "{}");
        assert_eq!(answer.status, 202);
        let operation = answer.header("onceward-operation").unwrap().to_owned();
        let call = collector.one(SpanKind::Server, "POST /to/shop/{path}");
        collector.until(1, |span| span.kind == SpanKind::Client);
        gateway.kill();

        upstream.set(201);
        let gateway = serve(&world);
        let done = gateway.until_state(key, "done");
        let (remember, deliver, attempts) = delivered(&collector, "shop");
        let trace = if headers.is_empty() { own_trace(&operation) } else { TRACE.to_owned() };
        assert_eq!((&remember.trace, &remember.parent), (&trace, &call.id));
        assert_eq!((&call.trace, call.parent.is_empty()), (&trace, headers.is_empty()));
        assert_eq!(done["trace"], trace);
        assert_eq!(deliver.says("onceward.state"), Some("done"));
        let last = attempts.last().unwrap();
        let made = done["attempts"].as_array().unwrap().len();
        assert_eq!(last.says("http.request.resend_count"), Some(&*(made - 1).to_string()));
        let heard = upstream.heard();
        let (told_trace, told_span, _) = told(heard.last().unwrap().header("traceparent"));
        assert_eq!((told_trace, told_span), (trace, last.id.clone()));
    }
}

#[test]
fn what_was_sent_and_not_answered_says_so_and_so_does_how_its_doubt_ended() {
    let (world, collector) = (World::new(), Collector::start());
    let upstream = Hearing::answering(&[0]);
    let shop = format!(
        "[routes.shop]\nupstream = \"http://{}\"\neffects = \"non-idempotent\"\n",
        upstream.address
    );
    world.write("onceward.toml", &(collector.lines() + &shop));
    let gateway = serve(&world);
    let key = [("idempotency-key", "order-1")];
    let answer = gateway.call("POST", "/to/shop/orders", &key, "{}");
    assert_eq!(answer.header("onceward-state"), Some("in_doubt"));
    let operation = answer.header("onceward-operation").unwrap();
    let call = collector.one(SpanKind::Server, "POST /to/shop/{path}");
    assert_eq!(call.trace, own_trace(operation));
    assert_eq!(
        (call.says("onceward.state"), call.is_failed),
        (Some("in_doubt"), answer.status >= 500)
    );
    let attempt = collector.one(SpanKind::Client, "POST shop");
    assert_eq!((attempt.says("error.type"), attempt.is_failed), (Some("unanswered"), true));
    assert_eq!(
        (attempt.says("onceward.reached"), attempt.says("onceward.state")),
        (Some("sent"), Some("in_doubt"))
    );
    gateway.run(&["resolve", operation, "--as", "done", "--reason", "it is in their books"]).ok();
    let acted = collector.one(SpanKind::Internal, "resolved_done shop");
    assert_eq!((&acted.trace, acted.says("onceward.state")), (&call.trace, Some("done")));
}

#[test]
fn each_way_in_begins_a_trace_and_what_only_passes_has_a_place_in_it() {
    let (world, collector) = (World::new(), Collector::start());
    let upstream = Hearing::answering(&[200]);
    let db = sqlite(&world.path("app.db"));
    db.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    world.write(
        "onceward.toml",
        &format!(
            "{}{}[sources.hooks]\nverify = {{ scheme = \"none\" }}\nto = \"shop\"\nid = {{ header = \"x-id\" }}\n[outbox.app]\ndatabase = \"sqlite:app.db\"\n\
             [alerts.to.oncall]\nslack = \"http://{}/\"\n",
            collector.lines(),
            route("shop", upstream.address),
            upstream.address,
        ),
    );
    let gateway = serve(&world);
    // A webhook.
    let hook = [("x-id", "hook-1"), TRACEPARENT];
    assert_eq!(gateway.call("POST", "/in/hooks", &hook, "{}").status, 200);
    let call = collector.one(SpanKind::Server, "POST /in/hooks");
    let remember = collector.one(SpanKind::Producer, "remember shop");
    assert_eq!((call.trace.as_str(), call.parent.as_str()), (TRACE, CALLER));
    assert_eq!((&remember.parent, remember.says("idempotency.key")), (&call.id, Some("hook-1")));
    assert_eq!(call.says("onceward.operation"), remember.says("onceward.operation"));
    collector.one(SpanKind::Consumer, "deliver shop");
    // A row.
    collector.0.forget();
    let headers = json!({TRACEPARENT.0: TRACEPARENT.1}).to_string();
    db.execute(
        "INSERT INTO onceward_outbox (key, route, headers, body) VALUES ('row-1', 'shop', ?1, x'7b7d')",
        [headers],
    )
    .unwrap();
    gateway.until_state("row-1", "done");
    let remember = collector.one(SpanKind::Producer, "remember shop");
    assert_eq!((remember.trace.as_str(), remember.parent.as_str()), (TRACE, CALLER));
    let deliver = collector.one(SpanKind::Consumer, "deliver shop");
    assert_eq!(deliver.parent, remember.id);
    // A call in one document.
    collector.0.forget();
    let document = json!({"to": "shop", "path": "/orders", "key": "doc-1", "body": {}}).to_string();
    let json = [("content-type", "application/json"), TRACEPARENT];
    assert_eq!(gateway.call("POST", "/v1/operations", &json, &document).status, 200);
    let call = collector.one(SpanKind::Server, "POST /v1/operations");
    let attempt = collector.one(SpanKind::Client, "POST shop");
    assert_eq!(
        (call.parent.as_str(), &attempt.parent, attempt.trace.as_str()),
        (CALLER, &call.id, TRACE)
    );
    // A document whose own headers name another trace: the call is in that, and links to its caller.
    collector.0.forget();
    let other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let document = json!({"to": "shop", "path": "/orders", "key": "doc-2", "body": {}, "headers": {"traceparent": other}});
    assert_eq!(gateway.call("POST", "/v1/operations", &json, &document.to_string()).status, 200);
    let call = collector.one(SpanKind::Server, "POST /v1/operations");
    assert_eq!((call.trace.as_str(), call.parent.as_str()), (&other[3..35], &other[36..52]));
    assert_eq!(call.links, [(TRACE.to_owned(), CALLER.to_owned())]);
    for span in [
        collector.one(SpanKind::Client, "POST shop"),
        collector.one(SpanKind::Internal, "remember shop"),
    ] {
        assert_eq!((&span.trace, &span.parent), (&call.trace, &call.id), "{span:?}");
    }
    // A notice of an alert.
    collector.0.forget();
    gateway.run(&["alerts", "test", "oncall"]).ok();
    let remember = collector.one(SpanKind::Producer, "remember alerts/oncall");
    assert_eq!((remember.parent.as_str(), remember.links.len()), ("", 0));
    collector.one(SpanKind::Consumer, "deliver alerts/oncall");
    // What only reads.
    collector.0.forget();
    let asked = [TRACEPARENT, ("tracestate", "a=1")];
    assert_eq!(gateway.call("GET", "/to/shop/orders", &asked, "").status, 200);
    let call = collector.one(SpanKind::Server, "GET /to/shop/{path}");
    let heard = upstream.heard().pop().unwrap();
    let (trace, span, _) = told(heard.header("traceparent"));
    assert_eq!((trace.as_str(), &span), (TRACE, &call.id));
    assert_eq!((heard.header("tracestate"), call.says("onceward.operation")), (Some("a=1"), None));
    // A page of ours, a probe and a route that nobody has.
    collector.0.forget();
    gateway.call("GET", "/healthz", &[], "");
    assert_eq!(gateway.call("POST", "/to/nowhere/1", &[("idempotency-key", "x")], "").status, 404);
    let unknown = collector.one(SpanKind::Server, "POST /to/{route}/{path}");
    assert_eq!(
        (unknown.says("http.response.status_code"), unknown.is_failed),
        (Some("404"), false)
    );
    assert_eq!(collector.spans().len(), 1, "{:#?}", collector.spans());
}

#[test]
fn a_login_in_an_address_is_told_to_nobody() {
    let (world, collector) = (World::new(), Collector::start());
    let shop = route("shop", Hearing::answering(&[200]).address);
    world.write("onceward.toml", &(collector.lines() + &shop));
    let gateway = serve(&world);
    for (path, name) in [
        ("/to/https://user:canary@host.test/x", "{url}"),
        ("/to/HTTPS:/user:canary@host.test/x", "{url}"),
        ("/to/https%3A%2F%2Fuser%3Acanary%40host.test/x", "{route}"),
    ] {
        collector.0.forget();
        let status = gateway.call("POST", path, &[("idempotency-key", "k")], "{}").status;
        assert!((400..500).contains(&status), "{path}: {status}");
        let span = collector.one(SpanKind::Server, &format!("POST /to/{name}/{{path}}"));
        assert_eq!(span.says("url.path"), Some(&*format!("/to/{name}/{{path}}")));
        assert!(!format!("{span:?}").contains("canary"), "{span:?}");
    }
    collector.0.forget();
    gateway.call("GET", "/to/shop/users/@me", &[], "");
    let span = collector.one(SpanKind::Server, "GET /to/shop/{path}");
    assert_eq!(span.says("url.path"), Some("/to/shop/users/@me"));
}

#[test]
fn strangers_make_no_more_ways_in_than_there_are() {
    let (world, collector) = (World::new(), Collector::start());
    let hooks = "[sources.hooks]\nverify = { scheme = \"none\" }\nid = { header = \"x-id\" }\n";
    let shop = route("shop", Hearing::answering(&[200]).address);
    world.write("onceward.toml", &format!("{}{shop}{hooks}to = \"shop\"\n", collector.lines()));
    let gateway = serve(&world);
    let long = format!("?{}", "x".repeat(9000));
    let (any, hooks) = ("POST /in/{source}", "POST /in/hooks");
    let unknown = ("POST /to/{route}/{path}", 414);
    for (path, (name, status)) in [
        (format!("/in/stranger-1{long}"), (any, 414)),
        ("/in/stranger-2".to_owned(), (any, 404)),
        (format!("/in/hooks{long}"), (any, 414)),
        ("/in/hooks".to_owned(), (hooks, 200)),
        (format!("/to/stranger-3{long}"), unknown),
    ] {
        collector.0.forget();
        assert_eq!(gateway.call("POST", &path, &[], "{}").status, status, "{path}");
        let span = collector.one(SpanKind::Server, name);
        assert_eq!(span.says("http.route"), name.strip_prefix("POST "), "{path}");
    }
}

#[test]
fn a_caller_who_does_not_sample_is_told_of_to_nobody_and_upstreams_learn_that() {
    let (world, collector) = (World::new(), Collector::start());
    let upstream = Hearing::answering(&[201]);
    world.write("onceward.toml", &(collector.lines() + &route("shop", upstream.address)));
    let gateway = serve(&world);
    let unsampled = format!("00-{TRACE}-{CALLER}-00");
    let headers = [("traceparent", unsampled.as_str()), ("idempotency-key", "quiet")];
    let answer = gateway.call("POST", "/to/shop/orders", &headers, "{}");
    assert_eq!(answer.status, 201);
    let heard = upstream.heard().pop().unwrap();
    let (trace, span, flags) = told(heard.header("traceparent"));
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"));
    assert_ne!(span, CALLER, "an attempt is a span, whoever tells of it");
    // What comes later is told of, so the first would have been there by now.
    gateway.call("POST", "/to/shop/orders", &[("idempotency-key", "loud")], "{}");
    collector.one(SpanKind::Server, "POST /to/shop/{path}");
    assert!(collector.spans().iter().all(|span| span.trace != TRACE), "{:#?}", collector.spans());
}

#[test]
fn without_a_collector_the_callers_context_goes_on_as_it_came() {
    let (world, upstream) = (World::new(), Hearing::answering(&[201]));
    world.write("onceward.toml", &route("shop", upstream.address));
    let gateway = world.serve();
    let headers = [TRACEPARENT, ("tracestate", "a=1"), ("idempotency-key", "given")];
    gateway.call("POST", "/to/shop/orders", &headers, "{}");
    gateway.call("POST", "/to/shop/orders", &[("idempotency-key", "none")], "{}");
    let heard = upstream.heard();
    assert_eq!(heard[0].header("traceparent"), Some(TRACEPARENT.1));
    assert_eq!(heard[0].header("tracestate"), Some("a=1"));
    assert_eq!(heard[1].header("traceparent"), None);
    assert_eq!(gateway.until_state("given", "done")["trace"], TRACE);
    assert_eq!(gateway.until_state("none", "done")["trace"], json!(null));
}

#[test]
fn the_page_of_an_operation_leads_to_its_trace() {
    let (world, collector) = (World::new(), Collector::start());
    let upstream = Hearing::answering(&[201]);
    let lines = collector.lines() + "trace_url = \"https://traces.example/trace/{trace}\"\n";
    world.write("onceward.toml", &(lines + &route("shop", upstream.address)));
    let gateway = serve(&world);
    let answer = gateway.call("POST", "/to/shop/o", &[TRACEPARENT, ("idempotency-key", "k")], "{}");
    let place = format!("/operations/{}", answer.header("onceward-operation").unwrap());
    let page = gateway.call("GET", &place, &[], "").text();
    assert!(page.contains(&format!("href=\"https://traces.example/trace/{TRACE}\"")), "{page}");
}

#[test]
fn behind_a_guard_a_call_that_is_done_twice_is_two_traces_and_one_effect() {
    let (world, collector) = (World::new(), Collector::start());
    let upstream = Hearing::answering(&[201]);
    let guard = route("orders", upstream.address) + "host = \"api.example\"\n";
    world.write("onceward.toml", &(collector.lines() + &guard));
    let gateway = serve(&world);
    let headers = [("host", "api.example"), ("idempotency-key", "order-1")];
    for _ in 0..2 {
        let answer = call(gateway.address, "POST", "/orders?a=1", &headers, "{}").unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let calls = collector.until(2, |span| span.kind == SpanKind::Server);
    let (first, again) = (&calls[0], &calls[1]);
    assert_eq!((first.name.as_str(), first.says("http.route")), ("POST orders", None));
    assert_eq!(
        (first.says("onceward.route"), first.says("url.path")),
        (Some("orders"), Some("/orders"))
    );
    assert_eq!(
        (first.says("server.address"), first.says("server.port")),
        (Some("api.example"), None)
    );
    let attempt = collector.one(SpanKind::Client, "POST orders");
    assert_eq!((&attempt.trace, &attempt.parent), (&first.trace, &first.id));
    assert_ne!(again.trace, first.trace);
    assert_eq!(again.says("onceward.duplicate"), Some("replayed"));
    let remember = collector.one(SpanKind::Internal, "remember orders");
    assert_eq!(again.links, [(first.trace.clone(), remember.id)]);
    assert_eq!(upstream.heard().len(), 1);
}
