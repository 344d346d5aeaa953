//! One run: the processes, what they do to each other, and when it is over.

use crate::{
    agenda::Event,
    agent::{Agent, AgentEvent},
    client::{Client, ClientEvent},
    coordinator::{Coordinator, CoordinatorEvent, Death},
    faults::{Fault, Plan, Rates},
    message::{Address, Message, Peer},
    operator::Operator,
    oracle::{News, Violation},
    outside::Outside,
    random::Random,
    trace::Trace,
};

/// Simulated milliseconds after the last fault within which everything must be over.
pub(crate) const END_WITHIN_MS: u64 = 240_000;
/// Milliseconds between two looks whether everything is over.
const LOOK_MS: u64 = 1_000;
/// How long ended transactions are known, with some room.
const FORGOTTEN_WITHIN_MS: u64 = accede_core::limits::RETENTION_MS + 60_000;
/// A run with more events than this does not come to an end at all.
const MOST_EVENTS: u64 = 2_000_000;

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Transactions that began.
    pub transactions: u64,
    /// Faults that struck.
    pub faults: u64,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Simulated milliseconds.
    pub ended_at_ms: u64,
}

/// Everything there is.
pub(crate) struct World {
    out: Outside,
    coordinator: Coordinator,
    clients: Vec<Client>,
    agents: Vec<Agent>,
    operator: Operator,
    events: u64,
    next_look: u64,
    quiet_since: Option<u64>,
    /// Everything was over at some time, only not forgotten.
    was_over: bool,
}

