//! `millstream dlq list CONSUMER`.

use super::super::table::Table;
use super::super::{Context, OutputFormat, terminal};
use super::line::{self, Line};
use super::scan::Snapshot;
use super::seen::{self, Seen};
use super::{Letters, replay};
use crate::consumer::letter::Letter;
use crate::event::EventView;

/// Rows of one table; a longer list is several.
const ROWS: usize = 1_000;
/// Bytes of JSON that are written at once.
const LINES: usize = 64 << 10;

/// Prints the dead letters that the filter lets through.
///
/// # Errors
/// Of the broker, or nobody reads the output.
pub async fn run(letters: &Letters<'_>, context: &Context) -> anyhow::Result<()> {
    let mut printer = Printer::new(context);
    let Some(snapshot) = Snapshot::of(letters.topics, &letters.topic).await? else {
        return printer.end(letters).await;
    };
    let mut seen = Seen::new(seen::MOST);
    replay::note_all(letters, &snapshot, &mut seen).await?;
    let mut scan = snapshot.scan();
    while let Some(batch) = scan.next(letters.topics).await? {
        for event in batch.events() {
            if let Some(letter) = letters.newest(&event, &mut seen) {
                printer.add(&event, &letter)?;
                if printer.is_full() {
                    printer.flush().await?;
                }
            }
        }
    }
    printer.end(letters).await?;
    if seen.left_out() > 0 {
        eprintln!(
            "note: there are more than {} dead letters; those beyond may be shown more than once, \
             --source tells all of one topic or partition apart",
            seen::MOST
        );
    }
    Ok(())
}

impl Letters<'_> {
    /// What an event of the dead-letter topic says, where it is the newest dead letter of its event
    /// and wanted. Asked once an event.
    pub fn newest(&self, event: &EventView<'_>, seen: &mut Seen) -> Option<Letter> {
        let letter = self.read(event)?;
        (seen.take(&letter) && self.filter.wants(&letter, event.key())).then_some(letter)
    }

    /// A dead letter of the consumer from a place that is wanted.
    pub fn read(&self, event: &EventView<'_>) -> Option<Letter> {
        let letter = Letter::read(event)?;
        (self.consumer.was_called(&letter.consumer) && self.filter.covers(&letter))
            .then_some(letter)
    }
}

/// Prints dead letters, a table's worth at a time.
pub struct Printer {
    json: bool,
    color: bool,
    table: Table,
    rows: usize,
    printed: u64,
    lines: Vec<u8>,
}

impl Printer {
    /// Prints as the command line asks.
    pub fn new(context: &Context) -> Self {
        Self {
            json: context.output == OutputFormat::Json,
            color: context.color,
            table: line::table(),
            rows: 0,
            printed: 0,
            lines: Vec::new(),
        }
    }

    /// Adds a dead letter.
    ///
    /// # Errors
    /// None of note: it is rendered in memory.
    pub fn add(&mut self, event: &EventView<'_>, letter: &Letter) -> anyhow::Result<()> {
        self.printed += 1;
        if self.json {
            serde_json::to_writer(&mut self.lines, &Line::new(event, letter))?;
            self.lines.push(b'\n');
        } else {
            line::add_row(&mut self.table, event, letter);
            self.rows += 1;
        }
        Ok(())
    }

    /// Whether so much waits that it should be written out.
    pub fn is_full(&self) -> bool {
        self.rows >= ROWS || self.lines.len() >= LINES
    }

    /// Writes out what waits.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        let lines = std::mem::take(&mut self.lines);
        terminal::write(&mut tokio::io::stdout(), &lines).await?;
        if self.rows > 0 {
            let table = std::mem::replace(&mut self.table, line::table());
            self.rows = 0;
            terminal::print(&table.render(self.color)).await?;
        }
        Ok(())
    }

    /// Writes out the rest, and says where nothing was printed.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn end(&mut self, letters: &Letters<'_>) -> anyhow::Result<()> {
        self.flush().await?;
        if self.printed == 0 {
            eprintln!(
                "no dead letters of consumer {} in topic {} are as asked for",
                letters.consumer.name, letters.topic
            );
        }
        Ok(())
    }
}
