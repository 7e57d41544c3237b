//! Requests and answers as bytes in the ledger: a small head, and the body as it came.
//!
//! A caller's credentials are never in the clear: they are sealed for their operation. So is a
//! failed attempt's answer, which nobody but a person reads; and all of a request and an answer, where
//! the route says so.

use std::collections::BTreeMap;

use bytes::Bytes;
use onceward_core::exchange::{self, Headers, Request, Response};
use onceward_core::id::OperationId;
use onceward_core::policy::Policy;
use serde::{Deserialize, Serialize};

use crate::sabotage::Sabotage;
use crate::seal::{self, Field, START_BYTES};
use crate::secret::Secrets;
use crate::store::StoreError;

const VERSION: u8 = 1;

/// Room for most heads.
const HEAD_BYTES: usize = 512;

/// How much of a failed attempt's answer is kept.
pub const EXCERPT_BYTES_MAX: usize = 16 << 10;

/// What of an operation's exchanges is sealed.
#[derive(Debug, Clone, Copy)]
pub struct Sealing<'a> {
    /// Request headers (lower case) that are, beside the fixed ones.
    pub headers: &'a [String],
    /// Whether all of a request and of an answer is.
    pub bodies: bool,
}

impl<'a> Sealing<'a> {
    /// As `policy` has it.
    pub fn of(policy: &'a Policy) -> Self {
        Self { headers: &policy.seal_headers, bodies: policy.seal_bodies }
    }

    /// Credentials alone, or all of it.
    pub fn plain(bodies: bool) -> Self {
        Self { headers: &[], bodies }
    }

    fn is_of_bodies(self, secrets: &Secrets) -> bool {
        self.bodies && !secrets.seals_as_before() && !Sabotage::BodyUnsealed.is_on()
    }
}

/// What becomes of a caller's credentials when its request is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// They are among the headers, behind the others.
    Opened,
    /// They stay where they are.
    Left,
}

type Lines<'a> = Vec<(&'a str, &'a [u8])>;

#[derive(Serialize, Deserialize)]
struct RequestHead<'a> {
    method: &'a str,
    target: &'a str,
    #[serde(borrow)]
    headers: Lines<'a>,
    /// The credentials' lines, sealed unless all of it is; empty where there are none.
    sealed: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct ResponseHead<'a> {
    status: u16,
    #[serde(borrow)]
    headers: Lines<'a>,
    trailers: Lines<'a>,
    /// Whether the body is only its beginning.
    cut: bool,
}

fn lines(headers: &Headers) -> Lines<'_> {
    headers.0.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect()
}

fn headers(mut lines: Lines<'_>) -> Headers {
    if Sabotage::HeadersInAMap.is_on() {
        lines = BTreeMap::from_iter(lines).into_iter().collect();
    }
    Headers(
        lines
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value)))
            .collect(),
    )
}

fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("an exchange cannot be read: {what}"))
}

