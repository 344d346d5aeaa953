//! What `#[global_transaction]` accepts, and that it does what it says.

use accede_proto::v1::{Decision, transaction_request::Body as Ask};
use accede_tm_client::{Error, TransactionClient, Xid, current_xid, global_transaction};

use crate::{
    client,
    fake::{Fake, OnCommit, Script},
};

struct Shop {
    transactions: TransactionClient,
    count: u32,
}

#[derive(Debug)]
enum ShopError {
    SoldOut,
    Late,
    Transaction(Error),
}

impl From<Error> for ShopError {
    fn from(error: Error) -> Self {
        Self::Transaction(error)
    }
}

impl From<std::num::ParseIntError> for ShopError {
    fn from(_: std::num::ParseIntError) -> Self {
        Self::SoldOut
    }
}

fn is_sold_out(error: &ShopError) -> bool {
    matches!(error, ShopError::SoldOut)
}

#[global_transaction(client = shop.transactions, name = "place-order", timeout = "30s")]
async fn place_order(shop: &Shop, count: &str) -> Result<Xid, ShopError> {
    // `?` and `return` mean what they mean in any function.
    let count: u32 = count.parse()?;
    if count > shop.count {
        return Err(ShopError::SoldOut);
    }
    let xid = current_xid();
    Ok(xid.expect("in a transaction"))
}

#[global_transaction(client = shop.transactions, propagation = "requires_new", rollback_on = is_sold_out)]
async fn rolls_back_when_sold_out(shop: &Shop, error: ShopError) -> Result<(), ShopError> {
    Err(error)
}

#[global_transaction(client = shop.transactions, commit_on = |error| matches!(error, ShopError::SoldOut))]
async fn commits_when_sold_out(shop: &Shop, error: ShopError) -> Result<(), ShopError> {
    Err(error)
}

/// Any error that can hold ours will do.
#[global_transaction(client = transactions, propagation = "mandatory")]
async fn boxed<'a, T: Copy + Send>(
    transactions: &'a TransactionClient,
    value: T,
) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    Ok(value)
}

impl Shop {
    #[global_transaction(client = self.transactions)]
    async fn sell(&mut self, mut count: u32) -> Result<impl Into<u64> + use<>, tonic::Status> {
        count = count.min(self.count);
        self.count -= count;
        Ok(count)
    }

    #[global_transaction(client = &self.transactions, name = "close")]
    pub async fn close(self) -> Result<u32, ShopError> {
        Ok(self.count)
    }
}

async fn shop(fake: &Fake) -> Shop {
    Shop {
        transactions: client(fake).await,
        count: 5,
    }
}

fn last_begin(fake: &Fake) -> (String, u32, u64) {
    let frames = fake.frames();
    let begin = frames.iter().rev().find_map(|(_, ask)| match ask {
        Ask::Begin(begin) => Some((begin.name.clone(), begin.timeout_ms, begin.xid)),
        _ => None,
    });
    begin.expect("one was begun")
}

fn last_decision(fake: &Fake) -> Option<Decision> {
    fake.is_decided(last_begin(fake).2)
}

#[tokio::test]
async fn ok_commits_and_err_rolls_back() {
    let fake = Fake::start().await;
    let shop = shop(&fake).await;
    let xid = place_order(&shop, "3").await.unwrap();
    assert_eq!(
        last_begin(&fake),
        ("place-order".into(), 30_000, xid.as_u64())
    );
    assert_eq!(last_decision(&fake), Some(Decision::Commit));
    for refused in ["6", "six"] {
        let error = place_order(&shop, refused).await.unwrap_err();
        assert!(matches!(error, ShopError::SoldOut));
        assert_eq!(last_decision(&fake), Some(Decision::RollBack));
    }
}

#[tokio::test]
async fn rules_choose_the_errors() {
    let fake = Fake::start().await;
    let shop = shop(&fake).await;
    let _ = rolls_back_when_sold_out(&shop, ShopError::SoldOut).await;
    assert_eq!(last_decision(&fake), Some(Decision::RollBack));
    let _ = rolls_back_when_sold_out(&shop, ShopError::Late).await;
    assert_eq!(last_decision(&fake), Some(Decision::Commit));
    let _ = commits_when_sold_out(&shop, ShopError::SoldOut).await;
    assert_eq!(last_decision(&fake), Some(Decision::Commit));
    let error = commits_when_sold_out(&shop, ShopError::Late)
        .await
        .unwrap_err();
    assert!(matches!(error, ShopError::Late));
    assert_eq!(last_decision(&fake), Some(Decision::RollBack));
}

#[tokio::test]
async fn methods_and_generics() {
    let fake = Fake::start().await;
    let mut shop = shop(&fake).await;
    let sold: u64 = shop.sell(3).await.unwrap().into();
    assert_eq!((sold, shop.count), (3, 2));
    assert_eq!(last_begin(&fake).0, "sell");
    assert_eq!(last_begin(&fake).1, 60_000, "the default");
    let error = boxed(&shop.transactions, 1).await.unwrap_err();
    assert!(
        error.to_string().contains("\"boxed\" must run inside"),
        "{error}"
    );
    assert_eq!(shop.close().await.unwrap(), 2);
    assert_eq!(last_begin(&fake).0, "close");
}

#[tokio::test]
async fn what_did_not_commit_is_an_error() {
    let fake = Fake::start_with(Script {
        commit: OnCommit::TimedOut,
        ..Script::default()
    })
    .await;
    let mut shop = shop(&fake).await;
    let error = place_order(&shop, "1").await.unwrap_err();
    let ShopError::Transaction(Error::Commit(error)) = error else {
        panic!("{error:?}");
    };
    assert!(error.to_string().contains("time-out"), "{error}");
    let status = shop.sell(1).await.map(drop).unwrap_err();
    assert_eq!(status.code(), tonic::Code::Aborted);
}
