//! Order lines of an online shop become enriched lines with exact totals.
//!
//! ```text
//! {"invoice", "sku", "quantity", "unit_price", …} ─▶ OrderLine ─▶ Decimal × quantity ─▶ "default"
//!                                                        │                └ large sale ─▶ "alerts"
//!                                                        └ not an order line ─▶ rejected, with a code
//! ```

mod decimal;
mod line;

use millstream_plugin::metrics::{self, Counter};
use millstream_plugin::prelude::*;
use serde::de::IgnoredAny;

use line::{Kind, OrderLine};

/// The consumer's `config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// ISO 4217 code that the totals are in, such as `GBP`.
    currency: String,
    /// Digits behind the point of that currency: a total is a whole number of 10^-n of its unit.
    #[serde(default = "two")]
    minor_digits: u32,
    /// Sales with a total above this many minor units also go to the output `alerts`.
    alert_above: i64,
}

fn two() -> u32 {
    2
}

struct Enrich {
    settings: Settings,
    enriched: Output,
    alerts: Output,
    sales: Counter,
    cancellations: Counter,
    adjustments: Counter,
}

impl Consumer for Enrich {
    type Settings = Settings;

    fn init(settings: Settings, setup: &Setup) -> Result<Self> {
        if settings.minor_digits > decimal::MAX_DIGITS {
            return Err(Error::reject("config", "minor_digits is above 18"));
        }
        let lines = |kind| metrics::counter("order_lines_total", "Order lines", &[("kind", kind)]);
        Ok(Self {
            settings,
            enriched: setup.output("default")?,
            alerts: setup.output("alerts")?,
            sales: lines("sale")?,
            cancellations: lines("cancellation")?,
            adjustments: lines("adjustment")?,
        })
    }

    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
        let line = read(event)?;
        let kind = line.kind()?;
        let total_minor = line.total_minor(self.settings.minor_digits)?;
        let enriched = line.enriched(kind, total_minor, &self.settings.currency);

        out.to(self.enriched).json(&enriched)?; // key and headers stay the source's
        if kind == Kind::Sale && total_minor > self.settings.alert_above {
            out.to(self.alerts)
                .header("severity", "high")
                .json(&enriched)?;
        }
        match kind {
            Kind::Sale => self.sales.add(1.0),
            Kind::Cancellation => self.cancellations.add(1.0),
            Kind::Adjustment => self.adjustments.add(1.0),
        }
        Ok(())
    }
}

