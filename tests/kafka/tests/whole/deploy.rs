//! Deploys by a saved file while order lines flow: one runtime, a consumer at least once and one
//! exactly once, both of the same lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka_tools::{KafkaRecord, KafkaTools};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::step;
use millstream_test_support::{kafka, plugins};

use super::order_lines;
use super::retail::kafka_sees_no_lag;
use super::setup::{self, Names, PARTITIONS, PATIENCE};
use super::soak::cycle;
use super::verify::{Expected, Promise};

/// How often another version takes over.
const SWAPS: usize = 5;
/// Lines that are fed at a time.
const CHUNK: usize = 100;

/// The settings of `enrich`.
const SETTINGS: &str = "config = { currency = \"GBP\", alert_above = 10000 }";

/// What the calculation of the lines expects, and `enrich` writes as it is told.
const CURRENCY: &str = "\"GBP\"";

/// A consumer that stands or falls with its promise.
struct Side {
    promise: Promise,
    names: Names,
    /// Further TOML that stays.
    more: &'static str,
}

struct Stage {
    kafka: &'static KafkaTools,
    site: Site,
    source: String,
}

impl Stage {
    fn new(kafka: &'static KafkaTools) -> Result<Self> {
        let source = setup::fresh("deploy-lines");
        kafka.create_topic(&source, PARTITIONS)?;
        Ok(Self {
            kafka,
            site: setup::site(kafka.bootstrap(), "")?,
            source,
        })
    }

    fn side(&self, promise: Promise, more: &'static str) -> Result<Side> {
        let names = Names {
            source: self.source.clone(),
            ..Names::fresh(&format!("deploy-{}", promise.delivery()))
        };
        names.create_outputs(self.kafka)?;
        Ok(Side {
            promise,
            names,
            more,
        })
    }

    /// A component that does what `of` does; each number has another digest.
    fn built(&self, of: &str, number: u8) -> Result<PathBuf> {
        let mut component = fs::read(plugins::component(of)?)?;
        // A custom section of one byte behind its name of one letter.
        component.extend([0, 3, 1, b'x', number]);
        self.site.write(&format!("{of}-{number}.wasm"), &component)
    }

    /// Puts a configuration of these consumers in place.
    fn save(&self, consumers: &str) -> Result<()> {
        setup::configure(&self.site, consumers)
    }

    /// Feeds lines while `work` goes on, which sees how many there are; returns how many there were.
    fn feeding(
        &self,
        lines: &[order_lines::Line],
        from: usize,
        work: impl FnOnce(&AtomicUsize) -> Result<()>,
    ) -> Result<usize> {
        let (fed, enough) = (AtomicUsize::new(from), AtomicBool::new(false));
        thread::scope(|scope| {
            let feeder = scope.spawn(|| -> Result<()> {
                while !enough.load(Ordering::Acquire) {
                    let chunk = cycle(lines, fed.load(Ordering::Acquire), CHUNK);
                    setup::produce(self.kafka, &self.source, &chunk)?;
                    fed.fetch_add(CHUNK, Ordering::AcqRel);
                    step();
                }
                Ok(())
            });
            let worked = work(&fed);
            enough.store(true, Ordering::Release);
            let fed = feeder.join().ok().context("the feeder panicked")?;
            worked.and(fed)
        })?;
        Ok(fed.load(Ordering::Acquire))
    }
}

impl Side {
    fn name(&self) -> &'static str {
        self.promise.delivery()
    }

    /// The consumer with this plugin, which writes this currency.
    fn consumer(&self, plugin: &Path, currency: &str) -> Result<String> {
        let delivery = self.promise.delivery();
        let consumer = self.names.consumer_called(
            self.name(),
            &format!("[\"{}\"]", self.names.source),
            &format!("delivery = \"{delivery}\"\n{}", self.more),
        )?;
        let shipped = plugins::component("enrich")?.display().to_string();
        Ok(consumer
            .replace(&shipped, &plugin.display().to_string())
            .replace(CURRENCY, &format!("\"{currency}\"")))
    }

    fn settled(&self, scrape: &Scrape) -> usize {
        let of = [("consumer", self.name())];
        scrape.sum("millstream_events_settled_total", &of) as usize
    }

    /// Nothing is lost, repeated or out of order, and each key went from one version to the next and
    /// never back; `versions` are their currencies.
    fn check(
        &self,
        kafka: &KafkaTools,
        lines: &[order_lines::Line],
        fed: usize,
        versions: &[String],
    ) -> Result<()> {
        let name = self.name();
        let topics = [
            &self.names.orders,
            &self.names.large,
            &self.names.dead_letters,
        ];
        let mut read = thread::scope(|scope| {
            // At once, for most of a reader's time is its start.
            let readers = topics.map(|topic| scope.spawn(|| kafka.read_committed_to_mark(topic)));
            let join = |reader: thread::ScopedJoinHandle<'_, Result<Vec<KafkaRecord>>>| {
                reader.join().ok().context("a reader panicked")?
            };
            readers.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        for (topic, records) in topics.iter().zip(&mut read[..2]) {
            let seen = in_turn(records, versions).with_context(|| name.to_owned())?;
            // Few lines are large ones: a version may have met none.
            ensure!(
                **topic == self.names.large || seen.len() == versions.len(),
                "{name}: of {} versions only {seen:?} were at work",
                versions.len()
            );
        }
        let expected = Expected::of(&cycle(lines, 0, fed));
        let outcome = self.promise.kept_in(&read, name, &expected);
        let tally = outcome.with_context(|| name.to_owned())?.tally;
        ensure!(
            tally.repeats == 0,
            "{name}: {} repeats though nothing failed",
            tally.repeats
        );
        kafka_sees_no_lag(kafka, &self.names)
    }
}

