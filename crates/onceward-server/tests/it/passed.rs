//! Sockets that whoever starts the gateway holds: they are passed from one process to the next, and
//! callers of a restart wait instead of being refused.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::world::{Gateway, Upstream, World, call, route};

/// Passes what it has as its input on as descriptor 3, to whom it becomes, as systemd does.
const PASS: &str = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null";

fn serve_on(world: &World, socket: &TcpListener, listen: SocketAddr) -> Gateway {
    let plain = world.command(&["serve", "--listen", &listen.to_string()]);
    let mut command = Command::new("sh");
    command.args(["-c", PASS]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(world.path("."));
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    world.serve_by(command)
}

#[test]
fn a_gateway_that_is_restarted_on_a_passed_socket_refuses_and_cuts_off_no_caller() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    world.write("onceward.toml", &route("pay", upstream.address));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut gateway = serve_on(&world, &socket, address);
    assert_eq!(gateway.address, address);
    gateway.log.until("by a socket that was passed");
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut calls = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let key = format!("{caller}-{calls}");
                    assert_eq!(status(address, &key), 201, "{key}");
                    answered.fetch_add(1, Ordering::Relaxed);
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        crate::world::until("callers are answered", || {
            (answered.load(Ordering::Relaxed) >= before + 20).then_some(())
        });
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().code(), Some(0));
        // Nobody listens now but the queue.
        drop(TcpStream::connect(address).unwrap());
        gateway = serve_on(&world, &socket, address);
    }
    is_over.store(true, Ordering::Relaxed);
    let calls: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    assert_eq!(upstream.calls(), calls, "each was sent once");
}

/// What a call came to; who is refused or cut off fails.
fn status(address: SocketAddr, key: &str) -> u16 {
    let answer = call(address, "POST", "/to/pay/orders", &[("idempotency-key", key)], "{}");
    answer.unwrap_or_else(|error| panic!("{key}: {error}")).status
}

#[test]
fn a_socket_that_was_passed_for_no_listener_is_told_of() {
    let world = World::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = serve_on(&world, &socket, SocketAddr::from(([127, 0, 0, 1], 0)));
    gateway.log.until("nobody is answered there");
    assert_ne!(gateway.address, socket.local_addr().unwrap());
    assert_eq!(gateway.call("GET", "/readyz", &[], "").status, 200);
}
