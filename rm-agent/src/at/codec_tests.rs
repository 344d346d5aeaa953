use proptest::prelude::*;

use super::*;

fn value(bytes: &'static [u8]) -> Value {
    Some(Bytes::from_static(bytes))
}

fn record() -> UndoRecord {
    let column = |name: &str, type_oid, text_type: Option<&str>, generated| UndoColumn {
        name: name.into(),
        type_oid,
        text_type: text_type.map(Into::into),
        generated,
        merges: false,
    };
    let image = |values: [Value; 3]| {
        Some(RowImage {
            values: values.to_vec(),
        })
    };
    UndoRecord {
        tables: vec![UndoTable {
            schema: "public".into(),
            name: "stock".into(),
            columns: vec![
                column("id", 23, None, false),
                column("m", 4451, Some("pg_catalog.int4multirange"), false),
                column("twice", 23, None, true),
            ],
            key: vec![0],
            rows: vec![
                UndoRow {
                    order: 300,
                    before: image([value(&[0, 0, 0, 1]), value(b"{}"), None]),
                    after: image([value(&[0, 0, 0, 1]), None, value(&[9])]),
                    escrow: false,
                },
                UndoRow {
                    order: 1,
                    before: None,
                    after: image([value(&[2]), value(b""), None]),
                    escrow: false,
                },
                UndoRow {
                    order: 2,
                    before: image([value(&[3]), None, None]),
                    after: None,
                    escrow: false,
                },
            ],
        }],
    }
}

/// Version 1 as it stands in databases. Never change the file: add a version.
#[test]
fn version_one_stays_readable() {
    let bytes = include_bytes!("../../tests/golden/undo_v1.bin");
    assert_eq!(UndoRecord::decode(bytes), Ok(record()));
    assert_eq!(record().encode(), bytes);
}

#[test]
fn refuses_other_versions_and_damage() {
    let bytes = record().encode();
    for length in 0..bytes.len() {
        assert!(
            UndoRecord::decode(&bytes[..length]).is_err(),
            "cut at {length}"
        );
    }
    let mut newer = bytes.clone();
    newer[0] = 3;
    let error = UndoRecord::decode(&newer).expect_err("unknown version");
    assert!(error.to_string().contains("newer version"));
    let mut longer = bytes;
    longer.push(0);
    assert!(UndoRecord::decode(&longer).is_err());
}

#[test]
fn large_records_are_compressed_and_read_back() {
    let mut large = record();
    let row = large.tables[0].rows[1].clone();
    large.tables[0].rows = vec![row; 1_000];
    let plain = large.encode();
    let packed = pack(plain.clone());
    assert!(packed.len() * 10 < plain.len(), "{} bytes", packed.len());
    assert_eq!(UndoRecord::decode(&packed), Ok(large));
    assert_eq!(
        pack(record().encode()),
        record().encode(),
        "small ones are not"
    );
    for length in [1, 3, 5, packed.len() / 2, packed.len() - 1] {
        assert!(UndoRecord::decode(&packed[..length]).is_err(), "{length}");
    }
    let mut huge = packed;
    huge[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = UndoRecord::decode(&huge).expect_err("above the limit");
    assert!(error.to_string().contains("limit"), "{error}");
}

#[test]
fn what_cannot_be_compressed_stays_as_it_is() {
    let noise = (0..200_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes());
    let mut bytes: Vec<u8> = noise.collect();
    while bytes.len() < limits::COMPRESS_UNDO_FROM {
        let hash = bytes.iter().fold(7_u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
        });
        bytes.extend(hash.to_be_bytes());
    }
    assert_eq!(pack(bytes.clone()), bytes);
}

fn any_value() -> impl Strategy<Value = Value> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from))
}

fn any_image(width: usize) -> impl Strategy<Value = RowImage> {
    proptest::collection::vec(any_value(), width).prop_map(|values| RowImage { values })
}

fn any_table() -> impl Strategy<Value = UndoTable> {
    (1_usize..6).prop_flat_map(|width| {
        let row = (any::<u32>(), any_image(width), any_image(width), 0..4).prop_map(
            |(order, before, after, kind)| UndoRow {
                order,
                before: (kind != 0).then_some(before),
                after: (kind != 1).then_some(after),
                escrow: kind == 3,
            },
        );
        (proptest::collection::vec(row, 0..5), "[a-zé]{0,8}").prop_map(move |(rows, name)| {
            UndoTable {
                schema: "s".into(),
                name: name.into(),
                columns: (0..width)
                    .map(|i| UndoColumn {
                        name: format!("c{i}").into(),
                        type_oid: i as u32 * 5_000,
                        text_type: (i % 3 == 1).then(|| "t".into()),
                        generated: i % 2 == 1,
                        merges: i % 3 == 0,
                    })
                    .collect(),
                key: vec![width - 1],
                rows,
            }
        })
    })
}

proptest! {
    #[test]
    fn round_trips(tables in proptest::collection::vec(any_table(), 0..4)) {
        let record = UndoRecord { tables };
        prop_assert_eq!(UndoRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = UndoRecord::decode(&bytes);
    }

    #[test]
    fn damaged_records_never_panic(at in 0_usize..90, byte: u8) {
        let mut bytes = record().encode();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = UndoRecord::decode(&bytes);
    }
}
