//! A mail server of other people's making (aiosmtpd), behind a wire that is cut again and again: what it has in
//! its mailbox in the end is each mail once.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use onceward_proof::chance::Chance;
use onceward_proof::figures::{number, seed, tell};
use serde_json::Value;

use crate::mail::letter;
use crate::world::{Gateway, World, until};

/// The server, and its mailbox.
struct Server {
    process: Child,
    address: SocketAddr,
    mailbox: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(folder: &Path) -> Option<Self> {
        let python = std::env::var_os("TEST_SDKS_PYTHON")?;
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, mailbox) = (held.local_addr().unwrap(), folder.join("mailbox"));
        drop(held);
        let mut command = Command::new(python);
        command.args(["-m", "aiosmtpd", "-n", "-l", &address.to_string()]);
        command.args(["-c", "aiosmtpd.handlers.Mailbox"]).arg(&mailbox);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { process: command.spawn().unwrap(), address, mailbox };
        until("the mail server listens", || TcpStream::connect(address).ok());
        Some(server)
    }

    /// How often it has each mail, by its subject.
    fn mails(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(self.mailbox.join("new")).unwrap() {
            let mail = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let subject = mail.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
            *found.entry(subject.to_owned()).or_insert(0) += 1;
        }
        found
    }
}

/// Where a connection is cut.
#[derive(Clone, Copy)]
enum Cut {
    Nowhere,
    /// After so many bytes to the server.
    There(u64),
    /// After so many bytes from it.
    Back(u64),
    /// In the place of its answer to the mail.
    Answer,
}

/// A wire to the server that is cut.
struct Wire {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    to: SocketAddr,
    chance: Mutex<Chance>,
    is_whole: AtomicBool,
    cuts: AtomicU64,
    /// Dialogues that the server has not ended yet.
    open: AtomicU64,
}

impl Wire {
    fn start(to: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            to,
            chance: Mutex::new(Chance(seed)),
            is_whole: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                shared.carry(caller);
            }
        });
        Self { address, state }
    }

    /// Nothing is on its way, and what the server has by now is what it has.
    fn is_quiet(&self) -> bool {
        self.state.open.load(Ordering::SeqCst) == 0
    }
}

impl State {
    fn cut(&self) -> Cut {
        let mut chance = self.chance.lock().unwrap();
        if self.is_whole.load(Ordering::SeqCst) {
            return Cut::Nowhere;
        }
        match chance.below(6) {
            0 => Cut::Nowhere,
            1 | 2 => Cut::There(chance.below(600)),
            3 | 4 => Cut::Back(chance.below(350)),
            _ => Cut::Answer,
        }
    }

