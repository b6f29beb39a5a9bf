//! Nexmark's q22 as a module for Redpanda Connect's `wasm` processor, which calls [`process`] for each
//! message.
//!
//! The processor copies a message to where [`allocate`] says, and copies the answer.

use std::borrow::Cow;
use std::cell::RefCell;

use serde::{Deserialize, Serialize};

#[link(wasm_import_module = "benthos_wasm")]
extern "C" {
    fn v0_msg_as_bytes() -> u64;
    fn v0_msg_set_bytes(pointer: *const u8, length: usize);
}

#[derive(Deserialize)]
struct Bid<'a> {
    auction: u64,
    bidder: u64,
    price: u64,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
}

#[derive(Serialize)]
struct Split<'a> {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: &'a str,
    dir1: &'a str,
    dir2: &'a str,
    dir3: &'a str,
}

thread_local! {
    /// The message, and what becomes of it. A module does one message at a time, so both stay for the
    /// next one.
    static MESSAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where the processor writes the message.
#[no_mangle]
pub extern "C" fn allocate(length: usize) -> *mut u8 {
    MESSAGE.with_borrow_mut(|message| {
        message.resize(length, 0);
        message.as_mut_ptr()
    })
}

/// The processor has read the answer, which stays where it is.
#[no_mangle]
pub extern "C" fn deallocate(_pointer: *mut u8, _length: usize) {}

/// Splits the URL of the bid that the message is into its folders. A message that is none traps.
#[no_mangle]
pub extern "C" fn process() {
    // SAFETY: the processor offers it during a call of `process`, which this is. It writes what it
    // asked `allocate` for, and nobody borrows the message now.
    unsafe { v0_msg_as_bytes() };
    MESSAGE.with_borrow(|message| {
        ANSWER.with_borrow_mut(|answer| {
            answer.clear();
            split(message, answer);
            // SAFETY: so many bytes lie there until the next message.
            unsafe { v0_msg_set_bytes(answer.as_ptr(), answer.len()) };
        });
    });
}

fn split(message: &[u8], answer: &mut Vec<u8>) {
    let bid: Bid<'_> = serde_json::from_slice(message).expect("a bid");
    // Behind the scheme, an empty part and the host.
    let mut parts = bid.url.split('/').skip(3);
    let mut part = || parts.next().unwrap_or_default();
    let split = Split {
        auction: bid.auction,
        bidder: bid.bidder,
        price: bid.price,
        channel: &bid.channel,
        dir1: part(),
        dir2: part(),
        dir3: part(),
    };
    serde_json::to_writer(answer, &split).expect("numbers and texts");
}
