//! Statements of any shape over a schema.

use super::{
    random::Random,
    schema::{Schema, Table},
};

/// A statement with the name of its shape.
pub(super) struct Statement {
    pub(super) shape: &'static str,
    pub(super) sql: String,
    /// What the first `?` (a text) and the second (an int) stand for.
    pub(super) parameters: Option<(Option<&'static str>, i32)>,
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
    ("INSERT … DEFAULT", insert_default),
    ("INSERT … SET", insert_set),
    ("INSERT … SELECT … RETURNING", insert_select),
    ("INSERT IGNORE … RETURNING", insert_ignore),
    ("UPDATE", update),
    ("UPDATE of an expression", update_expression),
    ("UPDATE of all rows", update_all),
    ("UPDATE with a sub-query", update_sub_query),
    ("UPDATE … ORDER BY … LIMIT", update_limit),
    ("UPDATE … SET … = DEFAULT", update_default),
    ("UPDATE of a unique column", update_unique),
    ("UPDATE that exchanges unique values", exchange),
    ("UPDATE of the primary key", update_key),
    ("UPDATE … JOIN", update_join),
    ("DELETE … JOIN", delete_join),
    ("DELETE", delete),
    ("DELETE … RETURNING", delete_returning),
    ("DELETE … ORDER BY … LIMIT", delete_limit),
    ("DELETE with a sub-query", delete_sub_query),
    ("SELECT", select),
    ("SELECT … FOR UPDATE", select_for_update),
    ("REPLACE", replace),
    ("REPLACE … RETURNING", replace_returning),
    ("INSERT IGNORE", fill),
    ("INSERT … SELECT", insert_select_quietly),
    ("INSERT … ON DUPLICATE KEY UPDATE", upsert),
    (
        "INSERT … ON DUPLICATE KEY UPDATE … RETURNING",
        upsert_returning,
    ),
    ("INSERT … SELECT … ON DUPLICATE KEY UPDATE", upsert_select),
];

/// Any statement.
fn any(random: &mut Random, schema: &Schema) -> Statement {
    let table = random.pick(&schema.tables);
    if random.once_in(10) {
        return with_parameters(random, table);
    }
    let &(shape, make) = random.pick(SHAPES);
    Statement {
        shape,
        sql: make(random, schema, table),
        parameters: None,
    }
}

/// A statement that fills a table.
pub(super) fn fill(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let sql = insert_rows(random, schema, table);
    sql.replacen("INSERT INTO", "INSERT IGNORE INTO", 1)
}

fn with_parameters(random: &mut Random, table: &Table) -> Statement {
    let text = *random.pick(&[Some("Ab"), None, Some("it's"), Some("?")]);
    let number = random.below(24) as i32;
    let name = &table.name;
    let sql = match random.below(8) {
        0 => format!("UPDATE {name} SET s = ? WHERE n > ?"),
        1 => format!(
            "UPDATE {name} SET s = UPPER(?), n = n + 1 WHERE n IS NULL OR n <= ? ORDER BY n"
        ),
        2 => format!("DELETE FROM {name} WHERE s = ? AND n < ? -- end"),
        3 if table.serial => {
            format!("UPDATE {name} SET s = ?, id = id + ? ORDER BY id DESC LIMIT 1")
        }
        4 if table.key.is_empty() => {
            format!("INSERT INTO {name} (s, u) VALUES (?, ?) ON DUPLICATE KEY UPDATE n = n + 1")
        }
        5 if table.key.is_empty() => {
            format!("REPLACE INTO {name} (s, u) VALUES (?, ?)")
        }
        6 => format!(
            "UPDATE {name} AS me JOIN {name} AS o ON o.s <=> ? SET me.n = me.n + ? WHERE me.u > 3"
        ),
        _ => format!(
            "UPDATE {name} SET s = ? ORDER BY {} LIMIT ?",
            table.key_names().join(", ")
        ),
    };
    Statement {
        shape: "with parameters",
        sql,
        parameters: Some((text, number)),
    }
}

fn value(random: &mut Random, schema: &Schema, table: &Table, name: &str) -> String {
    let number = random.below(32);
    match name {
        "n" => [number.to_string(), "NULL".to_owned()][usize::from(number == 9)].clone(),
        "u" => (number % 24).to_string(),
        "s" => ["'Ab'", "'it''s'", "NULL", "'ß'", "''", "'ab'"][number % 6].to_owned(),
        "parent" if random.once_in(3) => "NULL".to_owned(),
        "parent" => schema.tables[0].key[0].kind.value(number).to_owned(),
        _ => {
            let key = table.key.iter().find(|c| c.name == name);
            let column = key.or_else(|| table.columns.iter().find(|c| c.name == name));
            let column = column.expect("only the table's own columns are asked for");
            if key.is_none() && random.once_in(5) {
                return "NULL".to_owned();
            }
            column.kind.value(number).to_owned()
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
    let rows: Vec<String> = (0..1 + random.below(3))
        .map(|_| row(random, schema, table))
        .collect();
    format!("{} VALUES {}", into(table), rows.join(", "))
}

fn insert_returning(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!(
        "{} RETURNING n, s, n + 1 AS more -- end",
        insert_rows(random, schema, table)
    )
}

fn insert_default(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let keys: Vec<&str> = table.key.iter().map(|c| c.name.as_str()).collect();
    if keys.is_empty() {
        return format!("INSERT INTO {} () VALUES ()", table.name);
    }
    let values: Vec<String> = keys
        .iter()
        .map(|name| value(random, schema, table, name))
        .collect();
    format!(
        "INSERT INTO {} ({}, n) VALUES ({}, DEFAULT)",
        table.name,
        keys.join(", "),
        values.join(", ")
    )
}

fn insert_set(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let assignments: Vec<String> = table
        .insert_columns()
        .iter()
        .map(|name| format!("{name} = {}", value(random, schema, table, name)))
        .collect();
    format!("INSERT INTO {} SET {}", table.name, assignments.join(", "))
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
        "{} SELECT {} FROM {} ORDER BY {} LIMIT 1 RETURNING n, u",
        into(table),
        list.join(", "),
        table.name,
        table.key_names().join(", "),
    )
}

fn insert_ignore(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!("{} RETURNING n", fill(random, schema, table))
}

fn condition(random: &mut Random, schema: &Schema, table: &Table) -> String {
    match random.below(7) {
        0 | 1 if !table.key.is_empty() => {
            let column = random.pick(&table.key);
            let value = value(random, schema, table, &column.name);
            format!("{} = {value}", column.name)
        }
        2 if !table.key.is_empty() => {
            let column = random.pick(&table.key);
            let value = value(random, schema, table, &column.name);
            format!("{} <> {value}", column.name)
        }
        3 => format!("n % 3 = {}", random.below(3)),
        4 => "s IS NULL OR n IS NULL".to_owned(),
        5 => format!("NOT EXISTS (SELECT 1 FROM {} o WHERE o.n > 20)", table.name),
        _ => format!("n BETWEEN {} AND {}", random.below(8), 8 + random.below(16)),
    }
}

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
        value(random, schema, table, &column.name)
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
        "UPDATE {} AS me SET n = CASE WHEN me.n > 3 THEN me.n - 2 ELSE me.n * 2 END, s = LEFT(CONCAT(s, '-'), 20) WHERE {condition}",
        table.name
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
        "UPDATE {} AS me SET n = (SELECT count(*) FROM {} o WHERE o.n < 10) WHERE n IN (SELECT p.n FROM {} p)",
        table.name, other.name, other.name
    )
}

