//! The committed form of a position's ranges: a short text that fits a commit's metadata.
//!
//! ```text
//! "ms1:" base64( token* )     token = varint(length << 2 | bit << 1)         `length` equal offsets
//!                                   | varint(length << 1 | 1) byte{length}   8 × `length` offsets, a bit each
//! ```
//!
//! A watch stands behind, in numbers: `"." life "." deaths "." first offset "." how many`.
//!
//! The tokens describe the offsets from the position on; a set bit is a settled offset. Long runs
//! cost two or three bytes, a dense alternation one bit an offset: whatever 10,000 events in flight
//! look like, it stays below the 4,096 bytes that Kafka takes (`offset.metadata.max.bytes`).

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::crash::Watch;
use super::offsets::Progress;

/// Metadata that begins otherwise is not ours, or of a later version.
const PREFIX: &str = "ms1:";

/// What Kafka takes by default (`offset.metadata.max.bytes`).
pub const METADATA_LIMIT: usize = 4096;

/// Admission of a partition stops while its encoding is longer than this: what is in flight then
/// cannot bring it past [`METADATA_LIMIT`].
pub const ADMISSION_LIMIT: usize = 2048;

/// A run is worth a token of its own from this length on; shorter ones go into bitmaps.
const RUN: u64 = 24;

/// Ranges end below this: no broker counts so far, and a longer run would not fit its token.
const FARTHEST: u64 = 1 << 61;

/// The longest form of a watch.
const WATCH_BYTES: usize = 4 + 2 * 10 + 2 * 20;

/// A position's ranges above `next` and its watch, as commit metadata; empty where there is neither.
///
/// Past [`METADATA_LIMIT`] the highest ranges are left out: after a restart their events are
/// processed again, which at least once allows.
pub fn encode_above(progress: &Progress) -> String {
    let mut ranges = progress.above.as_slice();
    let mut text = loop {
        if ranges.is_empty() && progress.watch.is_none() {
            return String::new();
        }
        let text = encode(progress.next, ranges);
        if text.len() <= METADATA_LIMIT - WATCH_BYTES {
            break text;
        }
        ranges = &ranges[..ranges.len() * 9 / 10];
    };
    if let Some(watch) = &progress.watch {
        let Watch {
            life,
            deaths,
            from,
            until,
        } = watch;
        let length = until.saturating_sub(*from);
        // Writing into a string cannot fail.
        let _ = write!(text, ".{life}.{deaths}.{from}.{length}");
    }
    text
}

/// A position from a commit's offset and metadata. Metadata that is absent, damaged or not ours
/// means no ranges and no watch: events may repeat, none is lost.
pub fn decode_above(next: u64, metadata: &str) -> Progress {
    let ours = metadata.strip_prefix(PREFIX).unwrap_or_default();
    let (ranges, watch) = match ours.split_once('.') {
        Some((ranges, watch)) => (ranges, decode_watch(watch)),
        None => (ours, None),
    };
    let above = STANDARD_NO_PAD
        .decode(ranges)
        .ok()
        .and_then(|bytes| decode(next, &bytes))
        // A range that begins at `next` would have raised it: nobody of us wrote that.
        .filter(|above| above.first().is_none_or(|first| first.start > next))
        .unwrap_or_default();
    Progress { next, above, watch }
}

fn decode_watch(text: &str) -> Option<Watch> {
    let mut numbers = text.split('.');
    let watch = Watch {
        life: numbers.next()?.parse().ok()?,
        deaths: numbers.next()?.parse().ok()?,
        from: numbers.next()?.parse().ok()?,
        until: 0,
    };
    let length: u64 = numbers.next()?.parse().ok()?;
    Some(Watch {
        until: watch.from.checked_add(length)?,
        ..watch
    })
}

fn encode(next: u64, ranges: &[Range<u64>]) -> String {
    let mut writer = Writer {
        bytes: Vec::new(),
        bits: Vec::new(),
    };
    let mut at = next;
    for range in ranges {
        writer.run(range.start.saturating_sub(at), false);
        writer.run(range.end - range.start, true);
        at = range.end;
    }
    writer.flush_bits();
    format!("{PREFIX}{}", STANDARD_NO_PAD.encode(writer.bytes))
}

struct Writer {
    bytes: Vec<u8>,
    /// Offsets that wait for a bitmap token.
    bits: Vec<bool>,
}

impl Writer {
    fn run(&mut self, mut length: u64, bit: bool) {
        if length >= RUN || !self.bits.is_empty() && length >= 8 {
            // A bitmap holds whole bytes: fill up the last one from this run.
            while !self.bits.len().is_multiple_of(8) && length > 0 {
                self.bits.push(bit);
                length -= 1;
            }
        }
        if length >= RUN {
            self.flush_bits();
            varint(&mut self.bytes, length << 2 | u64::from(bit) << 1);
        } else {
            self.bits.extend((0..length).map(|_| bit));
        }
    }

