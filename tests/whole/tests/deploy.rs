//! Deploys while events flow: by a saved file, a swapped symlink, SIGHUP and HTTP.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Result, ensure};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::plugins;
use millstream_test_support::process::{Answer, Running, Site, post};
use millstream_whole_tests::events;
use millstream_whole_tests::flow::{
    PARTITIONS, PATIENCE, Producer, check_swaps, configuration, enrich, generations, line,
    until_generation, until_settled,
};

const DEPLOYS: usize = 8;

/// What is answered to the wish to reload.
fn reload(site: &Site) -> Result<Answer> {
    let json = ("content-type", "application/json");
    post(&site.admin(), "/-/reload", &[json], "")
}

/// A swap that loses what is in flight, makes a call with the old version after the new one took
/// over, or lets the group rebalance, shows here.
#[test]
fn versions_are_swapped_by_saving_the_file_and_no_event_notices() -> Result<()> {
    let site = Site::new()?;
    let currencies: Vec<String> = (0..=DEPLOYS).map(|n| format!("CU{n}")).collect();
    let save =
        |currency: &str| site.configure(&configuration(&site, &enrich("enrich", currency, "")?));
    save(&currencies[0])?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let producer = Producer::start(&site);
    for (number, currency) in currencies.iter().enumerate().skip(1) {
        let before = running
            .scrape()?
            .sum("millstream_events_settled_total", &[]);
        save(currency)?;
        until_generation(&mut running, number + 1)?;
        running.until_scrape("going on", PATIENCE, |scrape| {
            scrape.sum("millstream_events_settled_total", &[]) > before
        })?;
    }
    let lines = producer.finish()?;
    until_settled(&mut running, "enrich", lines)?;
    let scrape = running.scrape()?;
    scrape.check_accounting()?;
    ensure!(scrape.sum("millstream_deploys_total", &[("result", "ok")]) == 1.0 + DEPLOYS as f64);
    let assigned = running.logs().matches("partition assigned").count();
    // Its own topic, and nothing else: a rebalance would assign anew.
    ensure!(assigned == PARTITIONS, "{assigned} assignments");
    running.terminate()?;
    running.succeed(PATIENCE)?;
    check_swaps(&site, "enrich-orders", lines, &currencies)
}

/// What changes the guarantee drains first: nothing of the old settings is under way when the new
/// ones begin.
#[test]
fn consumers_are_added_removed_and_started_anew() -> Result<()> {
    let site = Site::new()?;
    let both = |more: &str| {
        let consumers = enrich("first", "EUR", more)? + &enrich("second", "EUR", "")?;
        site.configure(&configuration(&site, &consumers))
    };
    site.configure(&configuration(&site, &enrich("first", "EUR", "")?))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let producer = Producer::start(&site);
    both("")?;
    until_generation(&mut running, 2)?;
    both("delivery = \"exactly-once\"\ncommit = { interval = \"5ms\" }")?;
    until_generation(&mut running, 3)?;
    both("ordering = \"key\"")?;
    until_generation(&mut running, 4)?;
    let lines = producer.finish()?;
    for consumer in ["first", "second"] {
        until_settled(&mut running, consumer, lines)?;
    }
    site.configure(&configuration(&site, &enrich("second", "EUR", "")?))?;
    until_generation(&mut running, 5)?;
    let (_, consumers) = running.get("/api/v1/consumers")?;
    ensure!(
        !consumers.contains("\"first\"") && consumers.contains("\"second\""),
        "{consumers}"
    );
    let (_, metrics) = running.get("/metrics")?;
    ensure!(
        !metrics.contains("\"first\"") && metrics.contains("\"second\""),
        "figures of a consumer that is gone stay: {metrics}"
    );
    running.terminate()?;
    running.succeed(PATIENCE)?;
    for topic in ["first-orders", "second-orders"] {
        check_swaps(&site, topic, lines, &["EUR".to_owned()])?;
    }
    Ok(())
}

/// An operator who saves a mistake must find all goes on, and where the mistakes are.
#[test]
fn a_bad_file_changes_nothing_and_says_all_that_is_wrong() -> Result<()> {
    let site = Site::new()?;
    let good = configuration(&site, &enrich("enrich", "EUR", "")?);
    site.configure(&good)?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let bad = good.replace("ordering", "") + "orderign = \"key\"\nconcurrency = 0\n";
    site.configure(&bad)?;
    let successful = |scrape: &Scrape| scrape.sum("millstream_config_last_reload_successful", &[]);
    running.until_scrape("refusing", PATIENCE, |scrape| successful(scrape) == 0.0)?;
    let answer = reload(&site)?;
    ensure!(answer.status == 422, "{answer:?}");
    for wrong in ["orderign", "concurrency", "millstream.toml"] {
        ensure!(
            answer.body.contains(wrong),
            "{wrong} is not in {}",
            answer.body
        );
    }
    // A plugin that is none is found before anything changes, too.
    site.write("none.wasm", b"no component")?;
    site.configure(&configuration(
        &site,
        &enrich("enrich", "USD", "")?.replace(
            &format!("{:?}", plugins::component("enrich")?.display().to_string()),
            "\"none.wasm\"",
        ),
    ))?;
    let answer = reload(&site)?;
    ensure!(
        answer.status == 422 && answer.body.contains("none.wasm"),
        "{answer:?}"
    );
    let (status, answer) = running.post_lines("/topics/order-lines", &line(1))?;
    ensure!(status == 200, "{answer}");
    until_settled(&mut running, "enrich", 1)?;
    ensure!(generations(&running.scrape()?) == 1.0);

    site.configure(&good)?;
    running.hang_up()?;
    running.until_scrape("mended", PATIENCE, |scrape| successful(scrape) == 1.0)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    check_swaps(&site, "enrich-orders", 1, &["EUR".to_owned()])
}

