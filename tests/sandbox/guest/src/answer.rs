//! An outcome in the making, with no rule checked.

use crate::exports::millstream::plugin::handler::Outcome;
use crate::millstream::plugin::types::{Failure, Header, Output, Span};

/// An outcome in the making.
pub struct Answer(pub Outcome);

impl Answer {
    pub fn new(events: usize) -> Self {
        Self(Outcome {
            handled: events as u32,
            outputs: Vec::new(),
            headers: Vec::new(),
            failures: Vec::new(),
            data: Vec::new(),
            extras: Vec::new(),
        })
    }

    pub fn finish(self) -> Outcome {
        self.0
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Span {
        let start = self.0.data.len() as u32;
        self.0.data.extend_from_slice(bytes);
        Span {
            start,
            length: bytes.len() as u32,
        }
    }

    /// The event as it came, to the first output.
    pub fn forward(&mut self, event: u32) -> &mut Output {
        let nothing = Span {
            start: 0,
            length: 0,
        };
        self.0.outputs.push(Output {
            timestamp_ms: 0,
            key: nothing,
            value: nothing,
            source: event,
            output: 0,
            edit: 0,
            headers_start: 0,
            headers_count: 0,
        });
        let last = self.0.outputs.len() - 1;
        &mut self.0.outputs[last]
    }

    /// The event with this text as its value.
    pub fn reply(&mut self, event: u32, text: &str) {
        let value = self.bytes(text.as_bytes());
        let output = self.forward(event);
        output.value = value;
        output.edit = 2 << 2;
    }

    /// The event with one more header.
    pub fn with_header(&mut self, event: u32, name: &str) {
        let name = self.bytes(name.as_bytes());
        let value = self.bytes(b"x");
        self.0.headers.push(Header {
            name,
            value,
            bits: 0,
        });
        let start = self.0.headers.len() as u32 - 1;
        let output = self.forward(event);
        output.headers_start = start;
        output.headers_count = 1;
        output.edit = 1 << 4;
    }

    pub fn fail(&mut self, event: u32, remedy: u32) {
        self.fail_for(event, remedy, 0);
    }

    /// A failure that lasts for so many milliseconds.
    pub fn fail_for(&mut self, event: u32, remedy: u32, after_ms: u32) {
        let code = self.bytes(b"told-to");
        let reason = self.bytes("the event asked for it".as_bytes());
        self.0.failures.push(Failure {
            event,
            remedy,
            after_ms,
            code,
            reason,
        });
    }
}
