//! `accede tx why`: what a transaction waits for, in sentences.
//!
//! A pure function of what the coordinator says, so that each case has a test.

mod branch;
#[cfg(test)]
mod tests;

use accede_proto::v1::{
    BranchDetail, Decision, Status, TransactionDetail, TransactionSummary, WaitingRequest,
};
use serde::Serialize;

use crate::{text, view};

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Why {
    /// The transaction.
    xid: String,
    /// Its status.
    status: &'static str,
    /// What is going on, a sentence or more each.
    sentences: Vec<String>,
    /// What an operator can do; empty when nothing needs to be done.
    actions: Vec<Action>,
}

/// Something that an operator can do.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Action {
    /// The exact command; placeholders are in `"$USER"` and `"…"`.
    command: String,
    /// What it does.
    effect: String,
}

impl Why {
    /// The same for people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = self.sentences.join("\n");
        if !self.actions.is_empty() {
            text.push_str("\n\nWhat you can do:");
        }
        for action in &self.actions {
            text.push_str(&format!("\n  {}\n      {}", action.command, action.effect));
        }
        text
    }
}

/// Explains where a transaction stands.
pub(crate) fn why(detail: &TransactionDetail) -> Why {
    let summary = detail.summary.clone().unwrap_or_default();
    let mut why = Why {
        xid: view::xid(summary.xid),
        status: view::status_word(summary.status()),
        sentences: Vec::new(),
        actions: Vec::new(),
    };
    match summary.status() {
        Status::Active => why.active(&summary, detail),
        Status::Delegated => why.delegated(&summary, detail),
        Status::PreCommitted | Status::Committing | Status::RollingBack | Status::Stuck => {
            why.decided(&summary, detail);
        }
        Status::Committed | Status::RolledBack => why.ended(&summary, detail),
        Status::Unspecified => why.say(format!(
            "{} has a status that this version of the command does not know; use the version \
             of the coordinator.",
            named(&summary)
        )),
    }
    why.repaired(detail);
    why
}

impl Why {
    fn say(&mut self, sentence: String) {
        self.sentences.push(sentence);
    }

    fn offer(&mut self, command: String, effect: impl Into<String>) {
        let effect = effect.into();
        let action = Action { command, effect };
        if !self.actions.contains(&action) {
            self.actions.push(action);
        }
    }

    fn active(&mut self, summary: &TransactionSummary, detail: &TransactionDetail) {
        let age = text::duration(summary.age_ms);
        let end = match summary.remaining_ms {
            0 => "its time-out has passed, so it is about to be rolled back".to_owned(),
            left => format!(
                "unless it is decided before, it is rolled back in {}",
                text::duration(left)
            ),
        };
        self.say(format!(
            "{} is active, not decided. It began {age} ago; {end}.",
            named(summary)
        ));
        if detail.parent != 0 {
            let parent = view::xid(detail.parent);
            self.say(format!(
                "It runs inside transaction {parent}, which waits for it."
            ));
        }
        for waiting in &detail.waiting {
            self.waiting(waiting);
        }
        let votes: Vec<String> = of_status(detail, "kept open")
            .filter(|branch| branch.attempt > 0)
            .map(branch::name)
            .collect();
        if !votes.is_empty() {
            self.say(format!(
                "It waits for the database to prepare {}, which was kept open until another \
                 branch joined.",
                text::list(&votes)
            ));
        }
        let open: Vec<String> = of_status(detail, "registered").map(branch::name).collect();
        if detail.commit_waiting {
            let who = match open.as_slice() {
                [] if votes.is_empty() => "the last answers".to_owned(),
                [] => text::list(&votes),
                open => text::list(open),
            };
            self.say(format!(
                "Commit was asked for. It waits for {who} to report the local commit as durable; \
                 if that does not come in time, the transaction rolls back."
            ));
        } else if detail.waiting.is_empty() {
            self.say(match open.as_slice() {
                [] => "Nothing waits at the coordinator: it is for the application to go on, to \
                       commit or to roll back."
                    .to_owned(),
                open => format!(
                    "{} registered and not yet reported the local commit; otherwise it is for \
                     the application to go on, to commit or to roll back.",
                    has(open)
                ),
            });
        }
    }

    /// Its branch decides; nobody else can.
    fn delegated(&mut self, summary: &TransactionSummary, detail: &TransactionDetail) {
        self.say(format!(
            "{} is delegated: its commit was asked for, and its only branch, which was told to \
             commit in one phase, decides by how that ends. It began {} ago; no time-out and no \
             rollback ends it meanwhile.",
            named(summary),
            text::duration(summary.age_ms)
        ));
        for branch in detail.branches.iter().filter(|b| branch::is_open(b)) {
            self.branch(summary, branch);
            if branch.next_attempt_in_ms > 0 {
                let xid = view::xid(summary.xid);
                self.offer(
                    format!("accede tx repair {xid} retry --by \"$USER\" --reason \"…\""),
                    "Tries again at once, when the cause is removed.",
                );
            }
        }
    }

