//! The command line.

use std::{path::PathBuf, time::Duration};

use accede_proto::{
    Xid,
    v1::{RepairVerb, Status},
};
use accede_server::config::SETTINGS;
use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, ValueEnum,
};

use crate::{text, view};

/// Where the coordinator is unless told otherwise.
pub(crate) const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7700";

const EXAMPLES: &str = "\
Examples:
  accede serve --data-dir /var/lib/accede       Run the coordinator
  accede status                                 What it does at the moment
  accede tx list --status stuck                 Transactions that need a person
  accede tx why 000c1f40a2e00001                What a transaction waits for
  accede lock list --waited-for                 Rows that transactions wait for
  accede schema create postgres://app@localhost/stock
                                                Prepare a database for AT mode

Exit codes: 0 done, 1 failed, 2 wrong use (a flag, a setting or a URL).";

/// Distributed transactions: the coordinator and what operators need.
#[derive(Debug, Parser)]
#[command(name = "accede", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The coordinator's address.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "ACCEDE_COORDINATOR",
        default_value = DEFAULT_COORDINATOR
    )]
    pub(crate) coordinator: String,
    /// Print JSON as the last line of stdout; everything else goes to stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the coordinator in the foreground.
    #[command(after_help = "\
Settings come from the file, then variables (ACCEDE_LISTEN for --listen), then flags; later ones
win. `accede check-config` prints them with where each comes from.

Examples:
  accede serve
  accede serve --config /etc/accede.toml --log-format json
  ACCEDE_DATA_DIR=/var/lib/accede accede serve

SIGTERM and SIGINT (Ctrl-C) end it in order. Exit codes: 0 ended in order, 1 it could not start or
go on, 2 the settings are wrong.")]
    Serve(Settings),
    /// Check the settings of `serve` and print each with where it comes from.
    #[command(after_help = "\
Examples:
  accede check-config --config /etc/accede.toml
  ACCEDE_LISTEN=127.0.0.1:7800 accede check-config --json")]
    CheckConfig(Settings),
    /// What the coordinator does at the moment: transactions, agents, databases, its log.
    Status,
    /// Look at transactions, and repair those that are stuck.
    #[command(subcommand)]
    Tx(Tx),
    /// Look at row locks.
    #[command(subcommand)]
    Lock(Lock),
    /// Prepare a database for AT mode.
    #[command(subcommand)]
    Schema(Schema),
}

/// What to do with transactions.
#[derive(Debug, Subcommand)]
pub(crate) enum Tx {
    /// List transactions, oldest first.
    #[command(after_help = "\
Examples:
  accede tx list --status stuck
  accede tx list --status active,rolling-back --older-than 30s --limit 20
  accede tx list --json")]
    List(List),
    /// Show one transaction with its branches.
    #[command(after_help = "Example:\n  accede tx show 000c1f40a2e00001")]
    Show {
        /// The transaction's id: 16 hex digits.
        xid: Xid,
    },
    /// Say what one transaction waits for, and what can be done.
    #[command(after_help = "Example:\n  accede tx why 000c1f40a2e00001")]
    Why {
        /// The transaction's id: 16 hex digits.
        xid: Xid,
    },
    /// Act on the stuck branches of a transaction. It is recorded who did it, and why.
    #[command(after_help = "\
`accede tx why XID` tells which verbs fit. Nothing reverses the decision of the transaction.

Examples:
  accede tx repair 000c1f40a2e00001 retry --by ann --reason 'the disk was replaced'
  accede tx repair 000c1f40a2e00001 --branch 2 accept --by ann --reason 'stock was counted anew'")]
    Repair(Repair),
}

/// What to do with row locks.
#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// List row locks with who holds them and who waits.
    #[command(after_help = "\
Examples:
  accede lock list --waited-for
  accede lock list --resource stock-db --limit 20
  accede lock list --xid 000c1f40a2e00001 --json")]
    List(RowLocks),
}

/// `lock list`.
#[derive(Debug, Args)]
pub(crate) struct RowLocks {
    /// Only of this resource.
    #[arg(long, value_name = "NAME")]
    pub(crate) resource: Option<String>,
    /// Only rows that this transaction holds or waits for.
    #[arg(long, value_name = "XID")]
    pub(crate) xid: Option<Xid>,
    /// Only rows that somebody waits for.
    #[arg(long)]
    pub(crate) waited_for: bool,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=MOST_LISTED))]
    pub(crate) limit: u32,
}

/// `tx list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only transactions in these states; may be repeated.
    #[arg(long, value_delimiter = ',', value_name = "STATUS")]
    pub(crate) status: Vec<StatusArg>,
    /// Only transactions that began at least this long ago: 500ms, 30s, 5min, 2h, 1d.
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    pub(crate) older_than: Option<Duration>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=MOST_LISTED))]
    pub(crate) limit: u32,
}

/// What the coordinator answers at most.
const MOST_LISTED: i64 = accede_server::limits::LIST_MOST as i64;

/// A status by its word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusArg(pub(crate) Status);

impl ValueEnum for StatusArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self(Status::Active),
            Self(Status::Delegated),
            Self(Status::PreCommitted),
            Self(Status::Committing),
            Self(Status::Committed),
            Self(Status::RollingBack),
            Self(Status::RolledBack),
            Self(Status::Stuck),
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(view::status_word(self.0).into())
    }
}

