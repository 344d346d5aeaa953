//! What each step does.

use accede_core::*;

use super::{AGENT, Client, FRONT, News, Told, World, line::Line, number};

/// Milliseconds between two renewals of a lease by a client that lives.
const RENEW_EVERY_MS: u64 = 5_000;

impl World {
    /// Does what a line says.
    pub(crate) fn tell(&mut self, line: &str) -> Told<News> {
        let words = &mut Line::new(line);
        match words.peek() {
            Some("pass") => return self.pass(words),
            Some("show") => return self.show(words),
            Some("kill" | "set" | "snapshot" | "take" | "restart") => {
                return self.surroundings(words);
            }
            _ => {}
        }
        let command = self.command(words)?;
        words.end()?;
        let (reply, effects) = self.apply(command)?;
        if let Reply::Leased(lease) = &reply {
            self.leased(line, lease);
        }
        Ok(News {
            reply: Some(reply),
            effects: effects.into_iter().map(|effect| (0, effect)).collect(),
            shown: Vec::new(),
        })
    }

    fn command(&mut self, words: &mut Line<'_>) -> Told<Command> {
        match words.word("a verb")? {
            "lease" => {
                let client = words.word("a client")?;
                let known = self.clients.get(client).map(|c| c.lease.worker);
                let worker = if words.eat("anew") { None } else { known };
                let (process, name) = (ProcessId(number(client)?), client.into());
                Ok(Command::LeaseWorker(LeaseWorker {
                    process,
                    name,
                    worker,
                }))
            }
            "end" => self.end_lease(words),
            "bind" => self.bind(words),
            "name" => {
                words.expect("action")?;
                let action = words.word("an action")?.into();
                Ok(Command::NameAction(NameAction { action }))
            }
            "begin" => self.begin(words),
            "register" => self.register(words),
            "check" => self.check(words),
            "saga" => self.saga(words),
            "done" => {
                let (xid, branch) = self.branch(words)?;
                Ok(Command::BranchDone(BranchDone { xid, branch }))
            }
            "withdraw" => {
                let xid = self.transaction(words)?;
                let request = request(words.word("a request")?)?;
                Ok(Command::WithdrawBranch(WithdrawBranch { xid, request }))
            }
            "doom" => {
                let (xid, branch) = self.branch(words)?;
                let detail = words.text().unwrap_or_default().to_owned();
                Ok(Command::DoomBranch(DoomBranch {
                    xid,
                    branch,
                    detail,
                }))
            }
            "blocked" => {
                let xid = self.transaction(words)?;
                Ok(Command::Blocked(Blocked { xid }))
            }
            "commit" => {
                let xid = self.transaction(words)?;
                Ok(Command::Commit(Commit { xid }))
            }
            "roll" => {
                words.expect("back")?;
                let xid = self.transaction(words)?;
                let detail = words.text().unwrap_or_default().to_owned();
                Ok(Command::RollBack(RollBack { xid, detail }))
            }
            verb @ ("finished" | "pre-committed" | "prepared" | "failed" | "unavailable"
            | "stuck" | "ran" | "refused" | "later") => self.outcome(verb, words),
            "repair" => self.repair(words),
            "expire" => Ok(Command::Expire),
            other => Err(format!("{other:?} is no verb")),
        }
    }

    fn transaction(&mut self, words: &mut Line<'_>) -> Told<Xid> {
        self.xid(words.word("a transaction")?, FRONT)
    }

    fn branch(&mut self, words: &mut Line<'_>) -> Told<(Xid, BranchId)> {
        let xid = self.transaction(words)?;
        Ok((xid, branch_id(words)?))
    }

    /// `end lease front`
    fn end_lease(&mut self, words: &mut Line<'_>) -> Told<Command> {
        words.expect("lease")?;
        let name = words.word("a client")?;
        let client = self.clients.get_mut(name);
        let client = client.ok_or_else(|| format!("{name} has no lease"))?;
        client.renews = false;
        let (process, worker) = (ProcessId(number(name)?), client.lease.worker);
        Ok(Command::EndLease(EndLease { process, worker }))
    }

    /// `bind stock to database 1`
    fn bind(&mut self, words: &mut Line<'_>) -> Told<Command> {
        let resource = words.word("a resource")?.into();
        words.expect("to")?;
        words.expect("database")?;
        let id = words.number("a database")?;
        let database = u128::from(id).to_be_bytes();
        Ok(Command::BindResource(BindResource { resource, database }))
    }

    /// `begin A timeout 5s inside P by back`
    fn begin(&mut self, words: &mut Line<'_>) -> Told<Command> {
        let name = words.word("a transaction")?;
        let (mut timeout_ms, mut parent, mut client) = (60_000, None, FRONT);
        loop {
            if words.eat("timeout") {
                timeout_ms = small(words.duration()?)?;
            } else if words.eat("inside") {
                parent = Some(self.transaction(words)?);
            } else if words.eat("by") {
                client = words.word("a client")?;
            } else {
                break;
            }
        }
        Ok(Command::Begin(Begin {
            process: ProcessId(number(client)?),
            xid: self.xid(name, client)?,
            name: name.into(),
            timeout_ms,
            parent,
        }))
    }

