//! The events of the workloads, by a seed.

use fastrand::Rng;

use crate::bid::{Bid, Bids};
use crate::workload::class;

/// The header that a filter reads.
pub const CLASS: &str = "class";

/// A kind of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nexmark's bids as JSON, about 180 bytes.
    Bids,
    /// The same, each with its class in a header.
    ClassedBids,
    /// JSON objects of so many bytes.
    Sized(usize),
}

/// An event, lent.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// The header [`CLASS`].
    pub class: Option<&'a str>,
    /// What it was made of, where it is a bid.
    pub bid: Option<&'a Bid>,
}

impl Input {
    /// Makes the first `count` events of `seed`, the same each time.
    ///
    /// # Errors
    /// What `take` returns; nothing more is made then.
    pub fn each<E>(
        self,
        seed: u64,
        count: u64,
        mut take: impl FnMut(&Made<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut value = Vec::new();
        if let Self::Sized(bytes) = self {
            let mut random = Rng::with_seed(seed);
            for number in 0..count {
                let key = random.u32(0..10_000).to_string();
                sized(&mut value, number, bytes, &mut random);
                take(&Made {
                    key: key.as_bytes(),
                    value: &value,
                    class: None,
                    bid: None,
                })?;
            }
            return Ok(());
        }
        for bid in Bids::new(seed, count) {
            value.clear();
            bid.write(&mut value);
            let key = bid.key();
            let class = (self == Self::ClassedBids).then(|| class(&bid).to_string());
            take(&Made {
                key: key.as_bytes(),
                value: &value,
                class: class.as_deref(),
                bid: Some(&bid),
            })?;
        }
        Ok(())
    }
}

/// Writes a JSON object of so many bytes; no two are alike.
fn sized(value: &mut Vec<u8>, number: u64, bytes: usize, random: &mut Rng) {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

    value.clear();
    value.extend_from_slice(format!("{{\"number\":{number},\"text\":\"").as_bytes());
    while value.len() + 2 < bytes {
        // Ten letters of six bits each.
        let mut bits = random.u64(..);
        for _ in 0..10.min(bytes - 2 - value.len()) {
            value.push(LETTERS[(bits & 63) as usize]);
            bits >>= 6;
        }
    }
    value.extend_from_slice(b"\"}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn sized_events_are_json_of_just_that_size_and_the_same_each_time() {
        for bytes in [100, 1 << 10, 64 << 10] {
            let made = || {
                let mut all = Vec::new();
                Input::Sized(bytes)
                    .each(3, 5, |made| {
                        all.push(made.value.to_vec());
                        Ok::<_, Infallible>(())
                    })
                    .unwrap();
                all
            };
            let events = made();
            assert_eq!(events, made());
            for event in &events {
                assert_eq!(event.len(), bytes);
                serde_json::from_slice::<serde_json::Value>(event).unwrap();
            }
        }
    }
}
