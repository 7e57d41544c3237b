//! Line endings, request lines and headers.

use super::{SMUGGLED, START, Table, Want, listed};

pub(super) fn line_endings(table: &mut Table) {
    let sound = format!("{START}Content-Length: 5\r\n\r\n");
    let all = |to: &str| sound.replace("\r\n", to);
    table.add("line end", Want::Either, all("\n"), "hello", Some("hello"));
    for to in listed("\r¦\n\r¦\r\r\n¦\x20\r\n\r\n¦\u{2028}¦\0\r\n") {
        table.add("line end", Want::Refused, all(to), format!("hello{SMUGGLED}"), None);
    }
    for before in ["\r\n", "\r\n\r\n", "\n"] {
        table.add("line end", Want::Either, format!("{before}{sound}"), "hello", Some("hello"));
    }
    for before in listed("\x20¦\t¦\0¦\r¦\u{feff}¦x\r\n¦\x16\x03\x01") {
        table.add(
            "line end",
            Want::Refused,
            format!("{before}{sound}"),
            format!("hello{SMUGGLED}"),
            None,
        );
    }
    for line in listed(
        "X-A: a\rb¦X-A: a\0b¦X\0-A: b¦X-A : b¦X-A\t: b¦X A: b¦: b¦X-A¦X-A\u{e9}: b¦\
        X(A): b¦X/A: b¦\"X\": b¦X-A: \x01¦X-A: a\x7fb¦X-A: b\r\n c¦X-A: b\r\n\tc¦\
        X-A:\r\n b¦X-A: b\r\n ¦X-A: a\u{b}\r\n\u{b}b: c¦{}: b¦@: b\0",
    ) {
        table.refuse(
            "header line",
            &format!("{line}\r\nContent-Length: 5"),
            &format!("hello{SMUGGLED}"),
        );
        table.refuse(
            "header line",
            &format!("Content-Length: 5\r\n{line}"),
            &format!("hello{SMUGGLED}"),
        );
    }
    for line in
        listed("X-A:b¦X-A:  b  ¦X-A:\tb\t¦X-A:¦X-A: \u{e9}¦x-a: a:b¦X!#$%&'*+-.^_`|~A: b¦X_A: b")
    {
        table.either("header line", &format!("{line}\r\nContent-Length: 5"), "hello");
    }
}

pub(super) fn start_lines(table: &mut Table) {
    let rest = "Host: 127.0.0.1\r\nIdempotency-Key: k@\r\nContent-Length: 5\r\n\r\n";
    let refused = listed(
        "POST /to/strict/c@¦POST  /to/strict/c@ HTTP/1.1¦POST /to/strict/c@  HTTP/1.1¦\
        POST /to/strict/c@ HTTP/1.1 x¦POST /to/strict/c@ http/1.1¦\
        POST /to/strict/c@ HTTP/1¦POST /to/strict/c@ HTTP/1.2¦\
        POST /to/strict/c@ HTTP/2.0¦POST /to/strict/c@ HTTP/3¦\
        POST /to/strict/c@ HTTP/11.1¦POST /to/strict/c@ HTTP/0.9¦\
        POST\t/to/strict/c@\tHTTP/1.1¦POST\0 /to/strict/c@ HTTP/1.1¦\
        POST /to/strict/c@\0 HTTP/1.1¦POST to/strict/c@ HTTP/1.1¦POST * HTTP/1.1¦\
        POST a:80 HTTP/1.1¦CONNECT /to/strict/c@ HTTP/1.1¦CONNECT a:80 HTTP/1.1¦\
        PO ST /to/strict/c@ HTTP/1.1¦(POST) /to/strict/c@ HTTP/1.1¦\
        \x20/to/strict/c@ HTTP/1.1¦/to/strict/c@ HTTP/1.1¦PRI * HTTP/2.0¦\
        POST //to/strict/c@ HTTP/1.1¦POST /to/strict/c@\u{e9}\0 HTTP/1.1¦\
        POST /TO/strict/c@ HTTP/1.1¦POST /to%2fstrict/c@ HTTP/1.1¦\
        POST /healthz/../to/strict/c@ HTTP/1.1¦POST \\to\\strict\\c@ HTTP/1.1¦\
        POST /to/other/c@ HTTP/1.1¦POST /to/strict%2f/c@ HTTP/1.1¦\
        POST /to//strict/c@ HTTP/1.1¦POST /to/./strict/c@ HTTP/1.1",
    );
    for line in refused {
        table.add("start line", Want::Refused, format!("{line}\r\n{rest}"), "hello", None);
    }
    let either = listed(
        "POST http://evil.example/to/strict/c@ HTTP/1.1¦\
        POST https://evil.example:1/to/strict/c@ HTTP/1.1¦\
        POST http://u:p@evil.example/to/strict/c@ HTTP/1.1¦\
        POST HTTP://EVIL/to/strict/c@ HTTP/1.1¦POST ftp://a/to/strict/c@ HTTP/1.1¦\
        POST /to/strict/c@ HTTP/1.1 ¦POST /to/strict/c@ HTTP/1.0¦\
        post /to/strict/c@ HTTP/1.1¦BREW /to/strict/c@ HTTP/1.1¦\
        P!O#S$T /to/strict/c@ HTTP/1.1¦PUT /to/strict/c@ HTTP/1.1¦\
        DELETE /to/strict/c@ HTTP/1.1¦GET /to/strict/c@ HTTP/1.1¦\
        TRACE /to/strict/c@ HTTP/1.1¦POST /to/strict/c@/../x HTTP/1.1¦\
        POST /to/strict/c@/%2e%2e/x HTTP/1.1¦POST /to/strict/c@#f HTTP/1.1¦\
        POST /to/strict/c@?a=b#c HTTP/1.1¦POST /to/strict/c@?a b HTTP/1.1¦\
        POST /to/strict/c@/é HTTP/1.1¦POST /to/strict/c@%0d%0aX:y HTTP/1.1¦\
        POST /to/strict/c@%00 HTTP/1.1¦POST /to/strict/c@;a=b HTTP/1.1¦\
        POST /to/strict/c@%zz HTTP/1.1¦POST /to/strict/c@\"<>{}|^` HTTP/1.1¦\
        POST /to/strict/c@?x={}\"<> HTTP/1.1¦POST /to/strict/c@\\..\\x HTTP/1.1",
    );
    for line in either {
        table.add("start line", Want::Either, format!("{line}\r\n{rest}"), "hello", None);
    }
}

