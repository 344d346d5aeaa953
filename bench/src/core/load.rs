//! A state machine with one worker, and the commands of its transactions.

use accede_core::{
    Attempt, Begin, BindResource, BranchDone, BranchId, Command, Commit, Effect, Effects, Entry,
    Epoch, FinishBranch, LeaseWorker, LockKey, Mode, Outcome, Payload, ProcessId, RegisterBranch,
    Reply, RequestId, Resource, State, TakeOffice, Timestamp, WallTime, Xid, limits,
};
use anyhow::{Context as _, bail};

const CLIENT: ProcessId = ProcessId(1);
const AGENT: ProcessId = ProcessId(2);
const RESOURCES: [&str; 2] = ["order-db", "stock-db"];
/// Commands that share an index, as those of one log entry do.
const BATCH: u64 = 64;

/// Transactions of one round.
pub(crate) const ROUND: usize = 40_000;
/// Transactions that take their steps side by side.
pub(crate) const SIDE_BY_SIDE: usize = 64;

/// The state machine and what it takes to feed it.
pub(crate) struct World {
    state: State,
    effects: Effects,
    resources: [Resource; 2],
    index: u64,
    floor_ms: u64,
    made: u64,
    requests: u64,
}

impl World {
    /// With a leader in office, one lease and two databases.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut world = Self {
            state: State::new(),
            effects: Vec::new(),
            resources: RESOURCES.map(Resource::from),
            index: 0,
            floor_ms: 0,
            made: 0,
            requests: 0,
        };
        world.apply(Command::TakeOffice(TakeOffice::default()))?;
        for (resource, id) in world.resources.clone().into_iter().zip(1..) {
            let database = [id; 16];
            world.apply(Command::BindResource(BindResource { resource, database }))?;
        }
        let lease = LeaseWorker {
            process: CLIENT,
            name: "bench".to_owned(),
            worker: None,
        };
        match world.apply(Command::LeaseWorker(lease))? {
            Reply::Leased(lease) => world.floor_ms = lease.floor_ms,
            other => bail!("no lease but {other:?}"),
        }
        Ok(world)
    }

    /// With so many open transactions, and as many ended ones as it remembers: from here on each
    /// end forgets another one.
    pub(crate) fn settled(open: u64) -> anyhow::Result<Self> {
        let mut world = Self::new()?;
        world.open(open)?;
        for _ in 0..(limits::RETENTION_TRANSACTIONS as usize).div_ceil(ROUND) {
            let commands = world.transactions(ROUND, SIDE_BY_SIDE)?;
            world.apply_all(commands)?;
        }
        Ok(world)
    }

    /// Applies one command; its effects take the place of those before.
    pub(crate) fn apply(&mut self, command: Command) -> anyhow::Result<Reply> {
        self.index += 1;
        self.effects.clear();
        let entry = Entry {
            index: self.index / BATCH + 1,
            at: Timestamp(1_000 + limits::GRACE_MS),
            wall: WallTime(WallTime::XID_EPOCH.0 + 1_000),
            command,
        };
        let reply = self.state.apply(entry, &mut self.effects);
        if let Reply::Refused(rejection) = &reply {
            bail!("refused: {rejection:?}");
        }
        Ok(reply)
    }

    /// Applies commands of which none may have to wait.
    pub(crate) fn apply_all(&mut self, commands: Vec<Command>) -> anyhow::Result<()> {
        for command in commands {
            if let Reply::Waiting(waiter) = self.apply(command)? {
                bail!("{waiter:?} has to wait");
            }
        }
        Ok(())
    }

    /// The requests that the last command answered.
    pub(crate) fn answers(&self) -> impl Iterator<Item = &Reply> {
        self.effects.iter().filter_map(|effect| match effect {
            Effect::Answer { reply, .. } => Some(reply),
            _ => None,
        })
    }

    /// Opens transactions that stay open, each with two branches.
    pub(crate) fn open(&mut self, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            let xid = self.next_xid()?;
            self.apply(begin(xid))?;
            for place in 0..RESOURCES.len() {
                let register = self.register(xid, place, None);
                self.apply(register)?;
                self.apply(done(xid, place))?;
            }
        }
        Ok(())
    }

    /// The commands of `count` transactions, `side_by_side` of them taking turns.
    pub(crate) fn transactions(
        &mut self,
        count: usize,
        side_by_side: usize,
    ) -> anyhow::Result<Vec<Command>> {
        let mut commands = Vec::with_capacity(count * 8);
        let mut left = count;
        while left > 0 {
            let group = left.min(side_by_side);
            left -= group;
            let xids = (0..group)
                .map(|_| self.next_xid())
                .collect::<anyhow::Result<Vec<_>>>()?;
            commands.extend(xids.iter().map(|xid| begin(*xid)));
            for place in 0..RESOURCES.len() {
                for xid in &xids {
                    let register = self.register(*xid, place, None);
                    commands.push(register);
                }
                commands.extend(xids.iter().map(|xid| done(*xid, place)));
            }
            commands.extend(xids.iter().map(|xid| commit(*xid)));
            for place in 0..RESOURCES.len() {
                let epoch = self.state.epoch();
                commands.extend(xids.iter().map(|xid| finished(*xid, place, epoch)));
            }
        }
        Ok(commands)
    }

    pub(crate) fn next_xid(&mut self) -> anyhow::Result<Xid> {
        self.made += 1;
        // 512 in each millisecond, as a worker makes them.
        let bits = ((self.floor_ms + self.made / 512) << 22) | ((self.made % 512) << 13);
        Xid::new(bits).context("no XID")
    }

    /// A register of its own row, or of the given one.
    pub(crate) fn register(&mut self, xid: Xid, place: usize, row: Option<&LockKey>) -> Command {
        self.requests += 1;
        let own = || {
            let mut key = b"public.stock:".to_vec();
            key.extend_from_slice(&xid.get().to_be_bytes());
            LockKey::from(key)
        };
        Command::RegisterBranch(RegisterBranch {
            xid,
            request: RequestId {
                process: AGENT,
                sequence: self.requests,
            },
            agent: AGENT,
            resource: self.resources[place].clone(),
            mode: Mode::At,
            locks: vec![row.cloned().unwrap_or_else(own).into()],
            payload: Payload::default(),
            wait_limit_ms: 60_000,
            holds_local_locks: false,
            can_keep_open: false,
        })
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> accede_core::Counts {
        self.state.counts()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.state.epoch()
    }
}

pub(crate) fn begin(xid: Xid) -> Command {
    Command::Begin(Begin {
        process: CLIENT,
        xid,
        name: "place-order".into(),
        timeout_ms: 60_000,
        parent: None,
    })
}

fn branch(place: usize) -> BranchId {
    BranchId(place as u32 + 1)
}

pub(crate) fn done(xid: Xid, place: usize) -> Command {
    let branch = branch(place);
    Command::BranchDone(BranchDone { xid, branch })
}

pub(crate) fn commit(xid: Xid) -> Command {
    Command::Commit(Commit { xid })
}

pub(crate) fn finished(xid: Xid, place: usize, epoch: Epoch) -> Command {
    Command::FinishBranch(FinishBranch {
        xid,
        branch: branch(place),
        attempt: Attempt(1),
        epoch,
        outcome: Outcome::Finished,
    })
}
