//! The headers of a derived event: what it inherits, what the plugin set, what the runtime adds.
//!
//! ```text
//! source's headers ─▶ without millstream-*, traceparent, and those that the plugin amends ─┐
//! plugin's own ────────────────────────────────────────────────────────────────────────────┼─▶ record
//! runtime's: source, id, hops, traceparent continued, correlation-id, CloudEvents identity ┘
//! ```

use std::sync::Arc;

use millstream_wire as wire;
use millstream_wire::HeaderEdit;

use super::replay::Origin;
use super::work::Work;
use crate::decide::trace_parent::TraceParent;
use crate::event::{EventView, TopicPartition};
use crate::mutation::{self, Mutation};
use crate::records::{NewRecord, Records};

/// `topic/partition/offset` of the source.
pub const SOURCE: &str = "millstream-source";
/// `topic/partition/offset/n`, the same at every attempt: the idempotency key.
pub const ID: &str = "millstream-id";
/// How many consumers an event has come through.
pub const HOPS: &str = "millstream-hops";
/// Prefix of the headers that are the runtime's alone.
pub const RESERVED: &[u8] = b"millstream-";

const TRACEPARENT: &[u8] = b"traceparent";
const TRACESTATE: &[u8] = b"tracestate";
const BAGGAGE: &[u8] = b"baggage";
const CORRELATION_ID: &[u8] = b"correlation-id";
const CE_ID: &[u8] = b"ce_id";
const CE_SOURCE: &[u8] = b"ce_source";
const CE_TIME: &[u8] = b"ce_time";

/// Inherited timestamps further ahead than this are set back to now: a broker may refuse them, and
/// retention by time would keep their segment for as long.
const AHEAD_MS: i64 = 3_600_000;

/// Headers that the runtime adds to most records, and about how many bytes they have.
const RUNTIME_HEADERS: usize = 4;
const RUNTIME_HEADER_BYTES: usize = 150;
/// Bytes reserved for one outcome, so that a guess from one large event costs little.
const RESERVED_AT_MOST: usize = 1 << 20;

/// A header that the plugin set.
pub type OwnHeader<'a> = (&'a [u8], Option<&'a [u8]>);

/// A derived event as the plugin gave it.
pub struct Derived<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Whether the value is another than the source's.
    pub value_changed: bool,
    /// Milliseconds; `None` is the source's.
    pub timestamp_ms: Option<i64>,
    pub edit: HeaderEdit,
    pub own: &'a [OwnHeader<'a>],
    /// Counts the derived events of one source, from 0 on.
    pub number: u32,
    /// Whether there is a source to inherit headers from; else the source only says where the
    /// event comes from.
    pub inherits: bool,
}

/// Writes derived events of one consumer; keeps its buffers.
pub struct Deriver {
    consumer: Arc<str>,
    /// Whether the sources were sent back: then they are the events that they first were.
    replayed: bool,
    now_ms: i64,
    /// `topic/partition/` of the events that are derived from now.
    place: Vec<u8>,
    place_of: Option<TopicPartition>,
    id: Vec<u8>,
    text: Vec<u8>,
}

impl Deriver {
    /// For `consumer`, at this time of the wall clock; `replayed` says that the sources are of its
    /// replay topic.
    pub fn new(consumer: &Arc<str>, replayed: bool, now_ms: i64) -> Self {
        Self {
            consumer: consumer.clone(),
            replayed,
            now_ms,
            place: Vec::new(),
            place_of: None,
            id: Vec::with_capacity(64),
            text: Vec::with_capacity(64),
        }
    }

    /// Appends the record of a derived event for `topic`.
    pub fn push(
        &mut self,
        records: &mut Records,
        topic: &Arc<str>,
        source: &EventView<'_>,
        derived: &Derived<'_>,
    ) {
        let timestamp = derived.timestamp_ms.unwrap_or_else(|| {
            let inherited = source.timestamp_ms();
            if inherited > self.now_ms.saturating_add(AHEAD_MS) {
                self.now_ms
            } else {
                inherited
            }
        });
        records.push(
            topic,
            NewRecord {
                key: derived.key,
                value: derived.value,
                partition: None,
                timestamp_ms: Some(timestamp),
                tag: source.offset(),
            },
        );
        let inherited = self.inherit(records, source, derived);
        for (name, value) in derived.own {
            let removes = derived.edit == HeaderEdit::Amend || *name == CORRELATION_ID;
            if value.is_some() || !removes {
                records.push_header(name, *value);
            }
        }
        self.add_runtime_headers(records, source, derived, inherited);
    }

