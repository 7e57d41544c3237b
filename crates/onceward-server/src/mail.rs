//! Mails of our own, to people who are told of alerts. A mail keeps its `Message-ID` at each try, so that
//! whoever gets it twice can tell.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use onceward::core::time::Timestamp;
use onceward::upstream::{Handed, MailServer, SmtpError, Sockets, Target, Timeouts};
use url::Url;

/// A whole dialogue takes no longer.
const DIALOGUE_MAX: Duration = Duration::from_secs(20);

/// How long it is tried to reach a server.
const DIAL_MAX: Duration = Duration::from_secs(10);

/// A server that takes mails to where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its host and port, as an http URL has them.
    pub(crate) place: Url,
    pub(crate) by: MailServer,
    /// Authorities beside the machine's.
    pub(crate) ca_file: Option<PathBuf>,
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

/// Sends `mail`; tells who does not have it, where the server took it for others.
pub(crate) async fn send(server: &Server, mail: &Mail<'_>) -> Result<Without, SmtpError> {
    let message = message(mail).map_err(SmtpError::Unsent)?;
    let is_wanted = |to: &&Mailbox| {
        let address: &str = to.email.as_ref();
        mail.rest.is_empty() || mail.rest.iter().any(|rest| rest == address)
    };
    let to: Vec<&str> = mail.to.iter().filter(is_wanted).map(|to| to.email.as_ref()).collect();
    // Where none of them is a recipient any more, there is nothing to say.
    if to.is_empty() {
        return Ok(Without::default());
    }
    let timeouts =
        Timeouts { connect: DIAL_MAX, head: DIALOGUE_MAX, body: DIALOGUE_MAX, total: DIALOGUE_MAX };
    let target = Target::of_operator(server.place.clone(), timeouts);
    let envelope = (mail.from.email.as_ref(), &*to);
    let sockets = sockets(server).await.map_err(SmtpError::Unsent)?;
    let handed = sockets.hand_over(&target, &server.by, envelope, &message).await?;
    without(&to, handed)
}

fn without(to: &[&str], handed: Handed) -> Result<Without, SmtpError> {
    let Handed { is_taken, reply, recipients } = handed;
    if !is_taken {
        return Err(SmtpError::Unsent(reply.text()));
    }
    let mut without = Without::default();
    for (to, reply) in to.iter().zip(recipients) {
        match reply.code / 100 {
            2 => continue,
            4 => without.put_off.push((*to).to_owned()),
            _ => without.refused.push((*to).to_owned()),
        }
        // What passes is told before what does not.
        if reply.code / 100 == 4 || without.put_off.is_empty() {
            without.why = reply.text();
        }
    }
    Ok(without)
}

/// Whom a machine trusts is many files, which take their time.
async fn sockets(server: &Server) -> Result<Sockets, String> {
    let ca_file = server.ca_file.clone();
    let read = tokio::task::spawn_blocking(move || {
        Sockets::new(ca_file.as_deref()).map_err(|why| why.to_string())
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
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
