//! What a plugin made of an event, copied out of a checked outcome.

use std::fmt;

use millstream_wire as wire;
use serde::de::DeserializeOwned;
use wire::Remedy;

/// What became of one event.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    outputs: Vec<Derived>,
    failure: Option<Failed>,
}

impl Answer {
    /// The events derived from it, in order; none where it failed.
    pub fn outputs(&self) -> &[Derived] {
        &self.outputs
    }

    /// The events derived from it that go to the output of this name.
    pub fn to<'a>(&'a self, output: &'a str) -> impl Iterator<Item = &'a Derived> {
        self.outputs
            .iter()
            .filter(move |derived| derived.output == output)
    }

    /// How it failed, if it did.
    pub fn failure(&self) -> Option<&Failed> {
        self.failure.as_ref()
    }

    /// Whether it was dropped: no output, no failure.
    pub fn is_dropped(&self) -> bool {
        self.outputs.is_empty() && self.failure.is_none()
    }

    /// The answer to the event at this index of the batch.
    pub(super) fn of(
        event: u32,
        checked: &wire::Checked,
        batch: &wire::Batch<'_>,
        outputs: &[String],
    ) -> Self {
        let failure = checked.failure(event).map(|failure| Failed {
            remedy: failure.remedy(),
            code: failure.code().to_owned(),
            reason: failure.reason().to_owned(),
            after_ms: failure.after_ms(),
        });
        let derived = checked
            .outputs()
            .filter(|output| failure.is_none() && output.source() == Some(event))
            .map(|output| Derived::of(&output, batch, outputs))
            .collect();
        Self {
            outputs: derived,
            failure,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Some(failure) => write!(f, "{failure:?}"),
            None if self.outputs.is_empty() => f.write_str("dropped"),
            None => f.debug_list().entries(&self.outputs).finish(),
        }
    }
}

/// A derived event, without the headers that the runtime adds.
#[derive(Clone, PartialEq, Eq)]
pub struct Derived {
    output: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: i64,
}

impl Derived {
    fn of(output: &wire::OutputView<'_>, batch: &wire::Batch<'_>, outputs: &[String]) -> Self {
        let name = outputs.get(output.output() as usize);
        Self {
            output: name.cloned().unwrap_or_default(),
            key: output.key(batch).map(<[u8]>::to_vec),
            value: output.value(batch).map(<[u8]>::to_vec),
            headers: output
                .headers(batch)
                .map(|(name, value)| {
                    let name = String::from_utf8_lossy(name).into_owned();
                    (name, value.map(<[u8]>::to_vec))
                })
                .collect(),
            timestamp: output.timestamp(batch),
        }
    }

    /// The name of the output that it goes to.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// The key; `None` is null.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The value; `None` is null, a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// The value as text.
    ///
    /// # Panics
    /// When it is null or not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        match self.value().map(std::str::from_utf8) {
            Some(Ok(text)) => text,
            _ => panic!("the value is not text: {self:?}"),
        }
    }

    /// The value as JSON.
    ///
    /// # Panics
    /// When it is null or not JSON of this shape.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_str(self.text()) {
            Ok(value) => value,
            Err(error) => panic!("the value is not the JSON expected, {error}: {self:?}"),
        }
    }

    /// The value of the last header of this name; `None` where there is none or it is null.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let last = self.headers.iter().rev().find(|(known, _)| known == name)?;
        last.1.as_deref()
    }

    /// All headers in order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, Option<&[u8]>)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
            None => "null".to_owned(),
        };
        write!(
            f,
            "{}: key {}, value {}",
            self.output,
            show(self.key()),
            show(self.value())
        )?;
        for (name, value) in self.headers() {
            write!(f, ", {name} = {}", show(value))?;
        }
        if self.timestamp != super::TestEvent::TIMESTAMP {
            write!(f, ", timestamp {}", self.timestamp)?;
        }
        Ok(())
    }
}

/// How an event failed.
#[derive(Clone, PartialEq, Eq)]
pub struct Failed {
    remedy: Remedy,
    code: String,
    reason: String,
    after_ms: u32,
}

impl Failed {
    /// What is to be done.
    pub fn remedy(&self) -> Remedy {
        self.remedy
    }

    /// The stable name of the failure.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The text for a person.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Milliseconds before which it is not tried again; 0 leaves it to the configuration.
    pub fn after_ms(&self) -> u32 {
        self.after_ms
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            remedy,
            code,
            reason,
            after_ms,
        } = self;
        write!(f, "{remedy:?} [{code}]: {reason}")?;
        if *after_ms > 0 {
            write!(f, " (after {after_ms} ms)")?;
        }
        Ok(())
    }
}
