//! One dialogue with a mail server: one mail, and how far it came.
//!
//! A server takes a mail with the dot that ends it, and not before (RFC 5321, section 4.1.1.4). So
//! the dot goes out by itself: until then nothing was sent, whatever breaks; from then on nobody
//! knows, until the server has answered.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward_core::attempt::{self, Reached};
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::time::{Instant, timeout_at};

use super::reply::{self, Reply};
use super::{Login, MailServer, Safe};
use crate::upstream::Target;
use crate::upstream::connect::{ConnectError, Connector, named};
use crate::upstream::progress::Progress;

/// How long a server that took a mail has to take our good-bye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What a dialogue is about.
#[derive(Debug, Clone, Copy)]
pub(in crate::upstream) struct Letter<'a> {
    pub(in crate::upstream) from: &'a str,
    /// Only those that it is for now.
    pub(in crate::upstream) to: &'a [&'a str],
    /// Its bytes, lines ended by CRLF.
    pub(in crate::upstream) message: &'a [u8],
}

/// Where a dialogue stands, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::upstream) enum Phase {
    Connect,
    Greeting,
    Hello,
    StartTls,
    Login,
    From,
    To,
    Data,
    /// The dot that ends the mail is out, or may be.
    End,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Login => "AUTH",
            Self::From => "MAIL FROM",
            Self::To => "RCPT TO",
            Self::Data => "DATA",
            Self::End => "the end of the mail",
        })
    }
}

/// What the server said.
#[derive(Debug)]
pub(in crate::upstream) struct Told {
    /// At which step the dialogue ended.
    pub(in crate::upstream) at: Phase,
    /// The reply that ended it.
    pub(in crate::upstream) reply: Reply,
    /// What it said of each recipient.
    pub(in crate::upstream) recipients: Vec<Reply>,
}

impl Told {
    /// Whether the server took the mail.
    pub(in crate::upstream) fn is_taken(&self) -> bool {
        self.at == Phase::End && self.reply.is_done()
    }
}

/// Why a dialogue broke off without a reply that ends it.
#[derive(Debug)]
pub(in crate::upstream) struct Broken {
    pub(in crate::upstream) at: Phase,
    pub(in crate::upstream) error: String,
    /// Whether trying again cannot help.
    pub(in crate::upstream) is_permanent: bool,
    /// What the server said of each recipient before.
    pub(in crate::upstream) recipients: Vec<Reply>,
}

