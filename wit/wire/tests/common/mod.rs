//! A batch of two events and an outcome that keeps every rule, for tests to bend.
#![allow(dead_code, reason = "each test program uses a part of it")]

use millstream_wire::*;

/// What the test batch holds, in one arena. Two events; the first has headers `a: 1` and `b: null`.
pub const DATA: &[u8] = b"topickey0value0key1value1a1b";

pub fn span(start: u32, length: u32) -> Span {
    Span { start, length }
}

fn events() -> [Event; 2] {
    let event = |key, value| Event {
        topic: span(0, 5),
        key,
        value,
        timestamp_ms: 7,
        attempt: 1,
        ..Event::default()
    };
    let first = event(span(5, 4), span(9, 6));
    let second = event(span(15, 4), span(19, 6));
    [
        Event {
            headers_count: 2,
            ..first
        },
        Event {
            headers_start: 2,
            bits: EVENT_VALUE_NULL,
            ..second
        },
    ]
}

fn batch_headers() -> [Header; 2] {
    let null = Header {
        name: span(27, 1),
        bits: HEADER_VALUE_NULL,
        ..Header::default()
    };
    [
        Header {
            name: span(25, 1),
            value: span(26, 1),
            bits: 0,
        },
        null,
    ]
}

pub fn with_batch<T>(run: impl FnOnce(&Batch<'static>) -> T) -> T {
    use std::sync::LazyLock;
    static EVENTS: LazyLock<[Event; 2]> = LazyLock::new(events);
    static HEADERS: LazyLock<[Header; 2]> = LazyLock::new(batch_headers);
    run(&Batch {
        events: &*EVENTS,
        headers: &*HEADERS,
        data: DATA,
        extras: &[],
        budget_ms: 1000,
        bits: BATCH_IN_ORDER,
    })
}

pub const LIMITS: Limits = Limits {
    outputs: 4,
    output_bytes: 100,
    headers: 3,
};

/// Two handled events and an arena `Name` + `value` + `ok-code` + a byte that is not UTF-8.
pub fn outcome() -> Outcome {
    Outcome {
        handled: 2,
        data: b"Namevalueok-code\xff".to_vec(),
        ..Outcome::default()
    }
}

pub fn verdict(outcome: Outcome) -> Result<Checked, Invalid> {
    with_batch(|batch| check(batch, outcome, 2, &LIMITS))
}

pub const KEY_OUTCOME: u32 = 2;
pub const KEY_BATCH: u32 = 3;
pub const VALUE_OUTCOME: u32 = 2 << 2;
pub const AMEND: u32 = 1 << EDIT_HEADERS_SHIFT;
pub const REPLACE: u32 = 2 << EDIT_HEADERS_SHIFT;

pub fn failure(event: u32, remedy: u32) -> Failure {
    Failure {
        event,
        remedy,
        code: span(9, 7),
        reason: span(0, 9),
        ..Failure::default()
    }
}
