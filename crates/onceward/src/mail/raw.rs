//! A mail that is whole already (`message/rfc822`), as other software made it, or as it was remembered
//! before. Its envelope stands in the header lines of its request.

use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward_core::exchange::Request;

use super::{FROM, Mail, TO, add, check_address};

/// Lines that are ours to set, and those that no reader is to see.
const LEFT_OUT: [&str; 5] = ["message-id", "date", "bcc", "resent-bcc", "return-path"];

/// Reads it. What it is called and its time give way to ours: it is another mail than the one that had
/// them.
pub(super) fn read(request: &Request) -> Result<Mail, String> {
    let text = |name: &str| request.headers.text(name).unwrap_or_default().trim().to_owned();
    let from = text(FROM);
    check_address(&from).map_err(|why| format!("{FROM}: {why}"))?;
    let mut to = Vec::new();
    for address in request.headers.all(TO) {
        let address = str::from_utf8(address).unwrap_or_default().trim();
        check_address(address).map_err(|why| format!("{TO}: {why}"))?;
        add(&mut to, address);
    }
    let whole = str::from_utf8(&request.body).map_err(|_| "it is not 7-bit".to_owned())?;
    let (head, body) = whole
        .split_once("\r\n\r\n")
        .ok_or_else(|| "it has no empty line (CRLF) between its head and its body".to_owned())?;
    let (mut rest, mut subject) = (String::with_capacity(whole.len()), String::new());
    for field in fields(head)? {
        let (name, value) = field.split_once(':').unwrap_or_default();
        let name = name.to_ascii_lowercase();
        if LEFT_OUT.contains(&&*name) {
            continue;
        }
        if name == "subject" {
            subject = decoded(value);
        }
        rest.push_str(field);
        rest.push_str("\r\n");
    }
    if !rest.to_ascii_lowercase().lines().any(|line| line.starts_with("from:")) {
        return Err("it has no From".to_owned());
    }
    rest.push_str("\r\n");
    rest.push_str(body);
    Ok(Mail { from, to, subject, rule: None, rest: rest.into_bytes() })
}

/// What a value says: its encoded words (RFC 2047) are decoded where their charset is one that every
/// reader knows, and stand as they are where it is another.
fn decoded(value: &str) -> String {
    let (mut said, mut was_encoded) = (String::new(), true);
    for word in value.split_whitespace() {
        let read = encoded_word(word);
        // The space between two of them is none (RFC 2047, section 6.2).
        let is_joined = was_encoded && read.is_some();
        if !said.is_empty() && !is_joined {
            said.push(' ');
        }
        was_encoded = read.is_some();
        said.push_str(read.as_deref().unwrap_or(word));
    }
    said.replace(|letter: char| letter.is_control(), " ")
}

fn encoded_word(word: &str) -> Option<String> {
    let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
    let (charset, coding, text) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = match coding {
        "b" | "B" => STANDARD.decode(text).ok()?,
        "q" | "Q" => unquoted(text)?,
        _ => return None,
    };
    // A language may stand behind it (RFC 2231, section 5).
    let charset = charset.split('*').next().unwrap_or_default().to_ascii_lowercase();
    match &*charset {
        "utf-8" | "us-ascii" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

/// The bytes of a text in the "Q" encoding (RFC 2047, section 4.2).
fn unquoted(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'_' => b' ',
            b'=' => {
                let (digits, behind) = rest.split_first_chunk::<2>()?;
                rest = behind;
                u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?
            }
            plain => *plain,
        });
    }
    Some(bytes)
}

/// The fields of a head: a line that begins with a space goes on with the one before.
fn fields(head: &str) -> Result<Vec<&str>, String> {
    let (mut fields, mut start) = (Vec::new(), 0);
    let mut at = 0;
    for line in head.split("\r\n") {
        let goes_on = line.starts_with([' ', '\t']);
        if !goes_on {
            let name = line.split_once(':').map(|(name, _)| name);
            let is_name =
                |name: &str| !name.is_empty() && name.bytes().all(|it| it.is_ascii_graphic());
            if !name.is_some_and(is_name) {
                return Err(format!("{line:?} is no line of a head"));
            }
            if at > 0 {
                fields.push(&head[start..at - 2]);
            }
            start = at;
        } else if at == 0 {
            return Err("its head begins with a space".to_owned());
        }
        at += line.len() + 2;
    }
    fields.push(&head[start..]);
    Ok(fields)
}
