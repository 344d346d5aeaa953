//! What came of a step, in plain words.

use accede_core::*;

use super::{News, Told, World, line::Line, name_of};

impl World {
    /// What is recorded below a step.
    pub(crate) fn recorded(&self, news: &News) -> Vec<String> {
        let mut lines: Vec<String> = news.reply.iter().map(reply).collect();
        for (after, effect) in &news.effects {
            let when = match after {
                0 => String::new(),
                ms => format!("after {}: ", duration(*ms)),
            };
            lines.push(format!("{when}{}", self::effect(effect)));
        }
        lines.extend(news.shown.iter().cloned());
        lines.iter().map(|line| self.named(line)).collect()
    }

    /// `show A`, `show locks`, `show waiting`, `show counts`
    pub(super) fn show(&mut self, words: &mut Line<'_>) -> Told<News> {
        words.expect("show")?;
        let what = words.word("what to show")?;
        words.end()?;
        let shown = match what {
            "locks" => self.row_locks(),
            "waiting" => self.waiting(),
            "counts" => vec![counts(&self.state.counts())],
            name => {
                let xid = self.names.get(name).copied();
                self.transaction_shown(xid.ok_or_else(|| format!("nobody spoke of {name} yet"))?)
            }
        };
        let shown = if shown.is_empty() {
            vec!["none".into()]
        } else {
            shown
        };
        Ok(News {
            shown,
            ..News::default()
        })
    }

    fn row_locks(&self) -> Vec<String> {
        let transactions = self.state.transactions_after(None);
        let rows = transactions.flat_map(|t| self.state.row_locks_of(t.xid()));
        let mut lines: Vec<String> = rows.map(|row| row_shown(&row)).collect();
        lines.sort();
        lines
    }

    fn waiting(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for transaction in self.state.transactions_after(None) {
            for waits in self.state.waiting(transaction.xid()) {
                let blockers: Vec<String> = waits.blocked_by.iter().map(Xid::to_string).collect();
                lines.push(format!(
                    "{} waits on {} for {}, {} more",
                    transaction.xid(),
                    waits.resource,
                    blockers.join(", "),
                    duration(waits.until.since(self.state.now())),
                ));
            }
        }
        lines
    }

    fn transaction_shown(&self, xid: Xid) -> Vec<String> {
        let Some(transaction) = self.state.transaction(xid) else {
            return vec![match self.state.whereabouts(xid) {
                Whereabouts::Forgotten => format!("{xid} is forgotten"),
                Whereabouts::NotBegun | Whereabouts::Known => format!("{xid} was never begun"),
            }];
        };
        let mut lines = vec![match transaction.reason() {
            Some(reason) => format!("{xid}: {}, {}", status(transaction), self::reason(reason)),
            None => format!("{xid}: {}", status(transaction)),
        }];
        for branch in transaction.branches() {
            lines.push(branch_shown(branch, self.state.now()));
        }
        for repair in transaction.repairs() {
            let (verb, branch) = (format!("{:?}", repair.verb).to_lowercase(), repair.branch.0);
            let (by, reason) = (&repair.by, &repair.reason);
            lines.push(format!(
                "repaired: {verb} branch {branch} by {by}: {reason}"
            ));
        }
        lines
    }
}

fn row_shown(row: &RowLockStatus) -> String {
    let key = String::from_utf8_lossy(&row.key);
    let holders = row.holders.iter();
    let holders = holders.map(|holder| format!("{}{}", holder.xid, in_mode(&holder.mode)));
    let mut holders = holders.collect::<Vec<_>>().join(" and ");
    if holders.is_empty() {
        holders = "nobody".into();
    }
    let mut line = format!("{}: {key} is held by {holders}", row.resource);
    for (i, waiter) in row.waiting.iter().enumerate() {
        line += if i == 0 { ", wanted by " } else { ", then " };
        line += &format!("{}{}", waiter.xid, in_mode(&waiter.mode));
    }
    line
}

fn in_mode(mode: &LockMode) -> String {
    match mode {
        LockMode::Exclusive => String::new(),
        LockMode::Shared => " shared".into(),
        LockMode::Escrow(deltas) => format!(" in escrow ({:+})", deltas[0].delta),
    }
}

