//! Every command, against a store that nobody runs on and against a running runtime.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::time::Duration;

use millstream_test_support::process::{Finished, Site};
use millstream_whole_tests::{events, setting};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Does the same with no runtime and with one.
fn both_ways(consumers: &str, check: impl Fn(&Site, bool)) {
    for running in [false, true] {
        let site = setting::site(consumers).unwrap();
        let mut runtime = running.then(|| site.start(&[]).unwrap());
        if let Some(runtime) = &mut runtime {
            runtime.until_ready(PATIENCE).unwrap();
        }
        println!("with a runtime: {running}");
        check(&site, running);
        if let Some(runtime) = &mut runtime {
            runtime.terminate().unwrap();
            runtime.succeed(PATIENCE).unwrap();
        }
    }
}

/// A consumer of a topic that none of these tests writes to.
fn idle() -> String {
    setting::hostile_consumer("idle", "nothing-here", "").unwrap()
}

fn succeed(site: &Site, arguments: &[&str], input: &str) -> Finished {
    let finished = setting::command_with_input(site, arguments, input).unwrap();
    assert!(
        finished.status.success(),
        "{arguments:?}: {}",
        finished.stderr
    );
    finished
}

fn fail(site: &Site, code: i32, arguments: &[&str]) -> Finished {
    setting::fail(site, code, arguments).unwrap()
}

fn json(site: &Site, arguments: &[&str]) -> Value {
    let out = site.succeed(arguments).unwrap();
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
}

fn values(site: &Site, arguments: &[&str]) -> Vec<String> {
    let out = site.succeed(arguments).unwrap();
    out.lines().map(str::to_owned).collect()
}

/// Null and empty, keys, headers and bytes must arrive as they were given.
#[test]
fn what_is_produced_is_what_is_consumed() {
    both_ways(&idle(), |site, _| {
        let done = succeed(
            site,
            &["produce", "t", "-k", "fixed", "-H", "a=1", "-H", "b=x=y"],
            "one\n\n two \n",
        );
        assert_eq!(done.stdout, "", "data that is none");
        succeed(
            site,
            &["produce", "t", "--key-separator", ":"],
            "k1:v:1\n:no key\nk2:\n",
        );
        succeed(
            site,
            &["produce", "t", "--key-separator", ":", "--null"],
            "k1:\n:null key\n",
        );
        let event = json!({
            "topic": "elsewhere", "partition": 9, "offset": 77, "timestamp": 1_700_000_000_123_i64,
            "key": null, "value": {"base64": "/wA="},
            "headers": [{"name": "h", "value": null}, {"name": "h", "value": "2"}],
        });
        let done = succeed(
            site,
            &["produce", "t", "--json", "-p", "3", "--output", "json"],
            &format!("{event}\n"),
        );
        let report: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(report, json!({"topic": "t", "events": 1}));

        let all = events::all(site, "t").unwrap();
        let of_key = |key: Option<&str>| -> Vec<Option<&str>> {
            let of = all.iter().filter(|event| event.key.as_deref() == key);
            of.map(|event| event.value.as_deref()).collect()
        };
        assert_eq!(all.len(), 9);
        assert_eq!(
            of_key(Some("fixed")),
            [Some("one"), Some(""), Some(" two ")]
        );
        assert_eq!(of_key(Some("k1")), [Some("v:1"), None]);
        assert_eq!(of_key(Some("k2")), [Some("")]);
        assert_eq!(of_key(Some("")), [Some("no key")]);
        let fixed = all
            .iter()
            .find(|event| event.key.as_deref() == Some("fixed"))
            .unwrap();
        assert_eq!(fixed.header("a").unwrap(), "1");
        assert_eq!(fixed.header("b").unwrap(), "x=y");

        let out = site
            .succeed(&["consume", "t", "--json", "-p", "3"])
            .unwrap();
        let raw: Value = out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|event| event["value"].is_object())
            .unwrap();
        assert_eq!(raw["value"], event["value"]);
        assert_eq!(raw["headers"], event["headers"]);
        assert_eq!(raw["timestamp"], event["timestamp"]);
        assert_eq!((&raw["topic"], &raw["partition"]), (&json!("t"), &json!(3)));
        // What `consume --json` prints, `produce --json` takes: nothing is lost on the way.
        succeed(
            site,
            &["produce", "copy", "--json"],
            &site.succeed(&["consume", "t", "--json"]).unwrap(),
        );
        let copies = events::all(site, "copy").unwrap();
        let content = |events: &[events::Event]| {
            let mut all: Vec<_> = events
                .iter()
                .map(|event| {
                    (
                        event.key.clone(),
                        event.value.clone(),
                        event.headers.clone(),
                        event.timestamp,
                    )
                })
                .collect();
            all.sort();
            all
        };
        assert_eq!(content(&copies), content(&all));
    });
}

