//! Many minutes of order lines on a real Kafka and on the embedded broker, with a little trouble in
//! each: what grows without an end shows here.
//!
//! ```text
//! feeder ─▶ stage: Kafka ─────┬─▶ the lasting runtime: one consumer a guarantee, an outage, poison
//!        ─▶ stage: embedded ──┘        ▲                 ▲
//!                           gauge: looks every 3 s       └── course: each minute's trouble
//!                                      └──▶ judge: flat? ──▶ report
//! ```
//! What the topics hold is compared at the end with what must come of the lines.

mod course;
mod feeder;
mod gauge;
mod judge;
mod report;
mod stage;

use std::thread;

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka;

use super::setup;
use course::Course;
pub use feeder::cycle;
use stage::Stage;

/// For how many minutes: `make soak MINUTES=30`.
const MINUTES: &str = "SOAK_MINUTES";
const DEFAULT_MINUTES: u32 = 3;

/// Memory, handles or threads that an event, a rebalance, a breaker's cycle or a trap leaves behind;
/// lag that never comes back; events that are lost, repeated or reordered after long: each shows here.
#[test]
#[ignore = "a soak of many minutes: make soak"]
fn minutes_of_trouble_leave_nothing_behind() -> Result<()> {
    let _turn = setup::turn();
    let minutes = match std::env::var(MINUTES) {
        Ok(value) if !value.is_empty() => value
            .parse()
            .with_context(|| format!("{MINUTES}={value}"))?,
        _ => DEFAULT_MINUTES,
    };
    ensure!(
        minutes >= 3,
        "{MINUTES} must be 3 or more: the first is warm-up"
    );
    let mut stages = vec![Stage::embedded()?];
    if let Some(node) = kafka::own() {
        stages.push(Stage::kafka(node)?);
    }
    // At once: each leaves most of a processor free.
    let courses: Vec<Course> = thread::scope(|scope| {
        let runs: Vec<_> = (stages.into_iter())
            .map(|stage| scope.spawn(move || course::run(stage, minutes)))
            .collect();
        let join = |run: thread::ScopedJoinHandle<'_, Course>| run.join().ok();
        runs.into_iter().map(join).collect::<Option<Vec<_>>>()
    })
    .context("a soak panicked")?;

    let text = report::written(minutes, &courses);
    let path = report::keep("report.md", &text)?;
    eprintln!("{text}\nwritten to {}", path.display());
    for course in &courses {
        if !course.faults().is_empty() {
            let name = format!("{}.log", course.broker);
            report::keep(&name, &course.logs)?;
        }
    }
    ensure!(
        courses.iter().all(|course| course.faults().is_empty()),
        "what is wrong stands in the report; the runtimes' logs lie beside it"
    );
    Ok(())
}
