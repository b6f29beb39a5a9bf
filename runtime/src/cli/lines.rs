//! From lines of input to batches of records.
//!
//! ```text
//! stdin, file ─▶ lines ─▶ Shape: key, value, headers ─▶ batches ─▶ bounded channel ─▶ broker
//!                 on a thread of its own: a read may block for ever
//! ```

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc::Sender;

use crate::json_event;
use crate::records::{NewRecord, Records};

/// Largest line, in bytes.
pub const MAX_LINE: usize = 8 << 20;
/// A batch is sent when it has this many events or bytes.
pub const BATCH_EVENTS: usize = 10_000;
pub const BATCH_BYTES: usize = 1 << 20;
/// How much is read at once.
const READ_BYTES: usize = 256 << 10;

/// How a line becomes a record.
#[derive(Clone, Debug)]
pub struct Shape {
    pub topic: Arc<str>,
    /// The key of every record.
    pub key: Option<Vec<u8>>,
    /// What parts a line's key from its value.
    pub separator: Option<Vec<u8>>,
    /// Headers of every record.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub partition: Option<u32>,
    /// Whether an empty key or value is null.
    pub null: bool,
    /// Whether a line is a whole event as JSON.
    pub json: bool,
}

impl Shape {
    /// Adds the record of a line.
    ///
    /// # Errors
    /// The line has no separator, or is not an event.
    pub fn add(&self, line: &[u8], records: &mut Records) -> Result<(), String> {
        if self.json {
            if line.trim_ascii().is_empty() {
                return Ok(());
            }
            let event = json_event::parse(line).map_err(|error| error.to_string())?;
            event.push_to(records, &self.topic, self.partition);
        } else {
            let (key, value) = match &self.separator {
                None => (self.key.as_deref(), line),
                Some(separator) => {
                    let (key, value) = split(line, separator).ok_or_else(|| {
                        let separator = String::from_utf8_lossy(separator);
                        format!("the key separator {separator:?} is not in it")
                    })?;
                    (Some(key), value)
                }
            };
            let kept = |bytes: &&[u8]| !(self.null && bytes.is_empty());
            records.push(
                &self.topic,
                NewRecord {
                    key: key.filter(kept),
                    value: Some(value).filter(kept),
                    partition: self.partition,
                    ..NewRecord::default()
                },
            );
        }
        for (name, value) in &self.headers {
            records.push_header(name, Some(value));
        }
        Ok(())
    }
}

fn split<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut windows = line.windows(separator.len().max(1));
    let at = windows.position(|window| window == separator)?;
    Some((&line[..at], &line[at + separator.len()..]))
}

/// Reads lines until the end of the input and sends their records, full batches where more input
/// waits and at once where none does. Blocks; ends early when nobody receives any more.
///
/// # Errors
/// The input cannot be read, or a line is at fault: the records of all lines before it were sent.
pub fn read(input: impl Read, shape: &Shape, batches: &Sender<Records>) -> anyhow::Result<()> {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut records = Records::new();
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let read = (&mut input)
            .take(MAX_LINE as u64 + 1)
            .read_until(b'\n', &mut line);
        let added = match read {
            Ok(0) => break,
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                match line.len() > MAX_LINE {
                    true => Err(format!("it is longer than {} MiB", MAX_LINE >> 20)),
                    false => shape.add(&line, &mut records),
                }
            }
            Err(error) => {
                send(&mut records, batches);
                return Err(error).with_context(|| format!("cannot read line {number}"));
            }
        };
        if let Err(reason) = added {
            send(&mut records, batches);
            anyhow::bail!("line {number}: {reason}");
        }
        let full = records.len() >= BATCH_EVENTS || records.bytes() >= BATCH_BYTES;
        // The next read may block for as long as whoever writes takes.
        let drained = !input.buffer().contains(&b'\n');
        if (full || drained) && !send(&mut records, batches) {
            return Ok(());
        }
    }
    send(&mut records, batches);
    Ok(())
}

