//! What a contender does to each event, and an independent calculation of what must come out.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result};
use clap::ValueEnum;
use millstream_whole_tests::shop::{self, Expected};
use serde::Deserialize;

use crate::bid::Bid;
use crate::input::{Input, Made};

/// The class of bidders whose bids a filter lets pass: one in a hundred.
pub const WANTED: u64 = 7;
/// How many classes there are.
pub const CLASSES: u64 = 100;

/// Events, and what is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Passes each bid through.
    Q0,
    /// Splits the URL of each bid and writes a new JSON object.
    Q22,
    /// Lets the bids of one class pass, by a header: 1 %.
    FilterHeader,
    /// Lets the same bids pass, by what they say.
    FilterPlugin,
    /// Hands each bid to five consumers, each of which passes it through.
    FanOut,
    /// Makes enriched lines with exact totals of order lines of an online shop, and drops what is none.
    Enrich,
    /// Passes events of 100 bytes through.
    #[value(name = "q0-100b")]
    Q0Of100B,
    /// Passes events of 1 KiB through.
    #[value(name = "q0-1kib")]
    Q0Of1KiB,
    /// Passes events of 64 KiB through; one for fifty others.
    #[value(name = "q0-64kib")]
    Q0Of64KiB,
}

/// What is done to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Pass,
    Split,
    ByHeader,
    ByValue,
    Enrich,
}

impl Workload {
    /// Its name in results, topics and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q0 => "q0",
            Self::Q22 => "q22",
            Self::FilterHeader => "filter-header",
            Self::FilterPlugin => "filter-plugin",
            Self::FanOut => "fan-out",
            Self::Enrich => "enrich",
            Self::Q0Of100B => "q0-100b",
            Self::Q0Of1KiB => "q0-1kib",
            Self::Q0Of64KiB => "q0-64kib",
        }
    }

    /// The events.
    pub fn input(self) -> Input {
        match self {
            Self::Q0 | Self::Q22 | Self::FilterPlugin | Self::FanOut => Input::Bids,
            Self::FilterHeader => Input::ClassedBids,
            Self::Enrich => Input::OrderLines,
            Self::Q0Of100B => Input::Sized(100),
            Self::Q0Of1KiB => Input::Sized(1 << 10),
            Self::Q0Of64KiB => Input::Sized(64 << 10),
        }
    }

    /// What is done to each.
    pub fn step(self) -> Step {
        match self {
            Self::Q22 => Step::Split,
            Self::FilterHeader => Step::ByHeader,
            Self::FilterPlugin => Step::ByValue,
            Self::Enrich => Step::Enrich,
            _ => Step::Pass,
        }
    }

    /// How many consumers get each event.
    pub fn consumers(self) -> u32 {
        match self {
            Self::FanOut => 5,
            _ => 1,
        }
    }

    /// How many events make a run that takes about as long as `asked` bids do.
    pub fn events(self, asked: u64) -> u64 {
        match self {
            Self::FanOut => asked / 5,
            Self::Q0Of1KiB => asked / 2,
            Self::Q0Of64KiB => asked / 50,
            _ => asked,
        }
        .max(1)
    }
}

/// How many events, and the sum of a hash of each: equal whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub events: u64,
    pub hash: u64,
}

impl Tally {
    /// Counts an event.
    pub fn add(&mut self, content: impl Hash) {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        self.events += 1;
        self.hash = self.hash.wrapping_add(hasher.finish());
    }

    /// The same, so many times.
    pub fn times(self, count: u64) -> Self {
        Self {
            events: self.events * count,
            hash: self.hash.wrapping_mul(count),
        }
    }
}

/// What must come of these events: calculated from what they were made of, not from their JSON; of
/// order lines as the tests of the whole program do.
///
/// # Errors
/// The events cannot be made.
pub fn expected(workload: Workload, seed: u64, events: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let wanted = |made: &Made<'_>| made.bid.is_some_and(|bid| class(bid) == WANTED);
    workload.input().each(seed, events, |made| {
        match (workload.step(), made.bid) {
            (Step::Split, Some(bid)) => tally.add(content(bid)),
            (Step::ByHeader | Step::ByValue, _) if !wanted(made) => {}
            (Step::Enrich, _) => {
                let line = std::str::from_utf8(made.value)?;
                // Above which total there is an alert does not matter: nobody reads alerts here.
                if let Expected::Enriched(order, _) = shop::expected(line, i64::MAX)? {
                    tally.add((made.key, Order::deserialize(order)?));
                }
            }
            _ => tally.add((made.key, made.value)),
        }
        Ok(())
    })?;
    Ok(tally.times(workload.consumers().into()))
}