/// Puts a plugin into the site that does what `enrich` does; each `build` has another digest.
fn build(site: &Site, build: u8) -> Result<()> {
    let mut component = fs::read(plugins::component("enrich")?)?;
    // A custom section of one byte behind its name of one letter.
    component.extend([0, 3, 1, b'x', build]);
    let staged = site.write("staged.wasm", &component)?;
    fs::rename(staged, site.path().join("built.wasm"))?;
    Ok(())
}

fn until_version(running: &mut Running, generation: &str) -> Result<()> {
    let what = format!("at generation {generation}");
    running.until_scrape(&what, PATIENCE, |scrape| {
        scrape.sum("millstream_plugin_info", &[("generation", generation)]) > 0.5
    })
}

/// A plugin that was built anew keeps its path: a comparison of configurations alone sees no change,
/// and neither does whoever watches the configuration's files.
#[test]
fn a_plugin_built_anew_is_deployed_when_asked_or_by_itself_with_watch() -> Result<()> {
    let site = Site::new()?;
    build(&site, 1)?;
    let shipped = format!("{:?}", plugins::component("enrich")?.display().to_string());
    let consumer = enrich("enrich", "EUR", "")?.replace(&shipped, "\"built.wasm\"");
    site.configure(&configuration(&site, &consumer))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    build(&site, 2)?;
    running.hang_up()?;
    until_version(&mut running, "2")?;
    build(&site, 3)?;
    let answer = reload(&site)?;
    ensure!(
        answer.status == 200 && answer.body.contains("plugin"),
        "{answer:?}"
    );
    until_version(&mut running, "3")?;
    running.post_lines("/topics/order-lines", &line(1))?;
    until_settled(&mut running, "enrich", 1)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;

    let mut watching = site.start(&["--watch"])?;
    watching.until_ready(PATIENCE)?;
    for (number, generation) in [(4, "2"), (5, "3")] {
        build(&site, number)?;
        until_version(&mut watching, generation)?;
    }
    watching.terminate()?;
    watching.succeed(PATIENCE)
}

/// Who writes a file in place empties it first: what reads it then would find no consumer, and remove
/// all of them.
#[test]
fn a_file_that_is_being_written_removes_nobody() -> Result<()> {
    let site = Site::new()?;
    let text = configuration(&site, &enrich("enrich", "EUR", "")?);
    site.configure(&text)?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    written_in_place(&site, &running, "millstream.toml", &text)?;

    // One that is included holds a consumer as well.
    let included = enrich("enrich", "EUR", "")?.replace("[[consumer]]", "[consumer]");
    site.write("consumers/enrich.toml", included.as_bytes())?;
    let main = configuration(&site, "");
    site.configure(&format!("include = [\"consumers/*.toml\"]\n{main}"))?;
    until_generation(&mut running, 2)?;
    written_in_place(&site, &running, "consumers/enrich.toml", &included)?;
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// A reload while this file is empty, and then whole again, changes nothing.
fn written_in_place(site: &Site, running: &Running, name: &str, text: &str) -> Result<()> {
    site.write(name, b"")?;
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| reload(site));
        // Answered by the same listener behind it, so the reload has begun.
        running.get("/healthz")?;
        let draft = site.write("draft", text.as_bytes())?;
        fs::rename(draft, site.path().join(name))?;
        asked
            .join()
            .map_err(|_| anyhow::anyhow!("the request panicked"))?
    })?;
    ensure!(
        answer.status == 200 && !answer.body.contains("remove"),
        "{answer:?}"
    );
    Ok(())
}

/// Kubernetes swaps a symlink to a folder; the file's own name never changes. Others edit the file that
/// a link leads to, in a folder of its own.
#[test]
fn a_swapped_symlink_is_a_new_file_and_so_is_an_edited_target() -> Result<()> {
    let site = Site::new()?;
    let write = |version: &str, currency: &str| -> Result<()> {
        let text = configuration(&site, &enrich("enrich", currency, "")?);
        site.write(&format!("{version}/millstream.toml"), text.as_bytes())?;
        Ok(())
    };
    let put = |version: &str, currency: &str| -> Result<()> {
        write(version, currency)?;
        let staged = site.path().join("..data_tmp");
        std::os::unix::fs::symlink(version, &staged)?;
        std::fs::rename(&staged, site.path().join("..data"))?;
        Ok(())
    };
    put("..one", "EUR")?;
    std::os::unix::fs::symlink(
        Path::new("..data/millstream.toml"),
        site.path().join("millstream.toml"),
    )?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    put("..two", "USD")?;
    until_generation(&mut running, 2)?;
    running.post_lines("/topics/order-lines", &line(1))?;
    until_settled(&mut running, "enrich", 1)?;
    write("..two", "GBP")?;
    until_generation(&mut running, 3)?;
    running.post_lines("/topics/order-lines", &line(2))?;
    until_settled(&mut running, "enrich", 2)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let orders = events::all(&site, "enrich-orders")?;
    let mut currencies = Vec::new();
    for order in &orders {
        currencies.push(order.json()?["currency"].clone());
    }
    currencies.sort_by_key(ToString::to_string);
    ensure!(currencies == ["GBP", "USD"], "{orders:?}");
    Ok(())
}
