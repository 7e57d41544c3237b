//! Reads pages one after the other, of any size, as a person or a scraper does.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Outcome;
use crate::load::parse;

/// An answer that takes longer is no answer.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(1);

/// A connection that stays.
pub(crate) struct Browser {
    to: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Browser {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { to, stream: None, buffer: Vec::new() }
    }

    /// The status and the body.
    pub(crate) fn get(&mut self, place: &str) -> Outcome<(u16, Vec<u8>)> {
        let is_old = self.stream.is_some();
        match self.ask(place) {
            // What was not used for a while may have been closed meanwhile.
            Err(_) if is_old && self.buffer.is_empty() => self.ask(place),
            asked => asked,
        }
    }

    fn ask(&mut self, place: &str) -> Outcome<(u16, Vec<u8>)> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.to)?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        let accept = if place.starts_with("/v1/") { "application/json" } else { "text/html" };
        let request =
            format!("GET {place} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", self.to);
        self.buffer.clear();
        (&stream).write_all(request.as_bytes())?;
        let mut piece = [0; 16 * 1024];
        loop {
            let count = (&stream).read(&mut piece)?;
            if count == 0 {
                return Err(format!("{place}: the connection was closed").into());
            }
            self.buffer.extend_from_slice(&piece[..count]);
            if let Some(answer) = parse(&self.buffer) {
                self.stream = Some(stream);
                let head = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
                let body = self.buffer.get(head.map_or(0, |head| head + 4)..answer.bytes);
                return Ok((answer.status, body.unwrap_or_default().to_vec()));
            }
        }
    }
}
