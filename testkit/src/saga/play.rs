//! Plays sagas as their scripts say, and looks after every call whether it did what it should.

use std::{collections::BTreeMap, mem};

use accede_core::{Decision, Outcome, Payload, Problem};
use accede_rm_agent::testkit::{Trouble as Failure, polled};
use futures_util::future::join;

use super::{
    Plans, Steps,
    live::{Branch, Due, Live, Progress, attempts, started, told},
    look::{Kind, Look},
    participant::{Ended, Participant},
    script::{Chance, Delivery, Script, Trouble},
};
use crate::{
    report::{Call, Rule},
    trial::Trial,
};

/// In a hundred: a call of before comes again, or late.
const REPEATS: u32 = 25;
/// In a hundred: two orders are carried out side by side.
const SIDE_BY_SIDE: u32 = 25;
/// In a hundred: the coordinator dies and comes back.
const RESTARTS: u32 = 4;
/// In a hundred: when all is over, a call comes once more.
const ECHOES: u32 = 50;

/// A case that is played.
pub(super) struct Player<'a> {
    trial: &'a Trial<Steps>,
    plans: &'a Plans,
    chance: Chance,
    sagas: Vec<Live>,
    due: Vec<Due>,
    /// A call is under way, so that nothing is certain.
    in_flight: bool,
    /// What was seen last, if it is still so unless something is wrong.
    seen: Option<String>,
    pub(super) looks: Vec<Look>,
    pub(super) story: Vec<String>,
    pub(super) compensated: u64,
}

impl<'a> Player<'a> {
    pub(super) fn new(trial: &'a Trial<Steps>, plans: &'a Plans, seed: u64) -> Self {
        Self {
            trial,
            plans,
            chance: Chance::new(seed),
            sagas: Vec::new(),
            due: Vec::new(),
            in_flight: false,
            seen: None,
            looks: Vec::new(),
            story: Vec::new(),
            compensated: 0,
        }
    }

    /// Plays it from the start to its end; how the transactions ended.
    pub(super) async fn play(&mut self) -> Result<Vec<Decision>, Rule> {
        self.trial.begin_anew().await?;
        self.seen = Some(self.trial.look().await?);
        let longest = self.plans.iter().map(Vec::len).max().unwrap_or_default();
        for script in self.chance.scripts(longest) {
            self.start(script)?;
        }
        loop {
            self.collect()?;
            if self.due.is_empty() {
                match self.wait()? {
                    true => continue,
                    false => break,
                }
            }
            let due = self.due.remove(self.chance.one_of(self.due.len()));
            let beside = self.chance.percent(SIDE_BY_SIDE);
            let other = self.due.iter().position(|other| other.runs());
            match other.filter(|_| beside && due.runs()) {
                Some(other) => {
                    let other = self.due.remove(other);
                    self.side_by_side(&due, &other).await?;
                }
                None => self.carry_out(due).await?,
            }
            if self.chance.percent(REPEATS) {
                self.repeat_one().await?;
            }
            if self.chance.percent(RESTARTS) {
                self.story
                    .push("the coordinator dies and comes back".into());
                self.trial.coordinator.restart();
            }
        }
        self.echo().await?;
        let seen = self.trial.look_at_end().await?;
        self.note(Kind::End, "the end".to_owned(), seen);
        let decisions = self.sagas.iter().map(|live| self.decision(live));
        decisions
            .map(|decision| decision.ok_or(Rule::Ends))
            .collect()
    }

    fn decision(&self, live: &Live) -> Option<Decision> {
        self.trial.coordinator.decision(live.xid)
    }

    fn start(&mut self, script: Script) -> Result<(), Rule> {
        let coordinator = &self.trial.coordinator;
        let xid = coordinator.begin();
        let plan = self.plans[script.number as usize].clone();
        coordinator.start_saga(xid, plan).map_err(Rule::Test)?;
        self.sagas.push(Live {
            script,
            xid,
            ordered: 0,
            branches: BTreeMap::new(),
        });
        Ok(())
    }

    /// Lets time pass if a saga is not over; false if all are.
    fn wait(&self) -> Result<bool, Rule> {
        let coordinator = &self.trial.coordinator;
        let open = self.sagas.iter().find(|l| !coordinator.has_ended(l.xid));
        match open {
            None => Ok(false),
            Some(live) if coordinator.pass_time(live.xid) => Ok(true),
            Some(_) => Err(Rule::Ends),
        }
    }

