//! A mail as a document: who, to whom, about what, and what it says.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::message::header::{
    ContentDisposition, ContentId, ContentTransferEncoding, ContentType, Date, HeaderName,
    HeaderValue,
};
use lettre::message::{Body, Mailbox, MessageBuilder, MultiPart, MultiPartBuilder, SinglePart};
use onceward_core::hex;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::{Mail, RECIPIENTS_MAX, VALUE_BYTES_MAX, add, check_address};
use crate::secret::random;

/// Attachments of one mail, at most.
const ATTACHMENTS_MAX: usize = 32;

/// Lines of the head that a caller may add, at most.
const HEADERS_MAX: usize = 32;

/// Lines of a head that are set here, or by the servers on the way.
const RESERVED: [&str; 15] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "return-path",
    "received",
    "dkim-signature",
    "authentication-results",
    "delivered-to",
];

/// The document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: String,
    #[serde(default)]
    to: Addresses,
    #[serde(default)]
    cc: Addresses,
    #[serde(default)]
    bcc: Addresses,
    #[serde(default)]
    reply_to: Addresses,
    subject: String,
    text: Option<String>,
    html: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    attachments: Vec<Attachment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attachment {
    filename: String,
    content_type: Option<String>,
    /// In base64.
    content: String,
    /// By which its HTML names it (`cid:`): then it is shown in it.
    content_id: Option<String>,
}

/// One address, or a list of them.
#[derive(Default)]
struct Addresses(Vec<String>);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a list of addresses")
            }

            fn visit_str<E>(self, one: &str) -> Result<Addresses, E> {
                Ok(Addresses(vec![one.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Addresses(all))
            }
        }
        from.deserialize_any(OneOrMore)
    }
}

/// Reads a document, and renders it.
pub(super) fn read(body: &[u8]) -> Result<Mail, String> {
    let written: Written = serde_json::from_slice(body).map_err(|error| {
        format!("the body is no mail: {error}; write {{\"from\", \"to\", \"subject\", \"text\"}}")
    })?;
    let from = mailbox(&written.from)?;
    let mut to = Vec::new();
    let mut mail = MessageBuilder::new().from(from.clone());
    let count = written.to.0.len() + written.cc.0.len() + written.bcc.0.len();
    if count > RECIPIENTS_MAX || written.reply_to.0.len() > RECIPIENTS_MAX {
        return Err(format!("it is for {count}, and a mail is for {RECIPIENTS_MAX} at most"));
    }
    for text in &written.to.0 {
        let one = mailbox(text)?;
        add(&mut to, one.email.as_ref());
        mail = mail.to(one);
    }
    for text in &written.cc.0 {
        let one = mailbox(text)?;
        add(&mut to, one.email.as_ref());
        mail = mail.cc(one);
    }
    for text in &written.bcc.0 {
        add(&mut to, mailbox(text)?.email.as_ref());
    }
    for text in &written.reply_to.0 {
        mail = mail.reply_to(mailbox(text)?);
    }
    value("subject", &written.subject)?;
    mail = mail.subject(written.subject.clone());
    if written.headers.len() > HEADERS_MAX {
        return Err(format!("it has more than {HEADERS_MAX} headers"));
    }
    for (name, text) in written.headers {
        mail = mail.raw_header(header(name, text)?);
    }
    let mail = mail.envelope(nobody(&from)?);
    let rendered = match content(written.text, written.html, written.attachments)? {
        Content::Single(part) => mail.singlepart(part),
        Content::Multi(part) => mail.multipart(part),
    };
    let mut rendered = rendered.map_err(|error| error.to_string())?;
    // It gets the time at which it is remembered.
    rendered.headers_mut().remove::<Date>();
    let (from, subject) = (from.email.to_string(), written.subject);
    Ok(Mail { from, to, subject, rule: None, rest: rendered.formatted() })
}

/// The envelope is ours: no builder has to find one.
fn nobody(from: &Mailbox) -> Result<lettre::address::Envelope, String> {
    lettre::address::Envelope::new(None, vec![from.email.clone()])
        .map_err(|error| error.to_string())
}

/// `ada@example.com` or `Ada Lovelace <ada@example.com>`.
fn mailbox(text: &str) -> Result<Mailbox, String> {
    value("address", text)?;
    let (name, address) = match text.trim().strip_suffix('>').and_then(|it| it.rsplit_once('<')) {
        Some((name, address)) => (name.trim(), address),
        None => ("", text.trim()),
    };
    check_address(address)?;
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    let name = quoted
        .map_or_else(|| name.to_owned(), |name| name.replace("\\\"", "\"").replace("\\\\", "\\"));
    let address = address.parse().map_err(|_| format!("{address:?} is no address"))?;
    Ok(Mailbox::new(Some(name).filter(|name| !name.is_empty()), address))
}

