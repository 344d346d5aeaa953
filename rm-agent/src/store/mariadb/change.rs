//! UPDATE and DELETE in a branch: the rows are locked and read, just these are changed, and
//! read again. The statement cannot reach a row that has no image, whatever others commit
//! meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sqlx::{Either, MySqlConnection};

use super::{
    executor::Statement,
    images,
    keys::{MAX_PARAMETERS, RowKeys},
    plan::{consumed, refuse},
    run::{collect, key, read_by_key, row_error},
    transaction::Step,
};
use crate::{
    at::{
        image::{RowImage, Value},
        mysql::{
            quote_qualified,
            statement::{Clause, Write},
            types::Class,
        },
        statement::WriteKind,
        table::Table,
        undo::Changes,
    },
    error::Error,
};

/// UPDATE or DELETE.
#[derive(Debug)]
pub(super) struct ChangePlan {
    kind: WriteKind,
    table: Arc<Table>,
    /// Locks and shows the rows; takes all the user's parameters.
    locking_sql: String,
    /// The key columns that an UPDATE assigns, and which output columns show their new values.
    new_keys: Vec<(usize, usize)>,
    /// The user's statement around the keys.
    before_keys: String,
    after_keys: String,
    /// Others are joined to the table: a row of it may come several times.
    joins: bool,
    /// How the statement refers to the table, if others are joined to it.
    reference: Option<String>,
    /// Whether the user's statement returns rows.
    returns: bool,
    /// It only adds to columns in escrow, if these parameters are equal.
    adds_only: Option<Vec<(usize, usize)>>,
    /// How many parameters the user's statement has.
    parameters: usize,
}

impl ChangePlan {
    pub(super) fn new(sql: &str, write: &Write, table: &Arc<Table>) -> Result<Self, Error> {
        if write.joins && write.returning.is_some() {
            return Err(refuse("RETURNING over several tables", "leave it out"));
        }
        let text = Text { sql, write };
        let (locking_sql, new_keys) = text.locking(table)?;
        let (before_keys, after_keys) = text.narrowed(table);
        let keeps_joins = write.joins && write.kind == WriteKind::Update;
        Ok(Self {
            kind: write.kind,
            table: Arc::clone(table),
            locking_sql,
            new_keys,
            before_keys,
            after_keys,
            joins: write.joins,
            reference: keeps_joins.then(|| write.reference.clone()),
            returns: write.returning.is_some(),
            adds_only: adds_only(write, table),
            parameters: write.parameters,
        })
    }

    /// The statement, for these rows only.
    fn sql(&self, keys: &RowKeys<'_, RowImage>) -> String {
        let condition = keys.condition(self.reference.as_deref());
        format!("{}{condition}{}", self.before_keys, self.after_keys)
    }

    pub(super) async fn run(
        &self,
        connection: &mut MySqlConnection,
        statement: &Statement,
        changes: &mut Changes,
        wrote: &mut bool,
    ) -> Result<Vec<Step>, sqlx::Error> {
        let table = &self.table;
        let reading = statement.with_text(self.locking_sql.clone(), statement.arguments());
        let (before, moved) = self.lock(connection, reading).await?;
        let keys = RowKeys::of(table, &before);
        let mut arguments = statement.arguments();
        let parameters = sqlx::Arguments::len(&arguments) + keys.parameters();
        if parameters > MAX_PARAMETERS {
            return Err(Error::TooLarge {
                what: format!("the statement's keys and parameters, {parameters},"),
                limit: MAX_PARAMETERS,
            }
            .into());
        }
        keys.bind(&mut arguments)?;
        let writing = statement.with_text(self.sql(&keys), arguments);
        let steps = collect(connection, writing, true, |_| Ok(())).await?;
        *wrote = true;
        match self.kind {
            WriteKind::Delete => self.deleted(&steps, before, changes)?,
            _ if before.is_empty() => {}
            _ => {
                let moved = if moved.is_empty() { &before } else { &moved };
                let (mut after, adds_only) = self.read(connection, statement, moved).await?;
                let moved: Vec<_> = moved.iter().map(|row| key(table, row)).collect();
                for (row, moved) in before.into_iter().zip(&moved) {
                    let new = after.remove(moved).ok_or_else(|| {
                        row_error(
                            table,
                            "it is not found under its primary key after it was updated; assign \
                             keys that need no conversion",
                        )
                    })?;
                    changes.record(table, Some(row), Some(new), adds_only)?;
                }
            }
        }
        Ok(steps)
    }

