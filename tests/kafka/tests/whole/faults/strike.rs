//! What a fault does, and how it is healed.

use std::time::Duration;

use anyhow::{Result, ensure};
use fastrand::Rng;
use millstream_test_support::proxy::Catch;
use millstream_test_support::wait::{Deadline, eventually, step};

use super::super::setup::PATIENCE;
use super::arena::Arena;
use super::fault::{Away, Fault, Node, Request};

/// How often a third runtime joins in a storm, and how many connections are cut one by one.
const JOINS: usize = 3;
const CUTS: usize = 15;
/// How many requests are caught.
const CAUGHT: u32 = 2;

impl Arena {
    /// Lets a fault happen, and heals it: what fails to recover from here on is the runtime.
    pub fn strike(&mut self, fault: Fault, random: &mut Rng) -> Result<()> {
        match fault {
            Fault::KillRuntime(away) => {
                let at = random.usize(0..self.runtimes.len());
                self.runtimes[at].kill9()?;
                if away == Away::Long {
                    pass(away.choose(random));
                }
                self.runtimes[at] = self.sites[at].start(&[])?;
                self.runtimes[at].until_ready(PATIENCE)
            }
            Fault::FreezeRuntime(away) => {
                let at = random.usize(0..self.runtimes.len());
                self.runtimes[at].process().freeze()?;
                pass(away.choose(random));
                self.runtimes[at].process().thaw()
            }
            Fault::KillNode(which) => {
                let at = self.index_of(which, random)?;
                self.cluster.nodes()[at].kill9()?;
                pass(Away::Briefly.choose(random));
                self.cluster.nodes()[at].restart()?;
                self.cluster.until_in_sync()
            }
            Fault::FreezeNode(which) => {
                let at = self.index_of(which, random)?;
                let away = [Away::Briefly, Away::Long][random.usize(0..2)];
                self.cluster.nodes()[at].freeze()?;
                pass(away.choose(random));
                self.cluster.nodes()[at].thaw()?;
                self.cluster.until_in_sync()
            }
            Fault::Storm => self.storm(),
            Fault::CatchRequest(request, catch) => self.catch(request, catch),
            _ => {
                self.disturb(fault, random);
                for proxy in self.cluster.proxies() {
                    proxy.heal();
                }
                Ok(())
            }
        }
    }

    /// The node that is meant; for any but one on its own another each time.
    fn index_of(&mut self, which: Node, random: &mut Rng) -> Result<usize> {
        let consumer = &self.consumers[random.usize(0..self.consumers.len())];
        match which {
            Node::Any => Ok(random.usize(0..self.cluster.nodes().len())),
            Node::Leader => {
                let last = &self.consumers[self.consumers.len() - 1];
                self.cluster.leader(&last.names.orders, 0)
            }
            Node::GroupCoordinator => self.cluster.group_coordinator(&consumer.names.group),
            Node::TransactionCoordinator => {
                let last = &self.consumers[self.consumers.len() - 1];
                let id = format!("millstream.{}.{}", last.names.group, self.instance);
                self.cluster.transaction_coordinator(&id)
            }
        }
    }

    /// What only connections suffer.
    fn disturb(&self, fault: Fault, random: &mut Rng) {
        let proxies = self.cluster.proxies();
        let brief = Away::Briefly.choose(random);
        match fault {
            Fault::CutAll => {
                for _ in 0..2 {
                    proxies.iter().for_each(|proxy| proxy.cut_all());
                    pass(brief);
                }
            }
            Fault::CutOneByOne => {
                for _ in 0..CUTS {
                    proxies[random.usize(0..proxies.len())].cut_one(random.usize(..));
                    pass(Duration::from_millis(random.u64(10..300)));
                }
            }
            Fault::HalfClose(toward) => {
                for _ in 0..CUTS {
                    proxies[random.usize(0..proxies.len())].half_close(random.usize(..), toward);
                    pass(Duration::from_millis(random.u64(10..300)));
                }
            }
            Fault::Stall(toward) => {
                proxies.iter().for_each(|proxy| proxy.stall(toward));
                pass([Away::Briefly, Away::Long][random.usize(0..2)].choose(random));
            }
            Fault::Delay => {
                let delay = Duration::from_millis(random.u64(20..200));
                proxies.iter().for_each(|proxy| proxy.delay(delay));
                pass(Duration::from_secs(5));
            }
            _ => {
                proxies.iter().for_each(|proxy| {
                    proxy.refuse();
                    proxy.cut_all();
                });
                pass(brief);
            }
        }
    }

    /// Catches requests, at whichever node they go to.
    fn catch(&self, request: Request, catch: Catch) -> Result<()> {
        let proxies = self.cluster.proxies();
        let caught = || proxies.iter().map(|proxy| proxy.caught()).sum::<u64>();
        let before = caught();
        for proxy in proxies {
            proxy.snare(&[request.api()], catch, CAUGHT);
        }
        let done = eventually(&format!("{request:?} is caught"), PATIENCE, || {
            caught() >= before + u64::from(CAUGHT)
        });
        for proxy in proxies {
            proxy.heal();
        }
        done
    }

    fn storm(&mut self) -> Result<()> {
        for _ in 0..JOINS {
            let mut third = self.third.start(&[])?;
            third.until_scrape("given partitions", PATIENCE, |scrape| {
                scrape.sum("millstream_assigned_partitions", &[]) > 0.5
            })?;
            third.terminate()?;
            let status = third.wait(PATIENCE)?;
            ensure!(status.success(), "the third runtime ended with {status}");
        }
        Ok(())
    }
}

/// Lets a fault last.
fn pass(time: Duration) {
    let deadline = Deadline::after(time);
    while !deadline.passed() {
        step();
    }
}
