//! What the service manager is told: that it is ready, reads again, waits, and stops; as systemd's own
//! socket would hear it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::Signal;

use crate::world::{Gateway, World};

/// The socket of a manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        Self(socket)
    }

    /// The next message that says `words`, those before it dropped.
    #[track_caller]
    fn until(&self, words: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let length = self.0.recv(&mut bytes).unwrap_or_else(|why| panic!("{words}: {why}"));
            let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if said.lines().any(|line| line.starts_with(words)) {
                return said;
            }
        }
    }

    /// A number that the next message with `name` says.
    #[track_caller]
    fn number(&self, name: &str) -> u64 {
        let said = self.until(&format!("{name}="));
        let value = said.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {said}"))
    }
}

fn serve(world: &World, environment: &[(&str, &str)]) -> Gateway {
    let mut command = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.envs(environment.iter().copied());
    world.serve_by(command)
}

#[test]
fn it_says_when_it_takes_calls_reads_again_and_stops() {
    let world = World::new();
    let path = world.path("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let slow = "[routes.slow]\nupstream = \"http://127.0.0.1:1\"\ntimeout = \"90s\"\n";
    world.write("onceward.toml", slow);
    let gateway = serve(&world, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    manager.until("READY=1");
    assert_eq!(gateway.call("GET", "/readyz", &[], "").status, 200);
    for line in ["demo = true", "nonsense = 1"] {
        world.write("onceward.toml", &format!("{line}\n{slow}"));
        gateway.signal(Signal::HUP);
        let said = manager.until("RELOADING=1");
        assert!(said.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{said}");
        manager.until("READY=1");
    }
    gateway.signal(Signal::TERM);
    let said = manager.until("STOPPING=1");
    let asked = said.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    // A route's attempt may take 90 s, and a manager's own patience with a stop is as long.
    assert!(asked.unwrap().parse::<u64>().unwrap() > 90_000_000, "{said}");
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn life_is_shown_on_an_abstract_socket_as_often_as_it_is_asked_for() {
    let world = World::new();
    let name = format!("onceward-notify-{}", std::process::id());
    let manager = Manager::at(&SocketAddr::from_abstract_name(&name).unwrap());
    let socket = format!("@{name}");
    let gateway = serve(&world, &[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "100000")]);
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    gateway.signal(Signal::TERM);
    manager.until("STOPPING=1");
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn a_start_whose_ledger_is_away_asks_for_time_and_does_not_say_that_it_is_ready() {
    let world = World::new();
    let path = world.path("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let flags = ["serve", "--listen", "127.0.0.1:0", "--store", "postgres://nobody@127.0.0.1:1/n"];
    let mut command = world.command(&flags);
    command.env("NOTIFY_SOCKET", &path);
    let (running, _, log) = crate::world::Running::start(command);
    assert!(manager.number("EXTEND_TIMEOUT_USEC") >= 10_000_000);
    assert!(manager.number("EXTEND_TIMEOUT_USEC") >= 10_000_000);
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code(), Some(0));
    assert!(!log.has("is ready"));
}

#[test]
fn a_socket_that_nobody_has_is_told_of_and_nothing_else_changes() {
    let world = World::new();
    let gateway = serve(&world, &[("NOTIFY_SOCKET", "/nowhere/notify")]);
    gateway.log.until("the service manager was not told");
    assert_eq!(gateway.call("GET", "/readyz", &[], "").status, 200);
}
