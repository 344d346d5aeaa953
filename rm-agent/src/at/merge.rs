//! What an undo leaves of a row that somebody else changed.

use super::{codec::UndoColumn, image::RowImage};

/// The row that an undo shall make of `now`, which is not as the branch left it:
/// columns go back to what they were before it, those that others changed since
/// stay. `None` if others changed a column that the table's owner did not list.
pub(crate) fn merge(
    columns: &[UndoColumn],
    before: &RowImage,
    after: &RowImage,
    now: &RowImage,
) -> Option<RowImage> {
    let mut values = Vec::with_capacity(columns.len());
    for (position, column) in columns.iter().enumerate() {
        let [before, after, now] = [before, after, now].map(|image| &image.values[position]);
        let value = if column.generated {
            now
        } else if now == after {
            before
        } else if column.merges {
            now
        } else {
            return None;
        };
        values.push(value.clone());
    }
    Some(RowImage { values })
}

/// Whether an undone row is as it should be. Columns that others may change need
/// not be: a trigger may have set them once more.
pub(crate) fn is_undone(columns: &[UndoColumn], wanted: &RowImage, got: &RowImage) -> bool {
    let any_merges = columns.iter().any(|column| column.merges);
    columns.iter().enumerate().all(|(position, column)| {
        wanted.values[position] == got.values[position]
            || column.merges
            || column.generated && any_merges
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn columns() -> Vec<UndoColumn> {
        let column = |name: &str, generated, merges| UndoColumn {
            name: name.into(),
            type_oid: 23,
            text_type: None,
            generated,
            merges,
        };
        vec![
            column("id", false, false),
            column("count", false, false),
            column("note", false, true),
            column("twice", true, false),
        ]
    }

    fn row(values: [u8; 4]) -> RowImage {
        let value = |byte: u8| Some(Bytes::copy_from_slice(&[byte]));
        RowImage {
            values: values.map(value).to_vec(),
        }
    }

    #[test]
    fn what_others_may_change_stays() {
        let merged = |before, after, now| merge(&columns(), &row(before), &row(after), &row(now));
        let (before, after) = ([1, 5, 7, 10], [1, 6, 7, 12]);
        assert_eq!(
            merged(before, after, [1, 6, 9, 12]),
            Some(row([1, 5, 9, 12]))
        );
        assert_eq!(
            merged(before, after, [1, 8, 7, 16]),
            None,
            "both changed it"
        );
        assert_eq!(merged(before, after, [1, 5, 9, 10]), None, "not listed");
        // The branch changed the listed column itself.
        let after = [1, 6, 8, 12];
        assert_eq!(
            merged(before, after, [1, 6, 9, 12]),
            Some(row([1, 5, 9, 12])),
            "theirs came last"
        );
        assert_eq!(
            merged(before, after, [1, 6, 7, 12]),
            Some(row([1, 5, 7, 12])),
            "set back"
        );
        assert!(is_undone(
            &columns(),
            &row([1, 5, 9, 12]),
            &row([1, 5, 3, 10])
        ));
        assert!(!is_undone(
            &columns(),
            &row([1, 5, 9, 12]),
            &row([1, 6, 9, 12])
        ));
    }

    proptest! {
        /// Whatever the values: a change of others is never lost.
        #[test]
        fn nothing_of_others_is_overwritten(
            before in proptest::array::uniform4(0..3_u8),
            after in proptest::array::uniform4(0..3_u8),
            now in proptest::array::uniform4(0..3_u8),
        ) {
            let Some(merged) = merge(&columns(), &row(before), &row(after), &row(now)) else {
                return Ok(());
            };
            for position in 0..3 {
                let by_others = now[position] != after[position];
                let expected = if by_others { now[position] } else { before[position] };
                prop_assert_eq!(&merged.values[position], &row([expected; 4]).values[0]);
            }
        }
    }
}
