//! The table of malformed, oversized and smuggling requests: kinds of mischief times the ways to
//! send them.

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
}

/// Every case, kind by kind.
pub(crate) fn all() -> Vec<Case> {
    let mut table = Table(Vec::new());
    sound(&mut table);
    lengths(&mut table);
    codings(&mut table);
    chunks(&mut table);
    line_endings(&mut table);
    start_lines(&mut table);
    headers(&mut table);
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

fn lengths(table: &mut Table) {
    let refused = [
        "+5",
        "-5",
        "0x5",
        "5_0",
        "5,6",
        "5, 6",
        "5;a",
        "1e1",
        "5.0",
        "\"5\"",
        "5 5",
        "",
        "five",
        "18446744073709551616",
        "99999999999999999999",
        "-0",
        "+0",
        "5a",
        "a5",
        "0b101",
        "\u{665}",
        "5\u{a0}",
        "٥",
        "%35",
    ];
    for value in refused {
        table.with(
            "length",
            Want::Refused,
            &format!("Content-Length: {value}"),
            &format!("hello{SMUGGLED}"),
            None,
        );
        for (first, second) in [("5", value), (value, "5")] {
            let lines = format!("Content-Length: {first}\r\nX-A: b\r\nContent-Length: {second}");
            table.with("two lengths", Want::Refused, &lines, &format!("hello{SMUGGLED}"), None);
        }
    }
    for value in ["5", "05", "00000000000000000005", " 5", "5 ", "\t5\t", "5,5", "5, 5"] {
        table.with(
            "length",
            Want::Either,
            &format!("Content-Length: {value}"),
            "hello",
            Some("hello"),
        );
        table.with(
            "length",
            Want::Either,
            &format!("Content-Length:{value}"),
            "hello",
            Some("hello"),
        );
        table.with(
            "two lengths",
            Want::Either,
            &format!("Content-Length: {value}\r\nContent-Length: 5"),
            "hello",
            Some("hello"),
        );
    }
    for (first, second) in
        [("5", "6"), ("6", "5"), ("0", "5"), ("5", "0"), ("500", "5"), ("5", "500")]
    {
        let lines = format!("Content-Length: {first}\r\nContent-Length: {second}");
        table.with("two lengths", Want::Refused, &lines, &format!("hello{SMUGGLED}"), None);
    }
    // Names that are nearly it.
    for name in
        ["Content_Length", "Content-Length_", "X-Content-Length", "Content.Length", "ContentLength"]
    {
        table.with("nearly a length", Want::Either, &format!("{name}: 5"), "hello", Some(""));
        table.with(
            "nearly a length",
            Want::Either,
            &format!("Content-Length: 5\r\n{name}: 500"),
            "hello",
            Some("hello"),
        );
    }
    for name in [
        "Content-Length ",
        "Content-Length\t",
        " Content-Length",
        "Content-Length\0",
        "\u{b}Content-Length",
        "Content Length",
        "Content-Length\r",
    ] {
        for lines in [
            format!("{name}: 5"),
            format!("Content-Length: 5\r\n{name}: 500"),
            format!("{name}: 500\r\nContent-Length: 5"),
        ] {
            table.with("nearly a length", Want::Refused, &lines, &format!("hello{SMUGGLED}"), None);
        }
    }
}

fn codings(table: &mut Table) {
    let chunked = format!("5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    let length = format!("0\r\n\r\n{SMUGGLED}");
    let values = [
        ("xchunked", Want::Refused),
        ("chunked, identity", Want::Refused),
        ("identity", Want::Refused),
        ("cow", Want::Refused),
        ("gzip", Want::Refused),
        ("chunked\0", Want::Refused),
        ("\u{b}chunked", Want::Refused),
        ("\"chunked\"", Want::Refused),
        ("chunked;a=b", Want::Refused),
        ("chunked-", Want::Refused),
        ("", Want::Refused),
        ("chunked, cow", Want::Refused),
        ("chun ked", Want::Refused),
        ("\u{ff43}hunked", Want::Refused),
        // Codings that nobody here would take off again.
        ("gzip, chunked", Want::Refused),
        ("identity, chunked", Want::Refused),
        ("chunked, chunked", Want::Refused),
        (",chunked", Want::Refused),
        ("chunked,", Want::Refused),
        ("chunked", Want::Either),
        ("Chunked", Want::Either),
        ("CHUNKED", Want::Either),
        (" chunked", Want::Either),
        ("chunked ", Want::Either),
        ("\tchunked\t", Want::Either),
    ];
    for (value, want) in values {
        // Behind a sound body stands a sound second request, which is nothing to look for.
        let rest = if want == Want::Refused { &chunked } else { "5\r\nhello\r\n0\r\n\r\n" };
        table.with("coding", want, &format!("Transfer-Encoding: {value}"), rest, Some("hello"));
        table.add(
            "coding of 1.0",
            Want::Refused,
            format!("{}Transfer-Encoding: {value}\r\n\r\n", START.replace("1.1", "1.0")),
            chunked.clone(),
            None,
        );
        for cl in ["5", "6", "0", "500"] {
            let after = format!("Content-Length: {cl}\r\nTransfer-Encoding: {value}");
            let before = format!("Transfer-Encoding: {value}\r\nContent-Length: {cl}");
            table.with("length and coding", want, &after, &chunked, Some("hello"));
            table.with("length and coding", want, &before, &length, Some(""));
        }
        let two = format!("Transfer-Encoding: {value}\r\nTransfer-Encoding: identity");
        table.with("two codings", Want::Refused, &two, &chunked, None);
        let two = format!(
            "Transfer-Encoding: identity\r\nTransfer-Encoding: {value}\r\nContent-Length: 5"
        );
        table.with("two codings", want, &two, &chunked, Some("hello"));
    }
    for name in [
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        " Transfer-Encoding",
        "Transfer Encoding",
        "Transfer-Encoding\0",
        "\u{b}Transfer-Encoding",
        "Transfer-Encoding\r",
    ] {
        table.with("nearly a coding", Want::Refused, &format!("{name}: chunked"), &chunked, None);
        table.with(
            "nearly a coding",
            Want::Refused,
            &format!("Content-Length: 5\r\n{name}: chunked"),
            &format!("hello{SMUGGLED}"),
            None,
        );
    }
    for name in ["Transfer_Encoding", "X-Transfer-Encoding", "Transfer-Encodin\u{130}"] {
        let lines = format!("Content-Length: 5\r\n{name}: chunked");
        table.with("nearly a coding", Want::Either, &lines, "hello", Some("hello"));
    }
    for line in [
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\r\nTransfer-Encoding: chunked",
        "X:\0Transfer-Encoding: chunked",
    ] {
        table.with(
            "nearly a coding",
            Want::Either,
            &format!("Content-Length: 5\r\n{line}"),
            "hello",
            Some("hello"),
        );
    }
}

fn chunks(table: &mut Table) {
    let te = "Transfer-Encoding: chunked";
    let hello = Some("hello");
    let refused = [
        "+5",
        "-5",
        "0x5",
        "5_",
        "_5",
        "g",
        "",
        " ",
        "5\r",
        "\r5",
        "10000000000000005",
        "fffffffffffffffff",
        "5\0",
        "5-",
        "\u{665}",
        "5 5",
        "\t",
        ";a=b",
    ];
    for size in refused {
        table.with(
            "chunk size",
            Want::Refused,
            te,
            &format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
            None,
        );
    }
    for size in [
        "5",
        "05",
        "0000000000000005",
        "5 ",
        "5\t",
        "5;",
        "5;a",
        "5;a=b",
        "5;a=\"b;c\"",
        "5 ;a",
        "5; a = b",
        "5;a\0b",
    ] {
        table.with("chunk size", Want::Either, te, &format!("{size}\r\nhello\r\n0\r\n\r\n"), hello);
    }
    for size in [" 5", "5\n", "5;a\n", "5;\n", "5;a\rb", "5;a=\"\r\n\""] {
        table.with(
            "chunk size",
            Want::Either,
            te,
            &format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
            None,
        );
    }
    for end in ["\n", "\r", "", "x\r\n", "\r\n\r\n", " \r\n", "\n\r"] {
        table.with(
            "chunk end",
            Want::Refused,
            te,
            &format!("5\r\nhello{end}0\r\n\r\n{SMUGGLED}"),
            None,
        );
    }
    for end in [
        "0\n\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\r\n",
        "0",
        "0\r\n",
        "0\r\n\r",
        "-0\r\n\r\n",
        "0x0\r\n\r\n",
    ] {
        table.with("last chunk", Want::Either, te, &format!("5\r\nhello\r\n{end}"), hello);
        table.with(
            "last chunk",
            Want::Either,
            te,
            &format!("5\r\nhello\r\n{end}{SMUGGLED}"),
            hello,
        );
    }
    for end in ["00\r\n\r\n", "0;a\r\n\r\n", "0 \r\n\r\n", "000000000000000\r\n\r\n"] {
        table.with("last chunk", Want::Either, te, &format!("5\r\nhello\r\n{end}"), hello);
    }
    for trailer in [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Idempotency-Key: other",
        "Onceward-Effects: idempotent",
        "Connection: close",
        ": x",
        "x",
        "x\0: y",
        "x : y",
        " x: y",
    ] {
        table.with(
            "trailer",
            Want::Either,
            te,
            &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"),
            hello,
        );
    }
    for (size, data) in [("4", "hello"), ("6", "hello"), ("5", "hell"), ("ff", "hello")] {
        table.with(
            "chunk size",
            Want::Refused,
            te,
            &format!("{size}\r\n{data}\r\n0\r\n\r\n{SMUGGLED}"),
            None,
        );
    }
    let many = "1\r\nx\r\n".repeat(2000);
    table.with("chunk size", Want::Either, te, &format!("{many}0\r\n\r\n"), None);
    let ext = "a".repeat(100_000);
    table.with("chunk size", Want::Either, te, &format!("5;{ext}\r\nhello\r\n0\r\n\r\n"), hello);
}

fn line_endings(table: &mut Table) {
    let sound = format!("{START}Content-Length: 5\r\n\r\n");
    let all = |to: &str| sound.replace("\r\n", to);
    table.add("line end", Want::Either, all("\n"), "hello", Some("hello"));
    for to in ["\r", "\n\r", "\r\r\n", " \r\n\r\n", "\u{2028}", "\0\r\n"] {
        table.add("line end", Want::Refused, all(to), format!("hello{SMUGGLED}"), None);
    }
    for before in ["\r\n", "\r\n\r\n", "\n"] {
        table.add("line end", Want::Either, format!("{before}{sound}"), "hello", Some("hello"));
    }
    for before in [" ", "\t", "\0", "\r", "\u{feff}", "x\r\n", "\x16\x03\x01"] {
        table.add(
            "line end",
            Want::Refused,
            format!("{before}{sound}"),
            format!("hello{SMUGGLED}"),
            None,
        );
    }
    for line in [
        "X-A: a\rb",
        "X-A: a\0b",
        "X\0-A: b",
        "X-A : b",
        "X-A\t: b",
        "X A: b",
        ": b",
        "X-A",
        "X-A\u{e9}: b",
        "X(A): b",
        "X/A: b",
        "\"X\": b",
        "X-A: \x01",
        "X-A: a\x7fb",
        "X-A: b\r\n c",
        "X-A: b\r\n\tc",
        "X-A:\r\n b",
        "X-A: b\r\n ",
        "X-A: a\u{b}\r\n\u{b}b: c",
        "{}: b",
        "@: b\0",
    ] {
        table.with(
            "header line",
            Want::Refused,
            &format!("{line}\r\nContent-Length: 5"),
            &format!("hello{SMUGGLED}"),
            None,
        );
        table.with(
            "header line",
            Want::Refused,
            &format!("Content-Length: 5\r\n{line}"),
            &format!("hello{SMUGGLED}"),
            None,
        );
    }
    for line in [
        "X-A:b",
        "X-A:  b  ",
        "X-A:\tb\t",
        "X-A:",
        "X-A: \u{e9}",
        "x-a: a:b",
        "X!#$%&'*+-.^_`|~A: b",
        "X_A: b",
    ] {
        table.with(
            "header line",
            Want::Either,
            &format!("{line}\r\nContent-Length: 5"),
            "hello",
            Some("hello"),
        );
    }
}

fn start_lines(table: &mut Table) {
    let rest = "Host: 127.0.0.1\r\nIdempotency-Key: k@\r\nContent-Length: 5\r\n\r\n";
    let refused = [
        "POST /to/strict/c@",
        "POST  /to/strict/c@ HTTP/1.1",
        "POST /to/strict/c@  HTTP/1.1",
        "POST /to/strict/c@ HTTP/1.1 x",
        "POST /to/strict/c@ http/1.1",
        "POST /to/strict/c@ HTTP/1",
        "POST /to/strict/c@ HTTP/1.2",
        "POST /to/strict/c@ HTTP/2.0",
        "POST /to/strict/c@ HTTP/3",
        "POST /to/strict/c@ HTTP/11.1",
        "POST /to/strict/c@ HTTP/0.9",
        "POST\t/to/strict/c@\tHTTP/1.1",
        "POST\0 /to/strict/c@ HTTP/1.1",
        "POST /to/strict/c@\0 HTTP/1.1",
        "POST to/strict/c@ HTTP/1.1",
        "POST * HTTP/1.1",
        "POST a:80 HTTP/1.1",
        "CONNECT /to/strict/c@ HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "PO ST /to/strict/c@ HTTP/1.1",
        "(POST) /to/strict/c@ HTTP/1.1",
        " /to/strict/c@ HTTP/1.1",
        "/to/strict/c@ HTTP/1.1",
        "PRI * HTTP/2.0",
        "POST //to/strict/c@ HTTP/1.1",
        "POST /to/strict/c@\u{e9}\0 HTTP/1.1",
        "POST /TO/strict/c@ HTTP/1.1",
        "POST /to%2fstrict/c@ HTTP/1.1",
        "POST /healthz/../to/strict/c@ HTTP/1.1",
        "POST \\to\\strict\\c@ HTTP/1.1",
        "POST /to/other/c@ HTTP/1.1",
        "POST /to/strict%2f/c@ HTTP/1.1",
        "POST /to//strict/c@ HTTP/1.1",
        "POST /to/./strict/c@ HTTP/1.1",
    ];
    for line in refused {
        table.add("start line", Want::Refused, format!("{line}\r\n{rest}"), "hello", None);
    }
    let either = [
        "POST http://evil.example/to/strict/c@ HTTP/1.1",
        "POST https://evil.example:1/to/strict/c@ HTTP/1.1",
        "POST http://u:p@evil.example/to/strict/c@ HTTP/1.1",
        "POST HTTP://EVIL/to/strict/c@ HTTP/1.1",
        "POST ftp://a/to/strict/c@ HTTP/1.1",
        "POST /to/strict/c@ HTTP/1.1 ",
        "POST /to/strict/c@ HTTP/1.0",
        "post /to/strict/c@ HTTP/1.1",
        "BREW /to/strict/c@ HTTP/1.1",
        "P!O#S$T /to/strict/c@ HTTP/1.1",
        "PUT /to/strict/c@ HTTP/1.1",
        "DELETE /to/strict/c@ HTTP/1.1",
        "GET /to/strict/c@ HTTP/1.1",
        "TRACE /to/strict/c@ HTTP/1.1",
        "POST /to/strict/c@/../x HTTP/1.1",
        "POST /to/strict/c@/%2e%2e/x HTTP/1.1",
        "POST /to/strict/c@#f HTTP/1.1",
        "POST /to/strict/c@?a=b#c HTTP/1.1",
        "POST /to/strict/c@?a b HTTP/1.1",
        "POST /to/strict/c@/é HTTP/1.1",
        "POST /to/strict/c@%0d%0aX:y HTTP/1.1",
        "POST /to/strict/c@%00 HTTP/1.1",
        "POST /to/strict/c@;a=b HTTP/1.1",
        "POST /to/strict/c@%zz HTTP/1.1",
        "POST /to/strict/c@\"<>{}|^` HTTP/1.1",
        "POST /to/strict/c@?x={}\"<> HTTP/1.1",
        "POST /to/strict/c@\\..\\x HTTP/1.1",
    ];
    for line in either {
        table.add("start line", Want::Either, format!("{line}\r\n{rest}"), "hello", None);
    }
}

fn headers(table: &mut Table) {
    let cl = "Content-Length: 5";
    for named in [
        "close, X-A",
        "Content-Length",
        "Host",
        "Idempotency-Key",
        "Onceward-Operation",
        "Content-Length, Transfer-Encoding",
        "X-A,,, ,X-B",
        "keep-alive",
        "Upgrade",
        "TE",
        "\"X-A\"",
        "close\r\nConnection: keep-alive",
        "Idempotency-Key, Baggage, Accept-Encoding",
    ] {
        table.with(
            "named by Connection",
            Want::Either,
            &format!("{cl}\r\nConnection: {named}\r\nX-A: secret"),
            "hello",
            Some("hello"),
        );
    }
    for lines in [
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Upgrade: foo",
        "Expect: 100-continue",
        "Expect: 200-ok",
        "TE: trailers, chunked",
        "Trailer: X-A",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "X-Forwarded-For: 127.0.0.1",
        "X_Forwarded_For: 127.0.0.1",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: https",
        "Forwarded: for=127.0.0.1",
        "Onceward-State: done",
        "Onceward-Operation: op_01kb2n9f5nep3b8m6wq6r9t2vx",
        "Onceward-Attempt: 7",
        "Idempotent-Replayed: true",
        "Idempotency_Key: other",
        "Baggage: a=b\r\nBaggage: c=d",
        "Host: evil",
        "Host: a b",
        "Content-Encoding: gzip",
        "Accept-Encoding: gzip",
        "Cookie: a=b\r\nCookie: c=d",
        "Authorization: Basic eA==",
    ] {
        table.with("header", Want::Either, &format!("{cl}\r\n{lines}"), "hello", Some("hello"));
    }
    for lines in [
        "Idempotency-Key: other",
        "Idempotency-Key: k@",
        "idempotency-key:",
        "Onceward-Nothing: x",
        "Onceward-Attempts-Max: -1",
        "Onceward-Delay: 1h",
        "Onceward-Timeout: x",
    ] {
        table.with("header", Want::Refused, &format!("{cl}\r\n{lines}"), "hello", None);
    }
    for key in ["\"unclosed", "a,b", "a b", "\"a\" b", "\u{e9}", "\"\"", "a\\b"] {
        let start = START.replace("k@", key);
        table.add("key", Want::Refused, format!("{start}{cl}\r\n\r\n"), "hello", None);
    }
    for key in ["\"k@\"", "\"k@, x\"", "\"k@\\\"\"", "\"k@\";p=1", "k@;p=1"] {
        let start = START.replace("k@", key);
        table.add("key", Want::One, format!("{start}{cl}\r\n\r\n"), "hello", Some("hello"));
    }
    for host in [
        "",
        "Host:\r\n",
        "Host: 127.0.0.1\r\nHost: b\r\n",
        "Host: 127.0.0.1, b\r\n",
        "Host: http://a/\r\n",
        "Host: a@b\r\n",
    ] {
        let start = START.replace("Host: 127.0.0.1\r\n", host);
        table.add("host", Want::Either, format!("{start}{cl}\r\n\r\n"), "hello", Some("hello"));
    }
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
    table.with("size", Want::Refused, "Content-Length: 600000", &"x".repeat(600_000), None);
    table.with("size", Want::Refused, "Content-Length: 9223372036854775807", "hello", None);
    table.with("size", Want::Refused, "Content-Length: 50", "hello", None);
}
