//! No transaction stays undecided, no commit and no request keeps waiting beyond its time, once
//! the entry that expires them was applied and a new leader's grace is over.

use accede_core::{Command, Reply, Status, limits::GRACE_MS};

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct DeadlinesHold;

impl Invariant for DeadlinesHold {
    fn name(&self) -> &'static str {
        "deadlines_hold"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        let state = &facts.witness;
        let now = state.now();
        match news {
            News::Applied(step) if *step.command == Command::Expire && *step.reply == Reply::Ok => {
                for transaction in state.transactions_after(None) {
                    // The grace of the newest leader is not over for longer than this.
                    let late = now.since(transaction.deadline()) > GRACE_MS;
                    // One that is delegated is decided by its branch alone.
                    let open = transaction.status() == Status::Active;
                    if open && late {
                        return Err(format!(
                            "{}: is undecided at {}, its deadline was {}",
                            transaction.xid(),
                            now.0,
                            transaction.deadline().0
                        ));
                    }
                    let waiting = state.waiting(transaction.xid());
                    if waiting
                        .iter()
                        .any(|request| now.since(request.until) > GRACE_MS)
                    {
                        return Err(format!(
                            "{}: a request still waits for row locks beyond its limit",
                            transaction.xid()
                        ));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
