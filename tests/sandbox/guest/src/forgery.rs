//! Answers that break one rule of the wall each, and answers that stand for far more than they hold.

use crate::answer::Answer;
use crate::millstream::plugin::types::{Extra, Failure, Header, Span};

const EVERYTHING: Span = Span {
    start: u32::MAX,
    length: u32::MAX,
};
const NOTHING: Span = Span {
    start: 0,
    length: 0,
};
/// Bits of `edit`.
const VALUE_OF_OUTCOME: u32 = 2 << 2;
const KEY_OF_BATCH: u32 = 3;
const HEADERS_AMEND: u32 = 1 << 4;
const HEADERS_REPLACE: u32 = 2 << 4;
/// Outputs of an answer that a consumer of the tests takes.
const MANY: u32 = 10_000;

/// Forges the answer for the event at `index` as `name` says; false where it is not known.
pub fn forge(answer: &mut Answer, index: u32, name: &str) -> bool {
    match name {
        "value-span-wraps" => {
            let output = answer.forward(index);
            output.value = EVERYTHING;
            output.edit = VALUE_OF_OUTCOME;
        }
        "key-span-leaves-batch" => {
            let output = answer.forward(index);
            output.key = Span {
                start: 1 << 20,
                length: 1,
            };
            output.edit = KEY_OF_BATCH;
        }
        "header-range-leaves" => {
            let output = answer.forward(index);
            output.headers_start = u32::MAX;
            output.headers_count = 2;
            output.edit = HEADERS_AMEND;
        }
        "edit-bit-7" => answer.forward(index).edit = 1 << 7,
        "edit-headers-3" => answer.forward(index).edit = 3 << 4,
        "output-9" => answer.forward(index).output = 9,
        "source-not-handled" => {
            answer.forward(index + 1);
        }
        "source-falls" => {
            answer.forward(index);
            answer.forward(index.wrapping_sub(1));
        }
        "batch-inherits" => {
            answer.forward(u32::MAX);
        }
        "handled-beyond" => answer.0.handled = u32::MAX,
        "extra" => answer.0.extras.push(Extra {
            item: 0,
            kind: 1,
            value: u64::MAX,
        }),
        "header-bit-1" => header(answer, index, b"name", 2),
        "header-unnamed" => header(answer, index, b"", 0),
        "header-long" => header(answer, index, &[b'x'; 256], 0),
        "header-not-utf8" => header(answer, index, b"\xff\xfe", 0),
        "header-traceparent" => header(answer, index, b"traceparent", 0),
        "header-dead-letter" => header(answer, index, b"millstream-dlq-consumer", 0),
        "headers-unused" => {
            answer.forward(index);
            answer.0.headers = vec![plain(NOTHING); 65 * 1_000];
        }
        "remedy-0" => answer.fail(index, 0),
        "remedy-9" => answer.fail(index, 9),
        "failure-beyond" => answer.fail(u32::MAX, 1),
        "failure-too-early" => answer.fail(index, 4),
        "failures-many" => (0..MANY).for_each(|event| answer.fail(event, 1)),
        "code-shouts" => fail_with(answer, index, b"NOT A CODE", b""),
        "code-long" => fail_with(answer, index, &[b'x'; 65], b""),
        "reason-not-utf8" => fail_with(answer, index, b"", b"\xff"),
        "reason-span" => {
            answer.fail(index, 1);
            if let Some(failure) = answer.0.failures.last_mut() {
                failure.reason = EVERYTHING;
            }
        }
        // One mebibyte, ten thousand times.
        "shared-value" => {
            let value = answer.bytes(&vec![b'x'; 1 << 20]);
            for _ in 0..MANY {
                let output = answer.forward(index);
                output.value = value;
                output.edit = VALUE_OF_OUTCOME;
            }
        }
        // Spans that overlap in all but a byte each.
        "overlapping-values" => {
            let value = answer.bytes(&vec![b'x'; 1 << 20]);
            for shift in 0..MANY {
                let output = answer.forward(index);
                output.value = Span {
                    start: value.start + shift,
                    length: value.length - MANY,
                };
                output.edit = VALUE_OF_OUTCOME;
            }
        }
        // The same 64 headers of 4 KiB, ten thousand times.
        "shared-headers" => {
            let name = answer.bytes(b"name");
            let value = answer.bytes(&[b'x'; 4 << 10]);
            answer.0.headers = vec![
                Header {
                    name,
                    value,
                    bits: 0,
                };
                64
            ];
            for _ in 0..MANY {
                let output = answer.forward(index);
                output.headers_count = 64;
                output.edit = HEADERS_REPLACE;
            }
        }
        // What the event holds already, ten thousand times.
        "forward-often" => (0..MANY).for_each(|_| {
            answer.forward(index);
        }),
        _ => return false,
    }
    true
}

fn plain(name: Span) -> Header {
    Header {
        name,
        value: NOTHING,
        bits: 0,
    }
}

fn header(answer: &mut Answer, index: u32, name: &[u8], bits: u32) {
    let name = answer.bytes(name);
    answer.0.headers.push(Header {
        bits,
        ..plain(name)
    });
    let output = answer.forward(index);
    output.headers_count = 1;
    output.edit = HEADERS_AMEND;
}

fn fail_with(answer: &mut Answer, event: u32, code: &[u8], reason: &[u8]) {
    let (code, reason) = (answer.bytes(code), answer.bytes(reason));
    answer.0.failures.push(Failure {
        event,
        remedy: 1,
        after_ms: 0,
        code,
        reason,
    });
}
