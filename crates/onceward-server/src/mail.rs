//! Mails, by SMTP (RFC 5321): one dialogue for each, and how far it came.
//!
//! A dialogue has one moment after which nobody knows: from the dot that ends the mail until the
//! server's answer to it. What fails before was not sent; what fails there may have been. A mail keeps
//! its `Message-ID` at each try, so that whoever gets it twice can tell.

use std::error::Error as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Mail as From, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use onceward::core::time::Timestamp;
use onceward::upstream::Sockets;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Url;

/// A whole dialogue takes no longer.
const DIALOGUE_MAX: Duration = Duration::from_secs(20);

/// How long it is tried to reach a server.
const DIAL_MAX: Duration = Duration::from_secs(10);

/// How the way to a server is made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safe {
    /// TLS from the first byte (`smtps`).
    Implicit,
    /// By STARTTLS, and not without.
    StartTls,
    /// Not at all.
    Not,
}

/// A server that takes mails to where they go.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its host and port, as an http URL has them.
    pub(crate) place: Url,
    pub(crate) safe: Safe,
    /// A user's name and password.
    pub(crate) login: Option<(String, String)>,
    /// Authorities beside the machine's.
    pub(crate) ca_file: Option<PathBuf>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("safe", &self.safe).finish_non_exhaustive()
    }
}

/// A mail of plain text.
#[derive(Debug, Clone)]
pub(crate) struct Mail<'a> {
    /// The same each time that it is sent.
    pub(crate) id: &'a str,
    pub(crate) at: Timestamp,
    pub(crate) from: &'a Mailbox,
    pub(crate) to: &'a [Mailbox],
    /// Of these the addresses that do not have it yet; empty: all.
    pub(crate) rest: &'a [String],
    pub(crate) subject: &'a str,
    pub(crate) text: String,
}

/// Who does not have a mail, where the server took it for others.
#[derive(Debug, Default)]
pub(crate) struct Without {
    /// Whom the server refused for good.
    pub(crate) refused: Vec<String>,
    /// Whom it put off (a status of 4xx: RFC 5321, section 4.2.1).
    pub(crate) put_off: Vec<String>,
    /// What it said of one of them.
    pub(crate) why: String,
}

/// Why nobody knows that a mail was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsent {
    /// It was not.
    #[error("{0}")]
    Not(String),
    /// It may have been: all of it was sent, and there is no answer.
    #[error("it may have been taken: {0}")]
    Unknown(String),
}

/// Sends `mail`; tells who does not have it, where the server took it for others.
pub(crate) async fn send(server: &Server, mail: &Mail<'_>) -> Result<Without, Unsent> {
    let message = message(mail).map_err(Unsent::Not)?;
    let mut is_sent = false;
    let dialogue = dialogue(server, mail, &message, &mut is_sent);
    let ended = tokio::time::timeout(DIALOGUE_MAX, dialogue).await;
    let why = match ended {
        Ok(Ok(without)) => return Ok(without),
        Ok(Err(why)) => why,
        Err(_) => Failed { why: "the server took too long".to_owned(), is_answer: false },
    };
    if is_sent && !why.is_answer {
        Err(Unsent::Unknown(why.why))
    } else {
        Err(Unsent::Not(why.why))
    }
}

fn message(mail: &Mail<'_>) -> Result<Vec<u8>, String> {
    let at = Duration::from_micros(mail.at.as_micros().unsigned_abs());
    let id = format!("<{}@{}>", mail.id, mail.from.email.domain());
    let mut message = Message::builder()
        .from(mail.from.clone())
        .subject(mail.subject)
        .message_id(Some(id))
        .date(SystemTime::UNIX_EPOCH + at)
        .header(ContentType::TEXT_PLAIN);
    for to in mail.to {
        message = message.to(to.clone());
    }
    let message = message.body(mail.text.clone());
    message.map(|message| message.formatted()).map_err(|error| error.to_string())
}

/// What broke a dialogue off.
struct Failed {
    why: String,
    /// Whether the server said so.
    is_answer: bool,
}

