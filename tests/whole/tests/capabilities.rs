//! Capabilities from outside: what a plugin reaches of the world, and what is seen of it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::certificates::{Authority, Issued};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::origin::Origin;
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::eventually;
use millstream_test_support::web::{Reply, Web};
use millstream_test_support::{plugins, ports};
use millstream_whole_tests::{events, setting};

const PATIENCE: Duration = Duration::from_secs(120);
const HUNTER: &str = "hunter2-and-a-half";

/// A consumer of `wishes` that runs the plugin `capable`, with this TOML in addition.
fn consumer(name: &str, more: &str) -> Result<String> {
    Ok(format!(
        "[[consumer]]\nname = \"{name}\"\nplugin = {:?}\ntopics = [\"wishes\"]\n\
         start = \"beginning\"\noutputs = {{ default = {{ topic = \"{name}-answers\", partitions = 1 }} }}\n{more}\n",
        plugins::component("capable")?.display().to_string()
    ))
}

/// Values of a topic in the order of their partition.
fn values(site: &Site, topic: &str) -> Result<Vec<String>> {
    let events = events::all(site, topic)?;
    Ok(events.into_iter().filter_map(|event| event.value).collect())
}

fn results(scrape: &Scrape, result: &str) -> f64 {
    scrape.sum(
        "millstream_plugin_http_requests_total",
        &[("result", result)],
    )
}

fn until_answers(
    site: &Site,
    running: &mut Running,
    name: &str,
    count: usize,
) -> Result<Vec<String>> {
    running.until_scrape("answered", PATIENCE, |scrape| {
        scrape.sum("millstream_events_produced_total", &[("consumer", name)]) >= count as f64
    })?;
    let topic = format!("{name}-answers");
    eventually("all of them can be read", PATIENCE, || {
        values(site, &topic).is_ok_and(|values| values.len() >= count)
    })?;
    values(site, &topic)
}

/// Two consumers of the same events: what one is granted the other has not.
#[test]
fn a_consumer_has_what_it_is_granted_and_no_more() -> Result<()> {
    let origin = Origin::start()?;
    let mut site = Site::new()?;
    // A request that asked this one would go nowhere.
    let proxy = format!("http://127.0.0.1:{}", ports::free_port()?);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        site.set(name, &proxy);
    }
    site.set("REGION", "eu-north");
    site.set("HUNTER", HUNTER);
    site.write("api-key", b"first-key\n")?;
    let one = consumer(
        "granted",
        &format!(
            "capabilities = {{ http = [\"{}\"], env = [\"REGION\"], secrets = true }}\n\
             secrets = {{ api_key = {{ file = \"api-key\" }}, hunter = {{ env = \"HUNTER\" }} }}\n",
            origin.address()
        ),
    )?;
    let other = consumer(
        "other",
        "capabilities = { http = [\"api.example.com\"], secrets = true }\n",
    )?;
    let topic = setting::topic("wishes", 1);
    site.configure(&format!("{}\n{topic}{one}{other}", setting::head(&site)))?;
    let lines = format!(
        "a\tget {}\nb\tvariables\nc\tsecret api_key\nd\tget-many 3 {}?\n",
        origin.url("/echo"),
        origin.url("/status/204")
    );
    setting::produce(&site, "wishes", &lines, &["-p", "0"])?;
    let mut running = site.start(&[])?;
    let answers = until_answers(&site, &mut running, "granted", 4)?;
    ensure!(answers.len() >= 4, "{answers:?}");
    ensure!(answers[0].starts_with("200 GET /echo"), "{}", answers[0]);
    ensure!(answers[1] == "REGION=eu-north", "{}", answers[1]);
    ensure!(answers[2] == "first-key", "{}", answers[2]);
    ensure!(answers[3] == "204 \n204 \n204 ", "{}", answers[3]);

    // Rotated as Kubernetes and most agents do it: another file in its place.
    let rotated = site.write("api-key.new", b"other-key\n")?;
    fs::rename(rotated, site.path().join("api-key"))?;
    setting::produce(&site, "wishes", "e\tsecret api_key\n", &["-p", "0"])?;
    eventually("the new secret", PATIENCE, || {
        values(&site, "granted-answers")
            .is_ok_and(|seen| seen.last().is_some_and(|last| last == "other-key"))
    })?;

    // It has no secret of that name, so it stopped there; before, it saw nothing of the other's.
    let answers = values(&site, "other-answers")?;
    ensure!(answers.len() == 2, "{answers:?}");
    ensure!(answers[0].starts_with("Denied("), "{}", answers[0]);
    ensure!(answers[1].is_empty(), "{}", answers[1]);

    let scrape = running.scrape()?;
    ensure!(results(&scrape, "answered") == 4.0 && results(&scrape, "denied") == 1.0);
    let shown = site.succeed(&["config", "show", "--resolved"])?;
    ensure!(
        shown.contains("env = \"HUNTER\"") && shown.contains("REGION"),
        "{shown}"
    );
    let everywhere = [shown, site.succeed(&["config", "show"])?, running.logs()];
    for text in everywhere {
        for secret in [HUNTER, "first-key", "other-key"] {
            ensure!(!text.contains(secret), "a secret is shown: {text}");
        }
    }
    ensure!(
        running
            .logs()
            .contains("a request of the plugin was denied"),
        "the operator is not told: {}",
        running.logs()
    );
    Ok(())
}

