//! Handlers that keep their promises, and others that break one each: the kit tells which.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use accede_rm_agent::{
    Error, FencedTransaction,
    tcc::{HandlerError, Tcc, TccAction, Unfenced},
    three_phase::{Participant, ThreePhase},
};
use accede_testkit::{BoxError, Broken, Calls, Report, Rule, TestKit, Trial};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

/// What is wrong with the handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Cancel gives back, but forgets what is frozen.
    CancelForgets,
    /// Confirm counts in a row outside of its local transaction.
    ConfirmCountsOutside,
    /// Confirm books twice what was frozen.
    ConfirmTwice,
    /// Confirm refuses.
    ConfirmRefuses,
    /// The try writes before anybody knows of it.
    TryOutside,
}

#[derive(Debug, thiserror::Error)]
enum AccountError {
    #[error("not enough money")]
    NotEnough,
    #[error(transparent)]
    Accede(#[from] Error),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

struct Freeze {
    fault: Fault,
    pool: PgPool,
}

#[derive(Serialize, Deserialize)]
struct Amount {
    account: i64,
    amount: i64,
}

impl TccAction for Freeze {
    type Transaction = FencedTransaction;
    type Arguments = Amount;
    type Output = i64;
    type Error = AccountError;

    fn resource(&self) -> &'static str {
        "account.freeze"
    }

    async fn try_it(&self, tx: &mut FencedTransaction, args: Amount) -> Result<i64, AccountError> {
        let take = sqlx::query_scalar(
            "UPDATE account SET free = free - $2, frozen = frozen + $2 \
             WHERE id = $1 AND free >= $2 RETURNING free",
        )
        .bind(args.account)
        .bind(args.amount);
        let left = match self.fault {
            Fault::TryOutside => take.fetch_optional(&self.pool).await?,
            _ => take.fetch_optional(&mut *tx).await?,
        };
        left.ok_or(AccountError::NotEnough)
    }

    async fn confirm(&self, tx: &mut FencedTransaction, args: Amount) -> Result<(), HandlerError> {
        const SETTLE: &str =
            "UPDATE account SET frozen = frozen - $2, spent = spent + $3 WHERE id = $1";
        let spent = match self.fault {
            Fault::ConfirmRefuses => return Err(HandlerError::definite("I will not")),
            Fault::ConfirmTwice => 2 * args.amount,
            _ => args.amount,
        };
        let settle = sqlx::query(SETTLE)
            .bind(args.account)
            .bind(args.amount)
            .bind(spent);
        match self.fault {
            Fault::ConfirmCountsOutside => settle.execute(&self.pool).await?,
            _ => settle.execute(&mut *tx).await?,
        };
        Ok(())
    }

    async fn cancel(&self, tx: &mut FencedTransaction, args: Amount) -> Result<(), HandlerError> {
        let frozen = match self.fault {
            Fault::CancelForgets => 0,
            _ => args.amount,
        };
        sqlx::query("UPDATE account SET free = free + $2, frozen = frozen - $3 WHERE id = $1")
            .bind(args.account)
            .bind(args.amount)
            .bind(frozen)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }
}

async fn trial(fault: Fault) -> Trial<Calls<Amount, AccountError, i64>> {
    let url = server::database().await;
    let kit = TestKit::postgres(&url).await.expect("a kit");
    let pool = PgPool::connect(&url).await.expect("connects");
    sqlx::raw_sql(
        "CREATE TABLE account (id bigint PRIMARY KEY, free bigint, frozen bigint, spent bigint);
         INSERT INTO account VALUES (1, 0, 0, 0), (2, 0, 0, 0)",
    )
    .execute(&pool)
    .await
    .expect("made");
    let freeze = Tcc::new(Freeze {
        fault,
        pool: pool.clone(),
    });
    observed(kit.tcc(&freeze).expect("bound"), pool)
}

/// With the accounts as what is reset and looked at.
fn observed<O: 'static>(
    trial: Trial<Calls<Amount, AccountError, O>>,
    pool: PgPool,
) -> Trial<Calls<Amount, AccountError, O>> {
    let (to_reset, to_see) = (pool.clone(), pool);
    trial
        .reset(move || {
            let pool = to_reset.clone();
            async move {
                let reset = "UPDATE account SET free = 100, frozen = 0, spent = 0";
                sqlx::query(reset).execute(&pool).await?;
                Ok::<_, BoxError>(())
            }
        })
        .observe(move || {
            let pool = to_see.clone();
            async move {
                let all = "SELECT string_agg(a::text, ' ' ORDER BY id) FROM account a";
                Ok(sqlx::query_scalar(all).fetch_one(&pool).await?)
            }
        })
}

/// The first takes from one account, the second from another: both are possible together.
fn amounts(number: u64) -> Amount {
    Amount {
        account: 1 + i64::from(number == 1),
        amount: 30,
    }
}

