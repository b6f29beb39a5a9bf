//! Which dead letters are meant.

use super::super::place::Source;
use crate::broker::seek;
use crate::consumer::dead_letter::Reason;
use crate::consumer::letter::Letter;

/// Options of every `dlq` command; all that are given must hold, of one option any value.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Filter {
    /// Those that failed for these reasons, such as rejected or trap
    #[arg(
        long = "reason",
        global = true,
        value_name = "REASON",
        env = "MILLSTREAM_DLQ_REASON",
        value_delimiter = ',',
        value_parser = reason
    )]
    reasons: Vec<String>,

    /// Those with these codes of the plugin
    #[arg(
        long = "code",
        global = true,
        value_name = "CODE",
        env = "MILLSTREAM_DLQ_CODE",
        value_delimiter = ','
    )]
    codes: Vec<String>,

    /// Those that failed first at this time or later: a date, an RFC 3339 time or milliseconds since
    /// 1970
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        env = "MILLSTREAM_DLQ_SINCE",
        value_parser = time
    )]
    since: Option<i64>,

    /// Those that failed first before this time
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        env = "MILLSTREAM_DLQ_UNTIL",
        value_parser = time
    )]
    until: Option<i64>,

    /// Those with this key
    #[arg(long, global = true, value_name = "KEY", env = "MILLSTREAM_DLQ_KEY")]
    key: Option<String>,

    /// Those whose event was here: TOPIC, TOPIC/PARTITION or TOPIC/PARTITION@OFFSET
    #[arg(
        long,
        global = true,
        value_name = "PLACE",
        env = "MILLSTREAM_DLQ_SOURCE"
    )]
    source: Option<Source>,
}

fn reason(text: &str) -> Result<String, String> {
    match Reason::named(text) {
        Some(reason) => Ok(reason.name().to_owned()),
        None => {
            let known = Reason::ALL.map(Reason::name).join(", ");
            Err(format!("known are {known}"))
        }
    }
}

fn time(text: &str) -> Result<i64, String> {
    seek::time_ms(text).ok_or_else(|| {
        "write a date (2026-01-31), a time (2026-01-31T08:00:00Z) or milliseconds since 1970"
            .to_owned()
    })
}

impl Filter {
    /// Whether a dead letter's event is of a place that is meant. It says the same for all dead
    /// letters of one event.
    pub fn covers(&self, letter: &Letter) -> bool {
        let source = self.source.as_ref();
        source.is_none_or(|source| source.covers(&letter.source, letter.offset))
    }

    /// Whether a dead letter with this key is meant.
    pub fn wants(&self, letter: &Letter, key: Option<&[u8]>) -> bool {
        let any = |wanted: &[String], text: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted == text)
        };
        self.covers(letter)
            && any(&self.reasons, &letter.reason)
            && any(&self.codes, &letter.code)
            && self.since.is_none_or(|since| letter.first_seen_ms >= since)
            && self.until.is_none_or(|until| letter.first_seen_ms < until)
            && self
                .key
                .as_ref()
                .is_none_or(|wanted| key == Some(wanted.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::event::TopicPartition;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn letter() -> Letter {
        Letter {
            consumer: "enrich".into(),
            source: TopicPartition::new("orders", 3),
            offset: 7,
            reason: "rejected".into(),
            code: "too-old".into(),
            error: String::new(),
            attempts: 1,
            count: 1,
            first_seen_ms: 1_769_817_600_000,
            digest: String::new(),
        }
    }

    fn parse(line: &str) -> Result<Filter, clap::Error> {
        let words = std::iter::once("dlq").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.filter)
    }

    #[test]
    fn all_options_must_hold_and_of_one_any_value() {
        for (line, wanted) in [
            ("", true),
            ("--reason rejected", true),
            ("--reason trap,rejected", true),
            ("--reason trap --reason rejected", true),
            ("--reason trap", false),
            ("--code too-old", true),
            ("--code too", false),
            ("--reason rejected --code other", false),
            ("--key k", true),
            ("--key kk", false),
            ("--source orders", true),
            ("--source orders/3@7", true),
            ("--source orders/3@8", false),
            // The letter is of 2026-01-31T00:00:00Z: from `since` on, and before `until`.
            ("--since 2026-01-31", true),
            ("--since 2026-01-31T00:00:00.001Z", false),
            ("--until 2026-01-31", false),
            ("--until 1769817600001", true),
            ("--since 2026-01-30 --until 2026-02-01", true),
        ] {
            let filter = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(filter.wants(&letter(), Some(b"k")), wanted, "{line}");
        }
        let keyed = parse("--key k").expect("a filter");
        assert!(!keyed.wants(&letter(), None));
    }

    #[test]
    fn slips_are_usage_errors() {
        for line in ["--reason rejcted", "--since soon", "--source orders/x"] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
