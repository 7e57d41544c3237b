//! The cases: what each of them sends, as a script of requests. The script is what is run, what
//! `--plan` shows, and what a failure's curl lines repeat.

use std::time::Duration;

use bytes::Bytes;

use super::ask::{Api, Ask, Form, Key, Payload, Place, Who};

/// How many callers ask at once.
const AT_ONCE: usize = 8;

/// How often a race is run: the first time connections are still being opened.
const RACES: u8 = 3;

/// How long after it hung up a caller asks again.
const HUNG_UP: Duration = Duration::from_millis(300);

/// After this an answer's date is another: it counts seconds.
const DATE_MOVES: Duration = Duration::from_millis(1100);

/// By how much longer than its window a key is left alone.
const WINDOW_MARGIN: Duration = Duration::from_millis(700);

/// Which behaviour a case looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Control,
    Sequential,
    Concurrent,
    AfterPause,
    HungUp,
    LateAnswer,
    CutAndRetried,
    OtherPayload,
    PayloadRace,
    OtherPath,
    OtherQuery,
    OtherMethod,
    KeyQuotes,
    KeyEmpty,
    KeyOpenQuote,
    KeyTwice,
    KeyNotAscii,
    KeyTooLong,
    KeyCase,
    KeyLastByte,
    JsonForm,
    Headers,
    OtherCaller,
    ClientError,
    Failing(usize),
    Expiry,
}

/// One step of a script.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// One request, and its answer.
    Send(Ask),
    /// The same, again and again while the answer says that the first is still under way.
    Settle(Ask),
    /// All of them, behind a barrier.
    Together(Vec<Ask>),
    /// This many, each while those before it are under way.
    Overlap(Ask, u32),
    /// One request, whose caller is gone after this part of the time that an answer takes.
    HangUp(Ask, f64),
    Pause(Duration),
}

/// A case: what it is called, and what it sends.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    /// Its place in the list; markers and keys are made of it.
    pub(crate) no: u8,
    pub(crate) script: Vec<Act>,
    /// How many effects its keys should have.
    pub(crate) effects: u64,
    /// Why it cannot be run, where it cannot.
    pub(crate) skipped: Option<&'static str>,
}

/// What the cases need to know.
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    /// The pause after which a key has to hold still.
    pub(crate) pause: Duration,
    /// The window that the API says it has.
    pub(crate) window: Option<Duration>,
    /// Why there is no second caller, where there is none.
    pub(crate) no_other_caller: Option<&'static str>,
}

impl Kind {
    /// The word for it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Control => "control",
            Self::Sequential => "sequential",
            Self::Concurrent => "concurrent",
            Self::AfterPause => "after-pause",
            Self::HungUp => "hung-up",
            Self::LateAnswer => "late-answer",
            Self::CutAndRetried => "cut-and-retried",
            Self::OtherPayload => "other-payload",
            Self::PayloadRace => "payload-race",
            Self::OtherPath => "other-path",
            Self::OtherQuery => "other-query",
            Self::OtherMethod => "other-method",
            Self::KeyQuotes => "key-quotes",
            Self::KeyEmpty => "key-empty",
            Self::KeyOpenQuote => "key-open-quote",
            Self::KeyTwice => "key-twice",
            Self::KeyNotAscii => "key-not-ascii",
            Self::KeyTooLong => "key-too-long",
            Self::KeyCase => "key-case",
            Self::KeyLastByte => "key-last-byte",
            Self::JsonForm => "json-form",
            Self::Headers => "headers",
            Self::OtherCaller => "other-caller",
            Self::ClientError => "client-error",
            Self::Failing(n) => return format!("failing-{}", n + 1),
            Self::Expiry => "expiry",
        }
        .to_owned()
    }

    /// What is done, in a line.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Control => "two requests that nothing dedupes: two effects",
            Self::Sequential => "the same key again, one call after another",
            Self::Concurrent => "the same key from eight callers at once",
            Self::AfterPause => "the same key again after a pause",
            Self::HungUp => "the caller hung up, waited, and asked again",
            Self::LateAnswer => "asked again while the first is still under way",
            Self::CutAndRetried => "the connection was cut, and the retry came at once",
            Self::OtherPayload => "the same key with another payload",
            Self::PayloadRace => "one key with two payloads at once",
            Self::OtherPath => "the same key on another path",
            Self::OtherQuery => "the same key with another query",
            Self::OtherMethod => "the same key with another method",
            Self::KeyQuotes => "the same key, quoted and bare",
            Self::KeyEmpty => "an empty key",
            Self::KeyOpenQuote => "a key whose quote is never closed",
            Self::KeyTwice => "two lines with two keys",
            Self::KeyNotAscii => "a key that is not ASCII",
            Self::KeyTooLong => "a key of 256 bytes",
            Self::KeyCase => "two keys that differ in capitals alone",
            Self::KeyLastByte => "two long keys that differ in their last byte",
            Self::JsonForm => "the same JSON with other order and white space",
            Self::Headers => "which headers a replay carries",
            Self::OtherCaller => "another caller with the first one's key",
            Self::ClientError => "a request that is wrong, then put right under its key",
            Self::Failing(_) => "a request that fails, again with its key",
            Self::Expiry => "within the window, and after it",
        }
    }
}

