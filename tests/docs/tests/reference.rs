//! Tables of the guides say what the code does: metrics, HTTP, alerts.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use millstream::decide::admission::Load;
use millstream::event::TopicPartition;
use millstream::metrics::{Lag, Metrics, Probe, Volume};
use millstream_docs_tests::guide::Guide;
use millstream_test_support::workspace;

const PREFIX: &str = "millstream_";

/// Every metric that the runtime can show.
fn shown() -> BTreeSet<String> {
    let metrics = Metrics::new();
    let topic: Arc<str> = "t".into();
    {
        let ledger = metrics.ledger(&topic);
        let mut ledger = ledger.lock();
        ledger.admitted(&topic, Load::default());
        ledger.produced.insert(topic.clone(), Volume::default());
        ledger.skipped.insert((topic.clone(), "lost-position"), 1);
        ledger
            .lag
            .insert(TopicPartition::new("t", 0), Lag::default());
        ledger.lag_seconds.insert(topic.clone(), 0.0);
        ledger.last_settled.insert(topic.clone(), 0.0);
        ledger.overrides.push("pause".to_owned());
    }
    metrics.violated("I4");
    let probe = Probe {
        tasks: [1, 1],
        broker_up: true,
        store: Some((1, 1)),
    };
    let text = metrics.render(probe, Vec::new());
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| line.split_whitespace().next());
    let ours = names.filter_map(|name| name.strip_prefix(PREFIX));
    ours.map(str::to_owned).collect()
}

/// Rows of the table below a heading: the inline code of each first cell.
fn first_cells(guide: &Guide, heading: &str) -> Result<BTreeSet<String>> {
    let lines = guide.prose.iter().map(|(_, line)| line.as_str());
    let below: Vec<&str> = lines
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .collect();
    ensure!(!below.is_empty(), "{} has no {heading:?}", guide.name);
    let rows = below.iter().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    Ok(cells
        .flat_map(|cell| {
            format!("`{cell}")
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect())
}

#[test]
fn the_table_of_metrics_is_complete() -> Result<()> {
    let guide = Guide::read("runtime/README.md")?;
    let mut listed = first_cells(&guide, "## Metrics")?;
    listed.remove("custom_NAME");
    assert_eq!(listed, shown());
    Ok(())
}

#[test]
fn the_table_of_http_is_complete() -> Result<()> {
    let guide = Guide::read("runtime/README.md")?;
    let listed: BTreeSet<String> = first_cells(&guide, "## HTTP")?
        .into_iter()
        .filter_map(|cell| cell.split_whitespace().last().map(str::to_owned))
        .collect();
    let source = fs::read_to_string(workspace::root().join("runtime/src/admin/mod.rs"))?;
    let routes = source.split("route(").skip(1);
    let routes: BTreeSet<String> = routes
        .filter_map(|rest| rest.split('"').nth(1).map(str::to_owned))
        .collect();
    assert_eq!(listed, routes);
    Ok(())
}

/// An alert on a metric that does not exist never fires.
#[test]
fn alerts_are_about_metrics_that_exist() -> Result<()> {
    let known = shown();
    let alerts = fs::read_to_string(workspace::root().join("config/prometheus/alerts.yml"))?;
    let mut found = 0;
    for rest in alerts.split(PREFIX).skip(1) {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = &rest[..end.unwrap_or(rest.len())];
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        ensure!(known.contains(family), "alerts.yml names {PREFIX}{name}");
        found += 1;
    }
    ensure!(found >= 6, "only {found} metrics in alerts.yml");
    let count = |what: &str| alerts.matches(what).count();
    assert_eq!(
        count("- alert:"),
        count("summary:"),
        "each alert has a summary"
    );
    assert_eq!(
        count("- alert:"),
        count("action:"),
        "each alert says what to do"
    );
    Ok(())
}

/// Prometheus itself judges the files, and tries each alert on series that must and must not fire.
#[test]
fn prometheus_takes_its_configuration() -> Result<()> {
    for arguments in [
        ["check", "config", "config/prometheus/prometheus.yml"],
        ["check", "rules", "config/prometheus/alerts.yml"],
        ["test", "rules", "tests/docs/alerts.test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(workspace::root())
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) if workspace::in_ci() => {
                return Err(error)
                    .context("CI=true, and there is no promtool (package prometheus)");
            }
            Err(error) => {
                eprintln!(
                    "\n*** LEFT OUT: promtool (package prometheus) does not start: {error}\n"
                );
                return Ok(());
            }
        };
        if !output.status.success() {
            let (out, err) = (&output.stdout, &output.stderr);
            bail!(
                "promtool {}:\n{}{}",
                arguments.join(" "),
                String::from_utf8_lossy(out),
                String::from_utf8_lossy(err)
            );
        }
    }
    Ok(())
}
