//! Tables, for the terminal and in Markdown.

use std::iter::once;

/// A table: names in the first column, numbers in the others.
pub(super) struct Table {
    title: String,
    /// The head is the first.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(title: &str, head: &[&str]) -> Self {
        let head = head.iter().map(ToString::to_string).collect();
        Self { title: title.to_owned(), rows: vec![head] }
    }

    pub(super) fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Columns as wide as they must be.
    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let wide = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(wide).collect();
        let rows = self.rows.iter().map(|row| line(row, &widths));
        once(self.title.clone()).chain(rows).collect::<Vec<_>>().join("\n") + "\n"
    }

    pub(super) fn markdown(&self) -> String {
        let line = |row: &Vec<String>| format!("| {} |", row.join(" | "));
        let columns = self.rows.first().map_or(1, Vec::len);
        let rule = format!("|---|{}", "--:|".repeat(columns - 1));
        let mut rows: Vec<String> = self.rows.iter().map(line).collect();
        rows.insert(1, rule);
        format!("{}:\n\n{}\n", self.title, rows.join("\n"))
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).enumerate();
    let cells = cells.map(|(column, (cell, &width))| match column {
        0 => format!("{cell:width$}"),
        _ => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join("  ")
}

/// A number of KiB.
pub(super) fn kib(value: f64) -> String {
    format!("{value:.0}")
}

/// A number of milliseconds.
pub(super) fn millis(value: f64) -> String {
    format!("{value:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_two_forms() {
        let mut table = Table::new("What", &["", "ms"]);
        table.row(vec!["a name".into(), millis(1.234)]);
        assert_eq!(table.text(), "What\n          ms\na name  1.23\n");
        assert_eq!(table.markdown(), "What:\n\n|  | ms |\n|---|--:|\n| a name | 1.23 |\n");
    }
}