/// All cases for this API.
pub(crate) fn cases(api: &Api, choices: &Choices) -> Vec<Case> {
    let mut cases = vec![Case {
        kind: Kind::Control,
        no: 0,
        script: vec![Act::Send(Ask::with(Key::None)), Act::Send(Ask::with(Key::None))],
        effects: 2,
        skipped: None,
    }];
    let mut add = |kind: Kind, effects: u64, script: Vec<Act>| {
        let skipped = why_not(kind, api, choices);
        cases.push(Case { kind, no: cases.len() as u8, script, effects, skipped });
    };
    again(choices, &mut add);
    unlike(api, &mut add);
    keys(api, &mut add);
    let ask = || Ask::with(Key::Made(0));
    add(Kind::Headers, 1, vec![Act::Send(ask()), Act::Pause(DATE_MOVES), Act::Send(ask())]);
    add(Kind::OtherCaller, 2, vec![Act::Send(ask()), Act::Send(ask().by(Who::Other))]);
    let wrong = || Act::Send(ask().form(Form::Broken));
    add(Kind::ClientError, 1, vec![wrong(), wrong(), Act::Send(ask())]);
    for n in 0..api.failing.len() {
        let failing = || ask().place(Place::Failing(n));
        add(Kind::Failing(n), 1, vec![Act::Send(failing()), Act::Settle(failing())]);
    }
    let half = choices.window.unwrap_or_default() / 2;
    let script = vec![
        Act::Send(ask()),
        Act::Pause(half),
        Act::Send(ask()),
        Act::Pause(half + WINDOW_MARGIN),
        Act::Send(ask()),
    ];
    add(Kind::Expiry, 1, script);
    cases
}

/// The same request again, in every way in which a retry comes.
fn again(choices: &Choices, add: &mut impl FnMut(Kind, u64, Vec<Act>)) {
    let ask = || Ask::with(Key::Made(0));
    add(Kind::Sequential, 1, vec![Act::Send(ask()), Act::Send(ask()), Act::Send(ask())]);
    let race = |n| {
        let ask = Ask::with(Key::Made(n));
        [Act::Together(vec![ask.clone(); AT_ONCE]), Act::Settle(ask)]
    };
    add(Kind::Concurrent, u64::from(RACES), (0..RACES).flat_map(race).collect());
    add(Kind::AfterPause, 1, vec![Act::Send(ask()), Act::Pause(choices.pause), Act::Send(ask())]);
    // One is gone in the middle of it, the other nearly at once.
    let gone = [(Ask::with(Key::Made(0)), 0.5), (Ask::with(Key::Made(1)), 0.1)];
    let mut script: Vec<Act> =
        gone.iter().map(|(ask, part)| Act::HangUp(ask.clone(), *part)).collect();
    script.push(Act::Pause(HUNG_UP));
    script.extend(gone.iter().map(|(ask, _)| Act::Settle(ask.clone())));
    script.extend(gone.iter().map(|(ask, _)| Act::Send(ask.clone())));
    add(Kind::HungUp, 2, script);
    add(Kind::LateAnswer, 1, vec![Act::Overlap(ask(), 3), Act::Settle(ask())]);
    add(Kind::CutAndRetried, 1, vec![Act::HangUp(ask(), 0.25), Act::Settle(ask())]);
}

/// The same key with a request that is not the same.
fn unlike(api: &Api, add: &mut impl FnMut(Kind, u64, Vec<Act>)) {
    let ask = || Ask::with(Key::Made(0));
    let b = |n| Ask::with(Key::Made(n)).payload(Payload::B);
    let between = |other: Ask| vec![Act::Send(ask()), Act::Send(other), Act::Send(ask())];
    add(Kind::OtherPayload, 1, between(b(0)));
    let race = |n| {
        let pair = [Ask::with(Key::Made(n)), b(n)];
        Act::Together(pair.iter().cycle().take(AT_ONCE).cloned().collect())
    };
    add(Kind::PayloadRace, u64::from(RACES), (0..RACES).map(race).collect());
    add(Kind::OtherPath, 1, between(ask().place(Place::OtherPath)));
    add(Kind::OtherQuery, 1, between(ask().place(Place::OtherQuery)));
    add(Kind::OtherMethod, 1, between(ask().place(Place::OtherMethod)));
    let reformed = ask().form(Form::Reformed);
    let script = vec![Act::Send(ask()), Act::Send(reformed)];
    add(Kind::JsonForm, 1, if api.is_json() { script } else { Vec::new() });
}