    /// Reads rows that were updated, and whether the statement only added to them.
    async fn read(
        &self,
        connection: &mut MySqlConnection,
        statement: &Statement,
        rows: &[RowImage],
    ) -> Result<(BTreeMap<Vec<Value>, RowImage>, bool), sqlx::Error> {
        let table = &self.table;
        let equal = match &self.adds_only {
            Some(equal) if !equal.is_empty() => equal,
            adds_only => {
                let found = read_by_key(connection, table, rows).await?;
                return Ok((found, adds_only.is_some()));
            }
        };
        // The parameters are only known to the database.
        let shown = |number: usize| {
            equal
                .iter()
                .any(|pair| pair.0 == number || pair.1 == number)
        };
        let mut outputs: Vec<String> = Vec::new();
        let mut places = BTreeMap::new();
        for number in 1..=self.parameters {
            if shown(number) {
                places.insert(number, outputs.len());
                outputs.push("CAST(? AS BINARY)".to_owned());
            } else {
                outputs.extend(take(1));
            }
        }
        let first = outputs.len();
        outputs.extend(images::outputs(table));
        let keys = RowKeys::of(table, rows);
        let mut arguments = statement.arguments();
        keys.bind(&mut arguments)?;
        let sql = format!(
            "SELECT {} FROM {} WHERE {} FOR UPDATE",
            outputs.join(", "),
            quote_qualified(&table.schema, &table.name),
            keys.condition(None),
        );
        let (mut found, mut adds_only) = (BTreeMap::new(), true);
        collect(
            connection,
            statement.with_text(sql, arguments),
            false,
            |row| {
                for (one, other) in equal {
                    let [one, other] =
                        [one, other].map(|number| images::value(row, places[number]));
                    adds_only &= one? == other?;
                }
                let image = images::image(row, first, table)?;
                found.insert(key(table, &image), image);
                Ok(())
            },
        )
        .await?;
        Ok((found, adds_only))
    }

    /// Locks and reads the rows, each once: as they are, and with the keys that they get, if
    /// the statement assigns some.
    async fn lock(
        &self,
        connection: &mut MySqlConnection,
        reading: Statement,
    ) -> Result<(Vec<RowImage>, Vec<RowImage>), sqlx::Error> {
        let table = &self.table;
        let mut found: BTreeSet<Vec<Value>> = BTreeSet::new();
        let (mut before, mut moved) = (Vec::new(), Vec::new());
        collect(connection, reading, false, |row| {
            let image = images::image_or_none(row, 0, table)?;
            // An outer join may have no row of this table.
            let Some(image) = image else { return Ok(()) };
            if self.joins && !found.insert(key(table, &image)) {
                return Ok(());
            }
            if !self.new_keys.is_empty() {
                let mut new = image.clone();
                for &(position, output) in &self.new_keys {
                    let value = images::value(row, output)?;
                    new.values[position] = same_form(&image.values[position], value);
                }
                moved.push(new);
            }
            before.push(image);
            Ok(())
        })
        .await?;
        Ok((before, moved))
    }

    fn deleted(
        &self,
        steps: &[Step],
        before: Vec<RowImage>,
        changes: &mut Changes,
    ) -> Result<(), sqlx::Error> {
        let table = &self.table;
        let deleted = steps.iter().map(|step| match step {
            Either::Left(done) if !self.returns => done.rows_affected(),
            Either::Left(_) => 0,
            Either::Right(_) => 1,
        });
        if deleted.sum::<u64>() != before.len() as u64 {
            return Err(row_error(
                table,
                "another number of rows was deleted than was locked",
            ));
        }
        for row in before {
            changes.record(table, Some(row), None, false)?;
        }
        Ok(())
    }
}

/// The user's text, from which the statements are made.
struct Text<'a> {
    sql: &'a str,
    write: &'a Write,
}

