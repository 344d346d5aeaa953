//! A node's log in sixteen bytes, since millions of states hold three of them each.

/// What an entry of the log says about the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The first entry of each leader; nothing leaves it before this one is decided.
    TakeOffice,
    Prepare,
    PreCommit,
    Commit,
    RollBack,
}

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u8,
    pub(crate) command: Command,
}

const COMMANDS: [Command; 5] = [
    Command::TakeOffice,
    Command::Prepare,
    Command::PreCommit,
    Command::Commit,
    Command::RollBack,
];

/// A byte for each entry: its term in the upper five bits, its command in the others.
const BITS: usize = 8;
const COMMAND_BITS: u8 = 3;
/// What fits: each command once, and a dozen leaders.
const MOST: usize = 16;

/// Entries of a log, in order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entries {
    packed: u128,
    length: usize,
}

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        assert!(
            self.length < MOST && entry.term < 32,
            "the limits allow more leaders than fit"
        );
        let byte = entry.term << COMMAND_BITS | entry.command as u8;
        self.packed |= u128::from(byte) << (BITS * self.length);
        self.length += 1;
    }

    /// The entries before this place.
    pub(crate) fn first(&self, length: usize) -> Self {
        let kept = BITS * length.min(self.length);
        let mask = 1_u128
            .checked_shl(kept as u32)
            .map_or(u128::MAX, |bit| bit - 1);
        Self {
            packed: self.packed & mask,
            length: length.min(self.length),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry> {
        let packed = self.packed;
        (0..self.length).map(move |at| {
            let byte = (packed >> (BITS * at)) as u8;
            Entry {
                term: byte >> COMMAND_BITS,
                command: COMMANDS[usize::from(byte & ((1 << COMMAND_BITS) - 1))],
            }
        })
    }

    pub(crate) fn last(&self) -> Option<Entry> {
        self.iter().last()
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS, Entries, Entry, MOST};

    #[test]
    fn what_was_pushed_is_there() {
        let mut log = Entries::default();
        let mut pushed = Vec::new();
        for at in 0..MOST {
            let entry = Entry {
                term: 31 - at as u8,
                command: COMMANDS[at % COMMANDS.len()],
            };
            log.push(entry);
            pushed.push(entry);
            assert_eq!((log.len(), log.last()), (at + 1, Some(entry)));
            for length in 0..=at + 1 {
                assert_eq!(
                    log.first(length).iter().collect::<Vec<_>>(),
                    pushed[..length]
                );
                assert_eq!(log.first(length).len(), length);
            }
        }
        assert!(log.first(MOST) == log, "whole");
    }
}
