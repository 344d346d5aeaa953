//! Services without an agent, that keep themselves in order: those that do and those that break
//! one promise each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use accede_testkit::{Broken, Direction, Report, Rule, StepAnswer, StepCall, TestKit};
use accede_tm_client::{Saga, Step};

/// What is wrong with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Sends a letter each time it is asked to.
    Repeats,
    /// Says something else when it is asked again.
    AnswersOtherwise,
    /// Refuses what it has done already.
    RefusesRepeats,
    /// Takes back letters that were never sent.
    TakesBackBlindly,
    /// Does not note that a letter must not be sent any more.
    SendsLate,
    /// Says that a letter is taken back before it is.
    TakesBackLater,
}

/// A service that sends letters, and knows which step sent which.
#[derive(Clone)]
struct Letters {
    fault: Fault,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What became of each step: letters that it sent.
    steps: BTreeMap<(String, u32), Step1>,
    /// By box.
    sent: BTreeMap<String, i64>,
    answers: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step1 {
    Sent,
    TakenBack,
}

impl Letters {
    async fn step(self, call: StepCall) -> StepAnswer {
        tokio::task::yield_now().await;
        let answer = match call.direction {
            Direction::Run => self.send(&call),
            Direction::Compensate => self.take_back(&call),
        };
        tokio::task::yield_now().await;
        answer
    }

    fn send(&self, call: &StepCall) -> StepAnswer {
        let mut state = self.state.lock().expect("nobody panicked");
        let state = &mut *state;
        let key = (call.xid.clone(), call.branch);
        let before = state.steps.get(&key).copied();
        let first = match before {
            None => true,
            Some(Step1::TakenBack) if self.fault == Fault::SendsLate => true,
            Some(Step1::TakenBack) => return StepAnswer::refused("it was taken back"),
            Some(Step1::Sent) if self.fault == Fault::RefusesRepeats => {
                return StepAnswer::refused("it is sent already");
            }
            Some(Step1::Sent) => self.fault == Fault::Repeats,
        };
        if first {
            *state.sent.entry(call.step.clone()).or_default() += 1;
            state.steps.insert(key, Step1::Sent);
        }
        state.answers += 1;
        match self.fault {
            Fault::AnswersOtherwise => StepAnswer::done(&state.answers),
            _ => StepAnswer::done(&call.results.len()),
        }
    }

    fn take_back(&self, call: &StepCall) -> StepAnswer {
        if self.fault == Fault::TakesBackLater {
            let (letters, call) = (self.clone(), call.clone());
            tokio::spawn(async move {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                letters.take_back_now(&call);
            });
        } else {
            self.take_back_now(call);
        }
        StepAnswer::nothing()
    }

    fn take_back_now(&self, call: &StepCall) {
        let mut state = self.state.lock().expect("nobody panicked");
        let key = (call.xid.clone(), call.branch);
        let before = state.steps.insert(key, Step1::TakenBack);
        let was_sent = before == Some(Step1::Sent)
            || (before.is_none() && self.fault == Fault::TakesBackBlindly);
        if was_sent {
            *state.sent.entry(call.step.clone()).or_default() -= 1;
        }
    }
}

const URL: &str = "http://127.0.0.1:8080/steps/letter";

/// One letter, then two side by side, then one more.
fn four(_: u64) -> Saga {
    let saga = Saga::builder("letters")
        .step(Step::callback("a", URL))
        .step(Step::callback("b", URL).after("a"))
        .step(Step::callback("c", URL).after("a").retry_forward())
        .step(Step::callback("d", URL).after("b").after("c"))
        .build();
    saga.expect("sound")
}

async fn played(fault: Fault) -> Result<Report, Broken> {
    let letters = Letters {
        fault,
        state: Arc::default(),
    };
    let (reset, look) = (Arc::clone(&letters.state), Arc::clone(&letters.state));
    TestKit::without_database()
        .saga([])
        .expect("none is bound")
        .callback(URL, move |call| letters.clone().step(call))
        .reset(move || {
            *reset.lock().expect("nobody panicked") = State::default();
            async { Ok(()) }
        })
        .observe(move || {
            let state = look.lock().expect("nobody panicked");
            let sent = state.sent.iter().filter(|(_, letters)| **letters != 0);
            let sent: Vec<_> = sent
                .map(|(name, letters)| format!("{name}={letters}"))
                .collect();
            async move { Ok(sent.join(" ")) }
        })
        .run(four)
        .await
}

async fn found(fault: Fault) -> Broken {
    let broken = played(fault).await.expect_err("the fault is found");
    assert!(broken.seed > 0, "{broken}");
    broken
}

#[tokio::test]
async fn a_service_that_keeps_order_passes() {
    let report = played(Fault::None).await;
    let report = report.unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(report.cases, 200);
    assert!(
        report.committed > 50 && report.rolled_back > 50,
        "{report:?}"
    );
    assert!(report.compensated > 50, "{report:?}");
}

#[tokio::test]
async fn what_is_done_at_each_repeat_is_found() {
    let broken = found(Fault::Repeats).await;
    let of_repeat = matches!(
        broken.rule,
        Rule::Repeated(_) | Rule::SameAsUndisturbed { .. }
    );
    assert!(of_repeat, "{broken}");
}

#[tokio::test]
async fn another_answer_to_a_repeat_is_found() {
    for fault in [Fault::AnswersOtherwise, Fault::RefusesRepeats] {
        let broken = found(fault).await;
        match &broken.rule {
            Rule::Repeated(call) => assert!(call.call.ends_with("is answered otherwise")),
            // The first answer was never heard.
            Rule::SameAsUndisturbed { .. } => assert_eq!(fault, Fault::RefusesRepeats),
            _ => panic!("{broken}"),
        }
    }
}

#[tokio::test]
async fn taking_back_what_never_was_is_found() {
    let broken = found(Fault::TakesBackBlindly).await;
    assert!(matches!(broken.rule, Rule::NeverDone(_)), "{broken}");
    let text = broken.to_string();
    assert!(
        text.contains("the compensation of a step that did nothing"),
        "{text}"
    );
}

#[tokio::test]
async fn a_step_after_its_compensation_is_found() {
    let broken = found(Fault::SendsLate).await;
    assert!(matches!(broken.rule, Rule::TooLate(_)), "{broken}");
}

#[tokio::test]
async fn what_is_not_taken_back_when_it_says_so_is_found() {
    // Else an earlier step's compensation would overtake it.
    let broken = found(Fault::TakesBackLater).await;
    assert!(matches!(broken.rule, Rule::Compensated(_)), "{broken}");
}

#[tokio::test]
async fn the_seed_tells_the_same_again() {
    let (one, other) = (found(Fault::SendsLate).await, found(Fault::SendsLate).await);
    assert_eq!(one, other);
}
