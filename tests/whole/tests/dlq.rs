//! Dead letters that are listed, shown and sent back, and halted partitions that are moved on.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::time::Duration;

use millstream_test_support::plugins;
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::{Deadline, eventually, step};
use millstream_whole_tests::events;
use millstream_whole_tests::setting;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
const REPLAY: &str = "millstream.millstream.fix.replay";
const DEAD_LETTER: &str = "dead_letter = { topic = \"dlq\" }\n";

/// The lines of a `dlq` command's JSON.
fn lines(site: &Site, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["dlq"];
    all.extend(arguments);
    all.push("--json");
    let printed = site.succeed(&all).unwrap();
    printed.lines().map(|line| line.parse().unwrap()).collect()
}

/// The events that `dlq list` shows with these filters, as `PARTITION@OFFSET` of the topic `in`.
fn listed(site: &Site, filters: &[&str]) -> Vec<String> {
    let mut arguments = vec!["list", "fix"];
    arguments.extend(filters);
    let mut places: Vec<_> = lines(site, &arguments)
        .iter()
        .map(|line| {
            assert_eq!(line["topic"], "in");
            format!("{}@{}", line["partition"], line["offset"])
        })
        .collect();
    places.sort();
    places
}

/// What a replay says on standard error.
fn replay(site: &Site, more: &[&str]) -> String {
    let mut arguments = vec!["dlq", "replay", "fix"];
    arguments.extend(more);
    let finished = site.command(&arguments).unwrap();
    assert!(finished.status.success(), "{finished:?}");
    finished.stderr
}

/// The consumer `fix` with a plugin that takes orders alone: what is none is rejected as `decode`.
fn broken() -> String {
    let plugin = plugins::component("alerts").unwrap().display().to_string();
    format!(
        "[[consumer]]\nname = \"fix\"\nplugin = {plugin:?}\ntopics = [\"in\"]\nstart = \"beginning\"\n\
         outputs = {{ default = \"derived\" }}\n{DEAD_LETTER}"
    )
}

/// One that would hear of a replay if others did.
fn bystander() -> String {
    setting::hostile_consumer("bystander", "^(in|millstream.*)$", "")
        .unwrap()
        .replace("\"derived\"", "\"bystander-derived\"")
}

fn configure(site: &Site, consumers: &str) {
    let text = format!(
        "{}\n{}{consumers}",
        setting::head(site),
        setting::topic("in", 2)
    );
    site.configure(&text).unwrap();
}

fn values(site: &Site, topic: &str) -> Vec<String> {
    let mut values: Vec<_> = events::all(site, topic)
        .unwrap()
        .into_iter()
        .filter_map(|event| event.value)
        .collect();
    values.sort();
    values
}

/// A case that lacks a header, or shows the dead letter's place, would test the plugin with another
/// event.
#[test]
fn a_dead_letter_is_printed_as_a_whole_test_case() {
    let site = setting::site("").unwrap();
    configure(&site, &broken());
    let line = "k\"1\tno \"order\" at all: \\ {ü}\n";
    let more = ["-p", "1", "--header", "colour=blue"];
    setting::produce(&site, "in", line, &more).unwrap();
    setting::until_idle(&site).unwrap();

    let show = ["dlq", "show", "fix", "in/1@0", "--as-case"];
    let case: Value = site.succeed(&show).unwrap().parse().unwrap();
    let printed = site.succeed(&["consume", "in", "--json"]).unwrap();
    let events: Vec<Value> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(events.len(), 1);
    let letter = &lines(&site, &["list", "fix"])[0];
    let failed: serde_json::Map<_, _> = ["reason", "code", "error", "attempts", "digest"]
        .into_iter()
        .map(|name| (name.to_owned(), letter[name].clone()))
        .collect();
    assert!(failed.values().all(|value| !value.is_null()), "{failed:?}");
    let wanted = json!({"name": "in/1@0", "input": events, "failed": failed, "expected": null});
    assert_eq!(case, wanted);
    setting::fail(&site, 1, &["dlq", "show", "fix", "in/1@1", "--as-case"]).unwrap();
}

