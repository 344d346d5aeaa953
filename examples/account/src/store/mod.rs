//! The accounts in their database, and what changes them in which mode.
//!
//! | mode | money |
//! |---|---|
//! | at, xa | plain SQL, in [`branches`] |
//! | tcc, 3pc | frozen, in [`actions`] |
//! | saga | taken by a step, in [`actions`] |
//! | mixed | frozen in TCC: nobody spends what may have to go back |

mod actions;
mod branches;
mod sql;

use accede_rm_agent::{RmAgent, RmAgentBuilder};
use shop_api::{database::DatabaseKind, home::Home, mode::ShopMode};

use crate::AccountError;
use actions::Actions;

/// The operator's name for the database.
const RESOURCE: &str = "account-db";

/// What came of taking money. All amounts are in cents.
#[derive(Debug)]
pub(crate) enum Outcome {
    Taken { left: i64 },
    NotEnough { balance: i64 },
    UnknownUser,
}

impl Outcome {
    /// What is left, or why nothing was taken.
    pub(crate) fn taken(self, user: i64, cents: i64) -> Result<i64, AccountError> {
        match self {
            Self::Taken { left } => Ok(left),
            Self::NotEnough { balance } => Err(AccountError::NotEnoughMoney {
                user,
                balance,
                cents,
            }),
            Self::UnknownUser => Err(AccountError::UnknownUser(user)),
        }
    }
}

/// What the service wants of its database.
#[tonic::async_trait]
pub(crate) trait Store: Send + Sync {
    /// Takes so much money, or none if there is less.
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome>;
}

/// Starts the agent with the database behind the URL, and makes the tables.
pub(crate) async fn open(
    agent: RmAgentBuilder,
    url: &str,
    mode: ShopMode,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let kind = DatabaseKind::of(url)?;
    mode.check(kind).map_err(anyhow::Error::msg)?;
    let home = Home {
        resource: RESOURCE,
        kind,
        url,
        xa: mode == ShopMode::Xa,
    };
    let Actions {
        freeze,
        promise,
        take,
    } = Actions::of(kind);
    let agent = home.with(agent);
    let agent = match mode {
        ShopMode::At | ShopMode::Xa => agent,
        ShopMode::Tcc | ShopMode::Mixed => agent.tcc(RESOURCE, &freeze),
        ShopMode::ThreePhase => agent.three_phase(RESOURCE, &promise),
        ShopMode::Saga => agent.saga_step(RESOURCE, &take),
    };
    let agent = agent.start().await?;
    home.create_tables(&agent, tables).await?;
    let store: Box<dyn Store> = match mode {
        // Steps are ordered by the coordinator; whoever calls the service is served as in AT.
        ShopMode::At | ShopMode::Xa | ShopMode::Saga => Box::new(home.branches(&agent)?),
        ShopMode::Tcc | ShopMode::Mixed => Box::new(freeze),
        ShopMode::ThreePhase => Box::new(promise),
    };
    Ok((agent, store))
}

fn tables(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Postgres => include_str!("../../migrations/postgres/0001_accounts.sql"),
        DatabaseKind::MariaDb => include_str!("../../migrations/mariadb/0001_accounts.sql"),
        DatabaseKind::Sqlite => include_str!("../../migrations/sqlite/0001_accounts.sql"),
    }
}