pub(super) fn headers(table: &mut Table) {
    let cl = "Content-Length: 5";
    for named in listed(
        "close, X-A¦Content-Length¦Host¦Idempotency-Key¦Onceward-Operation¦\
        Content-Length, Transfer-Encoding¦X-A,,, ,X-B¦keep-alive¦Upgrade¦TE¦\"X-A\"¦\
        close\r\nConnection: keep-alive¦Idempotency-Key, Baggage, Accept-Encoding",
    ) {
        table.either(
            "named by Connection",
            &format!("{cl}\r\nConnection: {named}\r\nX-A: secret"),
            "hello",
        );
    }
    for lines in listed(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13¦\
        Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__¦\
        Upgrade: foo¦Expect: 100-continue¦Expect: 200-ok¦TE: trailers, chunked¦\
        Trailer: X-A¦Keep-Alive: timeout=5¦Proxy-Connection: keep-alive¦\
        Proxy-Authorization: Basic eA==¦X-Forwarded-For: 127.0.0.1¦\
        X_Forwarded_For: 127.0.0.1¦X-Forwarded-Host: evil¦X-Forwarded-Proto: https¦\
        Forwarded: for=127.0.0.1¦Onceward-State: done¦\
        Onceward-Operation: op_01kb2n9f5nep3b8m6wq6r9t2vx¦Onceward-Attempt: 7¦\
        Idempotent-Replayed: true¦Idempotency_Key: other¦Baggage: a=b\r\nBaggage: c=d¦\
        Host: evil¦Host: a b¦Content-Encoding: gzip¦Accept-Encoding: gzip¦\
        Cookie: a=b\r\nCookie: c=d¦Authorization: Basic eA==",
    ) {
        table.either("header", &format!("{cl}\r\n{lines}"), "hello");
    }
    for lines in listed(
        "Idempotency-Key: other¦Idempotency-Key: k@¦idempotency-key:¦Onceward-Nothing: x¦\
        Onceward-Attempts-Max: -1¦Onceward-Delay: 1h¦Onceward-Timeout: x",
    ) {
        table.refuse("header", &format!("{cl}\r\n{lines}"), "hello");
    }
    for key in listed("\"unclosed¦a,b¦a b¦\"a\" b¦\u{e9}¦\"\"¦a\\b") {
        let start = START.replace("k@", key);
        table.add("key", Want::Refused, format!("{start}{cl}\r\n\r\n"), "hello", None);
    }
    for key in listed("\"k@\"¦\"k@, x\"¦\"k@\\\"\"¦\"k@\";p=1¦k@;p=1") {
        let start = START.replace("k@", key);
        table.add("key", Want::One, format!("{start}{cl}\r\n\r\n"), "hello", Some("hello"));
    }
    for host in listed(
        "¦Host:\r\n¦Host: 127.0.0.1\r\nHost: b\r\n¦Host: 127.0.0.1, b\r\n¦\
        Host: http://a/\r\n¦Host: a@b\r\n",
    ) {
        let start = START.replace("Host: 127.0.0.1\r\n", host);
        table.add("host", Want::Either, format!("{start}{cl}\r\n\r\n"), "hello", Some("hello"));
    }
}
