//! A mail: what a caller posts on a route to a mail server, and what is remembered of it.
//!
//! It is rendered once, when it is received; when it is remembered it gets its `Message-ID`, made of the
//! operation's id, and its `Date`. What is in the ledger is the mail as every attempt sends it, byte for
//! byte, with its envelope beside it as header lines of the request. A mail as it is posted has no line
//! of a head but what is set here: no value with a line break is taken.

mod raw;
mod renderer;
mod rule;
mod written;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lettre::message::header::{Date, Headers as Head, MessageId};
use onceward_core::exchange::{Headers, Request};
use onceward_core::fingerprint::{
    BodyRule, Fingerprint, FingerprintRule, FingerprintSecret, canonical_json,
};
use onceward_core::id::OperationId;
use onceward_core::policy::Policy;
use onceward_core::time::Timestamp;

pub(crate) use self::renderer::Renderer;
use crate::refusal::Refusal;

/// Of a remembered mail: who it is from, as the server is told.
pub(crate) const FROM: &str = "mail-from";

/// The same: whom it is for, a line for each, those that no reader sees (`bcc`) too.
pub(crate) const TO: &str = "rcpt-to";

/// The same: the name that it has for good.
pub(crate) const MESSAGE_ID: &str = "message-id";

/// What the ledger calls that among what an operation is found by.
pub(crate) const MESSAGE_ID_OF: &str = "message_id";

/// Who has it, by their place among [`TO`]: told to an attempt, and by its answer.
pub(crate) const SERVED: &str = "onceward-served";

/// Of a remembered mail: the rule by which what was posted is the same, where its route said one. That is not
/// kept, and a route may come to say something else.
const RULE: &str = "onceward-rule";

/// What a mail is called that is whole already, as a type of bodies.
const RAW: &str = "message/rfc822";

/// Recipients of one mail, at most: what every server takes (RFC 5321, section 4.5.3.1.8).
pub const RECIPIENTS_MAX: usize = 100;

/// The longest address, in bytes (RFC 5321, section 4.5.3.1.3).
const ADDRESS_BYTES_MAX: usize = 254;

/// The longest value of a line of a mail's head, in bytes: with its name it fits a line of 998 (RFC
/// 5322, section 2.1.1).
const VALUE_BYTES_MAX: usize = 900;

/// The longest line of a mail, in bytes, without its end.
const LINE_BYTES_MAX: usize = 998;

/// Recipients that an operation is found by, at most, and the longest text that it is.
const FOUND_BY_MAX: usize = 16;
const FOUND_BYTES_MAX: usize = 255;

/// A mail that was received, rendered but for its id and its time.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Who it is from: a bare address.
    pub from: String,
    /// Whom it is for: bare addresses, each once.
    pub to: Vec<String>,
    /// What it is about.
    pub subject: String,
    /// By which rule it is the same as another, where its route says one.
    rule: Option<String>,
    /// All of it but `Message-ID` and `Date`, which go before it.
    rest: Vec<u8>,
}

impl Mail {
    /// Reads the mail in `request`: a document, or a mail that is whole already.
    pub(crate) fn read(
        request: &Request,
        bytes_max: usize,
        rule: &FingerprintRule,
    ) -> Result<Self, Refusal> {
        if request.method != "POST" {
            return Err(Refusal::MailInvalid("a mail is sent by POST".to_owned()));
        }
        let kind = request.headers.text("content-type").unwrap_or_default();
        let mail = if is_whole(kind) { raw::read(request) } else { written::read(&request.body) };
        let mut mail = mail.map_err(Refusal::MailInvalid)?;
        mail.check().map_err(Refusal::MailInvalid)?;
        mail.rule = rule::written(rule);
        // Base64 takes a third more, and is the most that becomes of a body.
        if mail.rest.len() > bytes_max.saturating_add(bytes_max / 2) {
            return Err(Refusal::BodyTooLarge { bytes_max });
        }
        Ok(mail)
    }

    /// How large it is, in bytes, as it is sent.
    pub fn bytes(&self) -> usize {
        self.rest.len()
    }

    /// What it is called for good.
    pub(crate) fn message_id(&self, id: OperationId) -> String {
        format!("<{id}@{}>", domain_of(&self.from))
    }

    /// The request that is remembered of it.
    pub(crate) fn remembered(&self, request: &Request, id: OperationId, now: Timestamp) -> Request {
        let line = |name: &str, value: &str| (name.to_owned(), Bytes::from(value.to_owned()));
        let mut headers = vec![
            line("content-type", RAW),
            line(MESSAGE_ID, &self.message_id(id)),
            line(FROM, &self.from),
        ];
        headers.extend(self.rule.iter().map(|rule| line(RULE, rule)));
        headers.extend(self.to.iter().map(|to| line(TO, to)));
        let mut head = Head::new();
        head.set(MessageId::from(self.message_id(id)));
        // What the clock says before 1970 is no time of a mail.
        let at = Duration::from_secs(now.as_millis() / 1000);
        head.set(Date::new(SystemTime::UNIX_EPOCH + at));
        let mut body = head.to_string().into_bytes();
        body.extend_from_slice(&self.rest);
        Request {
            method: request.method.clone(),
            target: request.target.clone(),
            headers: Headers(headers),
            body: body.into(),
        }
    }

