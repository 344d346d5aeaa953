//! The state machine as the log drives it.

use accede_core::{Effects, Entry, Reply, State, Timestamp, codec};
use accede_log::StateMachine;

/// Applies entries to the state.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) state: State,
}

/// What came of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// For each command its reply and its effects.
    pub(crate) results: Vec<(Reply, Effects)>,
    /// When the state wants an `Expire`.
    pub(crate) next_deadline: Option<Timestamp>,
}

impl Applied {
    pub(crate) fn add(&mut self, reply: Reply, effects: Effects) {
        self.results.push((reply, effects));
    }
}

impl StateMachine for Machine {
    type Response = Applied;

    fn apply(&mut self, index: u64, entry: &[u8]) -> Applied {
        let batch =
            codec::decode_batch(entry).expect("what the log gives back is what was written");
        let mut applied = Applied::default();
        for command in batch.commands {
            let entry = Entry {
                index,
                at: batch.at,
                wall: batch.wall,
                command,
            };
            let mut effects = Effects::new();
            let reply = self.state.apply(entry, &mut effects);
            applied.add(reply, effects);
        }
        applied.next_deadline = self.state.next_deadline();
        applied
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.to_snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.state = State::from_snapshot(snapshot).map_err(|error| error.to_string())?;
        Ok(())
    }
}
