//! Tables of any shape.

use std::fmt::Write as _;

use super::{
    kinds::{KINDS, Kind},
    random::Random,
};

const TABLE_NAMES: &[&str] = &["stock", "Order", "select", "sp ace`d", "größer", "t$1"];
const COLUMN_NAMES: &[&str] = &[
    "v",
    "Mixed",
    "from",
    "a b",
    "ß",
    "x1",
    "q`uote",
    "returning_",
    "VALUES",
];

/// A column with a generated type.
pub(super) struct Column {
    /// In backticks.
    pub(super) name: String,
    pub(super) kind: &'static Kind,
}

/// A table. Besides its generated columns it has `n int`, `s varchar` and `u int`.
pub(super) struct Table {
    /// As the catalog has it.
    pub(super) plain_name: &'static str,
    /// In backticks.
    pub(super) name: String,
    pub(super) key: Vec<Column>,
    pub(super) columns: Vec<Column>,
    /// Its key also has a part that the database fills.
    pub(super) serial: bool,
    /// It has a column that references the first table's key.
    pub(super) references: bool,
}

fn quoted(name: &str) -> String {
    crate::at::mysql::quote(name)
}

impl Table {
    fn new(random: &mut Random, plain_name: &'static str) -> Self {
        let mut names = COLUMN_NAMES.to_vec();
        let mut column = |random: &mut Random, key: bool| {
            let name = quoted(names.remove(random.below(names.len())));
            loop {
                let kind = random.pick(KINDS);
                if kind.key || !key {
                    return Column { name, kind };
                }
            }
        };
        let serial = random.once_in(3);
        let parts = if serial {
            random.below(2)
        } else {
            1 + random.below(2)
        };
        let key = (0..parts).map(|_| column(random, true)).collect();
        let count = 1 + random.below(4);
        let columns = (0..count).map(|_| column(random, false)).collect();
        Self {
            plain_name,
            name: quoted(plain_name),
            key,
            columns,
            serial,
            references: false,
        }
    }

    fn create(&self, random: &mut Random, parent: Option<&Table>) -> String {
        let mut sql = format!("CREATE TABLE {} (", self.name);
        let mut key: Vec<&str> = Vec::new();
        if self.serial {
            let id = random.pick(&["INT", "BIGINT UNSIGNED", "SMALLINT"]);
            let _ = write!(sql, "id {id} AUTO_INCREMENT, ");
            key.push("id");
        }
        for column in &self.key {
            let not_null = column.kind.sql.trim_end_matches(" NULL");
            let default = if not_null.starts_with("TIMESTAMP") {
                " DEFAULT '2026-01-01 00:00:00'"
            } else {
                ""
            };
            let _ = write!(sql, "{} {not_null} NOT NULL{default}, ", column.name);
            key.push(&column.name);
        }
        for column in &self.columns {
            let _ = write!(sql, "{} {}", column.name, column.kind.sql);
            let value = column.kind.value(random.below(9));
            if random.once_in(3) && !value.contains("REPEAT") && !value.starts_with("ST_") {
                let _ = write!(sql, " DEFAULT {value}");
            }
            sql.push_str(", ");
        }
        sql.push_str("n INT DEFAULT 5, s VARCHAR(20), u INT");
        if random.once_in(2) {
            sql.push_str(" UNIQUE");
        }
        if random.once_in(3) {
            let kind = random.pick(&["STORED", "VIRTUAL"]);
            let _ = write!(sql, ", twice INT GENERATED ALWAYS AS (n * 2) {kind}");
        }
        if random.once_in(3) {
            sql.push_str(", touched TIMESTAMP(6) NULL ON UPDATE CURRENT_TIMESTAMP(6)");
        }
        if random.once_in(4) {
            sql.push_str(", hidden INT INVISIBLE DEFAULT 3");
        }
        if let Some(parent) = parent {
            let kind = parent.key[0].kind.sql;
            let action = random.pick(&[
                "",
                " ON DELETE CASCADE",
                " ON DELETE SET NULL",
                " ON UPDATE CASCADE",
            ]);
            let _ = write!(
                sql,
                ", parent {kind}, FOREIGN KEY (parent) REFERENCES {} ({}){action}",
                parent.name, parent.key[0].name
            );
        }
        let _ = write!(sql, ", PRIMARY KEY ({})", key.join(", "));
        match random.below(6) {
            0 => sql.push_str(", UNIQUE (s, n)"),
            1 => sql.push_str(", UNIQUE (s(2))"),
            _ => {}
        }
        sql.push_str(");");
        sql
    }

    /// Names of the columns that an INSERT gives values.
    pub(super) fn insert_columns(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.key.iter().map(|c| c.name.as_str()).collect();
        names.extend(self.columns.iter().map(|c| c.name.as_str()));
        names.extend(["n", "s", "u"]);
        if self.references {
            names.push("parent");
        }
        names
    }

    /// The names of its key's columns.
    pub(super) fn key_names(&self) -> Vec<&str> {
        let serial = self.serial.then_some("id");
        serial
            .into_iter()
            .chain(self.key.iter().map(|c| c.name.as_str()))
            .collect()
    }
}

/// The tables of one round, and how to make them.
pub(super) struct Schema {
    pub(super) tables: Vec<Table>,
    pub(super) create: String,
}

impl Schema {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut names = TABLE_NAMES.to_vec();
        let mut tables: Vec<Table> = (0..1 + random.below(3))
            .map(|_| {
                let name = names.remove(random.below(names.len()));
                Table::new(random, name)
            })
            .collect();
        let mut create = tables[0].create(random, None);
        for index in 1..tables.len() {
            let parent = !tables[0].serial && tables[0].key.len() == 1 && random.once_in(2);
            tables[index].references = parent;
            let parent = parent.then_some(&tables[0]);
            create.push_str(&tables[index].create(random, parent));
        }
        Self { tables, create }
    }
}