/// What an outage of the mind, a bug, put into the dead letters must come out once when it is mended.
#[test]
fn dead_letters_come_back_to_their_consumer_alone_and_once() {
    let site = setting::site("").unwrap();
    configure(&site, &format!("{}\n{}", broken(), bystander()));
    assert_eq!(listed(&site, &[]), [""; 0]);
    setting::produce(&site, "in", "a\tone\nb\ttwo\n", &["-p", "0"]).unwrap();
    setting::produce(&site, "in", "c\tthree\n", &["-p", "1"]).unwrap();
    setting::until_idle(&site).unwrap();

    let check_filters = |site: &Site| {
        for (filters, wanted) in [
            (&[][..], &["0@0", "0@1", "1@0"][..]),
            (&["--source", "in/0"], &["0@0", "0@1"]),
            (&["--source", "in/0@1"], &["0@1"]),
            (&["--source", "other"], &[]),
            (&["--key", "c"], &["1@0"]),
            (
                &["--reason", "rejected", "--code", "decode"],
                &["0@0", "0@1", "1@0"],
            ),
            (&["--reason", "trap,deadline"], &[]),
            (&["--code", "other"], &[]),
            (&["--since", "2020-01-01", "--key", "a"], &["0@0"]),
            (&["--until", "2020-01-01"], &[]),
        ] {
            assert_eq!(listed(site, filters), wanted, "{filters:?}");
        }
    };
    check_filters(&site);
    let line = &lines(&site, &["list", "fix", "--source", "in/1"])[0];
    assert_eq!(
        (
            &line["reason"],
            &line["code"],
            &line["attempts"],
            &line["key"]
        ),
        (&"rejected".into(), &"decode".into(), &1.into(), &"c".into())
    );
    assert!(line["digest"].as_str().unwrap().starts_with("sha256:"));
    assert!(!line["error"].as_str().unwrap().is_empty());
    let table = site.succeed(&["dlq", "list", "fix"]).unwrap();
    assert!(
        table.starts_with("SOURCE") && table.contains("in/1@0  rejected  decode"),
        "{table}"
    );

    let said = replay(&site, &["--dry-run"]);
    assert!(said.contains("3 events would be sent back"), "{said}");
    let topics = site.succeed(&["topics"]).unwrap();
    assert!(!topics.contains(REPLAY), "a dry run wrote: {topics}");

    // Another plugin takes anything. The filter wants no event: what comes back is past it.
    let mended = setting::hostile_consumer(
        "fix",
        "in",
        &format!("{DEAD_LETTER}filter = {{ key = [\"nobody\"] }}\n"),
    )
    .unwrap();
    configure(&site, &format!("{mended}\n{}", bystander()));
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    // Now over HTTP.
    check_filters(&site);
    let said = replay(&site, &["--source", "in/0", "--rate", "100/s"]);
    assert!(
        said.contains("2 events sent back") && said.contains("order is lost"),
        "{said}"
    );
    let said = replay(&site, &[]);
    assert!(
        said.contains("1 event sent back") && said.contains("2 events left out"),
        "{said}"
    );
    eventually("all came out", PATIENCE, || {
        values(&site, "derived").len() >= 3
    })
    .unwrap();
    let said = replay(&site, &[]);
    assert!(
        said.contains("nothing was sent back") && said.contains("3 events left out"),
        "{said}"
    );
    assert_eq!(running.get("/readyz").unwrap().0, 200);
    running.scrape().unwrap().check_accounting().unwrap();
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
    setting::until_idle(&site).unwrap();

    assert_eq!(values(&site, "derived"), ["one", "three", "two"]);
    for event in events::all(&site, "derived").unwrap() {
        assert_eq!(event.header("millstream-hops").unwrap(), "3", "{event:?}");
        event.source("in").unwrap();
        assert!(
            !event.headers.iter().any(|(name, _)| name.contains("-dlq-")),
            "{event:?}"
        );
    }
    assert_eq!(values(&site, "bystander-derived"), ["one", "three", "two"]);
    setting::check_no_lag(&site).unwrap();
    // Sent again while nobody runs, it waits for its consumer.
    let said = replay(&site, &["--again", "--key", "c"]);
    assert!(said.contains("1 event sent back"), "{said}");
    setting::until_idle(&site).unwrap();
    assert_eq!(values(&site, "derived"), ["one", "three", "three", "two"]);
}

