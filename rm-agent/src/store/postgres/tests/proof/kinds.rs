//! Column types and values of them: every built-in type, and user-made ones.

/// A column type.
pub(super) struct Kind {
    pub(super) sql: &'static str,
    /// Whether it can stand in a primary key: it has an order.
    pub(super) key: bool,
    /// Some of its values, as texts.
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

/// Types that the schemas use and that PostgreSQL does not have by itself.
pub(super) const USER_TYPES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok', 'Very happy', '');
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
CREATE DOMAIN tags AS text[];
CREATE TYPE pair AS (a int, b text);
CREATE TYPE nest AS (p pair, "Odd name" numeric[], m mood);
CREATE TYPE spans AS (s int4multirange, t text);
CREATE TYPE moods AS RANGE (subtype = mood);
CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
"#;

/// All of them. Keys come with enough values that rows rarely share one.
pub(super) const KINDS: &[Kind] = &[
    key(
        "int",
        &["1", "2", "3", "4", "5", "-2147483648", "2147483647", "0"],
    ),
    key(
        "bigint",
        &[
            "1",
            "2",
            "3",
            "4",
            "-9223372036854775808",
            "9223372036854775807",
        ],
    ),
    key("smallint", &["1", "2", "-32768", "32767", "7"]),
    key(
        "numeric",
        &[
            "1.50",
            "1.5",
            "NaN",
            "Infinity",
            "-Infinity",
            "0.00",
            "123456789012345678901234567890.123456789000",
            "1e-130",
            "9e1000",
            "-0.000",
        ],
    ),
    key("numeric(12,4)", &["1", "99999999.9999", "NaN", "-0.0001"]),
    key(
        "real",
        &["0", "-0", "NaN", "Infinity", "1.1754944e-38", "16777.217"],
    ),
    key(
        "double precision",
        &[
            "0",
            "-0",
            "NaN",
            "-Infinity",
            "0.1",
            "5e-324",
            "1.7976931348623157e308",
        ],
    ),
    key(
        "text",
        &[
            "",
            "a",
            "A",
            "ß ü 🦀",
            "it's",
            "\\x",
            "two\nlines\t",
            "NULL",
        ],
    ),
    key(
        "text COLLATE any_case",
        &["abc", "ABC", "x", "Y", "é", "z z"],
    ),
    key("varchar(9)", &["", "a", "b ", "ninechars", "\"q\""]),
    key("char(5)", &["ab", "ab   ", "", "ccccc", "d"]),
    key("\"char\"", &["a", "b", "", "\\001", "z"]),
    key("name", &["some_name", "Other", "", "x"]),
    key("boolean", &["t", "f"]),
    key(
        "bytea",
        &["\\x", "\\x00", "\\x00ff", "\\xdeadbeef", "\\x5c27"],
    ),
    key(
        "uuid",
        &[
            "00000000-0000-0000-0000-000000000001",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "8a5b4f1e-5d3c-4a6b-9c2d-1e0f9a8b7c6d",
            "00000000-0000-0000-0000-000000000002",
        ],
    ),
    key(
        "date",
        &[
            "2026-01-01",
            "infinity",
            "-infinity",
            "4713-01-01 BC",
            "5874897-12-31",
        ],
    ),
    key(
        "time",
        &["00:00:00", "24:00:00", "23:59:59.999999", "12:00"],
    ),
    key(
        "timetz",
        &["00:00:00+15:59", "24:00:00-15:59", "12:00:00.000001+02"],
    ),
    key(
        "timestamp",
        &[
            "2026-01-01 00:00:00.123456",
            "infinity",
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
        ],
    ),
    key(
        "timestamptz",
        &[
            "2026-01-01 00:00:00.123456+03",
            "infinity",
            "-infinity",
            "1900-01-01 00:00:00+00:19:32",
            "294276-12-31 23:59:59.999999+00",
        ],
    ),
    key(
        "interval",
        &[
            "1 mon",
            "30 days",
            "-1 years -2 days +03:04:05.000001",
            "0",
            "178000000 years",
        ],
    ),
    key("mood", &["sad", "ok", "Very happy", ""]),
    key("positive", &["0.000000000000000000001", "5", "5.0", "NaN"]),
    key(
        "int[]",
        &["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[2:3]={7,8}", "{0}"],
    ),
    key(
        "text[]",
        &[
            "{}",
            "{a,\"b,c\",NULL,\"NULL\",\"\"}",
            "{{a,b},{\"\\\"q\",NULL}}",
        ],
    ),
    key("mood[]", &["{ok,sad}", "{NULL}", "{}"]),
    key("tags", &["{}", "{x,NULL}", "{y}"]),
    key("pair", &["(1,\"x\\\"y\")", "(,)", "(2,)", "(1,\"\")"]),
    key("pair[]", &["{\"(1,a)\",NULL}", "{}", "{\"(,)\"}"]),
    key(
        "nest",
        &[
            "(\"(1,x)\",\"{1.50,NaN}\",ok)",
            "(,,)",
            "(\"(,)\",{},\"Very happy\")",
        ],
    ),
    key("int4range", &["empty", "[1,5)", "(,3)", "[7,)", "(,)"]),
    key("numrange", &["[1.50,2.0]", "(0,1e3)", "empty"]),
    key(
        "tstzrange",
        &[
            "[2026-01-01 00:00+00,infinity)",
            "(,)",
            "[\"2026-01-01 00:00:00+02\",)",
        ],
    ),
    key(
        "daterange",
        &["[2026-01-01,2026-02-01)", "empty", "[infinity,)"],
    ),
    key("moods", &["[sad,ok]", "(,)", "empty"]),
    key("int4multirange", &["{}", "{[1,3),[5,7)}", "{(,0),[9,)}"]),
    key("nummultirange", &["{}", "{[1.50,2.0]}"]),
    key(
        "tstzmultirange",
        &["{}", "{[2026-01-01 00:00:00+00,2026-01-02 00:00:00+00)}"],
    ),
    key("bit(5)", &["10101", "00000", "11111"]),
    key("varbit", &["", "1", "101010101"]),
    key(
        "inet",
        &["10.0.0.1/8", "10.0.0.1", "::1", "::ffff:1.2.3.4/128"],
    ),
    key("cidr", &["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"]),
    key("macaddr", &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"]),
    key(
        "macaddr8",
        &["08:00:2b:01:02:03:04:05", "08:00:2b:ff:fe:01:02:03"],
    ),
    key("money", &["12.34", "-92233720368547758.08", "0"]),
    key("oid", &["0", "4294967295", "7"]),
    key("pg_lsn", &["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"]),
    key("xid8", &["0", "18446744073709551615"]),
    key("oidvector", &["", "1 2 3"]),
    key(
        "jsonb",
        &[
            "{\"a\": [1, 2.50, null]}",
            "null",
            "\"\\u00fc\"",
            "{}",
            "1e-7",
            "[]",
        ],
    ),
    key("tsvector", &["'fat':1A,3 'cat':2", "", "'it''s'"]),
    key("tsquery", &["'fat' & !'cat':AB", "'a' <-> 'b'", "'x':*"]),
    plain("json", &["{\"b\":  1, \"b\": 2}", "null", " [1.0e1 ,\n2]"]),
    plain(
        "xml",
        &[
            "<a>&amp;</a>",
            "<?xml version=\"1.0\"?><r/>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><r a=\"1\"/>",
            "two <b/> parts",
            "",
        ],
    ),
    plain(
        "xml[]",
        &["{\"<a/>\",NULL}", "{\"<?xml version=\\\"1.0\\\"?><a/>\"}"],
    ),
    plain("jsonpath", &["$.a[*] ? (@ > 1.50)", "strict $"]),
    plain(
        "int4multirange[]",
        &["{\"{[1,2)}\",\"{}\"}", "{NULL}", "{}"],
    ),
    plain("spans", &["(\"{[1,2)}\",x)", "(,)"]),
    plain("spans[]", &["{\"(\\\"{[1,2)}\\\",x)\",NULL}"]),
    plain("point", &["(0.1,-2)", "(NaN,Infinity)", "(-0,0)"]),
    plain("line", &["{1,-1,0.5}"]),
    plain("lseg", &["[(0,0),(1,1e300)]"]),
    plain("box", &["(3,4),(1,2)", "(0.1,0.2),(0.1,0.2)"]),
    plain("path", &["[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"]),
    plain("polygon", &["((0,0),(1,1),(2,0))"]),
    plain("circle", &["<(1,2),0.1>", "<(0,0),0>"]),
    plain("point[]", &["{\"(1,2)\",\"(3,4)\"}"]),
    plain("xid", &["1", "4294967295"]),
    plain("cid", &["0", "77"]),
    plain("tid", &["(0,1)", "(4294967295,65535)"]),
    plain("int2vector", &["1 2", ""]),
    plain("pg_snapshot", &["10:20:10,14,15"]),
    plain("txid_snapshot", &["10:20:10,14,15"]),
    plain("refcursor", &["some cursor"]),
    plain("regclass", &["pg_catalog.pg_class", "-", "12345"]),
    plain("regproc", &["pg_catalog.now", "-"]),
    plain("regprocedure", &["pg_catalog.abs(integer)"]),
    plain("regoper", &["0", "pg_catalog.||/"]),
    plain("regoperator", &["pg_catalog.+(integer,integer)"]),
    plain("regtype", &["integer", "-"]),
    plain("regrole", &["-"]),
    plain("regnamespace", &["pg_catalog"]),
    plain("regconfig", &["pg_catalog.simple"]),
    plain("regdictionary", &["pg_catalog.simple"]),
    plain("regcollation", &["pg_catalog.\"C\""]),
    plain("int8range[]", &["{\"[1,3)\",empty,NULL}"]),
    plain("tsrange", &["[2026-01-01 00:00:00,infinity]"]),
    plain("int8range", &["[1,3)"]),
    plain("int8multirange", &["{[1,3)}"]),
    plain(
        "datemultirange",
        &["{[2026-01-01,2026-01-05),[2027-01-01,)}"],
    ),
    plain("tsmultirange", &["{[2026-01-01 00:00:00,infinity)}"]),
];

impl Kind {
    /// A value as an expression of its type.
    pub(super) fn literal(&self, number: usize) -> String {
        let text = self.values[number % self.values.len()].replace('\'', "''");
        let type_name = self.sql.split(" COLLATE").next().unwrap_or(self.sql);
        format!("'{text}'::{type_name}")
    }

    /// What tells two of its values apart where their binary forms do not.
    pub(super) fn is_xml(&self) -> bool {
        self.sql.starts_with("xml")
    }
}
