//! Splits SQLite text into words. What a statement does is read from the program that
//! the database makes of it; here is only found out what must be known before the
//! database sees it: where it begins and ends, and which words it has.

use crate::at::{lexer::LexError, statement::Unsupported};
use crate::limits;

/// One token. Numbers, operators and parameters come as symbols, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A keyword or a plain name.
    Word(&'a str),
    /// A name in quotes of any kind, without them.
    Name(String),
    /// `'text'`.
    Text,
    /// Anything else.
    Symbol(u8),
}

impl Token<'_> {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found.eq_ignore_ascii_case(word))
    }

    /// The name that it may be, in small letters.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::Word(name) => Some(name.to_ascii_lowercase()),
            Self::Name(name) => Some(name.to_ascii_lowercase()),
            Self::Text | Self::Symbol(_) => None,
        }
    }
}

/// The tokens of a text that is one statement, without its semicolons.
pub(crate) fn one_statement(sql: &str) -> Result<Vec<Token<'_>>, Unsupported> {
    if sql.len() > limits::MAX_SQL_BYTES {
        return Err(Unsupported::new(
            format!("its text of {} bytes", sql.len()),
            format!("keep it below {} bytes", limits::MAX_SQL_BYTES),
        ));
    }
    let mut tokens = tokenize(sql).map_err(|error| {
        Unsupported::new(
            format!("{} in its text", error.0),
            "write it in plain syntax",
        )
    })?;
    while tokens.last() == Some(&Token::Symbol(b';')) {
        tokens.pop();
    }
    if tokens.contains(&Token::Symbol(b';')) {
        return Err(Unsupported::new(
            "several statements in one text",
            "send them one by one",
        ));
    }
    Ok(tokens)
}

/// Whether the text may make SQLite remove rows that are in the way of others: the word
/// REPLACE that is no function's name.
pub(crate) fn replaces(tokens: &[Token<'_>]) -> bool {
    tokens.iter().enumerate().any(|(index, token)| {
        token.is_word("REPLACE") && tokens.get(index + 1) != Some(&Token::Symbol(b'('))
    })
}

/// Splits the text.
pub(crate) fn tokenize(sql: &str) -> Result<Vec<Token<'_>>, LexError> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::with_capacity(sql.len() / 4);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        match byte {
            0 => return Err(LexError("a zero byte")),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => at += 1,
            b'-' if next == Some(b'-') => {
                let length = bytes[at..].iter().position(|&b| b == b'\n');
                at = length.map_or(bytes.len(), |length| at + length);
            }
            b'/' if next == Some(b'*') => {
                let end = sql[at + 2..].find("*/");
                at += 4 + end.ok_or(LexError("a comment without its end"))?;
            }
            b'\'' => {
                at = quoted(bytes, at, b'\'')?;
                tokens.push(Token::Text);
            }
            quote @ (b'"' | b'`') => {
                let end = quoted(bytes, at, quote)?;
                let [one, two] = [1, 2].map(|n| char::from(quote).to_string().repeat(n));
                tokens.push(Token::Name(sql[at + 1..end - 1].replace(&two, &one)));
                at = end;
            }
            b'[' => {
                let end = sql[at..].find(']');
                let end = at + end.ok_or(LexError("a name without its end"))?;
                tokens.push(Token::Name(sql[at + 1..end].to_owned()));
                at = end + 1;
            }
            b'$' | b'@' | b'#' | b':' => {
                let end = at + 1 + word_length(&bytes[at + 1..]);
                // Here a parameter's name may go on with anything, even quotes.
                if end > at + 1
                    && (bytes.get(end) == Some(&b'(') || bytes[end..].starts_with(b"::"))
                {
                    return Err(LexError("a parameter's name with brackets or colons"));
                }
                tokens.push(Token::Symbol(byte));
                at = end;
            }
            byte if in_word(byte) => {
                let end = at + word_length(&bytes[at..]);
                tokens.push(if byte.is_ascii_digit() {
                    Token::Symbol(byte)
                } else {
                    Token::Word(&sql[at..end])
                });
                at = end;
            }
            byte => {
                tokens.push(Token::Symbol(byte));
                at += 1;
            }
        }
    }
    Ok(tokens)
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|&&byte| in_word(byte)).count()
}

/// Where a text in quotes ends; a doubled quote stands for one.
fn quoted(bytes: &[u8], start: usize, quote: u8) -> Result<usize, LexError> {
    let mut at = start + 1;
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (None, _) => return Err(LexError("a quote without its end")),
            (Some(&b), Some(&next)) if b == quote && next == quote => at += 2,
            (Some(&b), _) if b == quote => return Ok(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(sql: &str) -> String {
        one_statement(sql).expect_err(sql).part
    }

    #[test]
    fn finds_words_and_names() {
        use Token::{Name, Symbol, Text, Word};
        assert_eq!(
            tokenize("UPDATE \"a\"\"b\" SET[c d]=`e` -- 'x\n/* ; */ + x'00' || 12.5 ?1 :n $n"),
            Ok(vec![
                Word("UPDATE"),
                Name("a\"b".into()),
                Word("SET"),
                Name("c d".into()),
                Symbol(b'='),
                Name("e".into()),
                Symbol(b'+'),
                Word("x"),
                Text,
                Symbol(b'|'),
                Symbol(b'|'),
                Symbol(b'1'),
                Symbol(b'.'),
                Symbol(b'5'),
                Symbol(b'?'),
                Symbol(b'1'),
                Symbol(b':'),
                Symbol(b'$'),
            ])
        );
    }

    #[test]
    fn one_statement_is_one() {
        assert_eq!(one_statement("SELECT ';' ; ;-- ;").expect("one").len(), 2);
        for sql in ["SELECT 1; SELECT 2", "; SELECT 1"] {
            assert_eq!(refusal(sql), "several statements in one text", "{sql}");
        }
        for sql in ["SELECT 'x", "SELECT \"x", "SELECT [x", "SELECT /* 1"] {
            assert!(refusal(sql).contains("without its end"), "{sql}");
        }
        // To the database this is a parameter, a semicolon, a statement and a comment.
        for sql in [
            "SELECT $x('); DELETE FROM t --'",
            "SELECT :a::b(x)",
            "SELECT @x(')",
        ] {
            assert!(refusal(sql).contains("a parameter's name"), "{sql}");
        }
        assert_eq!(refusal("SELECT \0"), "a zero byte in its text");
        let long = format!("SELECT '{}'", "x".repeat(limits::MAX_SQL_BYTES));
        assert!(refusal(&long).contains("bytes"));
    }

    #[test]
    fn replace_is_a_clause_or_a_function() {
        let has = |sql| replaces(&tokenize(sql).expect(sql));
        assert!(has("REPLACE INTO t VALUES (1)"));
        assert!(has("INSERT OR Replace INTO t VALUES (1)"));
        assert!(has("CREATE TABLE t (a UNIQUE ON CONFLICT REPLACE)"));
        assert!(!has("SELECT replace(a, 'x', 'y') FROM t"));
        assert!(!has("SELECT \"REPLACE\", 'REPLACE' -- REPLACE"));
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in "[ -~\u{e4}\0\n]{0,60}") {
            let _ = one_statement(&text);
        }
    }
}
