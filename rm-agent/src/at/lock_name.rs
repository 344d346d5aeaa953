//! A row lock's key as people read it.

use std::fmt::Write as _;

use super::{
    lock_key::{ANY_VALUE, BYTES, HASHED, NULL, VERSION},
    sqlite::value as sqlite,
};

/// Bytes of a key or a value that is not understood of which more is not shown.
const MOST_SHOWN: usize = 24;

/// Says which row a lock is about: `public.stock (7)` for a primary key, `public.users
/// users_email_key ('ann@example.org')` for a value in a unique index. Keys that this version does
/// not know come as text if they are, else as hex digits.
#[must_use]
pub fn describe_row_lock(key: &[u8]) -> String {
    read(key).unwrap_or_else(|| raw(key))
}

fn read(key: &[u8]) -> Option<String> {
    let (&VERSION, mut left) = key.split_first()? else {
        return None;
    };
    let [schema, table, index] = [(); 3].map(|()| text(&mut left));
    let (schema, table, index) = (schema?, table?, index?);
    let mut name = format!("{schema}.{table}");
    if !index.is_empty() {
        let _ = write!(name, " {index}");
    }
    let mut values = Vec::new();
    while !left.is_empty() {
        values.push(value(&mut left)?);
    }
    let _ = write!(name, " ({})", values.join(", "));
    Some(name)
}

fn take<'a>(left: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(bytes)?;
    *left = rest;
    Some(taken)
}

fn number(left: &mut &[u8]) -> Option<u32> {
    let bytes = take(left, 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn text(left: &mut &[u8]) -> Option<String> {
    let length = number(left)? as usize;
    let bytes = take(left, length)?;
    String::from_utf8(bytes.to_vec()).ok()
}

fn value(left: &mut &[u8]) -> Option<String> {
    let form = take(left, 1)?[0];
    match form {
        NULL => return Some("NULL".to_owned()),
        ANY_VALUE => return Some("any value".to_owned()),
        BYTES | HASHED => {}
        _ => return None,
    }
    let type_oid = number(left)?;
    let length = number(left)? as usize;
    let bytes = take(left, length)?;
    Some(if form == HASHED {
        format!("a long value, hash {}", hex(bytes))
    } else {
        of_type(type_oid, bytes).unwrap_or_else(|| raw(bytes))
    })
}

/// The types that keys mostly have; their numbers are fixed in PostgreSQL's catalog (pg_type.dat).
/// A value in SQLite says itself what it is.
fn of_type(type_oid: u32, bytes: &[u8]) -> Option<String> {
    Some(match type_oid {
        16 => (bytes == [1]).to_string(),
        20 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        21 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        23 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        25 | 1042 | 1043 => format!("'{}'", std::str::from_utf8(bytes).ok()?.escape_debug()),
        2950 => uuid::Uuid::from_bytes(bytes.try_into().ok()?).to_string(),
        sqlite::TYPE => sqlite::Datum::of_bytes(bytes)?.literal(),
        _ => return None,
    })
}

fn raw(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MOST_SHOWN)];
    let mut digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    if shown.len() < bytes.len() {
        digits.push('…');
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: &str, values: &[&[u8]]) -> Vec<u8> {
        let mut key = vec![VERSION];
        for part in ["public", "stock", index] {
            key.extend((part.len() as u32).to_be_bytes());
            key.extend(part.as_bytes());
        }
        key.extend(values.concat());
        key
    }

    fn typed(form: u8, type_oid: u32, bytes: &[u8]) -> Vec<u8> {
        let mut value = vec![form];
        value.extend(type_oid.to_be_bytes());
        value.extend((bytes.len() as u32).to_be_bytes());
        value.extend(bytes);
        value
    }

    #[test]
    fn keys_read_as_rows() {
        let seven = typed(BYTES, 20, &7_i64.to_be_bytes());
        let text = typed(BYTES, 25, "it's".as_bytes());
        assert_eq!(describe_row_lock(&key("", &[&seven])), "public.stock (7)");
        assert_eq!(
            describe_row_lock(&key("", &[&seven, &text, &[NULL], &[ANY_VALUE]])),
            "public.stock (7, 'it\\'s', NULL, any value)"
        );
        let by_name = key("stock_name_key", &[&typed(HASHED, 25, &[0xab; 16])]);
        assert_eq!(
            describe_row_lock(&by_name),
            format!(
                "public.stock stock_name_key (a long value, hash {})",
                "ab".repeat(16)
            )
        );
        let in_sqlite = sqlite::Datum::Text(b"it's").encode().expect("not NULL");
        let in_sqlite = key("", &[&typed(BYTES, sqlite::TYPE, &in_sqlite)]);
        assert_eq!(describe_row_lock(&in_sqlite), "public.stock ('it''s')");
        // A type without a reading of its own.
        let date = key("", &[&typed(BYTES, 1082, &[0, 0, 1, 2])]);
        assert_eq!(describe_row_lock(&date), "public.stock (0x00000102)");
    }

    #[test]
    fn what_is_not_understood_is_shown_as_it_is() {
        assert_eq!(describe_row_lock(b"product 7"), "product 7");
        assert_eq!(describe_row_lock(&[9, 255]), "0x09ff");
        assert_eq!(describe_row_lock(&[]), "0x");
        let whole = key("", &[&typed(BYTES, 20, &7_i64.to_be_bytes())]);
        for cut in 1..whole.len() {
            // Whatever is cut off, something is said.
            assert!(!describe_row_lock(&whole[..cut]).is_empty());
        }
        let long = describe_row_lock(&[0; 100]);
        assert!(long.ends_with('…') && long.chars().count() == 2 + 2 * MOST_SHOWN + 1);
    }
}
