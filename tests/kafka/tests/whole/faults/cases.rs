//! What happens to topics, rights and disks while a runtime runs.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::cluster;
use millstream_test_support::kafka;
use millstream_test_support::kafka_tools::{KafkaRecord, KafkaTools};
use millstream_test_support::process::Running;
use millstream_test_support::proxy::Toward;
use millstream_test_support::wait::{eventually, eventually_some};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use super::super::order_lines::{self, Line};
use super::super::setup::{self, Names, PARTITIONS, PATIENCE};
use super::super::verify::{Expected, Promise};

const LINES: usize = 8000;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const RIGHTS: &str = "org.apache.kafka.tools.AclCommand";

const GUARANTEES: [Promise; 2] = [Promise::AtLeast, Promise::Exactly];

/// A consumer that reads the source of `names` under a guarantee.
fn consumer(names: &Names, promise: Promise, more: &str) -> Result<String> {
    let delivery = promise.delivery();
    names.consumer(
        &format!("[\"{}\"]", names.source),
        &format!("delivery = \"{delivery}\"\nordering = \"key\"\n{more}"),
    )
}

/// Two halves of lines that share no key: the order between them is not looked at.
fn two_halves() -> Result<(Vec<Line>, Vec<Line>)> {
    let lines = order_lines::some(LINES)?;
    let (before, after) = lines.split_at(LINES / 2);
    let mut after = after.to_vec();
    for line in &mut after {
        line.key.insert_str(0, "later-");
    }
    Ok((before.to_vec(), after))
}

/// The records under a key of these lines.
fn of_keys(records: &[KafkaRecord], lines: &[Line]) -> Vec<KafkaRecord> {
    let keys: HashSet<&str> = lines.iter().map(|line| line.key.as_str()).collect();
    let of_key = |record: &&KafkaRecord| keys.contains(record.key_text().as_str());
    records.iter().filter(of_key).cloned().collect()
}

/// Ends a runtime in order.
fn end(runtime: &mut Running) -> Result<()> {
    runtime.terminate()?;
    runtime.succeed(PATIENCE)
}

/// Checks all topics of the consumer `enrich`.
fn judge(kafka: &KafkaTools, names: &Names, promise: Promise, lines: &[Line]) -> Result<()> {
    promise
        .kept(kafka, names, "enrich", &Expected::of(lines))
        .with_context(|| format!("{} is not kept", promise.delivery()))?;
    Ok(())
}

/// Events of a partition that appears are no newer than the group: none may be passed over.
#[test]
#[ignore = "a fault test: make faults"]
fn partitions_that_a_topic_gains_are_read_from_their_beginning() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    for promise in GUARANTEES {
        let names = Names::fresh("gains");
        names.create(kafka)?;
        let (before, after) = two_halves()?;
        let site = setup::site(kafka.bootstrap(), &consumer(&names, promise, "")?)?;
        let mut runtime = site.start(&[])?;
        setup::produce(kafka, &names.source, &before)?;
        setup::until_settled(&mut runtime, before.len() as u64)?;

        let more = (PARTITIONS + 3).to_string();
        kafka.tool(
            TOPICS,
            &["--alter", "--topic", &names.source, "--partitions", &more],
        )?;
        eventually("the partitions have leaders", PATIENCE, || {
            kafka
                .ends(&names.source)
                .is_ok_and(|ends| ends.len() == (PARTITIONS + 3) as usize)
        })?;
        setup::produce(kafka, &names.source, &after)?;
        ensure!(
            kafka.ends(&names.source)?[PARTITIONS as usize..]
                .iter()
                .any(|(_, end)| *end > 0),
            "no line is in a partition that was gained"
        );
        setup::until_settled(&mut runtime, (before.len() + after.len()) as u64)?;
        end(&mut runtime)?;
        ensure!(setup::lag(&site)? == 0, "not all is committed");
        let records = kafka.read_committed_to_mark(&names.orders)?;
        for half in [&before, &after] {
            let of_half = of_keys(&records, half);
            promise.derived(&of_half, &Expected::of(half).orders)?;
        }
    }
    Ok(())
}

/// A position of the old topic means nothing in the new one, and must neither hide events of it nor
/// stop the consumer.
#[test]
#[ignore = "a fault test: make faults"]
fn a_topic_that_is_deleted_and_made_again_is_read_from_its_beginning() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    for promise in GUARANTEES {
        let names = Names::fresh("again");
        names.create(kafka)?;
        let (mut before, after) = two_halves()?;
        // The new topic stays shorter than the old one was.
        before.extend_from_within(..);
        let consumer = consumer(&names, promise, "on_lost_position = \"beginning\"")?;
        let site = setup::site(kafka.bootstrap(), &consumer)?;
        let mut runtime = site.start(&[])?;
        setup::produce(kafka, &names.source, &before)?;
        setup::until_settled(&mut runtime, before.len() as u64)?;

        kafka.delete_topic(&names.source)?;
        eventually("the topic is gone", PATIENCE, || {
            kafka.ends(&names.source).is_err()
        })?;
        kafka.create_topic(&names.source, PARTITIONS)?;
        setup::produce(kafka, &names.source, &after)?;
        runtime.until_scrape("through the new topic", PATIENCE, |scrape| {
            setup::settled(scrape) >= (before.len() + after.len()) as u64
        })?;
        end(&mut runtime)?;
        let records = kafka.read_committed_to_mark(&names.orders)?;
        for half in [&before, &after] {
            promise.derived(&of_keys(&records, half), &Expected::of(half).orders)?;
        }
    }
    Ok(())
}