fn update_limit(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let set = assignment(random, schema, table);
    format!(
        "UPDATE {} SET {set} ORDER BY {} LIMIT {}",
        table.name,
        table.key_names().join(" DESC, "),
        random.below(3)
    )
}

fn update_default(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let condition = condition(random, schema, table);
    format!("UPDATE {} SET n = DEFAULT WHERE {condition}", table.name)
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
    format!("UPDATE {} SET u = {} - u", table.name, 20 + random.below(9))
}

fn update_key(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let condition = condition(random, schema, table);
    let set = match table.key.first() {
        Some(column) if random.once_in(2) => {
            format!(
                "{} = {}",
                column.name,
                value(random, schema, table, &column.name)
            )
        }
        _ if table.serial => format!("id = id + {}", 10 + random.below(9)),
        _ => {
            let column = random.pick(&table.key);
            format!("n = 1, {0} = {0}", column.name)
        }
    };
    let limit = 1 + random.below(2);
    format!(
        "UPDATE {} SET {set}, s = 'moved' WHERE {condition} ORDER BY {} DESC LIMIT {limit}",
        table.name,
        table.key_names().join(" DESC, "),
    )
}

fn update_join(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    let join = random.pick(&["JOIN", "LEFT JOIN"]);
    format!(
        "UPDATE {} AS me {join} {} AS o ON o.n = me.n + {} SET me.s = 'joined', me.n = me.n + 1 WHERE me.u > {}",
        table.name,
        other.name,
        random.below(2),
        random.below(12)
    )
}

