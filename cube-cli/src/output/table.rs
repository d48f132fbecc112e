//! Tables as kubectl prints them: a column is its longest cell and 3 more, at least 6 wide; `<none>` where there is nothing; no blanks at the end.

use super::style::{Style, Tone};

const GAP: usize = 3;
const NARROWEST: usize = 6;

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a colour, where there are colours.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: one_line(&text.into()), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// What nodes and images call themselves must not break the table, nor reach the terminal as control characters.
fn one_line(text: &str) -> String {
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// Rows below a header.
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows. The header is in upper case.
    pub fn new(header: Vec<&'static str>) -> Self {
        Self { header, rows: Vec::new() }
    }

    /// Adds a row: a cell for each word of the header.
    pub fn row(&mut self, row: Vec<Cell>) {
        assert_eq!(row.len(), self.header.len(), "a row has a cell for each column");
        self.rows.push(row);
    }

    /// The columns' widths. Rows that come later may be printed with them, so that a watch stays aligned.
    pub fn widths(&self) -> Vec<usize> {
        let longest = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            cells.chain([self.header[column].len()]).max().unwrap_or_default()
        };
        (0..self.header.len()).map(|column| (longest(column) + GAP).max(NARROWEST)).collect()
    }

    /// Header and rows.
    pub fn text(&self, style: Style) -> String {
        let header: Vec<Cell> = self.header.iter().map(|&word| Cell::from(word)).collect();
        let widths = self.widths();
        let mut text = line(&header, &widths, style);
        text.push_str(&self.rows_text(&widths, style));
        text
    }

    /// The rows alone, in columns of these widths.
    pub fn rows_text(&self, widths: &[usize], style: Style) -> String {
        self.rows.iter().map(|row| line(row, widths, style)).collect()
    }
}

fn line(cells: &[Cell], widths: &[usize], style: Style) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        line.push_str(&style.paint(&cell.text, cell.tone));
        if column + 1 < cells.len() {
            // A cell that is wider than its column was when the watch began still keeps a distance to the next.
            let blanks = width.saturating_sub(cell.text.chars().count()).max(1);
            line.extend(std::iter::repeat_n(' ', blanks));
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec!["NAME", "A", "LAST"]);
        table.row(vec!["a-long-name".into(), "1".into(), "x".into()]);
        table.row(vec!["b".into(), "".into(), "two\nlines\u{1b}[31m".into()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_kubectls() {
        let expected = "NAME          A        LAST\na-long-name   1        x\nb             <none>   two lines [31m\n";
        assert_eq!(table().text(Style::PLAIN), expected);
    }

    #[test]
    fn a_later_row_keeps_the_columns_of_the_first_table() {
        let widths = table().widths();
        let mut later = Table::new(vec!["NAME", "A", "LAST"]);
        later.row(vec!["a-much-longer-name".into(), "1".into(), "x".into()]);
        assert_eq!(later.rows_text(&widths, Style::PLAIN), "a-much-longer-name 1        x\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(vec!["STATUS", "AGE"]);
        table.row(vec![Cell::toned("Running", Tone::Good), "1s".into()]);
        assert_eq!(table.text(Style::COLOURED), "STATUS    AGE\n\u{1b}[32mRunning\u{1b}[0m   1s\n");
    }
}
