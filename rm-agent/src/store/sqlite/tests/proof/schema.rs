//! Tables of any shape.

use std::fmt::Write as _;

use super::{
    kinds::{KINDS, Kind, VALUES},
    random::Random,
};
use crate::at::table::quote;

const TABLE_NAMES: &[&str] = &["stock", "Order", "select", "sp ace\"d", "größer", "t$1"];
const COLUMN_NAMES: &[&str] = &[
    "v",
    "Mixed",
    "from",
    "a b",
    "ß",
    "x1",
    "q\"uote",
    "returning",
    "VALUES",
    "oid",
    "rowid",
];

/// A column with a generated type.
pub(super) struct Column {
    /// Quoted.
    pub(super) name: String,
    kind: &'static Kind,
    strict: bool,
}

impl Column {
    pub(super) fn value(&self, random: &mut Random) -> &'static str {
        match self.kind.strict {
            Some(fitting) if self.strict => VALUES[*random.pick(fitting)],
            _ => VALUES[random.below(VALUES.len())],
        }
    }
}

/// How its rows are told apart.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Key {
    /// The row number, which the table has no name for.
    None,
    /// `id INTEGER PRIMARY KEY`.
    Integer,
    /// The same, and numbers are never given twice.
    Autoincrement,
    /// Some columns beside the row number.
    Columns,
    /// Some columns instead of a row number.
    WithoutRowid,
}

/// A table. Besides its generated columns it has `n INT`, `s TEXT` and `u`.
pub(super) struct Table {
    /// As the catalog has it.
    pub(super) plain_name: &'static str,
    /// Quoted.
    pub(super) name: String,
    pub(super) key: Key,
    pub(super) key_columns: Vec<Column>,
    pub(super) columns: Vec<Column>,
    pub(super) strict: bool,
    /// It has a column that references the first table's `u`.
    pub(super) references: bool,
    /// It has a column that references its own `u`.
    pub(super) refers_to_itself: bool,
    /// It has triggers that write the table `audit` and itself.
    pub(super) triggers: bool,
}

impl Table {
    fn new(random: &mut Random, plain_name: &'static str) -> Self {
        let strict = random.once_in(4);
        let mut names = COLUMN_NAMES.to_vec();
        let mut column = |random: &mut Random| {
            let name = quote(names.remove(random.below(names.len())));
            loop {
                let kind = random.pick(KINDS);
                if !strict || kind.strict.is_some() {
                    return Column { name, kind, strict };
                }
            }
        };
        let key = *random.pick(&[
            Key::None,
            Key::Integer,
            Key::Autoincrement,
            Key::Columns,
            Key::WithoutRowid,
        ]);
        let parts = match key {
            Key::Columns | Key::WithoutRowid => 1 + random.below(2),
            _ => 0,
        };
        let key_columns = (0..parts).map(|_| column(random)).collect();
        let columns = (0..1 + random.below(4)).map(|_| column(random)).collect();
        Self {
            plain_name,
            name: quote(plain_name),
            key,
            key_columns,
            columns,
            strict,
            references: false,
            refers_to_itself: random.once_in(4),
            triggers: random.once_in(3),
        }
    }

