//! Column types: how an image shows a value, and how it goes back.

use super::quote;

/// How values of a column travel. The numbers stand in undo records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Class {
    /// A signed integer, as digits.
    Signed = 0x4d00_0001,
    /// An unsigned integer, as digits.
    Unsigned = 0x4d00_0002,
    /// `DECIMAL`, as digits.
    Decimal = 0x4d00_0003,
    /// `FLOAT` and `DOUBLE`, as the shortest text that reads as the same double.
    Float = 0x4d00_0004,
    /// Dates and times, as texts; `TIMESTAMP` in UTC.
    Temporal = 0x4d00_0005,
    /// Characters, as the column's own bytes.
    Text = 0x4d00_0006,
    /// Bytes.
    Bytes = 0x4d00_0007,
    /// `ENUM`, `SET`, `BIT` and `YEAR`, as the number behind them.
    Number = 0x4d00_0008,
    /// `UUID`, `INET4` and `INET6`, as texts.
    Literal = 0x4d00_0009,
    /// No column: what tells two of an index's values apart.
    Weight = 0x4d00_000a,
}

impl Class {
    /// The class of a column, from `DATA_TYPE` and `COLUMN_TYPE` of the catalog.
    /// `None` for types that are not supported.
    pub(crate) fn of(data_type: &str, column_type: &str) -> Option<Self> {
        Some(match data_type {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => {
                if column_type.contains("unsigned") {
                    Self::Unsigned
                } else {
                    Self::Signed
                }
            }
            "decimal" => Self::Decimal,
            "float" | "double" => Self::Float,
            "date" | "time" | "datetime" | "timestamp" => Self::Temporal,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Self::Text,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Self::Bytes,
            "enum" | "set" | "bit" | "year" => Self::Number,
            "uuid" | "inet4" | "inet6" => Self::Literal,
            "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geometry" => Self::Bytes,
            _ => return None,
        })
    }

    /// The class with this number.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [
            Self::Signed,
            Self::Unsigned,
            Self::Decimal,
            Self::Float,
            Self::Temporal,
            Self::Text,
            Self::Bytes,
            Self::Number,
            Self::Literal,
            Self::Weight,
        ]
        .into_iter()
        .find(|class| *class as u32 == number)
    }

    /// The expression that shows a value without loss. `column` is written as the
    /// statement refers to it; `signature` is that of [`signature`].
    pub(crate) fn output(self, column: &str, signature: &str) -> String {
        match self {
            Self::Signed
            | Self::Unsigned
            | Self::Decimal
            | Self::Temporal
            | Self::Text
            | Self::Bytes => format!("CAST({column} AS BINARY)"),
            Self::Float => format!("CAST(CAST({column} AS DOUBLE) AS BINARY)"),
            Self::Number => format!("CAST(CAST({column} + 0 AS UNSIGNED) AS BINARY)"),
            Self::Literal => format!("CAST({column} AS CHAR)"),
            Self::Weight => signature.to_owned(),
        }
    }

    /// The expression that compares a key column with a bound value.
    pub(crate) fn comparison(self, signature: &str) -> String {
        let mut parts = signature.split('|');
        let type_name = parts.next().unwrap_or_default();
        match (self, parts.next(), parts.next()) {
            (Self::Text, Some(charset), Some(collation)) => {
                format!("CONVERT(? USING {charset}) COLLATE {collation}")
            }
            (Self::Decimal, ..) => {
                let scale = type_name
                    .split_once('(')
                    .and_then(|(_, rest)| rest.split_once(')'))
                    .map_or("65,30", |(scale, _)| scale);
                format!("CAST(? AS DECIMAL({scale}))")
            }
            (Self::Float, ..) => "CAST(? AS DOUBLE)".to_owned(),
            _ => "?".to_owned(),
        }
    }
}

/// All that says how a column's values read: its type, character set and collation.
pub(crate) fn signature(
    column_type: &str,
    charset: Option<&str>,
    collation: Option<&str>,
) -> String {
    match (charset, collation) {
        (Some(charset), Some(collation)) => format!("{column_type}|{charset}|{collation}"),
        _ => column_type.to_owned(),
    }
}

/// The expression whose bytes are equal when a unique index holds two values of a
/// character column for equal. `prefix`: how many characters the index looks at.
pub(crate) fn weight(column: &str, prefix: Option<u64>) -> String {
    let column = quote(column);
    let text = match prefix {
        Some(length) => format!("LEFT({column}, {length})"),
        None => column,
    };
    // Most collations do not look at spaces at the end.
    format!("WEIGHT_STRING(RTRIM({text}))")
}
