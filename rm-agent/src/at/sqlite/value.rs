//! Values by their storage class, as images hold them.
//!
//! ```text
//! NULL = no bytes at all, else one byte for the class, then
//!   1 integer: 8 bytes    2 real: its 8 bytes    3 text: UTF-8    4 blob
//! ```

use std::borrow::Cow;

use bytes::Bytes;

use crate::at::image::Value;

/// What stands for the type of every column: values bring their own.
pub(crate) const TYPE: u32 = 0x5351_0001;

const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Datum<'a> {
    Null,
    Integer(i64),
    Real(f64),
    /// Not always UTF-8: the database does not look.
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

impl<'a> Datum<'a> {
    /// As an image holds it.
    pub(crate) fn encode(self) -> Value {
        let (class, number, bytes);
        match self {
            Self::Null => return None,
            Self::Integer(integer) => {
                number = integer.to_be_bytes();
                (class, bytes) = (INTEGER, &number[..]);
            }
            Self::Real(real) => {
                number = real.to_bits().to_be_bytes();
                (class, bytes) = (REAL, &number[..]);
            }
            Self::Text(text) => (class, bytes) = (TEXT, text),
            Self::Blob(blob) => (class, bytes) = (BLOB, blob),
        }
        let mut encoded = Vec::with_capacity(1 + bytes.len());
        encoded.push(class);
        encoded.extend(bytes);
        Some(Bytes::from(encoded))
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` for other bytes.
    pub(crate) fn decode(value: &'a Value) -> Option<Self> {
        match value {
            None => Some(Self::Null),
            Some(bytes) => Self::of_bytes(bytes),
        }
    }

    /// Reads the bytes of a value that is not NULL.
    pub(crate) fn of_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (class, bytes) = bytes.split_first()?;
        Some(match *class {
            INTEGER => Self::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
            REAL => Self::Real(f64::from_bits(u64::from_be_bytes(bytes.try_into().ok()?))),
            TEXT => Self::Text(bytes),
            BLOB => Self::Blob(bytes),
            _ => return None,
        })
    }

    /// As people read it, and as SQL has it.
    pub(crate) fn literal(self) -> String {
        let hex = |bytes: &[u8]| -> String {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("X'{digits}'")
        };
        match self {
            Self::Null => "NULL".to_owned(),
            // The least integer has no literal: its digits alone are too large.
            Self::Integer(i64::MIN) => "(-9223372036854775807 - 1)".to_owned(),
            Self::Integer(integer) => integer.to_string(),
            Self::Real(real) if real.is_infinite() => {
                if real > 0.0 { "9e999" } else { "-9e999" }.to_owned()
            }
            Self::Real(real) => format!("{real:?}"),
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) if !text.chars().any(char::is_control) => {
                    format!("'{}'", text.replace('\'', "''"))
                }
                _ => format!("CAST({} AS TEXT)", hex(text)),
            },
            Self::Blob(blob) => hex(blob),
        }
    }
}

/// How texts of a column are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collation {
    /// Byte by byte.
    Binary,
    /// The 26 letters in either case are the same.
    NoCase,
    /// Spaces at the end do not count.
    RightTrim,
}

impl Collation {
    /// The collation of this name; `None` if an application made it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Binary, Self::NoCase, Self::RightTrim]
            .into_iter()
            .find(|collation| collation.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::NoCase => "NOCASE",
            Self::RightTrim => "RTRIM",
        }
    }

    /// Of all values that an index with this collation holds for equal, the same one.
    pub(crate) fn canonical(self, value: &Value) -> Value {
        match Datum::decode(value) {
            Some(Datum::Real(real)) => match whole(real) {
                Some(integer) => Datum::Integer(integer).encode(),
                None => value.clone(),
            },
            Some(Datum::Text(text)) => {
                let text = match self {
                    Self::Binary => return value.clone(),
                    Self::NoCase => Cow::Owned(text.to_ascii_lowercase()),
                    Self::RightTrim => {
                        let end = text.iter().rposition(|&byte| byte != b' ');
                        Cow::Borrowed(&text[..end.map_or(0, |end| end + 1)])
                    }
                };
                Datum::Text(&text).encode()
            }
            _ => value.clone(),
        }
    }
}

/// The integer that equals this number, if there is one.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the number is whole and in the range of the integers"
)]
fn whole(real: f64) -> Option<i64> {
    // Both bounds are powers of two, so exact.
    let in_range = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&real);
    (in_range && real.trunc() == real).then_some(real as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_values_have_one_form() {
        let same = |collation: Collation, a: Datum<'_>, b: Datum<'_>| {
            collation.canonical(&a.encode()) == collation.canonical(&b.encode())
        };
        use Collation::{Binary, NoCase, RightTrim};
        use Datum::{Blob, Integer, Null, Real, Text};
        assert!(same(Binary, Integer(5), Real(5.0)));
        assert!(same(Binary, Real(0.0), Real(-0.0)));
        assert!(same(
            Binary,
            Integer(i64::MIN),
            Real(-9_223_372_036_854_775_808.0)
        ));
        assert!(!same(
            Binary,
            Integer(i64::MAX),
            Real(9_223_372_036_854_775_808.0)
        ));
        assert!(!same(
            Binary,
            Integer(9_007_199_254_740_993),
            Real(9_007_199_254_740_992.0)
        ));
        assert!(!same(Binary, Real(0.5), Integer(0)));
        assert!(!same(Binary, Text(b"a"), Blob(b"a")));
        assert!(!same(Binary, Text(b"a"), Text(b"A")));
        assert!(same(NoCase, Text(b"aZ"), Text(b"Az")));
        assert!(!same(NoCase, Text("ä".as_bytes()), Text("Ä".as_bytes())));
        assert!(!same(NoCase, Blob(b"a"), Blob(b"A")));
        assert!(same(RightTrim, Text(b"a  "), Text(b"a")));
        assert!(same(RightTrim, Text(b"  "), Text(b"")));
        assert!(!same(RightTrim, Text(b" a"), Text(b"a")));
        assert_eq!(Binary.canonical(&Null.encode()), None);
        assert_eq!(Collation::named("nocase"), Some(NoCase));
        assert_eq!(Collation::named("german"), None);
    }

    #[test]
    fn literals_read_back() {
        for (datum, literal) in [
            (Datum::Null, "NULL"),
            (Datum::Integer(-7), "-7"),
            (Datum::Integer(i64::MIN), "(-9223372036854775807 - 1)"),
            (Datum::Real(1.0), "1.0"),
            (Datum::Real(f64::NEG_INFINITY), "-9e999"),
            (Datum::Text(b"it's"), "'it''s'"),
            (Datum::Text(b"a\0b"), "CAST(X'610062' AS TEXT)"),
            (Datum::Blob(b"\x01\xff"), "X'01ff'"),
        ] {
            assert_eq!(datum.literal(), literal);
        }
    }

    proptest! {
        #[test]
        fn values_come_back(
            integer in any::<i64>(),
            bits in any::<u64>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            for datum in [Datum::Null, Datum::Integer(integer), Datum::Text(&bytes), Datum::Blob(&bytes)] {
                let encoded = datum.encode();
                prop_assert_eq!(Datum::decode(&encoded), Some(datum));
            }
            let encoded = Datum::Real(f64::from_bits(bits)).encode();
            let Some(Datum::Real(real)) = Datum::decode(&encoded) else { panic!("a real") };
            prop_assert_eq!(real.to_bits(), bits);
            // Whatever the bytes: an answer, no panic.
            let _ = Datum::of_bytes(&bytes);
        }
    }
}
