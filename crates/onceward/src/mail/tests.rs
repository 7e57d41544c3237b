use onceward_core::redact::Redaction;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const MAX: usize = 1 << 20;

fn request(body: &Value) -> Request {
    let json = ("content-type".to_owned(), Bytes::from_static(b"application/json"));
    Request {
        method: "POST".to_owned(),
        target: "/".to_owned(),
        headers: Headers(vec![json]),
        body: body.to_string().into(),
    }
}

fn read(body: &Value) -> Result<Mail, String> {
    Mail::read(&request(body), MAX, &FingerprintRule::default())
        .map_err(|refusal| refusal.to_string())
}

fn remembered(mail: &Mail) -> Request {
    let at = Timestamp::from_micros(1_790_000_000_000_000);
    mail.remembered(&request(&Value::Null), OperationId::new(7, 7), at)
}

/// The lines of a mail's head, those that go on joined.
fn head(message: &[u8]) -> Vec<String> {
    let text = String::from_utf8(message.to_vec()).unwrap();
    let head = text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
    head.split("\r\n").map(str::to_owned).collect()
}

fn hello() -> Value {
    json!({"from": "Ada <ada@example.com>", "to": "bob@example.com", "subject": "Hello", "text": "Hi"})
}

#[test]
fn a_mail_is_rendered_once_and_named_by_its_operation() {
    let body = json!({
        "from": "Ada Lovelace <ada@example.com>",
        "to": ["Bob <bob@example.com>", "eve@example.com"],
        "cc": "carl@example.com",
        "bcc": ["dan@example.com", "bob@example.com"],
        "reply_to": "\"Help, desk\" <help@example.com>",
        "subject": "Grüße",
        "text": ".\r\na line\n",
        "headers": {"X-Campaign": "welcome", "List-Unsubscribe": "<https://a.example/u>"},
    });
    let mail = read(&body).unwrap();
    assert_eq!(
        mail.to,
        ["bob@example.com", "eve@example.com", "carl@example.com", "dan@example.com"]
    );
    let kept = remembered(&mail);
    assert_eq!(kept, remembered(&mail), "the same bytes each time");
    let id = OperationId::new(7, 7);
    assert_eq!(kept.headers.text(MESSAGE_ID), Some(&*format!("<{id}@example.com>")));
    assert_eq!(kept.headers.all(TO).count(), 4);
    let lines = head(&kept.body);
    for wanted in [
        &*format!("Message-ID: <{id}@example.com>"),
        "Date: Mon, 21 Sep 2026 14:13:20 +0000",
        "From: \"Ada Lovelace\" <ada@example.com>",
        "To: Bob <bob@example.com>, eve@example.com",
        "Cc: carl@example.com",
        "Reply-To: =?utf-8?b?SGVscCwgZGVzaw==?= <help@example.com>",
        "Subject: =?utf-8?b?R3LDvMOfZQ==?=",
        "X-Campaign: welcome",
        "List-Unsubscribe: <https://a.example/u>",
    ] {
        assert!(lines.iter().any(|line| line == wanted), "{wanted}\n{lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.to_lowercase().starts_with("bcc")), "nobody sees them");
    assert_eq!(lines.iter().filter(|line| line.starts_with("Date:")).count(), 1);
}

#[test]
fn html_and_what_is_attached_come_in_parts() {
    let mut body = hello();
    body["html"] = json!("<p>Hi <img src=cid:logo></p>");
    body["attachments"] = json!([
        {"filename": "logo.png", "content_type": "image/png", "content": "AAEC", "content_id": "logo"},
        {"filename": "Rechnung ä.pdf", "content_type": "application/pdf", "content": "JVBERg=="},
        {"filename": "b.bin", "content": ""},
    ]);
    let kept = String::from_utf8(remembered(&read(&body).unwrap()).body.to_vec()).unwrap();
    let order = [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
        "application/octet-stream",
    ];
    let mut at = 0;
    for kind in order {
        let found = kept[at..].find(kind).unwrap_or_else(|| panic!("{kind} behind {at}\n{kept}"));
        at += found + kind.len();
    }
    assert!(kept.contains("Content-ID: <logo>") && kept.contains("JVBERg=="));
}

#[test]
fn no_value_makes_a_line_of_its_own() {
    let evil = "x\r\nBcc: eve@example.com";
    for (place, value) in [
        ("from", json!(format!("ada@example.com{evil}"))),
        ("to", json!([format!("Bob {evil} <bob@example.com>")])),
        ("cc", json!("bob@example.com>\r\nRCPT TO:<eve@example.com")),
        ("reply_to", json!(format!("{evil}@example.com"))),
        ("subject", json!(evil)),
        ("subject", json!("a\u{0}b")),
        ("headers", json!({"X-A": evil})),
        ("headers", json!({"X-A\r\nBcc": "eve@example.com"})),
        ("headers", json!({"Bcc": "eve@example.com"})),
        ("headers", json!({"content-type": "text/html"})),
        ("text", json!("a\u{0}b")),
        ("attachments", json!([{"filename": evil, "content": ""}])),
        ("attachments", json!([{"filename": "a", "content_type": evil, "content": ""}])),
        ("attachments", json!([{"filename": "a", "content_id": evil, "content": ""}])),
    ] {
        let mut body = hello();
        body["html"] = json!("<p>");
        body[place] = value.clone();
        assert!(read(&body).is_err(), "{place}: {value}");
    }
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_mend() {
    let many: Vec<_> = (0..=RECIPIENTS_MAX).map(|n| format!("a{n}@example.com")).collect();
    for (place, value, said) in [
        ("to", json!([]), "for nobody"),
        ("to", json!(many), "100 at most"),
        ("to", json!("bob"), "no address"),
        ("to", json!("a@example.com, b@example.com"), "no address"),
        ("to", json!("bób@example.com"), "no address"),
        ("from", json!("a b@example.com"), "no address"),
        ("text", Value::Null, "says nothing"),
        ("subject", json!("x".repeat(1000)), "longer than"),
        ("txt", json!("x"), "txt"),
        ("attachments", json!([{"filename": "a", "content": "%"}]), "no base64"),
        ("attachments", json!([{"filename": "a", "content_type": "x", "content": ""}]), "no type"),
    ] {
        let mut body = hello();
        body[place] = value;
        let refused = read(&body).unwrap_err();
        assert!(refused.contains(said), "{place}: {refused}");
    }
    let get = Request { method: "GET".to_owned(), ..request(&hello()) };
    assert!(Mail::read(&get, MAX, &FingerprintRule::default()).is_err());
    let large = Mail::read(&request(&hello()), 10, &FingerprintRule::default());
    assert!(matches!(large, Err(Refusal::BodyTooLarge { bytes_max: 10 })));
}

#[test]
fn a_mail_that_was_remembered_can_be_sent_anew_under_another_name() {
    let mut first = remembered(&read(&hello()).unwrap());
    let again = Mail::read(&first, MAX, &FingerprintRule::default()).unwrap();
    assert_eq!((&*again.from, &*again.subject), ("ada@example.com", "Hello"));
    let at = Timestamp::from_micros(1_790_000_001_000_000);
    let second = again.remembered(&first, OperationId::new(8, 8), at);
    let but_name = |request: &Request| {
        let mut lines = head(&request.body);
        lines.retain(|line| !line.starts_with("Message-ID") && !line.starts_with("Date"));
        lines
    };
    assert_eq!(but_name(&first), but_name(&second));
    assert_ne!(first.headers.text(MESSAGE_ID), second.headers.text(MESSAGE_ID));
    assert_eq!(head(&second.body).iter().filter(|line| line.starts_with("Message-ID")).count(), 1);
    for (bad, said) in [
        ("From: a@example.com\r\nSubject: x\n\r\nbody", "CRLF"),
        ("From: a@example.com\r\n\r\na\n.\nb", "CRLF"),
        ("Subject: x\r\n\r\nbody\r\n", "no From"),
        ("From: a@example.com\r\nno field\r\n\r\nbody\r\n", "no line of a head"),
        ("From: a@example.com\r\n\r\nü\r\n", "7-bit"),
    ] {
        first.body = Bytes::from_static(bad.as_bytes());
        let refused = Mail::read(&first, MAX, &FingerprintRule::default()).unwrap_err().to_string();
        assert!(refused.contains(said), "{bad:?}: {refused}");
    }
}

#[test]
fn an_operation_is_found_by_what_people_see_of_its_mail() {
    let mail = read(&hello()).unwrap();
    let id = OperationId::new(7, 7);
    let names = |policy: &Policy| -> Vec<String> {
        mail.ids(id, policy).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&Policy::default()), ["message_id", "to", "subject"]);
    let redact = Redaction { pointers: vec!["/to".to_owned()], ..Redaction::default() };
    assert_eq!(names(&Policy { redact, ..Policy::default() }), ["message_id"]);
}

proptest! {
    #[test]
    fn whatever_a_mail_says_its_head_has_no_lines_but_its_own(
        subject in ".{0,60}", name in ".{0,30}", text in "(?s).{0,200}", value in ".{0,60}",
    ) {
        let body = json!({
            "from": format!("{name} <ada@example.com>"),
            "to": "bob@example.com",
            "subject": subject,
            "text": text,
            "headers": {"X-A": value},
        });
        if let Ok(mail) = read(&body) {
            let kept = remembered(&mail);
            let own = ["Message-ID", "Date", "From", "To", "Subject", "X-A", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];
            for line in head(&kept.body) {
                let field = line.split(':').next().unwrap();
                prop_assert!(own.contains(&field), "{}", line);
            }
            prop_assert!(mail.check().is_ok());
        }
    }

    #[test]
    fn whatever_is_posted_as_a_whole_mail_nothing_breaks(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut raw = remembered(&read(&hello()).unwrap());
        raw.body = body.into();
        let _ = Mail::read(&raw, MAX, &FingerprintRule::default());
    }
}

#[test]
fn domains_have_no_case_and_a_name_before_them_has() {
    let mut body = hello();
    body["to"] = json!(["ada@Example.COM", "ada@example.com", "Ada@example.com"]);
    assert_eq!(read(&body).unwrap().to, ["ada@example.com", "Ada@example.com"]);
}

#[test]
fn the_subject_of_a_whole_mail_is_what_its_encoded_words_say() {
    for (written, said) in [
        ("=?utf-8?b?R3LDvMOfZQ==?=", "Grüße"),
        ("=?UTF-8?Q?Gr=C3=BC?= =?utf-8?q?=C3=9Fe?=", "Grüße"),
        (
            "Re: =?iso-8859-1?Q?Gr=FC=DFe?= an =?us-ascii*en?q?all_of=20you?=",
            "Re: Grüße an all of you",
        ),
        ("=?utf-8?q?a=0D=0Ab?=", "a  b"),
        ("=?koi8-r?b?xcw=?= =?utf-8?q?=F?= =?x?=", "=?koi8-r?b?xcw=?= =?utf-8?q?=F?= =?x?="),
        ("plain\r\n and  folded", "plain and folded"),
    ] {
        let line = |name: &str, value: &'static str| (name.to_owned(), Bytes::from(value));
        let whole = Request {
            headers: Headers(vec![
                line("content-type", "message/rfc822"),
                line(FROM, "a@example.com"),
                line(TO, "b@example.com"),
            ]),
            body: format!("From: a@example.com\r\nSubject: {written}\r\n\r\nHi\r\n").into(),
            ..request(&Value::Null)
        };
        let mail = Mail::read(&whole, MAX, &FingerprintRule::default()).unwrap();
        assert_eq!(mail.subject, said, "{written}");
    }
}