/// `tx repair`.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The transaction's id: 16 hex digits.
    pub(crate) xid: Xid,
    /// What to do.
    pub(crate) verb: VerbArg,
    /// Only this branch; without it, every stuck one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) branch: Option<u32>,
    /// Who does this, for the record.
    #[arg(long, value_name = "WHO", value_parser = not_blank)]
    pub(crate) by: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", value_parser = not_blank)]
    pub(crate) reason: String,
}

fn not_blank(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it must not be empty: it is kept on record".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// A verb of `tx repair`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum VerbArg {
    /// Try again, with a fresh retry budget.
    Retry,
    /// Undo the branch whatever its rows hold now.
    Apply,
    /// Keep the current rows and drop the undo record.
    Accept,
    /// End the transaction without this branch.
    Skip,
}

impl From<VerbArg> for RepairVerb {
    fn from(verb: VerbArg) -> Self {
        match verb {
            VerbArg::Retry => Self::Retry,
            VerbArg::Apply => Self::Apply,
            VerbArg::Accept => Self::Accept,
            VerbArg::Skip => Self::Skip,
        }
    }
}

/// What to do with a database. The URL's scheme picks its kind; there is PostgreSQL.
#[derive(Debug, Subcommand)]
pub(crate) enum Schema {
    /// Create the tables where they are missing; safe to repeat.
    #[command(
        after_help = "Example:\n  accede schema create postgres://app:secret@localhost:5432/stock"
    )]
    Create {
        /// The database: postgres://user:password@host:port/database, mysql://… for MariaDB,
        /// or sqlite:///path/to/file.db.
        url: String,
    },
    /// Check that the tables are there and as this version needs them.
    #[command(
        after_help = "Example:\n  accede schema check postgres://app:secret@localhost:5432/stock"
    )]
    Check {
        /// The database: postgres://user:password@host:port/database, mysql://… for MariaDB,
        /// or sqlite:///path/to/file.db.
        url: String,
    },
    /// Print the SQL that `create` runs, for a migration of your own.
    #[command(
        after_help = "Example:\n  accede schema print postgres:// > migrations/0001_accede.sql"
    )]
    Print {
        /// A URL of this kind of database; only the scheme counts.
        url: String,
    },
}

/// The flags of all settings, from the one table that says what can be set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The configuration file.
    pub(crate) file: Option<PathBuf>,
    /// Name and value of each flag that was given.
    pub(crate) flags: Vec<(String, String)>,
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("ACCEDE_CONFIG")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A file of settings in TOML");
        SETTINGS.iter().fold(command.arg(file), |command, setting| {
            let help = format!(
                "{} [{}]",
                setting.about.trim_end_matches('.'),
                setting.allowed
            );
            let arg = Arg::new(setting.flag)
                .long(setting.flag)
                .value_name(if setting.is_switch() {
                    "true|false"
                } else {
                    "VALUE"
                })
                .action(ArgAction::Set)
                .help(help);
            command.arg(if setting.is_switch() {
                arg.num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
            } else {
                arg
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        self.flags = SETTINGS
            .iter()
            .filter_map(|setting| {
                let value = matches.get_one::<String>(setting.flag)?;
                Some((setting.flag.to_owned(), value.clone()))
            })
            .collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_settings_are_collected() {
        let cli = Cli::try_parse_from([
            "accede",
            "serve",
            "--listen",
            "127.0.0.1:1",
            "--insecure",
            "--config",
            "/c",
        ])
        .expect("sound");
        let Verb::Serve(settings) = cli.command else {
            panic!("another command");
        };
        assert_eq!(settings.file, Some(PathBuf::from("/c")));
        let flags: Vec<(&str, &str)> = settings
            .flags
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(flags, [("listen", "127.0.0.1:1"), ("insecure", "true")]);
    }

    #[test]
    fn wrong_use_is_told() {
        for (args, expected) in [
            (vec!["tx", "show", "17"], "16 hex digits"),
            (vec!["tx", "list", "--older-than", "30"], "write 500ms"),
            (vec!["tx", "list", "--status", "odd"], "rolling-back"),
            (vec!["tx", "list", "--limit", "0"], "1..=10000"),
            (
                vec!["tx", "repair", "000c1f40a2e00001", "retry", "--by", "ann"],
                "--reason",
            ),
            (
                vec![
                    "tx",
                    "repair",
                    "000c1f40a2e00001",
                    "retry",
                    "--by",
                    " ",
                    "--reason",
                    "x",
                ],
                "kept on record",
            ),
            (vec!["tx", "repair", "000c1f40a2e00001", "undo"], "accept"),
            (vec!["serve", "--lisen", "x"], "--listen"),
        ] {
            let error =
                Cli::try_parse_from(std::iter::once("accede").chain(args)).expect_err("wrong use");
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn every_status_has_its_word() {
        let cli = Cli::try_parse_from([
            "accede",
            "tx",
            "list",
            "--status",
            "active,delegated,pre-committed,committing,committed,rolling-back,rolled-back",
            "--status",
            "stuck",
        ])
        .expect("sound");
        let Verb::Tx(Tx::List(list)) = cli.command else {
            panic!("another command");
        };
        assert_eq!(list.status.len(), StatusArg::value_variants().len());
    }
}
