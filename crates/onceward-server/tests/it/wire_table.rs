//! The table of malformed, oversized and smuggling requests: kinds of mischief times the ways to
//! send them.

mod framing;
mod lines;

use onceward_proof::chance::Chance;

/// What a request may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// A 4xx or a closed connection, and nothing arrives.
    Refused,
    /// It is sound: it arrives once, and is answered.
    One,
    /// Either of the two.
    Either,
}

/// One connection's worth of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) kind: &'static str,
    pub(crate) want: Want,
    /// Request line and headers; `@` stands for the case's number.
    pub(crate) head: Vec<u8>,
    /// What follows the head.
    pub(crate) rest: Vec<u8>,
    /// The body with which it arrives, where it does.
    pub(crate) body: Option<&'static str>,
}

impl Case {
    /// Whether its end cannot be agreed upon, so that the connection has to end with it.
    pub(crate) fn breaks_framing(&self) -> bool {
        let is_sound = ["start line", "header", "key", "size"].contains(&self.kind);
        self.want == Want::Refused && !is_sound
    }
}

/// A second request that a careless reader would find in what belongs to the first.
pub(crate) const SMUGGLED: &str = "POST /to/strict/smuggled@ HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: s@\r\nContent-Length: 0\r\n\r\n";

const START: &str = "POST /to/strict/c@ HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: k@\r\n";

struct Table(Vec<Case>);

impl Table {
    fn add(
        &mut self,
        kind: &'static str,
        want: Want,
        head: impl Into<Vec<u8>>,
        rest: impl Into<Vec<u8>>,
        body: Option<&'static str>,
    ) {
        self.0.push(Case { kind, want, head: head.into(), rest: rest.into(), body });
    }

    /// A request with these lines beside the usual ones.
    fn with(
        &mut self,
        kind: &'static str,
        want: Want,
        lines: &str,
        rest: &str,
        body: Option<&'static str>,
    ) {
        self.add(kind, want, format!("{START}{lines}\r\n\r\n"), rest, body);
    }

    fn refuse(&mut self, kind: &'static str, lines: &str, rest: &str) {
        self.with(kind, Want::Refused, lines, rest, None);
    }

    /// Refused, or with this body.
    fn either(&mut self, kind: &'static str, lines: &str, rest: &str) {
        self.with(kind, Want::Either, lines, rest, Some("hello"));
    }
}

/// What is written in one text, with a mark between.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split('¦')
}

/// Every case, kind by kind.
pub(crate) fn all() -> Vec<Case> {
    let mut table = Table(Vec::new());
    sound(&mut table);
    framing::lengths(&mut table);
    framing::codings(&mut table);
    framing::chunks(&mut table);
    lines::line_endings(&mut table);
    lines::start_lines(&mut table);
    lines::headers(&mut table);
    sizes(&mut table);
    table.0
}

/// So many cases of the table, of every kind alike, from a seed.
pub(crate) fn some(count: usize, chance: &mut Chance) -> Vec<Case> {
    let all = all();
    let mut kinds: Vec<Vec<Case>> = Vec::new();
    for case in all {
        match kinds.last_mut().filter(|kind| kind[0].kind == case.kind) {
            Some(kind) => kind.push(case),
            None => kinds.push(vec![case]),
        }
    }
    let mut chosen = Vec::new();
    while chosen.len() < count {
        for kind in &mut kinds {
            chosen.push(kind[chance.below(kind.len() as u64) as usize].clone());
        }
    }
    chosen.truncate(count);
    chosen
}

fn sound(table: &mut Table) {
    let hello = Some("hello");
    table.with("sound", Want::One, "Content-Length: 5", "hello", hello);
    table.with("sound", Want::One, "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", hello);
    table.with(
        "sound",
        Want::One,
        "Transfer-Encoding: chunked",
        "2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nx: y\r\n\r\n",
        hello,
    );
    table.with("sound", Want::One, "Content-Length: 0", "", Some(""));
    table.with("sound", Want::One, "X-A: 1", "", Some(""));
}

fn sizes(table: &mut Table) {
    let cl = "Content-Length: 5";
    for many in [90, 101, 500, 5000] {
        let lines = "X-A: b\r\n".repeat(many);
        let want = if many > 100 { Want::Refused } else { Want::Either };
        table.with("size", want, &format!("{lines}{cl}"), "hello", Some("hello"));
    }
    for bytes in [1000, 70_000, 1 << 20] {
        let long = "a".repeat(bytes);
        let want = if bytes > 100_000 { Want::Refused } else { Want::Either };
        table.with("size", want, &format!("X-A: {long}\r\n{cl}"), "hello", Some("hello"));
        table.with("size", want, &format!("X-{long}: a\r\n{cl}"), "hello", Some("hello"));
        table.add(
            "size",
            want,
            format!("POST /to/strict/{long}@ HTTP/1.1\r\nHost: 127.0.0.1\r\n{cl}\r\n\r\n"),
            "hello",
            None,
        );
        table.add(
            "size",
            want,
            format!("{long} /to/strict/c@ HTTP/1.1\r\nHost: 127.0.0.1\r\n{cl}\r\n\r\n"),
            "hello",
            None,
        );
        table.add("size", Want::Either, long, "", None);
    }
    table.refuse("size", "Content-Length: 600000", &"x".repeat(600_000));
    table.refuse("size", "Content-Length: 9223372036854775807", "hello");
    table.refuse("size", "Content-Length: 5000", "hello");
}
