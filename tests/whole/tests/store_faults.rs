//! The embedded store on a full disk, with a torn last write, and held by another process.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use millstream_test_support::process::{Answer, Site, post};
use millstream_test_support::wait::{Deadline, step};
use millstream_whole_tests::{events, setting};

const PATIENCE: Duration = Duration::from_secs(120);
const LINES: usize = 100;
const BYTES: usize = 5_000;

fn consumer() -> String {
    setting::hostile_consumer("hostile", "in", "delivery = \"exactly-once\"\n").unwrap()
}

/// Posts lines as one request; what does not compress, or no disk would fill. `None` where the
/// connection ends without an answer.
fn try_produce(site: &Site, request: usize) -> Option<Answer> {
    let mut random = fastrand::Rng::with_seed(request as u64);
    let body: String = (0..LINES)
        .map(|line| {
            let noise: String = (0..BYTES).map(|_| random.alphanumeric()).collect();
            let value = format!("{request}-{line} {noise}");
            format!("{{\"key\":\"k{line}\",\"value\":\"{value}\"}}\n")
        })
        .collect();
    let kind = ("content-type", "application/x-ndjson");
    post(&site.admin(), "/topics/in", &[kind], &body).ok()
}

fn produce(site: &Site, request: usize) -> Answer {
    try_produce(site, request).unwrap()
}

/// The lines of a topic, without their noise.
fn lines(site: &Site, topic: &str) -> Vec<String> {
    let events = events::all(site, topic).unwrap().into_iter();
    let line = |value: String| value.split(' ').next().unwrap().to_owned();
    events.map(|event| line(event.value.unwrap())).collect()
}

/// Every line of these requests is there once, in the topic and among what was derived.
fn check(site: &Site, requests: usize) {
    for topic in ["in", "derived"] {
        let mut found = lines(site, topic);
        let mut wanted: Vec<String> = (0..requests)
            .flat_map(|request| (0..LINES).map(move |line| format!("{request}-{line}")))
            .collect();
        found.sort();
        wanted.sort();
        assert!(
            found == wanted,
            "{topic}: {} of {}",
            found.len(),
            wanted.len()
        );
    }
    setting::check_no_lag(site).unwrap();
}

/// A small disk of its own for a store; gone on drop.
struct Disk(PathBuf);

impl Disk {
    /// `None` where mounting is not allowed.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&at)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("*** LEFT OUT: a small disk cannot be mounted here");
            return None;
        }
        Some(Self(at))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let done = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What is taken and then lost for want of room, a consumer that gives up, and a store that does not
/// go on when there is room again show here; with `killed`, after SIGKILL on the full disk.
fn check_full_disk(killed: bool) {
    let site = setting::site(&format!("{}{}", setting::topic("in", 2), consumer())).unwrap();
    let Some(disk) = Disk::mount(site.path().join("data"), "128m") else {
        return;
    };
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    let mut taken = 0;
    let full = loop {
        let answer = produce(&site, taken);
        match answer.status {
            200 => taken += 1,
            _ => break answer,
        }
        assert!(taken < 1_000, "the disk does not fill");
    };
    assert_eq!(full.status, 507, "{full:?}");
    assert_eq!(full.retry_after.as_deref(), Some("30"));
    assert!(full.body.contains("min_free_disk"), "{full:?}");
    assert!(taken > 5, "{taken}");
    assert!(running.running() && running.get("/healthz").unwrap().0 == 200);
    if killed {
        running.kill9().unwrap();
        disk.resize("512m");
        running = site.start(&[]).unwrap();
        running.until_ready(PATIENCE).unwrap();
    } else {
        disk.resize("512m");
    }
    // Refused was refused: the same request is taken now, once.
    assert_eq!(produce(&site, taken).status, 200);
    setting::until_no_lag(&site, &mut running, PATIENCE).unwrap();
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
    check(&site, taken + 1);
}

#[test]
fn on_a_full_disk_writers_are_told_and_consumers_wait_until_there_is_room() {
    check_full_disk(false);
}

#[test]
fn a_kill_on_a_full_disk_loses_nothing_that_was_acknowledged() {
    check_full_disk(true);
}

