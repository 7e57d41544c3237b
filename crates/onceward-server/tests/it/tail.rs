//! `onceward tail` at a terminal: the real binary in a real pseudo-terminal, as a person sits before it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::world::{Gateway, World, until};

/// A terminal with a verb in it.
pub(crate) struct Terminal {
    master: File,
    slave: OwnedFd,
    before: Termios,
    child: Child,
    /// Everything that was written to it.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// With `onceward tail`.
    fn start(gateway: &Gateway, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = gateway.command(&[&["tail"], arguments].concat());
        command
            .envs(environment.iter().copied())
            .env("TERM", "xterm-256color")
            .env_remove("DISPLAY");
        command.env_remove("WAYLAND_DISPLAY");
        Self::of(command, false)
    }

    /// With this one; whether its talk is seen there too.
    pub(crate) fn of(mut command: Command, has_talk: bool) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        let before = tcgetattr(&slave).unwrap();
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
        if has_talk {
            command.stderr(slave.try_clone().unwrap());
        }
        let child = command.spawn().unwrap();
        let master = File::from(master);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, to) = (master.try_clone().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                to.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { master, slave, before, child, written }
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// The screen as it is now: the pieces written last to each of its lines.
    fn screen(&self) -> Vec<String> {
        let mut lines = vec![String::new(); 24];
        let mut at = 0;
        for piece in self.written().split("\u{1b}[").skip(1) {
            let Some(end) = piece.find(|letter: char| letter.is_ascii_alphabetic()) else {
                continue;
            };
            let (code, text) = (&piece[..=end], &piece[end + 1..]);
            if let Some(place) = code.strip_suffix('H') {
                at = place.split(';').next().unwrap().parse::<usize>().unwrap() - 1;
                lines[at].clear();
            }
            if code == "2J" {
                lines.iter_mut().for_each(String::clear);
            }
            lines[at] += text;
        }
        lines
    }

    #[track_caller]
    fn until(&self, words: &str) -> String {
        until(&format!("the screen shows {words:?}"), || {
            self.screen().into_iter().find(|line| line.contains(words))
        })
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended; the terminal is as it was, and its own screen is left.
    fn ended(mut self) -> ExitStatus {
        let status = until("it ends", || self.child.try_wait().unwrap());
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes, "echo and lines are back");
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
        until("the screen is left", || self.written().ends_with("\u{1b}[?1049l").then_some(()));
        assert!(self.written().contains("\u{1b}[?25h"), "the cursor is back");
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(gateway: &Gateway, key: &str, script: &str) {
    let headers = [("Idempotency-Key", key), ("Prefer", "respond-async")];
    let answer = gateway.call("POST", &format!("/to/demo/orders?script={script}"), &headers, "{}");
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[test]
fn a_dead_letter_is_found_opened_and_redelivered_from_the_keyboard() {
    let world = World::new();
    let gateway = world.serve();
    send(&gateway, "order-0", "201");
    let mut terminal = Terminal::start(&gateway, &[], &[]);
    terminal.until("✓ done");
    send(&gateway, "order-1", "404,201");
    terminal.until("✗ dead");

    terminal.type_in("j");
    assert!(terminal.until("▸").contains("order-1"));
    send(&gateway, "order-2", "201");
    terminal.until("↑ 1 above");
    assert!(terminal.until("▸").contains("order-1"), "the selection stays with its row");
    terminal.type_in("\r");
    terminal.until("POST /orders?script=404,201 on demo");
    terminal.until("attempt 1");
    terminal.type_in("o");
    terminal.until(&format!("http://{}/operations/op_", gateway.address));

    terminal.type_in("r");
    terminal.until("redeliver order-1, why?");
    terminal.type_in("it was not there yet\r");
    terminal.until("y or n");
    terminal.type_in("y\r");
    terminal.until("redelivered by local: it was not there yet");
    terminal.type_in("\u{1b}");
    until("it is done", || {
        terminal.screen().into_iter().find(|line| line.contains("▸") && line.contains("✓ done"))
    });
    let operation = gateway.until_state("order-1", "done");
    assert_eq!(operation["acts"][0]["reason"], "it was not there yet");
    assert_eq!(gateway.call("GET", "/to/demo/effects", &[], "").json()["count"], 3);

    terminal.type_in("/key:order-2\r");
    until("the others are gone", || {
        let screen = terminal.screen().join("\n");
        (screen.contains("order-2") && !screen.contains("order-1")).then_some(())
    });
    terminal.type_in("q");
    assert_eq!(terminal.ended().code(), Some(0));
}

#[test]
fn a_terminal_is_as_it_was_whatever_ends_it() {
    let world = World::new();
    let gateway = world.serve();
    for end in ["Ctrl-C", "SIGTERM", "SIGHUP"] {
        let mut terminal = Terminal::start(&gateway, &[], &[]);
        terminal.until("Nothing yet.");
        let raw = tcgetattr(&terminal.slave).unwrap();
        assert_ne!(raw.local_modes, terminal.before.local_modes, "keys come one by one");
        match end {
            "SIGTERM" => terminal.signal(Signal::TERM),
            "SIGHUP" => terminal.signal(Signal::HUP),
            _ => terminal.type_in("\u{3}"),
        }
        assert_eq!(terminal.ended().code(), Some(130), "{end}");
    }
}

#[test]
fn a_gateway_that_goes_away_is_waited_for() {
    let world = World::new();
    let gateway = world.serve();
    send(&gateway, "order-1", "201");
    let address = gateway.address.to_string();
    let url = format!("http://{address}");
    let mut terminal = Terminal::start(&gateway, &["--url", &url], &[("NO_COLOR", "1")]);
    terminal.until("✓ done");
    gateway.kill();
    terminal.until("the gateway is away since ");
    let gateway = world.serve_at(&address);
    terminal.until("the gateway is back");
    send(&gateway, "order-2", "201");
    terminal.until("order-2");
    let written = terminal.written();
    let is_coloured = (31..35).any(|code| written.contains(&format!("\u{1b}[{code}m")));
    assert!(!is_coloured, "NO_COLOR is kept to");
    terminal.type_in("q");
    assert_eq!(terminal.ended().code(), Some(0));
}