/// While the other side is down events wait, however long; when it is back they get through.
#[test]
fn an_outage_of_the_other_side_costs_no_event() -> Result<()> {
    let port = ports::free_port()?;
    let more = format!(
        "capabilities = {{ http = [\"127.0.0.1:{port}\"], secrets = true }}\n\
         dead_letter = {{ topic = \"wishes.dlq\" }}\n\
         retry = {{ max_attempts = 2, initial = \"10ms\" }}\n\
         circuit_breaker = {{ open_for = \"200ms\" }}\n"
    );
    let site = setting::site(&format!(
        "{}{}",
        setting::topic("wishes", 1),
        consumer("c", &more)?
    ))?;
    let lines: String = (0..5)
        .map(|number| format!("k\tfetch http://127.0.0.1:{port}/echo/{number}\n"))
        .collect();
    setting::produce(&site, "wishes", &lines, &[])?;
    let mut running = site.start(&[])?;
    running.until_scrape("tried again and again", PATIENCE, |scrape| {
        let opened = scrape.sum("millstream_breaker_transitions_total", &[("to", "open")]);
        results(scrape, "unreachable") >= 5.0 && opened >= 5.0
    })?;
    let origin = Origin::start_at(port)?;
    let answers = until_answers(&site, &mut running, "c", 5)?;
    for (number, answer) in answers.iter().enumerate() {
        ensure!(
            answer.starts_with(&format!("GET /echo/{number} ")),
            "{answer}"
        );
    }
    ensure!(answers.len() == 5 && origin.requests() == 5, "{answers:?}");
    let dead = running.scrape()?.sum("millstream_dead_letters_total", &[]);
    ensure!(dead == 0.0, "{dead} events were given up");
    Ok(())
}

/// The answer that the plugin gets from a server with this certificate, on a machine that trusts `ca`.
fn over_tls(issued: &Issued, ca: &Authority) -> Result<String> {
    let web = Web::start(Some(issued.server()?), |request| {
        Reply::new(200, format!("told {}", request.path))
    })?;
    let granted = format!(
        "capabilities = {{ http = [\"{}\"], secrets = true }}\n",
        web.authority()
    );
    let mut site = setting::site(&format!(
        "{}{}",
        setting::topic("wishes", 1),
        consumer("c", &granted)?
    ))?;
    let trusted = site.write("trusted.pem", ca.pem().as_bytes())?;
    site.set("SSL_CERT_FILE", trusted);
    let line = format!("k\tget {}\n", web.url("/over-tls"));
    setting::produce(&site, "wishes", &line, &[])?;
    setting::until_idle(&site)?;
    let answers = values(&site, "c-answers")?;
    ensure!(answers.len() == 1, "{answers:?}");
    let asked = web.asked("/over-tls") == 1;
    ensure!(asked == answers[0].starts_with("200"), "{}", answers[0]);
    Ok(answers[0].clone())
}