    /// Carries one dialogue, each way on a thread of its own.
    fn carry(self: &Arc<Self>, caller: TcpStream) {
        self.open.fetch_add(1, Ordering::SeqCst);
        let server = TcpStream::connect(self.to).unwrap();
        let ends = (caller.try_clone().unwrap(), server.try_clone().unwrap());
        let (cut, is_whole_mail) = (self.cut(), Arc::new(AtomicBool::new(false)));
        let (there, is_there) = (Arc::clone(self), Arc::clone(&is_whole_mail));
        std::thread::spawn(move || there.carry_there(&ends.0, &ends.1, cut, &is_there));
        let back = Arc::clone(self);
        std::thread::spawn(move || {
            back.carry_back(&caller, &server, cut, &is_whole_mail);
            back.open.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn carry_there(&self, caller: &TcpStream, server: &TcpStream, cut: Cut, is_whole: &AtomicBool) {
        let (mut left, mut tail) =
            (if let Cut::There(left) = cut { left } else { u64::MAX }, vec![]);
        while let Some(mut piece) = read(caller) {
            let is_last = piece.len() as u64 >= left;
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= piece.len() as u64;
            tail.extend_from_slice(&piece);
            tail.drain(..tail.len().saturating_sub(5));
            if tail == b"\r\n.\r\n" {
                is_whole.store(true, Ordering::SeqCst);
            }
            if (&*server).write_all(&piece).is_err() || is_last {
                if is_last {
                    self.is_cut(caller, server);
                }
                break;
            }
        }
        // Both may be gone by now.
        let _ = server.shutdown(Shutdown::Write);
    }

    fn carry_back(&self, caller: &TcpStream, server: &TcpStream, cut: Cut, is_whole: &AtomicBool) {
        let mut left = if let Cut::Back(left) = cut { left } else { u64::MAX };
        let mut is_cut = false;
        // Read to its end even so: a server is not through with a mail before.
        while let Some(mut piece) = read(server) {
            if is_cut {
                continue;
            }
            let is_answer = matches!(cut, Cut::Answer) && is_whole.load(Ordering::SeqCst);
            is_cut = is_answer || piece.len() as u64 >= left;
            if !is_answer {
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                left -= piece.len() as u64;
                // Who has hung up does not hear it.
                let _ = (&*caller).write_all(&piece);
            }
            if is_cut {
                self.is_cut(caller, server);
            }
        }
        let _ = caller.shutdown(Shutdown::Both);
    }

    fn is_cut(&self, caller: &TcpStream, server: &TcpStream) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        // Either may be gone by now.
        let _ = caller.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Write);
    }
}

/// What comes next; nothing at the end, however it came.
fn read(mut from: &TcpStream) -> Option<Vec<u8>> {
    let mut piece = [0; 4096];
    let length = from.read(&mut piece).unwrap_or(0);
    (length > 0).then(|| piece[..length].to_vec())
}

fn asked(gateway: &Gateway, key: &str) -> Value {
    let answer = gateway.call("GET", &format!("/v1/operations?key={key}"), &[], "");
    answer.json()["data"][0].clone()
}

#[test]
fn of_mails_to_a_real_server_over_a_wire_that_is_cut_500_times_each_is_in_its_mailbox_once() {
    let (seed, count) = (seed(), number("TEST_MAIL_FAULTS", 500));
    let world = World::new();
    let Some(server) = Server::start(&world.path("")) else { return };
    tell(&format!("TEST_SEED={seed} TEST_MAIL_FAULTS={count}"));
    let wire = Wire::start(server.address, seed);
    let route = format!(
        "[routes.mail]\nupstream = \"smtp://{}\"\nmode = \"accepted\"\nbreaker = false\nbudget = false\n\
         retry = {{ attempts_max = 1000, base = \"20ms\", floor = \"1ms\", cap = \"50ms\" }}\n",
        wire.address
    );
    world.write("onceward.toml", &route);
    let gateway = world.serve();
    let mut keys = Vec::new();
    while wire.state.cuts.load(Ordering::SeqCst) < count {
        let key = format!("k-{}", keys.len());
        let taken = gateway.call(
            "POST",
            "/to/mail",
            &[("idempotency-key", &key), ("content-type", "application/json")],
            &letter(&["ada@example.com"], &key),
        );
        assert_eq!(taken.status, 202, "{taken:?}");
        keys.push(key);
    }
    wire.state.is_whole.store(true, Ordering::SeqCst);
    let at_rest = |key: &str| {
        until(&format!("{key} is at rest"), || {
            let found = asked(&gateway, key);
            matches!(found["state"].as_str(), Some("done" | "in_doubt" | "dead")).then_some(found)
        })
    };
    let mut doubts = 0;
    for key in &keys {
        let rested = at_rest(key);
        if rested["state"] == "in_doubt" {
            doubts += 1;
            until("the server has ended its dialogues", || wire.is_quiet().then_some(()));
            let said = if server.mails().contains_key(key) { "done" } else { "not-sent" };
            let id = rested["id"].as_str().unwrap();
            gateway.run(&["resolve", id, "--as", said, "--reason", "its mailbox"]).ok();
        }
        let ended = until(&format!("{key} has ended"), || {
            let found = asked(&gateway, key);
            matches!(found["state"].as_str(), Some("done" | "dead")).then_some(found)
        });
        assert_eq!(ended["state"], "done", "{ended}");
    }
    let mails = server.mails();
    assert_eq!(mails.len(), keys.len(), "none is lost");
    assert!(mails.values().all(|count| *count == 1), "none is doubled: {mails:?}");
    assert!(doubts > count / 20, "too tame: {doubts} doubts");
    tell(&format!(
        "{count} cuts, {} mails, {doubts} in doubt, each in the mailbox once",
        keys.len()
    ));
}
