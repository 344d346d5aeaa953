//! What goes wrong, how often, and until when.

use crate::{message::Address, random::Random};

/// A fault that strikes at a planned moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The coordinator's process is killed; the machine stays up.
    Kill,
    /// The coordinator's machine loses power: what was not forced is lost or torn.
    PowerLoss,
    /// The power goes after so many more operations on the disk.
    PowerLossAtOperation(u64),
    /// The next forced write fails.
    SyncError,
    /// The coordinator loses its leadership and wins it back.
    Reelection,
    /// The coordinator's wall clock jumps by so many milliseconds.
    ClockJump(i64),
    /// Nothing gets through between the coordinator and this process.
    Cut(Address),
    /// It gets through again.
    Heal(Address),
    /// A connection to the coordinator breaks.
    Reset(Address),
    /// An agent dies and is started again.
    KillAgent(usize),
    /// A client dies in the middle of what it does; another takes its place.
    KillClient(usize),
    /// A database stops.
    DatabaseDown(usize),
    /// A database starts.
    DatabaseUp(usize),
    /// From here on nothing goes wrong any more.
    Calm,
}

/// How often what goes wrong, in a thousand. Drawn anew for each seed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// Messages that are lost.
    pub(crate) drop: u64,
    /// Messages that arrive twice.
    pub(crate) repeat: u64,
    /// Messages that take seconds, and so are overtaken.
    pub(crate) slow: u64,
    /// Orders whose first attempts fail.
    pub(crate) failed_order: u64,
    /// Orders that an agent calls stuck.
    pub(crate) stuck_order: u64,
    /// Orders and local commits that take seconds.
    pub(crate) slow_agent: u64,
    /// Local commits whose answer gets lost.
    pub(crate) lost_commit_answer: u64,
    /// The coordinator dies between two of the answers of one entry.
    pub(crate) crash_between_answers: u64,
}

impl Rates {
    fn draw(random: &mut Random) -> Self {
        let mut rate = |most: u64| {
            if random.chance(600) {
                random.below(most)
            } else {
                0
            }
        };
        Self {
            drop: rate(60),
            repeat: rate(120),
            slow: rate(60),
            failed_order: rate(300),
            stuck_order: rate(60),
            slow_agent: rate(80),
            lost_commit_answer: rate(60),
            crash_between_answers: rate(8),
        }
    }
}

/// The shape of one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rates: Rates,
    /// Faults with the time at which they strike.
    pub(crate) faults: Vec<(u64, Fault)>,
    /// When faults stop, in milliseconds.
    pub(crate) calm_at: u64,
    pub(crate) clients: usize,
    pub(crate) agents: usize,
    pub(crate) databases: usize,
    pub(crate) rows: usize,
    /// Most branches register first and want several of the few rows: long queues of requests,
    /// whose transactions hold some of these rows already.
    pub(crate) crowded: bool,
    pub(crate) transactions_per_client: u64,
    pub(crate) entries_per_snapshot: u64,
    /// Milliseconds that a forced write takes.
    pub(crate) flush_ms: u64,
    /// Queued commands from which new work is refused.
    pub(crate) queue_limit: usize,
    /// Goes on until everything is forgotten.
    pub(crate) until_forgotten: bool,
}

/// One run of so many is without faults.
pub(crate) const HARMLESS_SHARE: u64 = 25;

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let harmless = random.below(HARMLESS_SHARE) == 0;
        let crowded = random.chance(300);
        let mut plan = Self {
            rates: if harmless {
                Rates::default()
            } else {
                Rates::draw(random)
            },
            faults: Vec::new(),
            calm_at: random.between(15_000, 45_000),
            clients: random.between(2, 4) as usize,
            agents: random.between(2, 4) as usize,
            databases: if crowded {
                1
            } else {
                random.between(2, 3) as usize
            },
            rows: random.between(3, if crowded { 4 } else { 9 }) as usize,
            crowded,
            transactions_per_client: random.between(10, 60),
            entries_per_snapshot: match random.below(3) {
                // Rarely, so that the log grows over several segments.
                0 => random.between(150, 800),
                _ => random.between(8, 150),
            },
            flush_ms: random.between(0, 4),
            queue_limit: if random.chance(200) {
                random.between(6, 20) as usize
            } else {
                1000
            },
            until_forgotten: random.chance(150),
        };
        if !harmless {
            plan.draw_faults(random);
        }
        plan
    }

    fn draw_faults(&mut self, random: &mut Random) {
        for _ in 0..random.between(3, 16) {
            let at = random.below(self.calm_at);
            let fault = self.draw_fault(random);
            self.faults.push((at, fault));
            let lasts = random.between(300, 12_000);
            match fault {
                Fault::Cut(address) => self.faults.push((at + lasts, Fault::Heal(address))),
                Fault::DatabaseDown(number) => {
                    self.faults.push((at + lasts, Fault::DatabaseUp(number)));
                }
                _ => {}
            }
        }
    }

    fn draw_fault(&self, random: &mut Random) -> Fault {
        let agent = random.below(self.agents as u64) as usize;
        let client = random.below(self.clients as u64) as usize;
        let database = random.below(self.databases as u64) as usize;
        let either = if random.chance(500) {
            Address::Agent(agent)
        } else {
            Address::Client(client)
        };
        match random.below(24) {
            0 | 1 => Fault::Kill,
            2 | 3 => Fault::PowerLoss,
            4..=7 => Fault::PowerLossAtOperation(random.below(24)),
            8 => Fault::SyncError,
            9 | 10 => Fault::Reelection,
            11 | 12 => Fault::ClockJump(random.below(240_000) as i64 - 120_000),
            13 | 14 => Fault::Cut(either),
            15..=17 => Fault::Reset(either),
            18..=20 => Fault::KillAgent(agent),
            21 => Fault::KillClient(client),
            _ => Fault::DatabaseDown(database),
        }
    }
}
