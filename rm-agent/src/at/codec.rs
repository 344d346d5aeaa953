//! The bytes of `rollback_info`.
//!
//! Version 2 is version 1 compressed: the length of version 1 in four bytes, little endian, and an
//! LZ4 block. Version 1, integers as LEB128 varints, texts and values with their length:
//!
//! ```text
//! version=1, table count, per table:
//!   schema, name,
//!   column count, per column: name, type oid, flags [, type name if flag AS_TEXT]
//!   key length, key positions,
//!   row count, per row: order, kind, images
//! value: 0 = NULL, else length + 1 and the bytes
//! images: inserted = after; deleted = before; updated, added to = before, then how
//!   many columns changed and for each its position and its value after
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::image::{RowImage, Value};
use crate::limits;

const VERSION: u8 = 1;
const COMPRESSED: u8 = 2;
const AS_TEXT: u8 = 1;
const GENERATED: u8 = 2;
const MERGES: u8 = 4;
const INSERTED: u8 = 1;
const UPDATED: u8 = 2;
const DELETED: u8 = 3;
const ADDED_TO: u8 = 4;

/// How to undo a branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UndoRecord {
    pub(crate) tables: Vec<UndoTable>,
}

/// The rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UndoTable {
    pub(crate) schema: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) columns: Vec<UndoColumn>,
    /// The primary key: positions in `columns`.
    pub(crate) key: Vec<usize>,
    /// In key order, no key twice.
    pub(crate) rows: Vec<UndoRow>,
}

/// One column, as it was when the branch ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UndoColumn {
    pub(crate) name: Arc<str>,
    pub(crate) type_oid: u32,
    /// The type to cast a text form to; set when the values are texts.
    pub(crate) text_type: Option<Arc<str>>,
    pub(crate) generated: bool,
    /// Others may change it; an undo leaves it as they did.
    pub(crate) merges: bool,
}

/// One row's net change over the whole branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UndoRow {
    /// Grows with the time of the row's last change inside the branch.
    pub(crate) order: u32,
    /// `None`: the branch inserted the row.
    pub(crate) before: Option<RowImage>,
    /// `None`: the branch deleted the row. Never both.
    pub(crate) after: Option<RowImage>,
    /// The branch only added to columns in escrow: an undo takes that away from
    /// whatever they hold by then.
    pub(crate) escrow: bool,
}

/// Bytes that are no undo record of a version that this library reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the undo record is damaged or of a newer version: {0}")]
pub(crate) struct DecodeError(&'static str);

impl UndoRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put(&mut out, self.tables.len());
        for table in &self.tables {
            table.encode(&mut out);
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote, compressed or not.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if let [COMPRESSED, packed @ ..] = bytes {
            return Self::decode_plain(unpack(packed)?.into());
        }
        Self::decode_plain(Bytes::copy_from_slice(bytes))
    }

    fn decode_plain(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut input = Input { bytes, at: 0 };
        if input.byte()? != VERSION {
            return Err(DecodeError("unknown version"));
        }
        let tables = input.list(limits::MAX_ROWS_PER_BRANCH, UndoTable::decode)?;
        if input.at == input.bytes.len() {
            Ok(Self { tables })
        } else {
            Err(DecodeError("bytes after the end"))
        }
    }
}