/// A value that stands in one line.
fn value(name: &str, text: &str) -> Result<(), String> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(format!("{name} is longer than {VALUE_BYTES_MAX} bytes"));
    }
    if text.contains(char::is_control) {
        return Err(format!("{name} has a line break or another control character"));
    }
    Ok(())
}

fn header(name: String, text: String) -> Result<HeaderValue, String> {
    let lower = name.to_ascii_lowercase();
    let is_name = (1..=76).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_name {
        return Err(format!("{name:?} is no name of a header: letters, digits and -, at most 76"));
    }
    if RESERVED.contains(&&*lower) || lower.starts_with("content-") || lower.starts_with("resent-")
    {
        return Err(format!("the header {name} is not to be set here"));
    }
    value(&name, &text)?;
    let name = HeaderName::new_from_ascii(name).map_err(|error| error.to_string())?;
    Ok(HeaderValue::new(name, text))
}

enum Content {
    Single(SinglePart),
    Multi(MultiPart),
}

/// What it says, by the way that readers of mail choose among (RFC 2046, section 5.1): HTML with what is
/// shown in it, beside plain text, before what is attached.
fn content(
    text: Option<String>,
    html: Option<String>,
    attachments: Vec<Attachment>,
) -> Result<Content, String> {
    if attachments.len() > ATTACHMENTS_MAX {
        return Err(format!("it has more than {ATTACHMENTS_MAX} attachments"));
    }
    let (mut shown, mut attached) = (Vec::new(), Vec::new());
    for attachment in attachments {
        let is_shown = attachment.content_id.is_some() && html.is_some();
        let part = part(attachment)?;
        if is_shown { shown.push(part) } else { attached.push(part) }
    }
    let text = text.map(|text| said("text", &text, ContentType::TEXT_PLAIN)).transpose()?;
    let html = html.map(|html| said("html", &html, ContentType::TEXT_HTML)).transpose()?;
    let html = html.map(|html| wrapped(Content::Single(html), shown, MultiPart::related()));
    let said = match (text, html) {
        (Some(text), Some(html)) => {
            let both = MultiPart::alternative().boundary(boundary()).singlepart(text);
            Content::Multi(match html {
                Content::Single(part) => both.singlepart(part),
                Content::Multi(part) => both.multipart(part),
            })
        }
        (Some(text), None) => Content::Single(text),
        (None, Some(html)) => html,
        (None, None) => return Err("it says nothing: add \"text\" or \"html\"".to_owned()),
    };
    Ok(wrapped(said, attached, MultiPart::mixed()))
}

/// `whole` and `parts` behind it, where there are any.
fn wrapped(whole: Content, parts: Vec<SinglePart>, multi: MultiPartBuilder) -> Content {
    if parts.is_empty() {
        return whole;
    }
    let multi = multi.boundary(boundary());
    let first = match whole {
        Content::Single(part) => multi.singlepart(part),
        Content::Multi(part) => multi.multipart(part),
    };
    Content::Multi(parts.into_iter().fold(first, MultiPart::singlepart))
}

/// What no part can have in it, since nobody can foretell it.
fn boundary() -> String {
    format!("=_{}", hex::encode(&random::<16>()))
}

fn said(name: &str, text: &str, kind: ContentType) -> Result<SinglePart, String> {
    if text.contains(|it: char| it.is_control() && !matches!(it, '\n' | '\r' | '\t')) {
        return Err(format!("{name} has a control character"));
    }
    // A return without a line feed would be half of a line's end.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    Ok(SinglePart::builder().content_type(kind).body(text))
}

fn part(attachment: Attachment) -> Result<SinglePart, String> {
    let Attachment { filename, content_type, content, content_id } = attachment;
    value("attachments.filename", &filename)?;
    let kind = content_type.as_deref().unwrap_or("application/octet-stream");
    value("attachments.content_type", kind)?;
    let kind = ContentType::parse(kind).map_err(|_| format!("{kind:?} is no type of content"))?;
    let content = STANDARD
        .decode(&content)
        .map_err(|error| format!("the content of {filename:?} is no base64: {error}"))?;
    // Bytes that are ASCII by chance are no text.
    let content = Body::new_with_encoding(content, ContentTransferEncoding::Base64)
        .map_err(|_| format!("the content of {filename:?} cannot be encoded"))?;
    let part = SinglePart::builder().content_type(kind);
    let part = match content_id {
        None => part.header(ContentDisposition::attachment(&filename)),
        Some(id) => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
            if id.is_empty() || id.len() > 255 || !id.bytes().all(is_plain) {
                return Err(format!("{id:?} is no content_id: letters, digits and -_.@"));
            }
            part.header(ContentDisposition::inline_with_name(&filename))
                .header(ContentId::from(format!("<{id}>")))
        }
    };
    Ok(part.body(content))
}