/// Version, length of the head, head, body; behind `room` for what comes before it.
fn join(head: &impl Serialize, body: &[u8], room: usize) -> Vec<u8> {
    let start = room + 5;
    let mut bytes = Vec::with_capacity(start + HEAD_BYTES + body.len());
    bytes.resize(room, 0);
    bytes.extend([VERSION, 0, 0, 0, 0]);
    // Writing into memory does not fail.
    let mut bytes = postcard::to_extend(head, bytes).unwrap_or_default();
    let length = bytes.len().saturating_sub(start) as u32;
    if let Some(place) = bytes.get_mut(room + 1..start) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// The same, sealed as `field` of an operation.
fn join_sealed(
    head: &impl Serialize,
    body: &[u8],
    id: OperationId,
    field: Field,
    secrets: &Secrets,
) -> Bytes {
    seal::seal(join(head, body, START_BYTES), id, field, secrets).into()
}

/// An exchange as it was joined, opened where it is sealed.
fn joined(
    bytes: &Bytes,
    id: OperationId,
    field: Field,
    secrets: &Secrets,
) -> Result<Bytes, StoreError> {
    if seal::is_sealed(bytes) {
        return Ok(seal::open(bytes, id, field, secrets)?.into());
    }
    Ok(bytes.clone())
}

/// Where the head ends.
fn split(bytes: &[u8]) -> Result<usize, StoreError> {
    let (start, _) = bytes.split_first_chunk::<5>().ok_or_else(|| damaged("too short"))?;
    if start[0] != VERSION {
        return Err(damaged("it is of a later release"));
    }
    let end = 5 + u32::from_le_bytes([start[1], start[2], start[3], start[4]]) as usize;
    if end > bytes.len() { Err(damaged("too short")) } else { Ok(end) }
}

/// The request as the ledger keeps it.
pub fn encode_request(
    request: &Request,
    id: OperationId,
    secrets: &Secrets,
    sealing: Sealing<'_>,
) -> Bytes {
    let is_secret = |name: &str| {
        exchange::is_credential(name, sealing.headers) && !Sabotage::CredentialUnsealed.is_on()
    };
    let (secret, open): (Lines<'_>, Lines<'_>) =
        lines(&request.headers).into_iter().partition(|(name, _)| is_secret(name));
    let secret = if secret.is_empty() {
        Vec::new()
    } else {
        postcard::to_stdvec(&secret).unwrap_or_default()
    };
    let head = |sealed| RequestHead {
        method: &request.method,
        target: &request.target,
        headers: open,
        sealed,
    };
    if sealing.is_of_bodies(secrets) {
        return join_sealed(&head(&secret), &request.body, id, Field::Request, secrets);
    }
    let sealed =
        if secret.is_empty() { secret } else { secrets.seal(&secret, &id.as_u128().to_be_bytes()) };
    join(&head(&sealed), &request.body, 0).into()
}

/// Reads a request.
pub fn decode_request(
    bytes: &Bytes,
    id: OperationId,
    secrets: &Secrets,
    credentials: Credentials,
) -> Result<Request, StoreError> {
    let is_sealed = seal::is_sealed(bytes);
    let bytes = joined(bytes, id, Field::Request, secrets)?;
    let end = split(&bytes)?;
    let head: RequestHead<'_> = postcard::from_bytes(&bytes[5..end]).map_err(damaged)?;
    let mut all = headers(head.headers);
    if credentials == Credentials::Opened && !head.sealed.is_empty() {
        let opened = if is_sealed {
            head.sealed.to_vec()
        } else {
            secrets.open_or_wait(head.sealed, &id.as_u128().to_be_bytes())?
        };
        let secret: Lines<'_> = postcard::from_bytes(&opened).map_err(damaged)?;
        all.0.extend(headers(secret).0);
    }
    Ok(Request {
        method: head.method.to_owned(),
        target: head.target.to_owned(),
        headers: all,
        body: bytes.slice(end..),
    })
}

/// An outcome's answer as the ledger keeps it: `kept` of its headers, its whole body; sealed where
/// bodies are.
pub fn encode_response(
    response: &Response,
    kept: &Headers,
    id: OperationId,
    secrets: &Secrets,
    sealing: Sealing<'_>,
) -> Bytes {
    let head = ResponseHead {
        status: response.status,
        headers: lines(kept),
        trailers: lines(&response.trailers),
        cut: false,
    };
    if sealing.is_of_bodies(secrets) {
        join_sealed(&head, &response.body, id, Field::Outcome, secrets)
    } else {
        join(&head, &response.body, 0).into()
    }
}

/// Reads an outcome's answer.
pub fn decode_response(
    bytes: &Bytes,
    id: OperationId,
    secrets: &Secrets,
) -> Result<Response, StoreError> {
    Ok(response(&joined(bytes, id, Field::Outcome, secrets)?)?.0)
}

/// An answer, and whether its body is only its beginning.
fn response(bytes: &Bytes) -> Result<(Response, bool), StoreError> {
    let end = split(bytes)?;
    let head: ResponseHead<'_> = postcard::from_bytes(&bytes[5..end]).map_err(damaged)?;
    let cut = head.cut;
    let response = Response {
        status: head.status,
        headers: headers(head.headers),
        trailers: headers(head.trailers),
        body: bytes.slice(end..),
    };
    Ok((response, cut))
}

/// What the attempt `n` brought as the ledger keeps it, where that is no outcome: what helps a person,
/// sealed. `whole` tells whether `response` is all of it.
pub fn encode_excerpt(
    response: &Response,
    whole: bool,
    id: OperationId,
    n: u32,
    secrets: &Secrets,
) -> Bytes {
    let helps = exchange::kept_for_people(&response.headers);
    let length = response.body.len().min(EXCERPT_BYTES_MAX);
    let head = ResponseHead {
        status: response.status,
        headers: lines(&helps),
        trailers: Vec::new(),
        cut: !whole || length < response.body.len(),
    };
    let body = &response.body[..length];
    if secrets.seals_as_before() {
        return secrets.seal(&join(&head, body, 0), &id.as_u128().to_be_bytes()).into();
    }
    join_sealed(&head, body, id, Field::Attempt(n), secrets)
}

/// Reads what the attempt `n` brought, and whether its body is only its beginning.
pub fn decode_excerpt(
    bytes: &Bytes,
    id: OperationId,
    n: u32,
    secrets: &Secrets,
) -> Result<(Response, bool), StoreError> {
    let opened = if seal::is_sealed(bytes) {
        seal::open(bytes, id, Field::Attempt(n), secrets)?
    } else {
        // As it was sealed before there were data keys.
        secrets.open_or_wait(bytes, &id.as_u128().to_be_bytes())?
    };
    response(&opened.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let line = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
        Request {
            method: "POST".into(),
            target: "/a?b".into(),
            headers: Headers(vec![
                line("authorization", b"Bearer canary"),
                line("x-a", b"\xff1"),
                line("x-a", b"2"),
            ]),
            body: Bytes::from_static(b"\x00body\xff"),
        }
    }

    fn is_within(words: &[u8], bytes: &[u8]) -> bool {
        bytes.windows(words.len()).any(|window| window == words)
    }

    #[test]
    fn a_request_comes_back_whole_and_its_credentials_only_where_they_are_asked_for() {
        let (secrets, id) = (Secrets::new([1; 32]), OperationId::new(1, 1));
        let other = Secrets::new([2; 32]);
        for bodies in [false, true] {
            let sealing = Sealing { headers: &["x-b".into()], bodies };
            let bytes = encode_request(&request(), id, &secrets, sealing);
            assert!(!is_within(b"canary", &bytes));
            assert_eq!(is_within(b"body", &bytes), !bodies);
            assert_eq!(is_within(b"/a?b", &bytes), !bodies);
            let read = |id, secrets| decode_request(&bytes, id, secrets, Credentials::Opened);
            let mut whole = read(id, &secrets).unwrap();
            whole.headers.0.rotate_right(1);
            assert_eq!(whole, request());
            let left = decode_request(&bytes, id, &secrets, Credentials::Left).unwrap();
            assert_eq!((left.headers.get("authorization"), left.body), (None, request().body));
            assert!(read(OperationId::new(1, 2), &secrets).is_err());
            assert!(read(id, &other).is_err());
        }
    }

    #[test]
    fn an_answer_is_sealed_where_bodies_are_and_comes_back_as_itself_alone() {
        let (secrets, id) = (Secrets::new([1; 32]), OperationId::new(1, 1));
        let line = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
        let answer = Response {
            status: 201,
            headers: Headers(vec![line("location", b"/canary/1")]),
            body: Bytes::from_static(b"{\"canary\": 2}"),
            trailers: Headers(vec![line("x-t", b"canary")]),
        };
        for bodies in [false, true] {
            let sealing = Sealing::plain(bodies);
            let bytes = encode_response(&answer, &answer.headers, id, &secrets, sealing);
            assert_eq!(is_within(b"canary", &bytes), !bodies);
            assert_eq!(decode_response(&bytes, id, &secrets).unwrap(), answer);
            let request = decode_request(&bytes, id, &secrets, Credentials::Left);
            let elsewhere = decode_response(&bytes, OperationId::new(1, 2), &secrets);
            assert!(!bodies || (request.is_err() && elsewhere.is_err()), "it opens as another");
        }
    }

    #[test]
    fn what_a_node_of_an_earlier_release_may_have_to_read_is_written_as_before() {
        let (secrets, id) = (Secrets::new([1; 32]), OperationId::new(1, 1));
        let before = Secrets::new([1; 32]).of_old();
        let kept = encode_request(&request(), id, &before, Sealing::plain(true));
        assert_eq!((kept[0], is_within(b"canary", &kept)), (VERSION, false));
        let answer = Response {
            status: 503,
            headers: Headers::default(),
            body: Bytes::from_static(b"body"),
            trailers: Headers::default(),
        };
        let excerpt = encode_excerpt(&answer, true, id, 1, &before);
        assert!(before.open(&excerpt, &id.as_u128().to_be_bytes()).is_ok());
        for reader in [&before, &secrets] {
            let read = decode_request(&kept, id, reader, Credentials::Opened).unwrap();
            assert_eq!(read.headers.0.len(), 3);
            assert_eq!(decode_excerpt(&excerpt, id, 1, reader).unwrap().0, answer);
        }
    }

    #[test]
    fn an_excerpt_is_sealed_and_says_where_it_was_cut() {
        let (secrets, id) = (Secrets::new([1; 32]), OperationId::new(1, 1));
        let response = Response {
            status: 503,
            headers: Headers::default(),
            body: vec![b'c'; 20_000].into(),
            trailers: Headers::default(),
        };
        let bytes = encode_excerpt(&response, true, id, 1, &secrets);
        assert!(!is_within(b"cccc", &bytes));
        let (back, cut) = decode_excerpt(&bytes, id, 1, &secrets).unwrap();
        assert_eq!((back.status, back.body.len(), cut), (503, EXCERPT_BYTES_MAX, true));
        assert!(decode_excerpt(&bytes, id, 2, &secrets).is_err(), "of another attempt");
        let part = Response { body: b"part".as_slice().into(), ..response };
        for whole in [true, false] {
            let bytes = encode_excerpt(&part, whole, id, 1, &secrets);
            assert_eq!(decode_excerpt(&bytes, id, 1, &secrets).unwrap().1, !whole);
        }
    }

    #[test]
    fn bytes_that_are_no_exchange_are_refused() {
        let (secrets, id) = (Secrets::new([1; 32]), OperationId::new(1, 1));
        for bytes in [&b""[..], b"\x01", b"\x03\x00\x00\x00\x00", b"\x01\xff\xff\xff\x00ab"] {
            assert!(decode_response(&Bytes::copy_from_slice(bytes), id, &secrets).is_err());
        }
        let short = Bytes::from_static(b"\x02\x00\x00\x00\x00");
        assert!(decode_response(&short, id, &secrets).is_err());
    }
}
