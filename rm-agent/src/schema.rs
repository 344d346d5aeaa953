//! Creates and checks the tables that Accede keeps beside the data.
//!
//! The URL's scheme picks the database; PostgreSQL (`postgres://`,
//! `postgresql://`) is the one there is.

use crate::{error::Error, store::postgres::schema as postgres};

fn only_postgres(url: &str) -> Result<(), Error> {
    let scheme = url.split_once("://").map_or(url, |(scheme, _)| scheme);
    match scheme {
        "postgres" | "postgresql" => Ok(()),
        _ => Err(Error::Configuration(format!(
            "there is no support for databases of the scheme {scheme:?}; use \
             postgres://user:password@host:port/database"
        ))),
    }
}

/// Creates the tables where they are missing. Safe to repeat.
///
/// # Errors
/// When the scheme is unknown, the database cannot be reached or refuses.
pub async fn create(url: &str) -> Result<(), Error> {
    only_postgres(url)?;
    postgres::create(url).await
}

/// Checks that the tables are there and as this version needs them.
///
/// # Errors
/// [`Error::Schema`] names what is missing or different.
pub async fn check(url: &str) -> Result<(), Error> {
    only_postgres(url)?;
    postgres::check(url).await
}

/// The SQL that [`create`] runs, the same as the shipped migration file.
///
/// # Errors
/// When the scheme is unknown.
pub fn print(url: &str) -> Result<&'static str, Error> {
    only_postgres(url)?;
    Ok(postgres::print())
}