#[test]
fn consume_begins_and_ends_where_it_is_told() {
    both_ways(
        &format!("{}{}", setting::topic("t", 1), idle()),
        |site, _| {
            let lines: String = (0..10)
            .map(|n| format!("{}\n", json!({"key": "k", "value": format!("v{n}"), "timestamp": 1_700_000_000_000_i64 + n * 1000})))
            .collect();
            succeed(site, &["produce", "t", "--json"], &lines);
            let from = |place: &str| values(site, &["consume", "t", "-o", place]);
            let wanted =
                |range: std::ops::Range<i32>| range.map(|n| format!("v{n}")).collect::<Vec<_>>();
            assert_eq!(from("start"), wanted(0..10));
            assert_eq!(values(site, &["consume", "t"]), wanted(0..10));
            assert!(from("end").is_empty());
            assert_eq!(from("4"), wanted(4..10));
            assert_eq!(from("-3"), wanted(7..10));
            assert_eq!(from("-100"), wanted(0..10));
            assert!(from("100").is_empty());
            assert_eq!(from("@1700000005000"), wanted(5..10));
            assert_eq!(from("@2023-11-14T22:13:26Z"), wanted(6..10));
            assert_eq!(
                values(site, &["consume", "t", "-n", "2", "-o", "3"]),
                wanted(3..5)
            );
            assert_eq!(values(site, &["consume", "t", "-n", "0"]), wanted(0..0));
            let shown = site
                .succeed(&[
                    "consume",
                    "t",
                    "-n",
                    "1",
                    "--format",
                    "%t %p %o %T %k %K %v %S %%\\n",
                ])
                .unwrap();
            assert_eq!(shown, "t 0 0 1700000000000 k 1 v0 2 %\n");
            for (code, arguments) in [
                (1, &["consume", "nowhere"][..]),
                (1, &["consume", "t", "-p", "7"]),
                (2, &["consume", "t", "-o", "soon"]),
                (2, &["consume", "t", "--format", "%q"]),
                (2, &["consume"]),
            ] {
                let finished = fail(site, code, arguments);
                assert_eq!(finished.stdout, "", "{arguments:?}");
            }
        },
    );
}

#[test]
fn bad_input_is_named_and_nothing_after_it_is_written() {
    both_ways(&idle(), |site, _| {
        let finished = setting::command_with_input(
            site,
            &["produce", "t", "--json"],
            "{\"value\":\"1\"}\nnonsense\n{\"value\":\"3\"}\n",
        )
        .unwrap();
        assert_eq!(finished.status.code(), Some(1));
        assert!(finished.stderr.contains("line 2"), "{}", finished.stderr);
        assert_eq!(values(site, &["consume", "t"]), ["1"]);
        let finished = setting::command_with_input(
            site,
            &["produce", "t", "--key-separator", ":"],
            "no separator\n",
        )
        .unwrap();
        assert_eq!(finished.status.code(), Some(1));
        fail(site, 1, &["produce", "t", "--file", "not-there.txt"]);
        let finished =
            setting::command_with_input(site, &["produce", "no such topic"], "x\n").unwrap();
        assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
        fail(site, 2, &["produce", "t", "-H", "no value"]);
        fail(
            site,
            2,
            &["produce", "t", "-k", "a", "--key-separator", ":"],
        );
    });
}

#[test]
fn topics_come_and_go() {
    both_ways(&idle(), |site, _| {
        let named = |name: &str| {
            let list = json(site, &["topics", "--json"]);
            let found = list
                .as_array()
                .unwrap()
                .iter()
                .find(|topic| topic["name"] == name);
            found.cloned()
        };
        assert_eq!(named("made"), None);
        site.succeed(&["topics", "create", "made", "-p", "2"])
            .unwrap();
        fail(site, 1, &["topics", "create", "made"]);
        site.succeed(&["topics", "create", "made", "--if-not-exists"])
            .unwrap();
        let bounds = |partition, end| json!({"partition": partition, "start": 0, "end": end});
        assert_eq!(
            named("made").unwrap()["partitions"],
            json!([bounds(0, 0), bounds(1, 0)])
        );
        succeed(site, &["produce", "made", "-p", "1"], "a\nb\n");
        assert_eq!(
            named("made").unwrap()["partitions"],
            json!([bounds(0, 0), bounds(1, 2)])
        );
        // A topic that is written to first has four partitions.
        succeed(site, &["produce", "used"], "a\n");
        assert_eq!(
            named("used").unwrap()["partitions"]
                .as_array()
                .unwrap()
                .len(),
            4
        );
        let table = site.succeed(&["topics", "list", "made"]).unwrap();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows,
            [
                vec!["TOPIC", "PARTITION", "START", "END", "EVENTS"],
                vec!["made", "0", "0", "0", "0"],
                vec!["made", "1", "0", "2", "2"],
            ]
        );
        site.succeed(&["topics", "delete", "made"]).unwrap();
        assert_eq!(named("made"), None);
        fail(site, 1, &["topics", "delete", "made"]);
        site.succeed(&["topics", "delete", "made", "--if-exists"])
            .unwrap();
        fail(site, 1, &["consume", "made"]);
        fail(site, 1, &["topics", "list", "made"]);
        fail(site, 2, &["topics", "create", "other", "-p", "0"]);
        fail(site, 1, &["topics", "create", "not a name"]);
    });
}

