use bytes::Bytes;

use super::*;

fn column(equality: Equality, type_oid: u32) -> Column {
    Column {
        name: "c".into(),
        type_oid,
        type_name: "t".into(),
        as_text: false,
        generated: false,
        merges: false,
        escrow: None,
        identity_always: false,
        equality,
    }
}

fn table(columns: Vec<Column>, key: Vec<usize>, unique: Vec<Vec<usize>>) -> Table {
    let index = |columns: Vec<usize>| UniqueIndex {
        name: format!("u{columns:?}").into(),
        columns,
        nulls_are_equal: false,
    };
    Table {
        oid: 1,
        storage: vec![1],
        schema: "s".into(),
        name: "t".into(),
        columns,
        key,
        unique: unique.into_iter().map(index).collect(),
        incoming: Vec::new(),
        recorded: Vec::new(),
    }
}

fn row(values: &[Option<&[u8]>]) -> RowImage {
    let values = values
        .iter()
        .map(|v| v.map(Bytes::copy_from_slice))
        .collect();
    RowImage { values }
}

fn keys(table: &Table, before: Option<&RowImage>, after: Option<&RowImage>) -> usize {
    let mut keys = BTreeSet::new();
    add_keys(&mut keys, table, before, after);
    keys.len()
}

#[test]
fn different_rows_have_different_keys() {
    let table = table(
        vec![column(Equality::Bytes, 25), column(Equality::Bytes, 25)],
        vec![0, 1],
        vec![],
    );
    let pairs: [[&[u8]; 2]; 4] = [[b"a", b"bc"], [b"ab", b"c"], [b"", b"abc"], [b"abc", b""]];
    let keys: BTreeSet<_> = pairs
        .iter()
        .map(|[a, b]| primary_key(&table, &row(&[Some(a), Some(b)])))
        .collect();
    assert_eq!(keys.len(), 4);
}

#[test]
fn only_changed_unique_values_are_locked() {
    let columns = vec![column(Equality::Bytes, 20); 3];
    let table = table(columns, vec![0], vec![vec![1], vec![]]);
    let old = row(&[Some(b"1"), Some(b"x"), Some(b"p")]);
    let other = row(&[Some(b"1"), Some(b"x"), Some(b"q")]);
    let renamed = row(&[Some(b"1"), Some(b"y"), Some(b"p")]);
    let unnamed = row(&[Some(b"1"), None, Some(b"p")]);
    // The row and the index over expressions.
    assert_eq!(keys(&table, Some(&old), Some(&other)), 2);
    assert_eq!(keys(&table, Some(&old), Some(&renamed)), 4);
    assert_eq!(keys(&table, Some(&old), Some(&unnamed)), 3);
    assert_eq!(keys(&table, None, Some(&unnamed)), 2);
    assert_eq!(keys(&table, Some(&old), None), 3);
}

#[test]
fn equal_values_have_equal_keys() {
    let key = |equality, value: &[u8]| {
        primary_key(
            &table(vec![column(equality, 1)], vec![0], vec![]),
            &row(&[Some(value)]),
        )
    };
    // 1.0 and 1.00; then 10000 with and without a trailing zero digit; then zero.
    let one = |scale| [0, 1, 0, 0, 0, 0, 0, scale, 0, 1];
    assert_eq!(
        key(Equality::Numeric, &one(1)),
        key(Equality::Numeric, &one(2))
    );
    assert_ne!(
        key(Equality::Numeric, &one(1)),
        key(Equality::Numeric, &[0, 1, 0, 1, 0, 0, 0, 0, 0, 1])
    );
    assert_eq!(
        key(Equality::Numeric, &[0, 1, 0, 1, 0, 0, 0, 0, 0, 1]),
        key(Equality::Numeric, &[0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0])
    );
    assert_eq!(
        key(Equality::Numeric, &[0, 0, 0, 0, 0, 0, 0, 0]),
        key(Equality::Numeric, &[0, 0, 0, 3, 0, 0, 0, 5])
    );
    assert_eq!(
        key(Equality::Numeric, b"cut"),
        key(Equality::Numeric, b"cut")
    );
    let float = |value: f64| key(Equality::Float, &value.to_be_bytes());
    assert_eq!(float(0.0), float(-0.0));
    assert_eq!(float(f64::NAN), float(-f64::NAN));
    assert_ne!(float(1.0), float(-1.0));
    assert_eq!(key(Equality::Unknown, b"A"), key(Equality::Unknown, b"b"));
    let long = |last: u8| {
        let mut value = vec![7; 5_000];
        value.push(last);
        key(Equality::Bytes, &value)
    };
    assert_eq!(long(1), long(1));
    assert_ne!(long(1), long(2));
    assert!(long(1).len() < 100);
}
