//! The control: two requests that nothing dedupes have to have two effects. Where that is not
//! seen, no count of effects means anything, and nothing is judged.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::ask::{Api, Ask, Key, Payload, Wire};
use super::caller::Caller;
use super::heard::{Answer, Heard, Observed, Reply};
use super::oracle::{Identity, Oracle, Probe, number_in};

/// How often a count is asked for.
const PROBES_MAX: u32 = 3;

/// Between two of these.
const PROBES_AGAIN: Duration = Duration::from_millis(200);

/// How long a count may lag behind the answer.
pub(crate) const COUNT_LAG: Duration = Duration::from_secs(2);

/// What the control found out.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) oracle: Oracle,
    /// How long an answer takes.
    pub(crate) latency: Duration,
    /// How the API takes requests without a key.
    pub(crate) keyless: Keyless,
    pub(crate) observed: Observed,
}

/// What becomes of a request without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyless {
    /// Each is an effect of its own.
    Executed,
    /// It is refused.
    Refused,
    /// It is deduped by what is in it.
    Deduped,
}

/// Why there was no control.
#[derive(Debug)]
pub(crate) enum Blind {
    /// The API does not take the request.
    Refused(Reply),
    /// It does, but not with a key.
    KeyRefused(Reply),
    /// A request succeeded, the first or the second, and the count did not grow.
    NotCounted(usize),
    /// The count grew by this, and then by that.
    Uneven(u64, u64),
    /// Two effects have the same answer.
    Alike(String),
    /// The probe cannot be asked.
    Probe(String),
}

/// The control of an API: with no key, or where those are refused or deduped, with two keys.
/// Settles in `api` how keys are written.
pub(crate) async fn control(
    api: &mut Api,
    probe: Option<&Probe>,
    caller: &Caller,
) -> Result<Control, Blind> {
    let bare = pair(api, [Key::None, Key::None], Payload::A, probe, caller).await;
    let (found, keyless) = match bare {
        Ok(found) => (found, Keyless::Executed),
        Err(bare) => {
            let keyless =
                if matches!(bare, Blind::Refused(_)) { Keyless::Refused } else { Keyless::Deduped };
            let keys = || [Key::Made(0), Key::Made(1)];
            let mut found = pair(api, keys(), Payload::B, probe, caller).await;
            if matches!(found, Err(Blind::Refused(_))) {
                // Some take keys as the draft of the IETF writes them, and in no other way.
                api.quoted = true;
                found = pair(api, keys(), Payload::B, probe, caller).await;
            }
            // What the bare request met says more to a person.
            (found.map_err(|_| bare)?, keyless)
        }
    };
    if keyless == Keyless::Executed {
        settle_quotes(api, caller).await?;
    }
    let (oracle, observed) = found;
    let took = observed.answers().map(|answer| answer.took).min();
    Ok(Control { oracle, latency: took.unwrap_or_default(), keyless, observed })
}

/// A keyed request that is refused where a bare one is not wants its key quoted.
async fn settle_quotes(api: &mut Api, caller: &Caller) -> Result<(), Blind> {
    let ask = Ask::with(Key::Made(2)).payload(Payload::B);
    let mut refused = None;
    for quoted in [false, true] {
        api.quoted = quoted;
        let wire = api.wire(&ask, 0).map_err(|error| Blind::Probe(error.to_string()))?;
        let reply = caller.send(&wire).await;
        if reply.success().is_some() {
            return Ok(());
        }
        refused.get_or_insert(reply);
    }
    refused.map_or(Ok(()), |reply| Err(Blind::KeyRefused(reply)))
}

/// Sends two requests that are two effects, and looks whether they are seen.
async fn pair(
    api: &Api,
    keys: [Key; 2],
    payload: Payload,
    probe: Option<&Probe>,
    caller: &Caller,
) -> Result<(Oracle, Observed), Blind> {
    let marker = api.marker(0, payload);
    let mut counts = vec![count(probe, &marker, caller).await?];
    let mut observed = Observed::default();
    for (act, key) in keys.into_iter().enumerate() {
        let ask = Ask::with(key).payload(payload);
        let wire = api.wire(&ask, 0).map_err(|error| Blind::Probe(error.to_string()))?;
        let reply = caller.send(&wire).await;
        if reply.success().is_none() {
            return Err(Blind::Refused(reply));
        }
        observed.heard.push(Heard { act, ask, reply });
        let before = counts.last().copied().flatten();
        let now = grown(probe, &marker, before, caller).await?;
        if probe.is_some() && now <= before {
            return Err(Blind::NotCounted(act + 1));
        }
        counts.push(now);
    }
    let oracle =
        if let (Some(probe), &[Some(before), Some(one), Some(two)]) = (probe, counts.as_slice()) {
            let (first, second) = (one - before, two - one);
            if first != second {
                return Err(Blind::Uneven(first, second));
            }
            Oracle::Probe(probe.clone(), first)
        } else {
            let answers: Vec<&Answer> = observed.answers().collect();
            let found = match answers.as_slice() {
                [one, two] => Identity::find(one, two),
                _ => None,
            };
            Oracle::Identity(found.ok_or_else(|| Blind::Alike(observed.words()))?)
        };
    Ok((oracle, observed))
}

/// The count once it is more than `before`, as it may lag behind the answer.
async fn grown(
    probe: Option<&Probe>,
    marker: &str,
    before: Option<u64>,
    caller: &Caller,
) -> Result<Option<u64>, Blind> {
    let until = Instant::now() + COUNT_LAG;
    loop {
        let now = count(probe, marker, caller).await?;
        if probe.is_none() || now > before || Instant::now() > until {
            return Ok(now);
        }
        sleep(PROBES_AGAIN).await;
    }
}

async fn count(probe: Option<&Probe>, marker: &str, caller: &Caller) -> Result<Option<u64>, Blind> {
    match probe {
        Some(probe) => ask_probe(probe, marker, caller).await.map(Some).map_err(Blind::Probe),
        None => Ok(None),
    }
}

/// What the probe says of `marker`. A 404 says that there is nothing.
pub(crate) async fn ask_probe(probe: &Probe, marker: &str, caller: &Caller) -> Result<u64, String> {
    let wire: Wire = probe.wire(marker).map_err(|error| error.to_string())?;
    let mut tries = 0;
    loop {
        tries += 1;
        match caller.send(&wire).await {
            Reply::Answer(answer) if answer.is_success() && answer.cut.is_none() => {
                return Ok(number_in(&answer.body, marker));
            }
            Reply::Answer(answer) if answer.status == 404 => return Ok(0),
            reply if tries == PROBES_MAX => {
                return Err(format!("{} brought {}", probe.words(), reply.words()));
            }
            // It only reads, so asking again is safe; an API that was just raced may be short of breath.
            _ => sleep(PROBES_AGAIN).await,
        }
    }
}
