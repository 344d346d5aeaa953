//! Statements of any shape over a schema.

use super::{
    random::Random,
    schema::{Key, Schema, Table},
};

/// A statement with the name of its shape.
pub(super) struct Statement {
    pub(super) shape: &'static str,
    pub(super) sql: String,
    /// What the first `?` (a text) and the second (an integer) stand for.
    pub(super) parameters: Option<(Option<&'static str>, i64)>,
    /// It is an INSERT that gives row numbers.
    pub(super) numbers: bool,
}

/// The statements of a branch.
pub(super) fn branch(random: &mut Random, schema: &Schema) -> Vec<Statement> {
    (0..1 + random.below(5))
        .map(|_| any(random, schema))
        .collect()
}

type Make = fn(&mut Random, &Schema, &Table) -> String;

/// Every shape and how to make one.
const SHAPES: &[(&str, Make)] = &[
    ("INSERT", insert),
    ("INSERT of several rows", insert_rows),
    ("INSERT … RETURNING", insert_returning),
    ("INSERT … DEFAULT VALUES", insert_default),
    ("INSERT … SELECT", insert_select),
    ("INSERT OR IGNORE", insert_ignore),
    ("INSERT OR REPLACE", insert_replace),
    ("REPLACE", replace),
    ("INSERT … ON CONFLICT DO NOTHING", insert_nothing),
    ("INSERT … ON CONFLICT DO UPDATE", upsert),
    ("UPDATE", update),
    ("UPDATE of an expression", update_expression),
    ("UPDATE of all rows", update_all),
    ("UPDATE with a sub-query", update_sub_query),
    ("UPDATE … FROM", update_from),
    ("UPDATE OR IGNORE", update_ignore),
    ("UPDATE OR REPLACE", update_replace),
    ("UPDATE of the key", update_key),
    ("UPDATE of the row number", update_number),
    ("UPDATE of a unique column", update_unique),
    ("UPDATE that exchanges unique values", exchange),
    ("DELETE", delete),
    ("DELETE of all rows", delete_all),
    ("DELETE … RETURNING", delete_returning),
    ("DELETE with a sub-query", delete_sub_query),
    ("WITH … DELETE", delete_with),
    ("SELECT", select),
    ("PRAGMA", pragma),
];

/// Any statement.
fn any(random: &mut Random, schema: &Schema) -> Statement {
    let table = random.pick(&schema.tables);
    let &(shape, make) = random.pick(SHAPES);
    if shape == "DELETE of all rows" && !random.once_in(4) {
        return any(random, schema);
    }
    if random.once_in(10) {
        return with_parameters(random, table);
    }
    let sql = make(random, schema, table);
    Statement {
        shape,
        numbers: table.key != Key::WithoutRowid
            && sql.starts_with("INSERT")
            && !sql.contains("ON CONFLICT"),
        sql,
        parameters: None,
    }
}

/// A statement that fills a table.
pub(super) fn fill(random: &mut Random, schema: &Schema, table: &Table) -> String {
    insert_ignore(random, schema, table)
}

fn with_parameters(random: &mut Random, table: &Table) -> Statement {
    let text = *random.pick(&[Some("Ab"), None, Some("it's"), Some("?")]);
    let number = random.below(24) as i64;
    let name = &table.name;
    let sql = match random.below(4) {
        0 => format!("UPDATE {name} SET s = ? WHERE n > ?"),
        1 => format!("UPDATE {name} SET s = upper(?), n = n + 1 WHERE n IS NULL OR n <= ?"),
        2 => format!("DELETE FROM {name} WHERE s = ? AND n < ? -- end"),
        _ => format!("INSERT OR IGNORE INTO {name} (s, u) VALUES (?, ?) /* ? */"),
    };
    Statement {
        shape: "with parameters",
        sql,
        parameters: Some((text, number)),
        numbers: false,
    }
}

fn value(random: &mut Random, table: &Table, name: &str) -> String {
    let number = random.below(32);
    match name {
        "n" => [number.to_string(), "NULL".to_owned()][usize::from(number == 9)].clone(),
        "u" | "id" => (number % 24).to_string(),
        "s" => ["'Ab'", "'it''s'", "NULL", "'ß'", "''", "'ab'"][number % 6].to_owned(),
        "parent" | "up" if random.once_in(3) => "NULL".to_owned(),
        "parent" | "up" => (number % 24).to_string(),
        _ => {
            let key = table.key_columns.iter().find(|c| c.name == name);
            let column = key.or_else(|| table.columns.iter().find(|c| c.name == name));
            let column = column.expect("only the table's own columns are asked for");
            if random.once_in(if key.is_some() { 12 } else { 5 }) {
                return "NULL".to_owned();
            }
            column.value(random).to_owned()
        }
    }
}

fn row(random: &mut Random, table: &Table) -> String {
    let values: Vec<String> = table
        .insert_columns()
        .iter()
        .map(|name| value(random, table, name))
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

fn insert(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!("{} VALUES {}", into(table), row(random, table))
}

fn insert_rows(random: &mut Random, _: &Schema, table: &Table) -> String {
    let rows: Vec<String> = (0..1 + random.below(3))
        .map(|_| row(random, table))
        .collect();
    format!("{} VALUES {}", into(table), rows.join(", "))
}

fn instead(sql: &str, verb: &str) -> String {
    sql.replacen("INSERT INTO", verb, 1)
}

fn insert_returning(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!(
        "{} RETURNING n, s, n + 1 AS more -- end",
        insert_rows(random, schema, table)
    )
}

fn insert_default(_: &mut Random, _: &Schema, table: &Table) -> String {
    format!("INSERT INTO {} DEFAULT VALUES", table.name)
}

fn insert_select(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let columns = table.insert_columns();
    let list: Vec<String> = columns
        .iter()
        .map(|&name| match name {
            "u" => "u + 100".to_owned(),
            name => value(random, table, name),
        })
        .collect();
    let other = random.pick(&schema.tables);
    format!(
        "{} SELECT {} FROM {} WHERE n < 20 LIMIT 2",
        into(table),
        list.join(", "),
        other.name,
    )
}

fn insert_ignore(random: &mut Random, schema: &Schema, table: &Table) -> String {
    instead(&insert_rows(random, schema, table), "INSERT OR IGNORE INTO")
}

fn insert_replace(random: &mut Random, schema: &Schema, table: &Table) -> String {
    instead(
        &insert_rows(random, schema, table),
        "INSERT OR REPLACE INTO",
    )
}

fn replace(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let sql = instead(&insert_rows(random, schema, table), "REPLACE INTO");
    format!("{sql} RETURNING u")
}

fn insert_nothing(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!(
        "{} ON CONFLICT DO NOTHING",
        insert_rows(random, schema, table)
    )
}

fn upsert(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!(
        "{} ON CONFLICT (u) DO UPDATE SET n = coalesce(n, 0) + excluded.u, s = 'up' RETURNING n",
        insert_rows(random, schema, table)
    )
}

fn condition(random: &mut Random, table: &Table) -> String {
    match random.below(7) {
        0 | 1 if !table.key_columns.is_empty() => {
            let column = random.pick(&table.key_columns);
            format!("{} = {}", column.name, column.value(random))
        }
        2 => {
            let column = random.pick(&table.columns);
            format!("{} <> {}", column.name, column.value(random))
        }
        3 => format!("n % 3 = {}", random.below(3)),
        4 => "s IS NULL OR n IS NULL".to_owned(),
        5 => format!("NOT EXISTS (SELECT 1 FROM {} o WHERE o.n > 20)", table.name),
        _ => format!("n BETWEEN {} AND {}", random.below(8), 8 + random.below(16)),
    }
}

fn assignment(random: &mut Random, table: &Table) -> String {
    if random.once_in(4) {
        return "n = n + 1".to_owned();
    }
    if table.references && random.once_in(4) {
        return format!("parent = {}", value(random, table, "parent"));
    }
    if table.refers_to_itself && random.once_in(4) {
        return ["up = u", "up = NULL", "up = (SELECT max(u) FROM audit)"][random.below(3)]
            .to_owned();
    }
    let column = random.pick(&table.columns);
    format!("{} = {}", column.name, value(random, table, &column.name))
}

fn update(random: &mut Random, _: &Schema, table: &Table) -> String {
    let (set, condition) = (assignment(random, table), condition(random, table));
    format!("UPDATE {} SET {set} WHERE {condition}", table.name)
}

fn update_expression(random: &mut Random, _: &Schema, table: &Table) -> String {
    let condition = condition(random, table);
    format!(
        "UPDATE {} AS me SET n = CASE WHEN me.n > 3 THEN me.n - 2 ELSE me.n * 2 END, s = substr(s || '-', 1, 20) WHERE {condition}",
        table.name
    )
}

fn update_all(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!("UPDATE {} SET {}", table.name, assignment(random, table))
}

fn update_sub_query(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "UPDATE {} SET n = (SELECT count(*) FROM {} o WHERE o.n < 10) WHERE n IN (SELECT p.n FROM {} p)",
        table.name, other.name, other.name
    )
}

fn update_from(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "UPDATE {} AS me SET s = 'from' FROM (SELECT DISTINCT u FROM {}) o WHERE o.u = me.u + 1 RETURNING me.n",
        table.name, other.name
    )
    .replace("me.n", "n")
}

