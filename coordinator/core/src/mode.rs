//! The modes: every rule that differs from one to the other.

/// How a branch is finished.
///
/// An order says whether the branch had reported its phase one. If it had not, its agent finds out
/// in its own records whether phase one happened, and bars what might still come; each mode says
/// below what that means when the transaction rolls back. In a commit every branch has reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Undone from images in the database's undo log. Not reported: without an undo record nothing
    /// was committed locally; one that comes late must fail.
    At,
    /// Prepared in the database, then committed or rolled back there. Not reported: without a
    /// prepared transaction there is nothing to roll back; a late prepare must fail.
    Xa,
    /// Tried, then confirmed or cancelled by the application's own code. Not reported: without a
    /// trace of the try the cancel is empty; a late try must fail.
    Tcc,
    /// Done for good, and compensated by the application's own code. Not reported: the step may
    /// have happened, and is compensated only if it left its trace; a late step must fail.
    Saga,
    /// Asked, told that all agreed, then told to go ahead. Not reported: there is no yes to take
    /// back; a late one must fail.
    ThreePhase,
}

/// What the resource of a branch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A name that is bound to a database.
    Database,
    /// The name of an action, whose arguments the branch carries.
    Action,
}

/// Which branches of a rollback wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undoing {
    /// Those of one resource: the last one first, the others when it is over.
    LastOfResourceFirst,
    /// Those of this mode, whatever their resources: the last one first, the others when it is
    /// over.
    LastOfModeFirst,
    /// None.
    AtOnce,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::At, Self::Xa, Self::Tcc, Self::Saga, Self::ThreePhase];

    /// The word for tables and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::At => "AT",
            Self::Xa => "XA",
            Self::Tcc => "TCC",
            Self::Saga => "Saga",
            Self::ThreePhase => "3PC",
        }
    }

    /// Whether a branch holds global locks on rows. What TCC, Saga and 3PC change is guarded by
    /// the application's own rules.
    #[must_use]
    pub const fn takes_row_locks(self) -> bool {
        matches!(self.place(), Place::Database)
    }

    /// Whether a branch may carry a payload, which comes back with its orders: an action's
    /// arguments, the database's name for what XA prepared. What AT needs lies in the database.
    #[must_use]
    pub const fn takes_payload(self) -> bool {
        !matches!(self, Self::At)
    }

    pub(crate) const fn place(self) -> Place {
        match self {
            Self::At | Self::Xa => Place::Database,
            Self::Tcc | Self::Saga | Self::ThreePhase => Place::Action,
        }
    }

    /// Whether its branches hear of a commit before they are ordered to commit.
    pub(crate) const fn is_pre_committed(self) -> bool {
        matches!(self, Self::ThreePhase)
    }

    /// A commit needs no order: nothing that is confirmed can stand in the way of another branch.
    pub(crate) const fn undoing(self) -> Undoing {
        match self {
            // A later image of a row holds what an earlier one left.
            Self::At => Undoing::LastOfResourceFirst,
            Self::Saga => Undoing::LastOfModeFirst,
            // Each kept its changes to itself until now.
            Self::Xa | Self::Tcc | Self::ThreePhase => Undoing::AtOnce,
        }
    }
}
