//! Delays through the embedded broker: written and read over HTTP, as other processes do.
//!
//! ```text
//! writers, a request each millisecond with what is due ─▶ in ─▶ consumer ─▶ out ─▶ reader, a look each
//!                                                          └──── straight ────────▶┘          millisecond
//! ```
//! Each request waits for its answer, so several writers take turns: one that waits for the disk must
//! not hold back what is due. One partition, or a reader would have to look at four places at a time.

use std::borrow::Cow;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use millstream_test_support::wait::Deadline;
use serde::Deserialize;

use super::due::Due;
use super::{Delays, PATIENCE, Plan, STEP, Sent};
use crate::bid::{Bid, Bids, number};
use crate::caller::Caller;
use crate::contender::{Contender, Durability, Job};
use crate::deploys::rest;
use crate::input::Made;
use crate::workload::Workload;
use crate::{embedded, millstream};

/// Requests that wait for their answers at once.
const WRITERS: usize = 8;
/// Events of one look.
const LOOK: usize = 10_000;

/// Sends events at a steady rate and reads what comes out.
///
/// # Errors
/// The runtime cannot be started, or not every event comes out, once.
pub fn measure(plan: &Plan<'_>, durability: Durability) -> Result<Delays> {
    let name = plan.name();
    let folder = plan.folder.join(&name);
    fs::create_dir(&folder).context("cannot make a folder")?;
    let job = Job {
        workload: Workload::Q0,
        bootstrap: "",
        groups: vec![name],
        input: "in",
        output: "out",
        partitions: 1,
        // More than come: it goes on until it is ended.
        events: u64::MAX,
        seed: plan.seed,
        folder: &folder,
    };
    let contender = plan.route.contender();
    let consumers = contender.map_or(String::new(), |_| {
        millstream::consumers(&job, millstream::Kind::default())
    });
    let launch = millstream::run(&embedded::broker(&job, durability), &consumers, &job)?;
    let started = Contender::Embedded.start(&job, launch)?;
    let admin = started.admin.context("no interface")?;
    millstream::until_ready(&admin)?;
    let read = contender.map_or(job.input, |_| job.output);

    // An event must have passed before the rate begins: starting up is not what is measured.
    let events = plan.events();
    let mut bids = Bids::new(plan.seed, events + 1);
    let sent = Sent::new(events + 1);
    let mut reader = Reader::new(&admin, read, events + 1);
    let caller = Caller::new(&admin);
    for bid in bids.by_ref().take(1) {
        post(&caller, job.input, &[(0, bid)])?;
    }
    reader.until(1, &sent, || false)?;
    reader.delays.clear();

    let due = Mutex::new(Due::new(bids, 1, plan.rate, &sent));
    let failed = AtomicBool::new(false);
    thread::scope(|threads| {
        let writer = || {
            let written = write(&admin, job.input, &due, &sent);
            failed.fetch_or(written.is_err(), Ordering::AcqRel);
            written
        };
        let writers: Vec<_> = (0..WRITERS).map(|_| threads.spawn(writer)).collect();
        let read = reader.until(events, &sent, || failed.load(Ordering::Acquire));
        for writer in writers {
            writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        read
    })?;
    drop(started.process);
    fs::remove_dir_all(&folder).context("cannot remove a folder")?;
    Delays::of(reader.delays, plan)
}

/// Takes turns with other writers until nothing is left.
fn write(admin: &str, topic: &str, due: &Mutex<Due>, sent: &Sent) -> Result<()> {
    let caller = Caller::new(admin);
    let next = || {
        due.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(sent)
    };
    while let Some(bids) = next()? {
        post(&caller, topic, &bids)?;
    }
    Ok(())
}

fn post(caller: &Caller, topic: &str, bids: &[(u64, Bid)]) -> Result<()> {
    let (mut lines, mut json) = (String::new(), Vec::new());
    for (_, bid) in bids {
        json.clear();
        bid.write(&mut json);
        let key = bid.key();
        lines.push_str(&embedded::line(&Made {
            key: key.as_bytes(),
            value: &json,
            class: None,
            bid: None,
        })?);
        lines.push('\n');
    }
    let (status, said) = caller.post_lines(&format!("/topics/{topic}"), &lines)?;
    ensure!(status == 200, "events are answered with {status}: {said}");
    Ok(())
}

/// Looks at the end of a topic again and again.
struct Reader<'a> {
    caller: Caller,
    topic: &'a str,
    next: u64,
    /// By the number of the bid.
    seen: Vec<bool>,
    /// In microseconds.
    delays: Vec<u64>,
}

/// As much of an event as is looked at.
#[derive(Deserialize)]
struct Event<'a> {
    offset: u64,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

impl<'a> Reader<'a> {
    fn new(admin: &str, topic: &'a str, events: u64) -> Self {
        Self {
            caller: Caller::new(admin),
            topic,
            next: 0,
            seen: (0..events).map(|_| false).collect(),
            delays: Vec::new(),
        }
    }

    /// Reads until so many delays are known.
    fn until(&mut self, events: u64, sent: &Sent, failed: impl Fn() -> bool) -> Result<()> {
        let mut deadline = Deadline::after(PATIENCE);
        while (self.delays.len() as u64) < events && !failed() {
            let (topic, next) = (self.topic, self.next);
            let path = format!("/topics/{topic}?partition=0&from={next}&count={LOOK}");
            let (status, lines) = self.caller.get(&path)?;
            ensure!(status == 200, "a look is answered with {status}: {lines}");
            for line in lines.lines() {
                let event: Event<'_> = serde_json::from_str(line)?;
                let number = number(event.value.as_bytes()).context("no bid")?;
                self.delays.push(sent.since(number)?);
                let seen = self.seen.get_mut(usize::try_from(number)?);
                let twice = std::mem::replace(seen.context("not sent")?, true);
                ensure!(!twice, "bid {number} came twice");
                self.next = event.offset + 1;
                deadline = Deadline::after(PATIENCE);
            }
            ensure!(
                !deadline.passed(),
                "nothing comes after {} events",
                self.delays.len()
            );
            rest(STEP);
        }
        Ok(())
    }
}
