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
    /// Steps of sagas that were compensated.
    pub compensated: u64,
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
    /// A confirm or cancel succeeds in the end, and so do a step and its compensation.
    Finishes(String),
    /// A saga that nothing disturbs is done to its last step: what steps return reaches those that
    /// ask for it.
    Completes(String),
    /// A step that is done again, or compensated again, has no second effect and is answered like
    /// the first.
    Repeated(Call),
    /// The compensation of a step that never did anything has no effect.
    NeverDone(Call),
    /// A step that comes after its compensation has no effect.
    TooLate(Call),
    /// A step that is compensated leaves nothing, before any earlier one is compensated.
    Compensated(Call),
    /// The coordinator has steps compensated in the exact reverse order of their starts, and hands
    /// each what those before it returned. A bug of this library's if it does not.
    Order(String),
    /// The test's own invariant.
    Invariant(String),
    /// The test itself works: its `reset` and `observe` succeed, and so does a try that nothing
    /// disturbs.
    Test(String),
    /// The coordinator ends what it decided. A bug of this library's if it does not.
    Ends,
}

/// A call after which something is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Which one.
    pub call: String,
    /// What should be.
    pub expected: String,
    /// What there is.
    pub found: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            call,
            expected,
            found,
        } = self;
        write!(f, "{call}\n  expected: {expected}\n  found:    {found}")
    }
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
            Rule::Completes(reason) => {
                write!(f, "a saga that nothing disturbs was not done: {reason}")?;
            }
            Rule::Repeated(call) => write!(f, "a repeat is not like the first: {call}")?,
            Rule::NeverDone(call) => write!(
                f,
                "the compensation of a step that did nothing has an effect: {call}"
            )?,
            Rule::TooLate(call) => {
                write!(f, "a step has an effect after its compensation: {call}")?;
            }
            Rule::Compensated(call) => write!(f, "a compensated step leaves something: {call}")?,
            Rule::Order(reason) => write!(f, "the coordinator does not keep order: {reason}")?,
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
