//! MariaDB's words, as far as XA has to know them.

use crate::{
    at::{
        lexer::{Token, TokenKind},
        mysql::{functions::is_harmless, lexer::tokenize},
    },
    store::xa::statement::Dialect,
};

pub(super) const DIALECT: Dialect = Dialect {
    tokenize,
    control,
    reading: &[
        "SELECT",
        "SHOW",
        "VALUES",
        "TABLE",
        "WITH",
        "EXPLAIN",
        "DESCRIBE",
        "DESC",
        "SET",
        "SAVEPOINT",
        "RELEASE",
        "ROLLBACK",
    ],
    // Locks of a SELECT must last as well.
    writing: &[
        "INSERT", "UPDATE", "DELETE", "CALL", "EXECUTE", "SHARE", "INTO",
    ],
    // What an INSERT's triggers did remains although IGNORE left its row out.
    counted: &["UPDATE", "DELETE"],
    uncounted: &["CALL", "EXECUTE"],
    calls,
};

/// Words that a bracket follows although they call nothing.
const NO_CALLS: [&str; 22] = [
    "IN", "AND", "OR", "XOR", "NOT", "WHERE", "FROM", "JOIN", "ON", "USING", "EXISTS", "VALUES",
    "AS", "SELECT", "UNION", "ALL", "ANY", "SOME", "BY", "OVER", "THEN", "ELSE",
];

/// Whether something is called that is none of the database's own harmless functions.
fn calls(sql: &str, statement: &[Token]) -> bool {
    statement.windows(2).enumerate().any(|(place, pair)| {
        let [name, bracket] = pair else { return false };
        if !bracket.is_symbol('(') {
            return false;
        }
        let qualified = place > 0 && statement[place - 1].is_symbol('.');
        match name.kind {
            TokenKind::QuotedIdentifier => true,
            TokenKind::Word if qualified => true,
            TokenKind::Word if NO_CALLS.iter().any(|word| name.is_word(sql, word)) => false,
            TokenKind::Word => {
                let text = sql.get(name.span.clone()).unwrap_or_default();
                !is_harmless(&text.to_ascii_lowercase(), false)
            }
            _ => false,
        }
    })
}

/// The command that opens, ends or prepares a transaction, if the statement is one.
fn control(sql: &str, words: &[Token]) -> Option<&'static str> {
    let word = |place: usize, word| {
        words
            .get(place)
            .is_some_and(|token: &Token| token.is_word(sql, word))
    };
    for command in ["BEGIN", "COMMIT", "XA"] {
        if word(0, command) {
            return Some(command);
        }
    }
    if word(0, "START") && word(1, "TRANSACTION") {
        return Some("START TRANSACTION");
    }
    let to_savepoint = word(1, "TO") || word(1, "WORK") && word(2, "TO");
    (word(0, "ROLLBACK") && !to_savepoint).then_some("ROLLBACK")
}

/// Which of these tables, in small letters, the text may name.
pub(super) fn names_one_of<'t>(
    sql: &str,
    tokens: &[Token],
    tables: &'t [String],
) -> Option<&'t String> {
    tokens.iter().find_map(|token| {
        let text = sql.get(token.span.clone())?;
        let name = match token.kind {
            TokenKind::Word => text.to_lowercase(),
            TokenKind::QuotedIdentifier => text.trim_matches('`').replace("``", "`").to_lowercase(),
            _ => return None,
        };
        tables.iter().find(|table| **table == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Error,
        store::xa::statement::{Text, Writes},
    };

    fn read(sql: &str) -> Result<Text, Error> {
        DIALECT.read(sql).map(|(text, _)| text)
    }

    #[test]
    fn commands_that_end_the_local_transaction_are_refused_by_name() {
        for (sql, command) in [
            ("BEGIN", "BEGIN"),
            ("BEGIN NOT ATOMIC COMMIT; END", "BEGIN"),
            ("START TRANSACTION READ ONLY", "START TRANSACTION"),
            ("/* now */ commit", "COMMIT"),
            ("# no\nROLLBACK", "ROLLBACK"),
            ("rollback work;", "ROLLBACK"),
            ("XA END 'a'", "XA"),
            ("SELECT 1; XA PREPARE 'a'", "XA"),
            ("UPDATE t SET a = ';' ; COMMIT ; SELECT 1", "COMMIT"),
        ] {
            match read(sql) {
                Err(Error::TransactionControl { command: said }) => assert_eq!(said, command),
                other => panic!("{sql}: {other:?}"),
            }
        }
        for sql in [
            "",
            ";",
            "SAVEPOINT a",
            "ROLLBACK TO a",
            "ROLLBACK WORK TO SAVEPOINT a",
            "RELEASE SAVEPOINT a",
            "SELECT 'COMMIT'; SELECT `commit` FROM t",
        ] {
            read(sql).expect(sql);
        }
    }

    #[test]
    fn texts_that_may_write_are_told_from_those_that_only_read() {
        for sql in [
            "",
            "SELECT 1",
            "(SELECT 1) UNION (SELECT 2)",
            "WITH a AS (SELECT 1) SELECT COUNT(*), coalesce(1, 2) FROM a WHERE b IN (1, 2)",
            "DESC t",
            "SET @a = 1",
            "SAVEPOINT a; SELECT 'INSERT'; ROLLBACK TO a",
        ] {
            assert_eq!(read(sql).expect("read").writes, Writes::No, "{sql}");
        }
        for sql in [
            "SELECT 1; update t set a = 1 where b in (1)",
            "DELETE FROM t RETURNING *",
        ] {
            assert_eq!(read(sql).expect("read").writes, Writes::IfRows, "{sql}");
        }
        for sql in [
            "INSERT IGNORE INTO t VALUES (1)",
            "REPLACE INTO t VALUES (1)",
            "SELECT note()",
            "SELECT `note` ()",
            "SELECT d.count(1)",
            "SET @a = note(1)",
            "UPDATE t SET a = note() WHERE b = 1",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t LOCK IN SHARE MODE",
            "SELECT a INTO OUTFILE 'x' FROM t",
            "ANALYZE UPDATE t SET a = 1",
            "CALL p",
            "EXECUTE IMMEDIATE 'DELETE FROM t'",
        ] {
            assert_eq!(read(sql).expect("read").writes, Writes::Yes, "{sql}");
        }
    }

    #[test]
    fn finds_tables_by_name_however_it_is_written() {
        let tables = ["heap".to_owned(), "with`tick".to_owned()];
        let found = |sql: &str| {
            let tokens = tokenize(sql).expect("valid");
            names_one_of(sql, &tokens, &tables).cloned()
        };
        for sql in [
            "INSERT INTO Heap VALUES (1)",
            "UPDATE t, d.`HEAP` SET a = 1",
        ] {
            assert_eq!(found(sql).as_deref(), Some("heap"), "{sql}");
        }
        assert_eq!(
            found("DELETE FROM `with``tick`").as_deref(),
            Some("with`tick")
        );
        assert_eq!(found("INSERT INTO t VALUES ('heap')"), None);
    }
}
