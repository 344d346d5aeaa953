//! Whether a number stays in its bounds whichever of the undecided transactions roll back.

use crate::{id::Xid, lock_mode::ColumnDelta};

/// How far the rollback of some transactions can move a column, as sums of what each can move it
/// alone: any of them may roll back, in any order.
#[derive(Default)]
struct Swing {
    down: i128,
    up: i128,
}

/// One transaction's changes to the column. It undoes them last first, so on its way the column
/// moves by the sums of its last changes, never by others.
#[derive(Default)]
struct Undo {
    moved: i128,
    down: i128,
    up: i128,
}

impl Undo {
    /// The next one to be undone, which is the one before the last.
    fn then(&mut self, delta: i64) {
        self.moved += i128::from(delta);
        self.down = self.down.max(self.moved);
        self.up = self.up.max(-self.moved);
    }
}

impl Swing {
    fn add(&mut self, undo: &Undo) {
        self.down += undo.down;
        self.up += undo.up;
    }
}

/// True if `mine`, asked for by `xid`, keeps the column in its bounds. `held` are the changes to
/// the same column that are held, each transaction's together and in the order of its branches.
pub(super) fn stays_in_bounds<'a>(
    xid: Xid,
    mine: &ColumnDelta,
    held: impl DoubleEndedIterator<Item = (Xid, &'a ColumnDelta)>,
) -> bool {
    let (mut lower, mut upper) = (mine.lower, mine.upper);
    let mut own = Undo::default();
    own.then(mine.delta);
    let (mut others, mut other, mut of) = (Swing::default(), Undo::default(), None);
    for (holder, change) in held.rev() {
        lower = lower.max(change.lower);
        upper = upper.min(change.upper);
        if holder == xid {
            own.then(change.delta);
            continue;
        }
        if of != Some(holder) {
            others.add(&other);
            (other, of) = (Undo::default(), Some(holder));
        }
        other.then(change.delta);
    }
    others.add(&other);
    if of.is_none() {
        // Alone: its own undo only brings back what the column held before.
        return true;
    }
    others.add(&own);
    let value = i128::from(mine.value);
    value - others.down >= i128::from(lower) && value + others.up <= i128::from(upper)
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    fn change(delta: i64, value: i64) -> ColumnDelta {
        ColumnDelta {
            column: "count".into(),
            delta,
            value,
            lower: 0,
            upper: 10,
        }
    }

    fn xid(n: u64) -> Xid {
        Xid::new(n).expect("not zero")
    }

    fn fits(mine: &ColumnDelta, held: &[(u64, ColumnDelta)]) -> bool {
        let held: Vec<_> = held.iter().map(|(n, change)| (xid(*n), change)).collect();
        stays_in_bounds(xid(1), mine, held.into_iter())
    }

    #[test]
    fn takers_share_what_there_is() {
        // Ten, of which others took four and three: all may come back, which is no more than ten.
        assert!(fits(
            &change(-3, 0),
            &[(2, change(-4, 6)), (3, change(-3, 3))]
        ));
    }

    #[test]
    fn what_may_be_taken_back_cannot_be_spent() {
        // Two others put in what is taken here.
        let held = [(2, change(5, 5))];
        assert!(!fits(&change(-3, 2), &held), "5 - 3 - 5 < 0");
        assert!(fits(&change(-3, 5), &held), "there was more to begin with");
    }

    #[test]
    fn what_may_come_back_needs_room() {
        let held = [(2, change(-5, 5))];
        assert!(!fits(&change(3, 8), &held), "8 + 5 > 10");
        assert!(fits(&change(3, 5), &held));
    }

    #[test]
    fn own_changes_are_undone_last_first() {
        let taker = (2, change(-1, 9));
        // Put in five, now takes three: never less than before.
        assert!(fits(&change(-3, 2), &[(1, change(5, 6)), taker]));
        // Took five and put them back: the undo passes the low once more.
        let passes = [(1, change(-5, 0)), (1, change(5, 5))];
        let held = vec![passes[0].clone(), passes[1].clone()];
        let held: Vec<_> = held.into_iter().map(|(_, c)| (2, c)).collect();
        assert!(!fits(&change(-5, 0), &held));
    }

    #[test]
    fn the_narrowest_bounds_count() {
        let mut narrow = change(-1, 9);
        narrow.upper = 9;
        assert!(!fits(&change(1, 9), &[(2, narrow)]), "9 + 1 > 9");
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut mine = change(i64::MIN, i64::MIN);
        (mine.lower, mine.upper) = (i64::MIN, i64::MAX);
        assert!(!fits(&mine, &[(2, mine.clone()), (3, mine.clone())]));
    }
}
