//! The events of the workloads, by a seed.

use anyhow::{Result, ensure};
use fastrand::Rng;
use millstream_test_support::retail::Retail;
use millstream_whole_tests::shop;

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
    /// The order lines of an online shop, again from the first where they end.
    OrderLines,
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
    /// What `take` returns; nothing more is made then. Or there are no order lines.
    pub fn each(
        self,
        seed: u64,
        count: u64,
        mut take: impl FnMut(&Made<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut value = Vec::new();
        if self == Self::OrderLines {
            let retail = Retail::load()?;
            let mut left = count;
            while left > 0 {
                for line in retail.lines().take(usize::try_from(left)?) {
                    take(&Made {
                        key: shop::invoice(line)?.as_bytes(),
                        value: line.as_bytes(),
                        class: None,
                        bid: None,
                    })?;
                    left -= 1;
                }
                ensure!(!retail.is_empty(), "there are no order lines");
            }
            return Ok(());
        }
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

    #[test]
    fn sized_events_are_json_of_just_that_size_and_the_same_each_time() {
        for bytes in [100, 1 << 10, 64 << 10] {
            let made = || {
                let mut all = Vec::new();
                Input::Sized(bytes)
                    .each(3, 5, |made| {
                        all.push(made.value.to_vec());
                        Ok(())
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
