//! SAVEPOINT and what belongs to it, as texts.

use super::{
    analysis::RESERVED_PREFIX,
    lexer::{LexError, Token, TokenKind, tokenize},
    mysql,
};

/// The longest text that is looked at.
const MOST_BYTES: usize = 512;

/// What a text does with a savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SavepointCommand {
    /// SAVEPOINT.
    Set(String),
    /// ROLLBACK TO SAVEPOINT.
    RollBackTo(String),
    /// RELEASE SAVEPOINT.
    Release(String),
}

impl SavepointCommand {
    /// Reads a text of PostgreSQL; `None` if it is about something else.
    pub(crate) fn read(sql: &str) -> Option<Self> {
        Self::read_as(sql, tokenize, name_of)
    }

    /// Reads a text of MariaDB; `None` if it is about something else.
    pub(crate) fn read_mysql(sql: &str) -> Option<Self> {
        Self::read_as(sql, mysql::lexer::tokenize, mysql_name_of)
    }

    fn read_as(
        sql: &str,
        tokenize: fn(&str) -> Result<Vec<Token>, LexError>,
        name_of: fn(&str, &Token) -> Option<String>,
    ) -> Option<Self> {
        let start = sql.trim_start().as_bytes().first()?.to_ascii_lowercase();
        // Comments may come first; other first letters are not worth a closer look.
        if !matches!(start, b's' | b'r' | b'/' | b'-' | b'#') || sql.len() > MOST_BYTES {
            return None;
        }
        let tokens = tokenize(sql).ok()?;
        let mut rest = tokens.as_slice();
        while let [before @ .., last] = rest
            && last.is_symbol(';')
        {
            rest = before;
        }
        let first = rest.first()?;
        let (make, rest): (fn(String) -> Self, _) = if first.is_word(sql, "SAVEPOINT") {
            (Self::Set, &rest[1..])
        } else if first.is_word(sql, "RELEASE") {
            (Self::Release, without(sql, &rest[1..], "SAVEPOINT"))
        } else if first.is_word(sql, "ROLLBACK") {
            let rest = without(sql, &rest[1..], "WORK");
            let rest = without(sql, rest, "TRANSACTION");
            let (to, rest) = rest.split_first()?;
            if !to.is_word(sql, "TO") {
                return None;
            }
            (Self::RollBackTo, without(sql, rest, "SAVEPOINT"))
        } else {
            return None;
        };
        match rest {
            [name] => name_of(sql, name)
                .filter(|name| !name.starts_with(RESERVED_PREFIX))
                .map(make),
            _ => None,
        }
    }
}

/// The tokens without this leading word, if there are more.
fn without<'a>(sql: &str, tokens: &'a [Token], word: &str) -> &'a [Token] {
    match tokens {
        [first, rest @ ..] if first.is_word(sql, word) && !rest.is_empty() => rest,
        _ => tokens,
    }
}

fn name_of(sql: &str, token: &Token) -> Option<String> {
    let text = &sql[token.span.clone()];
    match token.kind {
        TokenKind::Word => Some(text.to_ascii_lowercase()),
        TokenKind::QuotedIdentifier => Some(text[1..text.len() - 1].replace("\"\"", "\"")),
        _ => None,
    }
}

/// MariaDB does not look at the case of such names, nor at accents: only those without are
/// told apart here.
fn mysql_name_of(sql: &str, token: &Token) -> Option<String> {
    let text = &sql[token.span.clone()];
    let name = match token.kind {
        TokenKind::Word => text.to_owned(),
        TokenKind::QuotedIdentifier => text[1..text.len() - 1].replace("``", "`"),
        _ => return None,
    };
    (name.is_ascii() && !name.ends_with(' ')).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::SavepointCommand::{self, *};

    #[test]
    fn reads_mariadbs_form() {
        for (sql, command) in [
            ("SAVEPOINT A", Set("a".into())),
            ("# now\nsavepoint `B ``b`;", Set("b `b".into())),
            ("ROLLBACK WORK TO SAVEPOINT a", RollBackTo("a".into())),
            ("RELEASE SAVEPOINT a", Release("a".into())),
        ] {
            assert_eq!(SavepointCommand::read_mysql(sql), Some(command), "{sql}");
        }
        for sql in [
            "SAVEPOINT \"a\"",
            "SAVEPOINT é",
            "SAVEPOINT Accede_x",
            "ROLLBACK",
        ] {
            assert_eq!(SavepointCommand::read_mysql(sql), None, "{sql}");
        }
    }

    #[test]
    fn reads_every_form() {
        for (sql, command) in [
            ("SAVEPOINT a", Set("a".into())),
            ("/* now */ savepoint \"A \"\"b\";", Set("A \"b".into())),
            ("ROLLBACK TO a", RollBackTo("a".into())),
            ("rollback work to savepoint B ; ", RollBackTo("b".into())),
            (
                "ROLLBACK TRANSACTION TO savepoint",
                RollBackTo("savepoint".into()),
            ),
            ("RELEASE savepoint a", Release("a".into())),
            ("-- so\nRELEASE a", Release("a".into())),
        ] {
            assert_eq!(SavepointCommand::read(sql), Some(command), "{sql}");
        }
        for sql in [
            "ROLLBACK",
            "SELECT 1",
            "",
            "SAVEPOINT",
            "RELEASE a b",
            "ROLLBACK TO 'a'",
            "SAVEPOINT accede_x",
        ] {
            assert_eq!(SavepointCommand::read(sql), None, "{sql}");
        }
    }
}
