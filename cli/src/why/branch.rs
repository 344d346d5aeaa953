//! What one branch of a decided transaction waits for.

use accede_proto::v1::{BranchDetail, Decision, Mode, PhaseTwoProblem, TransactionSummary};

use super::Why;
use crate::{text, view};

/// Phase two is still owed.
pub(super) fn is_open(branch: &BranchDetail) -> bool {
    !matches!(
        branch.status.as_str(),
        "finished" | "withdrawn" | "accepted" | "skipped"
    )
}

/// `branch 2 on stock-db`, `branch 2 (TCC, 17 B of arguments) on account.freeze`.
pub(super) fn name(branch: &BranchDetail) -> String {
    let arguments = match branch.payload_bytes {
        0 => String::new(),
        bytes => format!(", {} of arguments", text::bytes(bytes.into())),
    };
    let step = match branch.step.as_str() {
        "" => String::new(),
        step => format!(", to {} step {step}", branch.direction),
    };
    let mode = match branch.mode() {
        Mode::At | Mode::Unspecified => String::new(),
        mode => format!(" ({}{step}{arguments})", view::mode_word(mode)),
    };
    format!("branch {}{mode} on {}", branch.branch, branch.resource)
}

impl Why {
    /// One unfinished branch of a decided transaction.
    pub(super) fn branch(&mut self, summary: &TransactionSummary, branch: &BranchDetail) {
        let state = if branch.status == "stuck" {
            "is stuck".to_owned()
        } else if branch.status == "pre-committed" {
            "has heard that the commit is decided, and waits for the others to hear of it; it may \
             commit by itself"
                .to_owned()
        } else if branch.waiting_for_agent {
            format!(
                "waits for an agent: no process that serves {} is attached to the coordinator. \
                 It goes on by itself as soon as one is",
                branch.resource
            )
        } else if branch.next_attempt_in_ms > 0 {
            let next = text::duration(branch.next_attempt_in_ms);
            format!("is tried again in {next}")
        } else if branch.attempt > 0 {
            let agent = match branch.agent.as_str() {
                "" => "an agent".to_owned(),
                agent => agent.to_owned(),
            };
            format!(
                "is being finished: attempt {} is with {agent}",
                branch.attempt
            )
        } else {
            "waits for its turn".to_owned()
        };
        let failures = match branch.failures {
            0 => String::new(),
            1 => ", after 1 failed attempt".to_owned(),
            n => format!(", after {n} failed attempts"),
        };
        let name = name(branch);
        let name = name.strip_prefix('b').unwrap_or(&name);
        self.say(format!("B{name} {state}{failures}."));
        if let Some(problem) = &branch.problem {
            self.problem(problem);
        }
        if branch.status == "stuck" {
            self.offer_repairs(summary, branch);
        } else if branch.waiting_for_agent {
            self.offer(
                "accede status".to_owned(),
                format!(
                    "Lists the attached agents. Start a service that serves {}.",
                    branch.resource
                ),
            );
        }
    }

    fn problem(&mut self, problem: &PhaseTwoProblem) {
        if !problem.reason.is_empty() {
            self.say(format!("The last failure: {}", full_stop(&problem.reason)));
        }
        if !problem.difference.is_empty() {
            self.say(format!(
                "The rows differ from what the branch left:\n{}",
                indented(&problem.difference)
            ));
        }
        if !problem.repair_statement.is_empty() {
            self.say(format!(
                "This would bring them to their state before the branch:\n{}",
                indented(&problem.repair_statement)
            ));
        }
    }

    fn offer_repairs(&mut self, summary: &TransactionSummary, branch: &BranchDetail) {
        let command = |verb: &str| {
            format!(
                "accede tx repair {} --branch {} {verb} --by \"$USER\" --reason \"…\"",
                view::xid(summary.xid),
                branch.branch
            )
        };
        self.offer(
            command("retry"),
            "Tries again, with a fresh retry budget. Right once the cause is removed.",
        );
        // Only AT compares rows with what it left, and so has something to do in spite of it.
        let of_rows = matches!(branch.mode(), Mode::At | Mode::Unspecified);
        if summary.decision() == Decision::RollBack && of_rows {
            self.offer(
                command("apply"),
                "Undoes the branch whatever its rows hold now: later changes of them are lost.",
            );
        }
        if summary.decision() == Decision::RollBack {
            self.offer(
                command("accept"),
                match of_rows {
                    true => "Keeps the rows as they are now and drops the undo record.",
                    false => "Keeps things as they are now: the agent no longer undoes the branch.",
                },
            );
        }
        self.offer(
            command("skip"),
            match of_rows {
                true => "Ends the transaction without this branch; its database is not touched any more.",
                false => "Ends the transaction without this branch; its agent is not asked any more.",
            },
        );
    }
}

fn full_stop(sentence: &str) -> String {
    let sentence = sentence.trim_end();
    match sentence.ends_with(['.', '!', '?']) {
        true => sentence.to_owned(),
        false => format!("{sentence}."),
    }
}

fn indented(block: &str) -> String {
    let lines: Vec<String> = block.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}
