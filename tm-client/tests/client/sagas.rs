//! Sagas as their client sees them.

use accede_proto::v1::{refusal::Code, transaction_request::Body as Ask};
use accede_tm_client::{RollBackCause, Saga, SagaError, Step};

use super::{client, fake::Fake, options};

fn saga(steps: &[&str]) -> Saga {
    let steps = steps.iter().map(|name| {
        let step = Step::new(*name, "ship");
        step.input(&format!("for {name}")).unwrap()
    });
    let empty = Saga::builder("trip");
    let saga = steps.fold(empty, |saga, step| saga.step(step));
    saga.build().unwrap()
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_the_plan_is_the_same() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let outcome = saga(&["a", "b"]).run(&client).await.unwrap();
    assert_eq!(outcome.result::<String>("b").unwrap(), "for b");
    assert_eq!(outcome.results().count(), 2);
    let wrong = outcome.result::<i64>("b").unwrap_err();
    assert!(matches!(wrong, SagaError::Result { .. }), "{wrong:?}");
    let plans: Vec<_> = fake
        .frames()
        .into_iter()
        .filter_map(|(session, ask)| match ask {
            Ask::StartSaga(start) => Some((session, start)),
            _ => None,
        })
        .collect();
    let [(first, lost), (second, again)] = &plans[..] else {
        panic!("other plans: {plans:#?}");
    };
    assert!(first < second);
    assert_eq!(lost, again);
    assert_eq!(lost.xid, outcome.xid.as_u64());
    assert!(lost.commit_when_done && lost.request.is_some());
    // The coordinator ends it: nothing else was asked for.
    let asks = |ask: &Ask| matches!(ask, Ask::Commit(_) | Ask::RollBack(_));
    assert!(!fake.frames().iter().any(|(_, ask)| asks(ask)));
}

#[tokio::test]
async fn a_step_that_cannot_be_done_is_named() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let error = saga(&["a", "never"]).run(&client).await.unwrap_err();
    let SagaError::RolledBack(back) = error else {
        panic!("{error:?} is no rollback");
    };
    assert_eq!(back.cause, RollBackCause::StepFailed);
    assert_eq!(back.detail, "never: sold out");
    assert!(back.cause.may_be_tried_again());
}

#[tokio::test]
async fn a_saga_inside_a_transaction_leaves_the_decision_to_its_client() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let transaction = client.begin(options()).await.unwrap();
    let outcome = saga(&["a"]).run_in(&transaction).await.unwrap();
    assert_eq!(outcome.xid, transaction.xid());
    let second = saga(&["a"]).run_in(&transaction).await.unwrap_err();
    let SagaError::Refused { refusal, .. } = &second else {
        panic!("{second:?} is no refusal");
    };
    assert_eq!(refusal.code, Code::OtherSaga, "{second}");
    transaction.commit().await.unwrap();
    let plan = fake.frames().into_iter().find_map(|(_, ask)| match ask {
        Ask::StartSaga(start) => Some(start),
        _ => None,
    });
    assert!(!plan.unwrap().commit_when_done);
}
