//! The state machine as the log drives it.

use std::sync::{Arc, OnceLock};

use accede_core::{Effects, Entry, Reply, State, Timestamp, codec};
use accede_log::StateMachine;
use parking_lot::RwLock;

/// The state, shared with those who only read it. Written by the log's task alone.
pub(crate) type SharedState = Arc<RwLock<State>>;

/// Applies entries to the state.
pub(crate) struct Machine {
    state: SharedState,
    /// Why it can go on no longer.
    broken: Arc<OnceLock<String>>,
}

/// What came of one log entry.
#[derive(Debug)]
pub(crate) struct Applied {
    /// One for each command, in order.
    pub(crate) replies: Vec<Reply>,
    /// The effects of all commands, in order.
    pub(crate) effects: Effects,
    /// For each command, where its effects end in `effects`.
    pub(crate) ends: Vec<u32>,
    /// When the state wants an `Expire`.
    pub(crate) next_deadline: Option<Timestamp>,
}

impl Machine {
    pub(crate) fn new(state: SharedState, broken: Arc<OnceLock<String>>) -> Self {
        Self { state, broken }
    }
}

impl StateMachine for Machine {
    type Response = Applied;

    fn apply(&mut self, index: u64, entry: &[u8]) -> Applied {
        let batch = match codec::decode_batch(entry) {
            Ok(batch) => batch,
            Err(error) => {
                // Whoever skips an entry has another state than it was acknowledged: the panic
                // ends the log's task, by which the whole daemon ends.
                let what = format!("log entry {index} cannot be read: {error}");
                panic!("{}", self.broken.get_or_init(|| what));
            }
        };
        let count = batch.commands.len();
        let mut applied = Applied {
            replies: Vec::with_capacity(count),
            effects: Effects::new(),
            ends: Vec::with_capacity(count),
            next_deadline: None,
        };
        let mut state = self.state.write();
        for command in batch.commands {
            let entry = Entry {
                index,
                at: batch.at,
                wall: batch.wall,
                command,
            };
            applied
                .replies
                .push(state.apply(entry, &mut applied.effects));
            let end = u32::try_from(applied.effects.len()).unwrap_or(u32::MAX);
            applied.ends.push(end);
        }
        applied.next_deadline = state.next_deadline();
        applied
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.read().to_snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let state = State::from_snapshot(snapshot).map_err(|error| error.to_string())?;
        *self.state.write() = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use accede_core::{Command, TakeOffice, WallTime};

    fn machine() -> Machine {
        Machine::new(Arc::new(RwLock::new(State::new())), Arc::default())
    }

    #[test]
    fn each_command_has_a_reply_and_its_effects() {
        let mut machine = machine();
        let commands = [Command::TakeOffice(TakeOffice::default()), Command::Expire];
        let entry = codec::encode_batch(Timestamp(5), WallTime(6), &commands);
        let applied = machine.apply(3, &entry);
        assert_eq!(applied.replies.len(), 2);
        assert!(matches!(applied.replies[0], Reply::InOffice(epoch) if epoch.0 == 3));
        assert_eq!(applied.ends.len(), 2);
        assert_eq!(machine.state.read().now(), Timestamp(5));
    }

    #[test]
    fn a_snapshot_is_taken_back() {
        let mut first = machine();
        let entry = codec::encode_batch(
            Timestamp(5),
            WallTime(6),
            &[Command::TakeOffice(TakeOffice::default())],
        );
        first.apply(3, &entry);
        let mut second = machine();
        second.restore(&first.snapshot()).expect("sound");
        assert_eq!(second.state.read().epoch().0, 3);
        assert!(second.restore(b"no snapshot").is_err());
    }

    #[test]
    fn an_entry_that_cannot_be_read_ends_the_log_by_name() {
        let mut machine = machine();
        let broken = Arc::clone(&machine.broken);
        let ended = std::thread::spawn(move || machine.apply(9, &[255; 40])).join();
        assert!(ended.is_err());
        let why = broken.get().expect("named");
        assert!(why.contains("log entry 9"), "{why}");
    }
}