async fn found(fault: Fault) -> Broken {
    let broken = trial(fault).await.run(amounts).await;
    let broken = broken.expect_err("the fault is found");
    assert!(broken.seed > 0, "{broken}");
    let text = broken.to_string();
    assert!(text.contains("ACCEDE_TESTKIT_SEED="), "{text}");
    assert!(text.contains("transaction 0: "), "{text}");
    broken
}

#[tokio::test]
async fn handlers_that_keep_their_promises_pass() {
    let report = trial(Fault::None).await.run(amounts).await;
    let report = report.unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(report.cases, 200);
    assert!(
        report.committed > 50 && report.rolled_back > 50,
        "{report:?}"
    );
}

#[tokio::test]
async fn two_on_one_account_do_not_disturb_each_other() {
    let same = |_| Amount {
        account: 1,
        amount: 30,
    };
    let report = trial(Fault::None).await.cases(60).run(same).await;
    report.unwrap_or_else(|broken| panic!("{broken}"));
}

#[tokio::test]
async fn a_cancel_that_forgets_is_found() {
    let broken = found(Fault::CancelForgets).await;
    let Rule::SameAsUndisturbed { expected, found } = broken.rule else {
        panic!("{broken}");
    };
    assert!(
        !expected.contains(",30,"),
        "nothing stays frozen: {expected}"
    );
    assert!(found.contains(",30,"), "{found}");
}

#[tokio::test]
async fn what_takes_effect_outside_of_the_local_transaction_is_found() {
    for fault in [Fault::ConfirmCountsOutside, Fault::TryOutside] {
        let broken = found(fault).await;
        let Rule::SameAsUndisturbed { .. } = broken.rule else {
            panic!("{broken}");
        };
    }
}

#[tokio::test]
async fn a_confirm_that_refuses_is_found() {
    let broken = found(Fault::ConfirmRefuses).await;
    let Rule::Finishes(reason) = broken.rule else {
        panic!("{broken}");
    };
    assert_eq!(reason, "confirm: I will not");
}

#[tokio::test]
async fn what_is_wrong_all_the_time_breaks_the_invariant() {
    // The kit cannot know that it is wrong.
    let trial_of = async |fault| trial(fault).await.cases(30);
    trial_of(Fault::ConfirmTwice)
        .await
        .run(amounts)
        .await
        .expect("nothing is compared with what should be");
    let invariant = |seen: &str| {
        let numbers = seen.split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<i64> = numbers.filter_map(|n| n.parse().ok()).collect();
        let whole = numbers
            .chunks(4)
            .all(|account| account[1..].iter().sum::<i64>() == 100);
        whole.then_some(()).ok_or_else(|| format!("money: {seen}"))
    };
    let broken = trial_of(Fault::ConfirmTwice).await;
    let broken = broken.invariant(invariant).run(amounts).await;
    let broken = broken.expect_err("money was made");
    assert!(matches!(broken.rule, Rule::Invariant(_)), "{broken}");
    let fine = trial_of(Fault::None).await.invariant(invariant);
    fine.run(amounts).await.expect("no money was made");
}

#[tokio::test]
async fn a_test_that_does_not_work_says_so() {
    let kit = TestKit::without_database();
    let action = Tcc::new(Counter {
        ledger: Arc::default(),
        careless: false,
    });
    let trial = kit.tcc(&action).expect("bound");
    let broken = trial.run(|_| 1).await.expect_err("nothing is observed");
    assert!(broken.to_string().contains("give the trial an `observe`"));
    let error = kit.tcc(&action).expect_err("bound already");
    assert!(
        error.to_string().contains("served by another agent"),
        "{error}"
    );

    // Nobody has so much money.
    let much = |_| Amount {
        account: 1,
        amount: 1_000,
    };
    let report = self::trial(Fault::None).await.cases(20).run(much).await;
    let report = report.unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(report.committed, 0, "a try that says no rolls back");
}

/// A participant of 3PC.
struct Promise {
    /// Takes its promise back, but forgets what is frozen.
    careless: bool,
}

impl ThreePhase for Promise {
    type Transaction = FencedTransaction;
    type Arguments = Amount;
    type Output = ();
    type Error = AccountError;

    fn resource(&self) -> &'static str {
        "account.promise"
    }

    async fn can_commit(
        &self,
        tx: &mut FencedTransaction,
        args: Amount,
    ) -> Result<(), AccountError> {
        let taken = sqlx::query(
            "UPDATE account SET free = free - $2, frozen = frozen + $2 \
             WHERE id = $1 AND free >= $2",
        )
        .bind(args.account)
        .bind(args.amount)
        .execute(&mut *tx)
        .await?;
        match taken.rows_affected() {
            0 => Err(AccountError::NotEnough),
            _ => Ok(()),
        }
    }

    async fn pre_commit(
        &self,
        tx: &mut FencedTransaction,
        args: Amount,
    ) -> Result<(), HandlerError> {
        let heard = sqlx::query("UPDATE account SET spent = spent + $2 WHERE id = $1")
            .bind(args.account)
            .bind(args.amount);
        heard.execute(&mut *tx).await?;
        Ok(())
    }

    async fn do_commit(
        &self,
        tx: &mut FencedTransaction,
        args: Amount,
    ) -> Result<(), HandlerError> {
        sqlx::query("UPDATE account SET frozen = frozen - $2 WHERE id = $1")
            .bind(args.account)
            .bind(args.amount)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }

    async fn abort(&self, tx: &mut FencedTransaction, args: Amount) -> Result<(), HandlerError> {
        let frozen = match self.careless {
            true => 0,
            false => args.amount,
        };
        sqlx::query("UPDATE account SET free = free + $2, frozen = frozen - $3 WHERE id = $1")
            .bind(args.account)
            .bind(args.amount)
            .bind(frozen)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }
}