/// What retention takes away before it was read is jumped over and counted, event by event.
#[test]
#[ignore = "a fault test: make faults"]
fn what_retention_takes_from_a_runtime_is_counted_and_the_rest_comes_out() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let lines = order_lines::some(LINES)?;
    let names = Names::fresh("retention");
    names.create(kafka)?;
    let consumer = consumer(&names, Promise::Exactly, "on_lost_position = \"beginning\"")?;
    let site = setup::site(kafka.bootstrap(), &consumer)?;
    let mut runtime = site.start(&[])?;
    let (before, after) = lines.split_at(LINES / 4);
    setup::produce(kafka, &names.source, before)?;
    setup::until_settled(&mut runtime, before.len() as u64)?;

    // Nothing is fetched while it does not run.
    runtime.process().freeze()?;
    setup::produce(kafka, &names.source, after)?;
    let mut low = TopicPartitionList::new();
    for (partition, (_, end)) in kafka.ends(&names.source)?.into_iter().enumerate() {
        let below = i64::try_from(end)? - 50;
        low.add_partition_offset(
            &names.source,
            i32::try_from(partition)?,
            Offset::Offset(below),
        )?;
    }
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    let runner = tokio::runtime::Builder::new_current_thread().build()?;
    runner.block_on(admin.delete_records(&low, &AdminOptions::new()))?;
    runtime.process().thaw()?;

    let mut skipped = 0;
    runtime.until_scrape("past what is gone", PATIENCE, |scrape| {
        skipped = scrape.sum("millstream_events_skipped_total", &[]) as usize;
        skipped + setup::settled(scrape) as usize == lines.len()
    })?;
    end(&mut runtime)?;
    ensure!(setup::lag(&site)? == 0, "not all is committed");
    ensure!(skipped > 0, "retention overtook nothing");
    let records = kafka.read_committed_to_mark(&names.orders)?;
    // Each promise allows less than this one; here the broker lost events, not the runtime.
    let tally = Promise::AtMost.derived(&records, &Expected::of(&lines).orders)?;
    ensure!(
        tally.missing <= skipped as u64,
        "{} events are missing, but {skipped} were skipped",
        tally.missing
    );
    Ok(())
}

/// An output that may not be written to stops the consumer where it stands, and costs no event.
#[test]
#[ignore = "a fault test: make faults"]
fn an_output_that_may_not_be_written_is_told_and_loses_nothing() -> Result<()> {
    let properties = [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        "allow.everyone.if.no.acl.found=true".to_owned(),
    ];
    let _turn = setup::turn();
    let Some(cluster) = cluster::with(1, &properties) else {
        return Ok(());
    };
    let kafka = cluster.tools();
    let lines = order_lines::some(LINES)?;
    let (before, after) = lines.split_at(LINES / 2);
    let names = Names::fresh("rights");
    names.create(kafka)?;
    let site = setup::site(
        &cluster.bootstrap(),
        &consumer(&names, Promise::Exactly, "")?,
    )?;
    let mut runtime = site.start(&[])?;
    setup::produce(kafka, &names.source, before)?;
    setup::until_settled(&mut runtime, before.len() as u64)?;

    let everyone = ["--allow-principal", "User:*", "--operation", "All"];
    let nobody = ["--deny-principal", "User:*", "--operation", "Write"];
    for rule in [everyone, nobody] {
        let topic = ["--add", "--topic", names.orders.as_str()];
        kafka.tool(RIGHTS, &[&topic[..], &rule[..]].concat())?;
    }
    setup::produce(kafka, &names.source, after)?;
    let said = eventually_some(
        "/readyz says that something is wrong",
        PATIENCE,
        || match runtime.get("/readyz") {
            Ok((503, said)) => Some(said),
            _ => None,
        },
    )?;
    ensure!(
        said.contains(&names.orders) || said.to_lowercase().contains("authori"),
        "nothing of the topic or of rights is said: {said}"
    );
    ensure!(setup::lag(&site)? > 0, "events were left behind");

    let topic = ["--remove", "--force", "--topic", names.orders.as_str()];
    kafka.tool(RIGHTS, &[&topic[..], &nobody[..]].concat())?;
    runtime.terminate()?;
    runtime.wait(PATIENCE)?;
    let mut runtime = site.start(&[])?;
    runtime.until_scrape("done", PATIENCE, |_| {
        setup::lag(&site).is_ok_and(|lag| lag == 0)
    })?;
    end(&mut runtime)?;
    judge(kafka, &names, Promise::Exactly, &lines)
}

