//! Does the work of one part of the runtime for a number of events, so that valgrind can count its
//! instructions: `cost PART EVENTS FOLDER CACHE PLUGIN`.
//!
//! ```text
//! main     which part
//!   wall   batches through a real instance of a plugin
//!   path   events through a whole consumer ──▶ session  a broker in memory ──▶ passing  a plugin in Rust
//!   store  appends to the embedded store, and reads from it
//! setting  where things lie, and the configuration
//! events   what goes through: the same at each run
//! ```
//!
//! Each part checks what came out: a count of work that was not done would be a good one.

mod events;
mod passing;
mod path;
mod session;
mod setting;
mod store;
mod wall;

use anyhow::{Context, Result, bail};
use millstream::config::Delivery;

use crate::setting::Setting;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| {
        arguments
            .next()
            .with_context(|| format!("{name} is missing"))
    };
    let part = next("the part")?;
    let events = next("the number of events")?.parse()?;
    let setting = Setting {
        folder: next("the folder")?.into(),
        cache: next("the cache's folder")?.into(),
        plugin: next("the plugin")?.into(),
    };
    match part.as_str() {
        "wall" => wall::run(&setting, events),
        "path" => path::run(&setting, events, Delivery::AtLeastOnce),
        "path-exactly-once" => path::run(&setting, events, Delivery::ExactlyOnce),
        "append" => store::append(&setting, events),
        "read" => store::read(&setting, events),
        _ => bail!("there is no part {part}"),
    }
    .with_context(|| format!("{part} with {events} events"))
}
