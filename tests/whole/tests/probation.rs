//! Versions that have to prove themselves: in shadow beside the one at work, and on probation.
//!
//! The value of each event tells the plugin `hostile` what to do; with `init = "honest"` it forwards
//! whatever comes. So the honest version is the good one, and the other fails what it is told to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::process::{Answer, Running, Site, post};
use millstream_test_support::wait::eventually;
use millstream_whole_tests::{events, setting};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const GOOD: &str = "config = { init = \"honest\" }\n";
const BAD: &str = "config = { init = \"bad\" }\n";

struct Stage {
    site: Site,
    more: String,
}

impl Stage {
    fn new(more: &str) -> Result<Self> {
        let stage = Self {
            site: Site::new()?,
            more: more.to_owned(),
        };
        fs::copy(setting::hostile()?, stage.plugin())?;
        Ok(stage)
    }

    fn plugin(&self) -> std::path::PathBuf {
        self.site.path().join("plugin.wasm")
    }

    /// Another component that does the same: one with a custom section of one byte.
    fn another(&self, name: &str) -> Result<std::path::PathBuf> {
        let mut component = fs::read(setting::hostile()?)?;
        component.extend([0, 3, 1, b'x', 1]);
        self.site.write(name, &component)
    }

    fn configure(&self, version: &str) -> Result<()> {
        let more = format!(
            "{}{version}dead_letter = {{ topic = \"dlq\" }}\n",
            self.more
        );
        let consumer = setting::hostile_consumer("hostile", "in", &more)?;
        let shipped = format!("{:?}", setting::hostile()?.display().to_string());
        let consumer = consumer.replace(&shipped, "\"plugin.wasm\"");
        self.site.configure(&format!(
            "{}\n{}[topics.derived]\nmax_event = \"4KiB\"\n{consumer}",
            setting::head(&self.site),
            setting::topic("in", 2)
        ))
    }

    fn produce(
        &self,
        running: &Running,
        value: &str,
        events: std::ops::Range<usize>,
    ) -> Result<()> {
        let line = |at: usize| format!("{{\"key\":\"k{}\",\"value\":\"{value}\"}}\n", at % 7);
        let lines: String = events.map(line).collect();
        let (status, answer) = running.post_lines("/topics/in", &lines)?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }

    /// The good version, which has handled so many events.
    fn at_work(&self, value: &str, events: usize) -> Result<Running> {
        self.configure(GOOD)?;
        let mut running = self.site.start(&[])?;
        running.until_ready(PATIENCE)?;
        self.produce(&running, value, 0..events)?;
        until_settled(&mut running, "ok", events)?;
        Ok(running)
    }

    /// All is derived and nothing dead-lettered.
    fn ended_well(&self, events: usize) -> Result<()> {
        let derived = events::all(&self.site, "derived")?;
        ensure!(derived.len() == events, "{} derived events", derived.len());
        events::check_order(&derived, "in")?;
        ensure!(events::all(&self.site, "dlq")?.is_empty());
        Ok(())
    }

    fn reload(&self) -> Result<Answer> {
        let json = ("content-type", "application/json");
        post(&self.site.admin(), "/-/reload", &[json], "")
    }
}

fn until_settled(running: &mut Running, outcome: &str, events: usize) -> Result<()> {
    running.until_scrape(&format!("done with {events}"), PATIENCE, |scrape| {
        let of = [("consumer", "hostile"), ("outcome", outcome)];
        scrape.sum("millstream_events_settled_total", &of) >= events as f64
    })
}

fn until_deployed(running: &mut Running, result: &str, times: f64) -> Result<()> {
    running.until_scrape(&format!("{result} {times} times"), PATIENCE, |scrape| {
        let of = [("consumer", "hostile"), ("result", result)];
        scrape.sum("millstream_deploys_total", &of) >= times
    })
}

fn report(running: &Running) -> Result<Value> {
    let (_, body) = running.get("/api/v1/consumers")?;
    let all: Value = serde_json::from_str(&body)?;
    Ok(all[0].clone())
}