async fn promise(careless: bool) -> Result<Report, Broken> {
    let url = server::database().await;
    let kit = TestKit::postgres(&url).await.expect("a kit");
    let pool = PgPool::connect(&url).await.expect("connects");
    sqlx::raw_sql(
        "CREATE TABLE account (id bigint PRIMARY KEY, free bigint, frozen bigint, spent bigint);
         INSERT INTO account VALUES (1, 0, 0, 0), (2, 0, 0, 0)",
    )
    .execute(&pool)
    .await
    .expect("made");
    let participant = Participant::new(Promise { careless });
    let trial = kit.three_phase(&participant).expect("bound");
    observed(trial, pool).run(amounts).await
}

#[tokio::test]
async fn participants_of_3pc_are_tried_out_too() {
    let report = promise(false).await;
    let report = report.unwrap_or_else(|broken| panic!("{broken}"));
    assert!(
        report.committed > 50 && report.rolled_back > 50,
        "{report:?}"
    );
    let broken = promise(true).await.expect_err("it forgets");
    assert!(
        matches!(broken.rule, Rule::SameAsUndisturbed { .. }),
        "{broken}"
    );
}

/// Amounts by transaction and branch.
type Ledger = Arc<Mutex<BTreeMap<(u64, u32), (i64, State)>>>;

/// A service without a database of this library's: it counts what was tried, and by whom.
#[derive(Clone)]
struct Counter {
    ledger: Ledger,
    /// Takes every confirm for a new one.
    careless: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Tried,
    Confirmed(i64),
    Cancelled,
}

impl TccAction for Counter {
    type Transaction = Unfenced;
    type Arguments = i64;
    type Output = ();
    type Error = AccountError;

    fn resource(&self) -> &'static str {
        "counter"
    }

    async fn try_it(&self, tx: &mut Unfenced, amount: i64) -> Result<(), AccountError> {
        tokio::task::yield_now().await;
        let key = (tx.xid().as_u64(), tx.branch());
        let mut ledger = self.ledger.lock().expect("nobody panicked");
        // A cancel may have come before.
        match ledger.entry(key).or_insert((amount, State::Tried)).1 {
            State::Tried => Ok(()),
            _ => Err(AccountError::NotEnough),
        }
    }

    async fn confirm(&self, tx: &mut Unfenced, amount: i64) -> Result<(), HandlerError> {
        let key = (tx.xid().as_u64(), tx.branch());
        if let Some(entry) = self.ledger.lock().expect("nobody panicked").get_mut(&key) {
            entry.1 = match entry.1 {
                State::Confirmed(before) if self.careless => State::Confirmed(before + amount),
                _ => State::Confirmed(amount),
            };
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn cancel(&self, tx: &mut Unfenced, amount: i64) -> Result<(), HandlerError> {
        let key = (tx.xid().as_u64(), tx.branch());
        let mut ledger = self.ledger.lock().expect("nobody panicked");
        ledger.insert(key, (amount, State::Cancelled));
        Ok(())
    }
}

async fn count(careless: bool) -> Result<Report, Broken> {
    let kit = TestKit::without_database();
    let ledger = Ledger::default();
    let action = Tcc::new(Counter {
        ledger: Arc::clone(&ledger),
        careless,
    });
    let again = Arc::clone(&ledger);
    kit.tcc(&action)
        .expect("bound")
        .reset(move || {
            again.lock().expect("nobody panicked").clear();
            async { Ok(()) }
        })
        .observe(move || {
            let ledger = ledger.lock().expect("nobody panicked");
            let counted = ledger.values().map(|(_, state)| match state {
                State::Confirmed(amount) => *amount,
                State::Tried | State::Cancelled => 0,
            });
            let sum: i64 = counted.sum();
            async move { Ok(sum.to_string()) }
        })
        .run(|_| 5)
        .await
}

#[tokio::test]
async fn without_fences_what_is_repeated_must_be_idempotent() {
    let report = count(false).await;
    report.unwrap_or_else(|broken| panic!("{broken}"));
    let broken = count(true).await.expect_err("a confirm counted again");
    assert!(
        matches!(broken.rule, Rule::SameAsUndisturbed { .. }),
        "{broken}"
    );
}