fn delete_join(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "DELETE me FROM {} AS o JOIN {} AS me ON o.u = me.n WHERE me.u > {}",
        other.name,
        table.name,
        random.below(20)
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
        "DELETE FROM {} WHERE n = {} RETURNING n, s",
        table.name,
        random.below(32)
    )
}

fn delete_limit(random: &mut Random, _: &Schema, table: &Table) -> String {
    format!(
        "DELETE FROM {} ORDER BY {} LIMIT {}",
        table.name,
        table.key_names().join(", "),
        random.below(3)
    )
}

fn delete_sub_query(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables);
    format!(
        "DELETE FROM {} WHERE n = (SELECT min(o.u) FROM {} o)",
        table.name, other.name
    )
}

fn select(_: &mut Random, _: &Schema, table: &Table) -> String {
    format!("SELECT * FROM {}", table.name)
}

fn select_for_update(random: &mut Random, _: &Schema, table: &Table) -> String {
    let lock = random.pick(&[
        "FOR UPDATE",
        "LOCK IN SHARE MODE",
        "FOR UPDATE NOWAIT",
        "FOR UPDATE SKIP LOCKED",
    ]);
    format!("SELECT n, s FROM {} AS me WHERE n > 3 {lock}", table.name)
}

fn replace(random: &mut Random, schema: &Schema, table: &Table) -> String {
    insert_rows(random, schema, table).replacen("INSERT", "REPLACE", 1)
}

fn replace_returning(random: &mut Random, schema: &Schema, table: &Table) -> String {
    insert_returning(random, schema, table).replacen("INSERT", "REPLACE", 1)
}

fn insert_select_quietly(random: &mut Random, schema: &Schema, table: &Table) -> String {
    insert_select(random, schema, table).replacen(" RETURNING n, u", "", 1)
}

fn upsert(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let mut set = assignment(random, schema, table);
    if random.once_in(2) {
        set.push_str(", s = VALUES(s)");
    }
    format!(
        "{} ON DUPLICATE KEY UPDATE {set}",
        insert_rows(random, schema, table)
    )
}

fn upsert_returning(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!("{} RETURNING n, u", upsert(random, schema, table))
}

fn upsert_select(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let select = insert_select_quietly(random, schema, table);
    let from = format!("FROM {} ORDER", table.name);
    let select = select.replacen(&from, &format!("FROM {} AS other ORDER", table.name), 1);
    format!(
        "{select} ON DUPLICATE KEY UPDATE {}.n = VALUES(n)",
        table.name
    )
}
