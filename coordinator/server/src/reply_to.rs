//! Where an answer goes.

use tokio::sync::oneshot;

use crate::{
    sessions::{BranchCall, TransactionCall},
    trouble::Answer,
};

/// Who asked. An answer to a caller that is gone is dropped.
pub(crate) enum ReplyTo {
    /// Nobody wants an answer.
    #[cfg(test)]
    Nobody,
    /// A unary call.
    Once(oneshot::Sender<Answer>),
    /// A transaction manager's session.
    Transactions(TransactionCall),
    /// A resource manager's session.
    Branches(BranchCall),
}

impl ReplyTo {
    /// Hands the answer over; never waits.
    pub(crate) fn answer(self, answer: Answer) {
        match self {
            #[cfg(test)]
            Self::Nobody => {}
            // The caller is gone: no error.
            Self::Once(once) => drop(once.send(answer)),
            Self::Transactions(call) => call.answer(answer),
            Self::Branches(call) => call.answer(answer),
        }
    }

    /// The caller went away.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            #[cfg(test)]
            Self::Nobody => true,
            Self::Once(once) => once.is_closed(),
            Self::Transactions(call) => call.session.output.is_closed(),
            Self::Branches(call) => call.session.output.is_closed(),
        }
    }
}
