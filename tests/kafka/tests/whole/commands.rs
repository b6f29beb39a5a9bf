//! The commands against Kafka, with what they wrote read by Kafka's own reader.

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka;
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::ports::free_port;
use millstream_test_support::process::Site;
use millstream_test_support::wait::eventually;
use serde_json::Value;

use super::order_lines;
use super::setup::{self, Names, PARTITIONS, PATIENCE};

#[test]
fn topics_are_made_listed_and_deleted() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let site = setup::site(kafka.bootstrap(), "")?;
    let topic = setup::fresh("made");
    let create = ["topics", "create", &topic, "--partitions", "3"];
    site.succeed(&[&create[..], &["--retention-age", "1h"]].concat())?;
    ensure!(kafka.ends(&topic)? == [(0, 0); 3]);
    let settings = kafka.tool(
        "org.apache.kafka.tools.TopicCommand",
        &["--describe", "--topic", &topic],
    )?;
    ensure!(settings.contains("retention.ms=3600000"), "{settings}");

    ensure!(
        site.command(&create)?.status.code() == Some(1),
        "made twice"
    );
    site.succeed(&[&create[..], &["--if-not-exists"]].concat())?;
    kafka.produce(&topic, &[(Some("k"), "v")])?;
    let list = site.succeed(&["topics", "list", &topic, "--json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let partitions = list[0]["partitions"].as_array().context("no partitions")?;
    let ends: u64 = partitions.iter().filter_map(|p| p["end"].as_u64()).sum();
    ensure!(
        list[0]["name"] == *topic && partitions.len() == 3 && ends == 1,
        "{list}"
    );

    site.succeed(&["topics", "delete", &topic])?;
    eventually("the topic is gone", PATIENCE, || {
        site.command(&["topics", "list", &topic])
            .is_ok_and(|listed| listed.status.code() == Some(1))
    })?;
    ensure!(kafka.ends(&topic).is_err(), "the topic is still there");
    ensure!(site.command(&["topics", "delete", &topic])?.status.code() == Some(1));
    Ok(())
}

/// A topic with the values v0 to v9 in its first partition, by `produce`.
fn ten_events(kafka: &KafkaTools, site: &Site) -> Result<String> {
    let topic = setup::fresh("ten");
    kafka.create_topic(&topic, 2)?;
    let lines: String = (0..10).map(|n| format!("k{n}:v{n}\n")).collect();
    site.write("ten.txt", lines.as_bytes())?;
    let produce = [
        "produce",
        &topic,
        "--file",
        "ten.txt",
        "--key-separator",
        ":",
    ];
    site.succeed(&[&produce[..], &["-p", "0", "-H", "region=eu"]].concat())?;
    Ok(topic)
}

#[test]
fn events_are_read_from_every_place_that_an_offset_can_name() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let site = setup::site(kafka.bootstrap(), "")?;
    let topic = ten_events(kafka, &site)?;
    let consume = |more: &[&str]| -> Result<Vec<String>> {
        let all = [&["consume", &topic][..], more].concat();
        Ok(site.succeed(&all)?.lines().map(str::to_owned).collect())
    };
    let values = |numbers: std::ops::Range<usize>| -> Vec<String> {
        numbers.map(|n| format!("v{n}")).collect()
    };
    let time = kafka.read(&topic)?[0].timestamp_ms;
    let (then, later) = (format!("@{time}"), format!("@{}", time + 86_400_000));
    let cases: [(&[&str], Vec<String>); 11] = [
        (&[], values(0..10)),
        (&["-o", "start", "-n", "4"], values(0..4)),
        (&["-o", "end"], Vec::new()),
        (&["-o", "7"], values(7..10)),
        (&["-o", "-2"], values(8..10)),
        (&["-o", "-2", "-n", "1"], values(8..9)),
        (&["-o", "@1970-01-01"], values(0..10)),
        (&["-o", &then], values(0..10)),
        (&["-o", &later], Vec::new()),
        (&["-p", "0"], values(0..10)),
        (&["-p", "1"], Vec::new()),
    ];
    for (arguments, wanted) in cases {
        let got = consume(arguments)?;
        ensure!(got == wanted, "consume {arguments:?}: {got:?}");
    }
    let shown = consume(&["-o", "9", "--format", r"%t %p %o %k %v\n"])?;
    ensure!(shown == [format!("{topic} 0 9 k9 v9")], "{shown:?}");
    ensure!(site.command(&["consume", &topic, "-p", "2"])?.status.code() == Some(1));
    Ok(())
}