    /// Writes the waiting bits; those beyond the last settled one are padding.
    fn flush_bits(&mut self) {
        if self.bits.is_empty() {
            return;
        }
        let bytes = self.bits.chunks(8).map(|chunk| {
            chunk
                .iter()
                .enumerate()
                .fold(0u8, |byte, (index, bit)| byte | u8::from(*bit) << index)
        });
        varint(&mut self.bytes, (bytes.len() as u64) << 1 | 1);
        self.bytes.extend(bytes);
        self.bits.clear();
    }
}

fn decode(next: u64, mut bytes: &[u8]) -> Option<Vec<Range<u64>>> {
    let mut above: Vec<Range<u64>> = Vec::new();
    let mut at = next;
    let mut push = |start: u64, end: u64| match above.last_mut() {
        Some(last) if last.end == start => last.end = end,
        _ => above.push(start..end),
    };
    while !bytes.is_empty() {
        let token = read_varint(&mut bytes)?;
        if token & 1 == 0 {
            let length = token >> 2;
            let end = at.checked_add(length).filter(|end| *end < FARTHEST)?;
            if token & 2 != 0 && length > 0 {
                push(at, end);
            }
            at = end;
        } else {
            let length = usize::try_from(token >> 1).ok()?;
            let bitmap = bytes.get(..length)?;
            bytes = &bytes[length..];
            for byte in bitmap {
                for index in 0..8 {
                    let end = at.checked_add(1)?;
                    if byte & 1 << index != 0 {
                        if end >= FARTHEST {
                            return None;
                        }
                        push(at, end);
                    }
                    at = end;
                }
            }
        }
    }
    Some(above)
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(first & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn progress(next: u64, runs: &[(u64, u64)]) -> Progress {
        let mut above = Vec::new();
        let mut at = next;
        for (gap, length) in runs {
            above.push(at + gap..at + gap + length);
            at += gap + length;
        }
        Progress {
            next,
            above,
            watch: None,
        }
    }

    #[test]
    fn nothing_above_needs_no_metadata() {
        assert_eq!(encode_above(&Progress::at(7)), "");
        assert_eq!(decode_above(7, ""), Progress::at(7));
    }

    #[test]
    fn what_is_not_ours_means_no_ranges() {
        for text in [
            "someone else's",
            "ms2:AAAA",
            "ms1:!!!",
            "ms1://///////////////w",
            "ms1:.1.1",
            "ms1:.1.1.5.-1",
            "ms1:.9999999999.1.5.1",
            // A run of one settled offset at the position itself.
            "ms1:Bg",
        ] {
            assert_eq!(decode_above(7, text), Progress::at(7), "{text}");
        }
    }

    /// The widest interleaving that the default budget allows: every second event of 10,000.
    #[test]
    fn ten_thousand_alternating_events_fit_the_metadata() {
        let dense = progress(1 << 40, &[(1, 1); 5_000]);
        let text = encode_above(&dense);
        assert!(text.len() <= ADMISSION_LIMIT, "{}", text.len());
        assert_eq!(decode_above(dense.next, &text), dense);
    }

    /// Kafka refuses a commit with longer metadata, which would stop the partition for ever.
    #[test]
    fn past_the_limit_the_lowest_ranges_are_kept() {
        let mut sparse = progress(0, &[(1 << 40, 1 << 33); 2_000]);
        sparse.watch = Some(Watch {
            life: u32::MAX,
            deaths: u32::MAX,
            from: u64::MAX - 1,
            until: u64::MAX,
        });
        let text = encode_above(&sparse);
        assert!(text.len() <= METADATA_LIMIT);
        let kept = decode_above(0, &text);
        assert_eq!(kept.watch, sparse.watch);
        assert!(!kept.above.is_empty());
        assert_eq!(kept.above[..], sparse.above[..kept.above.len()]);
    }

    /// No run of ours is longer than its token can say: what others wrote there would be written
    /// back as another range.
    #[test]
    fn ranges_past_any_offset_are_not_ours() {
        let next = FARTHEST - 88;
        let far = format!("{PREFIX}FxQAAAAAAAAA////");
        assert_eq!(decode_above(next, &far), Progress::at(next));
        assert!(!decode_above(7, &far).above.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            next in 0u64..1 << 48,
            runs in prop::collection::vec((1u64..200, 1u64..200), 0..200),
            watch in prop::option::of((any::<u32>(), any::<u32>(), 0..1u64 << 48, 0u64..100)),
        ) {
            let mut progress = progress(next, &runs);
            progress.watch = watch.map(|(life, deaths, from, length)| Watch {
                life, deaths, from, until: from + length,
            });
            prop_assert_eq!(decode_above(next, &encode_above(&progress)), progress);
        }

        #[test]
        fn garbage_is_decoded_without_a_panic(next: u64, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = format!("{PREFIX}{}", STANDARD_NO_PAD.encode(bytes));
            decode_above(next, &text);
        }
    }
}
