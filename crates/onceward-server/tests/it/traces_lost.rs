//! A collector that is away, or takes a span and never says so: spans are lost, and calls are not.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::net::{SocketAddr, TcpListener};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustix::process::Signal;

use crate::traces_world::{Collector, Hearing};
use crate::world::{Gateway, Upstream, World, route, until};

fn serving(world: &World, collector: SocketAddr, upstream: &Upstream) -> Gateway {
    let telemetry = format!("[telemetry]\ntraces = \"http://{collector}\"\nsampling = 1\n");
    world.write("onceward.toml", &(telemetry + &route("shop", upstream.address)));
    // A short queue, so that it is soon full.
    world.serve_in(&[("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_BSP_MAX_QUEUE_SIZE", "16")])
}

fn call_many(gateway: &Gateway, from: usize) {
    for number in from..from + 20 {
        let key = format!("order-{number}");
        let answer = gateway.call("POST", "/to/shop/orders", &[("idempotency-key", &key)], "{}");
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

/// The value of a metric without other labels.
fn spans(gateway: &Gateway, result: &str) -> u64 {
    let metrics = gateway.call("GET", "/metrics", &[], "").text();
    let name = format!("onceward_spans_total{{result=\"{result}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_collector_that_is_away_loses_spans_and_no_call_and_is_told_again_once_it_is_there() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let gateway = serving(&world, address, &upstream);
    call_many(&gateway, 0);
    let said = gateway.log.until("spans of traces are lost");
    assert!(said.contains(&address.to_string()), "{said}");
    until("they are counted", || (spans(&gateway, "lost") >= 80).then_some(()));
    assert_eq!(spans(&gateway, "sent"), 0);
    let collector = Collector(Hearing::at(address, &[200]));
    call_many(&gateway, 20);
    gateway.log.until("spans of traces are taken again");
    collector.until(1, |span| span.kind == SpanKind::Server);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
}

#[test]
fn a_collector_that_never_answers_holds_up_neither_calls_nor_the_end() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    // It takes connections, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = serving(&world, silent.local_addr().unwrap(), &upstream);
    call_many(&gateway, 0);
    until("the queue is full", || (spans(&gateway, "lost") > 0).then_some(()));
    call_many(&gateway, 20);
    gateway.signal(Signal::TERM);
    gateway.log.until("the last spans of traces are lost");
    assert!(gateway.ended().success());
}

#[test]
fn the_last_spans_are_sent_before_the_process_ends() {
    let (world, collector) = (World::new(), Collector::start());
    let upstream = Upstream::answering(Some(201));
    world.write("onceward.toml", &(collector.lines() + &route("shop", upstream.address)));
    // Nothing would be sent for an hour.
    let gateway = world.serve_in(&[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    gateway.call("POST", "/to/shop/orders", &[("idempotency-key", "a")], "{}");
    assert!(collector.spans().is_empty());
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    collector.one(SpanKind::Server, "POST /to/shop/{path}");
    collector.one(SpanKind::Client, "POST shop");
}

#[test]
fn a_collector_of_the_environment_is_told_with_its_credentials_and_a_wrong_one_is_refused() {
    let (world, collector) = (World::new(), Collector::start());
    let base = format!("http://{}", collector.0.address);
    let gateway = world.serve_in(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &base),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=secret%20one"),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]);
    gateway.call("POST", "/to/demo/orders", &[("idempotency-key", "a")], "{}");
    collector.one(SpanKind::Server, "POST /to/demo/{path}");
    assert_eq!(collector.0.heard()[0].header("x-api-key"), Some("secret one"));
    let mut wrong = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    wrong.env("OTEL_EXPORTER_OTLP_ENDPOINT", &base).env("OTEL_TRACES_SAMPLER", "sometimes");
    let output = wrong.output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("OTEL_TRACES_SAMPLER"), "{said}");
}
