//! What SDKs meet: a provider that keeps keys as Stripe does, a wire that loses an answer, and the
//! SDKs themselves, as their makers ship them.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::world::{read_head, until};

/// A language that the SDKs are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
}

/// A program that answers each line with one.
pub(crate) struct Script {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Script {
    /// Starts `python` or `node`, whichever `language` is; nothing where its SDKs could not be had,
    /// which the run of the tests has said.
    pub(crate) fn start(language: Language, python: &str, node: &str) -> Option<Self> {
        let mut command = match language {
            Language::Python => {
                let mut command = Command::new(std::env::var_os("TEST_SDKS_PYTHON")?);
                command.args(["-c", python]);
                command
            }
            Language::Node => {
                let mut command = Command::new("node");
                command.current_dir(std::env::var_os("TEST_SDKS_NODE")?);
                command.args(["--input-type=module", "--eval", node]);
                command
            }
        };
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Some(Self { process, to, from: BufReader::new(from) })
    }

    /// What it says to `asked`.
    pub(crate) fn ask(&mut self, asked: &Value) -> Value {
        writeln!(self.to, "{asked}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

/// A provider that keeps keys as Stripe does: what a key was first answered, it is answered always.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    /// What was answered, by key.
    kept: HashMap<String, (u16, Value)>,
    /// Every request: its key, and whether it was executed.
    requests: Vec<(String, bool)>,
    /// Whether answers wait.
    is_slow: bool,
}

/// An amount that the provider executes without an answer, the first time.
pub(crate) const LOST: u32 = 666;

/// What becomes of an amount.
fn judged(amount: u32, n: usize) -> (u16, Value) {
    let error = |kind: &str, code: &str| json!({"error": {"type": kind, "code": code, "message": "as Stripe says it"}});
    match amount {
        400 => (400, error("invalid_request_error", "parameter_invalid_integer")),
        401 => (401, error("invalid_request_error", "api_key_expired")),
        402 => (402, error("card_error", "card_declined")),
        403 => (403, error("invalid_request_error", "account_invalid")),
        _ => (200, json!({"id": format!("pi_{n}"), "object": "payment_intent", "amount": amount})),
    }
}

impl Provider {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Self { address: listener.local_addr().unwrap(), books: Arc::default() };
        let answering = provider.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let provider = answering.clone();
                // A caller that goes away is no matter of the provider's.
                std::thread::spawn(move || drop(provider.answer(stream)));
            }
        });
        provider
    }

    /// Every request so far: its key, and whether it was executed.
    pub(crate) fn requests(&self) -> Vec<(String, bool)> {
        self.books.lock().unwrap().requests.clone()
    }

    /// Answers wait as long as this holds.
    pub(crate) fn be_slow(&self, is_slow: bool) {
        self.books.lock().unwrap().is_slow = is_slow;
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (_, headers) = read_head(&mut reader)?;
        let headers: HashMap<_, _> = headers.into_iter().collect();
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let form: HashMap<_, _> = url::form_urlencoded::parse(&body).into_owned().collect();
        let amount = form.get("amount").and_then(|amount| amount.parse().ok()).unwrap_or(0);
        let key = headers.get("idempotency-key").cloned().unwrap_or_default();
        let (status, document) = {
            let mut books = self.books.lock().unwrap();
            let known = books.kept.get(&key).cloned().filter(|_| !key.is_empty());
            books.requests.push((key.clone(), known.is_none()));
            let is_lost = amount == LOST && known.is_none();
            let answer = known.unwrap_or_else(|| judged(amount, books.requests.len()));
            books.kept.insert(key, answer.clone());
            if is_lost {
                return Ok(());
            }
            answer
        };
        until("answers do not wait", || (!self.books.lock().unwrap().is_slow).then_some(()));
        let document = document.to_string();
        let length = document.len();
        let answer = format!(
            "HTTP/1.1 {status} As Judged\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{document}"
        );
        reader.into_inner().write_all(answer.as_bytes())
    }
}

/// A wire to `to` that takes every call there, and loses the answer to the first.
pub(crate) fn losing_the_first_answer(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let calls = Arc::clone(&calls);
            std::thread::spawn(move || drop(carry(near, to, &calls)));
        }
    });
    address
}

fn carry(mut near: TcpStream, to: SocketAddr, calls: &AtomicUsize) -> std::io::Result<()> {
    let mut far = TcpStream::connect(to)?;
    let (mut from_near, mut to_far) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from_near, &mut to_far));
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = far.read(&mut piece)?;
        if length == 0 || calls.fetch_add(1, Ordering::Relaxed) == 0 {
            return near.shutdown(std::net::Shutdown::Both);
        }
        near.write_all(&piece[..length])?;
    }
}
