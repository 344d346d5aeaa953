use bytes::Bytes;

use super::*;
use crate::at::{
    codec::UndoTable,
    table::{Column, Equality, IncomingKey},
};

fn table() -> Arc<Table> {
    let column = |name: &str| Column {
        name: name.into(),
        type_oid: 20,
        type_name: "int8".into(),
        as_text: false,
        generated: false,
        merges: false,
        escrow: None,
        identity_always: name == "identity",
        equality: Equality::Bytes,
    };
    Arc::new(Table {
        oid: 1,
        storage: vec![1],
        schema: "s".into(),
        name: "t".into(),
        columns: vec![
            column("id"),
            column("value"),
            column("identity"),
            column("referenced"),
        ],
        key: vec![0],
        unique: Vec::new(),
        incoming: vec![IncomingKey {
            constraint: "fk".into(),
            child: "s.child".into(),
            child_columns: vec!["r".into()],
            columns: vec![3],
            on_delete: ReferentialAction::Refuse,
            on_update: ReferentialAction::Change("CASCADE"),
        }],
        recorded: Vec::new(),
    })
}

fn row(values: [u8; 4]) -> Option<RowImage> {
    let values = values
        .iter()
        .map(|&v| Some(Bytes::copy_from_slice(&[v])))
        .collect();
    Some(RowImage { values })
}

#[test]
fn keeps_one_net_change_per_row() {
    let table = table();
    let mut changes = Changes::default();
    let mut record = |before, after| {
        changes
            .record(&table, before, after, false)
            .expect("undoable")
    };
    record(row([1, 1, 0, 0]), row([1, 2, 0, 0]));
    record(None, row([2, 0, 0, 0]));
    record(row([3, 0, 0, 0]), None);
    record(row([1, 2, 0, 0]), row([1, 3, 0, 0]));
    record(row([2, 0, 0, 0]), None);
    record(None, row([4, 0, 0, 0]));
    record(row([4, 0, 0, 0]), row([4, 1, 0, 0]));
    record(row([5, 0, 0, 0]), row([5, 0, 0, 0]));
    assert_eq!(
        changes.locks().0.len(),
        4,
        "also the row that came and went"
    );
    let undo = changes.take_record();
    let rows: Vec<_> = undo.tables[0]
        .rows
        .iter()
        .map(|r| (r.order, &r.before, &r.after))
        .collect();
    assert_eq!(
        rows,
        [
            (4, &row([1, 1, 0, 0]), &row([1, 3, 0, 0])),
            (3, &row([3, 0, 0, 0]), &None),
            (6, &None, &row([4, 1, 0, 0])),
        ]
    );
}

#[test]
fn what_returns_to_its_start_leaves_nothing() {
    let table = table();
    let mut changes = Changes::default();
    changes
        .record(&table, row([1, 1, 0, 0]), row([1, 2, 0, 0]), false)
        .expect("undoable");
    changes
        .record(&table, row([1, 2, 0, 0]), row([1, 1, 0, 0]), false)
        .expect("undoable");
    assert!(changes.is_empty());
    assert!(changes.take_record().tables.is_empty());
}

#[test]
fn refuses_rows_that_cannot_be_undone() {
    let cases = [
        (row([9, 1, 0, 0]), "primary key column id"),
        (row([1, 1, 9, 0]), "identity"),
        (row([1, 1, 0, 9]), "ON UPDATE CASCADE"),
    ];
    for (after, part) in cases {
        let error = Changes::default()
            .record(&table(), row([1, 1, 0, 0]), after, false)
            .expect_err("cannot be undone");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn is_bounded() {
    let table = table();
    let mut changes = Changes::default();
    let image = |number: u32, size: usize| {
        let mut values = vec![Some(Bytes::copy_from_slice(&number.to_be_bytes())); 4];
        values[1] = Some(Bytes::from(vec![0; size]));
        Some(RowImage { values })
    };
    let error = (0..).find_map(|n| changes.record(&table, None, image(n, 0), false).err());
    assert!(matches!(
        error,
        Some(Error::TooLarge {
            limit: limits::MAX_ROWS_PER_BRANCH,
            ..
        })
    ));
    let error = Changes::default().record(&table, None, image(1, limits::MAX_UNDO_BYTES), false);
    assert!(matches!(
        error,
        Err(Error::TooLarge {
            limit: limits::MAX_UNDO_BYTES,
            ..
        })
    ));
}

#[test]
fn a_narrow_record_holds_keys_unique_and_changed_columns() {
    let mut table = Table::clone(&table());
    table.unique.push(crate::at::table::UniqueIndex {
        name: "u".into(),
        columns: vec![2],
        nulls_are_equal: false,
    });
    let table = Arc::new(table);
    let record = |narrow| {
        let mut changes = Changes::default().narrow(narrow);
        let mut record = |before, after| {
            changes
                .record(&table, before, after, false)
                .expect("undoable")
        };
        record(row([1, 1, 0, 5]), row([1, 2, 0, 5]));
        record(row([1, 2, 0, 5]), row([1, 3, 0, 5]));
        record(None, row([2, 0, 1, 0]));
        changes.take_record()
    };
    let names = |part: &UndoTable| {
        let names = part.columns.iter().map(|column| column.name.to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    let whole = record(false);
    assert_eq!(whole.tables.len(), 1);
    let narrow = record(true);
    let [other, changed] = &narrow.tables[..] else {
        panic!("{narrow:?}")
    };
    assert_eq!(names(other), "id value identity referenced");
    assert_eq!(names(changed), "id value identity");
    let three = |values: [u8; 3]| {
        let values = values.map(|v| Some(Bytes::copy_from_slice(&[v])));
        let values = values.to_vec();
        Some(RowImage { values })
    };
    let change = &changed.rows[0];
    assert_eq!(change.before, three([1, 1, 0]));
    assert_eq!(change.after, three([1, 3, 0]));
}

#[test]
fn a_narrow_record_holds_what_the_database_needs_recorded() {
    let mut table = Table::clone(&table());
    table.recorded = vec![3, 2];
    let table = Arc::new(table);
    let mut changes = Changes::default().narrow(true);
    changes
        .record(&table, row([1, 1, 0, 5]), row([1, 2, 0, 5]), false)
        .expect("undoable");
    let record = changes.take_record();
    assert_eq!(record.tables[0].columns.len(), 4);
}
