//! PostgreSQL's words, as far as XA has to know them.

use crate::{
    at::lexer::{Token, tokenize},
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
        "SET",
        "RESET",
        "SAVEPOINT",
        "RELEASE",
        "ROLLBACK",
    ],
    // What is written elsewhere by a foreign table, or told to listeners, needs no transaction
    // id here.
    writing: &[
        "INSERT",
        "UPDATE",
        "DELETE",
        "MERGE",
        "CALL",
        "EXECUTE",
        "PG_NOTIFY",
    ],
    counted: &["INSERT", "UPDATE", "DELETE", "MERGE"],
    uncounted: &["CALL", "EXECUTE", "PG_NOTIFY"],
    // The database is asked in the end.
    calls: |_, _| false,
};

/// The command that opens, ends or prepares a transaction, if the statement is one.
fn control(sql: &str, words: &[Token]) -> Option<&'static str> {
    let word = |place: usize, word| {
        words
            .get(place)
            .is_some_and(|token: &Token| token.is_word(sql, word))
    };
    for command in ["BEGIN", "COMMIT", "END", "ABORT"] {
        if word(0, command) {
            return Some(command);
        }
    }
    if word(0, "START") && word(1, "TRANSACTION") {
        return Some("START TRANSACTION");
    }
    if word(0, "PREPARE") && word(1, "TRANSACTION") {
        return Some("PREPARE TRANSACTION");
    }
    let to_savepoint =
        word(1, "TO") || (word(1, "WORK") || word(1, "TRANSACTION")) && word(2, "TO");
    (word(0, "ROLLBACK") && !to_savepoint).then_some("ROLLBACK")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Error,
        limits,
        store::xa::statement::{Text, Writes},
    };

    fn read(sql: &str) -> Result<Text, Error> {
        DIALECT.read(sql).map(|(text, _)| text)
    }

    fn refused(sql: &str) -> Option<String> {
        match read(sql) {
            Err(Error::TransactionControl { command }) => Some(command),
            Ok(_) => None,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn commands_that_end_the_local_transaction_are_refused_by_name() {
        for (sql, command) in [
            ("BEGIN", "BEGIN"),
            ("begin isolation level serializable", "BEGIN"),
            ("START TRANSACTION", "START TRANSACTION"),
            ("/* now */ commit", "COMMIT"),
            ("COMMIT AND CHAIN", "COMMIT"),
            ("COMMIT PREPARED 'x'", "COMMIT"),
            ("END", "END"),
            ("-- no\nABORT", "ABORT"),
            ("ROLLBACK", "ROLLBACK"),
            ("rollback work;", "ROLLBACK"),
            ("ROLLBACK PREPARED 'x'", "ROLLBACK"),
            ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
            ("SELECT 1; ;COMMIT", "COMMIT"),
            ("UPDATE t SET a = ';' ; COMMIT ; SELECT 1", "COMMIT"),
        ] {
            assert_eq!(refused(sql).as_deref(), Some(command), "{sql}");
        }
        for sql in [
            "",
            ";",
            "SAVEPOINT a",
            "ROLLBACK TO a",
            "ROLLBACK WORK TO SAVEPOINT a",
            "RELEASE a",
            "PREPARE p AS SELECT 1",
            "SELECT 'COMMIT'; SELECT \"commit\" FROM t",
            "UPDATE t SET commit = 1",
            "DO $$ BEGIN COMMIT; END $$",
        ] {
            assert_eq!(refused(sql), None, "{sql}");
        }
    }

    #[test]
    fn texts_that_may_write_are_told_from_those_that_only_read() {
        for sql in [
            "",
            "SELECT 1",
            "(SELECT 1) UNION (SELECT 2)",
            "/* x */ with a AS (SELECT 1) SELECT * FROM a",
            "TABLE t",
            "VALUES (1)",
            "SHOW work_mem",
            "EXPLAIN SELECT 1",
            "SAVEPOINT a; SELECT 'INSERT'; ROLLBACK TO a",
            "SET LOCAL work_mem = '1MB'",
        ] {
            assert_eq!(read(sql).expect("read").writes, Writes::No, "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES (1)",
            "SELECT 1; update t set a = 1",
            "DELETE FROM t RETURNING *",
        ] {
            assert_eq!(read(sql).expect("read").writes, Writes::IfRows, "{sql}");
        }
        for sql in [
            "UPDATE t SET a = 1; TRUNCATE t",
            "UPDATE t SET a = 1 WHERE pg_notify('a', 'b') IS NULL",
            "WITH a AS (DELETE FROM t RETURNING 1) SELECT * FROM a",
            "EXPLAIN ANALYZE UPDATE t SET a = 1",
            "SELECT pg_notify('a', 'b')",
            "SELECT * FROM t FOR UPDATE",
            "LOCK TABLE t",
            "EXECUTE p",
            "TRUNCATE t",
            "SELECT 1; CREATE TABLE t()",
        ] {
            assert_eq!(read(sql).expect("read").writes, Writes::Yes, "{sql}");
        }
        assert_eq!(read("SELECT 1;;SELECT 2;").expect("read").statements, 2);
    }

    #[test]
    fn what_cannot_be_seen_through_is_refused() {
        let error = read("SELECT 'open").expect_err("no end");
        assert!(matches!(error, Error::Statement { .. }), "{error}");
        let long = "x".repeat(limits::MAX_XA_SQL_BYTES + 1);
        let error = read(&long).expect_err("too long");
        assert!(error.to_string().contains("is above the limit"), "{error}");
    }
}
