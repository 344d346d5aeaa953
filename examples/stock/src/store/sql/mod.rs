//! The SQL: one file for each kind of database.

pub(super) mod mariadb;
pub(super) mod postgres;
pub(super) mod sqlite;