    /// `register A stock: apple, pear shared, plum -3 to 7 wait 2s local as r1`, or
    /// `register A freeze in TCC with "five"`, or `register A stock in XA open`
    fn register(&mut self, words: &mut Line<'_>) -> Told<Command> {
        let wish = self.wish(words)?;
        Ok(Command::RegisterBranch(RegisterBranch {
            xid: wish.xid,
            request: wish.request,
            agent: ProcessId(number(AGENT)?),
            resource: wish.resource,
            mode: wish.mode,
            locks: wish.locks,
            payload: wish.payload,
            wait_limit_ms: wish.wait_limit_ms,
            holds_local_locks: wish.holds_local_locks,
            can_keep_open: wish.can_keep_open,
        }))
    }

    /// `check locks A stock: apple wait 2s local as r1`
    fn check(&mut self, words: &mut Line<'_>) -> Told<Command> {
        words.expect("locks")?;
        let wish = self.wish(words)?;
        Ok(Command::CheckLocks(CheckLocks {
            xid: wish.xid,
            request: wish.request,
            resource: wish.resource,
            shared: wish.locks.iter().all(|lock| lock.mode == LockMode::Shared),
            locks: wish.locks.into_iter().map(|lock| lock.key).collect(),
            wait_limit_ms: wish.wait_limit_ms,
            holds_local_locks: wish.holds_local_locks,
        }))
    }

    /// `saga A commits as s1: flight on ship with "LIS", hotel on ship after flight attempts 2`
    fn saga(&mut self, words: &mut Line<'_>) -> Told<Command> {
        let xid = self.transaction(words)?;
        let (mut commit_when_done, mut name) = (false, "saga");
        loop {
            if words.eat("commits") {
                commit_when_done = true;
            } else if words.eat("as") {
                name = words.word("a request")?;
            } else {
                break;
            }
        }
        words.expect(":")?;
        let mut steps = vec![];
        loop {
            let step = words.step(&steps)?;
            steps.push(step);
            if !words.eat(",") {
                break;
            }
        }
        Ok(Command::StartSaga(StartSaga {
            xid,
            request: request(name)?,
            steps,
            commit_when_done,
        }))
    }

    /// What registers and checks have in common. A request without a name is counted: `#1`, `#2`.
    fn wish(&mut self, words: &mut Line<'_>) -> Told<RegisterBranch> {
        let xid = self.transaction(words)?;
        let resource = words.word("a resource")?.into();
        let locks = if words.eat(":") {
            words.row_locks()?
        } else {
            Vec::new()
        };
        let (mut wait_limit_ms, mut local, mut open, mut name) = (0, false, false, None);
        let (mut mode, mut payload) = (Mode::At, Payload::default());
        loop {
            if words.eat("wait") {
                wait_limit_ms = small(words.duration()?)?;
            } else if words.eat("in") {
                let word = words.word("a mode")?;
                let known = Mode::ALL.into_iter().find(|mode| mode.as_str() == word);
                mode = known.ok_or_else(|| format!("{word:?} is no mode"))?;
            } else if words.eat("with") {
                payload = Payload::from(words.text().ok_or("the payload is missing")?.as_bytes());
            } else if words.eat("local") {
                local = true;
            } else if words.eat("open") {
                open = true;
            } else if words.eat("as") {
                name = Some(words.word("a request")?.to_owned());
            } else {
                break;
            }
        }
        let name = name.unwrap_or_else(|| {
            self.requests += 1;
            format!("#{}", self.requests)
        });
        Ok(RegisterBranch {
            xid,
            request: request(&name)?,
            agent: ProcessId(0),
            resource,
            mode,
            locks,
            payload,
            wait_limit_ms,
            holds_local_locks: local,
            can_keep_open: open,
        })
    }

    /// `failed A 1 "lock not available" attempt 2 epoch 1`; by default of the newest order.
    fn outcome(&mut self, verb: &str, words: &mut Line<'_>) -> Told<Command> {
        let (xid, branch) = self.branch(words)?;
        let reason = words.text().unwrap_or_default().to_owned();
        let problem = Problem {
            reason,
            ..Problem::default()
        };
        let known = self.state.transaction(xid);
        let known = known.and_then(|t| t.branches().get(branch.0 as usize - 1));
        let mut attempt = known.map_or(Attempt(1), Branch::attempt);
        let mut epoch = self.state.epoch();
        loop {
            if words.eat("attempt") {
                attempt = Attempt(small(words.number("an attempt")?)?);
            } else if words.eat("epoch") {
                epoch = Epoch(words.number("an epoch")?);
            } else {
                break;
            }
        }
        let after_ms = match verb {
            "later" => small(words.duration()?)?,
            _ => 0,
        };
        let outcome = match verb {
            "ran" => Outcome::Ran(Payload::from(problem.reason.as_bytes())),
            "refused" => Outcome::Refused(problem),
            "later" => Outcome::Later(problem, after_ms),
            "failed" => Outcome::Failed(problem),
            "unavailable" => Outcome::Unavailable(problem),
            "stuck" => Outcome::Stuck(problem),
            "pre-committed" => Outcome::PreCommitted,
            "prepared" => Outcome::Prepared,
            _ => Outcome::Finished,
        };
        Ok(Command::FinishBranch(FinishBranch {
            xid,
            branch,
            attempt,
            epoch,
            outcome,
        }))
    }