/// Checks that the versions of each key's events follow one another, and makes the events those of the
/// version that the calculation knows. Returns the versions that were at work.
fn in_turn(records: &mut [KafkaRecord], versions: &[String]) -> Result<BTreeSet<usize>> {
    let mut last = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in records {
        let text = record.value_text();
        let version = versions
            .iter()
            .position(|currency| text.contains(&format!("\"{currency}\"")))
            .with_context(|| format!("of no version: {text}"))?;
        seen.insert(version);
        let before = last.insert(record.key_text(), version);
        ensure!(
            before <= Some(version),
            "version {before:?} was at work before {version}: {record:?}"
        );
        let quoted = format!("\"{}\"", versions[version]);
        record.value = Some(text.replace(&quoted, CURRENCY).into_bytes());
    }
    Ok(seen)
}

fn until_generation(runtime: &mut Running, number: usize) -> Result<()> {
    let what = format!("at configuration {number}");
    runtime.until_scrape(&what, PATIENCE, |scrape| {
        scrape.sum("millstream_config_generation", &[]) >= number as f64
    })
}

fn until_deployed(runtime: &mut Running, side: &Side, result: &str) -> Result<()> {
    let of = [("consumer", side.name()), ("result", result)];
    runtime.until_scrape(&format!("{}: {result}", side.name()), PATIENCE, |scrape| {
        scrape.sum("millstream_deploys_total", &of) > 0.5
    })
}

/// Waits until each of these consumers has settled more events than `fed`.
fn until_past(runtime: &mut Running, sides: &[Side], fed: usize) -> Result<()> {
    runtime.until_scrape(&format!("past {fed} events"), PATIENCE, |scrape| {
        sides.iter().all(|side| side.settled(scrape) > fed)
    })
}

/// Waits until each has its partitions, so that what is assigned later is a rebalance.
fn until_joined(runtime: &mut Running, sides: &[Side]) -> Result<()> {
    let all = f64::from(PARTITIONS) * sides.len() as f64;
    runtime.until_scrape("given all partitions", PATIENCE, |scrape| {
        scrape.sum("millstream_assigned_partitions", &[]) >= all
    })
}

fn rebalances(runtime: &Running) -> Result<u64> {
    let scrape = runtime.scrape()?;
    scrape.check_accounting()?;
    Ok(scrape.sum("millstream_rebalances_total", &[]) as u64)
}

/// Ends a runtime that must have had no rebalance since there were `before`.
fn end_unmoved(runtime: Running, before: u64) -> Result<()> {
    let after = rebalances(&runtime)?;
    ensure!(before == after, "{} rebalances", after - before);
    end(runtime)
}

fn end(mut runtime: Running) -> Result<()> {
    runtime.terminate()?;
    runtime.succeed(PATIENCE)
}

/// A swap that drops what is in flight, writes it again, lets the old version go on beside the new
/// one, or leaves the group, shows here.
#[test]
fn versions_are_swapped_while_lines_flow_and_no_reader_notices() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let stage = Stage::new(kafka)?;
    let sides = [
        stage.side(Promise::AtLeast, "")?,
        stage.side(Promise::Exactly, "ordering = \"key\"")?,
    ];
    let builds = [stage.built("enrich", 1)?, stage.built("enrich", 2)?];
    let versions: Vec<String> = (0..=SWAPS).map(|n| format!("CU{n}")).collect();
    let save = |number: usize| -> Result<()> {
        let of = |side: &Side| side.consumer(&builds[number % 2], &versions[number]);
        let consumers = sides.iter().map(of).collect::<Result<String>>()?;
        stage.save(&consumers)
    };
    let lines = order_lines::mixed()?;
    save(0)?;
    let mut runtime = stage.site.start(&[])?;
    until_joined(&mut runtime, &sides)?;
    let before = rebalances(&runtime)?;
    let fed = stage.feeding(&lines, 0, |fed| {
        until_past(&mut runtime, &sides, 0)?;
        for number in 1..=SWAPS {
            save(number)?;
            until_generation(&mut runtime, number + 1)?;
            // Both handle what came after that.
            let now = fed.load(Ordering::Acquire);
            until_past(&mut runtime, &sides, now + CHUNK)?;
        }
        Ok(())
    })?;
    until_past(&mut runtime, &sides, fed - 1)?;
    end_unmoved(runtime, before)?;
    for side in &sides {
        side.check(kafka, &lines, fed, &versions)?;
    }
    Ok(())
}

