//! Splits PostgreSQL text into tokens with their positions.
//!
//! Knows just enough (quotes, comments, dollar quotes, nesting) to find the
//! clauses of a statement in the user's own text, so that the rest of the text
//! is passed on byte for byte instead of being printed from a syntax tree.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// An unquoted word: keyword or identifier.
    Word,
    /// `"…"`.
    QuotedIdentifier,
    /// Any form of string constant.
    Text,
    /// A number.
    Number,
    /// `$1`.
    Parameter,
    /// One character of anything else.
    Symbol(char),
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    /// Where it stands in the text, in bytes.
    pub(crate) span: Range<usize>,
    /// How many brackets are open around it; a bracket itself counts as outside.
    pub(crate) depth: usize,
}

impl Token {
    /// Whether it is this keyword, whatever its case.
    pub(crate) fn is_word(&self, sql: &str, word: &str) -> bool {
        self.kind == TokenKind::Word && sql[self.span.clone()].eq_ignore_ascii_case(word)
    }

    pub(crate) fn is_symbol(&self, symbol: char) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }
}

/// What the text does wrong: one phrase for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LexError(pub(crate) &'static str);

/// Splits the text. Assumes `standard_conforming_strings = on`.
pub(crate) fn tokenize(sql: &str) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer {
        sql,
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
    sql: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    tokens: Vec<Token>,
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
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
            b'-' if self.peek(1) == b'-' => {
                let rest = &self.bytes[self.at..];
                let line = rest.iter().position(|&b| b == b'\n' || b == b'\r');
                self.at += line.unwrap_or(rest.len());
            }
            b'/' if self.peek(1) == b'*' => self.block_comment()?,
            b'\'' => {
                self.quoted(b'\'', false)?;
                self.push(TokenKind::Text, start);
            }
            b'"' => {
                self.quoted(b'"', false)?;
                self.push(TokenKind::QuotedIdentifier, start);
            }
            b'$' if self.peek(1).is_ascii_digit() => {
                self.at += 1;
                self.take_while(|b| b.is_ascii_digit());
                self.push(TokenKind::Parameter, start);
            }
            b'$' => self.dollar(start)?,
            byte if byte.is_ascii_digit() || (byte == b'.' && self.peek(1).is_ascii_digit()) => {
                self.number();
                self.push(TokenKind::Number, start);
            }
            byte if starts_word(byte) => self.word(start)?,
            b'(' | b'[' => {
                self.symbol(start);
                self.depth += 1;
            }
            b')' | b']' => {
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

    fn number(&mut self) {
        self.take_while(|b| b.is_ascii_digit() || b == b'.');
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                self.at += 1 + sign;
                self.take_while(|b| b.is_ascii_digit());
            }
        }
    }

    fn word(&mut self, start: usize) -> Result<(), LexError> {
        self.take_while(continues_word);
        let word = &self.sql[start..self.at];
        // Only these prefixes touch the quote that follows without a space.
        if self.peek(0) == b'\'' && matches!(word, "e" | "E" | "b" | "B" | "x" | "X" | "n" | "N") {
            self.quoted(b'\'', word.eq_ignore_ascii_case("e"))?;
            self.push(TokenKind::Text, start);
        } else if word.eq_ignore_ascii_case("u")
            && self.peek(0) == b'&'
            && matches!(self.peek(1), b'\'' | b'"')
        {
            return Err(LexError("a U& constant or identifier"));
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

    fn dollar(&mut self, start: usize) -> Result<(), LexError> {
        let tag_length = self.bytes[start + 1..]
            .iter()
            .position(|&b| !(starts_word(b) || b.is_ascii_digit()))
            .unwrap_or(0);
        let body = start + tag_length + 2;
        if self.bytes.get(body - 1) != Some(&b'$') {
            self.symbol(start);
            return Ok(());
        }
        let tag = &self.sql[start..body];
        let length = self.sql[body..]
            .find(tag)
            .ok_or(LexError("a dollar quote that is not closed"))?;
        self.at = body + length + tag.len();
        self.push(TokenKind::Text, start);
        Ok(())
    }

    fn block_comment(&mut self) -> Result<(), LexError> {
        let mut open = 0_usize;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    open += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    open -= 1;
                    self.at += 2;
                    if open == 0 {
                        return Ok(());
                    }
                }
                _ => self.at += 1,
            }
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
    fn splits_like_postgres() {
        assert_eq!(
            texts("SELECT a.b, 'it''s' -- where\n FROM \"T\"\"x\" /* /* n */ */ WHERE x=$1"),
            [
                "SELECT",
                "a",
                ".",
                "b",
                ",",
                "'it''s'",
                "FROM",
                "\"T\"\"x\"",
                "WHERE",
                "x",
                "=",
                "$1"
            ]
        );
        assert_eq!(texts(r"E'a\'b' 'a\'"), [r"E'a\'b'", r"'a\'"]);
        assert_eq!(
            texts("$$ where $$ $q$ $$ $q$ a$1"),
            ["$$ where $$", "$q$ $$ $q$", "a$1"]
        );
        assert_eq!(texts("1.5e-3 .5 1e"), ["1.5e-3", ".5", "1", "e"]);
        assert_eq!(texts("größe = 'ß'"), ["größe", "=", "'ß'"]);
    }

    #[test]
    fn counts_brackets() {
        let tokens = tokenize("f((a))[1]").expect("valid");
        let depths: Vec<_> = tokens.iter().map(|t| t.depth).collect();
        assert_eq!(depths, [0, 0, 1, 2, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn refuses_what_is_not_closed() {
        for bad in [
            "'a", "\"a", "/* /* */", "$a$ $b$", "(a", "a)", "E'\\'", "a\0b", "U&'x'",
        ] {
            assert!(tokenize(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_spans_are_in_order(sql in "[a-zé'\"$/*\\-\\\\()\\[\\]0-9 .;eEuU&\n]{0,60}") {
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