/// An event whose outputs wait for room is in flight at each death, and alone when the events of the
/// deaths before are tried. The plugin is long done with it: it must not be given up.
#[test]
fn kills_while_a_full_disk_is_waited_for_give_no_event_up() {
    check_kills_on_a_full_disk("at-least-once", "a unit was not written");
    check_kills_on_a_full_disk("exactly-once", "a transaction had no effect");
}

/// `refusal` is what the runtime says when the disk has no room for what the plugin derived.
fn check_kills_on_a_full_disk(delivery: &str, refusal: &str) {
    let topic = setting::topic("in", 2);
    let site = setting::site(&topic).unwrap();
    let Some(disk) = Disk::mount(site.path().join("data"), "76m") else {
        return;
    };
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    let mut taken = 0;
    while produce(&site, taken).status == 200 {
        taken += 1;
        assert!(taken < 1_000, "the disk does not fill");
    }
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();

    let more = format!("delivery = \"{delivery}\"\ndead_letter = {{ topic = \"dlq\" }}\n");
    let consumer = setting::hostile_consumer("hostile", "in", &more).unwrap();
    site.configure(&format!("{}\n{topic}{consumer}", setting::head(&site)))
        .unwrap();
    let refused = |log: &str| log.matches(refusal).count();
    let mut before = 0;
    for _ in 0..5 {
        running = site.start(&[]).unwrap();
        let deadline = Deadline::after(PATIENCE);
        while refused(&running.logs()) == before {
            assert!(
                running.running() && !deadline.passed(),
                "{}",
                running.logs()
            );
            step();
        }
        running.kill9().unwrap();
        before = refused(&running.logs());
    }
    disk.resize("512m");
    setting::until_idle(&site).unwrap();
    assert_eq!(lines(&site, "dlq"), [""; 0]);
    let derived: BTreeSet<String> = lines(&site, "derived").into_iter().collect();
    assert_eq!(derived, lines(&site, "in").into_iter().collect());
    setting::check_no_lag(&site).unwrap();
}

/// Without `min_free_disk` a write fails in its midst. A half of it that is read later, an answer for
/// what is not on disk, or a process that goes on with a store of which nothing is known show here.
#[test]
fn a_disk_that_is_full_to_the_last_byte_ends_the_process_and_loses_nothing() {
    let site = setting::site(&format!("{}{}", setting::topic("in", 2), consumer())).unwrap();
    let text = fs::read_to_string(site.path().join("millstream.toml")).unwrap();
    let unguarded = text.replace("min_free_disk = \"64MiB\"", "min_free_disk = \"0B\"");
    assert_ne!(unguarded, text);
    site.configure(&unguarded).unwrap();
    let Some(disk) = Disk::mount(site.path().join("data"), "96m") else {
        return;
    };
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    let mut taken = 0;
    while try_produce(&site, taken).is_some_and(|answer| answer.status == 200) {
        taken += 1;
        assert!(taken < 1_000, "the disk does not fill");
    }
    assert!(taken > 5, "{taken}");
    let status = running.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(70), "{}", running.logs());

    disk.resize("512m");
    running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    // What got no answer of success may be there, as a whole, or not at all.
    let last = format!("{taken}-");
    let stored = lines(&site, "in");
    match stored.iter().filter(|line| line.starts_with(&last)).count() {
        0 => assert_eq!(produce(&site, taken).status, 200),
        all => assert_eq!(all, LINES, "a part of a request"),
    }
    setting::until_no_lag(&site, &mut running, PATIENCE).unwrap();
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
    check(&site, taken + 1);
}

/// The journal that was written last.
fn journal(store: &Path) -> PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|name| name == "jnl") {
                found.push((fs::metadata(&path).unwrap().modified().unwrap(), path));
            }
        }
    }
    found.into_iter().max().unwrap().1
}

