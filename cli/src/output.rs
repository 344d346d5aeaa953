//! Where results go: a table for people, or JSON as the last line of stdout.

use std::io::{self, IsTerminal as _, Write};

use comfy_table::{Cell, Color, Table, presets::NOTHING};
use serde::Serialize;

use crate::failure::Failure;

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of tables.
    pub(crate) json: bool,
    /// Colours in tables.
    pub(crate) colour: bool,
}

impl Output {
    /// Colours only on a terminal, and only when `NO_COLOR` is empty or not set.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            colour: io::stdout().is_terminal() && !no_colour(),
        }
    }

    /// Writes a result: `value` as one line of JSON, or `text`.
    ///
    /// # Errors
    /// When stdout cannot be written; a reader that went away is no error.
    pub(crate) fn write(self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        let line = if self.json {
            serde_json::to_string(value).map_err(Failure::failed)?
        } else {
            text.trim_end().to_owned()
        };
        write_line(&mut io::stdout().lock(), &line)
    }

    /// An empty table with these column titles.
    pub(crate) fn table(self, titles: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(titles);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }
}

/// Whether the user asked for no colours (<https://no-color.org>).
pub(crate) fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Writes a line; a reader that went away (`accede tx list | head -1`) is no error.
///
/// # Errors
/// When the stream cannot be written for another reason.
pub(crate) fn write_line(to: &mut impl Write, line: &str) -> Result<(), Failure> {
    match writeln!(to, "{line}").and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Failed(format!(
            "the result could not be written: {error}"
        ))),
        _ => Ok(()),
    }
}

/// A status as a cell: red needs a person, green ended well.
pub(crate) fn status_cell(status: &str) -> Cell {
    let cell = Cell::new(status);
    match status {
        "stuck" => cell.fg(Color::Red),
        "committed" | "finished" => cell.fg(Color::Green),
        "active" | "delegated" | "pre-committed" | "committing" | "rolling-back" => {
            cell.fg(Color::Yellow)
        }
        _ => cell,
    }
}

/// A table without the spaces that pad its last column.
pub(crate) fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        assert_eq!(
            write_line(&mut Closed(io::ErrorKind::BrokenPipe), "x"),
            Ok(())
        );
        let full = write_line(&mut Closed(io::ErrorKind::StorageFull), "x").expect_err("full");
        assert!(full.to_string().contains("could not be written"), "{full}");
    }

    #[test]
    fn colours_only_when_wanted() {
        let render = |colour| {
            let mut table = Output {
                json: false,
                colour,
            }
            .table(&["status"]);
            table.add_row([status_cell("stuck")]);
            trimmed(&table)
        };
        assert!(render(true).contains("\u{1b}["));
        assert!(!render(false).contains('\u{1b}'));
    }
}
