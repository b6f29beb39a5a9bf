//! A cluster, two runtimes with a consumer of each guarantee, and lines that flow.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::cluster::Cluster;
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::{Deadline, eventually, step};

use super::super::order_lines::{self, Line};
use super::super::outcome::Outcome;
use super::super::setup::{self, Names, PARTITIONS, PATIENCE};
use super::super::verify::{Expected, Promise};

/// So many lines are fed at once, and so often.
pub const CHUNK: usize = 100;
const PACE: Duration = Duration::from_millis(200);

/// A consumer of the runtimes.
#[derive(Clone, Debug)]
pub struct Guarded {
    pub promise: Promise,
    pub names: Names,
}

/// All that takes part.
pub struct Arena {
    pub cluster: Cluster,
    pub consumers: Vec<Guarded>,
    /// Of the first runtime, which keeps its identity over restarts.
    pub instance: String,
    pub sites: Vec<Site>,
    pub runtimes: Vec<Running>,
    /// Of a runtime that comes and goes.
    pub third: Site,
    /// Past the proxies.
    direct: Site,
    lines: Vec<Line>,
    fed: usize,
}

impl Arena {
    /// Starts two runtimes on a cluster, with consumers of these promises, and waits until both are
    /// at work.
    pub fn start(cluster: Cluster, promises: &[Promise]) -> Result<Self> {
        let source = Names::fresh("faults").source;
        let consumers: Vec<Guarded> = (promises.iter())
            .map(|promise| Guarded {
                promise: *promise,
                names: Names {
                    source: source.clone(),
                    ..Names::fresh(&format!("faults-{}", promise.delivery()))
                },
            })
            .collect();
        cluster.tools().create_topic(&source, PARTITIONS)?;
        let mut configured = String::new();
        for consumer in &consumers {
            consumer.names.create_outputs(cluster.tools())?;
            configured += &consumer.names.consumer_called(
                consumer.promise.delivery(),
                &format!("[\"{source}\"]"),
                &format!(
                    "delivery = \"{}\"\nordering = \"key\"\nin_flight = {{ max_events = 4000 }}\n\
                     commit = {{ interval = \"50ms\" }}",
                    consumer.promise.delivery()
                ),
            )?;
        }
        let instance = setup::fresh("one");
        let named = format!("[runtime]\ninstance = \"{instance}\"\n{configured}");
        let sites = vec![
            setup::site(&cluster.bootstrap(), &named)?,
            setup::site(&cluster.bootstrap(), &configured)?,
        ];
        let third = setup::site(&cluster.bootstrap(), &configured)?;
        let direct = setup::site(cluster.tools().bootstrap(), &configured)?;
        let mut runtimes = Vec::new();
        for site in &sites {
            runtimes.push(site.start(&[])?);
        }
        let mut arena = Self {
            cluster,
            consumers,
            instance,
            sites,
            runtimes,
            third,
            direct,
            lines: order_lines::mixed()?,
            fed: 0,
        };
        // Coordinators exist once a first transaction is made.
        arena.feed_until(1, |_| Ok(()))?;
        arena.until_calm()?;
        Ok(arena)
    }