/// What is no JSON at all keeps the code `decode`; JSON of another shape is `not-an-order`.
fn read(event: Event<'_>) -> Result<OrderLine<'_>> {
    event.json().map_err(|error| {
        if event.json::<IgnoredAny>().is_ok() {
            Error::reject("not-an-order", error)
        } else {
            error
        }
    })
}

export!(Enrich);

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_plugin::{Derived, Remedy};
    use serde_json::Value;

    fn harness() -> Harness {
        Harness::new::<Enrich>()
            .config(r#"{"currency": "GBP", "alert_above": 10000}"#)
            .outputs(["default", "alerts"])
    }

    fn line(invoice: &str, quantity: i64, price: &str) -> TestEvent {
        TestEvent::text(format!(
            r#"{{"invoice": "{invoice}", "sku": "85123A", "description": "HEART \"T-LIGHT\"", "quantity": {quantity}, "ts": "2010-12-01 08:26:00", "unit_price": {price}, "customer": 17850, "country": "United Kingdom"}}"#
        ))
        .key("536365")
        .header("shop", "uk")
    }

    fn total(derived: &Derived) -> i64 {
        derived.json::<Value>()["total_minor"].as_i64().unwrap()
    }

    /// 4.35 × 100 is 434.99999999999994 in floating point: a penny lost on every such line.
    #[test]
    fn a_total_is_exact_and_key_and_headers_stay() {
        let run = harness().run([line("536365", 100, "4.35")]);
        let to_default: Vec<_> = run.answer(0).to("default").collect();
        assert_eq!(total(to_default[0]), 43_500);
        assert_eq!(to_default[0].key(), Some(&b"536365"[..]));
        assert_eq!(to_default[0].header("shop"), Some(&b"uk"[..]));
        let json: Value = to_default[0].json();
        assert_eq!(json["description"], "HEART \"T-LIGHT\"");
        assert_eq!(json["kind"], "sale");
        assert_eq!(json["currency"], "GBP");
    }

    #[test]
    fn only_a_sale_above_the_threshold_alerts() {
        let run = harness().run([
            line("536365", 100, "1.00"),
            line("536365", 10_001, "0.01"),
            line("C536379", -10_001, "0.01"),
        ]);
        let alerts: Vec<_> = run
            .answers()
            .iter()
            .map(|a| a.to("alerts").count())
            .collect();
        assert_eq!(alerts, [0, 1, 0]);
        let alert = run.answer(1).to("alerts").next().unwrap();
        assert_eq!(alert.header("severity"), Some(&b"high"[..]));
        assert_eq!(alert.header("shop"), Some(&b"uk"[..]));
    }

    /// A cancellation that counted as a sale would raise the shop's turnover twice.
    #[test]
    fn cancellations_and_adjustments_are_told_apart_and_negative() {
        let run = harness().run([line("C536379", -2, "27.5"), line("536589", -10, "0.0")]);
        let kinds: Vec<_> = run
            .outputs()
            .map(|derived| (derived.json::<Value>()["kind"].clone(), total(derived)))
            .collect();
        assert_eq!(
            kinds,
            [("cancellation".into(), -5_500), ("adjustment".into(), 0)]
        );
        assert_eq!(
            run.metric("order_lines_total{kind=cancellation}"),
            Some(1.0)
        );
        assert_eq!(run.metric("order_lines_total{kind=sale}"), Some(0.0));
    }

    #[test]
    fn what_is_no_order_line_is_rejected_with_a_code() {
        let run = harness().run([
            TestEvent::text("no json"),
            TestEvent::tombstone(),
            TestEvent::text(r#"{"temperature": 21}"#),
            line("A563186", 1, "-11062.06"),
            line("536365", 1, r#""2.55""#),
            line("536365", 1, "0.001"),
            line("536365", i64::MAX, "2.55"),
        ]);
        let failures: Vec<_> = run.failures().collect();
        let codes = [
            "decode",
            "decode",
            "not-an-order",
            "not-an-order",
            "bad-price",
            "fractional-total",
            "total-too-large",
        ];
        assert_eq!(failures, codes.map(|code| (Remedy::Reject, code)));
    }

    #[test]
    fn a_missing_output_or_a_misspelt_setting_refuses_the_deploy() {
        assert!(harness().start().is_ok());
        assert!(harness().outputs(["default"]).start().is_err());
        let misspelt = r#"{"currency": "GBP", "alert_abve": 1}"#;
        assert!(harness().config(misspelt).start().is_err());
    }

    /// The shipped sample: every line is enriched but the three entries for bad debt and the like,
    /// and the totals are those of an independent sum in thousandths.
    #[test]
    fn the_sample_is_enriched() {
        let sample = include_str!("../data/online-retail-sample.jsonl");
        let lines: Vec<_> = sample.lines().collect();
        let run = harness().run(lines.iter().map(|line| TestEvent::text(*line)));
        let mut sum = 0;
        for (line, answer) in lines.iter().zip(run.answers()) {
            let source: Value = serde_json::from_str(line).unwrap();
            let invoice = source["invoice"].as_str().unwrap();
            if invoice.starts_with('A') {
                assert_eq!(answer.failure().unwrap().code(), "not-an-order");
                continue;
            }
            let price = source["unit_price"].as_f64().unwrap();
            let thousandths =
                (price * 1000.0).round() as i64 * source["quantity"].as_i64().unwrap();
            let derived = answer.to("default").next().unwrap();
            assert_eq!(total(derived) * 10, thousandths, "{line}");
            sum += total(derived);
        }
        assert!(sum > 0);
        assert!(
            run.answers()
                .iter()
                .any(|answer| answer.to("alerts").count() == 1)
        );
    }
}
