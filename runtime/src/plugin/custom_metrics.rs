//! Metrics that plugins declare, exported as `millstream_custom_<name>{consumer=…, own labels}`.
//!
//! ```text
//! declare ─▶ CustomMetrics: family by name ─▶ series by consumer and labels (at most 100 a consumer)
//! report ─▶ Reporter of the instance ── outcome taken ─▶ apply ─▶ gather
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::proto;

use super::journal::cut;

/// Series that one consumer may have.
const MAX_SERIES: usize = 100;
const MAX_LABELS: usize = 8;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 128;
const MAX_HELP: usize = 256;
const MAX_BOUNDS: usize = 32;
/// Bytes of the text that says why a declaration is refused; a name in it may be of any length.
const MAX_REFUSAL: usize = 1 << 10;

/// What a series does with a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instrument {
    Counter,
    Gauge,
    Histogram,
}

/// What a plugin declares.
#[derive(Clone, Debug)]
pub(super) struct Declaration {
    pub(super) instrument: Instrument,
    pub(super) name: String,
    pub(super) help: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) bounds: Vec<f64>,
}

/// All plugins' own metrics of the process. Families of one name are merged over the consumers, as
/// the exposition format demands.
#[derive(Debug, Default)]
pub struct CustomMetrics {
    families: Mutex<BTreeMap<String, Family>>,
}

#[derive(Debug)]
struct Family {
    instrument: Instrument,
    help: String,
    series: BTreeMap<Key, Arc<Series>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    consumer: Arc<str>,
    labels: Vec<(String, String)>,
}

/// One series.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) instrument: Instrument,
    pub(super) bounds: Arc<[f64]>,
    pub(super) value: Mutex<Value>,
}

/// What a series has come to, or will come to by what is pending.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    /// Sum of a counter or histogram, level of a gauge.
    pub(super) number: f64,
    pub(super) count: u64,
    /// Not cumulative; one for each bound.
    pub(super) buckets: Vec<u64>,
}

impl Value {
    /// Nothing yet, with this many bounds.
    pub(super) fn new(bounds: usize) -> Self {
        Self {
            buckets: vec![0; bounds],
            ..Self::default()
        }
    }
}

impl CustomMetrics {
    /// What there is to export now, by name. Values of one series are consistent with each other.
    pub fn gather(&self) -> Vec<proto::MetricFamily> {
        let families = self.families.lock();
        families
            .iter()
            .map(|(name, family)| family.export(name))
            .collect()
    }

    /// Forgets the series of a consumer that was removed.
    pub fn remove(&self, consumer: &str) {
        self.families.lock().retain(|_, family| {
            family.series.retain(|key, _| *key.consumer != *consumer);
            !family.series.is_empty()
        });
    }

    /// The series of this declaration, made if new.
    pub(super) fn declare(
        &self,
        consumer: &Arc<str>,
        declaration: Declaration,
    ) -> Result<Arc<Series>, String> {
        let Declaration {
            instrument,
            name,
            mut help,
            mut labels,
            bounds,
        } = declaration;
        check(instrument, &name, &labels, &bounds)
            .map_err(|text| cut(&text, MAX_REFUSAL).to_owned())?;
        labels.sort();
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("metric {name} names a label twice"));
        }
        help.truncate(cut(&help, MAX_HELP).len());
        let key = Key {
            consumer: Arc::clone(consumer),
            labels,
        };
        let mut families = self.families.lock();
        if let Some(family) = families.get(&name) {
            if family.instrument != instrument {
                return Err(format!(
                    "metric {name} exists already, as another kind of instrument"
                ));
            }
            if let Some(series) = family.series.get(&key) {
                return Ok(Arc::clone(series));
            }
        }
        let count: usize = families
            .values()
            .map(|family| {
                let of_consumer = family.series.keys().filter(|k| k.consumer == key.consumer);
                of_consumer.count()
            })
            .sum();
        if count >= MAX_SERIES {
            return Err(format!(
                "consumer {consumer} has {MAX_SERIES} series already, which is the limit"
            ));
        }
        let bounds: Arc<[f64]> = match instrument {
            Instrument::Histogram if bounds.is_empty() => prometheus::DEFAULT_BUCKETS[..].into(),
            Instrument::Histogram => bounds.into(),
            Instrument::Counter | Instrument::Gauge => [].into(),
        };
        let series = Arc::new(Series {
            instrument,
            value: Mutex::new(Value::new(bounds.len())),
            bounds,
        });
        let family = families.entry(name).or_insert_with(|| Family {
            instrument,
            help,
            series: BTreeMap::new(),
        });
        family.series.insert(key, Arc::clone(&series));
        Ok(series)
    }
}