/// How a step ends that does not lead to the next.
enum Stop {
    Told(Reply),
    Broken(io::Error),
    Lacking(&'static str),
    Connect(ConnectError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<ConnectError> for Stop {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Hands `letter` to the server at `target`; without one only asks whether it is there. Notes how
/// far it came.
pub(in crate::upstream) async fn hand_over(
    connector: &Connector,
    target: &Target,
    server: &MailServer,
    letter: Option<Letter<'_>>,
    progress: &mut Progress,
) -> Result<Told, Broken> {
    let deadline = Instant::now() + target.timeouts.total;
    let mut at = Phase::Connect;
    let mut recipients = Vec::new();
    let ended = async {
        let stream = open(connector, target, server, deadline, progress).await?;
        progress.enter(attempt::Phase::Send);
        let mut dialogue =
            Dialogue { stream: BufReader::new(stream), pause_max: target.timeouts.head, deadline };
        let hello = hello(letter);
        at = Phase::Greeting;
        dialogue.hear().await?.done()?;
        at = Phase::Hello;
        let mut offered = dialogue.say(&format!("EHLO {hello}")).await?.done()?;
        if server.safe == Safe::StartTls {
            at = Phase::StartTls;
            progress.enter(attempt::Phase::Tls);
            dialogue = dialogue.start_tls(&offered, connector, target).await?;
            progress.reached = Reached::Secured;
            progress.enter(attempt::Phase::Send);
            at = Phase::Hello;
            offered = dialogue.say(&format!("EHLO {hello}")).await?.done()?;
        }
        if let Some(login) = &server.login {
            at = Phase::Login;
            dialogue.log_in(&offered, login).await?;
        }
        let Some(letter) = letter else {
            dialogue.leave().await;
            return Ok(offered);
        };
        at = Phase::From;
        let size = letter.message.len();
        let sized = if offers(&offered, "SIZE").is_some() {
            format!(" SIZE={size}")
        } else {
            String::new()
        };
        dialogue.say(&format!("MAIL FROM:<{}>{sized}", letter.from)).await?.done()?;
        at = Phase::To;
        for to in letter.to {
            recipients.push(dialogue.say(&format!("RCPT TO:<{to}>")).await?.shortened());
        }
        if !recipients.iter().any(Reply::is_done) {
            dialogue.leave().await;
            // What passes is told before what does not.
            let told = recipients.iter().find(|reply| reply.is_put_off());
            let told = told.or_else(|| recipients.last());
            return told.cloned().ok_or(Stop::Lacking("the mail is for nobody"));
        }
        at = Phase::Data;
        let go_on = dialogue.say("DATA").await?;
        if go_on.code != 354 {
            return Err(Stop::Told(go_on));
        }
        dialogue.write(&stuffed(letter.message)).await?;
        if let Some(early) = dialogue.early_word().await? {
            return Err(Stop::Told(early));
        }
        (at, progress.reached) = (Phase::End, Reached::Sent);
        progress.enter(attempt::Phase::Head);
        let end = dialogue.say(".").await?;
        progress.enter(attempt::Phase::Body);
        dialogue.leave().await;
        if end.is_done() || end.is_refusal() {
            return Ok(end);
        }
        // A word that no server says there (RFC 5321, section 4.2.1) tells nothing of the mail.
        Err(Stop::Broken(io::Error::other(format!("it said {}", end.code))))
    }
    .await;
    match ended {
        Ok(reply) | Err(Stop::Told(reply)) => Ok(Told { at, reply, recipients }),
        Err(Stop::Broken(error)) => {
            let error = format!("at {at}: {}", words(&error));
            Err(Broken { at, error, is_permanent: false, recipients })
        }
        Err(Stop::Lacking(what)) => {
            Err(Broken { at, error: what.to_owned(), is_permanent: true, recipients })
        }
        Err(Stop::Connect(error)) => {
            let is_permanent = error.is_permanent();
            Err(Broken { at, is_permanent, error: error.to_string(), recipients })
        }
    }
}

/// Who we say that we are: the domain that mails come from, or a literal where none does (RFC 5321,
/// section 4.1.4).
fn hello(letter: Option<Letter<'_>>) -> &str {
    let domain = letter.and_then(|letter| letter.from.rsplit_once('@')).map(|(_, domain)| domain);
    domain.filter(|domain| !domain.is_empty()).unwrap_or("[127.0.0.1]")
}

/// A socket, and TLS on it where it is spoken from the first byte.
async fn open(
    connector: &Connector,
    target: &Target,
    server: &MailServer,
    total: Instant,
    progress: &mut Progress,
) -> Result<Box<dyn Io>, Stop> {
    let deadline = (Instant::now() + target.timeouts.connect).min(total);
    let opened = timeout_at(deadline, async {
        let (socket, _) = connector.dial(target, deadline, progress).await?;
        if server.safe != Safe::Implicit {
            return Ok(Box::new(socket) as Box<dyn Io>);
        }
        progress.enter(attempt::Phase::Tls);
        let secured = connector.secure_for_mail(target, socket).await?;
        progress.reached = Reached::Secured;
        Ok(Box::new(secured) as Box<dyn Io>)
    });
    let late = |_| Err(ConnectError::Timeout(named(target), target.timeouts.connect).into());
    opened.await.unwrap_or_else(late)
}

struct Dialogue {
    stream: BufReader<Box<dyn Io>>,
    /// How long a reply is waited for.
    pause_max: Duration,
    /// When all of it has to be over.
    deadline: Instant,
}

impl Dialogue {
    async fn hear(&mut self) -> Result<Reply, Stop> {
        let due = (Instant::now() + self.pause_max).min(self.deadline);
        Ok(in_time(due, reply::read(&mut self.stream)).await?)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let stream = &mut self.stream;
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        Ok(in_time(self.deadline, written).await?)
    }

    /// One command, and what is said to it.
    async fn say(&mut self, command: &str) -> Result<Reply, Stop> {
        self.write(format!("{command}\r\n").as_bytes()).await?;
        self.hear().await
    }

    /// What the server says without being asked, or that it has hung up.
    async fn early_word(&mut self) -> Result<Option<Reply>, Stop> {
        let stream = &mut self.stream;
        let look = poll_fn(|cx| {
            let looked = Pin::new(&mut *stream).poll_fill_buf(cx);
            Poll::Ready(match looked {
                Poll::Ready(read) => Some(read.map(<[u8]>::is_empty)),
                Poll::Pending => None,
            })
        });
        match look.await {
            None => Ok(None),
            Some(Ok(false)) => self.hear().await.map(Some),
            Some(Ok(true)) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    async fn start_tls(
        mut self,
        offered: &Reply,
        connector: &Connector,
        target: &Target,
    ) -> Result<Self, Stop> {
        if offers(offered, "STARTTLS").is_none() {
            return Err(Stop::Lacking(
                "the mail server offers no STARTTLS, and nothing is sent in the clear",
            ));
        }
        self.say("STARTTLS").await?.done()?;
        // What came before TLS was agreed on may be anybody's.
        if !self.stream.buffer().is_empty() {
            return Err(Stop::Lacking("the mail server goes on in the clear after STARTTLS"));
        }
        let due = (Instant::now() + target.timeouts.connect).min(self.deadline);
        let secured = timeout_at(due, connector.secure_for_mail(target, self.stream.into_inner()));
        let late = |_| Err(ConnectError::Timeout(named(target), target.timeouts.connect));
        let secured = secured.await.unwrap_or_else(late)?;
        Ok(Self { stream: BufReader::new(Box::new(secured)), ..self })
    }

    /// By PLAIN (RFC 4616), or by LOGIN where a server has no other.
    async fn log_in(&mut self, offered: &Reply, login: &Login) -> Result<(), Stop> {
        let ways = offers(offered, "AUTH").unwrap_or_default();
        let has = |way: &str| ways.split_whitespace().any(|it| it.eq_ignore_ascii_case(way));
        let Login { user, password } = login;
        if has("PLAIN") {
            let secret = STANDARD.encode(format!("\0{user}\0{password}"));
            self.say(&format!("AUTH PLAIN {secret}")).await?.done()?;
            return Ok(());
        }
        if !has("LOGIN") {
            return Err(Stop::Lacking("the mail server takes no login by PLAIN or LOGIN"));
        }
        for secret in ["AUTH LOGIN".to_owned(), STANDARD.encode(user)] {
            let asked = self.say(&secret).await?;
            if asked.code != 334 {
                return Err(Stop::Told(asked));
            }
        }
        self.say(&STANDARD.encode(password)).await?.done()?;
        Ok(())
    }

    /// Says good-bye, and does not wait for an answer. What came of the mail is known, however that ends.
    async fn leave(&mut self) {
        self.deadline = self.deadline.min(Instant::now() + GOODBYE_MAX);
        let _ = self.write(b"QUIT\r\n").await;
    }
}

impl Reply {
    /// The reply, where it says that it was done.
    fn done(self) -> Result<Self, Stop> {
        if self.is_done() { Ok(self) } else { Err(Stop::Told(self)) }
    }
}

/// What a server says of an extension that it has (RFC 5321, section 4.1.1.1).
fn offers<'a>(offered: &'a Reply, extension: &str) -> Option<&'a str> {
    // The first line is its name.
    offered.lines().skip(1).find_map(|line| {
        // Some servers write it as before there was a standard.
        let (word, rest) = line.split_once([' ', '=']).unwrap_or((line, ""));
        word.eq_ignore_ascii_case(extension).then_some(rest)
    })
}

async fn in_time<T>(due: Instant, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(due, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the mail server hung up".to_owned(),
        io::ErrorKind::TimedOut => "the mail server took too long".to_owned(),
        _ => error.to_string(),
    }
}

/// The mail as it stands between DATA and the dot: a line that begins with a dot gets another
/// (RFC 5321, section 4.5.2), and the last one an end.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(message.len() + message.len() / 64 + 2);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !stuffed.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_of_a_dot_does_not_end_a_mail() {
        assert_eq!(stuffed(b"a\r\n.\r\n..b\r\n"), b"a\r\n..\r\n...b\r\n");
        assert_eq!(stuffed(b".a"), b"..a\r\n");
        assert_eq!(stuffed(b""), b"\r\n");
    }

    proptest! {
        #[test]
        fn a_mail_comes_out_of_its_dots_as_it_went_in(lines in prop::collection::vec("[.a ]{0,6}", 1..20)) {
            let message = lines.join("\r\n") + "\r\n";
            let sent = String::from_utf8(stuffed(message.as_bytes())).unwrap();
            prop_assert!(!sent.starts_with(".\r\n") && !sent.contains("\r\n.\r\n"));
            let read: Vec<_> =
                sent.lines().map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            prop_assert_eq!(read.join("\r\n") + "\r\n", message);
        }
    }
}
