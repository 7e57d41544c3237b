//! Inputs out of inputs: changed by chance, or made smaller while they still fail.

use onceward_proof::chance::Chance;

/// Numbers at whose edges readers fall off.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "4294967296",
    "9007199254740993",
    "9223372036854775808",
    "-9223372036854775808",
    "1e400",
];

/// Bytes that mean something to most readers of text.
const BYTES: &[u8] = b"\0\t\n\r \"'\\%+,-./:;<=>?@[]_`{|}~0aA\x7f\x80\xc3\xff";

/// The next input: one of `kept`, or none, with a few changes.
pub(crate) fn next(
    chance: &mut Chance,
    kept: &[Vec<u8>],
    words: &[&str],
    bytes_max: usize,
) -> Vec<u8> {
    let mut input = if kept.is_empty() || chance.percent(2) {
        Vec::new()
    } else {
        kept[chance.below(kept.len() as u64) as usize].clone()
    };
    for _ in 0..=chance.below(6) {
        change(&mut input, chance, kept, words);
    }
    input.truncate(bytes_max);
    input
}

fn change(input: &mut Vec<u8>, chance: &mut Chance, kept: &[Vec<u8>], words: &[&str]) {
    let any = |chance: &mut Chance, end: usize| chance.below(end as u64 + 1) as usize;
    let at = any(chance, input.len());
    let until = at + any(chance, (input.len() - at).min(64));
    match chance.below(10) {
        0 if at < input.len() => input[at] ^= 1 << chance.below(8),
        1 if at < input.len() => input[at] = chance.next() as u8,
        2 => input.insert(at, BYTES[any(chance, BYTES.len() - 1)]),
        3 => drop(input.drain(at..until)),
        4 => {
            let piece = input[at..until].to_vec();
            input.splice(at..at, piece);
        }
        5 => {
            let number = NUMBERS[any(chance, NUMBERS.len() - 1)];
            input.splice(at..until, number.bytes());
        }
        6 if !kept.is_empty() => {
            let other = &kept[any(chance, kept.len() - 1)];
            let from = any(chance, other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        7 => input.truncate(at),
        8 if chance.percent(5) => {
            let byte = input.get(at).copied().unwrap_or(b'a');
            input.splice(at..at, std::iter::repeat_n(byte, any(chance, 300)));
        }
        _ if words.is_empty() => input.insert(at, chance.next() as u8),
        _ => {
            let word = words[any(chance, words.len() - 1)];
            let end = if chance.percent(50) { at } else { until };
            input.splice(at..end, word.bytes());
        }
    }
}

/// The smallest input found that still fails.
pub(crate) fn shrink(input: &[u8], tries: usize, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut small = input.to_vec();
    let mut left = tries;
    let mut piece = small.len().div_ceil(2);
    while piece > 0 && left > 0 {
        let mut at = 0;
        let mut shrank = false;
        while at < small.len() && left > 0 {
            let end = (at + piece).min(small.len());
            let without = [&small[..at], &small[end..]].concat();
            left -= 1;
            if fails(&without) {
                small = without;
                shrank = true;
            } else {
                at = end;
            }
        }
        if !shrank || piece > 1 {
            piece /= 2;
        }
    }
    small
}
