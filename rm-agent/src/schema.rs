//! Creates and checks the tables that Accede keeps beside the data.
//!
//! The URL's scheme picks the database: `postgres://` (or `postgresql://`), `mysql://` (or
//! `mariadb://`) for MariaDB, or `sqlite://`, whose file is created if it is missing.

use crate::{
    error::Error,
    store::{mariadb::schema as mariadb, postgres::schema as postgres, sqlite::schema as sqlite},
};

enum Kind {
    Postgres,
    MariaDb,
    Sqlite,
}

fn kind(url: &str) -> Result<Kind, Error> {
    let scheme = url.split_once("://").map_or(url, |(scheme, _)| scheme);
    match scheme {
        "postgres" | "postgresql" => Ok(Kind::Postgres),
        "mysql" | "mariadb" => Ok(Kind::MariaDb),
        "sqlite" => Ok(Kind::Sqlite),
        _ => Err(Error::Configuration(format!(
            "there is no support for databases of the scheme {scheme:?}; use \
             postgres://user:password@host:port/database, mysql://… or sqlite:///path/to/file.db"
        ))),
    }
}

/// Creates the tables where they are missing. Safe to repeat.
///
/// # Errors
/// When the scheme is unknown, the database cannot be reached or refuses.
pub async fn create(url: &str) -> Result<(), Error> {
    match kind(url)? {
        Kind::Postgres => postgres::create(url).await,
        Kind::MariaDb => mariadb::create(url).await,
        Kind::Sqlite => sqlite::create(url).await,
    }
}

/// Checks that the tables are there and as this version needs them.
///
/// # Errors
/// [`Error::Schema`] names what is missing or different.
pub async fn check(url: &str) -> Result<(), Error> {
    match kind(url)? {
        Kind::Postgres => postgres::check(url).await,
        Kind::MariaDb => mariadb::check(url).await,
        Kind::Sqlite => sqlite::check(url).await,
    }
}

/// The SQL that [`create`] runs, the same as the shipped migration file.
///
/// # Errors
/// When the scheme is unknown.
pub fn print(url: &str) -> Result<&'static str, Error> {
    Ok(match kind(url)? {
        Kind::Postgres => postgres::print(),
        Kind::MariaDb => mariadb::print(),
        Kind::Sqlite => sqlite::print(),
    })
}