    /// `repair A branch 1 retry by ada "the disk is back"`
    fn repair(&mut self, words: &mut Line<'_>) -> Told<Command> {
        let xid = self.transaction(words)?;
        let branch = words.eat("branch").then(|| branch_id(words)).transpose()?;
        let verb = match words.word("what to do")? {
            "retry" => RepairVerb::Retry,
            "apply" => RepairVerb::Apply,
            "accept" => RepairVerb::Accept,
            "skip" => RepairVerb::Skip,
            other => return Err(format!("{other:?} is no repair")),
        };
        let by = if words.eat("by") {
            words.word("who")?
        } else {
            ""
        };
        let (by, reason) = (by.to_owned(), words.text().unwrap_or_default().to_owned());
        Ok(Command::Repair(Repair {
            xid,
            branch,
            verb,
            by,
            reason,
        }))
    }

    fn leased(&mut self, line: &str, lease: &Lease) {
        let name = line.split_whitespace().nth(1).unwrap_or_default();
        let known = self.clients.get(name);
        let made = known
            .filter(|c| c.lease.floor_ms == lease.floor_ms)
            .map_or(0, |c| c.made);
        let (lease, renews) = (lease.clone(), true);
        self.clients.insert(
            name.into(),
            Client {
                lease,
                made,
                renews,
            },
        );
    }

    /// Steps about the coordinator itself and its surroundings.
    fn surroundings(&mut self, words: &mut Line<'_>) -> Told<News> {
        if words.eat("kill") {
            let name = words.word("a client")?;
            let client = self.clients.get_mut(name);
            client.ok_or_else(|| format!("{name} has no lease"))?.renews = false;
        } else if words.eat("set the clock back") {
            self.clock_set_back_ms = words.duration()?;
        } else if words.eat("snapshot") {
            self.state = self.restored()?;
        } else if words.eat("take office") {
            return self.take_office();
        } else if words.eat("restart from the snapshot") {
            self.state = self.restored()?;
            return self.take_office();
        } else if words.eat("restart from the log") {
            self.state = self.replayed();
            return self.take_office();
        } else {
            return Err(format!("{:?} has no sense here", words.word("a verb")?));
        }
        words.end()?;
        Ok(News::default())
    }

    fn take_office(&mut self) -> Told<News> {
        self.index += 1;
        let (reply, _) = self.apply(Command::TakeOffice(TakeOffice::default()))?;
        let owed = self.state.resume();
        Ok(News {
            reply: Some(reply),
            effects: owed.into_iter().map(|effect| (0, effect)).collect(),
            shown: Vec::new(),
        })
    }

    /// `pass 3s` or `pass until something is due`: the leader does what becomes due, the clients
    /// renew their leases.
    fn pass(&mut self, words: &mut Line<'_>) -> Told<News> {
        words.expect("pass")?;
        let began = self.at;
        let until = if words.eat("until something is due") {
            let due = self
                .state
                .next_deadline()
                .ok_or("nothing will ever be due")?;
            self.at.max(due.0)
        } else {
            began + words.duration()?
        };
        words.end()?;
        let mut news = News::default();
        loop {
            let due = self.state.next_deadline().map_or(u64::MAX, |at| at.0);
            let renewal = self.renewed_at + RENEW_EVERY_MS;
            let next = due.min(renewal).max(self.at);
            if next > until {
                self.at = until;
                return Ok(news);
            }
            self.at = next;
            if renewal <= next {
                self.renew()?;
            } else {
                let (_, effects) = self.apply(Command::Expire)?;
                news.effects
                    .extend(effects.into_iter().map(|e| (next - began, e)));
            }
        }
    }

    fn renew(&mut self) -> Told<()> {
        self.renewed_at = self.at;
        let living = self.clients.iter().filter(|(_, client)| client.renews);
        let names: Vec<_> = living.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.tell(&format!("lease {name}"))?;
        }
        Ok(())
    }
}

fn branch_id(words: &mut Line<'_>) -> Told<BranchId> {
    let id = small(words.number("a branch")?)?;
    if id == 0 {
        return Err("branches count from 1".into());
    }
    Ok(BranchId(id))
}

fn request(name: &str) -> Told<RequestId> {
    let (process, sequence) = (ProcessId(number(AGENT)?), number(name)?);
    Ok(RequestId { process, sequence })
}

fn small(number: u64) -> Told<u32> {
    u32::try_from(number).map_err(|_| format!("{number} is too large"))
}
