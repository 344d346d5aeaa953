//! A model database: rows, local locks, and the undo log of the AT mode. What is committed here
//! is durable; local transactions end with the connection of their agent.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
};

use accede_core::{
    BranchId, ColumnDelta, DatabaseId, LockMode, Mode, Resource, RowLock, Xid, alone::Phase,
};

use crate::work::{Change, key_of};

/// What the last row of each database may hold.
pub(crate) const BOUNDS: RangeInclusive<i64> = 0..=40;

/// Names a local transaction.
pub(crate) type LocalId = u64;
/// Names a branch in the undo log.
pub(crate) type BranchKey = (Xid, BranchId);

/// One row's part of an undo record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) row: usize,
    pub(crate) before: Option<i64>,
    pub(crate) after: Option<i64>,
    /// What was added in escrow: undone by its inverse, whatever the row holds by then.
    pub(crate) delta: Option<i64>,
}

impl Image {
    /// What the undo makes of a row that holds `found`.
    pub(crate) fn restored(&self, found: Option<i64>) -> Option<i64> {
        match self.delta {
            Some(delta) => found.map(|value| value - delta),
            None => self.before,
        }
    }
}

fn escrow(delta: i64, value: i64) -> LockMode {
    LockMode::Escrow(Arc::new(vec![ColumnDelta {
        column: "value".into(),
        delta,
        value,
        lower: *BOUNDS.start(),
        upper: *BOUNDS.end(),
    }]))
}

/// A row of the undo log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Undo(Vec<Image>),
    /// A branch that was undone, or one that must never commit.
    Marker {
        made_at: u64,
    },
}

/// How far a branch is that promised something, since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) mode: Mode,
    pub(crate) phase: Phase,
    pub(crate) since: u64,
}

impl Promise {
    /// Neither kept nor taken back.
    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Prepared | Phase::PreCommitted)
    }
}

#[derive(Debug, Default)]
struct Row {
    value: Option<i64>,
    holder: Option<LocalId>,
    queue: VecDeque<LocalId>,
}

#[derive(Debug)]
struct Local {
    /// Agent, its life, its job: told when a lock is granted.
    owner: (usize, u32, u64),
    began_at: u64,
    changed: BTreeMap<usize, Option<i64>>,
    /// What was added to rows that were changed in no other way.
    escrow: BTreeMap<usize, i64>,
    /// Rows that were read to be relied on.
    read: BTreeSet<usize>,
}

/// A lock that was granted after a wait: agent, its life, its job.
pub(crate) type Granted = (usize, u32, u64);

/// Why a local commit did not happen, for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotCommitted {
    /// The give-up time has passed.
    GaveUp,
    /// The branch was rolled back before it committed.
    Defended,
}

/// Why phase two did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFinished {
    /// A local transaction holds locks on the rows.
    Locked,
    /// The undo record is missing although the branch reported its commit.
    NoRecord,
    /// A row is not as the branch left it.
    Dirty {
        row: usize,
        expected: Option<i64>,
        found: Option<i64>,
    },
    /// The row would leave its bounds.
    OutOfBounds { row: usize, value: i64 },
}

/// What became of a saga's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// It was done.
    Done,
    /// It was compensated, or must never be done.
    Barred,
}

/// The action of what is promised in a database, or done for good.
pub(crate) fn action_of(database: usize) -> Resource {
    Resource::from(format!("promise{database}"))
}

/// One database.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) resource: Resource,
    pub(crate) id: DatabaseId,
    pub(crate) up: bool,
    rows: Vec<Row>,
    pub(crate) undo: BTreeMap<BranchKey, Record>,
    /// The action by which something is promised here, or done for good.
    pub(crate) action: Resource,
    pub(crate) promises: BTreeMap<BranchKey, Promise>,
    /// What became of steps: fences their repeats, and steps that come after their compensation.
    steps: BTreeMap<BranchKey, Fence>,
    locals: BTreeMap<LocalId, Local>,
    last_local: LocalId,
}

impl Database {
    /// Does a step, once; the answer says what it finds or leaves.
    pub(crate) fn run_step(&mut self, key: BranchKey) -> (Fence, bool) {
        let fresh = !self.steps.contains_key(&key);
        (*self.steps.entry(key).or_insert(Fence::Done), fresh)
    }

    /// Undoes a step if it was done, and bars it; what it found.
    pub(crate) fn compensate(&mut self, key: BranchKey) -> Option<Fence> {
        self.steps.insert(key, Fence::Barred)
    }

