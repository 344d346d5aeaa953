//! Columns as the catalog describes them.

use std::sync::Arc;

use sqlx::MySqlConnection;

use super::{required, text};
use crate::at::{
    mysql::types::{Class, signature},
    table::{Column, Equality},
};

/// How a generated column is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::mariadb) enum Generated {
    Stored,
    Virtual,
}

/// A column as the catalog describes it.
#[derive(Debug)]
pub(in crate::store::mariadb) struct Described {
    pub(in crate::store::mariadb) name: Arc<str>,
    pub(super) data_type: String,
    /// `None` for types that are not supported.
    pub(super) class: Option<Class>,
    pub(super) signature: String,
    pub(in crate::store::mariadb) generated: Option<Generated>,
    /// An INSERT without a list gives it no value.
    pub(super) hidden: bool,
    pub(super) auto_increment: bool,
    /// Every UPDATE of a row sets it, unless it assigns it.
    pub(in crate::store::mariadb) set_on_update: bool,
    /// Its default is made anew for each row.
    pub(super) computed_default: bool,
    /// It is the first one of an index.
    pub(in crate::store::mariadb) leads_index: bool,
}

impl Described {
    /// One of this name, of a type that is supported or not.
    #[cfg(test)]
    pub(in crate::store::mariadb) fn of(name: &str, class: Option<Class>) -> Self {
        Self {
            name: name.into(),
            data_type: String::new(),
            class,
            signature: "int(11)".to_owned(),
            generated: None,
            hidden: false,
            auto_increment: false,
            set_on_update: false,
            computed_default: false,
            leads_index: false,
        }
    }

    /// As images show it; `None` for types that are not supported.
    pub(in crate::store::mariadb) fn column(&self) -> Option<Column> {
        let class = (self.class?, self.signature.as_str());
        Some(column(&self.name, class, self.generated.is_some()))
    }
}

/// The columns of a table in their order; empty if there is none of that name.
pub(in crate::store::mariadb) async fn read(
    connection: &mut MySqlConnection,
    schema: &str,
    table: &str,
) -> Result<Vec<Described>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME,
                EXTRA, COLUMN_DEFAULT, COLUMN_KEY
         FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(connection)
    .await?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        let (data_type, column_type) = (required(row, 1)?, required(row, 2)?);
        let extra = required(row, 5)?.to_ascii_uppercase();
        let (charset, collation) = (text(row, 3)?, text(row, 4)?);
        columns.push(Described {
            name: required(row, 0)?.into(),
            class: Class::of(&data_type, &column_type),
            signature: signature(&column_type, charset.as_deref(), collation.as_deref()),
            data_type,
            generated: if extra.contains("VIRTUAL GENERATED") {
                Some(Generated::Virtual)
            } else {
                extra.contains("GENERATED").then_some(Generated::Stored)
            },
            hidden: extra.contains("INVISIBLE"),
            auto_increment: extra.contains("AUTO_INCREMENT"),
            set_on_update: extra.contains("ON UPDATE"),
            computed_default: text(row, 6)?.is_some_and(|default| default.contains('(')),
            leads_index: !required(row, 7)?.is_empty(),
        });
    }
    Ok(columns)
}

/// A column of images.
pub(super) fn column(name: &str, (class, signature): (Class, &str), generated: bool) -> Column {
    Column {
        name: name.into(),
        type_oid: class as u32,
        type_name: signature.into(),
        as_text: true,
        merges: false,
        generated,
        identity_always: false,
        escrow: None,
        equality: match class {
            Class::Float => Equality::Unknown,
            _ => Equality::Bytes,
        },
    }
}
