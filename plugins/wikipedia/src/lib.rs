//! Splits the edits of Wikipedia: those of bots to the output `bots`, all others to `humans`.
//!
//! An edit passes as it is: nothing of it is copied, in either direction.

use millstream_plugin::prelude::*;

/// The one field that decides. The others are skipped unread.
#[derive(Deserialize)]
struct Edit {
    #[serde(rename = "isRobot")]
    by_bot: bool,
}

struct Wikipedia {
    bots: Output,
    humans: Output,
}

impl Consumer for Wikipedia {
    type Settings = ();

    fn init((): (), setup: &Setup) -> Result<Self> {
        Ok(Self {
            bots: setup.output("bots")?,
            humans: setup.output("humans")?,
        })
    }

    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
        let edit: Edit = event.json()?; // not an edit: rejected, code "decode"
        out.to(if edit.by_bot { self.bots } else { self.humans })
            .forward()
    }
}

export!(Wikipedia);

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_plugin::Remedy;

    fn harness() -> Harness {
        Harness::new::<Wikipedia>().outputs(["bots", "humans"])
    }

    #[test]
    fn an_edit_goes_to_one_side_unchanged() {
        let bot = r##"{"channel": "#ca.wikipedia", "isRobot": true}"##;
        let human = r#"{"isRobot": false, "user": "GELongstreet"}"#;
        let run = harness().run([
            TestEvent::text(bot).key("#ca.wikipedia").header("a", "1"),
            TestEvent::text(human),
        ]);
        let sides: Vec<_> = run
            .outputs()
            .map(|edit| (edit.output(), edit.text()))
            .collect();
        assert_eq!(sides, [("bots", bot), ("humans", human)]);
        assert_eq!(run.answer(0).outputs()[0].header("a"), Some(&b"1"[..]));
    }

    #[test]
    fn what_is_no_edit_is_rejected() {
        let run = harness().run([TestEvent::text("{}"), TestEvent::text("x")]);
        let rejected = (Remedy::Reject, "decode");
        assert_eq!(run.failures().collect::<Vec<_>>(), [rejected, rejected]);
    }

    /// Both sides of the shipped sample together hold every edit once.
    #[test]
    fn the_sample_is_split_without_a_rest() {
        let sample = include_str!("../data/wikipedia-sample.jsonl");
        let run = harness().run(sample.lines().map(TestEvent::text));
        let bots = sample.matches(r#""isRobot":true"#).count();
        let to_bots = run.outputs().filter(|edit| edit.output() == "bots").count();
        assert_eq!(to_bots, bots);
        assert_eq!(run.outputs().count(), sample.lines().count());
        assert!(bots > 0 && bots < sample.lines().count());
    }
}