#[test]
fn lag_shows_where_each_consumer_stands() {
    let text = format!(
        "{}{}",
        setting::topic("in", 2),
        setting::hostile_consumer("reader", "in", "").unwrap()
    );
    let site = setting::site(&text).unwrap();
    succeed(&site, &["produce", "in", "-p", "0"], "a\nb\nc\n");
    succeed(&site, &["produce", "in", "-p", "1"], "a\n");
    let row = |partition: u64, position: Value, end: u64, lag: u64, state: &str| {
        json!({"consumer": "reader", "group": "millstream.reader", "topic": "in",
            "partition": partition, "position": position, "end": end, "lag": lag, "state": state})
    };
    let before = json(&site, &["lag", "--json"]);
    assert_eq!(
        before,
        json!([
            row(0, Value::Null, 3, 3, "stopped"),
            row(1, Value::Null, 1, 1, "stopped")
        ])
    );
    let mut running = site.start(&[]).unwrap();
    running
        .until_scrape("done", PATIENCE, |scrape| {
            scrape.sum("millstream_events_settled_total", &[("outcome", "ok")]) >= 4.0
        })
        .unwrap();
    // The position is committed within the interval; the table shows what is committed.
    millstream_test_support::wait::eventually("the positions are committed", PATIENCE, || {
        json(&site, &["lag", "--json"])
            == json!([
                row(0, 3.into(), 3, 0, "running"),
                row(1, 1.into(), 1, 0, "running")
            ])
    })
    .unwrap();
    let table = site.succeed(&["lag", "reader"]).unwrap();
    assert!(table.starts_with("CONSUMER"), "{table}");
    assert_eq!(table.lines().count(), 3);
    let consumers: Value =
        serde_json::from_str(&running.get("/api/v1/consumers").unwrap().1).unwrap();
    assert_eq!(consumers[0]["name"], "reader");
    assert_eq!(
        (&consumers[0]["state"], &consumers[0]["lag"]),
        (&json!("running"), &json!(0))
    );
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
    let after = json(&site, &["lag", "--json"]);
    assert_eq!(
        after,
        json!([
            row(0, 3.into(), 3, 0, "stopped"),
            row(1, 1.into(), 1, 0, "stopped")
        ])
    );
    fail(&site, 1, &["lag", "stranger"]);
}

#[test]
fn validate_says_all_that_is_wrong_and_where() {
    let site = setting::site(&idle()).unwrap();
    let out = site.succeed(&["validate"]).unwrap();
    assert_eq!(
        out,
        "millstream.toml is valid: 1 consumer (idle) on the embedded broker\n"
    );
    let report = json(&site, &["validate", "millstream.toml", "--json"]);
    assert_eq!(
        (&report["valid"], &report["problems"]),
        (&json!(true), &json!([]))
    );

    let bad = "[broker]\nkind = \"embeded\"\n\n[[consumer]]\nname = \"a\"\nplugin = \"missing.wasm\"\ntopcis = [\"t\"]\n";
    site.write("bad.toml", bad.as_bytes()).unwrap();
    let finished = fail(&site, 78, &["validate", "bad.toml"]);
    assert_eq!(finished.stdout, "");
    for place in ["bad.toml:2:", "bad.toml:6:", "bad.toml:7:1"] {
        assert!(
            finished.stderr.contains(place),
            "no {place} in {}",
            finished.stderr
        );
    }
    assert!(
        finished.stderr.contains("topics"),
        "no suggestion: {}",
        finished.stderr
    );
    let finished =
        setting::command_with_input(&site, &["validate", "bad.toml", "--output", "json"], "")
            .unwrap();
    assert_eq!(finished.status.code(), Some(78));
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(report["valid"], false);
    assert!(report["problems"].as_array().unwrap().len() >= 3);
    // Every command refuses such a file alike, and says so on stderr alone.
    for command in [
        &["run"][..],
        &["topics"],
        &["lag"],
        &["consume", "t"],
        &["produce", "t"],
        &["config", "show", "--resolved"],
    ] {
        let mut arguments = command.to_vec();
        arguments.extend(["--config", "bad.toml"]);
        let finished = fail(&site, 78, &arguments);
        assert_eq!(finished.stdout, "", "{command:?}");
        assert!(
            finished.stderr.contains("bad.toml:7:1"),
            "{command:?}: {}",
            finished.stderr
        );
    }
    fail(&site, 78, &["validate", "not-there.toml"]);
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let mut site = setting::site("").unwrap();
    let secret = "correct-horse-battery";
    site.set("MY_SECRET_TOKEN", secret);
    let text = setting::head(&site).replace(
        "[admin]\n",
        "[admin]\ntoken = { env = \"MY_SECRET_TOKEN\" }\n",
    );
    site.configure(&format!("{text}\n{}", idle())).unwrap();
    let resolved = json(&site, &["config", "show", "--resolved", "--json"]);
    assert_eq!(resolved["admin"]["listen"], site.admin());
    for arguments in [
        &["config", "show", "--resolved"][..],
        &["config", "show"],
        &["config", "show", "--resolved", "--json"],
        &["config", "show", "--json"],
    ] {
        let out = site.succeed(arguments).unwrap();
        assert!(!out.contains(secret), "{arguments:?}");
        assert!(out.contains("embedded"), "{arguments:?}: {out}");
    }
    let schema = json(&site, &["config", "schema"]);
    assert!(schema["properties"]["consumer"].is_object());
    // What applies is a configuration itself.
    let resolved = site.succeed(&["config", "show", "--resolved"]).unwrap();
    assert!(resolved.contains("[[consumer]]"), "{resolved}");

    // The token guards what reveals events; the command line brings it along.
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    let finished = site.command(&["topics"]).unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(running.get("/topics/t").unwrap().0, 401);
    assert_eq!(running.get("/metrics").unwrap().0, 200);
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
    assert!(!running.logs().contains(secret));
}

