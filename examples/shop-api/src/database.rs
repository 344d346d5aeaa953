//! Which databases the services can keep their data in.

use thiserror::Error;

/// A kind of database. Every service has one file of SQL for each, in its `store/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// `postgres://user:password@host:port/database`
    Postgres,
    /// `mysql://user:password@host:port/database`
    MariaDb,
    /// `sqlite:///path/to/file.db`
    Sqlite,
}

/// A URL that no service understands. It does not repeat the URL, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "it must look like postgres://user:password@host:port/database, \
     mysql://user:password@host:port/database for MariaDB, or sqlite:///path/to/file.db"
)]
pub struct UnknownDatabase;

impl DatabaseKind {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::MariaDb, Self::Sqlite];

    /// The kind that a URL's scheme names.
    ///
    /// # Errors
    /// [`UnknownDatabase`] says which ones there are.
    pub fn of(url: &str) -> Result<Self, UnknownDatabase> {
        match url.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres),
            Some(("mysql" | "mariadb", _)) => Ok(Self::MariaDb),
            Some(("sqlite", _)) => Ok(Self::Sqlite),
            _ => Err(UnknownDatabase),
        }
    }

    /// As options and results call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
            Self::Sqlite => "sqlite",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_tells() {
        for (url, kind) in [
            ("postgres://h/a", Ok(DatabaseKind::Postgres)),
            ("postgresql://h/a", Ok(DatabaseKind::Postgres)),
            ("mysql://h/a", Ok(DatabaseKind::MariaDb)),
            ("mariadb://h/a", Ok(DatabaseKind::MariaDb)),
            ("sqlite:///a/b.db", Ok(DatabaseKind::Sqlite)),
            ("oracle://h/a", Err(UnknownDatabase)),
            ("postgres", Err(UnknownDatabase)),
        ] {
            assert_eq!(DatabaseKind::of(url), kind, "{url}");
        }
        assert!(UnknownDatabase.to_string().contains("mysql://"));
    }
}
