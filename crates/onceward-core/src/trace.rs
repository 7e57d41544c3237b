//! Where a call stands in a trace that many processes share (W3C Trace Context), and which traces are told.
//!
//! Nothing of it is drawn: an operation's spans have their ids from the operation's own, so that whoever
//! takes it up after a crash goes on with the same trace, and needs no more than what the ledger has.

use std::fmt;
use std::str::FromStr;

use crate::exchange::Headers;
use crate::hex;
use crate::id::OperationId;
use crate::operation::Operation;

/// The header that carries it.
pub const TRACEPARENT: &str = "traceparent";

/// The bits of a trace's id that are spread evenly: "the right-most 56" (W3C Trace Context, level 2).
const EVEN: u64 = ALL - 1;

/// How many ends of ids these bits make.
const ALL: u64 = 1 << 56;

/// "The caller may have recorded it."
const SAMPLED: u8 = 1;

/// "Its id is spread evenly."
const RANDOM: u8 = 2;

/// A span, as whoever comes after it is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
    /// What is said of the trace.
    pub flags: u8,
}

/// A text that tells of no span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: it looks like 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
pub struct NotATraceparent;

impl TraceContext {
    /// What a request says of where it comes from; nothing where it says that twice (section 3.2.2.5) or
    /// in a way that cannot be read.
    pub fn of(headers: &Headers) -> Option<Self> {
        Self::of_lines(headers.all(TRACEPARENT).map(|line| &**line))
    }

    /// The same of the values that [`TRACEPARENT`] has.
    pub fn of_lines<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let line = lines.next()?;
        let is_alone = lines.next().is_none();
        std::str::from_utf8(line).ok().filter(|_| is_alone)?.trim().parse().ok()
    }

    /// Whether somebody tells of the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace, as it is written everywhere.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// It as a `traceparent`, in ASCII. Each call says it to its upstream, so nothing is formatted.
    pub fn text(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace.to_be_bytes());
        write_hex(&mut text[36..52], &self.span.to_be_bytes());
        write_hex(&mut text[53..], &[self.flags]);
        text
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn with_span(self, span: u64) -> Self {
        Self { span, ..self }
    }
}

impl FromStr for TraceContext {
    type Err = NotATraceparent;

    /// Section 3.2.2. Of a later version that which this one has is read.
    fn from_str(text: &str) -> Result<Self, NotATraceparent> {
        fn hex(text: Option<&str>, digits: usize) -> Result<u128, NotATraceparent> {
            let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let text = text.filter(|text| text.len() == digits && text.bytes().all(is_hex));
            u128::from_str_radix(text.ok_or(NotATraceparent)?, 16).map_err(|_| NotATraceparent)
        }
        let mut parts = text.split('-');
        let version = hex(parts.next(), 2)?;
        let trace = hex(parts.next(), 32)?;
        let span = hex(parts.next(), 16)? as u64;
        let flags = hex(parts.next(), 2)? as u8 & (SAMPLED | RANDOM);
        let is_at_its_end = version > 0 || parts.next().is_none();
        if version == 0xff || trace == 0 || span == 0 || !is_at_its_end {
            return Err(NotATraceparent);
        }
        Ok(Self { trace, span, flags })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()).unwrap_or_default())
    }
}

/// Fills `place` with two digits for each byte.
fn write_hex(place: &mut [u8], bytes: &[u8]) {
    for (digits, byte) in place.as_chunks_mut().0.iter_mut().zip(bytes) {
        *digits = PAIRS[usize::from(*byte)];
    }
}

/// The digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [hex::DIGITS[byte >> 4], hex::DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Spreads what differs in few bits over all of them (the finaliser of splitmix64).
pub fn spread(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What is a span of an operation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The call that made it.
    Call,
    /// Its way to the ledger.
    Remember,
    /// A run of attempts that nobody waits for: how many attempts were made before it.
    Run(u32),
    /// An attempt.
    Attempt(u32),
    /// The verdict on an attempt, on its way to the ledger.
    Settle(u32),
}

impl Place {
    /// The id of this span of an operation: another one for each place, and spread evenly. Never 0, which is
    /// no id.
    pub fn span(self, id: OperationId) -> u64 {
        let (kind, number) = match self {
            Self::Call => (1, 0),
            Self::Remember => (2, 0),
            Self::Run(before) => (3, before),
            Self::Attempt(n) => (4, n),
            Self::Settle(n) => (5, n),
        };
        let id = id.as_u128();
        spread(id as u64 ^ (id >> 64) as u64 ^ (kind << 56 | u64::from(number))).max(1)
    }
}

/// Which traces are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// The part of all traces that begin here, in 2^-56.
    share: u64,
    /// Whether a caller decides who has decided.
    pub follows_callers: bool,
}

impl Sampling {
    /// This share of the traces that begin here, from 0 to 1; a caller's decision goes before it where
    /// it `follows_callers`.
    pub fn new(share: f64, follows_callers: bool) -> Self {
        Self { share: (share.clamp(0.0, 1.0) * ALL as f64) as u64, follows_callers }
    }

    /// The end of a trace's id that is told, or is not, as was decided before there was one: of those
    /// that there are, the one that `chance` picks.
    pub fn steered(&self, chance: u64, is_told: bool) -> u64 {
        let (from, count) =
            if is_told { (ALL - self.share, self.share) } else { (0, ALL - self.share) };
        if count == 0 {
            return chance;
        }
        let picked = (u128::from(chance & EVEN) * u128::from(count)) >> 56;
        chance & !EVEN | (from + picked as u64)
    }

