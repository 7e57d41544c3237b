//! Mails by SMTP (RFC 5321, and RFC 6409 for their submission): an attempt of an operation that is a mail.
//!
//! What its dialogue came to is told in the words of HTTP, so that the one table of statuses decides:
//!
//! - It was taken: 200, with who has it and who was refused.
//! - It was refused for good (a reply of 5xx), all recipients or the mail: 422.
//! - The server takes no login of ours: 401.
//! - The mail, or some recipients, were put off (a reply of 4xx), as by greylisting: 429. The server is well.
//! - The server is not ready, or about to close (421): 503.
//! - The dialogue broke off before the dot that ends the mail: *unsent*; after it: *unanswered*.
//!
//! Who has it is noted by number, so that no later attempt is for them.

pub(super) mod dialogue;
mod reply;

use std::fmt;
use std::str;

use bytes::Bytes;
use onceward_core::attempt::{Ending, Phase as Part, Reached, Timings};
use onceward_core::exchange::{Headers, Request};
use onceward_core::policy::is_safe;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::Instant;

use self::dialogue::{Broken, Letter, Phase, Told, hand_over};
pub use self::reply::Reply;
use super::chaos::Said;
use super::connect::Connector;
use super::progress::Progress;
use super::{Answer, Dispatch, Failure};
use crate::mail::{FROM, MESSAGE_ID, SERVED, TO, check_address, is_whole, numbers, places};
use crate::sabotage::Sabotage;

/// The header of every attempt of an operation; a probe has it not.
const OPERATION: &str = "onceward-operation";

/// How mails are handed over to a server.
#[derive(Clone, PartialEq, Eq)]
pub struct MailServer {
    /// How the way to it is made safe.
    pub safe: Safe,
    /// Who we are to it, where it asks.
    pub login: Option<Login>,
}

/// How the way to a mail server is made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safe {
    /// TLS from the first byte (`smtps`).
    Implicit,
    /// By STARTTLS, and not without.
    StartTls,
    /// Not at all.
    Not,
}

/// A user's name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl fmt::Debug for MailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailServer").field("safe", &self.safe).finish_non_exhaustive()
    }
}

/// What a server said to a mail.
#[derive(Debug)]
pub struct Handed {
    /// Whether it took it, for those whom it took.
    pub is_taken: bool,
    /// The reply that ended the dialogue.
    pub reply: Reply,
    /// What it said of each recipient, as far as it came.
    pub recipients: Vec<Reply>,
}

impl Handed {
    pub(super) fn of(told: Told) -> Self {
        Self { is_taken: told.is_taken(), reply: told.reply, recipients: told.recipients }
    }
}

/// Why no reply ended a dialogue.
#[derive(Debug, Error)]
pub enum SmtpError {
    /// The mail was not sent.
    #[error("{0}")]
    Unsent(String),
    /// It may have been taken: all of it was sent, and there is no reply.
    #[error("it may have been taken: {0}")]
    Unanswered(String),
}

impl SmtpError {
    pub(super) fn of(broken: Broken) -> Self {
        match broken.at {
            Phase::End => Self::Unanswered(broken.error),
            _ => Self::Unsent(broken.error),
        }
    }
}

/// One attempt: a mail is handed over, for those who do not have it yet. Whatever else is asked only
/// looks whether the server is there.
pub(super) async fn attempt(
    connector: &Connector,
    dispatch: &Dispatch,
    server: &MailServer,
) -> Result<Answer, Failure> {
    let Dispatch { target, request, headers, .. } = dispatch;
    let mut progress = Progress::begin(Instant::now());
    progress.turn_to(Part::Resolve);
    let Some(mail) = Mail::of(request, headers) else {
        // A probe only looks; nothing else that is no mail is ever taken for sent.
        if !is_safe(&request.method) || headers.get(OPERATION).is_some() {
            return Err(no_mail());
        }
        let told = hand_over(connector, target, server, None, &mut progress).await;
        let told = told.map_err(|broken| failure(broken, &progress))?;
        let status = if told.reply.is_done() { 200 } else { status_of(&told) };
        let document = json!({"reply": told.reply.text()});
        return Ok(answer(status, None, &[], &document, progress.timings()));
    };
    let to: Vec<&str> = mail.rest().map(|(_, to)| to).collect();
    if to.is_empty() {
        return Ok(mail.answer_of_all());
    }
    // Whom the server would not have is not among those who may have it.
    let say_so = |broken: Broken| {
        let said = mail.rest().zip(&broken.recipients).filter(|(_, reply)| !reply.is_done());
        let left: Vec<_> = said.map(|((place, _), _)| (place + 1).to_string()).collect();
        let is_out = broken.at == Phase::End && !left.is_empty();
        let more = format!("; not for its recipients {}", left.join(", "));
        let error = if is_out { broken.error + &more } else { broken.error };
        Broken { error, ..broken }
    };
    let letter = Letter { from: mail.from, to: &to, message: &request.body };
    let told = hand_over(connector, target, server, Some(letter), &mut progress).await;
    let told = told.map_err(|broken| failure(say_so(broken), &progress))?;
    Ok(mail.answer(&told, progress.timings()))
}

/// What came by another way than a call was rendered by nobody.
fn no_mail() -> Failure {
    Failure {
        ending: Ending::Unsent,
        reached: Reached::Nothing,
        error: "this is no mail, and its route leads to a mail server".to_owned(),
        permanent: true,
        timings: Timings::default(),
    }
}

