//! Upserts, joins, keys, and statements with parameters.

use super::{
    super::{
        random::Random,
        schema::{Schema, Table},
    },
    Statement, assignment, condition, delete, insert_rows, into, row, update, value,
};

/// Parameters of any type, as texts that the statement casts.
pub(super) fn with_parameters(random: &mut Random, table: &Table) -> Statement {
    let column = random.pick(&table.columns);
    let type_name = column.kind.sql.split(" COLLATE").next().unwrap_or("text");
    let text = (!random.once_in(4)).then(|| *random.pick(column.kind.values));
    let (t, c) = (table.name, column.name);
    let (shape, sql) = if random.once_in(2) {
        let sql = format!("UPDATE {t} SET {c} = $1::text::{type_name}, n = n + $2 WHERE n > $2");
        ("UPDATE with parameters", sql)
    } else {
        let keys = table.key_names().join(", ");
        let sql = format!(
            "INSERT INTO {t} AS old ({keys}, n) SELECT {keys}, n FROM {t} WHERE n < $2 \
             ON CONFLICT ({keys}) DO UPDATE SET {c} = $1::text::{type_name} WHERE old.n > 0 RETURNING n"
        );
        ("INSERT … ON CONFLICT DO UPDATE with parameters", sql)
    };
    Statement {
        shape,
        sql,
        parameters: Some((text, random.below(9) as i32)),
    }
}

pub(super) fn upsert(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let target = table.key_names().join(", ");
    let rows: Vec<String> = (0..1 + random.below(3))
        .map(|_| row(random, schema, table))
        .collect();
    format!(
        "{} VALUES {} ON CONFLICT ({target}) DO UPDATE SET n = excluded.n, {c} = excluded.{c} \
         RETURNING n, s -- all",
        into(table),
        rows.join(", "),
        c = random.pick(&table.columns).name
    )
}

pub(super) fn upsert_where(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let target = table.key_names().join(", ");
    format!(
        "INSERT INTO {} AS old ({}) VALUES {} ON CONFLICT ({target}) DO UPDATE \
         SET (n, s) = (old.n + 1, excluded.s || old.s), u = old.u \
         WHERE old.n < excluded.n OR old.s IS NULL -- why",
        table.name,
        table.insert_columns().join(", "),
        row(random, schema, table)
    )
}

pub(super) fn upsert_select(random: &mut Random, _: &Schema, table: &Table) -> String {
    let columns = table.insert_columns().join(", ");
    let set = if table.key.is_empty() || random.once_in(2) {
        "s = 'again'".to_owned()
    } else {
        let key = table.key[0].name;
        format!("{key} = excluded.{key}, n = excluded.n")
    };
    let serial = if table.serial { "id, " } else { "" };
    let overriding = if table.serial {
        " OVERRIDING SYSTEM VALUE"
    } else {
        ""
    };
    format!(
        "INSERT INTO {t} ({serial}{columns}){overriding} SELECT {serial}{columns} FROM {t} \
         ORDER BY {} LIMIT 3 ON CONFLICT ({}) DO UPDATE SET {set}",
        table.key_names().join(", "),
        table.key_names().join(", "),
        t = table.name
    )
}

pub(super) fn update_from(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let other = random.pick(&schema.tables).name;
    format!(
        "UPDATE {t} SET n = {t}.n + few.m, s = few.m::text FROM (SELECT max(u) AS m FROM {other}) few \
         WHERE {t}.n <> few.m -- why",
        t = table.name
    )
}

pub(super) fn update_from_join(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let set = assignment(random, schema, table);
    let star = if table.star() == "*" {
        "*"
    } else {
        "me.n, a.x"
    };
    format!(
        "UPDATE {} AS me SET {set} FROM (VALUES (1, 'Ab'), (7, 'ß')) AS a (x, y) \
         LEFT JOIN generate_series(1, 9) AS g (z) ON g.z = a.x WHERE me.s = a.y RETURNING {star}",
        table.name
    )
}

pub(super) fn update_key(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let condition = condition(random, schema, table);
    let Some(column) = table.key.first() else {
        return format!("UPDATE {} SET id = id + 1000 WHERE {condition}", table.name);
    };
    let value = value(random, schema, table, column.name);
    format!(
        "UPDATE {} SET {} = {value}, n = n + 1 WHERE {condition} RETURNING n",
        table.name, column.name
    )
}

pub(super) fn update_keys(random: &mut Random, schema: &Schema, table: &Table) -> String {
    let numeric = |sql: &str| {
        matches!(
            sql,
            "bigint" | "numeric" | "double precision" | "real" | "money" | "interval"
        )
    };
    match table.key.iter().find(|column| numeric(column.kind.sql)) {
        Some(column) if table.key.len() == 1 => {
            format!("UPDATE {t} SET {c} = -{c}", t = table.name, c = column.name)
        }
        _ if table.serial => format!("UPDATE {} SET id = id + 1", table.name),
        _ => update_key(random, schema, table),
    }
}

pub(super) fn exchange(random: &mut Random, _: &Schema, table: &Table) -> String {
    let (a, b) = (random.below(24), 200 + random.below(24));
    // Several of them in a branch leave net changes that block each other.
    format!(
        "UPDATE {} SET u = CASE WHEN u = {a} THEN {b} ELSE u - 200 END WHERE u = {a} OR u >= 200",
        table.name
    )
}

pub(super) fn several(random: &mut Random, schema: &Schema, table: &Table) -> String {
    format!(
        "{};\n{}; {} ;",
        update(random, schema, table),
        insert_rows(random, schema, table),
        delete(random, schema, table)
    )
}