fn status(transaction: &Transaction) -> String {
    match transaction.status() {
        Status::Active if transaction.commit_asked() => "active, its commit waits".into(),
        Status::Active => "active".into(),
        Status::PreCommitted => "pre-committed".into(),
        Status::Delegated => "delegated".into(),
        Status::Committing => "committing".into(),
        Status::Committed => "committed".into(),
        Status::RollingBack => "rolling back".into(),
        Status::RolledBack => "rolled back".into(),
        Status::Stuck(decision) => format!("stuck, decided to {}", decided(decision)),
    }
}

fn branch_shown(branch: &Branch, now: Timestamp) -> String {
    let mut line = format!("branch {} on {}", branch.id().0, branch.resource());
    if branch.mode() != Mode::At {
        line += &format!(" in {}", branch.mode().as_str());
    }
    line += &format!(": {}", branch.status().as_str());
    if !branch.payload().is_empty() {
        line += &format!(", carries {} bytes", branch.payload().len());
    }
    if branch.row_locks() > 0 {
        line += &format!(", {} row locks", branch.row_locks());
    }
    if branch.attempt() > Attempt(0) {
        line += &format!(", attempt {}", branch.attempt().0);
    }
    if branch.failures() > 0 {
        line += &format!(", {} failures", branch.failures());
    }
    if let Some(at) = branch.next_attempt_at() {
        line += &format!(", next attempt in {}", duration(at.since(now)));
    }
    if let Some(problem) = branch.problem() {
        line += &format!(": {}", problem.reason);
    }
    line
}

fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Ok => "ok".into(),
        Reply::InOffice(epoch) => format!("in office, epoch {}", epoch.0),
        Reply::Leased(lease) => format!(
            "worker {}, time parts from {} to {}, lives {}",
            lease.worker.0,
            lease.floor_ms,
            lease.ceiling_ms,
            duration(lease.ttl_ms.into())
        ),
        Reply::Registered {
            branch,
            give_up_ms,
            keep_open,
        } => format!(
            "registered as branch {}, to {} within {}",
            branch.0,
            if *keep_open {
                "be kept open, and prepared"
            } else {
                "commit"
            },
            duration((*give_up_ms).into())
        ),
        Reply::LocksFree => "the rows are free".into(),
        Reply::Waiting(_) => "wait".into(),
        Reply::Decided(decision, None) => format!("decided to {}", decided(*decision)),
        Reply::Decided(decision, Some(why)) => {
            format!("decided to {}: {}", decided(*decision), reason(why))
        }
        Reply::SagaDone(results, decision) => {
            let result = |r: &StepResult| format!("{} {:?}", r.step, text(&r.result));
            let results: Vec<String> = results.iter().map(result).collect();
            let decided = decision.map(|d| format!(", decided to {}", decided(d)));
            format!(
                "every step is done: {}{}",
                results.join(", "),
                decided.unwrap_or_default()
            )
        }
        Reply::Repaired(branches) => {
            let branches: Vec<String> = branches.iter().map(|b| b.0.to_string()).collect();
            format!("repaired branch {}", branches.join(", "))
        }
        Reply::MoreIsDue => "more is due".into(),
        Reply::Refused(rejection) => format!("refused: {}", refusal(rejection)),
    }
}

fn refusal(rejection: &Rejection) -> String {
    match rejection {
        Rejection::TooLarge { what, found, limit } => format!("{what} is {found} of {limit}"),
        Rejection::Malformed(why) | Rejection::BranchState(why) => (*why).into(),
        Rejection::LeaseEnded => "the lease has ended".into(),
        Rejection::OutsideLease => "the XID is outside the lease or not above earlier ones".into(),
        Rejection::NotBegun => "never begun".into(),
        Rejection::Forgotten => "forgotten".into(),
        Rejection::DifferentContent => "the same request came before with other content".into(),
        Rejection::Withdrawn => "withdrawn before".into(),
        Rejection::AlreadyDecided(decision) => format!("decided to {} before", decided(*decision)),
        Rejection::CommitAsked => "its commit was asked for".into(),
        Rejection::ResourceUnknown => "the resource is not bound to a database".into(),
        Rejection::ResourceIsAction => "the resource is an action".into(),
        Rejection::ResourceIsDatabase => "the resource is a database".into(),
        Rejection::HolderRollingBack { holder } => {
            format!("{holder} needs the local locks to roll back")
        }
        Rejection::HolderBlocked { holder } => {
            format!("{holder} stands still and may need the local locks")
        }
        Rejection::Deadlock { cycle } => {
            let cycle: Vec<String> = cycle.iter().map(Xid::to_string).collect();
            format!("deadlock: {} → {}", cycle.join(" → "), cycle[0])
        }
        Rejection::LockWaitTimedOut { holder } => format!("{holder} is in the way for too long"),
        Rejection::OtherSaga => "it has another plan".into(),
        Rejection::ActionUnknown { action } => format!("{action} is no known action"),
        Rejection::BranchUnknown => "there is no such branch".into(),
        Rejection::NotStuck => "it is not stuck".into(),
        rare => format!("{rare:?}"),
    }
}

