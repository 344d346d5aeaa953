//! What handlers without a database are told, and what the coordinator hears of them.

use accede_link::context::{TransactionContext, scope};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::*;
use crate::{
    RefusalCode,
    agent::Finish,
    store::test_registrar::{Answer, Event, TestRegistrar},
    tcc::{HandlerError, Tcc, TccAction},
};

#[derive(Debug, Serialize, Deserialize)]
struct Book {
    seat: u32,
}

#[derive(Debug, thiserror::Error)]
enum BookError {
    #[error("taken")]
    Taken,
    #[error(transparent)]
    Accede(#[from] Error),
}

/// An airline that answers by HTTP, say.
#[derive(Default)]
struct Airline {
    heard: Mutex<Vec<String>>,
    taken: Mutex<bool>,
    never_answers: Mutex<bool>,
    asked: Notify,
    broken: Mutex<Option<HandlerError>>,
}

impl Airline {
    fn hear(&self, what: &str, tx: &Unfenced, seat: u32) -> Result<(), HandlerError> {
        let heard = format!("{what} {seat} for branch {} of {}", tx.branch(), tx.xid());
        self.heard.lock().push(heard);
        self.broken.lock().take().map_or(Ok(()), Err)
    }
}

struct BookSeat(Arc<Airline>);

impl TccAction for BookSeat {
    type Transaction = Unfenced;
    type Arguments = Book;
    type Output = u32;
    type Error = BookError;

    fn resource(&self) -> &str {
        "airline.book"
    }

    async fn try_it(&self, tx: &mut Unfenced, book: Book) -> Result<u32, BookError> {
        let heard = self.0.hear("book", tx, book.seat);
        assert!(heard.is_ok(), "only the other two break");
        self.0.asked.notify_one();
        if *self.0.never_answers.lock() {
            std::future::pending::<()>().await;
        }
        if *self.0.taken.lock() {
            return Err(BookError::Taken);
        }
        Ok(book.seat)
    }

    async fn confirm(&self, tx: &mut Unfenced, book: Book) -> Result<(), HandlerError> {
        self.0.hear("confirm", tx, book.seat)
    }

    async fn cancel(&self, tx: &mut Unfenced, book: Book) -> Result<(), HandlerError> {
        self.0.hear("cancel", tx, book.seat)
    }
}

struct Fixture {
    airline: Arc<Airline>,
    registrar: Arc<TestRegistrar>,
    book: Tcc<Book, BookError, u32>,
    finish: Arc<dyn Finish>,
}

fn fixture() -> Fixture {
    let airline = Arc::new(Airline::default());
    let registrar = Arc::new(TestRegistrar::default());
    let book = Tcc::new(BookSeat(Arc::clone(&airline)));
    let finish = book
        .unbound()
        .bind(&Pools::default(), None, Arc::clone(&registrar) as _)
        .expect("it needs no database");
    Fixture {
        airline,
        registrar,
        book,
        finish,
    }
}

fn xid() -> Xid {
    Xid::from_u64(1 << 30).expect("not zero")
}

async fn inside<F: Future>(work: F) -> F::Output {
    scope(Some(TransactionContext::new(xid())), work).await
}

fn back(policy: UndoPolicy) -> Job {
    Job::RollBack {
        was_done: false,
        policy,
    }
}

impl Fixture {
    async fn finish(&self, job: Job) -> Result<(), PhaseTwoError> {
        let key = BranchKey {
            xid: xid(),
            branch: 1,
        };
        let payload = br#"{"version":1,"arguments":{"seat":7}}"#;
        let ended = self.finish.finish(key, job, payload).await;
        ended.map(|ended| assert_eq!(ended, Ended::Finished))
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.airline.heard.lock())
    }
}

fn said(what: &str) -> Vec<String> {
    vec![format!("{what} 7 for branch 1 of {}", xid())]
}

#[tokio::test]
async fn handlers_are_told_which_branch_it_is() {
    let f = fixture();
    let seat = inside(f.book.call(Book { seat: 7 })).await;
    assert_eq!(seat.expect("booked"), 7);
    assert_eq!(f.heard(), said("book"));
    let registered = Event::Registered(xid(), 1, 0);
    assert_eq!(
        f.registrar.take_events(),
        [registered, Event::Done(xid(), 1)]
    );
    f.finish(Job::Commit).await.expect("confirmed");
    assert_eq!(f.heard(), said("confirm"));
    f.finish(back(UndoPolicy::Check)).await.expect("cancelled");
    assert_eq!(f.heard(), said("cancel"));
    // An operator said that it may stay as it is.
    let accepted = f.finish(back(UndoPolicy::AcceptCurrent)).await;
    accepted.expect("nothing to do");
    assert!(f.heard().is_empty());
}

#[tokio::test]
async fn a_try_that_may_have_left_something_dooms_the_transaction() {
    let f = fixture();
    *f.airline.taken.lock() = true;
    let error = inside(f.book.call(Book { seat: 7 })).await;
    assert!(matches!(error, Err(BookError::Taken)));
    let registered = Event::Registered(xid(), 1, 0);
    let expected = [registered, Event::Doomed(xid(), 1)];
    assert_eq!(f.registrar.take_events(), expected);

    // Nobody waits for its answer any more.
    *f.airline.never_answers.lock() = true;
    let mut call = Box::pin(inside(f.book.call(Book { seat: 7 })));
    f.airline.asked.notified().await;
    tokio::select! {
        biased;
        _ = &mut call => panic!("it never answers"),
        () = f.airline.asked.notified() => {}
    }
    drop(call);
    let registered = Event::Registered(xid(), 2, 0);
    let expected = [registered, Event::Doomed(xid(), 2)];
    assert_eq!(f.registrar.take_events(), expected);
}

#[tokio::test]
async fn a_refused_try_is_not_run() {
    let f = fixture();
    f.registrar
        .answer(Answer::Refuse(RefusalCode::AlreadyDecided));
    let error = inside(f.book.call(Book { seat: 7 })).await;
    assert!(matches!(error, Err(BookError::Accede(Error::Refused(_)))));
    let outside = f.book.call(Book { seat: 7 }).await;
    assert!(matches!(
        outside,
        Err(BookError::Accede(Error::NoTransaction { .. }))
    ));
    assert!(f.heard().is_empty());
}

#[tokio::test]
async fn what_handlers_say_decides_whether_they_are_asked_again() {
    let f = fixture();
    *f.airline.broken.lock() = Some(HandlerError::retry("busy"));
    let result = f.finish(Job::Commit).await;
    assert!(matches!(result, Err(PhaseTwoError::Failed { reason }) if reason == "busy"));
    *f.airline.broken.lock() = Some(HandlerError::definite("bankrupt"));
    let result = f.finish(back(UndoPolicy::Check)).await;
    assert!(matches!(result, Err(PhaseTwoError::Stuck { reason, .. }) if reason == "bankrupt"));
    *f.airline.broken.lock() = Some(sqlx::Error::PoolTimedOut.into());
    let result = f.finish(Job::Commit).await;
    assert!(matches!(result, Err(PhaseTwoError::Failed { .. })));
}
