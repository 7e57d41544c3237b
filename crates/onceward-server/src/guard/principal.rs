//! Who asks: the name that stands in the scope of a caller's keys, and keeps what one was answered
//! from another. Never a credential; where nothing but a credential tells callers apart, its digest.
//!
//! A name is begun by the way in which it was told, so that no two ways, and no access key, can mean
//! the same by it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use onceward::sabotage::Sabotage;
use onceward::secret::Secrets;
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::Guard;
use crate::config::guard::{CREDENTIALS, CertificateName, PrincipalRule};
use crate::listening::Peer;

/// A name that is longer is digested.
const NAME_BYTES_MAX: usize = 128;

/// Who sent these headers. A header that names the caller is taken out of them where nobody who is
/// believed has set it: the upstream is told no lie either.
/// `is_read` where the name would be needed for nothing.
pub(super) fn of(
    guard: &Guard,
    headers: &mut HeaderMap,
    peer: &Peer,
    is_read: bool,
    secrets: &Secrets,
) -> String {
    let is_believed = guard.believes(peer.address.ip()) || Sabotage::ClaimBelieved.is_on();
    if let PrincipalRule::Header(name) = &guard.principal
        && !is_believed
    {
        headers.remove(name);
    }
    if is_read {
        return String::new();
    }
    let told = match &guard.principal {
        PrincipalRule::Unsaid => None,
        PrincipalRule::Header(name) => {
            single(headers, name).map(|value| named("header", value, secrets))
        }
        PrincipalRule::Bearer(claim) => {
            // One of the two stands behind it: see the configuration.
            let is_vouched = guard.reauthorize.is_some() || is_believed;
            let subject =
                bearer(headers).filter(|_| is_vouched).and_then(|token| subject(token, claim));
            subject.map(|subject| named("bearer", subject.as_bytes(), secrets))
        }
        PrincipalRule::Mtls(which) => {
            let name = peer.certificate.as_deref().and_then(|shown| name_in(shown, *which));
            name.map(|name| named("mtls", name.as_bytes(), secrets))
        }
        PrincipalRule::Cookie(name) => {
            cookie(headers, name).map(|value| digested(name, &value, secrets))
        }
        PrincipalRule::Credential(name) => {
            super::joined(headers, name).map(|value| digested(name, &value, secrets))
        }
    };
    told.unwrap_or_else(|| of_credentials(guard, headers, secrets))
}

/// Whoever has the same credentials. Where there are none, all are one: what they know of each other's
/// keys is all that keeps them apart.
fn of_credentials(guard: &Guard, headers: &HeaderMap, secrets: &Secrets) -> String {
    let mut all = Vec::new();
    let sealed = guard.sealed.iter().map(String::as_str).filter(|name| *name != "cookie");
    for name in CREDENTIALS.into_iter().chain(sealed) {
        if let Some(value) = super::joined(headers, name) {
            all.extend_from_slice(name.as_bytes());
            all.extend_from_slice(&(value.len() as u64).to_be_bytes());
            all.extend_from_slice(&value);
        }
    }
    match cookies(headers) {
        _ if !all.is_empty() => digested("", &all, secrets),
        Some(cookies) => digested("cookie", &cookies, secrets),
        None => "anonymous:".to_owned(),
    }
}

/// A name that people can read, where it is one.
fn named(way: &str, name: &[u8], secrets: &Secrets) -> String {
    let text = std::str::from_utf8(name).ok().filter(|text| {
        !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
    });
    match text {
        Some(text) => format!("{way}:{text}"),
        None => format!("{way}~{}", secrets.name(&[way.as_bytes(), b"\0", name].concat())),
    }
}

fn digested(name: &str, credential: &[u8], secrets: &Secrets) -> String {
    let whole = [b"principal\0", name.as_bytes(), b"\0", credential].concat();
    format!("credential:{}", secrets.name(&whole))
}

/// The one line of a header; who sends two is nobody.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    lines.next().filter(|line| !line.is_empty() && lines.next().is_none())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let line = std::str::from_utf8(single(headers, header::AUTHORIZATION.as_str())?).ok()?;
    let (scheme, token) = line.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// What a token (RFC 7519) claims, read and not verified. A subject is unique within its issuer.
fn subject(token: &str, claim: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let subject = match claims.get(claim)? {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(match claims.get("iss").and_then(Value::as_str) {
        // Whatever stands in either of them, no two pairs are one text.
        Some(issuer) => serde_json::json!([issuer, subject]).to_string(),
        None => subject,
    })
}

/// All cookies as one line: HTTP/2 may bring them apart (RFC 9113, section 8.2.3).
fn cookies(headers: &HeaderMap) -> Option<Vec<u8>> {
    let lines: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    (!lines.is_empty()).then(|| lines.join(&b"; "[..]))
}

/// The one cookie of this name.
fn cookie(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let all = cookies(headers)?;
    let mut found = all.split(|byte| *byte == b';').filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..at] == name.as_bytes()).then(|| pair[at + 1..].to_vec())
    });
    let first = found.next().filter(|value| !value.is_empty());
    first.filter(|_| found.next().is_none())
}

/// A name in a certificate whose chain and key the handshake has proved.
/// What a machine or a person is called by a certificate, and an access key can be called: a name of a host,
/// or an address.
pub(crate) fn plain_name(certificate: &[u8]) -> Option<String> {
    let named = name_in(certificate, CertificateName::San)?;
    let plain = named.strip_prefix("dns ").or_else(|| named.strip_prefix("mail "))?;
    Some(plain.to_owned())
}