/// A version that fails what the one before handles would fill the dead letters until somebody wakes
/// up.
#[test]
fn a_version_that_fails_is_taken_back_and_the_one_before_handles_its_events() -> Result<()> {
    let stage = Stage::new("ordering = \"key\"\ndeploy = { probation = \"10m\" }\n")?;
    let mut running = stage.at_work("reject", 50)?;

    stage.configure(BAD)?;
    until_deployed(&mut running, "ok", 2.0)?;
    stage.produce(&running, "reject", 50..400)?;
    until_deployed(&mut running, "rolled_back", 1.0)?;
    until_settled(&mut running, "ok", 400)?;
    let shown = report(&running)?;
    ensure!(
        shown["drift"] == true && shown["overrides"][0] == "rollback",
        "{shown}"
    );

    // The file names the same: another look at it must not try once more.
    let answer = stage.reload()?;
    ensure!(
        answer.status == 200 && !answer.body.contains("swap"),
        "{answer:?}"
    );
    running.terminate()?;
    running.succeed(PATIENCE)?;
    stage.ended_well(400)?;

    // Nor a start, until the file names something else.
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    stage.produce(&running, "reject", 400..500)?;
    until_settled(&mut running, "ok", 100)?;
    ensure!(report(&running)?["drift"] == true);
    stage.configure("config = { init = \"honest\", edition = 2 }\n")?;
    // Its answer comes when what is new applies.
    ensure!(stage.reload()?.status == 200);
    ensure!(report(&running)?["drift"] == false);
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// A start trusted whatever the file names: a version that has the process killed, by its memory for
/// instance, would have been the only one that nothing is asked of.
#[test]
fn a_version_that_has_not_proved_itself_is_on_probation_after_a_kill_too() -> Result<()> {
    let stage = Stage::new(
        "delivery = \"exactly-once\"\nordering = \"key\"\ndeploy = { probation = \"10m\" }\n",
    )?;
    let mut running = stage.at_work("reject", 50)?;
    stage.configure(BAD)?;
    let answer = stage.reload()?;
    ensure!(answer.status == 200, "{answer:?}");
    until_deployed(&mut running, "ok", 2.0)?;
    running.kill9()?;

    let mut running = stage.site.start(&[])?;
    until_deployed(&mut running, "ok", 2.0)?;
    stage.produce(&running, "reject", 50..400)?;
    until_deployed(&mut running, "rolled_back", 1.0)?;
    until_settled(&mut running, "ok", 350)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    stage.ended_well(400)
}

/// Its calls all went well: who looked at them alone would trust it, and give its events up.
#[test]
fn what_the_broker_refuses_is_a_failure_of_the_version_that_made_it() -> Result<()> {
    let stage = Stage::new("ordering = \"key\"\ndeploy = { probation = \"10m\" }\n")?;
    let mut running = stage.at_work("forward", 50)?;
    stage.configure(BAD)?;
    until_deployed(&mut running, "ok", 2.0)?;
    stage.produce(&running, "long-reply 1", 50..80)?;
    until_deployed(&mut running, "rolled_back", 1.0)?;
    until_settled(&mut running, "ok", 80)?;
    running.scrape()?.check_accounting()?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    stage.ended_well(80)
}

/// One of many is the event's own fault, as it is of any version: it waits for the judgement and is
/// given up then.
#[test]
fn what_no_version_gets_past_the_broker_is_dead_lettered_when_the_version_is_trusted() -> Result<()>
{
    let stage = Stage::new(
        "ordering = \"key\"\ndeploy = { probation = \"5s\", max_failure_ratio = 0.5 }\n",
    )?;
    stage.configure(BAD)?;
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    stage.configure("config = { init = \"bad\", edition = 2 }\n")?;
    until_deployed(&mut running, "ok", 2.0)?;
    stage.produce(&running, "forward", 0..50)?;
    until_settled(&mut running, "ok", 50)?;
    stage.produce(&running, "long-reply 1", 3..4)?;
    stage.produce(&running, "forward", 0..50)?;
    until_settled(&mut running, "dead_lettered", 1)?;
    until_settled(&mut running, "ok", 100)?;
    let scrape = running.scrape()?;
    scrape.check_accounting()?;
    let rolled_back = scrape.sum("millstream_deploys_total", &[("result", "rolled_back")]);
    ensure!(rolled_back == 0.0, "it was taken back");
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let derived = events::all(&stage.site, "derived")?;
    ensure!(derived.len() == 100, "{} derived events", derived.len());
    events::check_order(&derived, "in")
}

/// A rollback that a restart forgets goes back to the mistake by itself.
#[test]
fn a_filter_or_a_limit_is_rolled_back_for_good_too() -> Result<()> {
    let stage = Stage::new("deploy = { probation = \"10m\" }\n")?;
    let mut running = stage.at_work("anything", 10)?;
    stage.configure(&format!("{GOOD}filter = {{ key = [\"nobody\"] }}\n"))?;
    until_deployed(&mut running, "ok", 2.0)?;
    let shown = stage.site.succeed(&["rollback", "hostile"])?;
    ensure!(shown.contains("filter"), "{shown}");
    let rolled_back = |running: &Running| -> Result<()> {
        let shown = report(running)?;
        ensure!(
            shown["drift"] == true && shown["overrides"][0] == "rollback",
            "{shown}"
        );
        Ok(())
    };
    rolled_back(&running)?;
    let answer = stage.reload()?;
    ensure!(
        answer.status == 200 && !answer.body.contains("swap"),
        "{answer:?}"
    );
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    rolled_back(&running)?;
    stage.produce(&running, "anything", 0..10)?;
    until_settled(&mut running, "ok", 10)?;

    // And by a probation: these limits are too narrow for what comes.
    stage.configure(&format!("{GOOD}limits = {{ output_bytes = \"1KiB\" }}\n"))?;
    until_deployed(&mut running, "ok", 2.0)?;
    // Written down right behind.
    eventually("what the file says runs", PATIENCE, || {
        report(&running).is_ok_and(|shown| shown["drift"] == false)
    })?;
    let large = "x".repeat(2_000);
    stage.produce(&running, &large, 0..4)?;
    until_deployed(&mut running, "rolled_back", 1.0)?;
    until_settled(&mut running, "ok", 14)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    rolled_back(&running)?;
    stage.produce(&running, &large, 0..4)?;
    until_settled(&mut running, "ok", 4)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    ensure!(events::all(&stage.site, "dlq")?.is_empty());
    Ok(())
}

/// What fails by every version is the event's own fault: it must not take a good version back, and
/// ends as it always does.
#[test]
fn poison_waits_until_the_version_is_trusted_and_is_then_dead_lettered() -> Result<()> {
    let stage = Stage::new(
        "ordering = \"key\"\ndeploy = { probation = \"3s\", max_failure_ratio = 0.2 }\n",
    )?;
    stage.configure(BAD)?;
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let built = stage.another("built.wasm")?;
    fs::rename(built, stage.plugin())?;
    running.hang_up()?;
    until_deployed(&mut running, "ok", 2.0)?;
    stage.produce(&running, "forward", 0..100)?;
    stage.produce(&running, "reject", 3..4)?;
    stage.produce(&running, "forward", 0..100)?;
    // All but what comes behind the poison.
    until_settled(&mut running, "ok", 150)?;
    until_settled(&mut running, "dead_lettered", 1)?;
    until_settled(&mut running, "ok", 200)?;
    ensure!(report(&running)?["probation"] == false);
    let scrape = running.scrape()?;
    let rolled_back = scrape.sum("millstream_deploys_total", &[("result", "rolled_back")]);
    ensure!(rolled_back == 0.0, "it was taken back");
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// Writes until it is dropped, so that a shadow has something to handle.
struct Stream<'a> {
    stage: &'a Stage,
    running: &'a Running,
}

impl Stream<'_> {
    fn while_waiting(&self, wait: impl FnOnce() -> Result<Answer> + Send) -> Result<Answer> {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(wait);
            while !waiting.is_finished() {
                self.stage.produce(self.running, "reject", 0..20)?;
                millstream_test_support::wait::step();
            }
            waiting
                .join()
                .map_err(|_| anyhow::anyhow!("the request panicked"))?
        })
    }
}

