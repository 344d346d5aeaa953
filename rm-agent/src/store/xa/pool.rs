//! The pool of XA transactions: the same for each database, with sqlx's own types.

/// Defines `XaPool` for a database, over the connections of its `AtPool`. Beside it stand
/// `AtTransaction`, `XaTransaction` and `Known`, whose `check` says whether XA can be used.
macro_rules! xa_pool {
    ($plain:ident, $at:literal, $store:ident, $prepare:literal) => {
        /// A pool whose transactions take part in global ones by *two-phase commit of the database*:
        #[doc = concat!("a branch is prepared (`", $prepare, "`) and keeps its local locks until the")]
        /// global transaction has been decided. Made by [`AtPool::xa`]; cheap to clone.
        ///
        /// Statements run as they are, also those that AT refuses. Nobody sees what a branch has written
        /// before the global transaction commits. What it costs and what to look after is in
        /// `docs/xa.md`.
        #[derive(Clone)]
        pub struct XaPool {
            at: AtPool,
        }

        impl std::fmt::Debug for XaPool {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("XaPool")
                    .field("resource", &self.at.resource())
                    .finish_non_exhaustive()
            }
        }

        impl XaPool {
            pub(in crate::store::$store) fn new(at: AtPool) -> Self {
                Self { at }
            }

            /// The operator's name for the database.
            #[must_use]
            pub fn resource(&self) -> &str {
                self.at.resource()
            }

            /// sqlx's own pool, for work that shall never take part in a global transaction.
            #[must_use]
            pub fn plain(&self) -> &sqlx::$plain {
                self.at.plain()
            }

            pub(super) fn at(&self) -> &AtPool {
                &self.at
            }

            pub(super) fn known(&self) -> &Known {
                self.at.xa_known()
            }

            /// Checks that the database prepares transactions and has this library's tables. The first
            /// branch does so by itself.
            ///
            /// # Errors
            /// [`Error::PreparedOff`](crate::Error::PreparedOff) and [`Error::Configuration`](crate::Error::Configuration) name the setting to change;
            /// [`Error::Schema`](crate::Error::Schema) what is missing and the command that creates it; [`Error::Database`](crate::Error::Database) when
            /// the database cannot be reached.
            pub async fn check(&self) -> Result<(), crate::error::Error> {
                self.known().check(&self.at).await
            }

            /// Nothing keeps a branch from beginning.
            async fn ready(&self) -> Result<(), crate::error::Error> {
                self.check().await?;
                self.at.registrar().caught_up(self.resource()).await;
                Ok(())
            }

            /// Opens a transaction: a branch of the global transaction that the running task works for,
            /// or a plain local one if it works for none.
            ///
            /// # Errors
            /// Those of [`check`](Self::check); [`Error::NoConnection`](crate::Error::NoConnection) says why none is free or can be
            /// made in time; [`Error::Configuration`](crate::Error::Configuration) in a scope of [`global_lock`](crate::global_lock)
            /// outside of any global transaction, for XA does not know which rows it would have to check.
            pub async fn begin(&self) -> Result<XaTransaction, sqlx::Error> {
                self.begin_with(crate::context::Kind::of_task()).await
            }

            /// Opens a branch of the global transaction `xid`, whatever the task works for.
            ///
            /// # Errors
            /// Those of [`check`](Self::check); [`Error::NoConnection`](crate::Error::NoConnection) says why none is free or can be
            /// made in time.
            pub async fn begin_in(&self, xid: accede_proto::Xid) -> Result<XaTransaction, sqlx::Error> {
                self.begin_with(crate::context::Kind::Branch(accede_link::context::TransactionContext::new(xid)))
                    .await
            }

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
                self.begin_beside_at_with(crate::context::Kind::of_task()).await
            }

            /// The same in the global transaction `xid`, whatever the task works for.
            ///
            /// # Errors
            /// Those of [`begin_beside_at`](Self::begin_beside_at).
            pub async fn begin_beside_at_in(&self, xid: accede_proto::Xid) -> Result<AtTransaction, sqlx::Error> {
                self.begin_beside_at_with(crate::context::Kind::Branch(accede_link::context::TransactionContext::new(xid)))
                    .await
            }

            async fn begin_beside_at_with(&self, kind: crate::context::Kind) -> Result<AtTransaction, sqlx::Error> {
                if let crate::context::Kind::Branch(_) = kind {
                    self.ready().await?;
                }
                self.at.begin_with(kind, crate::store::xa::Ending::Prepared).await
            }

            async fn begin_with(&self, kind: crate::context::Kind) -> Result<XaTransaction, sqlx::Error> {
                match kind {
                    crate::context::Kind::Plain => {}
                    crate::context::Kind::Branch(_) => self.ready().await?,
                    crate::context::Kind::Checked(_) => {
                        return Err(crate::error::Error::Configuration(
                            "an XA pool cannot check row locks, which a scope of global_lock asks for: \
                             use the AT pool there"
                                .to_owned(),
                        )
                        .into());
                    }
                }
                let held = self.at.acquire(kind).await?;
                Ok(XaTransaction::new(self.clone(), held, kind))
            }

            /// Runs `work` in a transaction, commits it if `work` returns `Ok` and rolls it back if not;
            /// runs it all again, a bounded number of times, when it failed for a passing reason, such as
            /// a deadlock or a serialization failure. `work` must therefore be safe to repeat.
            ///
            /// ```no_run
            #[doc = concat!("# async fn example(pool: ", $at, ") -> Result<(), sqlx::Error> {")]
            /// let xa = pool.xa();
            /// xa.run(|tx| {
            ///     Box::pin(async move {
            ///         sqlx::query("DELETE FROM basket").execute(tx).await?;
            ///         Ok::<_, sqlx::Error>(())
            ///     })
            /// })
            /// .await
            /// # }
            /// ```
            ///
            /// # Errors
            /// The last error of `work` or of the commit.
            pub async fn run<T, E, F>(&self, work: F) -> Result<T, E>
            where
                F: for<'t> FnMut(&'t mut XaTransaction) -> futures_util::future::BoxFuture<'t, Result<T, E>>,
                E: From<sqlx::Error>,
            {
                crate::store::retry::repeat(|| self.begin(), work).await
            }
        }
    };
}
