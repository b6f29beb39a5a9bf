//! Metric families in Prometheus' own types.

use parking_lot::MutexGuard;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::histogram::Histogram;
use super::ledger::Ledger;

/// The ledgers of all consumers, held for one scrape.
pub(super) type Ledgers<'a> = [(&'a str, MutexGuard<'a, Ledger>)];
/// Takes the labels and the value of one series.
pub(super) type Add<'a> = dyn FnMut(&[(&str, &str)], f64) + 'a;

/// Reads every consumer's ledger.
pub(super) fn each(ledgers: &Ledgers<'_>, mut read: impl FnMut(&str, &Ledger)) {
    for (name, ledger) in ledgers {
        read(name, ledger);
    }
}

/// Metric families under the prefix of the runtime.
#[derive(Default)]
pub(super) struct Families(pub(super) Vec<MetricFamily>);

impl Families {
    pub(super) fn counter(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Add<'_>)) {
        self.simple(name, help, MetricType::COUNTER, fill);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Add<'_>)) {
        self.simple(name, help, MetricType::GAUGE, fill);
    }

    fn simple(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        fill: impl FnOnce(&mut Add<'_>),
    ) {
        let mut metrics = Vec::new();
        fill(&mut |labels, value| {
            let mut metric = labelled(labels);
            if kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metrics.push(metric);
        });
        self.push(name, help, kind, metrics);
    }

    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        ledgers: &Ledgers<'_>,
        read: fn(&Ledger) -> &Histogram,
    ) {
        let metrics = ledgers.iter().map(|(consumer, ledger)| {
            let mut metric = labelled(&[("consumer", consumer)]);
            metric.set_histogram(read(ledger).proto());
            metric
        });
        self.push(name, help, MetricType::HISTOGRAM, metrics.collect());
    }

    fn push(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(format!("millstream_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let mut metric = Metric::default();
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    metric.set_label(pairs.collect());
    metric
}