/// A secret that a plugin sends must reach whom the operator named, and nobody who took the place.
#[test]
fn requests_over_tls_reach_whom_the_machine_trusts_and_nobody_else() -> Result<()> {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let (own, other) = (
        authority.issue(&["127.0.0.1"])?,
        authority.issue(&["other.test"])?,
    );
    let answer = over_tls(&own, &authority)?;
    ensure!(answer == "200 told /over-tls", "{answer}");
    for (issued, ca) in [(&own, &stranger), (&other, &authority)] {
        let answer = over_tls(issued, ca)?;
        ensure!(
            answer.starts_with("Unreachable(")
                && answer.contains("certificate of the server is refused"),
            "{answer}"
        );
    }
    Ok(())
}

/// `validate` needs no run, and what it says can be pasted.
#[test]
fn a_missing_grant_is_told_with_its_place() -> Result<()> {
    let site = setting::site(&consumer("c", "capabilities = { clock = true }\n")?)?;
    let line = "capabilities = { http = [\"api.example.com:443\"], clock = true, secrets = true }";
    for command in [&["validate"][..], &["run"]] {
        let finished = setting::fail(&site, 78, command)?;
        // As wide as the terminal is, its words are elsewhere in the lines.
        let told = finished.stderr + &finished.stdout;
        let told: String = told.split_whitespace().collect();
        let wanted: String = line.split_whitespace().collect();
        ensure!(
            told.replace('│', "").contains(&wanted) && told.contains("plugin/http@0.1.0"),
            "{command:?} says {told}"
        );
    }
    site.configure(&format!(
        "{}\n{}",
        setting::head(&site),
        consumer("c", &format!("{line}\n"))?
    ))?;
    site.succeed(&["validate"])?;
    let shown = site.succeed(&[
        "plugin",
        "inspect",
        &plugins::component("capable")?.display().to_string(),
    ])?;
    ensure!(shown.contains("the capability `http`"), "{shown}");
    Ok(())
}

/// What a fresh runtime makes of the same events.
fn wandered(capabilities: &str) -> Result<Vec<events::Event>> {
    // Alike in both runs: which events share a call, and which calls an instance.
    let more = format!(
        "capabilities = {{ http = [\"a.test\"], secrets = true{capabilities} }}\n\
         concurrency = 1\nbatch = {{ max_events = 1 }}\n"
    );
    let site = setting::site(&format!(
        "{}{}",
        setting::topic("wishes", 1),
        consumer("c", &more)?
    ))?;
    let lines: String = (0..20)
        .map(|number| {
            let timestamp = 1_700_000_000_000_u64 + number;
            format!("{{\"key\":\"k\",\"value\":\"wander {number}\",\"timestamp\":{timestamp}}}\n")
        })
        .collect();
    let file = site.write("wishes.jsonl", lines.as_bytes())?;
    let file = file.to_str().context("a path that is not UTF-8")?;
    site.succeed(&["produce", "wishes", "--json", "--file", file])?;
    setting::until_idle(&site)?;
    let seen = events::all(&site, "c-answers")?;
    ensure!(seen.len() == 20, "{seen:?}");
    Ok(seen)
}

/// Of two processes, byte for byte.
#[test]
fn a_run_is_repeated_byte_for_byte_unless_time_or_chance_is_granted() -> Result<()> {
    let (one, other) = (wandered("")?, wandered("")?);
    let differing = one.iter().zip(&other).find(|(one, other)| {
        (&one.key, &one.value, one.timestamp) != (&other.key, &other.value, other.timestamp)
    });
    ensure!(differing.is_none(), "{differing:?}");
    for granted in [", clock = true", ", random = true"] {
        let (one, other) = (wandered(granted)?, wandered(granted)?);
        let same = one
            .iter()
            .zip(&other)
            .filter(|(one, other)| one.value == other.value);
        ensure!(same.count() == 0, "{granted}: {one:?}");
    }
    Ok(())
}