/// Compresses an encoded record that is large, if that makes it smaller: it travels to the database
/// as text, and images of many rows have much in common.
pub(crate) fn pack(record: Vec<u8>) -> Vec<u8> {
    if record.len() < limits::COMPRESS_UNDO_FROM {
        return record;
    }
    let mut packed = vec![COMPRESSED];
    packed.extend(lz4_flex::block::compress_prepend_size(&record));
    if packed.len() < record.len() {
        packed
    } else {
        record
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (length, _) = packed.split_first_chunk().ok_or(DecodeError("cut short"))?;
    // Nothing is allocated for a length that cannot be.
    if u32::from_le_bytes(*length) as usize > limits::MAX_UNDO_BYTES {
        return Err(DecodeError("a record above its limit"));
    }
    lz4_flex::block::decompress_size_prepended(packed)
        .map_err(|_| DecodeError("damaged compression"))
}

impl UndoTable {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.schema.as_bytes());
        put_bytes(out, self.name.as_bytes());
        put(out, self.columns.len());
        for column in &self.columns {
            put_bytes(out, column.name.as_bytes());
            put(out, column.type_oid as usize);
            let text = if column.text_type.is_some() {
                AS_TEXT
            } else {
                0
            };
            let generated = if column.generated { GENERATED } else { 0 };
            let merges = if column.merges { MERGES } else { 0 };
            out.push(text | generated | merges);
            if let Some(name) = &column.text_type {
                put_bytes(out, name.as_bytes());
            }
        }
        put(out, self.key.len());
        for &position in &self.key {
            put(out, position);
        }
        put(out, self.rows.len());
        for row in &self.rows {
            row.encode(out);
        }
    }

    fn decode(input: &mut Input) -> Result<Self, DecodeError> {
        let (schema, name) = (input.text()?, input.text()?);
        let columns = input.list(limits::MAX_COLUMNS, |input| {
            let (name, type_oid, flags) = (input.text()?, input.number()?, input.byte()?);
            Ok(UndoColumn {
                name,
                type_oid: u32::try_from(type_oid).map_err(|_| DecodeError("type oid"))?,
                text_type: (flags & AS_TEXT != 0).then(|| input.text()).transpose()?,
                generated: flags & GENERATED != 0,
                merges: flags & MERGES != 0,
            })
        })?;
        let width = columns.len();
        let key = input.list(width, |input| input.position(width))?;
        if key.is_empty() {
            return Err(DecodeError("a table without a key"));
        }
        let rows = input.list(limits::MAX_ROWS_PER_BRANCH, |input| {
            UndoRow::decode(input, width)
        })?;
        Ok(Self {
            schema,
            name,
            columns,
            key,
            rows,
        })
    }
}

impl UndoRow {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.order as usize);
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                out.push(if self.escrow { ADDED_TO } else { UPDATED });
                put_image(out, before);
                let changed: Vec<usize> = (0..before.values.len())
                    .filter(|&i| before.values[i] != after.values[i])
                    .collect();
                put(out, changed.len());
                for position in changed {
                    put(out, position);
                    put_value(out, &after.values[position]);
                }
            }
            (None, Some(after)) => {
                out.push(INSERTED);
                put_image(out, after);
            }
            (Some(before), None) => {
                out.push(DELETED);
                put_image(out, before);
            }
            (None, None) => unreachable!("a row without images is never recorded"),
        }
    }

    fn decode(input: &mut Input, width: usize) -> Result<Self, DecodeError> {
        let order = u32::try_from(input.number()?).map_err(|_| DecodeError("row order"))?;
        let kind = input.byte()?;
        let (before, after) = match kind {
            INSERTED => (None, Some(input.image(width)?)),
            DELETED => (Some(input.image(width)?), None),
            UPDATED | ADDED_TO => {
                let before = input.image(width)?;
                let mut after = before.clone();
                for (position, value) in
                    input.list(width, |input| Ok((input.position(width)?, input.value()?)))?
                {
                    after.values[position] = value;
                }
                (Some(before), Some(after))
            }
            _ => return Err(DecodeError("kind of row")),
        };
        Ok(Self {
            order,
            before,
            after,
            escrow: kind == ADDED_TO,
        })
    }
}

fn put(out: &mut Vec<u8>, number: usize) {
    let mut rest = number as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len());
    out.extend(bytes);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        None => put(out, 0),
        Some(bytes) => {
            put(out, bytes.len() + 1);
            out.extend(&bytes[..]);
        }
    }
}

fn put_image(out: &mut Vec<u8>, image: &RowImage) {
    for value in &image.values {
        put_value(out, value);
    }
}

struct Input {
    bytes: Bytes,
    at: usize,
}

impl Input {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError("cut short"))?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<usize, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(number).map_err(|_| DecodeError("a number too large"));
            }
        }
        Err(DecodeError("a number too large"))
    }

    fn position(&mut self, width: usize) -> Result<usize, DecodeError> {
        let position = self.number()?;
        if position < width {
            Ok(position)
        } else {
            Err(DecodeError("a column that is not there"))
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let end = self
            .at
            .checked_add(length)
            .filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(DecodeError("cut short"))?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn text(&mut self) -> Result<Arc<str>, DecodeError> {
        let length = self.number()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes)
            .map(Arc::from)
            .map_err(|_| DecodeError("a name in no UTF-8"))
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        match self.number()? {
            0 => Ok(None),
            length => Ok(Some(self.take(length - 1)?)),
        }
    }

    fn image(&mut self, width: usize) -> Result<RowImage, DecodeError> {
        let values = (0..width).map(|_| self.value()).collect::<Result<_, _>>()?;
        Ok(RowImage { values })
    }

    /// A counted list. Nothing is allocated for a count before its items are there.
    fn list<T>(
        &mut self,
        limit: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.number()?;
        if count > limit {
            return Err(DecodeError("a list above its limit"));
        }
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