    /// What its operation is found by, and what lies in the ledger in the clear for that: what it is called,
    /// and, where people see all of it, whom it is for and what it is about.
    pub(crate) fn ids(&self, id: OperationId, policy: &Policy) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut ids = vec![pair(MESSAGE_ID_OF, &self.message_id(id))];
        if policy.redact.is_empty() {
            ids.extend(self.to.iter().take(FOUND_BY_MAX).map(|to| pair("to", to)));
            ids.push(pair("subject", &self.subject));
        }
        // What it is called is what it is known for a mail by, however long its domain is.
        let is_kept = |(name, value): &(String, String)| {
            name == MESSAGE_ID_OF || (1..=FOUND_BYTES_MAX).contains(&value.len())
        };
        ids.retain(is_kept);
        ids
    }

    /// What holds of every mail, whatever it was made of: whoever reads it sees the lines that were
    /// written, and no server takes a part of it for the end of it, or for another mail.
    fn check(&self) -> Result<(), String> {
        if self.to.is_empty() {
            return Err("it is for nobody: add \"to\"".to_owned());
        }
        if self.to.len() > RECIPIENTS_MAX {
            return Err(format!(
                "it is for {}, and a mail is for {RECIPIENTS_MAX} at most",
                self.to.len()
            ));
        }
        let mut lines = self.rest.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            let line = match (line.strip_suffix(b"\r"), lines.peek()) {
                (Some(line), Some(_)) => line,
                (None, None) => line,
                (None, Some(_)) | (Some(_), None) => {
                    return Err("it has a line that does not end with CRLF".to_owned());
                }
            };
            let is_plain = |byte: &u8| byte.is_ascii() && !matches!(byte, b'\r' | 0);
            if line.len() > LINE_BYTES_MAX || !line.iter().all(is_plain) {
                return Err(format!(
                    "it has a line of more than {LINE_BYTES_MAX} bytes, or one that is not 7-bit"
                ));
            }
        }
        Ok(())
    }
}

/// Whether `text` is an address that stands in a command as it is.
pub(crate) fn check_address(text: &str) -> Result<(), String> {
    let is_plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\');
    let is_address = text.len() <= ADDRESS_BYTES_MAX
        && text.bytes().all(is_plain)
        && text.parse::<lettre::Address>().is_ok();
    if is_address {
        return Ok(());
    }
    Err(format!(
        "{text:?} is no address: write \"ada@example.com\" or \"Ada <ada@example.com>\", a domain of other letters as xn--…"
    ))
}

fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("localhost", |(_, domain)| domain)
}

/// Adds an address that is not there yet: nobody gets a mail twice. Domains have no case (RFC 5321,
/// section 2.4).
fn add(to: &mut Vec<String>, address: &str) {
    let address = match address.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
        None => address.to_owned(),
    };
    if !to.contains(&address) {
        to.push(address);
    }
}

/// What counts of a mail as "the same request" is what its document says, not how it is spelt: the document
/// is not kept, so there is nothing to compare it with later. One that has no canonical form counts as
/// it is.
fn counted<'a>(request: &'a Request, rule: &FingerprintRule) -> Cow<'a, Request> {
    let is_whole = request.headers.text("content-type").is_some_and(is_whole);
    let said = match rule.body {
        BodyRule::Auto if !is_whole => canonical_json(&request.body, &rule.ignore),
        _ => None,
    };
    match said {
        Some(said) => Cow::Owned(Request { body: said.into(), ..request.clone() }),
        None => Cow::Borrowed(request),
    }
}

/// The fingerprint of what is posted.
pub(crate) fn fingerprint(
    request: &Request,
    rule: &FingerprintRule,
    secret: &FingerprintSecret,
) -> Fingerprint {
    Fingerprint::of(&counted(request, rule), rule, secret)
}

/// The same under the rule by which `remembered` was first asked for; nothing where that cannot be read.
pub(crate) fn fingerprint_of_then(
    request: &Request,
    remembered: &Request,
    secret: &FingerprintSecret,
) -> Option<Fingerprint> {
    let rule = rule::read(remembered.headers.text(RULE))?;
    Some(fingerprint(request, &rule, secret))
}

/// Whether this is the type of a mail that is whole already.
pub(crate) fn is_whole(kind: &str) -> bool {
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(RAW)
}

/// Places as a text.
pub(crate) fn numbers(places: &[u16]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The places in such a text.
pub(crate) fn places(text: &str) -> Vec<u16> {
    text.split(',').filter_map(|place| place.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