/// Outputs of the shadow would be duplicates; a version that fails there must never take over.
#[test]
fn a_shadow_handles_live_events_and_changes_nothing() -> Result<()> {
    let stage = Stage::new("deploy = { shadow = 60 }\n")?;
    stage.configure(GOOD)?;
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let admin = stage.site.admin();
    let stream = Stream {
        stage: &stage,
        running: &running,
    };
    let deploy = |plugin: &Path, config: &str| {
        stage.configure(config)?;
        let body = serde_json::json!({ "plugin": plugin }).to_string();
        stream.while_waiting(|| {
            let json = ("content-type", "application/json");
            post(&admin, "/api/v1/consumers/hostile/deploy", &[json], &body)
        })
    };
    let built = stage.another("built.wasm")?;
    let answer = deploy(&built, GOOD)?;
    ensure!(answer.status == 200, "{answer:?}");
    let told: Value = serde_json::from_str(&answer.body)?;
    let shadow = &told["steps"][0]["shadow"];
    ensure!(
        shadow["equal"].as_u64() >= Some(60) && shadow["different"] == 0 && shadow["failed"] == 0,
        "{told}"
    );

    let answer = stage_bad(&stage, &stream)?;
    ensure!(
        answer.status == 422 && answer.body.contains("in shadow the new version failed"),
        "{answer:?}"
    );
    let shown = report(&running)?;
    ensure!(shown["generation"] == 2, "{shown}");
    until_deployed(&mut running, "failed", 1.0)?;
    let took_over = [("consumer", "hostile"), ("result", "ok")];
    let deploys = (running.scrape()?).sum("millstream_deploys_total", &took_over);
    ensure!(
        deploys == 2.0,
        "the first version and one other took over, not {deploys}"
    );
    setting::until_no_lag(&stage.site, &mut running, PATIENCE)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let sources = events::all(&stage.site, "in")?.len();
    let derived = events::all(&stage.site, "derived")?.len();
    ensure!(sources == derived, "{derived} of {sources} derived");
    ensure!(events::all(&stage.site, "dlq")?.is_empty());
    Ok(())
}

