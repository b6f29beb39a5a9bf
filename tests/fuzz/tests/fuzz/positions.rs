//! A commit's metadata, which any tool may write, and the stored form of a position.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use millstream::broker::embedded::groups;
use millstream::decide::crash::Watch;
use millstream::decide::offsets::Progress;
use millstream::decide::position_codec::{METADATA_LIMIT, decode_above, encode_above};
use millstream_fuzz_tests::{fuzz, mutated};
use proptest::collection::vec;
use proptest::prelude::*;

const NEXT: u64 = 1_000_000;

fn progress(gaps: &[(u64, u64)], watch: bool) -> Progress {
    let mut at = NEXT;
    let above = gaps.iter().map(|(gap, length)| {
        let range = at + gap..at + gap + length;
        at = range.end;
        range
    });
    Progress {
        next: NEXT,
        above: above.collect(),
        watch: watch.then_some(Watch {
            life: 3,
            deaths: 1,
            from: NEXT,
            until: NEXT + 10,
        }),
    }
}

fn corpus() -> Vec<Progress> {
    vec![
        progress(&[], true),
        progress(&[(1, 1)], false),
        progress(&[(1, 1); 100], true),
        progress(&[(30, 30), (1, 200), (5_000, 1)], false),
        progress(&[(1, 1), (100, 1), (1, 1), (1 << 40, 1 << 20)], true),
    ]
}

/// The rules of a position, whoever wrote it.
fn sound(progress: &Progress) -> Result<(), TestCaseError> {
    let mut before = progress.next;
    for range in &progress.above {
        prop_assert!(
            range.start > before && range.end > range.start,
            "{progress:?}"
        );
        before = range.end;
    }
    if let Some(watch) = &progress.watch {
        prop_assert!(watch.from <= watch.until);
    }
    Ok(())
}

#[test]
fn metadata_of_anyone_is_a_position_or_nothing() {
    let texts = corpus()
        .into_iter()
        .map(|progress| encode_above(&progress).into_bytes());
    let texts = mutated(
        texts.collect(),
        &[b"ms1:", b".", b"-1", b"18446744073709551615"],
    )
    .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // Below base64, where most changes of the text never get.
    let bytes = vec(prop_oneof![any::<u8>(), 0..8_u8, Just(0xff)], 0..40)
        .prop_map(|bytes| format!("ms1:{}", STANDARD_NO_PAD.encode(bytes)));
    let next = prop_oneof![4 => Just(NEXT), 1 => Just(u64::MAX), 1 => any::<u64>()];
    let inputs = (next, prop_oneof![texts, bytes]);
    fuzz("positions in metadata", 10_000, &inputs, |(next, text)| {
        let read = decode_above(next, &text);
        prop_assert_eq!(read.next, next);
        sound(&read)?;
        // Bounded by what was read: eight offsets a byte at most.
        prop_assert!(read.above.len() <= text.len() * 6);
        let written = encode_above(&read);
        prop_assert!(written.len() <= METADATA_LIMIT);
        let again = decode_above(next, &written);
        if written.len() < METADATA_LIMIT - 200 {
            prop_assert_eq!(again, read);
        } else {
            let kept = again.above.len();
            prop_assert_eq!(&again.above[..], &read.above[..kept]);
        }
        Ok(())
    });
}

#[test]
fn stored_positions_are_sound_or_damaged() {
    let values = corpus().iter().map(groups::encode).collect();
    let inputs = mutated(
        values,
        &[b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x00"],
    );
    fuzz("stored positions", 10_000, &inputs, |value| {
        let Ok(read) = groups::decode(&value) else {
            return Ok(());
        };
        sound(&read)?;
        prop_assert_eq!(groups::decode(&groups::encode(&read)).unwrap(), read);
        Ok(())
    });
}
