//! Requests and answers as the ledger keeps them: what was written reads back, and no other bytes
//! make a reader fall.

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request, Response};
use onceward::core::id::OperationId;
use onceward::secret::Secrets;
use onceward::wire::{self, Credentials, Sealing};
use onceward_fuzz::Fuzz;

const OPENED: Credentials = Credentials::Opened;

const WORDS: &[&str] =
    &["\x01", "\x01\0\0\0\0", "authorization", "x-a", "POST", "/a?b", "\x7f", "\u{80}\u{1}"];

/// A request made of the input's lines.
fn request(input: &[u8]) -> Request {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut text = |or: &str| {
        lines
            .next()
            .map_or_else(|| or.to_owned(), |line| String::from_utf8_lossy(line).into_owned())
    };
    let (method, target) = (text("POST"), text("/"));
    let headers = lines
        .map(|line| {
            let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let name = String::from_utf8_lossy(&line[..at]).into_owned();
            (name, Bytes::copy_from_slice(line.get(at + 1..).unwrap_or_default()))
        })
        .collect();
    Request { method, target, headers: Headers(headers), body: Bytes::copy_from_slice(input) }
}

fn sorted(mut request: Request) -> Request {
    request.headers.0.sort();
    request
}

#[test]
fn an_exchange_reads_back_and_other_bytes_are_refused_or_harmless() {
    let (secrets, id) = (Secrets::new([7; 32]), OperationId::new(1, 1));
    Fuzz::new("exchange", 10_000, WORDS).run(|input| {
        let bytes = Bytes::copy_from_slice(input);
        let read = wire::decode_request(&bytes, id, &secrets, OPENED);
        let answer = wire::decode_response(&bytes, id, &secrets);
        assert!(wire::decode_excerpt(&bytes, id, 1, &secrets).is_err(), "nobody else seals");
        if let Ok(request) = &read {
            for bodies in [false, true] {
                let again = wire::encode_request(request, id, &secrets, Sealing::plain(bodies));
                let back =
                    wire::decode_request(&again, id, &secrets, OPENED).expect("just written");
                assert_eq!(sorted(back), sorted(request.clone()));
            }
        }
        let made = request(input);
        for bodies in [false, true] {
            let sealing = Sealing { headers: &["x-a".to_owned()], bodies };
            let kept = wire::encode_request(&made, id, &secrets, sealing);
            let back = wire::decode_request(&kept, id, &secrets, OPENED).expect("just written");
            assert_eq!(sorted(back), sorted(made.clone()), "a request reads back whole");
        }
        let response = Response {
            status: 201,
            headers: made.headers.clone(),
            body: bytes,
            trailers: made.headers,
        };
        for bodies in [false, true] {
            let sealing = Sealing::plain(bodies);
            let kept = wire::encode_response(&response, &response.headers, id, &secrets, sealing);
            let back = wire::decode_response(&kept, id, &secrets).expect("just written");
            assert_eq!(back, response);
        }
        (read.is_ok(), answer.map(|answer| answer.headers.0.len()).ok())
    });
}
