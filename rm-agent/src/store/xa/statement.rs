//! What a text does as far as XA has to know: whether it would end the local transaction behind
//! the branch's back, and whether it may write. Everything else is the database's business.

use crate::{
    at::lexer::{LexError, Token},
    error::Error,
    limits,
};

/// What differs between databases.
pub(in crate::store) struct Dialect {
    pub(in crate::store) tokenize: fn(&str) -> Result<Vec<Token>, LexError>,
    /// The command that opens, ends or prepares a transaction, if the statement is one.
    pub(in crate::store) control: fn(&str, &[Token]) -> Option<&'static str>,
    /// First words of statements that change nothing by themselves.
    pub(in crate::store) reading: &'static [&'static str],
    /// Words with which even those may do something that only a prepared transaction keeps back.
    pub(in crate::store) writing: &'static [&'static str],
    /// First words of statements that write, here, what their count of rows says, and words that
    /// make one do more than that.
    pub(in crate::store) counted: &'static [&'static str],
    pub(in crate::store) uncounted: &'static [&'static str],
    /// Whether a function that the statement calls may write.
    pub(in crate::store) calls: fn(&str, &[Token]) -> bool,
}

/// What is known of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Text {
    /// Statements in it.
    pub(in crate::store) statements: usize,
    /// Whether it writes.
    pub(in crate::store) writes: Writes,
}

/// Whether a text writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Writes {
    /// Not by itself.
    No,
    /// If it counts a row.
    IfRows,
    /// As far as can be seen from outside.
    Yes,
}

impl Dialect {
    /// Looks at a text; its words come with what is known of it.
    ///
    /// # Errors
    /// [`Error::TransactionControl`] if it has such a statement; [`Error::TooLarge`]; and
    /// [`Error::Statement`] if its end cannot be seen.
    pub(in crate::store) fn read(&self, sql: &str) -> Result<(Text, Vec<Token>), Error> {
        if sql.len() > limits::MAX_XA_SQL_BYTES {
            return Err(Error::TooLarge {
                what: format!("a statement text of {} bytes", sql.len()),
                limit: limits::MAX_XA_SQL_BYTES,
            });
        }
        let tokens = (self.tokenize)(sql).map_err(|error| Error::Statement {
            part: error.0.to_owned(),
            advice: "correct the text".to_owned(),
        })?;
        let mut text = Text {
            statements: 0,
            writes: Writes::No,
        };
        // Brackets are no shelter: a statement that the database takes there for one of its own
        // body, as in BEGIN ATOMIC, is refused as well.
        for statement in tokens.split(|token| token.is_symbol(';')) {
            let words = statement
                .iter()
                .position(|token| !token.is_symbol('('))
                .map_or(&[][..], |first| &statement[first..]);
            let Some(first) = words.first() else { continue };
            if let Some(command) = (self.control)(sql, words) {
                return Err(Error::TransactionControl {
                    command: command.to_owned(),
                });
            }
            text.statements += 1;
            let begins = |with: &[&str]| with.iter().any(|word| first.is_word(sql, word));
            let has = |words: &[&str]| {
                let one = |token: &Token| words.iter().any(|word| token.is_word(sql, word));
                statement.iter().any(one)
            };
            let writes = if begins(self.reading) && !has(self.writing) {
                Writes::No
            } else if begins(self.counted) && !has(self.uncounted) {
                Writes::IfRows
            } else {
                Writes::Yes
            };
            text.writes = text.writes.max(match writes {
                Writes::No | Writes::IfRows if (self.calls)(sql, statement) => Writes::Yes,
                writes => writes,
            });
        }
        Ok((text, tokens))
    }
}