/// Sends the records if there are any; false where nobody receives them.
fn send(records: &mut Records, batches: &Sender<Records>) -> bool {
    records.is_empty() || batches.blocking_send(std::mem::take(records)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            topic: "orders".into(),
            key: None,
            separator: None,
            headers: Vec::new(),
            partition: None,
            null: false,
            json: false,
        }
    }

    /// Key and value of every record; `None` is null.
    type Pairs = Vec<(Option<String>, Option<String>)>;

    fn run(input: &[u8], shape: &Shape) -> (Pairs, Result<(), String>) {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1000);
        let result = read(input, shape, &sender).map_err(|error| error.to_string());
        drop(sender);
        let mut pairs = Vec::new();
        while let Some(records) = receiver.blocking_recv() {
            for record in records.iter() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                pairs.push((record.key().map(text), record.value().map(text)));
            }
        }
        (pairs, result)
    }

    fn pair(key: Option<&str>, value: Option<&str>) -> (Option<String>, Option<String>) {
        (key.map(str::to_owned), value.map(str::to_owned))
    }

    #[test]
    fn a_line_is_an_event_with_its_bytes_as_they_are() {
        let (pairs, result) = run(b"a\n\n b \r\nlast", &shape());
        let values: Vec<_> = pairs.into_iter().map(|(_, value)| value).collect();
        let wanted = ["a", "", " b \r", "last"].map(|text| Some(text.to_owned()));
        assert_eq!((values, result), (wanted.to_vec(), Ok(())));
    }

    #[test]
    fn keys_are_parted_at_the_first_separator() {
        let shape = Shape {
            separator: Some(b"::".to_vec()),
            ..shape()
        };
        let (pairs, result) = run(b"k::v::w\n::v\nk::\n", &shape);
        let wanted = vec![
            pair(Some("k"), Some("v::w")),
            pair(Some(""), Some("v")),
            pair(Some("k"), Some("")),
        ];
        assert_eq!((pairs, result), (wanted, Ok(())));
    }

    #[test]
    fn null_turns_what_is_empty_into_null() {
        let shape = Shape {
            separator: Some(b":".to_vec()),
            null: true,
            ..shape()
        };
        let (pairs, _) = run(b"k:\n:v\n", &shape);
        assert_eq!(pairs, [pair(Some("k"), None), pair(None, Some("v"))]);
    }

    /// A mistake in the middle must not lose what stands before it, nor write what follows.
    #[test]
    fn lines_before_a_bad_one_are_sent_and_the_bad_one_is_named() {
        let shape = Shape {
            json: true,
            ..shape()
        };
        let input = b"{\"value\":\"1\"}\n\n{\"value\":\"2\"}\nnonsense\n{\"value\":\"3\"}\n";
        let (pairs, result) = run(input, &shape);
        assert_eq!(pairs, [pair(None, Some("1")), pair(None, Some("2"))]);
        let error = result.expect_err("an error");
        assert!(error.starts_with("line 4: "), "{error}");
    }

    /// Somebody who types, or a log that is followed, must not wait for a batch to fill.
    #[test]
    fn what_was_read_is_sent_before_the_next_read() {
        struct Slow<'a>(&'a tokio::sync::mpsc::Sender<Records>, usize);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let sent = self.0.max_capacity() - self.0.capacity();
                assert_eq!(sent, self.1, "the lines so far were not sent");
                if self.1 == 3 {
                    return Ok(0);
                }
                self.1 += 1;
                buffer[..2].copy_from_slice(b"x\n");
                Ok(2)
            }
        }
        let (sender, _receiver) = tokio::sync::mpsc::channel(10);
        read(Slow(&sender, 0), &shape(), &sender).expect("no error");
    }

    #[test]
    fn batches_and_lines_are_bounded() {
        let input = b"x\n".repeat(BATCH_EVENTS + 1);
        let (sender, mut receiver) = tokio::sync::mpsc::channel(10);
        read(&input[..], &shape(), &sender).expect("no error");
        assert_eq!(
            receiver.blocking_recv().map(|r| r.len()),
            Some(BATCH_EVENTS)
        );
        let endless = std::io::repeat(b'x');
        let error = read(endless, &shape(), &sender).expect_err("an error");
        assert!(error.to_string().contains("longer than 8 MiB"), "{error}");
    }
}
