//! Through Accede, one branch in each database: all modes but sagas.

use accede_rm_agent::{AtPool, RmAgentBuilder, XaPool};
use anyhow::bail;
use futures_util::future::BoxFuture;

use super::{
    accede::Accede,
    frozen::{self, Freeze, Promise, Wanted},
    place::{Order, Side},
    way::{Mode, Reach, Way},
};
use crate::coordinator::Coordinator;

/// What changes one database.
enum Part {
    At(AtPool),
    Xa(XaPool),
    Tcc(Freeze),
    ThreePhase(Promise),
}

pub(super) struct Branches {
    accede: Accede,
    parts: [Part; 2],
}

/// What an agent must know before it starts; pools are there once it has.
enum Told {
    Nothing(Mode),
    Tcc(Freeze),
    ThreePhase(Promise),
}

impl Told {
    fn of(mode: Mode, side: Side) -> Self {
        match mode {
            Mode::Tcc => Self::Tcc(frozen::freeze(side)),
            Mode::ThreePhase => Self::ThreePhase(frozen::promise(side)),
            mode => Self::Nothing(mode),
        }
    }

    fn tell(&self, agent: RmAgentBuilder, side: Side) -> RmAgentBuilder {
        match self {
            Self::Nothing(_) => agent,
            Self::Tcc(freeze) => agent.tcc(side.name(), freeze),
            Self::ThreePhase(promise) => agent.three_phase(side.name(), promise),
        }
    }

    fn part(self, pool: AtPool) -> anyhow::Result<Part> {
        Ok(match self {
            Self::Nothing(Mode::At) => Part::At(pool),
            Self::Nothing(Mode::Xa) => Part::Xa(pool.xa()),
            Self::Nothing(mode) => bail!("{} is no mode of a branch", mode.name()),
            Self::Tcc(freeze) => Part::Tcc(freeze),
            Self::ThreePhase(promise) => Part::ThreePhase(promise),
        })
    }
}

impl Branches {
    /// The goods change in the first of these modes, the money in the second.
    pub(super) async fn open(
        reach: &Reach,
        coordinator: &Coordinator,
        modes: [Mode; 2],
    ) -> anyhow::Result<Self> {
        let [stock, account] = [0, 1].map(|at| Told::of(modes[at], Side::BOTH[at]));
        let tell = |agent| account.tell(stock.tell(agent, Side::Stock), Side::Account);
        let accede = Accede::open(reach, coordinator, tell).await?;
        let parts = [
            stock.part(accede.pool(Side::Stock)?)?,
            account.part(accede.pool(Side::Account)?)?,
        ];
        Ok(Self { accede, parts })
    }
}

/// The UPDATE in a local transaction of a pool, whatever finishes it.
macro_rules! change {
    ($pool:ident, $sql:expr, $row:ident) => {
        $pool
            .run(move |branch| {
                Box::pin(async move {
                    let change = sqlx::query($sql).bind($row);
                    change.execute(branch).await.map(drop)
                })
            })
            .await?
    };
}

impl Part {
    async fn change(&self, side: Side, row: i64) -> anyhow::Result<()> {
        match self {
            Self::At(pool) => change!(pool, side.change(), row),
            Self::Xa(pool) => change!(pool, side.change(), row),
            Self::Tcc(freeze) => freeze.call(Wanted { row }).await?,
            Self::ThreePhase(promise) => promise.call(Wanted { row }).await?,
        }
        Ok(())
    }
}

impl Way for Branches {
    fn place(&self, order: Order) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.accede.in_transaction(async move {
            for (side, part) in Side::BOTH.into_iter().zip(&self.parts) {
                part.change(side, order.row(side)).await?;
            }
            Ok(())
        }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.accede.close())
    }
}