/// The class of a bid: that of its bidder.
pub fn class(bid: &Bid) -> u64 {
    bid.bidder % CLASSES
}

type Content<'a> = (String, u64, u64, u64, &'a str, [&'a str; 3]);

fn content(bid: &Bid) -> Content<'_> {
    let [a, b, c] = &bid.dirs;
    (
        bid.key(),
        bid.auction,
        bid.bidder,
        bid.price,
        &bid.channel,
        [a, b, c],
    )
}

/// A derived event of q22, as a reader wants it: these fields and no other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Split<'a> {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: &'a str,
    dir1: &'a str,
    dir2: &'a str,
    dir3: &'a str,
}

/// A line that was enriched: these fields and no other.
#[derive(Deserialize, Hash)]
#[serde(deny_unknown_fields)]
struct Order {
    invoice: String,
    kind: String,
    sku: String,
    description: String,
    quantity: i64,
    #[serde(deserialize_with = "bits")]
    unit_price: u64,
    total_minor: i64,
    currency: String,
    customer: Option<u64>,
    country: String,
    ts: String,
}

/// A number as the bits of its value: however it is written, the same number is the same.
fn bits<'de, D: serde::Deserializer<'de>>(number: D) -> Result<u64, D::Error> {
    f64::deserialize(number).map(f64::to_bits)
}

/// Counts a derived event as a contender wrote it.
///
/// # Errors
/// The event is not what the workload writes.
pub fn count(step: Step, tally: &mut Tally, key: &[u8], value: &[u8]) -> Result<()> {
    match step {
        Step::Pass | Step::ByHeader | Step::ByValue => tally.add((key, value)),
        Step::Enrich => {
            let order: Order = serde_json::from_slice(value)
                .with_context(|| format!("not of enrich: {}", String::from_utf8_lossy(value)))?;
            tally.add((key, order));
        }
        Step::Split => {
            let split: Split<'_> = serde_json::from_slice(value)
                .with_context(|| format!("not of q22: {}", String::from_utf8_lossy(value)))?;
            let content: Content<'_> = (
                String::from_utf8_lossy(key).into_owned(),
                split.auction,
                split.bidder,
                split.price,
                split.channel,
                [split.dir1, split.dir2, split.dir3],
            );
            tally.add(content);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bid::Bids;

    #[test]
    fn right_output_in_any_order_tallies_and_wrong_output_does_not() {
        let bids: Vec<Bid> = Bids::new(3, 50).collect();
        let write = |bid: &Bid| {
            let [a, b, c] = &bid.dirs;
            serde_json::json!({
                "dir3": c, "dir2": b, "dir1": a, "channel": bid.channel,
                "price": bid.price, "bidder": bid.bidder, "auction": bid.auction,
            })
            .to_string()
        };
        let tallied = |bids: &mut dyn Iterator<Item = &Bid>| {
            let mut tally = Tally::default();
            for bid in bids {
                let (key, value) = (bid.key(), write(bid));
                count(Step::Split, &mut tally, key.as_bytes(), value.as_bytes()).unwrap();
            }
            tally
        };
        let tally = tallied(&mut bids.iter().rev());
        assert_eq!(tally, expected(Workload::Q22, 3, 50).unwrap());

        // One event twice in place of another: the count agrees, the hash must not.
        let wrong = tallied(&mut bids.iter().skip(1).chain(&bids[5..6]));
        assert_eq!(wrong.events, tally.events);
        assert_ne!(wrong, tally);
    }

    #[test]
    fn the_same_event_under_another_key_does_not_tally() {
        let mut tally = Tally::default();
        for bid in Bids::new(3, 1) {
            let mut json = Vec::new();
            bid.write(&mut json);
            count(Step::Pass, &mut tally, b"other", &json).unwrap();
        }
        assert_ne!(tally, expected(Workload::Q0, 3, 1).unwrap());
    }

    #[test]
    fn a_filter_lets_one_in_a_hundred_pass_and_five_consumers_get_each() {
        let all = expected(Workload::Q0, 3, 100_000).unwrap().events;
        assert_eq!(all, 100_000);
        let kept = expected(Workload::FilterPlugin, 3, all).unwrap();
        assert!((900..1100).contains(&kept.events), "{}", kept.events);
        let by_header = expected(Workload::FilterHeader, 3, all).unwrap();
        assert_eq!(kept, by_header);
        assert_eq!(expected(Workload::FanOut, 3, 10).unwrap().events, 50);
    }

    #[test]
    fn a_workload_is_called_as_its_option() {
        for workload in Workload::value_variants() {
            let option = workload.to_possible_value().unwrap();
            assert_eq!(option.get_name(), workload.name());
        }
    }
}