    fn waiting(&mut self, waiting: &WaitingRequest) {
        let locks = text::count(waiting.row_locks.into(), "row lock");
        let ahead = waiting.blocked_by.iter().copied();
        let holders: Vec<String> = ahead.filter(|bits| *bits != 0).map(view::xid).collect();
        let behind_local = holders.len() < waiting.blocked_by.len();
        let since = text::duration(waiting.waiting_for_ms);
        let until = text::duration(waiting.gives_up_in_ms);
        let ahead = match holders.as_slice() {
            [] if behind_local => {
                "a local transaction outside of any global one is ahead of it".to_owned()
            }
            [] => "no transaction is ahead of it any more".to_owned(),
            [one] => format!("transaction {one} is ahead of it"),
            many => format!("transactions {} are ahead of it", text::list(many)),
        };
        self.say(format!(
            "A request of it on {} has waited {since} for {locks}: {ahead}, as holder or earlier \
             in the queue. It is refused if it still waits in {until}.",
            waiting.resource
        ));
        for holder in holders {
            self.offer(
                format!("accede tx why {holder}"),
                "Tells what the transaction ahead waits for.",
            );
        }
    }

    fn decided(&mut self, summary: &TransactionSummary, detail: &TransactionDetail) {
        let open = detail
            .branches
            .iter()
            .filter(|b| branch::is_open(b))
            .count();
        let left = text::count(open as u64, "branch");
        let word = match summary.status() {
            Status::Stuck => "is stuck: it needs a person",
            Status::PreCommitted => {
                "is pre-committed: its branches of 3PC are hearing that the commit is decided, and \
                 are ordered to commit when they have, or after a few seconds"
            }
            Status::Committing => "is committing",
            _ => "is rolling back",
        };
        self.say(format!(
            "{} {word}. {} It began {} ago; {left} of {} not finished.",
            named(summary),
            decision(summary),
            text::duration(summary.age_ms),
            summary.branches
        ));
        for branch in detail.branches.iter().filter(|b| branch::is_open(b)) {
            self.branch(summary, branch);
        }
        self.exceptions(detail);
    }

    fn ended(&mut self, summary: &TransactionSummary, detail: &TransactionDetail) {
        let how = match summary.status() {
            Status::Committed => "committed",
            _ => "rolled back",
        };
        let because = summary.reason.as_ref().map_or_else(String::new, |reason| {
            format!(", because {}", view::roll_back_sentence(reason))
        });
        self.say(format!(
            "{} has {how}{because}. It has ended and waits for nothing.",
            named(summary)
        ));
        self.exceptions(detail);
    }

    /// Branches that a person ended differently stay on the record.
    fn exceptions(&mut self, detail: &TransactionDetail) {
        for branch in of_status(detail, "accepted") {
            self.say(format!(
                "An operator accepted {} as it is: its rows were kept and its undo record was \
                 dropped.",
                branch::name(branch)
            ));
        }
        for branch in of_status(detail, "skipped") {
            self.say(format!(
                "An operator skipped {}: the transaction goes on without it, and what it left in \
                 its database is for people to clean up.",
                branch::name(branch)
            ));
        }
    }

    fn repaired(&mut self, detail: &TransactionDetail) {
        for record in &detail.repairs {
            self.say(format!(
                "{}: {} ran `{}` on branch {}: {}",
                text::wall_time(record.wall_ms),
                record.by,
                view::verb_word(record.verb()),
                record.branch,
                record.reason
            ));
        }
    }
}

fn named(summary: &TransactionSummary) -> String {
    let xid = view::xid(summary.xid);
    match summary.name.as_str() {
        "" => format!("Transaction {xid}"),
        name => format!("Transaction {xid} ({name})"),
    }
}

/// The decision as a sentence; nothing reverses it.
fn decision(summary: &TransactionSummary) -> String {
    match (summary.decision(), &summary.reason) {
        (Decision::Commit, _) => "It is decided: commit.".to_owned(),
        (Decision::RollBack, Some(reason)) => format!(
            "It is decided: roll back, because {}.",
            view::roll_back_sentence(reason)
        ),
        (Decision::RollBack, None) => "It is decided: roll back.".to_owned(),
        (Decision::Unspecified, _) => "Its decision is not known.".to_owned(),
    }
}

fn of_status<'a>(
    detail: &'a TransactionDetail,
    status: &'a str,
) -> impl Iterator<Item = &'a BranchDetail> {
    detail.branches.iter().filter(move |b| b.status == status)
}

/// `branch 1 … has`, `branch 1 … and branch 2 … have`, as the start of a sentence.
fn has(branches: &[String]) -> String {
    let verb = if branches.len() == 1 { "has" } else { "have" };
    let list = text::list(branches);
    format!("B{} {verb}", list.strip_prefix('b').unwrap_or(&list))
}
