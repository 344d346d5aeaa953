//! Column types and values of them.

/// A column type.
pub(super) struct Kind {
    pub(super) sql: &'static str,
    /// Whether it can stand in a primary key.
    pub(super) key: bool,
    /// Some of its values, as SQL.
    pub(super) values: &'static [&'static str],
}

const fn key(sql: &'static str, values: &'static [&'static str]) -> Kind {
    Kind {
        sql,
        key: true,
        values,
    }
}

const fn plain(sql: &'static str, values: &'static [&'static str]) -> Kind {
    Kind {
        sql,
        key: false,
        values,
    }
}

/// All of them. Keys come with enough values that rows rarely share one.
pub(super) const KINDS: &[Kind] = &[
    key(
        "INT",
        &["1", "2", "3", "4", "5", "-2147483648", "2147483647", "0"],
    ),
    key("INT UNSIGNED", &["1", "2", "3", "4294967295", "0"]),
    key("INT(6) ZEROFILL", &["1", "22", "333", "4294967295"]),
    key(
        "BIGINT",
        &[
            "1",
            "2",
            "9007199254740993",
            "-9223372036854775808",
            "9223372036854775807",
        ],
    ),
    key(
        "BIGINT UNSIGNED",
        &[
            "1",
            "18446744073709551615",
            "9223372036854775808",
            "9007199254740993",
        ],
    ),
    key("TINYINT", &["1", "-128", "127", "0"]),
    key("TINYINT(1)", &["TRUE", "FALSE", "5"]),
    key("SMALLINT UNSIGNED", &["65535", "1", "2"]),
    key("MEDIUMINT", &["-8388608", "8388607", "3"]),
    key(
        "DECIMAL(30,10)",
        &[
            "1.5",
            "12345678901234567890.0123456789",
            "-0.0000000001",
            "0",
            "7",
        ],
    ),
    key(
        "DECIMAL(65,0)",
        &[
            "99999999999999999999999999999999999999999999999999999999999999999",
            "1",
            "-5",
        ],
    ),
    key("NUMERIC(5,2) UNSIGNED", &["999.99", "0.01", "3"]),
    key(
        "DATE",
        &[
            "'2026-01-01'",
            "'0000-00-00'",
            "'9999-12-31'",
            "'2026-00-15'",
            "'1000-01-01'",
        ],
    ),
    key(
        "TIME(6)",
        &[
            "'838:59:59.999999'",
            "'-838:59:59.000001'",
            "'00:00:00'",
            "'12:00:00.5'",
        ],
    ),
    key("TIME", &["'-00:00:01'", "'23:59:59'", "'100:00:00'"]),
    key(
        "DATETIME(6)",
        &[
            "'2026-01-01 01:02:03.123456'",
            "'0000-00-00 00:00:00'",
            "'9999-12-31 23:59:59.999999'",
        ],
    ),
    key(
        "DATETIME",
        &["'2026-03-29 02:30:00'", "'1000-01-01 00:00:00'"],
    ),
    key(
        "TIMESTAMP(3) NULL",
        &[
            "'2026-10-25 00:30:00.125'",
            "'1970-01-01 00:00:01'",
            "'2038-01-19 03:14:07.999'",
            "0",
        ],
    ),
    key("YEAR", &["2026", "1901", "2155", "0"]),
    key(
        "CHAR(5)",
        &["'ab'", "'ab   '", "''", "'ccccc'", "'Ab'", "'é'"],
    ),
    key(
        "VARCHAR(12)",
        &[
            "''",
            "'a'",
            "'b '",
            "'B'",
            "'ß'",
            "'ss'",
            "'it''s'",
            "'\\\\\\''",
            "'😀'",
        ],
    ),
    key(
        "VARCHAR(9) COLLATE utf8mb4_bin",
        &["'a'", "'A'", "'a '", "'é'"],
    ),
    key(
        "VARCHAR(9) COLLATE utf8mb4_nopad_bin",
        &["'a'", "'A'", "'a '", "''"],
    ),
    key(
        "VARCHAR(9) COLLATE utf8mb4_unicode_ci",
        &["'a'", "'ä'", "'z'", "'Z z'"],
    ),
    key(
        "VARCHAR(9) CHARACTER SET latin1",
        &["'é'", "'a'", "'ÿ'", "''"],
    ),
    key("VARCHAR(9) CHARACTER SET utf16", &["'é'", "'😀'", "'x'"]),
    key(
        "VARCHAR(9) CHARACTER SET sjis",
        &["'表'", "'ソ'", "'a\\\\b'"],
    ),
    key(
        "CHAR(3) CHARACTER SET ascii COLLATE ascii_bin",
        &["'a'", "'b'", "'A'"],
    ),
    key(
        "BINARY(4)",
        &["X'00000000'", "X'61000000'", "X'DEADBEEF'", "X'20202020'"],
    ),
    key(
        "VARBINARY(9)",
        &["''", "X'00'", "X'00FF'", "X'6120'", "X'61'"],
    ),
    key("BIT(1)", &["b'0'", "b'1'"]),
    key("BIT(9)", &["b'101010101'", "b'0'", "b'111111111'"]),
    key(
        "BIT(64)",
        &["X'FFFFFFFFFFFFFFFF'", "b'0'", "X'8000000000000001'"],
    ),
    key(
        "ENUM('sad','ok','Very happy','')",
        &["'sad'", "'ok'", "'Very happy'", "''"],
    ),
    key("SET('x','y','z w')", &["''", "'x'", "'x,z w'", "'y'"]),
    key(
        "UUID",
        &[
            "'00000000-0000-0000-0000-000000000001'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            "'8a5b4f1e-5d3c-4a6b-9c2d-1e0f9a8b7c6d'",
        ],
    ),
    key(
        "INET6",
        &["'::1'", "'::ffff:1.2.3.4'", "'2001:db8::ff00:42:8329'"],
    ),
    key("INET4", &["'10.0.0.1'", "'255.255.255.255'", "'0.0.0.0'"]),
    plain(
        "FLOAT",
        &[
            "16777.217",
            "3.4028234e38",
            "-1.4e-45",
            "0.1",
            "-0e0",
            "1e10",
            "123456789",
        ],
    ),
    plain(
        "DOUBLE",
        &[
            "0.1",
            "1.7976931348623157e308",
            "5e-324",
            "-0e0",
            "1e22",
            "0.30000000000000004",
            "9007199254740993",
        ],
    ),
    plain("FLOAT(7,2)", &["12345.67", "0.01", "-99999.99"]),
    plain("DOUBLE(20,5)", &["12345.67891", "-0.00001"]),
    plain("TINYTEXT", &["'a'", "'two\\nlines\\t'", "''"]),
    plain("TEXT", &["REPEAT('é', 500)", "'\\0'", "''", "'x'"]),
    plain(
        "MEDIUMTEXT CHARACTER SET latin1",
        &["'é'", "REPEAT('x', 3000)"],
    ),
    plain("LONGTEXT", &["'a'", "''", "REPEAT('😀', 200)"]),
    plain(
        "JSON",
        &[
            "'{\"a\":  [1, 2.50, null]}'",
            "'null'",
            "'\"\\\\u00fc\"'",
            "'[]'",
        ],
    ),
    plain("TINYBLOB", &["X'00'", "''", "X'FF27225C'"]),
    plain("BLOB", &["X'000102FF'", "''", "REPEAT(X'00', 300)"]),
    plain("MEDIUMBLOB", &["X'E9'", "''"]),
    plain("LONGBLOB", &["X'00'", "REPEAT(X'AB', 1000)"]),
    plain(
        "POINT",
        &[
            "ST_GeomFromText('POINT(1 -2.5)')",
            "ST_GeomFromText('POINT(0 0)', 4326)",
        ],
    ),
    plain(
        "GEOMETRY",
        &[
            "ST_GeomFromText('LINESTRING(0 0, 1 1, 2 0.1)')",
            "ST_GeomFromText('POINT(1 1)')",
        ],
    ),
    plain(
        "POLYGON",
        &["ST_GeomFromText('POLYGON((0 0,1 1,2 0,0 0))')"],
    ),
];

impl Kind {
    pub(super) fn value(&self, number: usize) -> &'static str {
        self.values[number % self.values.len()]
    }
}