    /// The context of a call that comes with `caller`'s, or with none: then `trace` is begun. The span is
    /// the caller's, or none.
    pub fn begin(&self, caller: Option<TraceContext>, trace: u128) -> TraceContext {
        let of_caller = caller.filter(|_| self.follows_callers);
        let begun = caller.unwrap_or(TraceContext { trace, span: 0, flags: RANDOM });
        // Those who sample by the same bits take the same traces (OpenTelemetry, consistent probability).
        let is_among = || begun.trace as u64 & EVEN >= ALL - self.share;
        let is_sampled = of_caller.map_or_else(is_among, |caller| caller.is_sampled());
        TraceContext { flags: begun.flags & !SAMPLED | u8::from(is_sampled), ..begun }
    }

    /// The context of an operation: its caller's trace, or one that has the operation's own UUID. The span
    /// is the caller's, or none.
    pub fn of(&self, operation: &Operation) -> TraceContext {
        self.begin(operation.trace, operation.id.as_u128())
    }

    /// What the upstream is told of an attempt.
    pub fn of_attempt(&self, operation: &Operation, n: u32) -> TraceContext {
        self.of(operation).with_span(Place::Attempt(n).span(operation.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_reads_back_and_nothing_else_is_one() {
        let read: TraceContext = TEXT.parse().unwrap();
        assert_eq!(read.to_string(), TEXT);
        assert_eq!(read.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert!(read.is_sampled());
        let later = format!("cc{}-what-is-more", &TEXT[2..]);
        assert_eq!(later.parse(), Ok(read), "a later version");
        let unknown = format!("{}ff", &TEXT[..53]);
        assert_eq!(unknown.parse::<TraceContext>().unwrap().flags, 3, "what is not known of");
        for text in [
            "",
            "00",
            &TEXT[..54],
            &format!("{TEXT}-"),
            &format!("{TEXT}0"),
            &format!("ff{}", &TEXT[2..]),
            &TEXT.to_uppercase(),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(NotATraceparent), "{text:?}");
        }
    }

    #[test]
    fn who_says_twice_where_a_request_comes_from_says_nothing() {
        let line = || (TRACEPARENT.to_owned(), TEXT.into());
        assert!(TraceContext::of(&Headers(vec![line()])).is_some());
        assert_eq!(TraceContext::of(&Headers(vec![line(), line()])), None);
        assert_eq!(TraceContext::of(&Headers::default()), None);
    }

    #[test]
    fn each_span_of_an_operation_has_an_id_of_its_own() {
        let places = |id| {
            let numbered =
                (0..50).flat_map(|n| [Place::Run(n), Place::Attempt(n), Place::Settle(n)]);
            numbered.chain([Place::Call, Place::Remember]).map(move |place| place.span(id))
        };
        let ids = (0..20).map(|n| OperationId::new(1_790_000_000_123 << 15 | n, n << 3));
        let mut spans: Vec<_> = ids.flat_map(places).collect();
        let count = spans.len();
        spans.sort_unstable();
        spans.dedup();
        assert_eq!(spans.len(), count);
    }

    #[test]
    fn an_end_of_an_id_can_be_had_that_is_told_or_is_not() {
        for (share, is_any, is_all) in [
            (0.0, false, false),
            (0.001, true, false),
            (0.1, true, false),
            (0.999, true, false),
            (1.0, true, true),
        ] {
            let sampling = Sampling::new(share, true);
            for n in 0..1000 {
                let chance = crate::lease::Session(7).tail(n);
                for is_told in [false, true] {
                    let steered = sampling.steered(chance, is_told);
                    let begun = sampling.begin(None, steered.into());
                    // Where all are told, or none is, nothing else can be had.
                    let is_told = is_told && is_any || is_all;
                    assert_eq!(begun.is_sampled(), is_told, "{share} {chance:x} {steered:x}");
                    assert_eq!(steered >> 56, chance >> 56, "the rest is as it was");
                }
            }
        }
    }

    #[test]
    fn a_share_of_what_begins_here_is_told_and_a_caller_decides_for_its_own() {
        let told = |share: f64| {
            let sampling = Sampling::new(share, true);
            let traces = (0..1000_u64).map(|n| {
                let chance = crate::lease::Session(7).tail(n);
                OperationId::new(1_790_000_000_000 << 15 | n, chance).as_u128()
            });
            traces.filter(|trace| sampling.begin(None, *trace).is_sampled()).count()
        };
        assert_eq!((told(0.0), told(1.0)), (0, 1000));
        assert!((60..140).contains(&told(0.1)), "{}", told(0.1));
        let caller: TraceContext = TEXT.parse().unwrap();
        let unsampled = TraceContext { flags: 0, ..caller };
        assert_eq!(Sampling::new(0.0, true).begin(Some(caller), 1), caller);
        assert_eq!(Sampling::new(1.0, true).begin(Some(unsampled), 1), unsampled);
        assert!(!Sampling::new(0.0, false).begin(Some(caller), 1).is_sampled());
        assert!(Sampling::new(1.0, false).begin(Some(unsampled), 1).is_sampled());
    }
}
