//! The events: Nexmark's bids as JSON, about 180 bytes each, by seed.

use fastrand::Rng;

/// Half of all bids come through one of these channels, as in Nexmark.
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// 2026-01-01T00:00:00Z in milliseconds: when the first bid is made; then one a millisecond.
const FIRST_MS: u64 = 1_767_225_600_000;

/// A bid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bid {
    pub auction: u64,
    pub bidder: u64,
    pub price: u64,
    pub channel: String,
    /// The first three folders of the URL's path.
    pub dirs: [String; 3],
    pub made_ms: u64,
    pub extra: String,
}

/// The bids of a seed, one after the other.
#[derive(Debug)]
pub struct Bids {
    random: Rng,
    made: u64,
    left: u64,
}

impl Bids {
    /// The first `count` bids of `seed`.
    pub fn new(seed: u64, count: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            made: 0,
            left: count,
        }
    }

    /// Whether all were made.
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    fn word(&mut self, length: usize) -> String {
        (0..length).map(|_| self.random.lowercase()).collect()
    }
}

impl Iterator for Bids {
    type Item = Bid;

    fn next(&mut self) -> Option<Bid> {
        self.left = self.left.checked_sub(1)?;
        let made_ms = FIRST_MS + self.made;
        self.made += 1;
        let random = &mut self.random;
        // Hot auctions and bidders, as in Nexmark: half of all bids go to few of them.
        let hot = random.bool();
        let auction = 1000 + random.u64(if hot { 0..100 } else { 0..10_000 });
        let bidder = 1000 + random.u64(if hot { 0..100 } else { 0..50_000 });
        let price = 10_u64.pow(random.u32(2..7)) + random.u64(0..100);
        let channel = if random.bool() {
            random.choice(CHANNELS).unwrap_or_default().to_owned()
        } else {
            format!("channel-{}", random.u32(0..10_000))
        };
        let dirs = [self.word(5), self.word(4), self.word(3)];
        let length = self.random.usize(2..8);
        Some(Bid {
            auction,
            bidder,
            price,
            channel,
            dirs,
            made_ms,
            extra: self.word(length),
        })
    }
}

/// Which bid of its seed, from zero, the value of an event holds.
pub fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let (_, rest) = text.split_once("\"dateTime\":")?;
    let digits = rest.split(',').next()?;
    digits.parse::<u64>().ok()?.checked_sub(FIRST_MS)
}

impl Bid {
    /// The key of its event.
    pub fn key(&self) -> String {
        self.auction.to_string()
    }

    /// Writes the event's value to `json`.
    pub fn write(&self, json: &mut Vec<u8>) {
        use std::io::Write;

        let [a, b, c] = &self.dirs;
        // No text of a bid needs escaping. Writing to a vector cannot fail.
        let _ = write!(
            json,
            "{{\"auction\":{},\"bidder\":{},\"price\":{},\"channel\":\"{}\",\
             \"url\":\"https://www.nexmark.com/{a}/{b}/{c}/item.htm?query=1\",\
             \"dateTime\":{},\"extra\":\"{}\"}}",
            self.auction, self.bidder, self.price, self.channel, self.made_ms, self.extra
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_bids_each_time() {
        let first: Vec<Bid> = Bids::new(7, 100).collect();
        let again: Vec<Bid> = Bids::new(7, 100).collect();
        assert_eq!(first, again);
        assert_ne!(first, Bids::new(8, 100).collect::<Vec<_>>());
    }

    #[test]
    fn bids_are_json_of_about_180_bytes() {
        let mut bytes = 0;
        for bid in Bids::new(7, 1000) {
            let mut json = Vec::new();
            bid.write(&mut json);
            let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(parsed["auction"], bid.auction);
            assert_eq!(parsed["extra"], bid.extra.as_str());
            assert_eq!(number(&json), Some(bid.made_ms - FIRST_MS));
            bytes += json.len();
        }
        let mean = bytes / 1000;
        assert!((170..=190).contains(&mean), "{mean} bytes");
    }
}
