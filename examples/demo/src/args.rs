//! The command line.

use std::{path::PathBuf, str::FromStr as _};

use clap::{CommandFactory as _, Parser, error::ErrorKind};
use sqlx::postgres::PgConnectOptions;

use crate::scenarios;

/// Runs the example shop and shows that its orders are all or nothing, also when
/// something is killed in the middle.
///
/// Starts a throw-away PostgreSQL cluster, the coordinator and the shop's four
/// services, runs the scenarios, checks goods and money over all three databases
/// after each, and removes everything.
#[derive(Debug, Parser)]
#[command(name = "./dev demo", version)]
pub(crate) struct Args {
    /// Print the result as JSON, as the last line of stdout.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave everything running at the end, and say where and how to stop it.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Stop what --keep left running in this folder, and remove it.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["keep", "json", "reset", "scenario"])]
    pub(crate) stop: Option<PathBuf>,
    /// With databases of your own: drop the demo's tables that are in them already.
    #[arg(long)]
    pub(crate) reset: bool,
    /// Run only this scenario; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = scenario_names())]
    pub(crate) scenario: Vec<String>,
    /// Where the orders are kept, instead of the throw-away cluster.
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

fn scenario_names() -> clap::builder::PossibleValuesParser {
    scenarios::ALL
        .iter()
        .map(|scenario| scenario.name)
        .collect::<Vec<_>>()
        .into()
}

impl Args {
    /// The user's own databases, if they were given: all three, and different ones.
    pub(crate) fn databases(&self) -> Result<Option<DatabaseUrls>, clap::Error> {
        let wrong = |text: String| Args::command().error(ErrorKind::ValueValidation, text);
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
            return Ok(None);
        };
        let mut places = Vec::new();
        for (name, url) in given {
            // The URL may hold a password, so it is not repeated.
            let url = url.as_deref().unwrap_or_default();
            if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
                return Err(wrong(format!(
                    "{name} cannot be used: it must look like postgres://user:password@host:port/database"
                )));
            }
            let options = PgConnectOptions::from_str(url)
                .map_err(|error| wrong(format!("{name} cannot be used: {error}")))?;
            places.push((
                options.get_host().to_owned(),
                options.get_port(),
                options.get_database().map(str::to_owned),
            ));
        }
        if places[0] == places[1] || places[1] == places[2] || places[0] == places[2] {
            return Err(wrong(
                "the three databases must be different ones: the demo shows a transaction over three"
                    .to_owned(),
            ));
        }
        Ok(Some(DatabaseUrls {
            order,
            stock,
            account,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Option<DatabaseUrls>, String> {
        Args::try_parse_from([&["demo"], args].concat())
            .and_then(|args| args.databases())
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
        let cases: [(&[&str], &str); 7] = [
            (&["--scenario", "nonsense"], "crossing-orders"),
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
                &own("mysql://h/a", "postgres://h/b", "postgres://h/c"),
                "ORDER_DATABASE_URL cannot",
            ),
            (&["extra"], "unexpected argument"),
        ];
        for (args, expected) in cases {
            let error = parse(args).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
        assert_eq!(parse(&["--keep", "--json"]), Ok(None));
        let three = own("postgres://h/a", "postgres://h/b", "postgres://h/c");
        assert!(parse(&three).unwrap().is_some());
    }
}
