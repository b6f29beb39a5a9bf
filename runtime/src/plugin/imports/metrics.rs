//! `millstream:plugin/metrics`: the plugin's own series.

use super::bindings::millstream::plugin::metrics::{Host, Instrument, Label, Point};
use crate::plugin::custom_metrics::{self, Declaration};
use crate::plugin::state::State;

impl Host for State {
    fn declare(
        &mut self,
        instrument: Instrument,
        name: String,
        help: String,
        labels: Vec<Label>,
        bounds: Vec<f64>,
    ) -> Result<u32, String> {
        let declaration = Declaration {
            instrument: match instrument {
                Instrument::Counter => custom_metrics::Instrument::Counter,
                Instrument::Gauge => custom_metrics::Instrument::Gauge,
                Instrument::Histogram => custom_metrics::Instrument::Histogram,
            },
            name,
            help,
            labels: labels.into_iter().map(|l| (l.name, l.value)).collect(),
            bounds,
        };
        let series = self
            .custom_metrics
            .declare(&self.identity.consumer, declaration)?;
        Ok(self.reporter.add(series))
    }

    fn report(&mut self, points: Vec<Point>) {
        let mut refused = 0_u32;
        for point in points {
            if !self.reporter.report(point.metric, point.value) {
                refused += 1;
            }
        }
        if refused > 0 {
            self.journal.entry(
                tracing::Level::WARN,
                None,
                "points were not taken: their metric is not declared, their counter would fall, or \
                 they are not numbers",
                &format!("points={refused}"),
            );
        }
    }
}
