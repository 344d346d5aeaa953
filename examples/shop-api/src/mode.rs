//! The modes in which the shop can be run.

use crate::database::DatabaseKind;

/// How the services take part in an order's transaction. Each service's `store/` says what it does
/// in which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShopMode {
    /// Plain SQL, undone from images.
    At,
    /// Plain SQL, prepared by the database.
    Xa,
    /// Goods and money are frozen first, then taken or given back.
    Tcc,
    /// Each service does its step for good, or takes it back.
    Saga,
    /// Goods and money are frozen; once it is decided, services need no coordinator.
    ThreePhase,
    /// All of them in each order: whatever suits what is changed.
    Mixed,
}

impl ShopMode {
    /// All of them, the default first.
    pub const ALL: [Self; 6] = [
        Self::At,
        Self::Xa,
        Self::Tcc,
        Self::Saga,
        Self::ThreePhase,
        Self::Mixed,
    ];

    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Why it cannot be had on this kind of database.
    ///
    /// # Errors
    /// One sentence for people.
    pub fn check(self, kind: DatabaseKind) -> Result<(), String> {
        let why = match (self, kind) {
            (Self::Xa, DatabaseKind::Sqlite) => "SQLite cannot prepare a transaction",
            (Self::ThreePhase, DatabaseKind::Sqlite) => {
                "its file belongs to one process, so nobody else could go on for one that is away"
            }
            (Self::Mixed, DatabaseKind::Sqlite) => {
                "orders are written down in XA, and SQLite cannot prepare a transaction"
            }
            _ => return Ok(()),
        };
        let (mode, kind) = (self.name(), kind.name());
        Err(format!("the mode {mode} cannot be run on {kind}: {why}"))
    }

    /// As options and results call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::At => "at",
            Self::Xa => "xa",
            Self::Tcc => "tcc",
            Self::Saga => "saga",
            Self::ThreePhase => "3pc",
            Self::Mixed => "mixed",
        }
    }
}

/// Reads an option of a service.
///
/// # Errors
/// Says which modes there are.
pub fn parse(name: &str) -> Result<ShopMode, String> {
    ShopMode::of(name).ok_or_else(|| {
        let all = ShopMode::ALL.map(ShopMode::name).join(", ");
        format!("there is no mode {name:?}, there are {all}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_wrong_ones_told() {
        for mode in ShopMode::ALL {
            assert_eq!(parse(mode.name()), Ok(mode));
        }
        let error = parse("2pc").unwrap_err();
        assert!(
            error.contains("\"2pc\"") && error.contains("saga, 3pc, mixed"),
            "{error}"
        );
    }

    #[test]
    fn what_sqlite_cannot_do_is_refused() {
        let refused = |mode: &ShopMode| mode.check(DatabaseKind::Sqlite).is_err();
        let refused: Vec<ShopMode> = ShopMode::ALL.into_iter().filter(refused).collect();
        let expected = [ShopMode::Xa, ShopMode::ThreePhase, ShopMode::Mixed];
        assert_eq!(refused, expected);
        for kind in [DatabaseKind::Postgres, DatabaseKind::MariaDb] {
            assert!(ShopMode::ALL.iter().all(|mode| mode.check(kind).is_ok()));
        }
    }
}
