//! The command line.

use std::{fmt::Display, path::PathBuf, str::FromStr as _};

use clap::{
    CommandFactory as _, Parser,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use shop_api::{database::DatabaseKind, mode::ShopMode};
use sqlx::{mysql::MySqlConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use crate::scenarios;

/// Runs the example shop and shows that its orders are all or nothing, also when
/// something is killed in the middle.
///
/// Starts a throw-away PostgreSQL or MariaDB server (SQLite needs none), the coordinator
/// and the shop's four services, runs the scenarios, checks goods and money over all
/// three databases after each, and removes everything.
#[derive(Debug, Parser)]
#[command(name = "./dev demo", version)]
pub(crate) struct Args {
    /// Which database the services use; that of your own URLs if there are any, else
    /// PostgreSQL.
    #[arg(long, value_name = "KIND", value_parser = kind_names())]
    database: Option<DatabaseKind>,
    /// How the services take part in transactions.
    #[arg(long, value_name = "MODE", default_value = "at", value_parser = mode_names())]
    mode: ShopMode,
    /// Print the result as JSON, as the last line of stdout.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave everything running at the end, and say where and how to stop it.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Stop what --keep left running in this folder, and remove it.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["database", "mode", "keep", "json", "reset", "scenario"])]
    pub(crate) stop: Option<PathBuf>,
    /// With databases of your own: drop the demo's tables that are in them already.
    #[arg(long)]
    pub(crate) reset: bool,
    /// Run only this scenario; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = scenario_names())]
    pub(crate) scenario: Vec<String>,
    /// Where the orders are kept, instead of in a throw-away database: postgres://…,
    /// mysql://… or sqlite://….
    #[arg(long, env = "ORDER_DATABASE_URL", hide_env_values = true)]
    order_database_url: Option<String>,
    /// Where the goods are kept.
    #[arg(long, env = "STOCK_DATABASE_URL", hide_env_values = true)]
    stock_database_url: Option<String>,
    /// Where the money is kept.
    #[arg(long, env = "ACCOUNT_DATABASE_URL", hide_env_values = true)]
    account_database_url: Option<String>,
}

/// Where the services keep their data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatabaseUrls {
    pub(crate) order: String,
    pub(crate) stock: String,
    pub(crate) account: String,
}

/// What the demo runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) kind: DatabaseKind,
    pub(crate) mode: ShopMode,
    /// The user's own databases, if they were given.
    pub(crate) own: Option<DatabaseUrls>,
}

fn kind_names() -> impl TypedValueParser<Value = DatabaseKind> {
    PossibleValuesParser::new(DatabaseKind::ALL.map(DatabaseKind::name)).map(|name| {
        DatabaseKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .expect("the parser lets only these names through")
    })
}

fn mode_names() -> impl TypedValueParser<Value = ShopMode> {
    PossibleValuesParser::new(ShopMode::ALL.map(ShopMode::name))
        .map(|name| ShopMode::of(&name).expect("the parser lets only these names through"))
}

fn scenario_names() -> PossibleValuesParser {
    scenarios::ALL
        .iter()
        .map(|scenario| scenario.name)
        .collect::<Vec<_>>()
        .into()
}

fn wrong(text: String) -> clap::Error {
    Args::command().error(ErrorKind::ValueValidation, text)
}

/// Kind, host, port and name of the database at this URL, or its file.
fn place(
    name: &str,
    url: &str,
) -> Result<(DatabaseKind, String, u16, Option<String>), clap::Error> {
    // The URL may hold a password, so it is not repeated.
    let refuse = |error: &dyn Display| wrong(format!("{name} cannot be used: {error}"));
    let kind = DatabaseKind::of(url).map_err(|error| refuse(&error))?;
    let (host, port, database) = match kind {
        DatabaseKind::Postgres => {
            let options = PgConnectOptions::from_str(url).map_err(|error| refuse(&error))?;
            let database = options.get_database().map(str::to_owned);
            (options.get_host().to_owned(), options.get_port(), database)
        }
        DatabaseKind::MariaDb => {
            let options = MySqlConnectOptions::from_str(url).map_err(|error| refuse(&error))?;
            let database = options.get_database().map(str::to_owned);
            (options.get_host().to_owned(), options.get_port(), database)
        }
        DatabaseKind::Sqlite => {
            let options = SqliteConnectOptions::from_str(url).map_err(|error| refuse(&error))?;
            let file = options.get_filename().display().to_string();
            (String::new(), 0, Some(file))
        }
    };
    Ok((kind, host, port, database))
}