    /// Feeds lines while `deed` lasts, which begins when `head_start` have been fed. Returns how
    /// many lines came.
    pub fn feed_until(
        &mut self,
        head_start: usize,
        deed: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<usize> {
        let (tools, lines) = (self.cluster.tools().clone(), self.lines.clone());
        let (source, from) = (self.consumers[0].names.source.clone(), self.fed);
        let (stop, fed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (done, fed_by) = thread::scope(|scope| {
            let feeder = scope.spawn(|| feed(&tools, &source, &lines, from, &fed, &stop));
            let begun = eventually("lines are fed", PATIENCE, || {
                fed.load(Ordering::Acquire) >= head_start || feeder.is_finished()
            });
            let done = begun.and_then(|()| deed(self));
            stop.store(true, Ordering::Release);
            let fed_by = feeder.join().ok().context("the feeder panicked");
            (done, fed_by)
        });
        let fed = fed.load(Ordering::Acquire);
        self.fed += fed;
        done?;
        fed_by??;
        Ok(fed)
    }

    /// Waits until all is settled and committed, every partition of every consumer is taken, and
    /// both runtimes say that they are ready. Each scrape must account for every event.
    pub fn until_calm(&mut self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let unrest = self.unrest()?;
            let Some(unrest) = unrest else {
                return Ok(());
            };
            ensure!(!deadline.passed(), "after {PATIENCE:?} still: {unrest}");
            step();
        }
    }

    /// What is not as it should be when nothing fails.
    fn unrest(&mut self) -> Result<Option<String>> {
        let mut assigned = 0.0;
        for (at, runtime) in self.runtimes.iter_mut().enumerate() {
            ensure!(runtime.running(), "runtime {at} has ended by itself");
            let Ok(scrape) = runtime.scrape() else {
                return Ok(Some(format!("runtime {at} does not answer")));
            };
            scrape.check_accounting()?;
            let violated = scrape.sum("millstream_invariant_violations_total", &[]);
            ensure!(violated < 0.5, "runtime {at} counts {violated} violations");
            assigned += scrape.sum("millstream_assigned_partitions", &[]);
            match runtime.get("/readyz") {
                Ok((200, _)) => {}
                Ok((_, said)) => return Ok(Some(format!("runtime {at} is not ready: {said}"))),
                Err(error) => return Ok(Some(format!("runtime {at}: {error}"))),
            }
        }
        let wanted = f64::from(PARTITIONS) * self.consumers.len() as f64;
        if (assigned - wanted).abs() > 0.5 {
            return Ok(Some(format!("{assigned} of {wanted} partitions are taken")));
        }
        Ok(match setup::lag(&self.direct) {
            Ok(0) => None,
            Ok(lag) => Some(format!("{lag} events are not committed")),
            Err(error) => Some(format!("no lag: {error:#}")),
        })
    }

    /// Ends both runtimes in order, and compares what the topics hold with what must come.
    pub fn finish(&mut self) -> Result<Vec<Outcome>> {
        for runtime in &mut self.runtimes {
            runtime.terminate()?;
            runtime.succeed(PATIENCE)?;
        }
        ensure!(setup::lag(&self.direct)? == 0, "not all is committed");
        let fed: Vec<Line> = self.lines.iter().cycle().take(self.fed).cloned().collect();
        let expected = Expected::of(&fed);
        let tools = self.cluster.tools();
        thread::scope(|scope| {
            let judges: Vec<_> = (self.consumers.iter())
                .map(|consumer| scope.spawn(|| judge(tools, consumer, &expected)))
                .collect();
            let outcome = |judge: thread::ScopedJoinHandle<'_, Result<Outcome>>| {
                judge.join().ok().context("a judge panicked")?
            };
            judges.into_iter().map(outcome).collect()
        })
    }

    /// What runtimes and nodes have logged, by a name for each.
    pub fn logs(&mut self) -> Vec<(String, String)> {
        let mut logs: Vec<(String, String)> = (self.runtimes.iter().enumerate())
            .map(|(at, runtime)| (format!("runtime-{at}.log"), runtime.logs()))
            .collect();
        for (at, node) in self.cluster.nodes().iter().enumerate() {
            let text = std::fs::read(node.log()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            logs.push((format!("kafka-{at}.log"), text));
        }
        for (at, runtime) in self.runtimes.iter().enumerate() {
            if let Ok((_, consumers)) = runtime.get("/api/v1/consumers") {
                logs.push((format!("consumers-{at}.json"), consumers));
            }
            if let Ok((_, metrics)) = runtime.get("/metrics") {
                logs.push((format!("metrics-{at}.txt"), metrics));
            }
        }
        logs
    }
}

/// Reads a consumer's topics with Kafka's reader of committed events.
fn judge(tools: &KafkaTools, consumer: &Guarded, expected: &Expected) -> Result<Outcome> {
    let promise = consumer.promise;
    let name = promise.delivery();
    promise
        .kept(tools, &consumer.names, name, expected)
        .with_context(|| format!("{name} is not kept"))
}

/// Feeds chunks at a steady pace, counting those that the broker has, until told to stop.
fn feed(
    tools: &KafkaTools,
    source: &str,
    lines: &[Line],
    from: usize,
    fed: &AtomicUsize,
    stop: &AtomicBool,
) -> Result<()> {
    loop {
        let pace = Deadline::after(PACE);
        let at = from + fed.load(Ordering::Acquire);
        let chunk: Vec<Line> = (lines.iter().cycle())
            .skip(at % lines.len())
            .take(CHUNK)
            .cloned()
            .collect();
        setup::produce(tools, source, &chunk)?;
        fed.fetch_add(CHUNK, Ordering::AcqRel);
        while !pace.passed() {
            step();
        }
        if stop.load(Ordering::Acquire) {
            return Ok(());
        }
    }
}
