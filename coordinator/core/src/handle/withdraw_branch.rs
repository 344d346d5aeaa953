//! A request is taken back: its local transaction certainly rolled back.

use crate::{
    command::{Command, WithdrawBranch},
    effect::Effect,
    handle::Context,
    id::BranchId,
    limits::MAX_REQUESTS,
    reply::{Rejection, Reply, Whereabouts},
    status::{BranchEvent, BranchStatus, Status},
    transaction::{Answer, Request},
};

impl Context<'_> {
    pub(crate) fn withdraw_branch(&mut self, command: &WithdrawBranch) -> Reply {
        let xid = command.xid;
        if xid.is_outside() {
            return self.withdraw_outside(xid, command.request);
        }
        match self.state.whereabouts(xid) {
            Whereabouts::Forgotten => return Reply::Ok,
            // The request itself may still be under way: it must find this when its turn comes.
            Whereabouts::NotBegun => {
                let parked = Command::WithdrawBranch(command.clone());
                return match self.park(xid, command.request, parked) {
                    Reply::Waiting(_) => Reply::Ok,
                    refused => refused,
                };
            }
            Whereabouts::Known => {}
        }
        let transaction = self.indexed(xid);
        let Some(record) = transaction.request_mut(command.request) else {
            return self.withdraw_unseen(command);
        };
        match record.answer {
            Answer::Waiting(ticket) => {
                self.withdraw_ticket(ticket);
                self.commit_if_complete(xid);
                Reply::Ok
            }
            Answer::Registered { branch, .. } => self.withdraw_registered(command, branch),
            Answer::LocksFree | Answer::Refused(_) => {
                record.answer = Answer::Withdrawn;
                Reply::Ok
            }
            Answer::Withdrawn => Reply::Ok,
        }
    }

    fn withdraw_unseen(&mut self, command: &WithdrawBranch) -> Reply {
        let transaction = self.indexed(command.xid);
        // Once decided nothing can join, so there is nothing to bar.
        if transaction.decision().is_some() {
            return Reply::Ok;
        }
        if transaction.requests.len() >= MAX_REQUESTS {
            let limit = MAX_REQUESTS as u64;
            return Reply::Refused(Rejection::TooManyBranches { limit });
        }
        transaction.requests.push(Request {
            id: command.request,
            content: 0,
            answer: Answer::Withdrawn,
        });
        Reply::Ok
    }

    fn withdraw_registered(&mut self, command: &WithdrawBranch, id: BranchId) -> Reply {
        let xid = command.xid;
        let transaction = self.indexed(xid);
        let delegated = transaction.status == Status::Delegated;
        let Some(branch) = transaction.branch_mut(id) else {
            return Reply::Refused(Rejection::BranchUnknown);
        };
        match branch.status {
            BranchStatus::Registered | BranchStatus::KeptOpen => {
                self.expect_no_vote(xid, id);
                let transaction = self.indexed(xid);
                if let Some(branch) = transaction.branch_mut(id) {
                    branch.turn(BranchEvent::Withdraw);
                }
                if let Some(record) = transaction.request_mut(command.request) {
                    record.answer = Answer::Withdrawn;
                }
                self.drop_payload(xid, id);
                self.release_branch(xid, id);
                self.refuse_cycles_of(xid);
                self.commit_if_complete(xid);
                self.go_on(xid);
                Reply::Ok
            }
            // The commit overtook this message: its answer is that nothing was committed.
            BranchStatus::Finishing if delegated => {
                let why = "it was withdrawn by its agent";
                self.delegate_refused(xid, id, why);
                Reply::Ok
            }
            // The rollback overtook this message: nothing was committed, so nothing is to undo.
            BranchStatus::Finishing | BranchStatus::Stuck if !branch.was_done => {
                self.effects.push(Effect::DropOrder { xid, branch: id });
                self.branch_is_finished(xid, id);
                Reply::Ok
            }
            BranchStatus::Done
            | BranchStatus::Finishing
            | BranchStatus::Stuck
            | BranchStatus::PreCommitted => Reply::Refused(Rejection::BranchState(
                "its local commit was reported before",
            )),
            BranchStatus::Withdrawn
            | BranchStatus::Finished
            | BranchStatus::Accepted
            | BranchStatus::Skipped => Reply::Ok,
        }
    }
}