    /// Copies what the record keeps of its source's headers, and reports what the source had.
    fn inherit(
        &self,
        records: &mut Records,
        source: &EventView<'_>,
        derived: &Derived<'_>,
    ) -> Inherited {
        let mut found = Inherited::default();
        if !derived.inherits {
            return found;
        }
        let replaced = derived.edit == HeaderEdit::Replace;
        for (name, value) in source.headers() {
            if name.starts_with(RESERVED) {
                if name == HOPS.as_bytes() {
                    found.hops = parse_hops(value);
                }
                continue;
            }
            let correlation = name == CORRELATION_ID;
            let passes_a_replacement = name == TRACESTATE || name == BAGGAGE || correlation;
            // A plugin may give another one, and take none away: what belongs together would be
            // found no more.
            let amended = match correlation {
                true => derived.correlates(),
                false => derived.has_own(name),
            };
            found.cloud_event |= name == CE_ID;
            found.correlation |= correlation && value.is_some();
            found.trace |= name == TRACEPARENT;
            let identity = name == CE_ID || name == CE_SOURCE || name == CE_TIME;
            let dropped = name == TRACEPARENT
                || (replaced && !passes_a_replacement)
                || (identity && derived.value_changed)
                || (correlation && value.is_none())
                || (derived.edit != HeaderEdit::Keep && amended);
            if !dropped {
                records.push_header(name, value);
            }
        }
        found
    }

    fn add_runtime_headers(
        &mut self,
        records: &mut Records,
        source: &EventView<'_>,
        derived: &Derived<'_>,
        inherited: Inherited,
    ) {
        self.start_id(source);
        records.push_header(SOURCE.as_bytes(), Some(&self.id));
        if !inherited.correlation && !derived.correlates() {
            // From the source's place, so that every attempt and every derived event agrees on it.
            let hash = xxhash_rust::xxh3::xxh3_128(&self.id);
            let hash = hexadecimal(hash.to_be_bytes());
            records.push_header(CORRELATION_ID, Some(hash.as_flattened()));
        }
        self.id.push(b'/');
        decimal(&mut self.id, u64::from(derived.number));
        records.push_header(ID.as_bytes(), Some(&self.id));
        self.text.clear();
        let hops = match mutation::is(Mutation::HopsNotCounted) {
            true => 1,
            false => u64::from(inherited.hops) + 1,
        };
        decimal(&mut self.text, hops);
        records.push_header(HOPS.as_bytes(), Some(&self.text));
        if inherited.trace
            && let Some(parent) = source.header("traceparent").and_then(TraceParent::parse)
        {
            let span = xxhash_rust::xxh3::xxh3_64(&self.id).max(1);
            let span = hexadecimal(span.to_be_bytes());
            let span = span.as_flattened();
            let (trace, flags) = (parent.trace_id.as_bytes(), parent.flags.as_bytes());
            let continued = [b"00".as_slice(), trace, span, flags].join(&b'-');
            records.push_header(TRACEPARENT, Some(&continued));
        }
        if inherited.cloud_event && derived.value_changed {
            if !derived.has_own(CE_ID) {
                records.push_header(CE_ID, Some(&self.id));
            }
            if !derived.has_own(CE_SOURCE) {
                let source = format!("millstream/{}", self.consumer);
                records.push_header(CE_SOURCE, Some(source.as_bytes()));
            }
            if !derived.has_own(CE_TIME) {
                let time = rfc3339(self.now_ms);
                records.push_header(CE_TIME, Some(time.as_bytes()));
            }
        }
    }
}

impl Deriver {
    /// Begins `id` with `topic/partition/offset`.
    fn start_id(&mut self, source: &EventView<'_>) {
        let partition = source.source();
        let same = self.place_of.as_ref().is_some_and(|known| {
            Arc::ptr_eq(&known.topic, &partition.topic) && known.partition == partition.partition
        });
        if !same {
            self.place = format!("{partition}/").into_bytes();
            self.place_of = Some(partition.clone());
        }
        self.id.clear();
        if self.replayed
            && let Some(origin) = Origin::of(source)
        {
            let id = format!("{}/{}", origin.partition, origin.offset);
            self.id.extend_from_slice(id.as_bytes());
            return;
        }
        self.id.extend_from_slice(&self.place);
        decimal(&mut self.id, source.offset());
    }
}