impl std::convert::From<lettre::transport::smtp::Error> for Failed {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        let is_answer = error.status().is_some();
        let mut why = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let inner_words = inner.to_string();
            if !why.contains(&inner_words) {
                why = format!("{why}: {inner_words}");
            }
            source = inner.source();
        }
        Self { why, is_answer }
    }
}

fn failed(why: impl Into<String>) -> Failed {
    Failed { why: why.into(), is_answer: false }
}

fn answered(why: String) -> Failed {
    Failed { why, is_answer: true }
}

async fn dialogue(
    server: &Server,
    mail: &Mail<'_>,
    message: &[u8],
    is_sent: &mut bool,
) -> Result<Without, Failed> {
    let hello = ClientId::Domain(mail.from.email.domain().to_owned());
    let mut connection = connect(server, &hello).await?;
    if let Some((user, password)) = &server.login {
        let credentials = Credentials::new(user.clone(), password.clone());
        connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
    }
    let mut parameters = Vec::new();
    if connection.server_info().supports_feature(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    connection.command(From::new(Some(mail.from.email.clone()), parameters)).await?;
    let (mut without, mut is_for_any) = (Without::default(), false);
    for to in mail.to {
        let address = to.email.to_string();
        if !mail.rest.is_empty() && !mail.rest.contains(&address) {
            continue;
        }
        let answer = connection.command(Rcpt::new(to.email.clone(), Vec::new())).await;
        let Err(error) = answer else {
            is_for_any = true;
            continue;
        };
        let (is_refused, is_put_off) = (error.is_permanent(), error.is_transient());
        let failed = Failed::from(error);
        if is_refused {
            without.refused.push(address);
        } else if is_put_off {
            without.put_off.push(address);
        } else {
            return Err(failed);
        }
        // What passes is told before what does not.
        if is_put_off || without.put_off.is_empty() {
            without.why = failed.why;
        }
    }
    if !is_for_any {
        // Where none of them is a recipient any more, there is nothing to say.
        let is_asked = !without.refused.is_empty() || !without.put_off.is_empty();
        return if is_asked { Err(answered(without.why)) } else { Ok(without) };
    }
    connection.command(Data).await?;
    *is_sent = true;
    connection.message(message).await?;
    // It was taken, however this ends.
    let _ = connection.quit().await;
    Ok(without)
}

/// A server that has said who it is, over a way that is as safe as it is to be.
async fn connect(server: &Server, hello: &ClientId) -> Result<AsyncSmtpConnection, Failed> {
    let ca_file = server.ca_file.clone();
    let sockets =
        reading(move || Sockets::new(ca_file.as_deref()).map_err(|why| failed(why.to_string())));
    let sockets = sockets.await?;
    let socket =
        sockets.dial(&server.place, DIAL_MAX).await.map_err(|why| failed(why.to_string()))?;
    let stream: Box<dyn AsyncTokioStream> = if server.safe == Safe::Implicit {
        let secured = sockets.secure(&server.place, socket).await;
        Box::new(Secured(secured.map_err(|why| failed(why.to_string()))?))
    } else {
        Box::new(socket)
    };
    let mut connection = AsyncSmtpConnection::connect_with_transport(stream, hello).await?;
    if server.safe == Safe::StartTls {
        let server = server.clone();
        connection.starttls(reading(move || start_tls(&server)).await?, hello).await?;
    }
    Ok(connection)
}

/// What comes of `read`, which reads files and may take its time: whom a machine trusts is many of them.
async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    let read = tokio::task::spawn_blocking(read);
    read.await.unwrap_or_else(|error| Err(failed(error.to_string())))
}

fn start_tls(server: &Server) -> Result<TlsParameters, Failed> {
    let host = server.place.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let mut tls = TlsParameters::builder(host.to_owned());
    if let Some(file) = &server.ca_file {
        let pem =
            std::fs::read(file).map_err(|why| failed(format!("{}: {why}", file.display())))?;
        tls = tls.add_root_certificate(Certificate::from_pem(&pem)?);
    }
    Ok(tls.build()?)
}

/// A stream that spoke TLS from its first byte.
#[derive(Debug)]
struct Secured(TlsStream<TcpStream>);

impl AsyncTokioStream for Secured {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().0.peer_addr()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
