//! Row locks: which keys a changed row takes.
//!
//! A key is made from the table, the unique index and the values, each with its
//! length. Two values that the index holds for equal must give the same key;
//! two different ones may (they only wait for each other).

use std::collections::BTreeSet;

use super::{
    image::{RowImage, Value},
    table::{Column, Equality, Table, UniqueIndex},
};
use crate::limits;

/// First byte of every key, so that the form can change.
pub(super) const VERSION: u8 = 1;
pub(super) const NULL: u8 = 0;
pub(super) const BYTES: u8 = 1;
pub(super) const HASHED: u8 = 2;
pub(super) const ANY_VALUE: u8 = 3;

/// Adds the keys of a changed row: its primary key, and every value that the
/// change creates in a unique index or removes from one.
pub(crate) fn add_keys(
    keys: &mut BTreeSet<Vec<u8>>,
    table: &Table,
    before: Option<&RowImage>,
    after: Option<&RowImage>,
) {
    for image in [before, after].into_iter().flatten() {
        keys.insert(primary_key(table, image));
    }
    for index in &table.unique {
        let old = before.and_then(|image| unique_key(table, index, image));
        let new = after.and_then(|image| unique_key(table, index, image));
        // An expression's value is not in the image: it may have changed.
        if old != new || index.columns.is_empty() {
            keys.extend(old);
            keys.extend(new);
        }
    }
}

/// The key of the row itself.
pub(crate) fn primary_key(table: &Table, image: &RowImage) -> Vec<u8> {
    let mut key = start(table, "");
    for &column in &table.key {
        push_value(&mut key, &table.columns[column], &image.values[column]);
    }
    key
}

/// The key of a value in a unique index; `None` if the row has none there.
fn unique_key(table: &Table, index: &UniqueIndex, image: &RowImage) -> Option<Vec<u8>> {
    let has_null = index
        .columns
        .iter()
        .any(|&column| image.values[column].is_none());
    if has_null && !index.nulls_are_equal {
        return None;
    }
    let mut key = start(table, &index.name);
    for &column in &index.columns {
        push_value(&mut key, &table.columns[column], &image.values[column]);
    }
    Some(key)
}

fn start(table: &Table, index: &str) -> Vec<u8> {
    let mut key = vec![VERSION];
    for part in [&*table.schema, &*table.name, index] {
        // Names have at most 63 bytes unless the server was built otherwise.
        key.extend((part.len() as u32).to_be_bytes());
        key.extend(part.as_bytes());
    }
    key
}

fn push_value(key: &mut Vec<u8>, column: &Column, value: &Value) {
    let Some(value) = value else {
        key.push(NULL);
        return;
    };
    let canonical = match column.equality {
        Equality::Bytes => std::borrow::Cow::Borrowed(&value[..]),
        Equality::Numeric => canonical_numeric(value).into(),
        Equality::Float => canonical_float(value).into(),
        Equality::Unknown => {
            key.push(ANY_VALUE);
            return;
        }
    };
    let (form, bytes) = if canonical.len() > limits::MAX_LOCK_VALUE_BYTES {
        (HASHED, fnv1a_128(&canonical).to_be_bytes().to_vec().into())
    } else {
        (BYTES, canonical)
    };
    key.push(form);
    key.extend(column.type_oid.to_be_bytes());
    key.extend((bytes.len() as u32).to_be_bytes());
    key.extend(&*bytes);
}

/// `numeric` on the wire: digit count, weight, sign, scale, then base-10,000
/// digits without leading or trailing zeros. Only the scale differs between
/// equal values (1.0 and 1.00); zero digits at either end are removed as well,
/// to depend on nothing.
fn canonical_numeric(value: &[u8]) -> Vec<u8> {
    let Some((head, digits)) = value.split_at_checked(8) else {
        return value.to_vec();
    };
    let mut weight = i16::from_be_bytes([head[2], head[3]]);
    let mut digits: Vec<[u8; 2]> = digits.chunks_exact(2).map(|d| [d[0], d[1]]).collect();
    while digits.last() == Some(&[0, 0]) {
        digits.pop();
    }
    while digits.first() == Some(&[0, 0]) {
        digits.remove(0);
        weight = weight.wrapping_sub(1);
    }
    let mut canonical = head[4..6].to_vec();
    if !digits.is_empty() {
        canonical.extend(weight.to_be_bytes());
    }
    canonical.extend(digits.concat());
    canonical
}

fn canonical_float(value: &[u8]) -> Vec<u8> {
    let negative_zero = value.first() == Some(&0x80) && value[1..].iter().all(|&b| b == 0);
    let is_nan = match value {
        [a, b, c, d] => f32::from_be_bytes([*a, *b, *c, *d]).is_nan(),
        _ => <[u8; 8]>::try_from(value).is_ok_and(|bytes| f64::from_be_bytes(bytes).is_nan()),
    };
    if negative_zero {
        vec![0; value.len()]
    } else if is_nan {
        b"NaN".to_vec()
    } else {
        value.to_vec()
    }
}

/// A hash that is the same in every process and every version.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, &byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

#[cfg(test)]
#[path = "lock_key_tests.rs"]
mod tests;