    /// Takes what the coordinator has to order.
    fn collect(&mut self) -> Result<(), Rule> {
        for saga in 0..self.sagas.len() {
            for order in self.trial.coordinator.orders(self.sagas[saga].xid) {
                self.take(Due { saga, order })?;
            }
        }
        Ok(())
    }

    fn take(&mut self, due: Due) -> Result<(), Rule> {
        let live = &mut self.sagas[due.saga];
        let plan = &self.plans[live.script.number as usize];
        let branch = due.order.branch.0;
        if due.runs() {
            let step = started(live, plan, &due)?;
            let known = live.branches.entry(branch);
            let known = known.or_insert_with(|| Branch {
                step,
                progress: Progress::Untouched,
                run: due.order.clone(),
                back: None,
                is_closed: false,
            });
            known.run = due.order.clone();
        } else {
            let mut later = live.branches.range(branch + 1..);
            if let Some((later, _)) = later.find(|(_, later)| !later.is_closed) {
                let why = format!("{} comes before that of branch {later}", due.call());
                return Err(Rule::Order(why));
            }
            let Some(known) = live.branches.get_mut(&branch) else {
                let why = format!("{} was never started", due.call());
                return Err(Rule::Order(why));
            };
            known.back = Some(due.order.clone());
        }
        self.due.retain(|before| !before.is_for(&due));
        self.due.push(due);
        Ok(())
    }