impl Text<'_> {
    /// A comment may end a clause, but not what comes behind it here.
    fn of(&self, clause: &Clause) -> String {
        format!("{}\n", self.sql[clause.span.clone()].trim())
    }

    /// Locks and shows the rows. With the key columns that get new values, and where these
    /// are shown.
    fn locking(&self, table: &Table) -> Result<(String, Vec<(usize, usize)>), Error> {
        let write = self.write;
        let reference = write.joins.then_some(write.reference.as_str());
        let mut outputs = images::outputs_as(table, reference);
        let mut conditions = Vec::new();
        let mut new_keys = Vec::new();
        let mut left = write.head.parameters;
        if write.joins {
            // The tables' parameters come first, then those of SET.
            left = left.saturating_sub(write.target.parameters);
            conditions.extend(take(left));
        } else {
            for (number, value) in write.values.iter().enumerate() {
                match assigned_key(write, table, number) {
                    Some(position) => {
                        let text = self.of(&value.clause);
                        new_keys.push((position, outputs.len()));
                        outputs.push(new_value(table, position, write, number, &text)?);
                    }
                    None => outputs.extend(take(value.clause.parameters)),
                }
                left = left.saturating_sub(value.clause.parameters);
            }
            outputs.extend(take(left));
        }
        let (outputs, target) = (outputs.join(", "), self.of(&write.target));
        let mut sql = format!("SELECT {outputs} FROM {target}");
        if let Some(condition) = &write.condition {
            conditions.push(format!("({})", self.of(condition)));
        }
        if !conditions.is_empty() {
            sql += &format!(" WHERE {}", conditions.join(" AND "));
        }
        if let Some(order) = &write.order {
            if order.parameters > 0 {
                return Err(refuse(
                    "a parameter in its ORDER BY",
                    "order by columns and constants",
                ));
            }
            sql += &format!(" ORDER BY {}", self.of(order));
        }
        if let Some(limit) = &write.limit {
            sql += &format!(" LIMIT {}", self.of(limit));
        }
        sql += " FOR UPDATE";
        Ok((sql, new_keys))
    }

    /// The user's statement around the keys of the rows that are locked.
    fn narrowed(&self, table: &Table) -> (String, String) {
        let write = self.write;
        if write.joins && write.kind == WriteKind::Delete {
            // The rows are known by now: the other tables need not be looked at again.
            let mut conditions: Vec<String> = take(write.parameters).collect();
            conditions.push(String::new());
            let name = quote_qualified(&table.schema, &table.name);
            let conditions = conditions.join(" AND ");
            return (
                format!("DELETE FROM {name} WHERE {conditions}"),
                String::new(),
            );
        }
        let mut conditions = Vec::new();
        match &write.condition {
            // It says which rows of the other tables belong to a row.
            Some(condition) if write.joins => {
                conditions.push(format!("({})", self.of(condition)));
            }
            // It held for the rows that are locked now; looked at again it might hold for
            // others.
            Some(condition) => conditions.extend(take(condition.parameters)),
            None => {}
        }
        let mut after_keys = String::new();
        if let Some(order) = &write.order {
            after_keys += &format!(" ORDER BY {}", self.of(order));
        }
        if let Some(limit) = &write.limit {
            // The keys are those that it let through.
            conditions.extend(take(limit.parameters));
        }
        if let Some(returning) = &write.returning {
            after_keys += &format!(" RETURNING {}", self.sql[returning.clone()].trim());
        }
        conditions.push(String::new());
        let head = self.of(&write.head);
        (
            format!("{head} WHERE {}", conditions.join(" AND ")),
            after_keys,
        )
    }
}

fn take(parameters: usize) -> impl Iterator<Item = String> {
    consumed(parameters).into_iter().map(str::to_owned)
}

fn adds_only(write: &Write, table: &Table) -> Option<Vec<(usize, usize)>> {
    let in_escrow = |name: &String| {
        let mut columns = table.columns.iter();
        columns.any(|column| column.escrow.is_some() && column.name.to_lowercase() == *name)
    };
    let deltas = &write.deltas;
    (!deltas.columns.is_empty() && deltas.columns.iter().all(in_escrow))
        .then(|| deltas.equal.clone())
}

/// The key column that the assignment of this number assigns.
fn assigned_key(write: &Write, table: &Table, number: usize) -> Option<usize> {
    let name = write.assigned.get(number)?;
    let mut key = table.key.iter().copied();
    key.find(|&position| table.columns[position].name.eq_ignore_ascii_case(name))
}

/// The expression that shows what a key column gets, in the form of images.
fn new_value(
    table: &Table,
    position: usize,
    write: &Write,
    number: usize,
    text: &str,
) -> Result<String, Error> {
    let column = &table.columns[position];
    let refused = |what: &str| {
        Err(refuse(
            format!(
                "the UPDATE assigns its primary key column {}, {what}",
                column.name
            ),
            "DELETE the row and INSERT it anew",
        ))
    };
    let Some(names) = &write.values[number].names else {
        return refused("and its value is more than names, constants and operators");
    };
    // Later assignments see what earlier ones assigned.
    let earlier = write.assigned[..number]
        .iter()
        .map(|name| name.to_lowercase());
    if earlier.into_iter().any(|name| names.contains(&name)) {
        return refused("and its value depends on a column that is assigned before it");
    }
    let twice = (0..number).any(|other| assigned_key(write, table, other) == Some(position));
    if twice {
        return refused("twice");
    }
    let charset = column.type_name.split('|').nth(1).unwrap_or("utf8mb4");
    match Class::from_number(column.type_oid) {
        Some(Class::Text) => Ok(format!("CAST(CONVERT(({text}) USING {charset}) AS BINARY)")),
        Some(Class::Decimal) => {
            let cast = Class::Decimal.comparison(&column.type_name);
            let cast = cast.replacen('?', &format!("({text})"), 1);
            Ok(format!("CAST({cast} AS BINARY)"))
        }
        Some(Class::Literal) => Ok(format!("CAST(({text}) AS CHAR)")),
        Some(Class::Signed | Class::Unsigned | Class::Temporal | Class::Bytes) => {
            Ok(format!("CAST(({text}) AS BINARY)"))
        }
        Some(Class::Number | Class::Float | Class::Weight) | None => {
            refused("whose type compares inexactly")
        }
    }
}

/// The new value as an image shows it: some numbers are filled up with zeros.
fn same_form(old: &Value, new: Value) -> Value {
    match (old, &new) {
        (Some(old), Some(digits))
            if old.len() > digits.len()
                && old.starts_with(b"0")
                && digits.iter().all(u8::is_ascii_digit) =>
        {
            let mut filled = vec![b'0'; old.len() - digits.len()];
            filled.extend_from_slice(digits);
            Some(filled.into())
        }
        _ => new,
    }
}