/// What fails again after it came back is one event still: its newest dead letter is what counts.
#[test]
fn what_fails_again_is_the_same_dead_letter() {
    let site = setting::site("").unwrap();
    configure(
        &site,
        &setting::hostile_consumer("fix", "in", DEAD_LETTER).unwrap(),
    );
    setting::produce(&site, "in", "k\tgood\nk\treject\n", &["-p", "1"]).unwrap();
    setting::until_idle(&site).unwrap();
    for count in 1..4 {
        let list = lines(&site, &["list", "fix"]);
        assert_eq!(list.len(), 1, "{list:?}");
        let line = &list[0];
        assert_eq!(
            (
                &line["topic"],
                &line["partition"],
                &line["offset"],
                &line["count"]
            ),
            (&"in".into(), &1.into(), &1.into(), &count.into())
        );
        assert_eq!(events::all(&site, "dlq").unwrap().len(), count);
        let said = replay(&site, &[]);
        assert!(said.contains("1 event sent back"), "{said}");
        let said = replay(&site, &[]);
        assert!(said.contains("1 event left out"), "{said}");
        setting::until_idle(&site).unwrap();
    }
    let shown = &lines(&site, &["show", "fix", "in/1@1"])[0];
    assert_eq!(
        (&shown["count"], &shown["event"]["value"]),
        (&4.into(), &"reject".into())
    );
    let shown = site.succeed(&["dlq", "show", "fix", "in/1@1"]).unwrap();
    for wanted in [
        "source       in/1@1\n",
        "reason       rejected\n",
        "code         told-to\n",
        "count        4\n",
        "header       millstream-hops: 7\n",
        "value        reject\n",
    ] {
        assert!(shown.contains(wanted), "{wanted}{shown}");
    }
    let failed = setting::fail(&site, 1, &["dlq", "show", "fix", "in/1@0"]).unwrap();
    assert!(
        failed.stderr.contains("no dead letter of in/1@0"),
        "{failed:?}"
    );
    setting::fail(&site, 1, &["dlq", "list", "nobody"]).unwrap();
    setting::fail(&site, 2, &["dlq", "list", "fix", "--reason", "rejcted"]).unwrap();
    setting::fail(&site, 2, &["dlq", "replay", "fix", "--rate", "fast"]).unwrap();
    setting::fail(&site, 2, &["dlq", "show", "fix", "in/1"]).unwrap();
}

/// An event that the plugin's memory can never hold would burn every attempt and an instance each.
#[test]
fn an_event_larger_than_the_plugins_memory_is_dead_lettered_at_once() {
    let more = format!(
        "{DEAD_LETTER}batch = {{ max_bytes = \"1MiB\" }}\nlimits = {{ memory = \"4MiB\" }}\n\
         retry = {{ max_attempts = 100, initial = \"1h\", max = \"1h\" }}\n"
    );
    let site = setting::site("").unwrap();
    configure(
        &site,
        &setting::hostile_consumer("fix", "in", &more).unwrap(),
    );
    let large = "x".repeat(5_000_000);
    let input = format!("k\tbefore\nk\t{large}\nk\tafter\n");
    setting::produce(&site, "in", &input, &["-p", "0"]).unwrap();
    setting::until_idle(&site).unwrap();
    assert_eq!(values(&site, "derived"), ["after", "before"]);
    let list = lines(&site, &["list", "fix"]);
    assert_eq!(list.len(), 1);
    assert_eq!(
        (&list[0]["reason"], &list[0]["attempts"], &list[0]["offset"]),
        (&"oversize".into(), &0.into(), &1.into())
    );
    assert_eq!(values(&site, "dlq"), [large]);
}

/// What no plugin may see, and what no topic takes, comes back like the rest, bytes and all.
#[test]
fn undecodable_and_undeliverable_events_have_reasons_of_their_own() {
    let site = setting::site("").unwrap();
    let consumer = setting::hostile_consumer("fix", "in", DEAD_LETTER).unwrap();
    let derived = |largest: &str| format!("[topics.derived]\nmax_event = \"{largest}\"\n\n");
    configure(&site, &format!("{}{consumer}", derived("1KiB")));
    let large = "x".repeat(2_000);
    let bad_header = r#"{"value":"b","headers":[{"name":{"base64":"/w=="},"value":"v"}]}"#;
    let events = format!("{{\"value\":\"a\"}}\n{bad_header}\n{{\"value\":\"{large}\"}}\n");
    let file = site.write("events.jsonl", events.as_bytes()).unwrap();
    let file = file.to_str().unwrap();
    site.succeed(&["produce", "in", "-p", "0", "--json", "--file", file])
        .unwrap();
    setting::until_idle(&site).unwrap();
    assert_eq!(values(&site, "derived"), ["a"]);
    assert_eq!(listed(&site, &["--reason", "decode"]), ["0@1"]);
    assert_eq!(listed(&site, &["--reason", "undeliverable"]), ["0@2"]);
    assert_eq!(listed(&site, &[]).len(), 2);

    // A larger topic takes the one; nothing mends the other.
    configure(&site, &format!("{}{consumer}", derived("1MiB")));
    let said = replay(&site, &[]);
    assert!(said.contains("2 events sent back"), "{said}");
    setting::until_idle(&site).unwrap();
    assert_eq!(values(&site, "derived"), ["a", &large]);
    let shown = &lines(&site, &["show", "fix", "in/0@1"])[0];
    assert_eq!(
        (&shown["reason"], &shown["count"]),
        (&"decode".into(), &2.into())
    );
    let headers = shown["event"]["headers"].as_array().unwrap();
    assert_eq!(headers[0]["name"]["base64"], "/w==", "{headers:?}");
}

