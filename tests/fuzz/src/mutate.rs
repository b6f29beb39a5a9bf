//! What is valid, made wrong in a few places.

use proptest::collection::vec;
use proptest::prelude::*;

/// One change: what, where, and with what. All numbers are taken modulo what there is.
type Change = (u8, u16, u16, u8);

/// Inputs of `corpus` with up to six changes; `words` are inserted now and then, for no chance
/// finds those.
///
/// # Panics
/// The corpus is empty.
pub fn mutated(
    corpus: Vec<Vec<u8>>,
    words: &'static [&'static [u8]],
) -> impl Strategy<Value = Vec<u8>> {
    assert!(!corpus.is_empty(), "there is nothing to mutate");
    let changes = vec(any::<Change>(), 0..6);
    (any::<u16>(), changes).prop_map(move |(which, changes)| {
        let mut input = pick(&corpus, which).clone();
        for change in changes {
            apply(&mut input, change, &corpus, words);
        }
        input
    })
}

/// As [`mutated`], for what must be text to get anywhere: bytes that are none are replaced.
pub fn mutated_text(
    corpus: Vec<String>,
    words: &'static [&'static [u8]],
) -> impl Strategy<Value = String> {
    let corpus = corpus.into_iter().map(String::into_bytes).collect();
    mutated(corpus, words).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn pick<T>(from: &[T], which: u16) -> &T {
    &from[usize::from(which) % from.len()]
}

fn apply(
    input: &mut Vec<u8>,
    (what, here, there, byte): Change,
    corpus: &[Vec<u8>],
    words: &[&[u8]],
) {
    let end = input.len();
    let at = |place: u16| usize::from(place) % (end + 1);
    let (from, to) = (at(here).min(at(there)), at(here).max(at(there)));
    // Half of all changes touch a single byte.
    match what % 16 {
        0..=2 if from < end => input[from] ^= 1 << (byte % 8),
        3..=4 if from < end => input[from] = byte,
        5 if from < end => input[from] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][usize::from(byte) % 6],
        6 => input.insert(from, byte),
        7 if from < end => drop(input.remove(from)),
        8 => input.truncate(to),
        9 => drop(input.drain(from..to)),
        10 => {
            let piece = input[from..to.min(from + 64)].to_vec();
            let times = usize::from(byte % 8) + 1;
            input.splice(from..from, piece.repeat(times));
        }
        11 => {
            let other = pick(corpus, there);
            let tail = usize::from(here) % (other.len() + 1);
            input.truncate(to);
            input.extend_from_slice(&other[tail..]);
        }
        _ if words.is_empty() => input.push(byte),
        12..=13 => {
            let word = pick(words, u16::from(byte));
            input.splice(from..from, word.iter().copied());
        }
        _ => {
            let word = pick(words, u16::from(byte));
            let until = (from + word.len()).min(end);
            input.splice(from..until, word.iter().copied());
        }
    }
}