fn update_ignore(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "UPDATE OR IGNORE {} SET u = {}",
        table.name,
        random.below(24)
    )
}

fn update_replace(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "UPDATE OR REPLACE {} SET u = {} WHERE {}",
        table.name,
        random.below(24),
        condition(random, table)
    )
}

fn update_key(random: &mut Random, schema: &Schema, table: &Table) -> String {
    if table.key_columns.is_empty() {
        return update_number(random, schema, table);
    }
    let column = random.pick(&table.key_columns);
    format!(
        "UPDATE {} SET {} = {} WHERE {}",
        table.name,
        column.name,
        value(random, table, &column.name),
        condition(random, table)
    )
}

fn update_number(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "UPDATE {} SET _rowid_ = _rowid_ + {} WHERE u % 2 = 0",
        table.name,
        100 + random.below(4)
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

fn exchange(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!("UPDATE {} SET u = {} - u", table.name, 40 + random.below(9))
}

fn delete(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "DELETE FROM {} WHERE {}",
        table.name,
        condition(random, table)
    )
}

fn delete_all(_: &mut Random, _: &Schema, table: &Table) -> String {
    format!("DELETE FROM {}", table.name)
}

fn delete_returning(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "DELETE FROM {} WHERE n = {} RETURNING n, s",
        table.name,
        random.below(32)
    )
}

fn delete_sub_query(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "DELETE FROM {} WHERE n = (SELECT min(o.u) FROM {} o)",
        table.name, other.name
    )
}

fn delete_with(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "WITH most (u) AS (SELECT max(u) FROM {}) DELETE FROM {} WHERE u IN (SELECT u FROM most)",
        other.name, table.name
    )
}

fn select(_: &mut Random, _: &Schema, table: &Table) -> String {
    format!("SELECT *, typeof(s) FROM {}", table.name)
}

/// It is there to be refused.
fn pragma(_: &mut Random, _: &Schema, _: &Table) -> String {
    "PRAGMA defer_foreign_keys = ON".to_owned()
}