/// One past the last byte that is not zero.
fn end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// A batch that did not come to its end must not be read as one, nor keep the store from opening; and
/// those before it must not go with it.
#[test]
fn a_torn_last_write_is_dropped_and_told_and_nothing_before_it_is_lost() {
    let site = setting::site(&format!("{}{}", setting::topic("in", 2), consumer())).unwrap();
    let store = site.path().join("data/store");
    for (requests, part) in [(3, 0.02), (6, 0.5), (9, 0.98)] {
        let mut running = site.start(&[]).unwrap();
        running.until_ready(PATIENCE).unwrap();
        let journal_before = journal(&store);
        let before = end(&fs::read(&journal_before).unwrap());
        for request in requests - 3..requests {
            assert_eq!(produce(&site, request).status, 200);
        }
        running.kill9().unwrap();
        // The beginning of another batch, as a write leaves it that was cut off in the middle.
        let path = journal(&store);
        let bytes = fs::read(&path).unwrap();
        let written = end(&bytes);
        assert!(path == journal_before && written > before);
        let batch = &bytes[before..written];
        let torn = &batch[..(batch.len() as f64 * part / 3.0) as usize];
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(torn, written as u64).unwrap();
        setting::until_idle(&site).unwrap();
        check(&site, requests);
        let log = fs::read_to_string(site.path().join("log.txt")).unwrap();
        assert!(
            log.contains("was cut short and is dropped"),
            "{part}: {log}"
        );
        fs::File::create(site.path().join("log.txt"))
            .unwrap()
            .flush()
            .unwrap();
    }
}

/// Wherever a disk loses what comes after: all before it stays, and of what comes after it no request
/// is there in part, nor one without those before it.
#[test]
fn a_cut_at_any_place_of_the_journal_leaves_what_was_acknowledged_before() {
    let seed = std::env::var("MILLSTREAM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("MILLSTREAM_TEST_SEED={seed} repeats these places");
    let mut random = fastrand::Rng::with_seed(seed);
    let site = setting::site(&format!("{}{}", setting::topic("in", 2), consumer())).unwrap();
    let store = site.path().join("data/store");
    for round in 0..5 {
        let mut running = site.start(&[]).unwrap();
        running.until_ready(PATIENCE).unwrap();
        let first = round * 4;
        assert_eq!(produce(&site, first).status, 200);
        setting::until_no_lag(&site, &mut running, PATIENCE).unwrap();
        let path = journal(&store);
        let before = end(&fs::read(&path).unwrap());
        let later = first + 1..first + 4;
        for request in later.clone() {
            assert_eq!(produce(&site, request).status, 200);
        }
        running.kill9().unwrap();
        assert_eq!(journal(&store), path);
        let written = end(&fs::read(&path).unwrap());
        let cut = random.usize(before..written);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; written - cut], cut as u64)
            .unwrap();

        running = site.start(&[]).unwrap();
        running.until_ready(PATIENCE).unwrap();
        let stored = lines(&site, "in");
        let of = |request: usize| {
            let named = format!("{request}-");
            let all = stored.iter().filter(|line| line.starts_with(&named));
            all.count()
        };
        let counts: Vec<usize> = (0..first + 4).map(of).collect();
        let whole = counts.iter().take_while(|count| **count == LINES).count();
        assert!(
            whole > first && counts[whole..].iter().all(|count| *count == 0),
            "cut at {cut} of {before}..{written}: {counts:?}"
        );
        for request in whole..first + 4 {
            assert_eq!(produce(&site, request).status, 200);
        }
        setting::until_no_lag(&site, &mut running, PATIENCE).unwrap();
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        check(&site, first + 4);
    }
}

#[test]
fn a_store_that_another_process_holds_is_named_with_its_holder_and_the_remedy() {
    let site = setting::site(&consumer()).unwrap();
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    let other = setting::site(&consumer()).unwrap();
    let text = fs::read_to_string(other.path().join("millstream.toml")).unwrap();
    let data = site.path().join("data").display().to_string();
    other
        .configure(&text.replace("data_dir = \"data\"", &format!("data_dir = {data:?}")))
        .unwrap();
    let failed = setting::fail(&other, 70, &["run"]).unwrap();
    let holder = format!("in use by process {}", running.id());
    for words in [holder.as_str(), data.as_str(), "data_dir", "HTTP interface"] {
        assert!(failed.stderr.contains(words), "{words}: {failed:?}");
    }
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
}
