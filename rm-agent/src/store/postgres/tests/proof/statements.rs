//! Statements of any shape over a schema.

mod changes;

use super::{
    random::Random,
    schema::{Schema, Table},
};
use changes::{
    exchange, several, update_from, update_from_join, update_key, update_keys, upsert,
    upsert_select, upsert_where, with_parameters,
};

/// A statement with the name of its shape.
pub(super) struct Statement {
    pub(super) shape: &'static str,
    pub(super) sql: String,
    /// What `$1` (a text) and `$2` (an int) stand for.
    pub(super) parameters: Option<(Option<&'static str>, i32)>,
}

impl Statement {
    pub(super) fn new(shape: &'static str, sql: String) -> Self {
        Self {
            shape,
            sql,
            parameters: None,
        }
    }
}

/// The statements of a branch, with a savepoint among them at times.
pub(super) fn branch(random: &mut Random, schema: &Schema) -> Vec<Statement> {
    let count = 1 + random.below(5);
    let mut all: Vec<Statement> = (0..count).map(|_| any(random, schema)).collect();
    if random.once_in(3) {
        let ends: &[(&'static str, &str)] = &[
            ("ROLLBACK TO", "ROLLBACK TO one"),
            ("ROLLBACK TO", "ROLLBACK WORK TO SAVEPOINT ONE"),
            ("RELEASE", "RELEASE SAVEPOINT one"),
        ];
        for _ in 0..random.below(3) {
            let &(shape, sql) = random.pick(&ends[..2]);
            all.push(Statement::new(shape, sql.to_owned()));
            all.extend((0..random.below(3)).map(|_| any(random, schema)));
        }
        if random.once_in(3) {
            all.push(Statement::new(ends[2].0, ends[2].1.to_owned()));
            all.push(any(random, schema));
        }
        let at = random.below(count + 1);
        all.insert(at, Statement::new("SAVEPOINT", "SAVEPOINT one".to_owned()));
    }
    all
}

/// The shape whose text holds several statements.
pub(super) const SEVERAL: &str = "several in one text";

type Make = fn(&mut Random, &Schema, &Table) -> String;

/// Every shape and how to make one.
const SHAPES: &[(&str, Make)] = &[
    ("INSERT", insert),
    ("INSERT of several rows", insert_rows),
    ("INSERT … RETURNING", insert_returning),
    ("INSERT … DEFAULT", insert_default),
    ("INSERT … SELECT", insert_select),
    ("INSERT … ON CONFLICT DO NOTHING", insert_or_nothing),
    ("INSERT … ON CONFLICT DO UPDATE", upsert),
    ("INSERT … ON CONFLICT DO UPDATE … WHERE", upsert_where),
    ("INSERT … SELECT … ON CONFLICT DO UPDATE", upsert_select),
    ("UPDATE … FROM", update_from),
    ("UPDATE … FROM … JOIN … RETURNING", update_from_join),
    ("UPDATE of the primary key", update_key),
    ("UPDATE of all primary keys", update_keys),
    ("UPDATE that exchanges unique values", exchange),
    ("UPDATE", update),
    ("UPDATE of an expression", update_expression),
    ("UPDATE … RETURNING", update_returning),
    ("UPDATE of all rows", update_all),
    ("UPDATE with a sub-query", update_sub_query),
    ("UPDATE … SET (…) = (…)", update_tuple),
    ("UPDATE … SET … = DEFAULT", update_default),
    ("WITH … UPDATE", with_update),
    ("UPDATE of a unique column", update_unique),
    ("DELETE", delete),
    ("DELETE … RETURNING", delete_returning),
    ("DELETE … USING", delete_using),
    ("DELETE with a sub-query", delete_sub_query),
    (SEVERAL, several),
    ("SELECT", select),
    ("SELECT … FOR UPDATE", select_for_update),
    ("TRUNCATE", truncate),
    ("WITH (DELETE …) INSERT", moving),
];

/// Any statement.
pub(super) fn any(random: &mut Random, schema: &Schema) -> Statement {
    let table = random.pick(&schema.tables);
    let &(shape, make) = random.pick(SHAPES);
    // The rare ones are there to be refused.
    if matches!(shape, "TRUNCATE" | "WITH (DELETE …) INSERT") && !random.once_in(4) {
        return any(random, schema);
    }
    if random.once_in(12) {
        return with_parameters(random, table);
    }
    let sql = make(random, schema, table);
    Statement::new(shape, sql)
}

/// A statement that fills a table.
pub(super) fn fill(random: &mut Random, schema: &Schema, table: &Table) -> String {
    insert_rows(random, schema, table)
}

fn value(random: &mut Random, schema: &Schema, table: &Table, name: &str) -> String {
    let number = random.below(32);
    match name {
        "n" => [number.to_string(), "NULL".to_owned()][usize::from(number == 9)].clone(),
        "u" => (number % 24).to_string(),
        "s" => ["'Ab'", "'it''s'", "NULL", "'ß'", "''", "'ab'"][number % 6].to_owned(),
        "parent" if random.once_in(3) => "NULL".to_owned(),
        "parent" => {
            let parent = &schema.tables[0];
            format!(
                "(SELECT {k} FROM {} ORDER BY {k} LIMIT 1 OFFSET {})",
                parent.name,
                number % 3,
                k = parent.key[0].name
            )
        }
        _ => {
            let key = table.key.iter().find(|c| c.name == name);
            let column = key.or_else(|| table.columns.iter().find(|c| c.name == name));
            let column = column.expect("only the table's own columns are asked for");
            if key.is_none() && random.once_in(5) {
                return "NULL".to_owned();
            }
            column.kind.literal(number)
        }
    }
}

fn row(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let values: Vec<String> = table
        .insert_columns()
        .iter()
        .map(|name| value(random, schema, table, name))
        .collect();
    format!("({})", values.join(", "))
}

fn into(table: &Table) -> String {
    format!(
        "INSERT INTO {} ({})",
        table.name,
        table.insert_columns().join(", ")
    )
}

fn insert(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!("{} VALUES {}", into(table), row(random, schema, table))
}

fn insert_rows(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let rows: Vec<String> = (0..1 + random.below(4))
        .map(|_| row(random, schema, table))
        .collect();
    format!(
        "{} VALUES {} ON CONFLICT DO NOTHING",
        into(table),
        rows.join(", ")
    )
}

fn insert_returning(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!(
        "{} RETURNING {}, n + 1 AS more -- end",
        insert(random, schema, table),
        table.star()
    )
}

fn insert_default(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let keys: Vec<&str> = table.key.iter().map(|c| c.name).collect();
    let values: Vec<String> = keys
        .iter()
        .map(|name| value(random, schema, table, name))
        .collect();
    if keys.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", table.name);
    }
    format!(
        "INSERT INTO {} ({}, n) VALUES ({}, DEFAULT)",
        table.name,
        keys.join(", "),
        values.join(", ")
    )
}

fn insert_select(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let columns = table.insert_columns();
    let list: Vec<String> = columns
        .iter()
        .map(|&name| match name {
            "u" => "u + 100".to_owned(),
            name if table.key.iter().any(|c| c.name == name) => value(random, schema, table, name),
            name => name.to_owned(),
        })
        .collect();
    format!(
        "{} SELECT {} FROM {} ORDER BY {} LIMIT {} ON CONFLICT DO NOTHING",
        into(table),
        list.join(", "),
        table.name,
        table.key_names().join(", "),
        1 + random.below(3)
    )
}

fn insert_or_nothing(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let target = if random.once_in(2) {
        String::new()
    } else {
        format!("({}) ", table.key_names().join(", "))
    };
    format!(
        "{} ON CONFLICT {target}DO NOTHING",
        insert(random, schema, table)
    )
}

fn condition(random: &mut Random, schema: &Schema, table: &Table) -> String {
    match random.below(7) {
        0 | 1 if !table.key.is_empty() => {
            let column = random.pick(&table.key);
            let value = value(random, schema, table, column.name);
            format!("{} = {value}", column.name)
        }
        2 if !table.key.is_empty() => {
            let column = random.pick(&table.key);
            let value = value(random, schema, table, column.name);
            format!("{} <> {value}", column.name)
        }
        3 => format!("n % 3 = {}", random.below(3)),
        4 => "s IS NULL OR n IS NULL".to_owned(),
        5 => format!(
            "NOT EXISTS (SELECT FROM {} o WHERE o.n > {}.n)",
            table.name, table.name
        ),
        _ => format!("n BETWEEN {} AND {}", random.below(8), 8 + random.below(16)),
    }
}

/// An assignment that the table's other rows do not matter for.
fn assignment(random: &mut Random, schema: &Schema, table: &Table) -> String {
    if random.once_in(4) {
        return "n = n + 1".to_owned();
    }
    if table.references && random.once_in(4) {
        return format!("parent = {}", value(random, schema, table, "parent"));
    }
    let column = random.pick(&table.columns);
    format!(
        "{} = {}",
        column.name,
        value(random, schema, table, column.name)
    )
}

fn update(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let (set, condition) = (
        assignment(random, schema, table),
        condition(random, schema, table),
    );
    format!("UPDATE {} SET {set} WHERE {condition}", table.name)
}

fn update_expression(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let condition = condition(random, schema, table);
    format!(
        "UPDATE {} SET n = CASE WHEN n > 3 THEN n - 2 ELSE n * 2 END, s = s || '-' WHERE {condition}",
        table.name
    )
}

fn update_returning(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let set = assignment(random, schema, table);
    format!(
        "UPDATE {} AS me SET {set} WHERE me.n > 4 RETURNING {}, me.n AS again",
        table.name,
        table.star()
    )
}

fn update_all(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!(
        "UPDATE {} SET {}",
        table.name,
        assignment(random, schema, table)
    )
}

fn update_sub_query(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "UPDATE {} AS me SET n = (SELECT count(*) FROM {} o WHERE o.n < me.n) WHERE n IN (SELECT n FROM {})",
        table.name, other.name, other.name
    )
}

