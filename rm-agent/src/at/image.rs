//! Row images: every column's bytes as the database sent them.

use bytes::Bytes;

use super::table::Table;
use crate::limits;

/// One column's value; `None` is NULL.
pub(crate) type Value = Option<Bytes>;

/// A row at one moment: a value per column, in the table's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowImage {
    pub(crate) values: Vec<Value>,
}

/// Why a record is no image of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageError {
    /// Columns or their types are not the ones that the metadata names.
    ColumnsChanged,
    /// The row lives in another table: a child, a partition, or a temporary
    /// table of the same name.
    OtherTable,
    /// A text form was written in a style that another session may read differently.
    OtherStyle,
    /// The bytes are no record.
    Malformed,
}

/// PostgreSQL's binary record: how many columns, then type, length and bytes of each.
pub(crate) fn split_record(record: &[u8]) -> Result<Vec<(u32, Value)>, ImageError> {
    let record = Bytes::copy_from_slice(record);
    let mut at = 0;
    let count = usize::try_from(take_i32(&record, &mut at)?).map_err(|_| ImageError::Malformed)?;
    // Twice: text forms follow the columns.
    if count > 2 * limits::MAX_COLUMNS {
        return Err(ImageError::Malformed);
    }
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let oid = u32::from_be_bytes(take_i32(&record, &mut at)?.to_be_bytes());
        let value = match take_i32(&record, &mut at)? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| ImageError::Malformed)?;
                let end = at.checked_add(length).filter(|&end| end <= record.len());
                let end = end.ok_or(ImageError::Malformed)?;
                let value = record.slice(at..end);
                at = end;
                Some(value)
            }
        };
        fields.push((oid, value));
    }
    if at == record.len() {
        Ok(fields)
    } else {
        Err(ImageError::Malformed)
    }
}

fn take_i32(record: &Bytes, at: &mut usize) -> Result<i32, ImageError> {
    let bytes = record.get(*at..*at + 4).ok_or(ImageError::Malformed)?;
    *at += 4;
    Ok(i32::from_be_bytes(
        bytes.try_into().expect("the slice has four bytes"),
    ))
}

impl RowImage {
    /// Reads `ROW(t.tableoid, t.*, text forms …, whether their style is the usual one)`.
    pub(crate) fn decode(table: &Table, record: &[u8]) -> Result<Self, ImageError> {
        let mut fields = split_record(record)?;
        let texts = table.columns.iter().filter(|c| c.as_text).count();
        let style = usize::from(texts > 0);
        if fields.len() != 1 + table.columns.len() + texts + style {
            return Err(ImageError::ColumnsChanged);
        }
        if texts > 0 && !matches!(fields.pop(), Some((_, Some(same))) if same[..] == [1]) {
            return Err(ImageError::OtherStyle);
        }
        let mut text_forms = fields.split_off(1 + table.columns.len()).into_iter();
        let mut fields = fields.into_iter();
        let oid = fields.next().and_then(|(_, value)| value);
        let is_oid = |known: &u32| oid.as_deref() == Some(&known.to_be_bytes()[..]);
        if !table.storage.iter().any(is_oid) {
            return Err(ImageError::OtherTable);
        }
        let mut values = Vec::with_capacity(table.columns.len());
        for (column, (type_oid, value)) in table.columns.iter().zip(fields) {
            if type_oid != column.type_oid {
                return Err(ImageError::ColumnsChanged);
            }
            values.push(if column.as_text {
                text_forms.next().and_then(|(_, text)| text)
            } else {
                value
            });
        }
        Ok(Self { values })
    }

    /// Bytes that it occupies, roughly.
    pub(crate) fn size(&self) -> usize {
        self.values
            .iter()
            .map(|v| 8 + v.as_ref().map_or(0, Bytes::len))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splits_a_record() {
        let record = [
            &2_i32.to_be_bytes()[..],
            &23_u32.to_be_bytes(),
            &4_i32.to_be_bytes(),
            &7_i32.to_be_bytes(),
            &25_u32.to_be_bytes(),
            &(-1_i32).to_be_bytes(),
        ]
        .concat();
        let fields = split_record(&record).expect("a record");
        assert_eq!(
            fields,
            [(23, Some(Bytes::from_static(&[0, 0, 0, 7]))), (25, None)]
        );
        assert_eq!(
            split_record(&record[..record.len() - 1]),
            Err(ImageError::Malformed)
        );
        assert_eq!(split_record(&[0xff; 12]), Err(ImageError::Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = split_record(&bytes);
        }
    }
}