#[test]
fn exit_codes_and_streams_are_as_documented() {
    let site = setting::site(&idle()).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            site.succeed(&["completions", shell])
                .unwrap()
                .contains("millstream")
        );
    }
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["produce", "--help"],
    ] {
        assert!(!site.succeed(arguments).unwrap().is_empty());
    }
    for arguments in [
        &[][..],
        &["fly"],
        &["run", "--fly"],
        &["completions", "cmd"],
        &["topics", "delete"],
    ] {
        let finished = fail(&site, 2, arguments);
        assert_eq!(finished.stdout, "", "{arguments:?}");
    }
    // A store that another process holds, with no runtime that would answer: out of reach.
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    let elsewhere = setting::head(&site).replace(&site.admin(), "127.0.0.1:9");
    site.write(
        "elsewhere.toml",
        format!("{elsewhere}\n{}", idle()).as_bytes(),
    )
    .unwrap();
    let finished = fail(&site, 69, &["topics", "--config", "elsewhere.toml"]);
    assert_eq!(finished.stdout, "");
    // A second runtime on the same store or the same address does not start, and harms nobody.
    let finished = setting::command_with_input(&site, &["run", "millstream.toml"], "").unwrap();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let finished = setting::command_with_input(&site, &["run", "elsewhere.toml"], "").unwrap();
    assert!(!finished.status.success());
    assert_eq!(running.get("/readyz").unwrap().0, 200);
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
}

/// A dead letter may be expected or a fault; the caller says which.
#[test]
fn a_run_until_idle_reports_what_it_did() {
    let more = "dead_letter = { topic = \"dlq\" }\n";
    let site = setting::site(&setting::hostile_consumer("c", "in", more).unwrap()).unwrap();
    succeed(&site, &["produce", "in"], "a\ndrop\nreject\n");
    let finished = setting::command_with_input(
        &site,
        &["run", "--until-idle", "--fail-on-dead-letter", "--json"],
        "",
    )
    .unwrap();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let summary: Value = serde_json::from_str(&finished.stdout).unwrap();
    let consumer = &summary["consumers"][0];
    assert_eq!(consumer["consumed"], 3);
    assert_eq!(
        consumer["settled"],
        json!({"ok": 1, "filtered": 0, "dropped": 1, "dead_lettered": 1, "abandoned": 0})
    );
    assert_eq!(consumer["produced"]["default"], 1);
    assert!(summary["failure"].as_str().unwrap().contains("dead letter"));
    let finished = setting::command_with_input(&site, &["run", "--until-idle"], "").unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");

    // A new group on a topic that holds events must say where it starts.
    let text = setting::hostile_consumer("fresh", "in", more)
        .unwrap()
        .replace("start = \"beginning\"\n", "");
    site.configure(&format!("{}\n{text}", setting::head(&site)))
        .unwrap();
    let finished = fail(&site, 78, &["run", "--until-idle"]);
    assert!(finished.stderr.contains("start"), "{}", finished.stderr);
}
