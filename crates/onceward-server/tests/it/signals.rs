//! What a supervisor does to the process: SIGTERM drains, SIGHUP reads the routes again.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::world::{Upstream, World, call, read_head, route, until};

#[test]
fn told_to_stop_it_lets_what_is_under_way_end_and_exits_0() {
    let (world, upstream) = (World::new(), Upstream::answering(None));
    world.write("onceward.toml", &route("pay", upstream.address));
    let gateway = world.serve();
    let address = gateway.address;
    let caller = std::thread::spawn(move || {
        call(address, "POST", "/to/pay/orders", &[("idempotency-key", "held")], "{}").unwrap()
    });
    until("the call is under way", || (upstream.calls() == 1).then_some(()));
    gateway.signal(Signal::TERM);
    gateway.log.until("draining");
    until("nobody else is let in", || {
        call(address, "GET", "/healthz", &[], "").is_err().then_some(())
    });
    upstream.set(201);
    let answer = caller.join().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (201, "done"));
    let log = gateway.log.clone();
    assert_eq!(gateway.ended().code(), Some(0));
    log.until("stopped");
}

#[test]
fn who_is_connected_when_it_is_told_to_stop_is_answered_once_more_and_told_that_it_ends() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    world.write("onceward.toml", &route("pay", upstream.address));
    let gateway = world.serve();
    let post = |line: &mut BufReader<TcpStream>, key: &str| {
        let head = format!(
            "POST /to/pay/orders HTTP/1.1\r\nhost: {}\r\nidempotency-key: {key}\r\ncontent-length: 2\r\n\r\n{{}}",
            gateway.address
        );
        line.get_mut().write_all(head.as_bytes()).unwrap();
        let (first, headers) = read_head(line).unwrap();
        line.read_exact(&mut [0; 4]).unwrap();
        let ends = headers.iter().any(|(name, value)| name == "connection" && value == "close");
        (first.split(' ').nth(1).unwrap().to_owned(), ends)
    };
    let connect = || BufReader::new(TcpStream::connect(gateway.address).unwrap());
    let (mut kept, mut fresh) = (connect(), connect());
    assert_eq!(post(&mut kept, "before"), ("201".to_owned(), false));
    gateway.signal(Signal::TERM);
    until("nobody else is let in", || TcpStream::connect(gateway.address).err());
    for (line, key) in [(&mut kept, "kept"), (&mut fresh, "fresh")] {
        assert_eq!(post(line, key), ("201".to_owned(), true), "{key}");
        assert_eq!(line.read(&mut [0]).unwrap(), 0, "{key}: it ends");
    }
    assert_eq!(gateway.ended().code(), Some(0));
    assert_eq!(upstream.calls(), 3);
}

#[test]
fn what_was_pending_at_the_end_is_delivered_by_the_next_start() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(503)));
    world.write("onceward.toml", &route("pay", upstream.address));
    let gateway = world.serve();
    gateway.run(&["send", "pay/orders", "--key", "waits", "--accepted"]).ok();
    until("it was tried", || (upstream.calls() > 0).then_some(()));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    upstream.set(201);
    let gateway = world.serve();
    gateway.until_state("waits", "done");
}

#[test]
fn told_to_read_again_pending_work_goes_to_the_new_upstream() {
    let (world, old, new) =
        (World::new(), Upstream::answering(Some(503)), Upstream::answering(Some(201)));
    world.write("onceward.toml", &route("pay", old.address));
    let gateway = world.serve();
    gateway.run(&["send", "pay/orders", "--key", "waits", "--accepted"]).ok();
    until("it was tried", || (old.calls() > 0).then_some(()));
    let more = "[egress]\nallow = [\"10.0.0.0/8\"]\n";
    world.write("onceward.toml", &(route("pay", new.address) + more));
    gateway.signal(Signal::HUP);
    gateway.log.until("the routes were read again");
    assert!(gateway.log.has("egress"), "what needs a restart is said");
    gateway.until_state("waits", "done");
    assert_eq!(new.calls(), 1);
}

#[test]
fn a_route_with_unfinished_work_is_not_removed_and_a_wrong_file_changes_nothing() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(503)));
    world.write("onceward.toml", &route("pay", upstream.address));
    let gateway = world.serve();
    gateway.run(&["send", "pay/orders", "--key", "waits", "--accepted"]).ok();
    until("it was tried", || (upstream.calls() > 0).then_some(()));
    world.write("onceward.toml", &route("other", upstream.address));
    gateway.signal(Signal::HUP);
    gateway.log.until("unfinished work");
    world.write("onceward.toml", "nonsense = 1\n");
    gateway.signal(Signal::HUP);
    gateway.log.until("unknown field");
    assert_eq!(gateway.run(&["routes", "--config", "none.toml"]).code, Some(78));
    upstream.set(201);
    gateway.until_state("waits", "done");
    world.write("onceward.toml", &route("other", upstream.address));
    gateway.signal(Signal::HUP);
    gateway.log.until("the routes were read again");
    let names = gateway.run(&["routes"]).ok();
    assert!(names.contains("other") && !names.contains("pay"), "{names}");
}

#[test]
fn a_route_with_an_operation_in_doubt_is_not_removed_before_somebody_has_resolved_it() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(500)));
    world.write(
        "onceward.toml",
        &route("pay", upstream.address).replace("idempotent", "non-idempotent"),
    );
    let gateway = world.serve();
    let lost = gateway.call("POST", "/to/pay/orders", &[("idempotency-key", "lost")], "{}");
    gateway.until_state("lost", "in_doubt");
    world.write("onceward.toml", &route("other", upstream.address));
    gateway.signal(Signal::HUP);
    gateway.log.until("some in doubt");
    let id = lost.header("onceward-operation").unwrap();
    gateway.run(&["resolve", id, "--as", "done", "--reason", "the books say so"]).ok();
    gateway.signal(Signal::HUP);
    gateway.log.until("the routes were read again");
}
