//! What must always hold, one rule per file.
//!
//! An invariant hears of everything that happens and may look at the oracle's [`Facts`]; it
//! answers with what it has seen when its rule is broken. To add one: a file here, a line in
//! [`all`], a planted bug that it finds.

mod attempts_grow;
mod blocked_let_go;
mod bounded;
mod commit_needs_done;
mod deadlines_hold;
mod decisions_survive;
mod ends_in_time;
mod escrow_bounds;
mod late_messages;
mod log_equals_snapshot;
mod no_cycle;
mod no_dirty_write;
mod nothing_left;
mod one_decision;
mod one_holder;
mod promises_kept;
mod reads_committed;
mod reads_repeat;
mod replicas_agree;
mod rows_restored;
mod saga_order;
mod same_answer;
mod same_ending;
mod served_in_order;

mod unique_xids;

use crate::{
    database::Database,
    oracle::{Facts, News},
};

/// A rule.
pub(crate) trait Invariant {
    /// Its name: that of its file.
    fn name(&self) -> &'static str;

    /// Hears of something that happened; an error says how the rule was broken.
    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String>;
}

/// All rules.
pub(crate) fn all(databases: &[Database]) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(one_decision::OneDecision::default()),
        Box::new(commit_needs_done::CommitNeedsDone::default()),
        Box::new(decisions_survive::DecisionsSurvive::default()),
        Box::new(same_ending::SameEnding),
        Box::new(promises_kept::PromisesKept::default()),
        Box::new(rows_restored::RowsRestored::new(databases)),
        Box::new(no_dirty_write::NoDirtyWrite::default()),
        Box::new(reads_committed::ReadsCommitted::default()),
        Box::new(reads_repeat::ReadsRepeat::default()),
        Box::new(escrow_bounds::EscrowBounds::new(databases)),
        Box::new(one_holder::OneHolder),
        Box::new(served_in_order::ServedInOrder),
        Box::new(no_cycle::NoCycle),
        Box::new(blocked_let_go::BlockedLetGo),
        Box::new(late_messages::LateMessages::default()),
        Box::new(attempts_grow::AttemptsGrow::default()),
        Box::new(saga_order::SagaOrder::default()),
        Box::new(same_answer::SameAnswer::default()),
        Box::new(unique_xids::UniqueXids::default()),
        Box::new(deadlines_hold::DeadlinesHold),
        Box::new(replicas_agree::ReplicasAgree),
        Box::new(log_equals_snapshot::LogEqualsSnapshot),
        Box::new(bounded::Bounded),
        Box::new(nothing_left::NothingLeft),
        Box::new(ends_in_time::EndsInTime),
    ]
}