    pub(crate) fn new(number: usize, rows: usize) -> Self {
        let row = |value| Row {
            value: Some(value),
            ..Row::default()
        };
        Self {
            resource: Resource::from(format!("db{number}")),
            action: action_of(number),
            steps: BTreeMap::new(),
            id: [number as u8 + 1; 16],
            up: true,
            rows: (1..rows)
                .map(|n| row(100 * n as i64))
                .chain([row(*BOUNDS.end() / 2)])
                .collect(),
            undo: BTreeMap::new(),
            promises: BTreeMap::new(),
            locals: BTreeMap::new(),
            last_local: 0,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn value(&self, row: usize) -> Option<i64> {
        self.rows.get(row).and_then(|row| row.value)
    }

    pub(crate) fn open_locals(&self) -> usize {
        self.locals.len()
    }

    pub(crate) fn begin(&mut self, owner: (usize, u32, u64), now: u64) -> LocalId {
        self.last_local += 1;
        let local = Local {
            owner,
            began_at: now,
            changed: BTreeMap::new(),
            escrow: BTreeMap::new(),
            read: BTreeSet::new(),
        };
        self.locals.insert(self.last_local, local);
        self.last_local
    }

    /// True: the local lock is held. False: the transaction stands in its queue.
    pub(crate) fn lock(&mut self, id: LocalId, row: usize) -> bool {
        let row = &mut self.rows[row];
        match row.holder {
            Some(holder) if holder == id => true,
            None => {
                row.holder = Some(id);
                true
            }
            Some(_) => {
                if !row.queue.contains(&id) {
                    row.queue.push_back(id);
                }
                false
            }
        }
    }

    /// Carries out one statement on a row whose lock is held; false if the row is not as needed.
    pub(crate) fn change(&mut self, id: LocalId, row: usize, change: Change) -> bool {
        let committed = self.rows[row].value;
        let bounded = self.is_bounded(row);
        let Some(local) = self.locals.get_mut(&id) else {
            return false;
        };
        let now = local.changed.get(&row).copied().unwrap_or(committed);
        let then = match (change, now) {
            // No row matches: the statement changes nothing.
            (Change::Add(_) | Change::Escrow(_) | Change::Delete, None) => return true,
            (Change::Read, _) => {
                // Who relies on a row does not let others add to it.
                local.read.insert(row);
                local.escrow.remove(&row);
                return true;
            }
            (Change::Add(delta) | Change::Escrow(delta), Some(value)) => Some(value + delta),
            (Change::Delete, Some(_)) => None,
            (Change::Insert(value), None) => Some(value),
            (Change::Insert(_), Some(_)) => return false,
        };
        if bounded && then.is_some_and(|value| !BOUNDS.contains(&value)) {
            return false;
        }
        let first = local.changed.insert(row, then).is_none() && !local.read.contains(&row);
        match (change, local.escrow.get_mut(&row)) {
            (Change::Escrow(delta), Some(sum)) => *sum += delta,
            (Change::Escrow(delta), None) if first => drop(local.escrow.insert(row, delta)),
            _ => drop(local.escrow.remove(&row)),
        }
        true
    }

    /// Only the last row has bounds, and only that one is changed in escrow.
    pub(crate) fn is_bounded(&self, row: usize) -> bool {
        row + 1 == self.rows.len()
    }

    /// The row locks that the branch needs for what it did so far, sorted.
    pub(crate) fn row_locks(&self, id: LocalId) -> Vec<RowLock> {
        let Some(local) = self.locals.get(&id) else {
            return Vec::new();
        };
        let changed = local.changed.iter().map(|(row, value)| RowLock {
            key: key_of(*row),
            mode: match (local.escrow.get(row), value) {
                (Some(delta), Some(value)) => escrow(*delta, *value),
                _ => LockMode::Exclusive,
            },
        });
        let read = local.read.iter();
        let only_read = read.filter(|row| !local.changed.contains_key(row));
        let read = only_read.map(|row| RowLock {
            key: key_of(*row),
            mode: LockMode::Shared,
        });
        let mut locks: Vec<RowLock> = changed.chain(read).collect();
        locks.sort_unstable();
        locks
    }

    /// The rows that a branch read and relies on.
    pub(crate) fn read(&self, id: LocalId) -> Vec<usize> {
        let local = self.locals.get(&id);
        local.map_or_else(Vec::new, |local| local.read.iter().copied().collect())
    }

    /// Commits a branch with its undo record, in one local transaction.
    pub(crate) fn commit(
        &mut self,
        id: LocalId,
        key: BranchKey,
        give_up_at: u64,
        now: u64,
    ) -> (Result<Vec<Image>, NotCommitted>, Vec<Granted>) {
        let result = if now >= give_up_at {
            Err(NotCommitted::GaveUp)
        } else if self.undo.contains_key(&key) {
            Err(NotCommitted::Defended)
        } else {
            let local = self.locals.get(&id);
            let (changed, escrow) = local
                .map(|local| (local.changed.clone(), local.escrow.clone()))
                .unwrap_or_default();
            let mut images = Vec::new();
            for (row, after) in changed {
                images.push(Image {
                    row,
                    before: std::mem::replace(&mut self.rows[row].value, after),
                    after,
                    delta: escrow.get(&row).copied(),
                });
            }
            self.undo.insert(key, Record::Undo(images.clone()));
            Ok(images)
        };
        (result, self.end(id))
    }

    /// Ends a local transaction; what it had not committed is void.
    pub(crate) fn end(&mut self, id: LocalId) -> Vec<Granted> {
        self.locals.remove(&id);
        let mut granted = Vec::new();
        for row in &mut self.rows {
            row.queue.retain(|queued| *queued != id);
            if row.holder == Some(id) {
                row.holder = row.queue.pop_front();
                let next = row.holder.and_then(|next| self.locals.get(&next));
                granted.extend(next.map(|local| local.owner));
            }
        }
        granted
    }

    /// Ends the local transactions of an agent, or of all.
    pub(crate) fn end_all(&mut self, agent: Option<usize>) -> Vec<Granted> {
        let of_agent = |local: &Local| agent.is_none_or(|agent| local.owner.0 == agent);
        let ids: Vec<LocalId> = self
            .locals
            .iter()
            .filter(|(_, l)| of_agent(l))
            .map(|(id, _)| *id)
            .collect();
        let mut granted: Vec<Granted> = ids.into_iter().flat_map(|id| self.end(id)).collect();
        let alive: BTreeSet<Granted> = self.locals.values().map(|local| local.owner).collect();
        granted.retain(|owner| alive.contains(owner));
        granted
    }

    /// How far a participant's branch is.
    pub(crate) fn phase(&self, key: BranchKey) -> Phase {
        let promise = self.promises.get(&key);
        promise.map_or(Phase::Working, |promise| promise.phase)
    }

    /// Makes a promise, in time and unless it was barred.
    pub(crate) fn promise(
        &mut self,
        key: BranchKey,
        mode: Mode,
        give_up_at: u64,
        now: u64,
    ) -> Result<(), NotCommitted> {
        if now >= give_up_at {
            return Err(NotCommitted::GaveUp);
        }
        if self.promises.contains_key(&key) {
            return Err(NotCommitted::Defended);
        }
        self.turn(key, mode, Phase::Prepared, now);
        Ok(())
    }

    /// Notes how far a participant's branch is now.
    pub(crate) fn turn(&mut self, key: BranchKey, mode: Mode, phase: Phase, since: u64) {
        let promise = Promise { mode, phase, since };
        self.promises.insert(key, promise);
    }

    /// A promise that is neither kept nor taken back.
    pub(crate) fn open_promise(&self) -> Option<(BranchKey, Phase)> {
        let mut promises = self.promises.iter();
        let (key, promise) = promises.find(|(_, promise)| promise.is_open())?;
        Some((*key, promise.phase))
    }

    /// Promises of 3PC that nobody has spoken of since then.
    pub(crate) fn unheard_promises(&self, before: u64) -> Vec<BranchKey> {
        let of_three_phase = |p: &Promise| p.mode == Mode::ThreePhase;
        let promises = self.promises.iter();
        let old = promises.filter(|(_, promise)| {
            of_three_phase(promise) && promise.is_open() && promise.since < before
        });
        old.map(|(key, _)| *key).collect()
    }

    /// Phase two of a commit. The images that can no longer be undone, if they were still there.
    pub(crate) fn drop_record(&mut self, key: BranchKey) -> bool {
        let there = matches!(self.undo.get(&key), Some(Record::Undo(_)));
        if there {
            self.undo.remove(&key);
        }
        there
    }

    /// Phase two of a rollback. What was restored: empty if there was nothing to undo.
    pub(crate) fn roll_back(
        &mut self,
        key: BranchKey,
        was_done: bool,
        forced: bool,
        now: u64,
    ) -> Result<Vec<Image>, NotFinished> {
        let images = match self.undo.get(&key) {
            None if was_done => return Err(NotFinished::NoRecord),
            None | Some(Record::Marker { .. }) => {
                self.undo
                    .entry(key)
                    .or_insert(Record::Marker { made_at: now });
                return Ok(Vec::new());
            }
            Some(Record::Undo(images)) => images.clone(),
        };
        if images
            .iter()
            .any(|image| self.rows[image.row].holder.is_some())
        {
            return Err(NotFinished::Locked);
        }
        for image in &images {
            let Image {
                row, before, after, ..
            } = image;
            let found = self.rows[*row].value;
            if image.delta.is_some() {
                let value = image.restored(found);
                if let Some(value) = value.filter(|value| !BOUNDS.contains(value)) {
                    return Err(NotFinished::OutOfBounds { row: *row, value });
                }
                continue;
            }
            if found != *after && found != *before && !forced {
                return Err(NotFinished::Dirty {
                    row: *row,
                    expected: *after,
                    found,
                });
            }
        }
        for image in &images {
            let row = &mut self.rows[image.row];
            row.value = image.restored(row.value);
        }
        self.undo.insert(key, Record::Marker { made_at: now });
        Ok(images)
    }

    /// Branches whose marker is older than this, if no older local transaction is open.
    pub(crate) fn old_markers(&self, made_before: u64) -> Vec<BranchKey> {
        let oldest = self.locals.values().map(|local| local.began_at).min();
        let limit = oldest.map_or(made_before, |began_at| began_at.min(made_before));
        let old =
            |record: &Record| matches!(record, Record::Marker { made_at } if *made_at < limit);
        self.undo
            .iter()
            .filter(|(_, record)| old(record))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Deletes a marker, never an undo record.
    pub(crate) fn drop_marker(&mut self, key: BranchKey) {
        if matches!(self.undo.get(&key), Some(Record::Marker { .. })) {
            self.undo.remove(&key);
        }
    }
}
