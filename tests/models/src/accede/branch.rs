//! A participant: what it keeps, what is under way to and from it, and what it does, which is what
//! the table of `accede_core::alone` lets it do.

use accede_core::alone::{Knows, May, Phase, may};

use super::{Planted, log::Status};
use crate::rules::{Outcome, Party};

/// One participant with its branch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Branch {
    pub(crate) is_up: bool,
    /// Durable.
    pub(crate) phase: Phase,
    /// Under way to it: the question whether it can commit.
    pub(crate) asked: bool,
    /// Under way from it: its yes.
    pub(crate) yes: bool,
    /// Under way to it, from orders and answers: what was decided.
    news: [bool; NEWS.len()],
}

/// News that change something.
pub(crate) const NEWS: [Knows; 3] = [Knows::PreCommitted, Knows::Committing, Knows::RollingBack];

impl Branch {
    pub(crate) fn new() -> Self {
        Self {
            is_up: true,
            phase: Phase::Working,
            asked: false,
            yes: false,
            news: [false; NEWS.len()],
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Committed | Phase::Aborted)
    }

    /// Its next phase when it knows this; `None` when it has to wait, or a vote is its to give.
    pub(crate) fn next_phase(&self, knows: Knows, planted: Planted) -> Option<Phase> {
        match may(self.phase, knows) {
            May::Ask if planted == Planted::AbortOnSilence => Some(Phase::Aborted),
            May::Ask if planted == Planted::CommitBeforePreCommit => Some(Phase::Committed),
            May::Choose | May::Abort => Some(Phase::Aborted),
            May::PreCommit => Some(Phase::PreCommitted),
            May::Commit => Some(Phase::Committed),
            May::Ask | May::Rest | May::Never => None,
        }
    }

    /// News under way to it.
    pub(crate) fn news(&self) -> impl Iterator<Item = Knows> {
        NEWS.into_iter()
            .zip(self.news)
            .filter_map(|(news, under_way)| under_way.then_some(news))
    }

    /// Whether it may hear what cannot be.
    pub(crate) fn is_contradicted(&self) -> bool {
        self.news().any(|news| may(self.phase, news) == May::Never)
    }

    /// A message that tells it the status is under way. What it will not act on is not kept: its
    /// place in the story would be only that it is heard and does nothing.
    pub(crate) fn tell(&mut self, status: Status) {
        match status {
            Status::Active => {}
            Status::Preparing => self.asked = self.phase == Phase::Working,
            Status::PreCommitted => self.news[0] = true,
            Status::Committing => self.news[1] = true,
            Status::RollingBack => self.news[2] = true,
        }
        self.drop_useless();
    }

    pub(crate) fn go_on(&mut self, phase: Phase) {
        self.phase = phase;
        self.asked = false;
        self.drop_useless();
    }

    /// News that would stop it with an alarm are kept, for `is_contradicted`.
    fn drop_useless(&mut self) {
        for (under_way, news) in self.news.iter_mut().zip(NEWS) {
            *under_way &= match may(self.phase, news) {
                May::Rest => false,
                // The same as its own time-out.
                May::Commit => self.phase != Phase::PreCommitted,
                May::Choose | May::Abort | May::Ask | May::PreCommit | May::Never => true,
            };
        }
    }

    pub(crate) fn lose_messages(&mut self) {
        (self.asked, self.yes, self.news) = (false, false, [false; NEWS.len()]);
    }

    pub(crate) fn party(&self) -> Party {
        Party {
            decided: match self.phase {
                Phase::Committed => Some(Outcome::Committed),
                Phase::Aborted => Some(Outcome::Aborted),
                Phase::Working | Phase::Prepared | Phase::PreCommitted => None,
            },
            said_yes: self.phase != Phase::Working,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let down = if self.is_up { "" } else { ", down" };
        format!("{:?}{down}", self.phase)
    }
}