fn check(
    instrument: Instrument,
    name: &str,
    labels: &[(String, String)],
    bounds: &[f64],
) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!(
            "a metric's name is [a-zA-Z_][a-zA-Z0-9_]*, up to {MAX_NAME} bytes, not {:?}",
            cut(name, MAX_REFUSAL)
        ));
    }
    if labels.len() > MAX_LABELS {
        return Err(format!("metric {name} has more than {MAX_LABELS} labels"));
    }
    for (label, value) in labels {
        let reserved = label == "consumer" || label == "le" || label.starts_with("__");
        if !is_name(label) || reserved {
            let label = cut(label, MAX_REFUSAL);
            return Err(format!("metric {name} cannot have a label {label:?}"));
        }
        if value.len() > MAX_VALUE {
            return Err(format!(
                "label {label} of metric {name} is longer than {MAX_VALUE} bytes"
            ));
        }
    }
    let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    let finite = bounds.iter().all(|bound| bound.is_finite());
    if bounds.len() > MAX_BOUNDS || !rising || !finite {
        return Err(format!(
            "bounds of metric {name} are finite numbers that rise, at most {MAX_BOUNDS}"
        ));
    }
    if instrument != Instrument::Histogram && !bounds.is_empty() {
        return Err(format!("metric {name} has bounds but is no histogram"));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let first = bytes
        .first()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let rest = bytes
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    first && rest && bytes.len() <= MAX_NAME
}

impl Family {
    fn export(&self, name: &str) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(format!("millstream_custom_{name}"));
        family.set_help(self.help.clone());
        family.set_field_type(match self.instrument {
            Instrument::Counter => proto::MetricType::COUNTER,
            Instrument::Gauge => proto::MetricType::GAUGE,
            Instrument::Histogram => proto::MetricType::HISTOGRAM,
        });
        let metrics = self.series.iter().map(|(key, series)| series.export(key));
        family.set_metric(metrics.collect());
        family
    }
}

impl Series {
    fn export(&self, key: &Key) -> proto::Metric {
        let mut metric = proto::Metric::from_label(labels_of(key));
        let value = self.value.lock().clone();
        match self.instrument {
            Instrument::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value.number);
                metric.set_counter(counter);
            }
            Instrument::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value.number);
                metric.set_gauge(gauge);
            }
            Instrument::Histogram => {
                let mut below = 0;
                let buckets = self
                    .bounds
                    .iter()
                    .zip(&value.buckets)
                    .map(|(bound, count)| {
                        below += count;
                        let mut bucket = proto::Bucket::default();
                        bucket.set_upper_bound(*bound);
                        bucket.set_cumulative_count(below);
                        bucket
                    });
                let buckets = buckets.collect();
                let mut histogram = proto::Histogram::default();
                histogram.set_bucket(buckets);
                histogram.set_sample_count(value.count);
                histogram.set_sample_sum(value.number);
                metric.set_histogram(histogram);
            }
        }
        metric
    }
}

fn labels_of(key: &Key) -> Vec<proto::LabelPair> {
    let consumer = ("consumer", &*key.consumer);
    let own = key.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let mut pairs: Vec<_> = std::iter::once(consumer).chain(own).collect();
    pairs.sort_unstable();
    let pairs = pairs.into_iter().map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    pairs.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::plugin) fn declaration(
        instrument: Instrument,
        name: &str,
        label: &str,
    ) -> Declaration {
        Declaration {
            instrument,
            name: name.to_owned(),
            help: "h".to_owned(),
            labels: vec![("kind".to_owned(), label.to_owned())],
            bounds: match instrument {
                Instrument::Histogram => vec![1.0, 2.0],
                _ => vec![],
            },
        }
    }

    pub(in crate::plugin) fn text(metrics: &CustomMetrics) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&metrics.gather())
            .unwrap()
    }

    /// One family written twice makes a scrape unreadable; other consumers' series must survive a
    /// removal.
    #[test]
    fn consumers_share_a_family_and_leave_it_one_by_one() {
        let metrics = CustomMetrics::default();
        for consumer in ["a", "b"] {
            let consumer: Arc<str> = consumer.into();
            metrics
                .declare(&consumer, declaration(Instrument::Gauge, "level", "x"))
                .unwrap();
        }
        assert_eq!(text(&metrics).matches("# TYPE").count(), 1);
        metrics.remove("a");
        let left = text(&metrics);
        assert!(!left.contains(r#"consumer="a""#) && left.contains(r#"consumer="b""#));
    }

    #[test]
    fn what_prometheus_or_the_limits_forbid_is_refused() {
        let metrics = CustomMetrics::default();
        let consumer: Arc<str> = "c".into();
        let declare = |d| metrics.declare(&consumer, d);
        let good = declaration(Instrument::Counter, "n", "a");
        declare(good.clone()).unwrap();
        let bad = [
            Declaration {
                name: "a-b".into(),
                ..good.clone()
            },
            Declaration {
                name: String::new(),
                ..good.clone()
            },
            Declaration {
                instrument: Instrument::Gauge,
                ..good.clone()
            },
            Declaration {
                bounds: vec![1.0],
                ..good.clone()
            },
            Declaration {
                labels: vec![("consumer".into(), String::new())],
                ..good.clone()
            },
            Declaration {
                labels: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
                ..good.clone()
            },
            Declaration {
                bounds: vec![2.0, 1.0],
                ..declaration(Instrument::Histogram, "h", "a")
            },
        ];
        for declaration in bad {
            declare(declaration.clone()).expect_err(&format!("{declaration:?}"));
        }
        for label in 1..100 {
            declare(declaration(Instrument::Counter, "n", &label.to_string())).unwrap();
        }
        declare(declaration(Instrument::Counter, "n", "one too many")).unwrap_err();
        declare(good).expect("a series that exists is found again");
    }
}