fn failure(broken: Broken, progress: &Progress) -> Failure {
    let is_out = broken.at == Phase::End && !Sabotage::DotUnsent.is_on();
    Failure {
        ending: if is_out { Ending::Unanswered } else { Ending::Unsent },
        reached: progress.reached,
        error: broken.error,
        permanent: broken.is_permanent,
        timings: progress.timings(),
    }
}

/// A remembered mail.
struct Mail<'a> {
    id: &'a str,
    message_id: &'a str,
    from: &'a str,
    to: Vec<&'a str>,
    /// Who has it, by their place in `to`.
    served: Vec<u16>,
}

impl<'a> Mail<'a> {
    fn of(request: &'a Request, at_send: &'a Headers) -> Option<Self> {
        let text = |name| request.headers.text(name);
        let id = at_send.text(OPERATION)?;
        text("content-type").filter(|kind| is_whole(kind))?;
        // It has the name that only we could give it.
        let own = |name: &&str| {
            name.strip_prefix('<')
                .and_then(|it| it.strip_prefix(id))
                .is_some_and(|it| it.starts_with('@'))
        };
        let message_id = text(MESSAGE_ID).filter(own)?;
        let from = text(FROM).filter(|from| check_address(from).is_ok())?;
        let to = request
            .headers
            .all(TO)
            .map(|to| str::from_utf8(to).ok().filter(|to| check_address(to).is_ok()));
        let to = to.collect::<Option<Vec<_>>>().filter(|to| !to.is_empty())?;
        let served = at_send.text(SERVED).filter(|_| !Sabotage::RecipientsForgotten.is_on());
        Some(Self { id, message_id, from, to, served: served.map(places).unwrap_or_default() })
    }

    /// Those who do not have it, and their places.
    fn rest(&self) -> impl Iterator<Item = (u16, &'a str)> {
        let numbered = (0u16..).zip(self.to.iter().copied());
        numbered.filter(|(place, _)| !self.served.contains(place))
    }

    /// Everybody has it already.
    fn answer_of_all(&self) -> Answer {
        let document = json!({
            "id": self.id, "message_id": self.message_id, "provider_id": null,
            "accepted": self.to, "rejected": [], "reply": null,
        });
        answer(200, None, &self.served, &document, Timings::default())
    }

    fn answer(&self, told: &Told, timings: Timings) -> Answer {
        let is_taken = told.is_taken();
        let said: Vec<_> = self.rest().zip(&told.recipients).collect();
        let mut served = self.served.clone();
        served
            .extend(said.iter().filter(|(_, it)| is_taken && it.is_done()).map(|((at, _), _)| at));
        served.sort_unstable();
        let accepted: Vec<_> =
            served.iter().filter_map(|place| self.to.get(usize::from(*place))).collect();
        let rejected = said.iter().filter(|(_, reply)| !reply.is_done());
        let rejected: Vec<Value> = rejected
            .map(|((_, to), reply)| json!({"to": to, "code": reply.code, "reply": reply.text()}))
            .collect();
        let is_put_off = told.recipients.iter().any(Reply::is_put_off);
        let status = match () {
            // Whoever was put off is to get it too.
            () if is_taken && is_put_off => 429,
            () if is_taken => 200,
            // What is left was refused for good, and others have it.
            () if told.at == Phase::To && !is_put_off && !served.is_empty() => 200,
            () => status_of(told),
        };
        let provider_id = is_taken.then(|| told.reply.provider_id()).flatten();
        let document = json!({
            "id": self.id,
            "message_id": self.message_id,
            "provider_id": provider_id,
            "accepted": accepted,
            "rejected": rejected,
            "reply": told.reply.text(),
        });
        let left: Vec<_> = (0u16..).take(self.to.len()).filter(|at| !served.contains(at)).collect();
        let note = match status {
            200 if left.is_empty() => None,
            200 => {
                let left: Vec<_> = left.iter().map(|at| (at + 1).to_string()).collect();
                let (taken, all) = (served.len(), self.to.len());
                Some(format!(
                    "taken for {taken} of {all}; not for its recipients {}",
                    left.join(", ")
                ))
            }
            _ if is_taken => Some(format!("taken for {} of {}", served.len(), self.to.len())),
            // Its words may name a recipient: they are in its answer, for those who may read that.
            _ => Some(format!("at {}: {}", told.at, told.reply.brief())),
        };
        answer(status, note, &served, &document, timings)
    }
}

/// The status of what the server did not take.
fn status_of(told: &Told) -> u16 {
    // A server that is about to close (421) says nothing of a mail.
    let is_of_mail = told.at >= Phase::From && told.reply.code != 421;
    match (told.reply.is_put_off(), told.at) {
        (true, _) if is_of_mail => 429,
        (false, Phase::Login) => 401,
        (false, Phase::From | Phase::To | Phase::Data | Phase::End) => 422,
        // A server that is not there for anybody is there again later.
        (false, Phase::Connect | Phase::Greeting | Phase::Hello | Phase::StartTls) | (true, _) => {
            503
        }
    }
}

fn answer(
    status: u16,
    note: Option<String>,
    served: &[u16],
    document: &Value,
    timings: Timings,
) -> Answer {
    let mut headers = Headers::default();
    headers.set("content-type", "application/json");
    if !served.is_empty() {
        headers.set(SERVED, numbers(served));
    }
    let body = Bytes::from(document.to_string());
    Answer { status, headers, body: Box::new(Said::after(timings, body)), note }
}