impl Args {
    /// The database to use. The user's own are all three, different ones and of one kind.
    pub(crate) fn chosen(&self) -> Result<Chosen, clap::Error> {
        let given = [
            ("ORDER_DATABASE_URL", &self.order_database_url),
            ("STOCK_DATABASE_URL", &self.stock_database_url),
            ("ACCOUNT_DATABASE_URL", &self.account_database_url),
        ];
        let (Some(order), Some(stock), Some(account)) = (
            self.order_database_url.clone(),
            self.stock_database_url.clone(),
            self.account_database_url.clone(),
        ) else {
            let missing: Vec<&str> = given
                .iter()
                .filter(|(_, url)| url.is_none())
                .map(|(name, _)| *name)
                .collect();
            if missing.len() < given.len() {
                return Err(wrong(format!(
                    "databases of your own are all three or none, {} is missing",
                    missing.join(" and ")
                )));
            }
            if self.reset {
                return Err(wrong(
                    "--reset is for databases of your own: set ORDER_DATABASE_URL, \
                     STOCK_DATABASE_URL and ACCOUNT_DATABASE_URL"
                        .to_owned(),
                ));
            }
            let kind = self.database.unwrap_or(DatabaseKind::ALL[0]);
            self.mode.check(kind).map_err(wrong)?;
            return Ok(Chosen {
                kind,
                mode: self.mode,
                own: None,
            });
        };
        let mut places = Vec::new();
        for (name, url) in given {
            places.push(place(name, url.as_deref().unwrap_or_default())?);
        }
        if places[0] == places[1] || places[1] == places[2] || places[0] == places[2] {
            return Err(wrong(
                "the three databases must be different ones: the demo shows a transaction over three"
                    .to_owned(),
            ));
        }
        let kind = self.database.unwrap_or(places[0].0);
        if let Some(((name, _), _)) = given.iter().zip(&places).find(|(_, place)| place.0 != kind) {
            return Err(wrong(format!(
                "{name} is not of the kind {}: the demo runs on one kind of database",
                kind.name()
            )));
        }
        self.mode.check(kind).map_err(wrong)?;
        let own = Some(DatabaseUrls {
            order,
            stock,
            account,
        });
        Ok(Chosen {
            kind,
            mode: self.mode,
            own,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Chosen, String> {
        Args::try_parse_from([&["demo"], args].concat())
            .and_then(|args| args.chosen())
            .map_err(|error| {
                assert_eq!(error.exit_code(), 2);
                error.to_string()
            })
    }

    #[test]
    fn wrong_use_is_told() {
        let own = |order, stock, account| {
            [
                "--order-database-url",
                order,
                "--stock-database-url",
                stock,
                "--account-database-url",
                account,
            ]
        };
        let three = own("postgres://h/a", "postgres://h/b", "postgres://h/c");
        let mismatch = [&["--database", "mariadb"][..], &three].concat();
        let cases: [(&[&str], &str); 15] = [
            (&["--mode", "nonsense"], "at, xa, tcc, saga, 3pc, mixed"),
            (
                &["--mode", "xa", "--database", "sqlite"],
                "SQLite cannot prepare a transaction",
            ),
            (
                &["--mode", "3pc", "--database", "sqlite"],
                "its file belongs to one process",
            ),
            (
                &["--mode", "mixed", "--database", "sqlite"],
                "the mode mixed cannot be run on sqlite: orders are written down in XA",
            ),
            (&["--scenario", "nonsense"], "crossing-orders"),
            (&["--database", "oracle"], "postgres, mariadb, sqlite"),
            (&["--stop", "/tmp/x", "--keep"], "cannot be used with"),
            (&["--reset"], "--reset is for databases of your own"),
            (
                &["--stock-database-url", "postgres://h/a"],
                "ORDER_DATABASE_URL and ACCOUNT_DATABASE_URL is missing",
            ),
            (
                &own("postgres://h/a", "postgres://h/b", "postgres://h/a"),
                "different",
            ),
            (
                &own("oracle://h/a", "postgres://h/b", "postgres://h/c"),
                "ORDER_DATABASE_URL cannot be used: it must look like",
            ),
            (
                &own("postgres://h/a", "mysql://h/b", "postgres://h/c"),
                "STOCK_DATABASE_URL is not of the kind postgres",
            ),
            (
                &own("sqlite:///a.db", "sqlite:///b.db", "sqlite:///a.db"),
                "different",
            ),
            (&mismatch, "ORDER_DATABASE_URL is not of the kind mariadb"),
            (&["extra"], "unexpected argument"),
        ];
        for (args, expected) in cases {
            let error = parse(args).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
        for (args, kind, has_own) in [
            (&["--keep", "--json"][..], DatabaseKind::Postgres, false),
            (
                &["--database", "mariadb", "--mode", "mixed"],
                DatabaseKind::MariaDb,
                false,
            ),
            (
                &["--database", "sqlite", "--mode", "saga"],
                DatabaseKind::Sqlite,
                false,
            ),
            (&three, DatabaseKind::Postgres, true),
            (
                &own("mysql://h/a", "mysql://h/b", "mariadb://h/c"),
                DatabaseKind::MariaDb,
                true,
            ),
            (
                &own("sqlite:///a.db", "sqlite:///b.db", "sqlite:///c.db"),
                DatabaseKind::Sqlite,
                true,
            ),
        ] {
            let chosen = parse(args).unwrap();
            assert_eq!((chosen.kind, chosen.own.is_some()), (kind, has_own));
        }
    }
}