/// What `consume --json` prints is what Kafka holds, and `produce --json` makes the same events of
/// it: null, empty, bytes that are no text, headers and times.
#[test]
fn events_survive_the_way_through_json() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let site = setup::site(kafka.bootstrap(), "")?;
    let (from, to) = (setup::fresh("from"), setup::fresh("to"));
    kafka.create_topic(&from, 1)?;
    kafka.create_topic(&to, 1)?;
    site.write("first.txt", "first ümlaut\n".as_bytes())?;
    site.write("null.txt", b"\n")?;
    site.write("bytes.bin", b"\xff\xfe\n")?;
    let produce = |more: &[&str]| site.succeed(&[&["produce", &from][..], more].concat());
    produce(&["--file", "first.txt", "-k", "key", "-H", "a=1", "-H", "a=2"])?;
    produce(&["--file", "null.txt", "-k", "gone", "--null"])?;
    produce(&["--file", "null.txt"])?;
    produce(&["--file", "bytes.bin"])?;

    let lines = site.succeed(&["consume", &from, "--json"])?;
    let events: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let held = kafka.read(&from)?;
    let [first, null, empty, bytes] = &events[..] else {
        anyhow::bail!("not four events: {lines}");
    };
    let wanted = serde_json::json!({
        "topic": from, "partition": 0, "offset": 0, "timestamp": held[0].timestamp_ms,
        "key": "key", "value": "first ümlaut",
        "headers": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}],
    });
    ensure!(*first == wanted, "{first} is not {wanted}");
    ensure!(null["value"].is_null() && null["key"] == "gone", "{null}");
    ensure!(empty["value"] == "" && empty["key"].is_null(), "{empty}");
    ensure!(
        bytes["value"] == serde_json::json!({"base64": "//4="}),
        "{bytes}"
    );

    site.write("events.jsonl", lines.as_bytes())?;
    site.succeed(&["produce", &to, "--json", "--file", "events.jsonl"])?;
    let copied = kafka.read(&to)?;
    ensure!(copied == held, "{copied:?}\nis not\n{held:?}");
    Ok(())
}

/// The position of each partition before, while and after a runtime runs.
#[test]
fn lag_is_shown_while_a_runtime_runs_and_while_none_does() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let lines = order_lines::some(400)?;
    let names = Names::fresh("lag");
    names.create(kafka)?;
    setup::produce(kafka, &names.source, &lines)?;
    let consumer = names.consumer(&format!("[\"{}\"]", names.source), "")?;
    let site = setup::site(kafka.bootstrap(), &consumer)?;
    let total = lines.len() as u64;

    rows_are(&site, "stopped", None, total)?;
    let mut runtime = site.start(&[])?;
    setup::until_settled(&mut runtime, total)?;
    eventually("all is committed", PATIENCE, || {
        rows_are(&site, "running", Some(total), 0).is_ok()
    })
    .with_context(|| format!("{:?}", rows_are(&site, "running", Some(total), 0)))?;
    runtime.terminate()?;
    runtime.succeed(PATIENCE)?;
    rows_are(&site, "stopped", Some(total), 0)
}

/// Whether `lag` shows every partition in this state, and these sums of positions and lags.
fn rows_are(site: &Site, state: &str, position: Option<u64>, lag: u64) -> Result<()> {
    let text = site.succeed(&["lag", "enrich", "--json"])?;
    let rows: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
    let sum = |name: &str| -> Option<u64> { rows.iter().map(|row| row[name].as_u64()).sum() };
    ensure!(
        rows.len() == PARTITIONS as usize
            && rows.iter().all(|row| row["state"] == state)
            && sum("position") == position
            && sum("lag") == Some(lag),
        "{text}"
    );
    Ok(())
}

/// Scripts tell by the exit code what went wrong, and people by a message that names it.
#[test]
fn what_is_missing_is_named_and_has_its_exit_code() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let site = setup::site(kafka.bootstrap(), "")?;
    let topic = setup::fresh("missing");
    site.write("line.txt", b"x\n")?;
    for command in [
        &["consume", &topic][..],
        &["produce", &topic, "--file", "line.txt"],
    ] {
        let failed = site.command(command)?;
        ensure!(
            failed.status.code() == Some(1) && failed.stderr.contains(&topic),
            "{command:?}: {failed:?}"
        );
    }
    ensure!(
        kafka.ends(&topic).is_err(),
        "the topic was made by accident"
    );

    let nobody = format!("127.0.0.1:{}", free_port()?);
    let site = setup::site(&nobody, "")?;
    let failed = site.command(&["topics"])?;
    ensure!(
        failed.status.code() == Some(69) && failed.stderr.contains(&nobody),
        "{failed:?}"
    );
    Ok(())
}
