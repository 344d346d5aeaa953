//! What came of it.

use std::fmt;

/// Everything held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Cases played.
    pub cases: u64,
    /// Transactions in them that committed.
    pub committed: u64,
    /// And that rolled back.
    pub rolled_back: u64,
}

/// What must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// What was observed is what the committed transactions alone would have left.
    SameAsUndisturbed {
        /// What they leave.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A confirm or cancel succeeds in the end.
    Finishes(String),
    /// The test's own invariant.
    Invariant(String),
    /// The test itself works: its `reset` and `observe` succeed, and so does a try that nothing
    /// disturbs.
    Test(String),
    /// The coordinator ends what it decided. A bug of this library's if it does not.
    Ends,
}

/// A rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken {
    /// Which one.
    pub rule: Rule,
    /// Repeats the case; 0 if no case was played yet.
    pub seed: u64,
    /// What happened, a line for each transaction and event.
    pub story: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::SameAsUndisturbed { expected, found } => write!(
                f,
                "the committed transactions alone would have left other data\n  expected: \
                 {expected}\n  found:    {found}"
            )?,
            Rule::Finishes(reason) => write!(f, "a branch was not finished: {reason}")?,
            Rule::Invariant(reason) => write!(f, "the invariant does not hold: {reason}")?,
            Rule::Test(reason) => write!(f, "the test itself failed: {reason}")?,
            Rule::Ends => f.write_str("the coordinator did not end a transaction")?,
        }
        for line in &self.story {
            write!(f, "\n  {line}")?;
        }
        if self.seed > 0 {
            write!(
                f,
                "\nto see it again: ACCEDE_TESTKIT_SEED={} ACCEDE_TESTKIT_CASES=1 cargo test …",
                self.seed
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Broken {}
