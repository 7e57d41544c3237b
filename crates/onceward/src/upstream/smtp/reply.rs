//! What a mail server answers (RFC 5321, section 4.2): a code, and lines for a person.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// The longest line that is read, in bytes: eight times what a server may say (RFC 5321, section
/// 4.5.3.1.5).
const LINE_BYTES_MAX: u64 = 4096;

/// Lines of one reply, at most: no server has as many extensions.
const LINES_MAX: usize = 128;

/// The longest text that is told of a reply, in bytes.
const TEXT_BYTES_MAX: usize = 300;

/// A reply, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its three digits.
    pub code: u16,
    lines: Vec<String>,
}

impl Reply {
    /// What was asked for is done.
    pub(super) fn is_done(&self) -> bool {
        self.code / 100 == 2
    }

    /// It is put off: asking again may help.
    pub(super) fn is_put_off(&self) -> bool {
        self.code / 100 == 4
    }

    /// It is refused, for now or for good.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.code / 100, 4 | 5)
    }

    /// Code and enhanced status (RFC 3463), and none of its words.
    pub(super) fn brief(&self) -> String {
        let word = self.lines.first().and_then(|line| line.split_whitespace().next());
        match word.filter(|word| is_status(word)) {
            Some(status) => format!("{} {status}", self.code),
            None => self.code.to_string(),
        }
    }

    /// The same with no more words than are told of it: many are kept at once.
    pub(super) fn shortened(self) -> Self {
        let mut words = self.lines.join(" ");
        words.truncate(words.floor_char_boundary(TEXT_BYTES_MAX));
        Self { code: self.code, lines: vec![words] }
    }

    /// Its lines, without the codes.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Code and words in a line.
    pub fn text(&self) -> String {
        let mut text = format!("{} {}", self.code, self.lines.join(" "));
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.trim_end().to_owned()
    }

    /// What the server calls the mail that it took: what stands behind `queued as` or `id=`, as most
    /// servers say it; else the one word that says more than that it is done; else all that it said.
    pub(super) fn provider_id(&self) -> Option<String> {
        let text = self.lines.join(" ");
        let behind = |mark: &str| {
            // The marks are ASCII, so that no place moves.
            let at = text.to_ascii_lowercase().find(mark)? + mark.len();
            let word = text.get(at..)?.split_whitespace().next()?;
            Some(word.trim_end_matches(['.', ',', ';', ')']).to_owned())
        };
        let said = || {
            let is_news = |word: &&str| !is_status(word) && !word.eq_ignore_ascii_case("ok");
            let mut words = text.split_whitespace().filter(is_news);
            match (words.next(), words.next()) {
                (Some(word), None) => Some(word.to_owned()),
                (Some(_), Some(_)) => Some(text.clone()),
                (None, _) => None,
            }
        };
        let id = behind("queued as ").or_else(|| behind("id=")).or_else(said)?;
        let end = id.floor_char_boundary(255);
        id.get(..end).filter(|id| !id.is_empty()).map(str::to_owned)
    }
}

/// Whether a word is an enhanced status (RFC 3463): three numbers.
fn is_status(word: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
    word.split('.').count() == 3 && word.split('.').all(is_number)
}

/// Reads one reply, and not a byte more than it has.
pub(super) async fn read<S: AsyncBufRead + Unpin>(stream: &mut S) -> io::Result<Reply> {
    let mut lines = Vec::new();
    let mut code = None;
    loop {
        let mut line = Vec::new();
        let length = (&mut *stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (its_code, is_last, words) = line_of(&line).ok_or_else(no_reply)?;
        if *code.get_or_insert(its_code) != its_code || lines.len() >= LINES_MAX {
            return Err(no_reply());
        }
        lines.push(words);
        if is_last {
            return Ok(Reply { code: its_code, lines });
        }
    }
}

fn no_reply() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what it says is no reply of a mail server")
}

/// The code of a line, whether it is the last, and its words.
fn line_of(line: &[u8]) -> Option<(u16, bool, String)> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (digits, rest) = line.split_first_chunk::<3>()?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let (is_last, words) = match rest.split_first() {
        None => (true, rest),
        Some((b' ', words)) => (true, words),
        Some((b'-', words)) => (false, words),
        Some(_) => return None,
    };
    let words = String::from_utf8_lossy(words).replace(char::is_control, " ");
    Some((code, is_last, words.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(bytes: &[u8]) -> io::Result<Reply> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream = bytes;
        runtime.block_on(read(&mut stream))
    }

    #[test]
    fn a_reply_of_several_lines_is_one() {
        let reply = said(b"250-mail.test\r\n250-SIZE 1000\r\n250 STARTTLS\r\n220 next").unwrap();
        assert_eq!(reply.code, 250);
        assert_eq!(reply.lines().collect::<Vec<_>>(), ["mail.test", "SIZE 1000", "STARTTLS"]);
        assert_eq!(said(b"354\r\n").unwrap().code, 354);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let endless = "250-x\r\n".repeat(LINES_MAX + 1);
        let long = format!("250 {}\r\n", "x".repeat(5000));
        let bad: [&[u8]; 8] = [
            b"",
            b"hello\r\n",
            b"150 x\r\n",
            b"25\r\n",
            b"250x\r\n",
            b"250-a\r\n251 b\r\n",
            endless.as_bytes(),
            long.as_bytes(),
        ];
        for bytes in bad {
            assert!(said(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_the_server_calls_a_mail_is_found_in_its_reply() {
        for (text, id) in [
            ("250 2.0.0 Ok: queued as 4XyZ1q", Some("4XyZ1q")),
            ("250 OK id=1rAbCd-0001-2", Some("1rAbCd-0001-2")),
            ("250 Ok 0102018f-1234-000000", Some("0102018f-1234-000000")),
            ("250 2.0.0 OK  1700000000 a1-2 - gsmtp", Some("2.0.0 OK  1700000000 a1-2 - gsmtp")),
            ("250 2.0.0 Ok", None),
            ("250", None),
        ] {
            let reply = said(format!("{text}\r\n").as_bytes()).unwrap();
            assert_eq!(reply.provider_id().as_deref(), id, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_breaks_and_no_text_has_a_line_break(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            code in 200u16..600, words in ".{0,80}",
        ) {
            let _ = said(&bytes);
            let line: String = words.chars().filter(|it| *it != '\n').collect();
            let reply = said(format!("{code} {line}\r\n").as_bytes()).unwrap();
            prop_assert!(reply.code == code && !reply.text().contains(char::is_control));
            prop_assert!(reply.provider_id().is_none_or(|id| id.len() <= 255));
        }
    }
}