/// Makes room for the records of an outcome at once, as if every one inherited what the first event
/// of `work` carries: growing step by step copies them several times.
pub fn reserve(records: &mut Records, outcome: &wire::Outcome, work: &Work) {
    let outputs = outcome.outputs.len();
    if outputs == 0 || work.is_empty() {
        return;
    }
    let first = work.event(0);
    let headers = first.record().headers_count as usize + RUNTIME_HEADERS;
    let inherited = first.bytes() + RUNTIME_HEADER_BYTES + 2 * first.source().topic.len();
    let bytes = (outputs * inherited).saturating_add(outcome.data.len());
    records.reserve(
        outputs,
        outputs * headers + outcome.headers.len(),
        bytes.min(RESERVED_AT_MOST),
    );
}

/// Appends a number; an event has five of them, which `fmt` would spend a microsecond on.
fn decimal(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Two digits of base 16 for each byte.
fn hexadecimal<const BYTES: usize>(bytes: [u8; BYTES]) -> [[u8; 2]; BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.map(|byte| [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]))
}

impl Derived<'_> {
    fn has_own(&self, name: &[u8]) -> bool {
        self.own.iter().any(|(own, _)| *own == name)
    }

    /// Whether the plugin gave it a `correlation-id`.
    fn correlates(&self) -> bool {
        let given = |(name, value): &OwnHeader<'_>| *name == CORRELATION_ID && value.is_some();
        self.own.iter().any(given)
    }
}

/// What was found among the source's headers.
#[derive(Clone, Copy, Default)]
struct Inherited {
    hops: u32,
    correlation: bool,
    trace: bool,
    cloud_event: bool,
}

/// How many consumers an event has come through; 0 where no header says so.
pub fn hops(event: &EventView<'_>) -> u32 {
    if event.record().headers_count == 0 {
        return 0;
    }
    parse_hops(event.header(HOPS))
}

