//! Everything that comes from outside is read by code that is called here with what nobody meant to
//! write. The guide of the tests says what holds for each target.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod bodies;
mod components;
mod configuration;
mod filters;
mod headers;
mod letters;
mod outcomes;
mod positions;
mod requests;
mod store;

use millstream::event::{Block, BlockBuilder, NewEvent, TopicPartition};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A header as it is drawn.
type Header = (Vec<u8>, Option<Vec<u8>>);

/// An event of `orders` with these headers.
fn event(key: Option<&[u8]>, headers: &[Header]) -> Block {
    let mut block = BlockBuilder::new(TopicPartition::new("orders", 3), 1, 64);
    block.push(NewEvent {
        offset: 42,
        timestamp_ms: 1_700_000_000_000,
        timestamp_of_broker: false,
        key,
        value: Some(b"value"),
    });
    for (name, value) in headers {
        block.push_header(name, value.as_deref());
    }
    block.build()
}

/// Up to `most` headers whose names and values are mostly among these.
fn headers(
    names: &'static [&'static str],
    values: &'static [&'static str],
    most: usize,
) -> impl Strategy<Value = Vec<Header>> {
    let word = |words: &'static [&'static str]| {
        prop_oneof![
            8 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..12),
        ]
    };
    vec((word(names), option::weighted(0.9, word(values))), 0..most)
}
