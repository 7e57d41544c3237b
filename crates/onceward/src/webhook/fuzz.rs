//! A fuzz target: whatever comes as a webhook, only what its provider signed is verified.

use onceward_fuzz::Fuzz;

use super::tests::{Example, all};

const WORDS: &[&str] = &[
    "v1,",
    "v1a,",
    "v1=",
    "v0=",
    "t=",
    "sha256=",
    " ",
    ",",
    "=",
    "%2B",
    "+",
    "&",
    "bodySHA256=",
    "webhook-id: a\n",
    "content-type: application/x-www-form-urlencoded\n",
    "\n\n",
    "1649367553",
    "tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
];

/// An example as bytes: which, its URL, its header lines, an empty line, its body.
fn bytes_of((which, example): (usize, &Example)) -> Vec<u8> {
    let mut bytes = vec![which as u8];
    bytes.extend(example.url.as_bytes());
    for (name, value) in &example.headers {
        bytes.extend(format!("\n{name}: {value}").as_bytes());
    }
    bytes.extend(b"\n\n");
    bytes.extend(&example.body);
    bytes
}

/// What the bytes say, of the example that they begin with.
fn read(input: &[u8]) -> Option<(usize, Example)> {
    let (&which, rest) = input.split_first()?;
    let examples = all();
    let which = usize::from(which) % examples.len();
    let mut example = examples.into_iter().nth(which)?;
    let end = rest.windows(2).position(|pair| pair == b"\n\n")?;
    let mut lines = std::str::from_utf8(&rest[..end]).ok()?.split('\n');
    lines.next()?.clone_into(&mut example.url);
    let line = |line: &str| line.split_once(": ").map(|(name, value)| (name.into(), value.into()));
    example.headers = lines.filter_map(line).collect();
    example.body = rest[end + 2..].to_vec();
    Some((which, example))
}

#[test]
fn only_what_was_signed_is_verified_whatever_comes() {
    let examples = all();
    let seeds = examples.iter().enumerate().map(bytes_of).collect();
    Fuzz::new("webhook", 20_000, WORDS).with(seeds).run(|input| {
        let (which, example) = read(input)?;
        let verified = example.verified();
        if let Ok(verified) = &verified {
            // Several of a provider's examples may have one secret.
            let is_theirs =
                |it: &Example| it.verified().is_ok_and(|it| it.signed == verified.signed);
            assert!(examples.iter().any(is_theirs), "{example:?}");
        }
        Some((which, verified.map(|it| it.secret).map_err(|why| why.code())))
    });
}
