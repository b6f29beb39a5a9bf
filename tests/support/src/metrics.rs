//! What a scrape says: a reader of Prometheus' text format, as small as tests need it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// One scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    samples: Vec<Sample>,
}

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scrape {
    /// Reads the text format.
    ///
    /// # Errors
    /// A line is neither a comment nor a sample; it is in the text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let sample = sample(line).with_context(|| format!("not a sample: {line}"))?;
            samples.push(sample);
        }
        Ok(Self { samples })
    }

    /// All samples of `name` whose labels include these.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
        })
    }

    /// The first sample of `name` whose labels include these.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.all(name, labels).next().map(|sample| sample.value)
    }

    /// The sum of all samples of `name` whose labels include these; zero where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|sample| sample.value).sum()
    }

    /// The consumers that have consumed.
    pub fn consumers(&self) -> BTreeSet<&str> {
        self.all("millstream_events_consumed_total", &[])
            .filter_map(|sample| sample.labels.get("consumer").map(String::as_str))
            .collect()
    }

    /// For each consumer: consumed = settled by outcome + in flight, to the event.
    ///
    /// # Errors
    /// The consumers for which it does not hold, with their numbers.
    pub fn check_accounting(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for consumer in self.consumers() {
            let of = [("consumer", consumer)];
            let consumed = self.sum("millstream_events_consumed_total", &of);
            let settled = self.sum("millstream_events_settled_total", &of);
            let in_flight = self.sum("millstream_in_flight_events", &of);
            // Counts below 2^53 are exact as floating point.
            if consumed.total_cmp(&(settled + in_flight)).is_ne() {
                wrong.push(format!(
                    "{consumer}: consumed {consumed}, settled {settled}, in flight {in_flight}"
                ));
            }
        }
        ensure!(
            wrong.is_empty(),
            "events unaccounted for: {}",
            wrong.join("; ")
        );
        Ok(())
    }
}

/// Reads `name{label="value",…} 1.5`, a timestamp after it is left out.
fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let name = line[..end].to_owned();
    let (labels, rest) = match line[end..].strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (BTreeMap::new(), &line[end..]),
    };
    let value = rest.split_whitespace().next().context("no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().context("the value is no number")?,
    };
    Ok(Sample {
        name,
        labels,
        value,
    })
}

/// Reads labels up to the closing brace; returns them and what follows it.
fn labels(mut text: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (label, rest) = text.split_once("=\"").context("a label without a value")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next().context("a label's value does not end")? {
                (at, '"') => break at,
                (_, '\\') => match characters.next().context("nothing after a backslash")? {
                    (_, 'n') => value.push('\n'),
                    (_, other) => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(label.trim().to_owned(), value);
        text = &rest[end + 1..];
    }
}

/// Lets Prometheus' own `promtool check metrics` judge a scrape. False where there is no promtool:
/// the check was left out, loudly.
///
/// # Errors
/// What promtool objects to; or no promtool and `CI=true`.
pub fn promtool_accepts(text: &str) -> Result<bool> {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if workspace::in_ci() => {
            return Err(error).context("CI=true, and there is no promtool (package prometheus)");
        }
        Err(error) => {
            eprintln!("\n*** LEFT OUT: promtool (package prometheus) does not start: {error}\n");
            return Ok(false);
        }
    };
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(text.as_bytes())
            .context("promtool does not read")?;
    }
    let output = child.wait_with_output().context("promtool did not end")?;
    if !output.status.success() {
        bail!(
            "promtool objects: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP millstream_events_consumed_total Events read.
# TYPE millstream_events_consumed_total counter
millstream_events_consumed_total{consumer="enrich",topic="a"} 70
millstream_events_consumed_total{consumer="enrich",topic="b"} 30
millstream_events_settled_total{consumer="enrich",outcome="ok"} 90
millstream_events_settled_total{consumer="enrich",outcome="dropped"} 7
millstream_in_flight_events{consumer="enrich"} 3
millstream_odd{path="C:\\x\"y\n,{}"} +Inf 1395066363000
millstream_config_generation 2
"#;

    #[test]
    fn values_are_found_by_their_labels() {
        let scrape = Scrape::parse(TEXT).unwrap();
        let consumed = "millstream_events_consumed_total";
        assert_eq!(scrape.value(consumed, &[("topic", "b")]), Some(30.0));
        assert_eq!(scrape.sum(consumed, &[("consumer", "enrich")]), 100.0);
        assert_eq!(scrape.value("millstream_config_generation", &[]), Some(2.0));
        assert_eq!(scrape.value(consumed, &[("topic", "c")]), None);
        let odd = scrape.all("millstream_odd", &[]).next().unwrap();
        assert_eq!(odd.labels["path"], "C:\\x\"y\n,{}");
        assert!(odd.value.is_infinite());
    }

    #[test]
    fn an_event_that_is_missing_is_noticed() {
        Scrape::parse(TEXT).unwrap().check_accounting().unwrap();
        let short = TEXT.replace("} 90", "} 89");
        let error = Scrape::parse(&short).unwrap().check_accounting();
        assert!(error.unwrap_err().to_string().contains("enrich"));
    }

    #[test]
    fn what_is_no_sample_is_an_error() {
        assert!(Scrape::parse("<html>").is_err());
        assert!(Scrape::parse("a{b=\"c} 1").is_err());
        assert!(Scrape::parse("a nothing").is_err());
    }
}