    fn create(&self, random: &mut Random, parent: Option<&Table>) -> String {
        let mut sql = format!("CREATE TABLE {} (", self.name);
        match self.key {
            Key::Integer => sql.push_str("id INTEGER PRIMARY KEY, "),
            Key::Autoincrement => sql.push_str("id INTEGER PRIMARY KEY AUTOINCREMENT, "),
            _ => {}
        }
        for column in self.key_columns.iter().chain(&self.columns) {
            let _ = write!(sql, "{} {}", column.name, column.kind.sql);
            if random.once_in(4) {
                let _ = write!(sql, " DEFAULT ({})", column.value(random));
            }
            sql.push_str(", ");
        }
        // What a constraint replaces, recursive triggers would have to hear of.
        let conflict = if !self.triggers && random.once_in(4) {
            " ON CONFLICT REPLACE"
        } else {
            ""
        };
        let _ = write!(sql, "n INT DEFAULT 5, s TEXT, u INT UNIQUE{conflict}");
        if random.once_in(3) {
            let kind = random.pick(&["STORED", "VIRTUAL"]);
            let unique = if random.once_in(3) { " UNIQUE" } else { "" };
            let _ = write!(
                sql,
                ", twice INT GENERATED ALWAYS AS (u * 2) {kind}{unique}"
            );
        }
        if let Some(parent) = parent {
            let action = random.pick(&[
                "",
                " ON DELETE CASCADE",
                " ON DELETE SET NULL",
                " ON UPDATE CASCADE ON DELETE CASCADE",
                " ON UPDATE SET NULL",
                " ON UPDATE CASCADE ON DELETE SET DEFAULT",
                " ON DELETE RESTRICT",
                " DEFERRABLE INITIALLY DEFERRED",
            ]);
            let _ = write!(sql, ", parent INT REFERENCES {} (u){action}", parent.name);
        }
        if self.refers_to_itself {
            let action = random.pick(&[
                " ON DELETE CASCADE ON UPDATE CASCADE",
                " ON UPDATE SET NULL ON DELETE SET NULL",
                " ON UPDATE CASCADE",
            ]);
            let _ = write!(sql, ", up INT REFERENCES {} (u){action}", self.name);
        }
        if !self.key_columns.is_empty() {
            let key: Vec<String> = self
                .key_columns
                .iter()
                .map(|column| {
                    let collation = random.pick(&["", "", " COLLATE NOCASE", " COLLATE BINARY"]);
                    format!("{}{collation}", column.name)
                })
                .collect();
            let _ = write!(sql, ", PRIMARY KEY ({})", key.join(", "));
        }
        match random.below(6) {
            0 => sql.push_str(", UNIQUE (s, n)"),
            1 => sql.push_str(", UNIQUE (s COLLATE NOCASE, u)"),
            _ => {}
        }
        sql.push(')');
        let options: Vec<&str> = [
            (self.key == Key::WithoutRowid).then_some("WITHOUT ROWID"),
            self.strict.then_some("STRICT"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let _ = writeln!(sql, " {};", options.join(", "));
        if random.once_in(4) {
            let name = quote(&format!("{}_some", self.plain_name));
            let _ = writeln!(
                sql,
                "CREATE UNIQUE INDEX {name} ON {} (n, u) WHERE n > 3;",
                self.name
            );
        }
        if self.triggers {
            self.create_triggers(&mut sql);
        }
        sql
    }

    fn create_triggers(&self, sql: &mut String) {
        let name = &self.name;
        for event in ["INSERT", "UPDATE", "DELETE"] {
            let reference = if event == "DELETE" { "OLD" } else { "NEW" };
            let trigger = quote(&format!("{} {event}", self.plain_name));
            let _ = writeln!(
                sql,
                "CREATE TRIGGER {trigger} AFTER {event} ON {name} BEGIN \
                 INSERT INTO audit VALUES ('{event}', {reference}.u); END;"
            );
        }
        let trigger = quote(&format!("{} itself", self.plain_name));
        let _ = writeln!(
            sql,
            "CREATE TRIGGER {trigger} AFTER UPDATE OF s ON {name} WHEN NEW.n < 20 BEGIN \
             UPDATE {name} SET n = n + 1 WHERE u = NEW.u; END;"
        );
    }

    /// Names of the columns that an INSERT gives values.
    pub(super) fn insert_columns(&self) -> Vec<&str> {
        let columns = self.key_columns.iter().chain(&self.columns);
        let mut names: Vec<&str> = columns.map(|c| c.name.as_str()).collect();
        names.extend(["n", "s", "u"]);
        if self.references {
            names.push("parent");
        }
        if self.refers_to_itself {
            names.push("up");
        }
        names
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
        let mut create = String::from("CREATE TABLE audit (what, u);\n");
        create.push_str(&tables[0].create(random, None));
        for index in 1..tables.len() {
            let parent = random.once_in(2);
            tables[index].references = parent;
            let parent = parent.then_some(&tables[0]);
            create.push_str(&tables[index].create(random, parent));
        }
        Self { tables, create }
    }
}
