//! The pool of XA transactions, over the connections of an [`AtPool`].

use accede_link::context::TransactionContext;
use accede_proto::Xid;

use super::{Known, XaTransaction};
use crate::{
    context::Kind,
    store::postgres::{AtPool, AtTransaction, branch::Ending},
};

xa_pool!(
    PgPool,
    "accede_rm_agent::AtPool",
    postgres,
    "PREPARE TRANSACTION"
);

impl XaPool {
    /// Opens a transaction on tables that AT branches write as well: a branch that the database
    /// prepares, as [`begin`](Self::begin) opens one, and that takes the global locks of the rows
    /// it writes, as AT does. Without them it could build on what an AT branch has committed
    /// locally and will undo.
    ///
    /// For that its statements are looked at like those of an AT branch and carry images of the
    /// rows, and what AT refuses is refused here, too. Nothing is recorded. Outside of any global
    /// transaction it is what [`AtPool::begin`] would open.
    ///
    /// # Errors
    /// Those of [`check`](Self::check);
    /// [`Error::NoConnection`](crate::Error::NoConnection) says why none is free or can be made in
    /// time.
    pub async fn begin_beside_at(&self) -> Result<AtTransaction, sqlx::Error> {
        self.begin_beside_at_with(Kind::of_task()).await
    }

    /// The same in the global transaction `xid`, whatever the task works for.
    ///
    /// # Errors
    /// Those of [`begin_beside_at`](Self::begin_beside_at).
    pub async fn begin_beside_at_in(&self, xid: Xid) -> Result<AtTransaction, sqlx::Error> {
        self.begin_beside_at_with(Kind::Branch(TransactionContext::new(xid)))
            .await
    }

    async fn begin_beside_at_with(&self, kind: Kind) -> Result<AtTransaction, sqlx::Error> {
        if let Kind::Branch(_) = kind {
            self.ready().await?;
        }
        self.at.begin_with(kind, Ending::Prepared).await
    }
}
