//! What must hold in every state of every protocol.

/// How a transaction ends for one who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
}

/// What the rules look at: one who takes part and, once decided, never decides otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) decided: Option<Outcome>,
    /// It agreed to a commit.
    pub(crate) said_yes: bool,
}

/// What the search finds, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// One commits, another aborts. The search ends here.
    Tear,
    /// One commits though another has not voted yes.
    UnvotedCommit,
    /// A decision is taken back.
    Reversal,
    /// Somebody hears what the protocol's own tables say cannot be.
    Contradiction,
    /// One who is up can never decide, whatever those who are up do, unless others come back.
    Blocked,
}

impl Finding {
    /// As it stands in tables.
    #[must_use]
    pub fn name(found: Option<Self>) -> &'static str {
        match found {
            None => "nothing",
            Some(Self::Tear) => "tear",
            Some(Self::UnvotedCommit) => "unvoted commit",
            Some(Self::Reversal) => "reversal",
            Some(Self::Contradiction) => "contradiction",
            Some(Self::Blocked) => "blocked",
        }
    }
}

/// The rule that a state breaks by itself.
pub(crate) fn broken(parties: &[Party]) -> Option<Finding> {
    let any = |outcome| parties.iter().any(|p| p.decided == Some(outcome));
    if !any(Outcome::Committed) {
        None
    } else if any(Outcome::Aborted) {
        Some(Finding::Tear)
    } else if parties.iter().any(|p| !p.said_yes) {
        Some(Finding::UnvotedCommit)
    } else {
        None
    }
}

/// Whether a step from one state to the next takes a decision back.
pub(crate) fn reverses(before: &[Party], after: &[Party]) -> bool {
    let mut pairs = before.iter().zip(after);
    pairs.any(|(old, new)| old.decided.is_some() && new.decided != old.decided)
}