impl World {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let disk_seed = random.next();
        let clients = (0..plan.clients).map(|n| Client::new(n, plan.transactions_per_client));
        let clients: Vec<Client> = clients.collect();
        // Each database is served by at least one agent, some by several.
        let agents: Vec<Agent> = (0..plan.agents)
            .map(|number| {
                let serves =
                    |database: &usize| database % plan.agents == number || random.chance(350);
                Agent::new(number, (0..plan.databases).filter(serves).collect())
            })
            .collect();
        let mut out = Outside::new(plan, random, trace);
        out.serving = (0..out.plan.databases)
            .map(|database| {
                let serves = agents
                    .iter()
                    .filter(|agent| agent.databases.contains(&database));
                serves.map(|agent| agent.number).collect()
            })
            .collect();
        let mut world = Self {
            out,
            coordinator: Coordinator::new(disk_seed),
            clients,
            agents,
            operator: Operator::default(),
            events: 0,
            next_look: 0,
            quiet_since: None,
            was_over: false,
        };
        world.plan_start();
        world
    }

    fn plan_start(&mut self) {
        let out = &mut self.out;
        let plan = out.plan.clone();
        out.note(Address::Operator, None, || {
            format!(
                "{} clients, {} agents, {} databases of {} rows; {:?}",
                plan.clients, plan.agents, plan.databases, plan.rows, plan.rates
            )
        });
        out.later(0, Event::Coordinator(0, CoordinatorEvent::Start));
        for number in 0..self.agents.len() {
            out.later(1, Event::Agent(number, 0, AgentEvent::Start));
        }
        for number in 0..self.clients.len() {
            out.later(2, Event::Client(number, 0, ClientEvent::Start));
        }
        out.later(5_000, Event::Operator);
        for (at, fault) in &plan.faults {
            out.agenda.plan(*at, Event::Fault(*fault));
        }
        out.agenda.plan(plan.calm_at, Event::Fault(Fault::Calm));
    }

    /// Runs to the end, or to the first broken rule.
    pub(crate) fn run(mut self) -> Run {
        while let Some((at, event)) = self.out.agenda.next() {
            self.out.now = at;
            self.step(event);
            self.events += 1;
            if self.out.oracle.violation().is_some() || self.is_over() {
                break;
            }
        }
        Run {
            transactions: self.out.oracle.transactions,
            faults: self.out.faults,
            violation: self.out.oracle.violation().cloned(),
            ended_at_ms: self.out.now,
        }
    }

    fn step(&mut self, event: Event) {
        let out = &mut self.out;
        let coordinator_life = self.coordinator.life();
        match event {
            Event::Deliver { to, life, message } => self.deliver(to, life, message),
            Event::Coordinator(life, event) => self.coordinator.handle(out, life, event),
            Event::Agent(number, life, event) => self.agents[number].handle(out, life, event),
            Event::Client(number, life, event) => self.clients[number].handle(out, life, event),
            Event::Operator => self.operator.look(out),
            Event::Fault(fault) => self.strike(fault),
        }
        if self.coordinator.life() != coordinator_life {
            self.break_all();
        }
    }

    fn deliver(&mut self, to: Address, life: Option<u32>, message: Message) {
        let out = &mut self.out;
        match to {
            Address::Coordinator => {
                if let Message::Ask { from, tag, ask } = message {
                    self.coordinator.receive(out, from, tag, ask);
                }
            }
            Address::Client(number) => self.clients[number].receive(out, life, message),
            Address::Agent(number) if self.agents[number].lives(life) => {
                self.agents[number].receive(out, message);
            }
            Address::Agent(_) => {
                if let Some(life) = life {
                    self.coordinator.not_delivered(out, to, life);
                }
            }
            Address::Operator => self.operator.receive(out, message),
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let agents = self.agents.iter().map(Agent::me);
        agents.chain(self.clients.iter().map(Client::me)).collect()
    }

    fn peer(&self, address: Address) -> Option<Peer> {
        match address {
            Address::Client(number) => self.clients.get(number).map(Client::me),
            Address::Agent(number) => self.agents.get(number).map(Agent::me),
            Address::Coordinator | Address::Operator => None,
        }
    }

    /// The coordinator's process is gone, and all connections with it.
    fn break_all(&mut self) {
        for peer in self.peers() {
            let ms = self.out.random.between(1, 60);
            self.lose_connection(ms, peer);
        }
    }

    fn lose_connection(&mut self, ms: u64, peer: Peer) {
        self.out
            .agent_later(ms, peer, AgentEvent::ConnectionLost(peer.session));
        self.out
            .client_later(ms, peer, ClientEvent::ConnectionLost(peer.session));
    }

    fn strike(&mut self, fault: Fault) {
        if self.out.calm {
            return;
        }
        if let Fault::Reset(address) | Fault::Cut(address) = fault
            && let Some(peer) = self.peer(address)
        {
            // After a cut both ends notice only by and by that the other one is silent.
            let reset = matches!(fault, Fault::Reset(_));
            let ms = if reset {
                0
            } else {
                self.out.random.between(500, 3_000)
            };
            self.lose_connection(ms, peer);
            self.coordinator.detach(&mut self.out, peer);
        }
        let out = &mut self.out;
        if !matches!(fault, Fault::Calm | Fault::Heal(_) | Fault::DatabaseUp(_)) {
            out.faults += 1;
        }
        out.trace
            .line(out.now, "fault", None, || format!("{fault:?}"));
        match fault {
            Fault::Kill if self.coordinator.is_up() => self.coordinator.die(out, Death::Killed),
            Fault::PowerLoss if self.coordinator.is_up() => {
                self.coordinator.die(out, Death::PowerLost);
            }
            Fault::Kill | Fault::PowerLoss => {}
            Fault::PowerLossAtOperation(operations) => {
                self.coordinator.power_off_after(operations);
            }
            Fault::SyncError => self.coordinator.fail_next_sync(),
            Fault::Reelection => self.coordinator.reelect(out),
            Fault::ClockJump(ms) => self.coordinator.wall_offset += ms,
            Fault::Cut(address) => drop(out.network.cut.insert(address)),
            Fault::Reset(_) => {}
            Fault::Heal(address) => drop(out.network.cut.remove(&address)),
            Fault::KillAgent(number) => {
                if let Some(peer) = self.agents[number].die(out) {
                    self.coordinator.detach(out, peer);
                }
            }
            Fault::KillClient(number) => self.clients[number].die(out),
            Fault::DatabaseDown(number) => self.stop_database(number),
            Fault::DatabaseUp(number) => out.databases[number].up = true,
            Fault::Calm => self.calm(),
        }
    }

    fn stop_database(&mut self, number: usize) {
        let out = &mut self.out;
        out.databases[number].up = false;
        for agent in &mut self.agents {
            agent.database_stopped(out, number);
        }
        let granted = out.databases[number].end_all(None);
        debug_assert!(granted.is_empty(), "nobody is left to get a lock");
    }

    /// From here on nothing goes wrong any more.
    fn calm(&mut self) {
        let out = &mut self.out;
        out.calm = true;
        out.rates = Rates::default();
        out.network.cut.clear();
        for database in &mut out.databases {
            database.up = true;
        }
        self.coordinator.heal_disk();
        self.break_all();
    }

    /// What is not over yet, if anything.
    fn unfinished(&self) -> Option<String> {
        self.open().or_else(|| self.known())
    }

    /// Ended transactions that are still known, if the run goes on until there are none.
    fn known(&self) -> Option<String> {
        let counts = self.out.oracle.facts.witness.counts();
        let known = counts.committed + counts.rolled_back;
        (self.out.plan.until_forgotten && known > 0)
            .then(|| format!("{known} transactions are not forgotten"))
    }

    fn open(&self) -> Option<String> {
        let counts = self.out.oracle.facts.witness.counts();
        let open = counts.active
            + counts.delegated
            + counts.pre_committed
            + counts.committing
            + counts.rolling_back
            + counts.stuck;
        let agents = self.agents.iter().find_map(Agent::unfinished);
        let clients = self.clients.iter().find_map(Client::unfinished);
        let left = self.out.databases.iter().find_map(|database| {
            let ((xid, branch), _) = database.undo.first_key_value()?;
            let (name, open) = (&database.resource, database.open_locals());
            Some(format!(
                "{name}: the record of branch {} of {xid}; {open} local transactions are open",
                branch.0
            ))
        });
        let promised = self.out.databases.iter().find_map(|database| {
            let ((xid, branch), phase) = database.open_promise()?;
            let name = &database.action;
            Some(format!("{name}: branch {} of {xid} is {phase:?}", branch.0))
        });
        let said = clients
            .or(agents)
            .or(self.coordinator.unfinished())
            .map(str::to_owned);
        let open = (open > 0).then(|| format!("{open} transactions are open"));
        said.or(open).or(left).or(promised)
    }

    /// Whether the run is over; the invariants look at everything once more then.
    fn is_over(&mut self) -> bool {
        if !self.out.calm || self.out.now < self.next_look {
            return self.events > MOST_EVENTS;
        }
        self.next_look = self.out.now + LOOK_MS;
        let calm_for = self.out.now - self.out.plan.calm_at;
        let Some(what) = self.unfinished() else {
            // Late messages may still be on their way.
            let since = *self.quiet_since.get_or_insert(self.out.now);
            if self.out.now < since + 7_000 {
                return false;
            }
            let databases = std::mem::take(&mut self.out.databases);
            self.out.tell(&News::Over(&databases));
            return true;
        };
        self.quiet_since = None;
        // While the rest is being forgotten, leases are still renewed.
        self.was_over |= self.open().is_none();
        let within = if self.was_over {
            FORGOTTEN_WITHIN_MS
        } else {
            0
        } + END_WITHIN_MS;
        if calm_for > within || self.events > MOST_EVENTS {
            self.out.tell(&News::Unfinished(&what));
            return true;
        }
        false
    }
}
