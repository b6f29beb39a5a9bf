//! What an event can ask for.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::answer::Answer;
use crate::excess::exceed;
use crate::forgery::forge;
use crate::millstream::plugin::{log, metrics, runtime};

/// What a deed may depend on besides its command.
#[derive(Clone, Copy)]
pub struct Call {
    /// Counts the calls of this instance, from 1.
    pub number: u32,
    /// Of the event, from 1.
    pub attempt: u32,
}

/// Does what `command` says for the event at `index`; an unknown command forwards the event.
pub fn act(answer: &mut Answer, index: u32, command: &str, call: Call) {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    match verb {
        "trap" => core::arch::wasm32::unreachable(),
        "panic" => panic!("boom"),
        "logged-trap" => {
            log::write(log::Level::Error, Some(index), "price is negative", &[]);
            core::arch::wasm32::unreachable()
        }
        "spin" => spin(),
        "alloc" => eat(usize::MAX),
        "hold" => eat(rest.parse().unwrap_or(1)),
        "exit" => std::process::exit(3),
        "sleep" => std::thread::sleep(Duration::from_secs(3_600)),
        "hang" => {
            log::write(log::Level::Error, Some(index), "hangs on the event", &[]);
            std::thread::sleep(Duration::from_secs(3_600));
        }
        "garbage-span" => {
            let output = answer.forward(index);
            output.value.start = u32::MAX - 1;
            output.value.length = 2;
            output.edit = 2 << 2;
        }
        "too-many-outputs" => {
            for _ in 0..20_000 {
                answer.forward(index);
            }
        }
        "long-reply" => answer.reply(index, &"x".repeat((number(rest) as usize) << 20)),
        "huge-answer" => answer.0.data.resize(rest.parse().unwrap_or(0) << 20, b'x'),
        "reject" => answer.fail(index, 1),
        "retry" => answer.fail(index, 2),
        "unavailable" => stop(answer, index, 3),
        "halt" => stop(answer, index, 4),
        "retry-until" if call.attempt < number(rest) => answer.fail(index, 2),
        "unavailable-until-call" if call.number < number(rest) => stop(answer, index, 3),
        "retry-until-call" if call.number < number(rest) => answer.fail(index, 2),
        // The call, and the milliseconds that the plugin names.
        "unavailable-for" => {
            let (until, after_ms) = rest.split_once(' ').unwrap_or((rest, ""));
            if call.number < number(until) {
                answer.fail_for(index, 3, number(after_ms));
                answer.0.handled = index;
            } else {
                answer.forward(index);
            }
        }
        "busy" => {
            busy(Duration::from_millis(number(rest).into()));
            answer.forward(index);
        }
        "last" => {
            answer.forward(index);
            answer.0.handled = index + 1;
        }
        "handled-zero" => answer.0.handled = 0,
        "duplicate-failure" => {
            answer.fail(index, 1);
            answer.fail(index, 1);
        }
        "reserved-header" => answer.with_header(index, "millstream-id"),
        "huge-log" => log::write(log::Level::Info, Some(index), &"x".repeat(20_000), &[]),
        "many-logs" => {
            for _ in 0..2_000 {
                log::write(log::Level::Info, None, "again", &[]);
            }
        }
        "log" => {
            let field = log::Field {
                name: "colour".into(),
                value: "blue".into(),
            };
            log::write(log::Level::Warn, Some(index), rest, &[field]);
        }
        "print" => println!("{rest}"),
        "count-metric" => count(rest),
        "count-then-trap" => {
            count(rest);
            core::arch::wasm32::unreachable()
        }
        "count-then-garbage" => {
            count(rest);
            answer.0.handled = u32::MAX;
        }
        "bad-metric" => {
            let declared = declare("not a name");
            answer.reply(
                index,
                if declared.is_err() {
                    "refused"
                } else {
                    "taken"
                },
            );
        }
        "calls" => answer.reply(index, &call.number.to_string()),
        "property" => answer.reply(index, &runtime::property(rest).unwrap_or("none".into())),
        "time-left" => answer.reply(index, &runtime::time_left_ms().to_string()),
        "clock" => answer.reply(index, &milliseconds().to_string()),
        "random" => answer.reply(index, &RandomState::new().hash_one(7).to_string()),
        "sandbox" => answer.reply(index, &surroundings()),
        "trap-at" if call.number >= number(rest) => core::arch::wasm32::unreachable(),
        "drop" => {}
        _ if verb == "forge" && forge(answer, index, rest.trim()) => {}
        _ if exceed(answer, index, verb) => {}
        _ => {
            answer.forward(index);
        }
    }
}

/// Never ends, and never calls the host.
pub fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn number(text: &str) -> u32 {
    text.trim().parse().unwrap_or(1)
}

/// Works for this long.
fn busy(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        black_box(begun);
    }
}

/// Keeps this many mebibytes for good.
pub fn eat(mebibytes: usize) {
    for _ in 0..mebibytes {
        let meal = vec![1_u8; 1 << 20];
        std::mem::forget(black_box(meal));
    }
}

/// Fails in a way that ends the batch before the event.
fn stop(answer: &mut Answer, index: u32, remedy: u32) {
    answer.fail(index, remedy);
    answer.0.handled = index;
}

fn declare(name: &str) -> Result<metrics::Metric, String> {
    metrics::declare(
        metrics::Instrument::Counter,
        name,
        "what was seen",
        &[],
        &[],
    )
}

fn count(name: &str) {
    if let Ok(metric) = declare(name) {
        metrics::report(&[metrics::Point { metric, value: 1.0 }]);
    }
}

/// What the wall clock shows.
pub fn milliseconds() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis())
}

/// What can be seen of the host: each of these must be nothing.
fn surroundings() -> String {
    let seen = |yes: bool| if yes { "seen" } else { "none" };
    format!(
        "variables={} arguments={} file={} folder={} made={} tcp={} udp={} name={}",
        seen(std::env::vars().next().is_some()),
        seen(std::env::args().next().is_some()),
        seen(std::fs::read("/etc/passwd").is_ok()),
        seen(std::fs::read_dir(".").is_ok()),
        seen(std::fs::write("hostile.txt", b"x").is_ok()),
        seen(std::net::TcpStream::connect("127.0.0.1:9").is_ok()),
        seen(std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        seen(std::net::ToSocketAddrs::to_socket_addrs("localhost:80").is_ok()),
    )
}
