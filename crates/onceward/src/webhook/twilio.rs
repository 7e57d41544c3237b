//! Twilio signs the URL that it called, and the fields of a form sorted behind it; of JSON it signs a
//! digest in the URL. Senders differ in whether the URL has its port and how its query is written,
//! so that each way is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use onceward_core::hex;
use url::form_urlencoded;

use super::scheme::{from_base64, header, unreadable};
use super::{Claim, Delivery, Kind, Rejection};
use crate::secret::sha256;

/// Fields of a form, at most: beyond it nobody sends any.
const FIELDS_MAX: usize = 1000;

pub(super) fn claim(delivery: Delivery<'_>) -> Result<Claim, Rejection> {
    let (name, text) = header(delivery.headers, &["x-twilio-signature"])?;
    let signature = from_base64(text).ok_or_else(|| unreadable(name, "a digest in base64"))?;
    let fields = fields(delivery)?;
    let signed = forms_of(delivery.url).into_iter().map(|url| [url.as_bytes(), &fields].concat());
    let signed = signed.collect();
    Ok(Claim { signatures: vec![(Kind::Shared, signature)], signed, signed_at: None })
}

/// What stands behind the URL: nothing, where the URL has the body's digest.
fn fields(delivery: Delivery<'_>) -> Result<Vec<u8>, Rejection> {
    let query = delivery.url.split_once('?').map_or("", |(_, query)| query);
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    if let Some((_, digest)) = pairs.find(|(name, _)| name == "bodySHA256") {
        let own = hex::encode(&sha256(delivery.body));
        return if digest.eq_ignore_ascii_case(&own) {
            Ok(Vec::new())
        } else {
            Err(Rejection::BodyDiffers)
        };
    }
    let kind = delivery.headers.text("content-type").unwrap_or_default().to_ascii_lowercase();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return if delivery.body.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Rejection::BodyUnsigned("it is no form, and its URL has no bodySHA256"))
        };
    }
    let mut sorted: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (count, (name, value)) in form_urlencoded::parse(delivery.body).enumerate() {
        if count >= FIELDS_MAX {
            return Err(Rejection::BodyUnsigned("its form has more than 1000 fields"));
        }
        sorted.entry(name).or_default().insert(value);
    }
    let mut text = String::with_capacity(delivery.body.len());
    for (name, values) in sorted {
        for value in values {
            text.push_str(&name);
            text.push_str(&value);
        }
    }
    Ok(text.into_bytes())
}

/// The URL as it came, without and with its port, and each with its query written anew.
fn forms_of(url: &str) -> Vec<String> {
    let mut forms = vec![url.to_owned()];
    forms.extend(without_port(url));
    forms.extend(with_port(url));
    let legacy: Vec<String> = forms.iter().filter_map(|form| with_legacy_query(form)).collect();
    for form in legacy {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

/// The scheme, the host with its port, and the rest.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, rest) = rest.split_at(end);
    Some((scheme, host, rest))
}

/// Where the port begins; a colon within brackets is an address's.
fn port_of(host: &str) -> Option<usize> {
    host.rfind(':').filter(|at| !host[*at..].contains(']'))
}

fn without_port(url: &str) -> Option<String> {
    let (scheme, host, rest) = parts(url)?;
    let host = &host[..port_of(host)?];
    Some(format!("{scheme}://{host}{rest}"))
}

fn with_port(url: &str) -> Option<String> {
    let (scheme, host, rest) = parts(url)?;
    if port_of(host).is_some() {
        return None;
    }
    let port = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    Some(format!("{scheme}://{host}:{port}{rest}"))
}

/// The query decoded and written anew, as the first library did: it kept `!'()*~` as they are.
fn with_legacy_query(url: &str) -> Option<String> {
    let (before, query) = url.split_once('?')?;
    let mut written = String::with_capacity(url.len());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        written.push(if written.is_empty() { '?' } else { '&' });
        write_plainly(&mut written, &name);
        written.push('=');
        write_plainly(&mut written, &value);
    }
    Some(format!("{before}{written}"))
}

fn write_plainly(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(byte as char);
        } else {
            // Writing into a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
