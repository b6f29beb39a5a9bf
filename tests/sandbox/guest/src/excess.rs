//! Too much of what is allowed: depth, entries, series, points, names.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::answer::Answer;
use crate::deeds::milliseconds;
use crate::millstream::plugin::{log, metrics, runtime};

/// A character that takes five where it is shown.
const UNPRINTABLE: &str = "\u{1}";

/// Does what `verb` says for the event at `index`; false where it is not known.
pub fn exceed(answer: &mut Answer, index: u32, verb: &str) -> bool {
    match verb {
        "recurse" => answer.reply(index, &recurse(1).to_string()),
        "recurse-wide" => answer.reply(index, &recurse_wide(1).to_string()),
        "abort" => std::process::abort(),
        "flood-lines" => (0..10_000).for_each(|line| println!("line {line}")),
        "endless-line" => {
            let piece = vec![b'x'; 1 << 20];
            // A refused write is as good as a taken one.
            (0..16).for_each(|_| drop(std::io::stdout().write_all(&piece)));
        }
        "unprintable-log" => {
            let field = log::Field {
                name: UNPRINTABLE.repeat(2 << 20),
                value: UNPRINTABLE.repeat(4 << 20),
            };
            log::write(log::Level::Info, Some(index), "", &[field]);
        }
        "many-fields" => {
            let field = || log::Field {
                name: "n".into(),
                value: "v".into(),
            };
            let fields: Vec<_> = (0..100_000).map(|_| field()).collect();
            log::write(log::Level::Info, Some(index), "fields", &fields);
        }
        "log-of-no-event" => log::write(log::Level::Info, Some(u32::MAX), "whose?", &[]),
        "labels" => {
            let taken = (0..10_000).filter(|n| declare("exploding", &n.to_string()).is_ok());
            let taken = taken.count();
            answer.reply(index, &taken.to_string());
        }
        "declare-again" => {
            let metric = |_| declare("again", "same").unwrap_or(u32::MAX);
            let highest = (0..20_000).map(metric).max();
            answer.reply(index, &highest.unwrap_or(u32::MAX).to_string());
        }
        "unprintable-name" => {
            let refused = declare(&UNPRINTABLE.repeat(4 << 20), "x").err();
            let refused = refused.unwrap_or_default();
            answer.reply(index, &format!("refused in {} bytes", refused.len()));
        }
        "long-label" => {
            let refused = declare("long", &"x".repeat(1 << 20)).is_err();
            answer.reply(index, if refused { "refused" } else { "taken" });
        }
        "many-points" => {
            let point = metrics::Point {
                metric: u32::MAX,
                value: 1.0,
            };
            metrics::report(&vec![point; 1 << 20]);
        }
        "impossible-points" => impossible_points(),
        "long-property" => {
            let value = runtime::property(&"x".repeat(8 << 20));
            answer.reply(index, value.as_deref().unwrap_or("none"));
        }
        "input" => {
            let mut read = Vec::new();
            let read = std::io::stdin().read_to_end(&mut read);
            answer.reply(index, &format!("{} bytes", read.unwrap_or_default()));
        }
        "beyond" => answer.reply(index, &beyond()),
        "clocks" => answer.reply(index, &clocks()),
        _ => return false,
    }
    true
}

#[expect(
    unconditional_recursion,
    reason = "that it never ends is what is tested"
)]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + 1
}

#[expect(
    unconditional_recursion,
    reason = "that it never ends is what is tested"
)]
fn recurse_wide(depth: u8) -> u64 {
    let frame = black_box([depth; 64 << 10]);
    let below = recurse_wide(frame[usize::from(depth)].wrapping_add(1));
    below + u64::from(black_box(&frame)[0])
}

fn declare(name: &str, label: &str) -> Result<metrics::Metric, String> {
    let label = metrics::Label {
        name: "label".into(),
        value: label.into(),
    };
    metrics::declare(
        metrics::Instrument::Counter,
        name,
        "too much",
        &[label],
        &[],
    )
}

fn impossible_points() {
    if let Ok(metric) = declare("impossible", "x") {
        let values = [f64::NAN, -1.0, f64::INFINITY, f64::NEG_INFINITY];
        metrics::report(&values.map(|value| metrics::Point { metric, value }));
        metrics::report(&[metrics::Point { metric, value: 1.0 }]);
    }
}

/// What could lead out of the sandbox: each of these must be refused.
fn beyond() -> String {
    let seen = |yes: bool| if yes { "done" } else { "refused" };
    format!(
        "thread={} process={} listen={} folder={} link={} removal={} here={}",
        seen(std::thread::Builder::new().spawn(|| ()).is_ok()),
        seen(std::process::Command::new("/bin/sh").spawn().is_ok()),
        seen(std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
        seen(std::fs::create_dir("/tmp/hostile").is_ok()),
        seen(std::fs::hard_link("/etc/passwd", "/tmp/hostile").is_ok()),
        seen(std::fs::remove_dir_all("/tmp").is_ok()),
        seen(std::env::current_dir().is_ok_and(|here| here.join("Cargo.toml").exists())),
    )
}

/// How far each clock goes in some milliseconds of work.
fn clocks() -> String {
    let (wall, monotonic) = (milliseconds(), Instant::now());
    while monotonic.elapsed() < Duration::from_millis(5) {
        black_box(());
    }
    let stood = milliseconds() == wall;
    format!(
        "wall={} monotonic=goes",
        if stood { "stands" } else { "goes" }
    )
}
