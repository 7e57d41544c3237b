//! Where a body ends: lengths, codings and chunks.

use super::{SMUGGLED, START, Table, Want, listed};

pub(super) fn lengths(table: &mut Table) {
    let refused = listed(
        "+5¦-5¦0x5¦5_0¦5,6¦5, 6¦5;a¦1e1¦5.0¦\"5\"¦5 5¦¦five¦18446744073709551616¦\
        99999999999999999999¦-0¦+0¦5a¦a5¦0b101¦\u{665}¦5\u{a0}¦٥¦%35",
    );
    for value in refused {
        table.refuse("length", &format!("Content-Length: {value}"), &format!("hello{SMUGGLED}"));
        for (first, second) in [("5", value), (value, "5")] {
            let lines = format!("Content-Length: {first}\r\nX-A: b\r\nContent-Length: {second}");
            table.refuse("two lengths", &lines, &format!("hello{SMUGGLED}"));
        }
    }
    for value in listed("5¦05¦00000000000000000005¦\x205¦5 ¦\t5\t¦5,5¦5, 5") {
        table.either("length", &format!("Content-Length: {value}"), "hello");
        table.either("length", &format!("Content-Length:{value}"), "hello");
        table.either(
            "two lengths",
            &format!("Content-Length: {value}\r\nContent-Length: 5"),
            "hello",
        );
    }
    for (first, second) in
        [("5", "6"), ("6", "5"), ("0", "5"), ("5", "0"), ("500", "5"), ("5", "500")]
    {
        let lines = format!("Content-Length: {first}\r\nContent-Length: {second}");
        table.refuse("two lengths", &lines, &format!("hello{SMUGGLED}"));
    }
    // Names that are nearly it.
    for name in
        ["Content_Length", "Content-Length_", "X-Content-Length", "Content.Length", "ContentLength"]
    {
        table.with("nearly a length", Want::Either, &format!("{name}: 5"), "hello", Some(""));
        table.either("nearly a length", &format!("Content-Length: 5\r\n{name}: 500"), "hello");
    }
    for name in listed(
        "Content-Length ¦Content-Length\t¦\x20Content-Length¦Content-Length\0¦\
        \u{b}Content-Length¦Content Length¦Content-Length\r",
    ) {
        for lines in [
            format!("{name}: 5"),
            format!("Content-Length: 5\r\n{name}: 500"),
            format!("{name}: 500\r\nContent-Length: 5"),
        ] {
            table.refuse("nearly a length", &lines, &format!("hello{SMUGGLED}"));
        }
    }
}

pub(super) fn codings(table: &mut Table) {
    let chunked = format!("5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    let length = format!("0\r\n\r\n{SMUGGLED}");
    let refused = listed(
        "xchunked¦chunked, identity¦identity¦cow¦gzip¦chunked\0¦\u{b}chunked¦\"chunked\"¦\
        chunked;a=b¦chunked-¦¦chunked, cow¦chun ked¦\u{ff43}hunked",
    );
    // Codings that nobody here would take off again.
    let other = listed("gzip, chunked¦identity, chunked¦chunked, chunked¦,chunked¦chunked,");
    let sound = listed("chunked¦Chunked¦CHUNKED¦\x20chunked¦chunked ¦\tchunked\t");
    let refused = refused.chain(other).map(|value| (value, Want::Refused));
    let values = refused.chain(sound.map(|value| (value, Want::Either)));
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
        for cl in listed("5¦6¦0¦500") {
            let after = format!("Content-Length: {cl}\r\nTransfer-Encoding: {value}");
            let before = format!("Transfer-Encoding: {value}\r\nContent-Length: {cl}");
            table.with("length and coding", want, &after, &chunked, Some("hello"));
            table.with("length and coding", want, &before, &length, Some(""));
        }
        let two = format!("Transfer-Encoding: {value}\r\nTransfer-Encoding: identity");
        table.refuse("two codings", &two, &chunked);
        let two = format!(
            "Transfer-Encoding: identity\r\nTransfer-Encoding: {value}\r\nContent-Length: 5"
        );
        table.with("two codings", want, &two, &chunked, Some("hello"));
    }
    for name in listed(
        "Transfer-Encoding ¦Transfer-Encoding\t¦\x20Transfer-Encoding¦Transfer Encoding¦\
        Transfer-Encoding\0¦\u{b}Transfer-Encoding¦Transfer-Encoding\r",
    ) {
        table.refuse("nearly a coding", &format!("{name}: chunked"), &chunked);
        table.refuse(
            "nearly a coding",
            &format!("Content-Length: 5\r\n{name}: chunked"),
            &format!("hello{SMUGGLED}"),
        );
    }
    for name in ["Transfer_Encoding", "X-Transfer-Encoding", "Transfer-Encodin\u{130}"] {
        let lines = format!("Content-Length: 5\r\n{name}: chunked");
        table.either("nearly a coding", &lines, "hello");
    }
    for line in listed(
        "X: y\nTransfer-Encoding: chunked¦X: y\rTransfer-Encoding: chunked¦\
        X: y\r\r\nTransfer-Encoding: chunked¦X:\0Transfer-Encoding: chunked",
    ) {
        table.either("nearly a coding", &format!("Content-Length: 5\r\n{line}"), "hello");
    }
}

