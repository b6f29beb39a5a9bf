//! Tables for people: aligned columns, two spaces apart.

use unicode_width::UnicodeWidthStr as _;

/// A table under construction.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

struct Column {
    title: &'static str,
    numbers: bool,
}

impl Table {
    /// A table with these columns; the title of a column of numbers begins with `#`, which is not
    /// shown.
    pub fn new(titles: &[&'static str]) -> Self {
        let columns = titles.iter().map(|title| match title.strip_prefix('#') {
            Some(title) => Column {
                title,
                numbers: true,
            },
            None => Column {
                title,
                numbers: false,
            },
        });
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell a column.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A name may hold anything; a control character would move the cursor.
        let clean = |cell: String| match cell.chars().any(char::is_control) {
            true => cell.escape_debug().to_string(),
            false => cell,
        };
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text; titles in bold with `color`.
    pub fn render(&self, color: bool) -> String {
        let width = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            let title = self.columns[index].title.width();
            cells.map(|cell| cell.width()).fold(title, usize::max)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = String::new();
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let line = self.line(&titles, &widths);
        match color {
            true => out.push_str(&format!("\x1b[1m{line}\x1b[0m\n")),
            false => out.push_str(&format!("{line}\n")),
        }
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            out.push_str(&self.line(&cells, &widths));
            out.push('\n');
        }
        out
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            match column.numbers {
                true => line.push_str(&format!("{padding}{cell}")),
                false => line.push_str(&format!("{cell}{padding}")),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_left_and_numbers_right() {
        let mut table = Table::new(&["TOPIC", "#EVENTS", "STATE"]);
        table.row(["orders".into(), "7".into(), "running".into()]);
        table.row(["größe".into(), "12345678".into(), String::new()]);
        let wanted = "TOPIC     EVENTS  STATE\norders         7  running\ngröße   12345678\n";
        assert_eq!(table.render(false), wanted);
    }

    /// A topic named by somebody else must not take over the operator's terminal.
    #[test]
    fn control_characters_are_shown_as_text() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\x1b[2Jb\n".into()]);
        assert!(!table.render(false).contains('\x1b'));
        assert_eq!(table.render(false).lines().count(), 2);
    }
}
