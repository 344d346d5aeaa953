//! How large the small worlds are. What is not limited here happens any number of times, at any
//! point: votes, time-outs, lost and late messages, repeated questions.

/// States of one model, at most. A search that meets more has failed: the world has grown.
pub(crate) const STATES: usize = 1_000_000;

/// Participants of two-phase commit and of Skeen's three-phase commit. Three, since one more is
/// then there who could know or must be asked, besides the two who disagree.
pub(crate) const PARTICIPANTS: usize = 3;

/// Nodes of E3PC, the first coordinator among them.
pub(crate) const E3PC_NODES: usize = 3;

/// Participants of Accede's three-phase commit: two can disagree; they know nothing of each other.
pub(crate) const BRANCHES: usize = 2;

/// What may befall nodes that elect leaders, besides messages that come late, never or again.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    /// All that is under way is lost, any number of times. Without it messages may still come too
    /// late for ever, which is the same for tears but not for whether everybody decides.
    pub(crate) loses_messages: bool,
    /// Crashes of nodes that elect and are elected, all together.
    pub(crate) crashes: u8,
    /// Elections though the leader is there, who may learn nothing of it. When it is not, there
    /// are as many as it takes.
    pub(crate) needless_elections: u8,
    /// Participants that are no such nodes crash, any number of times.
    pub(crate) participants_crash: bool,
}

/// E3PC, looking for tears. A tear needs an attempt that was overtaken and one that revives it.
pub(crate) const E3PC_OVERTAKEN: Faults = Faults {
    loses_messages: false,
    crashes: 0,
    needless_elections: 2,
    participants_crash: false,
};

/// E3PC, looking whether everybody decides.
pub(crate) const E3PC_CRASHED: Faults = Faults {
    loses_messages: true,
    crashes: 1,
    needless_elections: 1,
    participants_crash: false,
};

/// Accede with several coordinators, looking for tears.
pub(crate) const ACCEDE_OVERTAKEN: Faults = Faults {
    loses_messages: false,
    crashes: 0,
    needless_elections: 3,
    participants_crash: false,
};

/// Accede with several coordinators, looking whether everybody decides. A majority of three is
/// always up; that one which was down comes back is left to the single coordinator.
pub(crate) const ACCEDE_CRASHED: Faults = Faults {
    loses_messages: true,
    crashes: 1,
    needless_elections: 1,
    participants_crash: true,
};

/// Accede with one coordinator.
pub(crate) const ACCEDE_ALONE: Faults = Faults {
    loses_messages: true,
    crashes: 3,
    needless_elections: 0,
    participants_crash: true,
};

impl Faults {
    pub(crate) fn text(self) -> String {
        let mut text = String::from("messages late, repeated");
        if self.loses_messages {
            text += ", lost";
        }
        for (count, one, many) in [
            (self.crashes, "crash", "crashes"),
            (
                self.needless_elections,
                "needless election",
                "needless elections",
            ),
        ] {
            match count {
                0 => {}
                1 => text += &format!("; 1 {one}"),
                n => text += &format!("; {n} {many}"),
            }
        }
        if self.participants_crash {
            text += "; participants crash";
        }
        text
    }
}
