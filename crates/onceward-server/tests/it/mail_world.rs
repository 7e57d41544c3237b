//! A mail server that does as it is told: it speaks enough of SMTP, in the clear, by STARTTLS or with TLS
//! from the first byte, and keeps what it takes.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::guard_tls::Pair;

/// A mail that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// As it came, but for the dots.
    pub(crate) text: String,
    /// Who had logged in.
    pub(crate) login: Option<String>,
    pub(crate) is_safe: bool,
}

impl Taken {
    /// A line of its head.
    pub(crate) fn header(&self, name: &str) -> String {
        let head = self.text.split("\n\n").next().unwrap();
        let line = head.lines().find(|line| line.starts_with(name));
        line.unwrap_or_default().trim_start_matches(name).trim_start_matches(": ").to_owned()
    }
}

/// What it does to one dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It hangs up in the place of answering this command; `CONNECT` for that of greeting.
    Before(&'static str),
    /// It hangs up when it has answered it.
    After(&'static str),
    /// It answers it with this.
    Say(&'static str, &'static str),
    /// It hangs up in the middle of the mail.
    InData,
    /// It has all of the mail, does not take it, and hangs up.
    Lost,
    /// It takes the mail, and hangs up before it says so.
    Taken,
}

/// How it speaks TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Never,
    Start,
    Implicit,
}

/// The server.
#[derive(Clone)]
pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    tls: Tls,
    config: Option<Arc<ServerConfig>>,
}

#[derive(Default)]
struct State {
    taken: Vec<Taken>,
    /// What it answers to the end of a mail, in the place of taking it; nothing: it hangs up.
    next: Vec<Option<&'static str>>,
    /// How often a recipient is put off who begins with "grey".
    grey: u32,
    /// The mails that were not taken.
    refused: Vec<Taken>,
    /// What it does to the next dialogues, one after the other.
    faults: VecDeque<Fault>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl MailServer {
    pub(crate) fn start(tls: Tls, own: Option<&Pair>) -> Self {
        let config = own.map(|own| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let key = PrivateKeyDer::try_from(own.key.clone()).unwrap();
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![own.cert.clone()], key);
            Arc::new(config.unwrap())
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, state: Arc::default(), tls, config };
        let answers = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = answers.clone();
                // A client that goes away is no matter of the server's.
                std::thread::spawn(move || drop(server.answer(stream)));
            }
        });
        server
    }

    /// What it says of the next mails, one after the other.
    pub(crate) fn fail(&self, next: &[Option<&'static str>]) {
        self.state.lock().unwrap().next = next.to_vec();
    }

    /// What it does to the next dialogues, one after the other.
    pub(crate) fn break_off(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    /// Does nothing more to any.
    pub(crate) fn clear(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// How many faults are still to come.
    pub(crate) fn faults(&self) -> usize {
        self.state.lock().unwrap().faults.len()
    }

    /// How often it puts off recipients who begin with "grey".
    pub(crate) fn put_off(&self, times: u32) {
        self.state.lock().unwrap().grey = times;
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.state.lock().unwrap().taken.clone()
    }

    pub(crate) fn refused(&self) -> Vec<Taken> {
        self.state.lock().unwrap().refused.clone()
    }

    fn secured(&self, stream: TcpStream) -> BufReader<Box<dyn Stream>> {
        let connection = ServerConnection::new(self.config.clone().unwrap()).unwrap();
        BufReader::new(Box::new(StreamOwned::new(connection, stream)))
    }

    fn answer(&self, tcp: TcpStream) -> std::io::Result<()> {
        let mut is_safe = self.tls == Tls::Implicit;
        let again = tcp.try_clone()?;
        let mut stream: BufReader<Box<dyn Stream>> = match self.tls {
            Tls::Implicit => self.secured(tcp),
            _ => BufReader::new(Box::new(tcp)),
        };
        let (mut login, mut from, mut to) = (None, String::new(), Vec::new());
        let fault = self.state.lock().unwrap().faults.pop_front();
        if fault == Some(Fault::Before("CONNECT")) {
            return Ok(());
        }
        say(&mut stream, "220 mail.test ESMTP")?;
        if fault == Some(Fault::After("CONNECT")) {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match fault {
                Some(Fault::Before(at)) if at == verb => return Ok(()),
                Some(Fault::Say(at, reply)) if at == verb => {
                    say(&mut stream, reply)?;
                    continue;
                }
                _ => {}
            }
            match verb.as_str() {
                "EHLO" => {
                    let more = if is_safe { "250-AUTH PLAIN LOGIN\r\n" } else { "" };
                    let start =
                        if self.tls == Tls::Start && !is_safe { "250-STARTTLS\r\n" } else { "" };
                    say(&mut stream, &format!("250-mail.test\r\n{start}{more}250 8BITMIME"))?;
                }
                "STARTTLS" => {
                    say(&mut stream, "220 go on")?;
                    stream = self.secured(again.try_clone()?);
                    is_safe = true;
                }
                "AUTH" => {
                    let said = STANDARD.decode(line.split(' ').nth(2).unwrap_or_default());
                    login = Some(String::from_utf8_lossy(&said.unwrap()).replace('\0', "/"));
                    say(&mut stream, "235 welcome")?;
                }
                "MAIL" => {
                    from = address(line);
                    say(&mut stream, "250 ok")?;
                }
                "RCPT" if line.contains("nobody@") => say(&mut stream, "550 no such user")?,
                "RCPT" if line.contains("<grey") && self.is_put_off() => {
                    say(&mut stream, "450 greylisted, come again")?;
                }
                "RCPT" => {
                    to.push(address(line));
                    say(&mut stream, "250 ok")?;
                }
                "DATA" => {
                    say(&mut stream, "354 go on")?;
                    if matches!(fault, Some(Fault::After("DATA") | Fault::InData)) {
                        let mut some = String::new();
                        if fault == Some(Fault::InData) {
                            stream.read_line(&mut some)?;
                        }
                        return Ok(());
                    }
                    let text = data(&mut stream)?;
                    let (from, to) = (from.clone(), std::mem::take(&mut to));
                    let taken = Taken { from, to, text, login: login.clone(), is_safe };
                    if fault == Some(Fault::Lost) {
                        return Ok(());
                    }
                    let answer = self.take(taken);
                    if fault == Some(Fault::Taken) {
                        return Ok(());
                    }
                    match answer {
                        Some(answer) => say(&mut stream, answer)?,
                        None => return Ok(()),
                    }
                }
                "QUIT" => return say(&mut stream, "221 bye"),
                _ => say(&mut stream, "250 ok")?,
            }
            if fault.is_some_and(|it| matches!(it, Fault::After(at) if at == verb)) {
                return Ok(());
            }
        }
    }

    fn is_put_off(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let is_put_off = state.grey > 0;
        state.grey = state.grey.saturating_sub(1);
        is_put_off
    }

    fn take(&self, mail: Taken) -> Option<&'static str> {
        let mut state = self.state.lock().unwrap();
        if state.next.is_empty() {
            state.taken.push(mail);
            return Some("250 2.0.0 Ok: queued as Q1");
        }
        state.refused.push(mail);
        state.next.remove(0)
    }
}

fn say(stream: &mut BufReader<Box<dyn Stream>>, line: &str) -> std::io::Result<()> {
    stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
    stream.get_mut().flush()
}

fn address(line: &str) -> String {
    line.split(['<', '>']).nth(1).unwrap_or_default().to_owned()
}

fn data(stream: &mut BufReader<Box<dyn Stream>>) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line == "." {
            return Ok(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(line));
        text.push('\n');
    }
}
