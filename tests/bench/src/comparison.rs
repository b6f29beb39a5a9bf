//! The comparison: workload by workload, contenders in turn, on one Kafka.

use std::cell::Cell;
use std::path::Path;

use anyhow::{Context, Result};
use millstream_test_support::kafka::KafkaNode;

use crate::contender::{Contender, Job};
use crate::latency::{self, Route};
use crate::measure::{self, Figures};
use crate::report::Report;
use crate::topics;
use crate::workload::{Workload, expected};

/// Of every topic.
pub const PARTITIONS: u32 = 4;

/// What is compared.
pub struct Comparison<'a> {
    /// `None` where nothing is to be done on Kafka.
    pub node: Option<&'a KafkaNode>,
    pub folder: &'a Path,
    pub contenders: &'a [Contender],
    pub runs: u32,
    pub seed: u64,
    /// Whether the broker has worked before.
    pub warm: Cell<bool>,
}

impl<'a> Comparison<'a> {
    /// The Kafka of contenders that have none of their own.
    ///
    /// # Errors
    /// There is none.
    pub fn kafka(&self) -> Result<&'a KafkaNode> {
        self.node.context("there is no Kafka")
    }

    /// Lets each contender do a workload as often as is asked; about `asked` bids' work.
    ///
    /// # Errors
    /// A contender fails, or writes something else than it should.
    pub fn compare(&self, workload: Workload, asked: u64, report: &mut Report) -> Result<()> {
        let node = self.kafka()?;
        let kafka = node.tools();
        let broker = node.id().context("Kafka is not running")?;
        let events = workload.events(asked);
        let input = format!("{}-in", workload.name());
        eprintln!("{}: writing {events} events", workload.name());
        kafka.create_topic(&input, PARTITIONS)?;
        topics::fill(kafka, &input, workload.input(), self.seed, events)?;
        let expected = expected(workload, self.seed, events)?;
        // The broker's virtual machine compiles for many seconds, on the processors of whoever is
        // measured first. Who looks quickly does not wait for that.
        let cold = !self.warm.replace(true) && self.runs > 1;
        for run in u32::from(!cold)..=self.runs {
            let counts = run > 0;
            let does = |contender: &Contender| contender.does(workload);
            let mut order: Vec<Contender> = self.contenders.iter().copied().filter(does).collect();
            // Whoever goes first meets a colder machine: they take turns.
            if run % 2 == 0 {
                order.reverse();
            }
            for contender in order {
                let name = format!("{}-{}-{run}", contender.name(), workload.name());
                let letters = format!("{name}-dlq");
                for topic in [&name, &letters] {
                    kafka.create_topic(topic, PARTITIONS)?;
                }
                let groups = (0..workload.consumers()).map(|number| format!("{name}-{number}"));
                let job = Job {
                    workload,
                    bootstrap: node.bootstrap(),
                    groups: groups.collect(),
                    input: &input,
                    output: &name,
                    partitions: PARTITIONS,
                    events,
                    seed: self.seed,
                    folder: self.folder,
                };
                let measured = measure::measure(kafka, broker, contender, &job, expected)
                    .with_context(|| name.clone());
                for topic in [&name, &letters] {
                    kafka.delete_topic(topic)?;
                }
                match measured {
                    Ok(_) if !counts => eprintln!("{name}: not counted, the broker gets warm"),
                    Ok(figures) => {
                        tell(&name, &figures);
                        report.add(workload, contender, figures);
                    }
                    // What others do wrong is told, and no reason to throw all figures away.
                    Err(why) if contender.is_peer() => report.leave_out(contender, &why),
                    Err(why) => return Err(why),
                }
            }
        }
        kafka.delete_topic(&input)
    }

    /// Measures how long events take at a steady rate, straight through the broker of each contender
    /// and through itself.
    ///
    /// # Errors
    /// A contender fails, or not every event comes out.
    pub fn delays(&self, rate: u32, seconds: u32, report: &mut Report) -> Result<()> {
        for run in 0..self.runs {
            for route in Route::all(self.contenders) {
                let plan = latency::Plan {
                    route,
                    run,
                    rate,
                    seconds,
                    seed: self.seed,
                    folder: self.folder,
                };
                let delays = latency::measure(self.node, &plan).with_context(|| plan.name())?;
                eprintln!(
                    "{}, {rate} events/s: p50 {:.1}, p99 {:.1}, p99.9 {:.1} ms",
                    route.name(),
                    delays.p50,
                    delays.p99,
                    delays.p999
                );
                report.add_delays(rate, route, delays);
            }
        }
        Ok(())
    }
}

fn tell(name: &str, figures: &Figures) {
    eprintln!(
        "{name}: {:.0} events/s ({:.0} in the second half), {:.2} CPU s a million ({:.2}), \
         {:.0} MiB; Kafka {:.1} CPU s, others {:.1} CPU s",
        figures.events_per_second,
        figures.second_half_events_per_second,
        figures.cpu_seconds_per_million,
        figures.second_half_cpu_seconds_per_million,
        figures.max_resident_mib,
        figures.broker_cpu_seconds,
        figures.others_cpu_seconds
    );
}