fn name_in(certificate: &[u8], which: CertificateName) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let certificate = &certificate.tbs_certificate;
    match which {
        CertificateName::Subject => {
            Some(certificate.subject.to_string()).filter(|name| !name.is_empty())
        }
        CertificateName::San => {
            let (_, names) = certificate.get::<SubjectAltName>().ok()??;
            let uri = names.0.iter().find_map(|name| match name {
                GeneralName::UniformResourceIdentifier(uri) => {
                    Some(format!("uri {}", uri.as_str()))
                }
                _ => None,
            });
            let other = || {
                names.0.iter().find_map(|name| match name {
                    GeneralName::DnsName(name) => Some(format!("dns {}", name.as_str())),
                    GeneralName::Rfc822Name(name) => Some(format!("mail {}", name.as_str())),
                    _ => None,
                })
            };
            uri.or_else(other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{guard, peer};
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn who(lines: &str, from: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map: HeaderMap = headers
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect();
        of(&guard(lines), &mut map, &peer(from), false, &Secrets::new(KEY))
    }

    fn token(claims: &str) -> String {
        format!("Bearer e30.{}.forged", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn where_nothing_is_said_callers_are_told_apart_by_their_credentials() {
        let sealed =
            |token| who("seal_headers = [\"X-Token\"]", "192.0.2.1", &[("x-token", token)]);
        let who = |headers: &[(&'static str, &str)]| who("", "192.0.2.1", headers);
        let alice = who(&[("authorization", "Bearer a"), ("cookie", "visits=1")]);
        assert!(alice.starts_with("credential:") && !alice.contains("Bearer"));
        assert_eq!(alice, who(&[("authorization", "Bearer a"), ("cookie", "visits=2")]));
        assert_ne!(alice, who(&[("authorization", "Bearer b")]));
        assert_ne!(alice, who(&[("x-api-key", "Bearer a")]));
        assert_ne!(sealed("a"), sealed("b"), "what is sealed is a credential");
        assert_ne!(who(&[("cookie", "s=1")]), who(&[("cookie", "s=2")]));
        assert_eq!(who(&[]), "anonymous:");
    }

    #[test]
    fn a_header_names_a_caller_only_where_a_proxy_that_is_believed_set_it() {
        let lines = "trust_forwarded = [\"10.0.0.0/8\"]\nprincipal = { header = \"X-User\" }";
        let named = [("x-user", "alice"), ("authorization", "Bearer m")];
        assert_eq!(who(lines, "10.1.2.3", &named), "header:alice");
        let spoofed = who(lines, "192.0.2.1", &named);
        assert_eq!(spoofed, who(lines, "192.0.2.1", &[("authorization", "Bearer m")]));
        assert!(spoofed.starts_with("credential:"));
        let mut map = HeaderMap::new();
        map.insert("x-user", HeaderValue::from_static("alice"));
        of(&guard(lines), &mut map, &peer("192.0.2.1"), true, &Secrets::new(KEY));
        assert!(map.is_empty(), "the upstream is told no lie either");
        let mut map = HeaderMap::new();
        map.append("x-user", HeaderValue::from_static("alice"));
        map.append("x-user", HeaderValue::from_static("bob"));
        let both = of(&guard(lines), &mut map, &peer("10.1.2.3"), false, &Secrets::new(KEY));
        assert_eq!(both, "anonymous:");
    }

    #[test]
    fn the_subject_of_a_token_outlives_the_token_and_is_its_issuers_own() {
        let lines = "reauthorize = { get = \"/me\" }\nprincipal = { bearer = \"sub\" }";
        let claimed = |claims: &str| who(lines, "192.0.2.1", &[("authorization", &token(claims))]);
        assert_eq!(claimed(r#"{"sub":"alice","exp":1}"#), "bearer:alice");
        assert_eq!(claimed(r#"{"sub":"alice","exp":2}"#), "bearer:alice");
        let at = claimed(r#"{"sub":"alice","iss":"https://a.example"}"#);
        assert_eq!(at, r#"bearer:["https://a.example","alice"]"#);
        assert_ne!(at, claimed(r#"{"sub":"alice","iss":"https://b.example"}"#));
        assert!(claimed(r#"{"exp":1}"#).starts_with("credential:"), "no subject");
        let opaque = who(lines, "192.0.2.1", &[("authorization", "Bearer opaque")]);
        assert!(opaque.starts_with("credential:"));
    }

    #[test]
    fn a_token_that_nobody_vouches_for_names_nobody() {
        let lines = "trust_forwarded = [\"10.0.0.0/8\"]\nprincipal = { bearer = \"sub\" }";
        let headers = [("authorization", &*token(r#"{"sub":"alice"}"#))];
        assert_eq!(who(lines, "10.0.0.1", &headers), "bearer:alice");
        assert!(who(lines, "192.0.2.1", &headers).starts_with("credential:"));
    }

    #[test]
    fn a_cookie_tells_callers_apart_whatever_other_cookies_there_are() {
        let who = |cookies: &str| {
            who("principal = { cookie = \"session\" }", "192.0.2.1", &[("cookie", cookies)])
        };
        assert_eq!(who("session=1; visits=1"), who("visits=2; session=1"));
        assert_ne!(who("session=1"), who("session=2"));
        assert_ne!(who("session=1; session=2"), who("session=1"), "two of them are none");
    }

    #[test]
    fn a_certificate_is_named_by_its_subject_or_its_other_name() {
        let mut params = rcgen::CertificateParams::new(vec!["crm.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "crm");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Acme, Inc.");
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let name = |which| name_in(made.der(), which).unwrap();
        assert_eq!(name(CertificateName::San), "dns crm.example");
        let subject = name(CertificateName::Subject);
        assert!(subject.contains("CN=crm") && subject.contains("O=Acme\\, Inc."), "{subject}");
        assert_eq!(name_in(b"no certificate", CertificateName::Subject), None);
    }
}
