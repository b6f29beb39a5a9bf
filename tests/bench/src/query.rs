//! What a contender does to each event, and an independent calculation of what must come out.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;

use crate::bid::{Bid, Bids};

/// A query of Nexmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Query {
    /// Passes each bid through.
    Q0,
    /// Splits the URL of each bid and writes a new JSON object.
    Q22,
}

impl Query {
    /// Its name in results, topics and plugins.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q0 => "q0",
            Self::Q22 => "q22",
        }
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
}

/// What must come out of a query for these bids: calculated from what they were made of, not from
/// their JSON.
pub fn expected(query: Query, bids: Bids) -> Tally {
    let mut tally = Tally::default();
    let mut json = Vec::new();
    for bid in bids {
        match query {
            Query::Q0 => {
                json.clear();
                bid.write(&mut json);
                tally.add((bid.key().as_bytes(), json.as_slice()));
            }
            Query::Q22 => tally.add(content(&bid)),
        }
    }
    tally
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

/// Counts a derived event as a contender wrote it.
///
/// # Errors
/// The event is not what the query writes.
pub fn count(query: Query, tally: &mut Tally, key: &[u8], value: &[u8]) -> Result<()> {
    match query {
        Query::Q0 => tally.add((key, value)),
        Query::Q22 => {
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
        let mut tally = Tally::default();
        for bid in bids.iter().rev() {
            let value = write(bid);
            count(
                Query::Q22,
                &mut tally,
                bid.key().as_bytes(),
                value.as_bytes(),
            )
            .unwrap();
        }
        assert_eq!(tally, expected(Query::Q22, Bids::new(3, 50)));

        // One event twice in place of another: the count agrees, the hash must not.
        let mut wrong = Tally::default();
        for bid in bids.iter().skip(1).chain(&bids[5..6]) {
            let value = write(bid);
            count(
                Query::Q22,
                &mut wrong,
                bid.key().as_bytes(),
                value.as_bytes(),
            )
            .unwrap();
        }
        assert_eq!(wrong.events, tally.events);
        assert_ne!(wrong, tally);
    }

    #[test]
    fn the_same_event_under_another_key_does_not_tally() {
        let mut tally = Tally::default();
        for bid in Bids::new(3, 1) {
            let mut json = Vec::new();
            bid.write(&mut json);
            count(Query::Q0, &mut tally, b"other", &json).unwrap();
        }
        assert_ne!(tally, expected(Query::Q0, Bids::new(3, 1)));
    }
}
