//! Watches enriched order lines and says, in words, which of them a person should look at.
//!
//! It reads what `enrich` writes, so that the two make a pipeline. Every rule that a line breaks
//! becomes an alert of its own; a line that breaks none is dropped.

mod rules;

use millstream_plugin::prelude::*;

use rules::{Line, Rules};

struct Alerts {
    rules: Rules,
    alerts: Output,
}

impl Consumer for Alerts {
    type Settings = Rules;

    fn init(rules: Rules, setup: &Setup) -> Result<Self> {
        Ok(Self {
            rules,
            alerts: setup.output("default")?,
        })
    }

    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
        let line: Line<'_> = event.json()?;
        for alert in self.rules.check(&line) {
            out.to(self.alerts)
                .header("alert-rule", alert.rule)
                .json(&alert)?;
        }
        Ok(())
    }
}

export!(Alerts);

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_plugin::Remedy;
    use serde_json::{Value, json};

    fn line(kind: &str, quantity: i64, total_minor: i64) -> TestEvent {
        TestEvent::json(&json!({
            "invoice": "536365", "kind": kind, "sku": "85123A", "description": "HEART",
            "quantity": quantity, "unit_price": 2.55, "total_minor": total_minor,
            "currency": "GBP", "customer": null, "country": "France", "ts": "2010-12-01 08:26:00",
        }))
        .key("536365")
    }

    fn rules(answer: &millstream_plugin::Answer) -> Vec<String> {
        let rule = |value: Value| value["rule"].as_str().unwrap().to_owned();
        answer
            .outputs()
            .iter()
            .map(|alert| rule(alert.json()))
            .collect()
    }

    #[test]
    fn each_rule_fires_at_its_limit_and_not_below() {
        let run = Harness::new::<Alerts>().run([
            line("sale", 999, 99_999),
            line("sale", 1, 100_000),
            line("sale", 1_000, 1),
            line("cancellation", -1, -100_000),
            line("cancellation", -1, -99_999),
            line("adjustment", -1_000, 0),
            line("sale", 10, 0),
            line("sale", 9, 0),
            line("sale", 80_995, 16_846_960),
        ]);
        let fired: Vec<_> = run.answers().iter().map(rules).collect();
        let expected: [&[&str]; 9] = [
            &[],
            &["large-sale"],
            &["bulk-quantity"],
            &["large-cancellation"],
            &[],
            &["bulk-quantity"],
            &["given-away"],
            &[],
            &["large-sale", "bulk-quantity"],
        ];
        assert_eq!(fired, expected);
    }

    #[test]
    fn an_alert_says_why_and_keeps_the_key() {
        let run = Harness::new::<Alerts>().run([line("cancellation", -9, -123_405)]);
        let alert = run.only_output();
        assert_eq!(alert.key(), Some(&b"536365"[..]));
        assert_eq!(alert.header("alert-rule"), Some(&b"large-cancellation"[..]));
        let json: Value = alert.json();
        assert_eq!(json["reason"], "9 × HEART cancelled, worth 1234.05 GBP");
        assert_eq!(json["invoice"], "536365");
    }

    #[test]
    fn limits_come_from_the_config_and_strangers_are_refused() {
        let harness = Harness::new::<Alerts>().config(r#"{"large_total": 500}"#);
        assert_eq!(
            rules(harness.run([line("sale", 1, 500)]).answer(0)),
            ["large-sale"]
        );
        assert!(
            Harness::new::<Alerts>()
                .config(r#"{"large": 5}"#)
                .start()
                .is_err()
        );
        let run = harness.run([TestEvent::text("{}")]);
        assert_eq!(
            run.failures().collect::<Vec<_>>(),
            [(Remedy::Reject, "decode")]
        );
    }
}