fn update_tuple(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let condition = condition(random, schema, table);
    format!(
        "UPDATE {} SET (n, s) = (n + 1, (SELECT max(s) FROM {})) WHERE {condition}",
        table.name, table.name
    )
}

fn update_default(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let column = random.pick(&table.columns).name;
    let condition = condition(random, schema, table);
    format!(
        "UPDATE {} SET n = DEFAULT, {column} = DEFAULT WHERE {condition}",
        table.name
    )
}

fn with_update(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let set = assignment(random, schema, table);
    format!(
        "WITH few AS (SELECT max(n) AS most FROM {}) UPDATE {} SET {set} WHERE n = (SELECT most FROM few) RETURNING n",
        table.name, table.name
    )
}

fn update_unique(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "UPDATE {} SET u = {} WHERE u = {}",
        table.name,
        random.below(24),
        random.below(24)
    )
}

fn delete(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!(
        "DELETE FROM {} WHERE {}",
        table.name,
        condition(random, schema, table)
    )
}

fn delete_returning(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "DELETE FROM {} AS gone WHERE n = {} RETURNING {}, gone.s",
        table.name,
        random.below(32),
        table.star()
    )
}

fn delete_using(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "DELETE FROM {} AS me USING {} o WHERE me.n = o.u",
        table.name, other.name
    )
}

fn delete_sub_query(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "DELETE FROM {} WHERE n = (SELECT min(u) FROM {})",
        table.name, other.name
    )
}

fn select(_: &mut Random, _: &Schema, table: &Table) -> String {
    format!("SELECT {} FROM {}", table.star(), table.name)
}

fn select_for_update(random: &mut Random, _: &Schema, table: &Table) -> String {
    let strength = random.pick(&["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"]);
    let wait = random.pick(&["", " NOWAIT", " SKIP LOCKED"]);
    format!(
        "SELECT n, s FROM {} AS me WHERE n > 3 FOR {strength} OF me{wait}",
        table.name
    )
}

fn truncate(_: &mut Random, _: &Schema, table: &Table) -> String {
    format!("TRUNCATE {}", table.name)
}

fn moving(_: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "WITH gone AS (DELETE FROM {t} RETURNING *) INSERT INTO {t} SELECT * FROM gone",
        t = table.name
    )
}
