//! Stories about the state machine: one step in each line, told in few words.
//!
//! [`World::tell`] takes a line, does what it says and returns what came of it; `docs/scenarios.md`
//! lists the words. After every entry of the log the [`Ledger`] checks what must always hold.

mod ledger;
mod line;
mod verbs;
mod words;

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use accede_core::*;

use self::ledger::Ledger;

/// Why a step cannot be told or must not have happened, in one sentence.
pub(crate) type Told<T> = Result<T, String>;

/// The client that begins transactions unless a story names another.
pub(crate) const FRONT: &str = "front";
/// The agent that registers all branches.
pub(crate) const AGENT: &str = "agent";

/// What came of a step.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The answer, for steps that are one entry.
    pub(crate) reply: Option<Reply>,
    /// What must happen outside, each with the milliseconds that had passed.
    pub(crate) effects: Vec<(u64, Effect)>,
    /// What an operator is told.
    pub(crate) shown: Vec<String>,
}

/// A client that holds a lease.
#[derive(Clone, Debug)]
struct Client {
    lease: Lease,
    /// XIDs made under this name.
    made: u64,
    renews: bool,
}

/// One coordinator with its log, its clients and those who watch.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) state: State,
    /// All that was applied, with what was answered last.
    pub(crate) log: Vec<(Arc<Entry>, Reply)>,
    ledger: Ledger,
    /// Log index of the next entries; only a new leader needs a new one.
    index: u64,
    at: u64,
    clock_set_back_ms: u64,
    renewed_at: u64,
    names: BTreeMap<Arc<str>, Xid>,
    clients: BTreeMap<Arc<str>, Client>,
    requests: u64,
}

impl World {
    /// A leader in office whose grace is over, the client `front`, and the resources `stock`,
    /// `orders` and `account`.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            state: State::new(),
            log: Vec::new(),
            ledger: Ledger::default(),
            index: 0,
            at: 0,
            clock_set_back_ms: 0,
            renewed_at: 0,
            names: BTreeMap::new(),
            clients: BTreeMap::new(),
            requests: 0,
        };
        for line in [
            "take office",
            "pass 5s",
            "lease front",
            "bind stock to database 1",
            "bind orders to database 2",
            "bind account to database 3",
        ] {
            world.tell(line).expect("a world begins soundly");
        }
        world
    }

    /// Applies one command and looks at what that did.
    fn apply(&mut self, command: Command) -> Told<(Reply, Effects)> {
        let entry = Entry {
            index: self.index,
            at: Timestamp(self.at),
            wall: WallTime(WallTime::XID_EPOCH.0 + 3_600_000 + self.at - self.clock_set_back_ms),
            command,
        };
        let mut effects = Effects::new();
        // An assertion that fails is told like all else that must not happen.
        let apply = AssertUnwindSafe(|| self.state.apply(entry.clone(), &mut effects));
        let reply =
            panic::catch_unwind(apply).map_err(|_| "the state machine panics, see above")?;
        let seen = self
            .ledger
            .look(&self.state, &entry.command, &reply, &effects);
        self.log.push((Arc::new(entry), reply.clone()));
        for effect in &effects {
            if let Effect::Answer { waiter, reply } = effect {
                self.correct(*waiter, reply);
            }
        }
        seen.map_err(|broken| self.named(&broken))?;
        Ok((reply, effects))
    }

    /// Those who were told to wait have their answer now.
    fn correct(&mut self, answered: Waiter, answer: &Reply) {
        for (_, reply) in &mut self.log {
            if *reply == Reply::Waiting(answered) {
                *reply = answer.clone();
            }
        }
    }

    /// The state that a process has which reads the whole log again.
    pub(crate) fn replayed(&self) -> State {
        let mut state = State::new();
        for (entry, _) in &self.log {
            state.apply(Entry::clone(entry), &mut Effects::new());
        }
        state
    }

    /// The state that a process has which starts from the snapshot.
    pub(crate) fn restored(&self) -> Told<State> {
        let bytes = self.state.to_snapshot();
        let state = State::from_snapshot(&bytes).map_err(|e| e.to_string())?;
        if state.to_snapshot() != bytes {
            return Err("a snapshot read and written again has other bytes".into());
        }
        Ok(state)
    }

    /// The XID of a name, made by `client` when it is new.
    pub(crate) fn xid(&mut self, name: &str, client: &str) -> Told<Xid> {
        if let Some(xid) = self.names.get(name) {
            return Ok(*xid);
        }
        let client = self
            .clients
            .get_mut(client)
            .ok_or_else(|| format!("{client} has no lease"))?;
        client.made += 1;
        let (floor, worker) = (client.lease.floor_ms, client.lease.worker);
        let xid = Xid::new(floor << 22 | client.made << 13 | u64::from(worker.0))
            .expect("the floor of a lease is above zero");
        self.names.insert(name.into(), xid);
        Ok(xid)
    }

    /// Every XID in a text by its name.
    pub(crate) fn named(&self, text: &str) -> String {
        let name =
            |text: String, (name, xid): (&Arc<str>, &Xid)| text.replace(&xid.to_string(), name);
        self.names.iter().fold(text.to_owned(), name)
    }
}

/// Names of requests and processes are their numbers: at most eight bytes, so that a story needs
/// no tables and the same name means the same in every order of steps.
fn number(name: &str) -> Told<u64> {
    let bytes = name.as_bytes();
    if bytes.len() > 8 {
        return Err(format!("the name {name} has more than 8 bytes"));
    }
    Ok(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

/// The name that [`number`] was made from.
fn name_of(number: u64) -> String {
    let bytes = number.to_be_bytes();
    let letters = bytes.iter().filter(|byte| **byte != 0);
    letters.map(|byte| char::from(*byte)).collect()
}

/// Took or put `delta` into a row's column, which now holds `value` and may hold 0 to 10.
fn escrow(delta: i64, value: i64) -> LockMode {
    LockMode::Escrow(Arc::new(vec![ColumnDelta {
        column: "count".into(),
        delta,
        value,
        lower: 0,
        upper: 10,
    }]))
}