/// Batches whose claim failed because the whole membership was lost must not hold back those that
/// the next membership brings.
#[test]
#[ignore = "a fault test: make faults"]
fn a_session_that_ends_during_a_claim_does_not_stop_at_most_once() -> Result<()> {
    let _turn = setup::turn();
    let Some(cluster) = cluster::with(1, &[]) else {
        return Ok(());
    };
    let lines = order_lines::some(LINES)?;
    let names = Names::fresh("session");
    names.create(cluster.tools())?;
    setup::produce(cluster.tools(), &names.source, &lines)?;
    // Claims follow one another all the time.
    let consumer = consumer(&names, Promise::AtMost, "rate = \"500/s\"")?;
    let site = setup::site(&cluster.bootstrap(), &consumer)?;
    let mut runtime = site.start(&[])?;
    setup::until_settled(&mut runtime, 500)?;
    let proxy = &cluster.proxies()[0];
    // The claim under way arrives when neither side takes the member for one any more.
    proxy.stall(Toward::Broker);
    let lost = [("consumer", "enrich"), ("kind", "lost")];
    runtime.until_scrape("without its partitions", PATIENCE, |scrape| {
        scrape.sum("millstream_rebalances_total", &lost) > 0.5
    })?;
    let state = ["--describe", "--state", "--group", names.group.as_str()];
    eventually("Kafka has dropped the member", PATIENCE, || {
        cluster
            .tools()
            .tool(GROUPS, &state)
            .is_ok_and(|shown| shown.contains("Empty"))
    })?;
    proxy.heal();
    setup::until_done(&mut runtime)?;
    end(&mut runtime)?;
    judge(cluster.tools(), &names, Promise::AtMost, &lines)
}

/// Kafka ends itself when it cannot write. Nothing that it acknowledged may be taken for undone, or
/// the other way about, once there is room again.
#[test]
#[ignore = "a fault test: make faults"]
fn a_disk_that_is_full_and_emptied_again_loses_and_repeats_nothing() -> Result<()> {
    let _turn = setup::turn();
    let folder = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::mount(folder.path())? else {
        return Ok(());
    };
    let properties = [
        format!("log.dirs={}", disk.0.join("data").display()),
        "log.segment.bytes=4194304".to_owned(),
    ];
    let Some(mut cluster) = cluster::with(1, &properties) else {
        return Ok(());
    };
    let lines = order_lines::some(LINES * 3)?;
    let mut waiting = Vec::new();
    for promise in GUARANTEES {
        let names = Names::fresh("full");
        names.create(cluster.tools())?;
        setup::produce(cluster.tools(), &names.source, &lines)?;
        // Slow enough to be at work when the disk fills.
        let consumer = consumer(&names, promise, "rate = \"2000/s\"")?;
        let site = setup::site(&cluster.bootstrap(), &consumer)?;
        waiting.push((promise, names, site));
    }
    let mut runtimes = Vec::new();
    for (.., site) in &waiting {
        runtimes.push(site.start(&[])?);
    }
    for runtime in &mut runtimes {
        setup::until_settled(runtime, lines.len() as u64 / 4)?;
    }
    let ballast = disk.fill()?;
    eventually("Kafka gives up", PATIENCE, || !cluster.nodes()[0].running())?;
    fs::remove_file(ballast)?;
    cluster.nodes()[0].restart()?;
    for ((promise, names, site), runtime) in waiting.iter().zip(&mut runtimes) {
        runtime.until_scrape("done", PATIENCE, |_| {
            setup::lag(site).is_ok_and(|lag| lag == 0)
        })?;
        end(runtime)?;
        judge(cluster.tools(), names, *promise, &lines)?;
    }
    Ok(())
}

/// A file system in memory. Dropping it unmounts it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said loudly, where mounting is not allowed.
    fn mount(at: &Path) -> Result<Option<Self>> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=192m", "tmpfs"])
            .arg(at)
            .output()
            .context("cannot start mount")?;
        if mounted.status.success() {
            return Ok(Some(Self(at.to_path_buf())));
        }
        let said = String::from_utf8_lossy(&mounted.stderr);
        eprintln!("\n*** LEFT OUT: a full disk: mounting is not allowed: {said}\n");
        Ok(None)
    }

    /// Leaves no byte free; returns the file that takes them all.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("ballast");
        let mut file = fs::File::create(&path)?;
        loop {
            match file.write_all(&[0; 65_536]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(path),
                Err(error) => bail!("cannot fill the disk: {error}"),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}