/// How keys are read.
fn keys(api: &Api, add: &mut impl FnMut(Kind, u64, Vec<Act>)) {
    let twice = |ask: Ask| vec![Act::Send(ask.clone()), Act::Send(ask)];
    let lines = |lines: &[Bytes]| twice(Ask::with(Key::Lines(lines.to_vec())));
    let text = |key: String| Act::Send(Ask::with(Key::Text(key)));
    let script = vec![Act::Send(Ask::with(Key::Made(0))), Act::Send(Ask::with(Key::Requoted(0)))];
    add(Kind::KeyQuotes, 1, script);
    add(Kind::KeyEmpty, 1, lines(&[Bytes::new()]));
    add(Kind::KeyOpenQuote, 1, lines(&[Bytes::from(api.named("\"open"))]));
    add(Kind::KeyTwice, 1, lines(&[api.named("one").into(), api.named("two").into()]));
    add(Kind::KeyNotAscii, 1, lines(&[Bytes::from(api.named("key-\u{e9}"))]));
    add(Kind::KeyTooLong, 1, lines(&[Bytes::from(long(&api.named("long"), 256, 'a'))]));
    let upper = api.named("Case-ABCDEF");
    let script = vec![text(upper.clone()), text(upper.to_ascii_lowercase())];
    add(Kind::KeyCase, 2, script);
    // The longest keys that APIs take: 255 at most of them, 64 and 36 at others.
    let pair = |length: usize| {
        let name = api.named(&length.to_string());
        ['a', 'b'].map(|last| text(long(&name, length, last)))
    };
    add(Kind::KeyLastByte, 6, [255, 64, 36].into_iter().flat_map(pair).collect());
}

/// A key of `length` bytes that begins with `name`, as far as it goes, and ends in `last`.
fn long(name: &str, length: usize, last: char) -> String {
    let mut key: String = name.chars().chain(std::iter::repeat('x')).take(length - 1).collect();
    key.push(last);
    key
}

fn why_not(kind: Kind, api: &Api, choices: &Choices) -> Option<&'static str> {
    match kind {
        Kind::OtherPayload | Kind::PayloadRace if !api.is_marked() => {
            Some("there is one payload: put {marker} into --body")
        }
        Kind::JsonForm | Kind::ClientError if !api.is_json() => Some("the body is not JSON"),
        Kind::OtherCaller => choices.no_other_caller,
        Kind::AfterPause if choices.window.is_some_and(|window| window <= choices.pause) => {
            Some("the window is over before the pause is: see expiry")
        }
        Kind::Expiry if choices.window.is_none() => {
            Some("to see a key expire, give the window: --window 2s")
        }
        _ => None,
    }
}

impl Case {
    /// How often its script says the same.
    pub(crate) fn rounds(&self) -> usize {
        if matches!(self.kind, Kind::Concurrent | Kind::PayloadRace) { RACES.into() } else { 1 }
    }
}

impl Act {
    /// The requests of this step.
    pub(crate) fn asks(&self) -> Vec<&Ask> {
        match self {
            Self::Send(ask) | Self::Settle(ask) | Self::HangUp(ask, _) => vec![ask],
            Self::Together(asks) => asks.iter().collect(),
            Self::Overlap(ask, times) => vec![ask; *times as usize],
            Self::Pause(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::tests::api;
    use super::*;

    fn choices() -> Choices {
        Choices { pause: Duration::from_secs(2), window: None, no_other_caller: None }
    }

    #[test]
    fn every_request_of_every_case_can_be_sent() {
        let api = api();
        let mut names = std::collections::HashSet::new();
        for case in cases(&api, &choices()) {
            assert!(names.insert(case.kind.name()), "{case:?}");
            assert!(!case.script.is_empty(), "{case:?}");
            for ask in case.script.iter().flat_map(Act::asks) {
                let wire = api.wire(ask, case.no).unwrap();
                for (name, value) in &wire.headers.0 {
                    http::HeaderValue::from_bytes(value).unwrap();
                    http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_asked_is_left_out_with_its_reason() {
        let reason = |api: &Api, choices: &Choices, kind: Kind| {
            cases(api, choices).into_iter().find(|case| case.kind == kind).unwrap().skipped
        };
        let plain = Api { body: "a=1".to_owned(), ..api() };
        assert!(reason(&plain, &choices(), Kind::OtherPayload).unwrap().contains("{marker}"));
        assert!(reason(&plain, &choices(), Kind::JsonForm).is_some());
        assert!(reason(&api(), &choices(), Kind::Expiry).unwrap().contains("--window"));
        let window = Choices { window: Some(Duration::from_secs(2)), ..choices() };
        assert_eq!(reason(&api(), &window, Kind::Expiry), None);
    }

    #[test]
    fn long_keys_have_their_length_and_differ_at_the_end() {
        let (a, b) = (long("name", 64, 'a'), long("name", 64, 'b'));
        assert_eq!((a.len(), b.len(), &a[..63]), (64, 64, &b[..63]));
        assert_ne!(a, b);
        assert_eq!(long("a-name-that-is-longer", 8, 'z'), "a-name-z");
    }
}
