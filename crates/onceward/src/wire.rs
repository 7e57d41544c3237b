//! Requests and answers as bytes in the ledger: a small head, and the body as it came.
//!
//! A caller's credentials are never in the clear: they are sealed for their operation. So is a
//! failed attempt's answer, which nobody but a person reads.

use std::collections::BTreeMap;

use bytes::Bytes;
use onceward_core::exchange::{self, Headers, Request, Response};
use onceward_core::id::OperationId;
use serde::{Deserialize, Serialize};

use crate::sabotage::Sabotage;
use crate::secret::Secrets;
use crate::store::StoreError;

const VERSION: u8 = 1;

/// Room for most heads.
const HEAD_BYTES: usize = 512;

/// How much of a failed attempt's answer is kept.
pub const EXCERPT_BYTES_MAX: usize = 16 << 10;

type Lines<'a> = Vec<(&'a str, &'a [u8])>;

#[derive(Serialize, Deserialize)]
struct RequestHead<'a> {
    method: &'a str,
    target: &'a str,
    #[serde(borrow)]
    headers: Lines<'a>,
    /// The credentials' lines, sealed; empty where there are none.
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

/// Version, length of the head, head, body.
fn join(head: &impl Serialize, body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend([VERSION, 0, 0, 0, 0]);
    // Writing into memory does not fail.
    let mut bytes = postcard::to_extend(head, bytes).unwrap_or_default();
    let length = bytes.len().saturating_sub(5) as u32;
    if let Some(place) = bytes.get_mut(1..5) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes.into()
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

/// The request as the ledger keeps it; headers in `seal` are sealed beside the fixed ones.
pub fn encode_request(
    request: &Request,
    id: OperationId,
    secrets: &Secrets,
    seal: &[String],
) -> Bytes {
    let is_secret =
        |name: &str| exchange::is_credential(name, seal) && !Sabotage::CredentialUnsealed.is_on();
    let (secret, open): (Lines<'_>, Lines<'_>) =
        lines(&request.headers).into_iter().partition(|(name, _)| is_secret(name));
    let sealed = if secret.is_empty() {
        Vec::new()
    } else {
        secrets.seal(&postcard::to_stdvec(&secret).unwrap_or_default(), &id.as_u128().to_be_bytes())
    };
    let head = RequestHead {
        method: &request.method,
        target: &request.target,
        headers: open,
        sealed: &sealed,
    };
    join(&head, &request.body)
}

/// Reads a request; with `secrets` its credentials too, without them they stay sealed.
pub fn decode_request(
    bytes: &Bytes,
    id: OperationId,
    secrets: Option<&Secrets>,
) -> Result<Request, StoreError> {
    let end = split(bytes)?;
    let head: RequestHead<'_> = postcard::from_bytes(&bytes[5..end]).map_err(damaged)?;
    let mut all = headers(head.headers);
    if let (Some(secrets), false) = (secrets, head.sealed.is_empty()) {
        let opened = secrets.open(head.sealed, &id.as_u128().to_be_bytes()).map_err(damaged)?;
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

/// An outcome's answer as the ledger keeps it: `kept` of its headers, its whole body.
pub fn encode_response(response: &Response, kept: &Headers) -> Bytes {
    let head = ResponseHead {
        status: response.status,
        headers: lines(kept),
        trailers: lines(&response.trailers),
        cut: false,
    };
    join(&head, &response.body)
}

/// Reads an outcome's answer.
pub fn decode_response(bytes: &Bytes) -> Result<Response, StoreError> {
    let end = split(bytes)?;
    let head: ResponseHead<'_> = postcard::from_bytes(&bytes[5..end]).map_err(damaged)?;
    Ok(Response {
        status: head.status,
        headers: headers(head.headers),
        trailers: headers(head.trailers),
        body: bytes.slice(end..),
    })
}

/// A failed attempt's answer as the ledger keeps it: what helps a person, sealed. `whole` tells
/// whether `response` is all of it.
pub fn encode_excerpt(
    response: &Response,
    whole: bool,
    id: OperationId,
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
    secrets.seal(&join(&head, &response.body[..length]), &id.as_u128().to_be_bytes()).into()
}

/// Reads a failed attempt's answer, and whether its body is only its beginning.
pub fn decode_excerpt(
    bytes: &Bytes,
    id: OperationId,
    secrets: &Secrets,
) -> Result<(Response, bool), StoreError> {
    let opened: Bytes = secrets.open(bytes, &id.as_u128().to_be_bytes()).map_err(damaged)?.into();
    let end = split(&opened)?;
    let head: ResponseHead<'_> = postcard::from_bytes(&opened[5..end]).map_err(damaged)?;
    let cut = head.cut;
    let response = Response {
        status: head.status,
        headers: headers(head.headers),
        trailers: Headers::default(),
        body: opened.slice(end..),
    };
    Ok((response, cut))
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

    #[test]
    fn a_request_comes_back_whole_and_its_credentials_only_with_the_secrets() {
        let (secrets, id) = (Secrets::new([1; 32]), OperationId::new(1, 1));
        let bytes = encode_request(&request(), id, &secrets, &["x-b".into()]);
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
        let mut whole = decode_request(&bytes, id, Some(&secrets)).unwrap();
        whole.headers.0.rotate_right(1);
        assert_eq!(whole, request());
        assert_eq!(decode_request(&bytes, id, None).unwrap().headers.get("authorization"), None);
        assert!(decode_request(&bytes, OperationId::new(1, 2), Some(&secrets)).is_err());
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
        let bytes = encode_excerpt(&response, true, id, &secrets);
        assert!(!bytes.windows(4).any(|window| window == b"cccc"));
        let (back, cut) = decode_excerpt(&bytes, id, &secrets).unwrap();
        assert_eq!((back.status, back.body.len(), cut), (503, EXCERPT_BYTES_MAX, true));
        let part = Response { body: b"part".as_slice().into(), ..response };
        for whole in [true, false] {
            let bytes = encode_excerpt(&part, whole, id, &secrets);
            assert_eq!(decode_excerpt(&bytes, id, &secrets).unwrap().1, !whole);
        }
    }

    #[test]
    fn bytes_that_are_no_exchange_are_refused() {
        for bytes in [&b""[..], b"\x01", b"\x02\x00\x00\x00\x00", b"\x01\xff\xff\xff\x00ab"] {
            assert!(decode_response(&Bytes::copy_from_slice(bytes)).is_err());
        }
    }
}
