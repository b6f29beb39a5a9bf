//! Passes large orders on, with the points that their customers get for them.

use millstream_plugin::prelude::*;

/// The consumer's `config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Orders below this total are dropped.
    at_least: f64,
}

/// An event as it comes in.
#[derive(Deserialize)]
struct Order {
    id: String,
    total: f64,
}

/// An event as it goes out.
#[derive(Serialize)]
struct LargeOrder {
    id: String,
    total: f64,
    points: u64,
}

struct LargeOrders {
    settings: Settings,
    large: Output,
}

impl Consumer for LargeOrders {
    type Settings = Settings;

    fn init(settings: Settings, setup: &Setup) -> Result<Self> {
        Ok(Self {
            settings,
            large: setup.output("default")?,
        })
    }

    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
        let order: Order = event.json()?; // not an order: a dead letter with the code "decode"
        if order.total < 0.0 {
            return Err(Error::reject("negative-total", order.total));
        }
        if order.total < self.settings.at_least {
            return Ok(()); // no output: dropped
        }
        let large = LargeOrder {
            points: (order.total / 10.0) as u64,
            id: order.id,
            total: order.total,
        };
        out.to(self.large).key(&large.id).json(&large) // headers stay the source's
    }
}

export!(LargeOrders);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_order_earns_points() {
        let harness = Harness::new::<LargeOrders>().config(r#"{"at_least": 1000}"#);
        let run = harness.run([
            TestEvent::text(r#"{"id": "a", "total": 20}"#),
            TestEvent::text(r#"{"id": "b", "total": 2500}"#),
        ]);
        assert!(run.answer(0).is_dropped());
        let large = &run.answer(1).outputs()[0];
        assert_eq!(large.key(), Some(&b"b"[..]));
        assert_eq!(large.text(), r#"{"id":"b","total":2500.0,"points":250}"#);
    }
}
