//! Declared types, and values of every storage class.

/// A declared column type. Any column but a STRICT one takes any value.
pub(super) struct Kind {
    pub(super) sql: &'static str,
    /// Also in STRICT tables: values that fit, by their places in [`VALUES`].
    pub(super) strict: Option<&'static [usize]>,
}

const fn kind(sql: &'static str) -> Kind {
    Kind { sql, strict: None }
}

const fn strict(sql: &'static str, values: &'static [usize]) -> Kind {
    Kind {
        sql,
        strict: Some(values),
    }
}

/// One of each affinity, and more.
pub(super) const KINDS: &[Kind] = &[
    strict("INTEGER", &[0, 1, 2, 3, 4, 5, 6]),
    strict("INT", &[0, 1, 2, 3, 4, 5, 6]),
    strict("REAL", &[0, 1, 2, 7, 8, 9, 10, 11, 12, 13]),
    strict("TEXT", &[14, 15, 16, 17, 18, 19, 20, 21, 22]),
    strict("BLOB", &[23, 24, 25, 26]),
    strict("ANY", &[0, 3, 8, 14, 15, 20, 22, 23, 25]),
    kind(""),
    kind("NUMERIC"),
    kind("VARCHAR(10)"),
    kind("TEXT COLLATE NOCASE"),
    kind("TEXT COLLATE RTRIM"),
    kind("DOUBLE PRECISION"),
    kind("DECIMAL(10, 2)"),
    kind("BOOLEAN"),
    kind("DATETIME"),
    kind("BIGINT UNSIGNED"),
];

/// Values, as SQL.
pub(super) const VALUES: &[&str] = &[
    "1",
    "2",
    "-7",
    "9007199254740993",
    "-9223372036854775807 - 1",
    "9223372036854775807",
    "4",
    "0.1",
    "5.0",
    "-0.0",
    "1.7976931348623157e308",
    "5e-324",
    "9e999",
    "-9e999",
    "''",
    "'a'",
    "'A '",
    "'it''s'",
    "'größer 😀'",
    "'12'",
    "'1e3'",
    "'a' || char(0) || 'b'",
    "CAST(x'ff41' AS TEXT)",
    "x''",
    "x'00'",
    "x'61'",
    "zeroblob(40)",
];