/// Reloads with the version that fails. The watcher may see the file first and be refused, too.
fn stage_bad(stage: &Stage, stream: &Stream<'_>) -> Result<Answer> {
    stage.configure(BAD)?;
    stream.while_waiting(|| stage.reload())
}

/// What was done by hand must be found again after a restart, and given up when the file changes.
#[test]
fn deploys_rollbacks_and_pauses_by_hand_hold_until_the_file_changes() -> Result<()> {
    let stage = Stage::new("")?;
    stage.configure(GOOD)?;
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let first = report(&running)?["digest"].clone();
    let built = stage.another("built.wasm")?;
    let built = built.to_str().context("a path")?;
    let run = |arguments: &[&str]| stage.site.succeed(arguments);

    run(&["deploy", "hostile", built, "--dry-run"])?;
    ensure!(report(&running)?["digest"] == first, "a dry run deployed");
    let shown = run(&["deploy", "hostile", built])?;
    ensure!(
        shown.contains("swap") && shown.contains("plugin"),
        "{shown}"
    );
    let second = report(&running)?["digest"].clone();
    ensure!(second != first);
    fs::remove_file(built)?;

    // A restart runs what was deployed by hand, though its file is gone.
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let shown = report(&running)?;
    ensure!(
        shown["digest"] == second && shown["overrides"][0] == "deploy" && shown["drift"] == true,
        "{shown}"
    );

    run(&["rollback", "hostile"])?;
    ensure!(report(&running)?["digest"] == first, "not rolled back");
    let refused = setting::fail(
        &stage.site,
        1,
        &["rollback", "hostile", "--to", "sha256:0000"],
    )?;
    ensure!(refused.stderr.contains("sha256:0000"), "{}", refused.stderr);

    run(&["pause", "hostile"])?;
    stage.produce(&running, "anything", 0..10)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let mut running = stage.site.start(&[])?;
    running.until_ready(PATIENCE)?;
    stage.produce(&running, "anything", 0..10)?;
    running.until_scrape("paused", PATIENCE, |scrape| {
        let by_operator = [("reason", "operator")];
        scrape.sum("millstream_paused_seconds_total", &by_operator) > 0.5
    })?;
    let (_, readiness) = running.get("/readyz")?;
    ensure!(readiness.contains("is paused"), "{readiness}");
    let settled = running
        .scrape()?
        .sum("millstream_events_settled_total", &[]);
    ensure!(settled == 0.0, "{settled} settled while paused");
    run(&["resume", "hostile"])?;
    until_settled(&mut running, "ok", 20)?;
    running.terminate()?;
    running.succeed(PATIENCE)
}