fn reason(reason: &RollBackReason) -> String {
    match reason {
        RollBackReason::Requested(detail) if detail.is_empty() => "it was asked for".into(),
        RollBackReason::Requested(detail) => format!("it was asked for, {detail:?}"),
        RollBackReason::TimedOut => "its deadline passed".into(),
        RollBackReason::BranchUnfinished(branch) => format!("branch {} was not done", branch.0),
        RollBackReason::LeaseEnded => "its worker's lease ended".into(),
        RollBackReason::LocalCommitUnknown(branch, detail) => {
            format!(
                "nobody knows whether branch {} committed, {detail:?}",
                branch.0
            )
        }
        RollBackReason::StepFailed(branch, detail) => {
            format!("branch {} could not be done, {detail:?}", branch.0)
        }
        RollBackReason::BranchFailed(branch, detail) => {
            format!("branch {} was kept open and failed, {detail:?}", branch.0)
        }
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Order(order) => {
            let action = match order.action {
                Action::Commit => "commit",
                Action::RollBack => "roll back",
                Action::RollBackForced => "roll back whatever the rows hold",
                Action::Accept => "keep the rows",
                Action::PreCommit => "pre-commit",
                Action::Run => "run",
                Action::Prepare => "prepare",
                Action::CommitOnePhase => "commit in one phase",
            };
            format!(
                "order to {}: {action} {} {}, attempt {}, epoch {}{}{}",
                order.resource,
                order.xid,
                order.branch.0,
                order.attempt.0,
                order.epoch.0,
                if order.was_done
                    || matches!(
                        order.action,
                        Action::Run | Action::Prepare | Action::CommitOnePhase
                    )
                {
                    ""
                } else {
                    ", not known to be done"
                },
                match std::str::from_utf8(&order.payload) {
                    Ok("") => String::new(),
                    Ok(text) => format!(", carries {text:?}"),
                    Err(_) => format!(", carries {} bytes", order.payload.len()),
                } + &order.step.as_deref().map(step_shown).unwrap_or_default()
            )
        }
        Effect::DropOrder { xid, branch } => format!("no order needed: {xid} {}", branch.0),
        Effect::Answer { waiter, reply } => match waiter {
            Waiter::Request(xid, request) => {
                let name = name_of(request.sequence);
                format!("answer to {name} of {xid}: {}", self::reply(reply))
            }
            Waiter::Commit(xid) => format!("answer to the commit of {xid}: {}", self::reply(reply)),
        },
        Effect::Decided { xid, decision } => format!("{xid} is decided: {}", decided(*decision)),
        Effect::Ended {
            xid,
            decision: Decision::Commit,
        } => format!("{xid} has committed"),
        Effect::Ended {
            xid,
            decision: Decision::RollBack,
        } => format!("{xid} has rolled back"),
        Effect::StepOver { xid, branch, how } => {
            format!("an attempt at {xid} {}: {}", branch.0, how.as_str())
        }
        Effect::Stuck { xid, branch } => format!("{xid} {} is stuck", branch.0),
    }
}

fn step_shown(step: &StepOrder) -> String {
    let mut line = format!(", step {}", step.name);
    for StepResult { step, result } in &step.results {
        line += &format!(", {step} gave {:?}", text(result));
    }
    if let Some(result) = &step.result {
        line += &format!(", gave {:?} itself", text(result));
    }
    line
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn decided(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "commit",
        Decision::RollBack => "roll back",
    }
}

fn counts(counts: &Counts) -> String {
    format!(
        "{} active, {} committing, {} committed, {} rolling back, {} rolled back, {} stuck, \
         {} row locks, {} waiting, {} workers",
        counts.active,
        counts.committing,
        counts.committed,
        counts.rolling_back,
        counts.rolled_back,
        counts.stuck,
        counts.row_locks,
        counts.waiting,
        counts.workers
    )
}

fn duration(ms: u64) -> String {
    match ms {
        0 => "0s".into(),
        ms if ms % 60_000 == 0 => format!("{}min", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}
