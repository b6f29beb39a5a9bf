//! What is written to the topics, and the checks of each record.

use millstream::records::{RecordView, Records};

use crate::plugin;
use crate::trace::About;
use crate::version::Version;
use crate::world::{DEAD, INPUT, Input, World, show};

/// A record that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// Where its source lies.
    pub partition: u32,
    pub offset: u64,
    pub key: Option<String>,
    /// `millstream-dlq-reason`, for dead letters.
    pub reason: Option<String>,
}

impl World {
    /// Appends the first `count` records of a consumer's `life`.
    ///
    /// A request on its way outlives its sender. Where events are claimed before they are processed,
    /// the next life does not write them again, so that a late one may come behind newer ones; then
    /// requests end with their life.
    pub fn append(&mut self, records: &Records, count: usize, life: u64) {
        if self.claims && life != self.life {
            return;
        }
        for record in records.iter().take(count) {
            self.append_one(&record, life);
        }
    }

    fn append_one(&mut self, record: &RecordView<'_>, life: u64) {
        let dead = &**record.topic() == DEAD;
        let Some((partition, offset)) = source_of(record) else {
            let text = "a record does not say where it comes from".to_owned();
            self.trace.violate(About::All, text);
            return;
        };
        let about = About::event(partition, offset);
        let reason = header(record, "millstream-dlq-reason");
        self.trace.note(about, || {
            let what = match &reason {
                Some(reason) => format!("dead letter ({reason})"),
                None => "derived event".to_owned(),
            };
            format!(
                "written: {what} of {}, life {life}",
                show(partition, offset)
            )
        });
        let again = !self.written.insert((partition, offset));
        // At most once claims what it calls the plugin for; what is refused before is not called.
        let uncalled = self.claims && reason.as_deref() == Some("hops");
        if self.once && again && !uncalled {
            let text = format!("I2: {} is written twice", show(partition, offset));
            self.trace.violate(about, text);
        }
        if life == self.calm && self.repeats(partition, offset) {
            let text = format!(
                "I9: {} is written twice though nothing failed",
                show(partition, offset)
            );
            self.trace.violate(about, text);
        }
        self.check_version(record, (partition, offset), reason.as_deref());
        let key = record
            .key()
            .map(|key| String::from_utf8_lossy(key).into_owned());
        if &**record.topic() == INPUT {
            self.feed(record, offset);
        }
        let log = if dead {
            &mut self.dead
        } else {
            &mut self.derived
        };
        log.push(Wrote {
            partition,
            offset,
            key,
            reason,
        });
    }

    fn repeats(&mut self, partition: u32, offset: u64) -> bool {
        !self.calm_writes.insert((partition, offset)) && !self.retaken.contains(&partition)
    }

    /// I9: nothing is written by the word of a version in shadow, and no event is given up by that of
    /// one on probation (at most once aside, where nothing can wait).
    fn check_version(
        &mut self,
        record: &RecordView<'_>,
        place: (u32, u64),
        given_up: Option<&str>,
    ) {
        let (about, event) = (About::event(place.0, place.1), show(place.0, place.1));
        let Some(number) = made_by(record) else {
            let text = format!("I9: nobody knows which version made a record of {event}");
            self.trace.violate(about, text);
            return;
        };
        if self.versions.is_shadow(number) {
            let text = format!("I9: what version {number} says in shadow of {event} is written");
            self.trace.violate(about, text);
        }
        let Some(reason) = given_up else {
            return;
        };
        let by_plugin = !matches!(reason, "hops" | "crash");
        if by_plugin && self.versions.is_unproven(number) && !self.claims {
            let text = format!("I9: version {number} gives {event} up ({reason}) on probation");
            self.trace.violate(about, text);
        }
        if self.versions.is_faulty(number) {
            self.spoilt.insert(place);
        }
    }

    /// A derived event that is read again.
    fn feed(&mut self, record: &RecordView<'_>, turn: u64) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let partition = turn as usize % self.input.len();
        let offset = self.ends[partition];
        self.input[partition].push(Input {
            offset,
            key: record.key().map(text),
            value: record.value().map(text).unwrap_or_default(),
            hops: header(record, "millstream-hops")
                .and_then(|hops| hops.parse().ok())
                .unwrap_or(0),
        });
        // A marker of its transaction follows.
        self.ends[partition] = offset + 2;
        if self.input.iter().map(Vec::len).sum::<usize>() == self.most_events {
            let text = "storm: a topology that feeds itself does not end".to_owned();
            self.trace.violate(About::All, text);
        }
    }
}

/// Where the event lies that a record follows from.
pub fn source_of(record: &RecordView<'_>) -> Option<(u32, u64)> {
    let (partition, offset) = if &**record.topic() == DEAD {
        header(record, "millstream-dlq-partition").zip(header(record, "millstream-dlq-offset"))?
    } else {
        let source = header(record, "millstream-source")?;
        let mut parts = source.split('/').skip(1).map(str::to_owned);
        parts.next().zip(parts.next())?
    };
    partition.parse().ok().zip(offset.parse().ok())
}

/// The number of the version that made a record, or gave its source up.
pub fn made_by(record: &RecordView<'_>) -> Option<u64> {
    match header(record, "millstream-dlq-plugin-digest") {
        Some(digest) => Version::number_of(&digest),
        None => header(record, plugin::VERSION)?.parse().ok(),
    }
}

fn header(record: &RecordView<'_>, name: &str) -> Option<String> {
    record
        .headers()
        .find(|(found, _)| *found == name.as_bytes())
        .and_then(|(_, value)| value)
        .map(|value| String::from_utf8_lossy(value).into_owned())
}
