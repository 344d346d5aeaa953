//! Splits MariaDB text into tokens with their positions.
//!
//! Assumes that neither `ANSI_QUOTES` nor `NO_BACKSLASH_ESCAPES` is set; a branch
//! looks at that when it begins.

use crate::at::lexer::{LexError, Token, TokenKind};

/// Splits the text. `?` comes as [`TokenKind::Parameter`], `@name` as one
/// [`TokenKind::Symbol`] `@` before its name.
pub(crate) fn tokenize(sql: &str) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer {
        bytes: sql.as_bytes(),
        at: 0,
        depth: 0,
        tokens: Vec::with_capacity(sql.len() / 4),
    };
    while lexer.at < lexer.bytes.len() {
        lexer.next()?;
    }
    if lexer.depth == 0 {
        Ok(lexer.tokens)
    } else {
        Err(LexError("an opening bracket without its closing one"))
    }
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    tokens: Vec<Token>,
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn push(&mut self, kind: TokenKind, start: usize) {
        let (span, depth) = (start..self.at, self.depth);
        self.tokens.push(Token { kind, span, depth });
    }

    fn next(&mut self) -> Result<(), LexError> {
        let start = self.at;
        match self.peek(0) {
            0 => return Err(LexError("a zero byte")),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
            b'#' => self.line_comment(),
            b'-' if self.peek(1) == b'-' && (self.peek(2) <= b' ') => self.line_comment(),
            b'/' if self.peek(1) == b'*' => self.block_comment()?,
            quote @ (b'\'' | b'"') => {
                self.quoted(quote, true)?;
                self.push(TokenKind::Text, start);
            }
            b'`' => {
                self.quoted(b'`', false)?;
                self.push(TokenKind::QuotedIdentifier, start);
            }
            b'?' => {
                self.at += 1;
                self.push(TokenKind::Parameter, start);
            }
            byte if byte.is_ascii_digit() || (byte == b'.' && self.peek(1).is_ascii_digit()) => {
                self.number(start);
            }
            byte if in_word(byte) => self.word(start)?,
            b'(' => {
                self.symbol(start);
                self.depth += 1;
            }
            b')' => {
                self.depth = self
                    .depth
                    .checked_sub(1)
                    .ok_or(LexError("a closing bracket without its opening one"))?;
                self.symbol(start);
            }
            _ => self.symbol(start),
        }
        Ok(())
    }

    /// Pushes one ASCII character; every non-ASCII byte starts a word.
    fn symbol(&mut self, start: usize) {
        self.at += 1;
        self.push(TokenKind::Symbol(char::from(self.bytes[start])), start);
    }

    fn take_while(&mut self, keep: impl Fn(u8) -> bool) {
        while self.at < self.bytes.len() && keep(self.bytes[self.at]) {
            self.at += 1;
        }
    }

    /// A number, or a name that begins with a digit.
    fn number(&mut self, start: usize) {
        self.take_while(|b| b.is_ascii_digit());
        if self.peek(0) != b'.' && in_word(self.peek(0)) && !matches!(self.peek(0), b'e' | b'E') {
            self.take_while(in_word);
            return self.push(TokenKind::Word, start);
        }
        self.take_while(|b| b.is_ascii_digit() || b == b'.');
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                self.at += 1 + sign;
            }
            self.take_while(in_word);
        }
        self.push(TokenKind::Number, start);
    }

    fn word(&mut self, start: usize) -> Result<(), LexError> {
        self.take_while(in_word);
        let word = &self.bytes[start..self.at];
        // Only these prefixes touch the quote that follows without a space.
        if self.peek(0) == b'\'' && matches!(word, b"b" | b"B" | b"x" | b"X" | b"n" | b"N") {
            self.quoted(b'\'', true)?;
            self.push(TokenKind::Text, start);
        } else {
            self.push(TokenKind::Word, start);
        }
        Ok(())
    }

    fn quoted(&mut self, quote: u8, backslash: bool) -> Result<(), LexError> {
        self.at += 1;
        while self.at < self.bytes.len() {
            match self.bytes[self.at] {
                b'\\' if backslash => self.at += 2,
                byte if byte == quote && self.peek(1) == quote => self.at += 2,
                byte if byte == quote => {
                    self.at += 1;
                    return Ok(());
                }
                _ => self.at += 1,
            }
        }
        Err(LexError("a quote that is not closed"))
    }

    fn line_comment(&mut self) {
        self.take_while(|b| b != b'\n');
    }

    /// Comments do not nest. Those that the database runs are refused.
    fn block_comment(&mut self) -> Result<(), LexError> {
        if self.peek(2) == b'!' || (self.peek(2) == b'M' && self.peek(3) == b'!') {
            return Err(LexError("a comment that the database runs (/*! … */)"));
        }
        self.at += 2;
        while self.at < self.bytes.len() {
            if self.peek(0) == b'*' && self.peek(1) == b'/' {
                self.at += 2;
                return Ok(());
            }
            self.at += 1;
        }
        Err(LexError("a comment that is not closed"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        let tokens = tokenize(sql).expect("valid");
        tokens.into_iter().map(|t| &sql[t.span]).collect()
    }

    #[test]
    fn splits_like_mariadb() {
        assert_eq!(
            texts("SELECT a.`b``c`, 'it\\'s' # where\n FROM \"x\" /* /* n */ WHERE x=? -- end"),
            [
                "SELECT", "a", ".", "`b``c`", ",", "'it\\'s'", "FROM", "\"x\"", "WHERE", "x", "=",
                "?"
            ]
        );
        assert_eq!(texts("1--1"), ["1", "-", "-", "1"]);
        assert_eq!(
            texts("1.5e-3 2a x'00' @v"),
            ["1.5e-3", "2a", "x'00'", "@", "v"]
        );
        assert_eq!(texts("größe = 'ß'"), ["größe", "=", "'ß'"]);
    }

    #[test]
    fn refuses_what_is_not_closed_or_hidden() {
        for bad in [
            "'a",
            "\"a",
            "`a",
            "/* ",
            "(a",
            "a)",
            "'\\'",
            "a\0b",
            "/*! DROP */",
            "/*M!100100 x */",
        ] {
            assert!(tokenize(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_spans_are_in_order(sql in "[a-zé'\"`#/*!\\-\\\\()0-9 .;?@\n]{0,60}") {
            if let Ok(tokens) = tokenize(&sql) {
                let mut end = 0;
                for token in tokens {
                    prop_assert!(token.span.start >= end && token.span.end > token.span.start);
                    prop_assert!(sql.get(token.span.clone()).is_some());
                    end = token.span.end;
                }
            }
        }
    }
}
