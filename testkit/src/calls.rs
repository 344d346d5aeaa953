//! Trying out actions: what is called, and finished when all is decided.

use std::{collections::BTreeMap, fmt};

use accede_core::Decision;
use accede_rm_agent::{
    Error,
    testkit::{Callable, Participant},
};

use crate::{
    play::{Failure, Played},
    report::{Broken, Report, Rule},
    script::{Case, Script},
    trial::Trial,
};

/// An action of TCC, or a participant of 3PC, that is tried out.
pub struct Calls<A, E, O> {
    pub(crate) action: Callable<A, E, O>,
    pub(crate) participant: Participant,
}

impl<A, E, O> fmt::Debug for Calls<A, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

impl<A, E, O> Trial<Calls<A, E, O>>
where
    A: 'static,
    E: From<Error> + fmt::Display + 'static,
    O: 'static,
{
    /// Plays. `arguments` are what the n-th transaction of a case, from 0, is called with; a case
    /// has two at most, and both must be possible together.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub async fn run(self, arguments: impl Fn(u64) -> A) -> Result<Report, Broken> {
        let mut report = Report::default();
        let mut expected: BTreeMap<Vec<u64>, String> = BTreeMap::new();
        for seed in self.seeds() {
            let case = Case::draw(seed);
            let mut story: Vec<String> = case.scripts.iter().map(ToString::to_string).collect();
            let broken = |rule: Rule, story: &[String]| Broken {
                rule,
                seed,
                story: story.to_vec(),
            };
            let played = self.play(&case.scripts, case.reversed, &arguments, &mut story);
            let committed = played.await.map_err(|rule| broken(rule, &story))?;
            let found = self
                .look_at_end()
                .await
                .map_err(|rule| broken(rule, &story))?;
            if !expected.contains_key(&committed) {
                let left = self.undisturbed(&committed, &arguments).await?;
                expected.insert(committed.clone(), left);
            }
            let expected = &expected[&committed];
            if *expected != found {
                let expected = expected.clone();
                let rule = Rule::SameAsUndisturbed { expected, found };
                return Err(broken(rule, &story));
            }
            report.cases += 1;
            report.committed += committed.len() as u64;
            report.rolled_back += (case.scripts.len() - committed.len()) as u64;
        }
        Ok(report)
    }

    /// What these transactions leave when nothing disturbs them.
    async fn undisturbed(
        &self,
        committed: &[u64],
        arguments: &impl Fn(u64) -> A,
    ) -> Result<String, Broken> {
        let scripts: Vec<Script> = committed
            .iter()
            .map(|&number| Script::undisturbed(number, Decision::Commit))
            .collect();
        let mut story = vec!["without anything that disturbs".to_owned()];
        let mut look = async || {
            let done = self.play(&scripts, false, arguments, &mut story).await?;
            if done != committed {
                let reason = "a try that nothing disturbs does not succeed".to_owned();
                return Err(Rule::Test(reason));
            }
            self.look_at_end().await
        };
        let left = look().await;
        left.map_err(|rule| Broken {
            rule,
            seed: 0,
            story,
        })
    }

    /// Plays transactions from the start; those that committed.
    async fn play(
        &self,
        scripts: &[Script],
        reversed: bool,
        arguments: &impl Fn(u64) -> A,
        story: &mut Vec<String>,
    ) -> Result<Vec<u64>, Rule> {
        self.begin_anew().await?;
        let mut open = Vec::with_capacity(scripts.len());
        for script in scripts {
            let Calls {
                action,
                participant,
            } = &self.subject;
            let played = Played::new(&self.coordinator, action, participant, script);
            let tried = played
                .try_it(arguments(script.number))
                .await
                .map_err(|failure| self.rule(failure))?;
            if let Err(reason) = &tried {
                story.push(format!("the try of {}: {reason}", script.number));
            }
            open.push((played, tried.is_ok()));
        }
        if reversed {
            open.reverse();
        }
        let mut committed = Vec::new();
        for (played, can_commit) in open {
            let decision = played.end(can_commit).await;
            let decision = decision.map_err(|failure| self.rule(failure))?;
            let number = played.script.number;
            story.push(format!("transaction {number} ended: {decision:?}"));
            if decision == Decision::Commit {
                committed.push(number);
            }
        }
        committed.sort_unstable();
        Ok(committed)
    }

    fn rule(&self, failure: Failure) -> Rule {
        match failure {
            Failure::Stuck { decision, reason } => {
                let handler = match (&self.subject.action, decision) {
                    (Callable::Tcc(_), Decision::Commit) => "confirm",
                    (Callable::Tcc(_), Decision::RollBack) => "cancel",
                    (Callable::ThreePhase(_), Decision::Commit) => "do_commit",
                    (Callable::ThreePhase(_), Decision::RollBack) => "abort",
                };
                Rule::Finishes(format!("{handler}: {reason}"))
            }
            Failure::NotEnded => Rule::Ends,
        }
    }
}