    fn participant(&self, due: &Due) -> &'a Participant {
        let known = &self.trial.subject.participants;
        &known[&*due.order.resource]
    }

    async fn carry_out(&mut self, due: Due) -> Result<(), Rule> {
        let live = &mut self.sagas[due.saga];
        if due.runs() && self.trial.coordinator.decision(live.xid).is_none() {
            let nth = live.ordered;
            live.ordered += 1;
            if let Some((at, trouble)) = live.script.trouble
                && at == nth
            {
                return self.make_trouble(due, trouble).await;
            }
        }
        for delivery in self.chance.deliveries(due.runs()) {
            self.deliver(&due, delivery).await?;
            if let Delivery::TimesOut(_) = delivery {
                // It is ordered again, or given up.
                return Ok(());
            }
        }
        self.finish_one(&due).await
    }

    /// Until it is done, and the coordinator has heard of it.
    async fn finish_one(&mut self, due: &Due) -> Result<(), Rule> {
        let ended = self.persist(due).await?;
        self.story.push(format!("{}: {}", due.call(), told(&ended)));
        self.tell(due, &ended);
        self.hear(due, ended).await
    }

    async fn side_by_side(&mut self, one: &Due, other: &Due) -> Result<(), Rule> {
        self.touch(one);
        self.touch(other);
        let (first, second) = join(
            attempts(self.participant(one), one),
            attempts(self.participant(other), other),
        )
        .await;
        let text = format!("{} and {}, side by side", one.call(), other.call());
        self.story.push(text);
        // Both have ended, so that one look serves both.
        self.in_flight = true;
        let first = first?;
        self.tell(one, &first);
        self.hear(one, first).await?;
        self.in_flight = false;
        let second = second?;
        self.tell(other, &second);
        self.hear(other, second).await
    }

    async fn persist(&mut self, due: &Due) -> Result<Ended, Rule> {
        self.touch(due);
        attempts(self.participant(due), due).await
    }

    async fn deliver(&mut self, due: &Due, delivery: Delivery) -> Result<(), Rule> {
        let participant = self.participant(due);
        self.touch(due);
        let call = due.call();
        match delivery {
            Delivery::Dies(polls) | Delivery::TimesOut(polls) => {
                let polls = participant.polls(polls);
                let times_out = matches!(delivery, Delivery::TimesOut(_));
                let end = if times_out { ", and time passes" } else { "" };
                let text = format!("{call}: whoever does it dies after moment {polls}{end}");
                self.story.push(text);
                let ended = polled(polls, participant.carry_out(&due.order)).await;
                self.hear_if_any(due, ended).await?;
                if times_out {
                    self.collect()?;
                    self.trial.coordinator.pass_time(self.sagas[due.saga].xid);
                }
            }
            Delivery::Lost => {
                self.story.push(format!("{call}: nobody hears the answer"));
                let ended = participant.carry_out(&due.order).await;
                self.hear_if_any(due, Some(ended)).await?;
            }
            Delivery::Twice => {
                self.story.push(format!("{call}: twice at once"));
                let (one, other) = join(
                    participant.carry_out(&due.order),
                    participant.carry_out(&due.order),
                )
                .await;
                self.hear_if_any(due, Some(one)).await?;
                self.hear_if_any(due, Some(other)).await?;
            }
        }
        Ok(())
    }

    async fn make_trouble(&mut self, due: Due, trouble: Trouble) -> Result<(), Rule> {
        let (trial, call) = (self.trial, due.call());
        let xid = self.sagas[due.saga].xid;
        let roll_back = || {
            trial.coordinator.decide(xid, Decision::RollBack);
        };
        match trouble {
            Trouble::Refused => {
                self.story.push(format!("{call}: it cannot be done"));
                let why = Ended::Refused("the test kit says so".to_owned());
                self.tell(&due, &why);
            }
            Trouble::RolledBack => {
                self.story.push(format!("{call}: a rollback comes before"));
                roll_back();
            }
            Trouble::Unheard => {
                let text = format!("{call}: a rollback comes before its answer");
                self.story.push(text);
                let ended = self.persist(&due).await?;
                roll_back();
                self.hear(&due, ended).await?;
            }
            Trouble::Overtaken(polls) => {
                let participant = self.participant(&due);
                let polls = participant.polls(polls);
                let text = format!("{call}: a rollback comes at its moment {polls}");
                self.story.push(text);
                self.touch(&due);
                let mut work = Box::pin(participant.carry_out(&due.order));
                let ended = polled(polls, work.as_mut()).await;
                roll_back();
                if ended.is_some() {
                    return self.hear_if_any(&due, ended).await;
                }
                // The compensations and the rest of the step, side by side.
                self.in_flight = true;
                let (compensated, _) = join(self.finish(due.saga), work).await;
                self.in_flight = false;
                compensated?;
                self.look(Kind::TooLate, call).await?;
            }
        }
        Ok(())
    }

    /// Carries out all that one saga still asks for.
    async fn finish(&mut self, saga: usize) -> Result<(), Rule> {
        loop {
            self.collect()?;
            let Some(at) = self.due.iter().position(|due| due.saga == saga) else {
                return Ok(());
            };
            let due = self.due.remove(at);
            Box::pin(self.carry_out(due)).await?;
        }
    }

    /// A call of before comes again, or one that was left lying comes late.
    async fn repeat_one(&mut self) -> Result<(), Rule> {
        let mut known = Vec::new();
        for (saga, live) in self.sagas.iter().enumerate() {
            let decided = self.decision(live).is_some();
            for branch in live.branches.values() {
                let order = match (&branch.progress, &branch.back) {
                    (Progress::Unknown, _) => continue,
                    (Progress::Untouched, _) if !decided => continue,
                    (Progress::Compensated | Progress::Barred, Some(back)) => {
                        known.push((saga, back.clone()));
                        branch.run.clone()
                    }
                    _ => branch.run.clone(),
                };
                known.push((saga, order));
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        let (saga, order) = known.swap_remove(self.chance.one_of(known.len()));
        self.again(Due { saga, order }).await
    }

    /// When all is over, what came before comes once more.
    async fn echo(&mut self) -> Result<(), Rule> {
        let mut known = Vec::new();
        for (saga, live) in self.sagas.iter().enumerate() {
            for branch in live.branches.values() {
                let orders = [Some(&branch.run), branch.back.as_ref()];
                known.extend(
                    orders
                        .into_iter()
                        .flatten()
                        .map(|order| (saga, order.clone())),
                );
            }
        }
        for (saga, order) in known {
            if self.chance.percent(ECHOES) {
                self.again(Due { saga, order }).await?;
            }
        }
        Ok(())
    }

    async fn again(&mut self, due: Due) -> Result<(), Rule> {
        self.story.push(format!("{}: comes once more", due.call()));
        if !due.runs() || self.branch(&due).progress == Progress::Untouched {
            self.touch(&due);
        }
        let ended = self.participant(&due).carry_out(&due.order).await;
        self.hear_if_any(&due, Some(ended)).await
    }

    /// An answer that the coordinator does not get.
    async fn hear_if_any(
        &mut self,
        due: &Due,
        ended: Option<Result<Ended, Failure>>,
    ) -> Result<(), Rule> {
        match ended {
            Some(Ok(ended)) => self.hear(due, ended).await,
            Some(Err(_)) | None => Ok(()),
        }
    }

    fn branch(&mut self, due: &Due) -> &mut Branch {
        let branches = &mut self.sagas[due.saga].branches;
        let known = branches.get_mut(&due.order.branch.0);
        known.expect("what was ordered was taken down")
    }

    /// It is begun: from here on it may have an effect.
    fn touch(&mut self, due: &Due) {
        let runs = due.runs();
        let progress = &mut self.branch(due).progress;
        match (&progress, runs) {
            (Progress::Untouched, true) | (Progress::Done(_), false) => {
                *progress = Progress::Unknown;
                self.seen = None;
            }
            _ => {}
        }
    }

    fn tell(&mut self, due: &Due, ended: &Ended) {
        let outcome = match ended {
            Ended::Ran(result) => Outcome::Ran(Payload::from(&result[..])),
            Ended::Refused(reason) => Outcome::Refused(Problem {
                reason: reason.clone(),
                ..Problem::default()
            }),
            Ended::Compensated => {
                self.branch(due).is_closed = true;
                Outcome::Finished
            }
        };
        self.trial.coordinator.answered(&due.order, outcome);
    }

    /// What came of a call, and what it should have come to.
    async fn hear(&mut self, due: &Due, ended: Ended) -> Result<(), Rule> {
        let branch = self.branch(due);
        let before = mem::replace(&mut branch.progress, Progress::Unknown);
        let (progress, kind) = match (ended, before) {
            (Ended::Ran(result), Progress::Untouched | Progress::Unknown) => {
                (Progress::Done(result), Kind::Effect)
            }
            (Ended::Ran(again), Progress::Done(first)) if first == again => {
                (Progress::Done(first), Kind::Repeated)
            }
            (again @ (Ended::Ran(_) | Ended::Refused(_)), Progress::Done(first)) => {
                return Err(Rule::Repeated(Call {
                    call: format!("{} is answered otherwise", due.call()),
                    expected: told(&Ended::Ran(first)),
                    found: told(&again),
                }));
            }
            (Ended::Refused(_), Progress::Untouched | Progress::Unknown) => {
                (Progress::Untouched, Kind::Effect)
            }
            (
                Ended::Ran(_) | Ended::Refused(_),
                over @ (Progress::Compensated | Progress::Barred),
            ) => (over, Kind::TooLate),
            (Ended::Compensated, Progress::Done(_) | Progress::Unknown) => {
                self.compensated += 1;
                (Progress::Compensated, Kind::Compensated)
            }
            (Ended::Compensated, Progress::Untouched) => (Progress::Barred, Kind::NeverDone),
            (Ended::Compensated, over) => (over, Kind::Repeated),
        };
        self.branch(due).progress = progress;
        self.look(kind, due.call()).await
    }

    async fn look(&mut self, kind: Kind, call: String) -> Result<(), Rule> {
        let mut branches = self.sagas.iter().flat_map(|live| live.branches.values());
        if self.in_flight || branches.any(|branch| branch.progress == Progress::Unknown) {
            self.seen = None;
            return Ok(());
        }
        let seen = self.trial.look().await?;
        match &self.seen {
            Some(before) if kind.is_idle() && *before != seen => {
                Err(kind.rule(call, before.clone(), seen))
            }
            _ => {
                self.seen = Some(seen.clone());
                self.note(kind, call, seen);
                Ok(())
            }
        }
    }

    fn note(&mut self, kind: Kind, call: String, seen: String) {
        let mut done = Vec::new();
        for live in &self.sagas {
            for branch in live.branches.values() {
                if let Progress::Done(_) = branch.progress {
                    done.push((live.script.number, branch.step));
                }
            }
        }
        done.sort_unstable();
        self.looks.push(Look {
            kind,
            call,
            done,
            seen,
        });
    }
}