/// Waits until `/readyz` says no, for a reason with these words.
fn until_not_ready(running: &mut Running, words: &str) {
    let deadline = Deadline::after(PATIENCE);
    loop {
        match running.get("/readyz") {
            Ok((503, body)) if body.contains(words) => return,
            other => assert!(!deadline.passed(), "{other:?}\n{}", running.logs()),
        }
        step();
    }
}

/// A consumer without dead letters, halted at `in/0@1` of `a reject b reject c`, and its site.
fn halted(ordering: &str) -> (Site, Running) {
    let site = setting::site("").unwrap();
    let more = format!("ordering = \"{ordering}\"\n");
    configure(
        &site,
        &setting::hostile_consumer("fix", "in", &more).unwrap(),
    );
    let input = "k0\ta\nk1\treject\nk2\tb\nk3\treject\nk4\tc\n";
    setting::produce(&site, "in", input, &["-p", "0"]).unwrap();
    let mut running = site.start(&[]).unwrap();
    until_not_ready(&mut running, "in/0 is halted");
    (site, running)
}

fn skip(site: &Site, place: &str) {
    site.succeed(&["skip", "fix", place]).unwrap();
}

fn refused(site: &Site, place: &str, words: &str) {
    let failed = setting::fail(site, 1, &["skip", "fix", place]).unwrap();
    assert!(failed.stderr.contains(words), "{place}: {failed:?}");
}

#[test]
fn a_halted_partition_is_moved_past_one_event_while_the_runtime_runs() {
    let (site, mut running) = halted("partition");
    refused(&site, "in/0@2", "halted at offset 1, not at 2");
    refused(&site, "in/1@0", "in/1 is not halted");
    refused(&site, "other/0@0", "not with this runtime");
    setting::fail(&site, 2, &["skip", "fix", "in/0"]).unwrap();
    setting::fail(&site, 1, &["skip", "nobody", "in/0@1"]).unwrap();
    skip(&site, "in/0@1");
    // It goes on, and halts at the next one.
    until_not_ready(&mut running, "in/0/3 failed for good");
    assert_eq!(values(&site, "derived"), ["a", "b"]);
    refused(&site, "in/0@1", "halted at offset 3, not at 1");
    skip(&site, "in/0@3");
    setting::produce(&site, "in", "k1\tlate\n", &["-p", "0"]).unwrap();
    setting::until_no_lag(&site, &mut running, PATIENCE).unwrap();
    running
        .until_scrape("done", PATIENCE, |scrape| {
            scrape.sum("millstream_consumer_lag_events", &[]) < 0.5
                && scrape.value("millstream_halted_partitions", &[("consumer", "fix")]) == Some(0.0)
        })
        .unwrap();
    assert_eq!(running.get("/readyz").unwrap().0, 200);
    let scrape = running.scrape().unwrap();
    let skipped = [("consumer", "fix"), ("topic", "in"), ("reason", "skipped")];
    assert_eq!(
        scrape.value("millstream_events_skipped_total", &skipped),
        Some(2.0)
    );
    scrape.check_accounting().unwrap();
    assert!(
        running.logs().contains("an operator skipped the event"),
        "{}",
        running.logs()
    );
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
    assert_eq!(values(&site, "derived"), ["a", "b", "c", "late"]);
    setting::check_no_lag(&site).unwrap();
}

/// With order by key others may be settled above the halted event, and must not come again.
#[test]
fn a_halted_partition_is_moved_past_one_event_while_nothing_runs() {
    for ordering in ["partition", "key"] {
        let (site, mut running) = halted(ordering);
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        if ordering == "partition" {
            refused(&site, "in/0@0", "settled already");
        }
        refused(&site, "in/0@99", "there is no event in/0@99");
        refused(&site, "in/7@0", "reads no partition in/7");
        refused(&site, "other/0@0", "reads no partition other/0");
        for place in ["in/0@1", "in/0@3"] {
            skip(&site, place);
            refused(&site, place, "settled already");
        }
        setting::until_idle(&site).unwrap();
        assert_eq!(values(&site, "derived"), ["a", "b", "c"], "{ordering}");
        setting::check_no_lag(&site).unwrap();
    }
}