/// The plugin of somebody else rejects every line: dead letters of it, or a position that passed what
/// it failed, would be a loss.
#[test]
fn a_wrong_plugin_is_taken_back_and_its_events_come_out_as_ever() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let stage = Stage::new(kafka)?;
    let sides = [
        stage.side(Promise::AtLeast, "deploy = { probation = \"10m\" }")?,
        stage.side(
            Promise::Exactly,
            "ordering = \"key\"\ndeploy = { probation = \"10m\" }",
        )?,
    ];
    let versions = ["GBP".to_owned()];
    let consumers = |plugin: &Path| -> Result<String> {
        let of = |side: &Side| side.consumer(plugin, &versions[0]);
        sides.iter().map(of).collect()
    };
    let lines = order_lines::mixed()?;
    stage.save(&consumers(&stage.built("enrich", 1)?)?)?;
    let mut runtime = stage.site.start(&[])?;
    until_joined(&mut runtime, &sides)?;
    let before = rebalances(&runtime)?;
    let fed = stage.feeding(&lines, 0, |fed| {
        until_past(&mut runtime, &sides, CHUNK)?;
        let wrong = consumers(&stage.built("millstream-bench-q22", 2)?)?;
        // It would refuse a configuration before it takes over.
        stage.save(&wrong.replace(SETTINGS, ""))?;
        for side in &sides {
            until_deployed(&mut runtime, side, "rolled_back")?;
        }
        let now = fed.load(Ordering::Acquire);
        until_past(&mut runtime, &sides, now + CHUNK)
    })?;
    until_past(&mut runtime, &sides, fed - 1)?;
    let drifts = runtime.scrape()?.sum("millstream_config_drift", &[]);
    ensure!(drifts as usize == sides.len(), "{drifts} consumers drift");
    end_unmoved(runtime, before)?;
    for side in &sides {
        side.check(kafka, &lines, fed, &versions)?;
    }
    Ok(())
}

/// What changes order or guarantee drains first; a consumer that is gone and named again goes on
/// where its group stands.
#[test]
fn consumers_come_go_and_change_their_guarantee_while_lines_flow() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let stage = Stage::new(kafka)?;
    let sides = [
        stage.side(Promise::AtLeast, "")?,
        stage.side(Promise::Exactly, "")?,
    ];
    let plugin = stage.built("enrich", 1)?;
    let [first, second] = &sides;
    let versions = ["GBP".to_owned()];
    let alone = first.consumer(&plugin, "GBP")?;
    let other = second.consumer(&plugin, "GBP")?;
    let exactly = alone.replace(
        "delivery = \"at-least-once\"",
        "delivery = \"exactly-once\"",
    );
    let by_key = format!("{exactly}ordering = \"key\"\n");
    let lines = order_lines::mixed()?;
    stage.save(&alone)?;
    let mut runtime = stage.site.start(&[])?;
    let fed = stage.feeding(&lines, 0, |fed| {
        until_past(&mut runtime, &sides[..1], CHUNK)?;
        for (number, consumers) in (2..).zip([&alone, &exactly, &by_key]) {
            stage.save(&format!("{consumers}{other}"))?;
            until_generation(&mut runtime, number)?;
            let now = fed.load(Ordering::Acquire);
            until_past(&mut runtime, &sides, now + CHUNK)?;
        }
        stage.save(&by_key)?;
        until_generation(&mut runtime, 5)?;
        let (_, consumers) = runtime.get("/api/v1/consumers")?;
        ensure!(
            !consumers.contains(&format!("\"{}\"", second.name())),
            "{consumers}"
        );
        let now = fed.load(Ordering::Acquire);
        until_past(&mut runtime, &sides[..1], now + CHUNK)
    })?;
    stage.save(&format!("{by_key}{other}"))?;
    until_generation(&mut runtime, 6)?;
    setup::until_no_lag(&stage.site, &mut runtime)?;
    end(runtime)?;
    for side in &sides {
        side.check(kafka, &lines, fed, &versions)?;
    }
    Ok(())
}