fn parse_hops(value: Option<&[u8]>) -> u32 {
    value
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Milliseconds since 1970-01-01 UTC as RFC 3339, such as `2026-11-21T06:00:00.000Z`.
///
/// The civil date is counted as Howard Hinnant's `civil_from_days` describes it.
pub fn rfc3339(ms: i64) -> String {
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, millis) = (in_day / 1_000 % 60, in_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::{Block, BlockBuilder, NewEvent, TopicPartition};

    const NOW: i64 = 1_700_000_000_000;

    fn source(headers: &[(&str, &str)]) -> Block {
        let mut builder = BlockBuilder::new(TopicPartition::new("orders", 3), 1, 0);
        builder.push(NewEvent {
            offset: 42,
            timestamp_ms: NOW - 5,
            timestamp_of_broker: false,
            key: Some(b"k"),
            value: Some(b"v"),
        });
        for (name, value) in headers {
            builder.push_header(name.as_bytes(), Some(value.as_bytes()));
        }
        builder.build()
    }

    fn headers(block: &Block, edit: HeaderEdit, own: &[OwnHeader<'_>]) -> BTreeMap<String, String> {
        headers_of(block, false, edit, own)
    }

    fn headers_of(
        block: &Block,
        replayed: bool,
        edit: HeaderEdit,
        own: &[OwnHeader<'_>],
    ) -> BTreeMap<String, String> {
        let derived = Derived {
            key: Some(b"k"),
            value: Some(b"w"),
            value_changed: true,
            timestamp_ms: None,
            edit,
            own,
            number: 1,
            inherits: true,
        };
        let mut records = Records::new();
        Deriver::new(&"enrich".into(), replayed, NOW).push(
            &mut records,
            &"out".into(),
            &block.event(0),
            &derived,
        );
        let record = records.get(0);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let count = record.headers().count();
        let map: BTreeMap<_, _> = record
            .headers()
            .map(|(name, value)| (text(name), value.map_or("null".into(), text)))
            .collect();
        assert_eq!(map.len(), count, "no header is written twice");
        map
    }

    #[test]
    fn provenance_is_added_to_what_is_inherited() {
        let block = source(&[("region", "eu")]);
        let found = headers(&block, HeaderEdit::Keep, &[]);
        assert_eq!(found["region"], "eu");
        assert_eq!(found["millstream-source"], "orders/3/42");
        assert_eq!(found["millstream-id"], "orders/3/42/1");
        assert_eq!(found["millstream-hops"], "1");
        assert_eq!(found["correlation-id"].len(), 32);
        assert_eq!(
            found,
            headers(&block, HeaderEdit::Keep, &[]),
            "every attempt says the same"
        );
    }

    #[test]
    fn hops_count_up_and_old_provenance_goes() {
        let block = source(&[
            ("millstream-hops", "4"),
            ("millstream-id", "a/0/1/0"),
            ("millstream-dlq-reason", "trap"),
        ]);
        let found = headers(&block, HeaderEdit::Keep, &[]);
        assert_eq!(found["millstream-hops"], "5");
        assert_eq!(found["millstream-id"], "orders/3/42/1");
        assert!(!found.contains_key("millstream-dlq-reason"));
    }

    /// Sent back twice by mistake, its derived events must be the same for whoever goes by their ids.
    #[test]
    fn what_was_sent_back_gives_the_ids_of_the_event_that_it_was() {
        let block = source(&[
            ("millstream-replay-of", "lines/1/9"),
            ("millstream-replay-count", "1"),
            ("millstream-replay-first-seen", "1"),
        ]);
        let found = headers_of(&block, true, HeaderEdit::Keep, &[]);
        assert_eq!(found["millstream-source"], "lines/1/9");
        assert_eq!(found["millstream-id"], "lines/1/9/1");
        assert!(!found.contains_key("millstream-replay-of"));
        // On any other topic a producer may have written the header.
        let found = headers(&block, HeaderEdit::Keep, &[]);
        assert_eq!(found["millstream-source"], "orders/3/42");
    }

    #[test]
    fn a_trace_is_continued_with_a_span_of_its_own() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let block = source(&[("traceparent", parent), ("tracestate", "a=1")]);
        for edit in [HeaderEdit::Keep, HeaderEdit::Replace] {
            let found = headers(&block, edit, &[]);
            let continued = &found["traceparent"];
            assert_eq!(continued[..36], parent[..36]);
            assert_ne!(continued[36..52], parent[36..52]);
            assert_eq!(found["tracestate"], "a=1");
        }
    }

    #[test]
    fn a_malformed_trace_is_not_passed_on() {
        for bad in [
            "",
            "00-xyz",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            let found = headers(&source(&[("traceparent", bad)]), HeaderEdit::Keep, &[]);
            assert!(!found.contains_key("traceparent"), "{bad}");
        }
    }

    /// An inherited identity would make every derived event a duplicate of its source.
    #[test]
    fn a_cloud_event_gets_an_identity_of_its_own_unless_the_plugin_gave_one() {
        let block = source(&[("ce_id", "1"), ("ce_source", "shop"), ("ce_type", "Order")]);
        let found = headers(&block, HeaderEdit::Keep, &[]);
        assert_eq!(found["ce_id"], "orders/3/42/1");
        assert_eq!(found["ce_source"], "millstream/enrich");
        assert_eq!(found["ce_type"], "Order");
        let found = headers(&block, HeaderEdit::Amend, &[(b"ce_id", Some(b"mine"))]);
        assert_eq!(found["ce_id"], "mine");
    }

    #[test]
    fn amending_replaces_adds_and_removes() {
        let block = source(&[("a", "1"), ("b", "2")]);
        let own: [OwnHeader<'_>; 2] = [(b"a", None), (b"c", Some(b"3"))];
        let found = headers(&block, HeaderEdit::Amend, &own);
        assert!(!found.contains_key("a"));
        assert_eq!((found["b"].as_str(), found["c"].as_str()), ("2", "3"));
        let found = headers(&block, HeaderEdit::Replace, &own);
        assert!(!found.contains_key("b"));
        assert_eq!(found["a"], "null");
    }

    /// Without it nobody finds what belongs together any more, whichever plugin in the row forgot it.
    #[test]
    fn a_correlation_id_can_be_given_and_not_taken_away() {
        let (with, without) = (source(&[("correlation-id", "c1")]), source(&[("a", "1")]));
        let removed: [OwnHeader<'_>; 1] = [(b"correlation-id", None)];
        let given: [OwnHeader<'_>; 1] = [(b"correlation-id", Some(b"c2"))];
        for edit in [HeaderEdit::Amend, HeaderEdit::Replace] {
            assert_eq!(headers(&with, edit, &removed)["correlation-id"], "c1");
            assert_eq!(headers(&with, edit, &given)["correlation-id"], "c2");
            assert_eq!(
                headers(&without, edit, &removed)["correlation-id"].len(),
                32
            );
        }
    }

    #[test]
    fn dates_are_counted_right() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(rfc3339(NOW), "2023-11-14T22:13:20.000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }
}