pub(super) fn chunks(table: &mut Table) {
    let te = "Transfer-Encoding: chunked";
    let refused = listed(
        "+5¦-5¦0x5¦5_¦_5¦g¦¦\x20¦5\r¦\r5¦10000000000000005¦fffffffffffffffff¦5\0¦5-¦\
        \u{665}¦5 5¦\t¦;a=b",
    );
    for size in refused {
        table.refuse("chunk size", te, &format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}"));
    }
    for size in listed("5¦05¦0000000000000005¦5 ¦5\t¦5;¦5;a¦5;a=b¦5;a=\"b;c\"¦5 ;a¦5; a = b¦5;a\0b")
    {
        table.either("chunk size", te, &format!("{size}\r\nhello\r\n0\r\n\r\n"));
    }
    for size in listed("\x205¦5\n¦5;a\n¦5;\n¦5;a\rb¦5;a=\"\r\n\"") {
        table.with(
            "chunk size",
            Want::Either,
            te,
            &format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
            None,
        );
    }
    for end in listed("\n¦\r¦¦x\r\n¦\r\n\r\n¦\x20\r\n¦\n\r") {
        table.refuse("chunk end", te, &format!("5\r\nhello{end}0\r\n\r\n{SMUGGLED}"));
    }
    for end in listed("0\n\n¦0\r\n\n¦0\n\r\n¦0\r\r\n¦0¦0\r\n¦0\r\n\r¦-0\r\n\r\n¦0x0\r\n\r\n")
    {
        table.either("last chunk", te, &format!("5\r\nhello\r\n{end}"));
        table.either("last chunk", te, &format!("5\r\nhello\r\n{end}{SMUGGLED}"));
    }
    for end in listed("00\r\n\r\n¦0;a\r\n\r\n¦0 \r\n\r\n¦000000000000000\r\n\r\n") {
        table.either("last chunk", te, &format!("5\r\nhello\r\n{end}"));
    }
    for trailer in listed(
        "Content-Length: 5¦Transfer-Encoding: chunked¦Host: evil¦Idempotency-Key: other¦\
        Onceward-Effects: idempotent¦Connection: close¦: x¦x¦x\0: y¦x : y¦\x20x: y",
    ) {
        table.either("trailer", te, &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"));
    }
    for (size, data) in [("4", "hello"), ("6", "hello"), ("5", "hell"), ("ff", "hello")] {
        table.refuse("chunk size", te, &format!("{size}\r\n{data}\r\n0\r\n\r\n{SMUGGLED}"));
    }
    let many = "1\r\nx\r\n".repeat(2000);
    table.with("chunk size", Want::Either, te, &format!("{many}0\r\n\r\n"), None);
    let ext = "a".repeat(100_000);
    table.either("chunk size", te, &format!("5;{ext}\r\nhello\r\n0\r\n\r\n"));
}
