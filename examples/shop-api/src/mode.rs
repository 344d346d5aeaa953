//! The modes in which the shop can be run.

use crate::database::DatabaseKind;

/// How the services take part in an order's transaction. A service that has no file for a mode
/// does its part as in the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShopMode {
    /// Plain SQL, undone from images.
    At,
    /// Plain SQL, prepared by the database.
    Xa,
    /// Goods and money are frozen first, then taken or given back.
    Tcc,
    /// The same, with a phase between: once it is decided, services need no coordinator.
    ThreePhase,
}

impl ShopMode {
    /// All of them, the default first.
    pub const ALL: [Self; 4] = [Self::At, Self::Xa, Self::Tcc, Self::ThreePhase];

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
            Self::ThreePhase => "3pc",
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
