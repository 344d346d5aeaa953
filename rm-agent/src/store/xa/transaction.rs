//! The local transaction that the database prepares: the same for each database.

/// Defines `XaTransaction` for a database. What differs stands beside it, as methods: `begin`
/// opens the local transaction, `inspect` looks at a statement before it runs, `commit_unwritten`
/// ends one that is no branch, `has_written_unseen` asks about one that only seems to have read,
/// `prepare` ends a branch; and the functions `new_branch`, `returns_to_savepoint` and `after_error`,
/// which says what a failure leaves of the transaction.
macro_rules! xa_transaction {
    ($store:ident, $connection:ident, $result:ident, $begin:literal) => {
        /// A local transaction on a connection of an [`XaPool`].
        ///
        /// While it belongs to a global transaction it is a *branch*: [`commit`](Self::commit)
        /// registers it with the coordinator and has the database prepare it; it is committed or
        /// rolled back there once the global transaction has been decided. One that wrote nothing
        /// just commits and is no branch at all. Outside of global transactions it is a plain
        /// transaction.
        ///
        /// Statements run untouched; only those that would open, end or prepare a transaction are
        /// refused ([`Error::TransactionControl`]). Savepoints are statements like any other.
        ///
        #[doc = concat!("`", $begin, "` goes out with the first statement. Dropping the")]
        /// transaction rolls it back; so does dropping the future of any of its methods half-way,
        /// after which only a rollback is possible.
        pub struct XaTransaction {
            pool: XaPool,
            held: Held,
            state: State,
            /// `None`: it runs outside of any global transaction.
            branch: Option<Branch>,
            /// A statement has written, or may have done so unseen.
            has_written: bool,
            retryable: bool,
        }

        impl std::fmt::Debug for XaTransaction {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("XaTransaction")
                    .field("resource", &self.pool.resource())
                    .field("xid", &self.xid())
                    .field("state", &self.state)
                    .finish_non_exhaustive()
            }
        }

        impl Drop for XaTransaction {
            fn drop(&mut self) {
                self.held.abandon();
            }
        }

        impl XaTransaction {
            pub(super) fn new(pool: XaPool, held: Held, kind: crate::context::Kind) -> Self {
                let branch = new_branch(kind, pool.at());
                Self {
                    pool,
                    held,
                    state: State::Idle,
                    branch,
                    has_written: false,
                    retryable: false,
                }
            }

            /// The global transaction that this one is a branch of, if it is one.
            #[must_use]
            pub fn xid(&self) -> Option<Xid> {
                self.branch.as_ref().and_then(|branch| branch.xid)
            }

            /// Commits; a branch that wrote something is registered and prepared.
            ///
            /// # Errors
            /// After any error the local transaction is rolled back, with one exception:
            /// [`Error::CommitUnknown`], after which the coordinator rolls the whole transaction
            /// back. What the database cannot prepare it refuses here. [`Error::from_sqlx`] finds
            /// refusals; [`is_retryable`] says whether running the local transaction again may
            /// help.
            pub async fn commit(mut self) -> Result<(), sqlx::Error> {
                self.finish().await
            }

            /// Rolls back. Statements of a branch leave nothing behind, neither here nor at the
            /// coordinator.
            ///
            /// # Errors
            /// When the connection broke; then the database rolls back by itself.
            pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
                self.held.roll_back().await
            }

            /// The connection, to prepare and describe statements.
            pub(in crate::store::$store) fn connection(&mut self) -> &mut sqlx::$connection {
                self.held.get()
            }

            async fn finish(&mut self) -> Result<(), sqlx::Error> {
                let reason = match std::mem::replace(&mut self.state, State::Busy) {
                    State::Idle => return Ok(()),
                    State::Open => {
                        let result = self.end().await;
                        if let Err(error) = &result {
                            self.retryable = is_retryable(error);
                        }
                        return result;
                    }
                    State::Busy => "a call on it was cancelled".to_owned(),
                    State::Broken(reason) => reason,
                };
                // The connection is closed if this fails, which rolls back as well.
                let _ = self.held.roll_back().await;
                Err(Error::Broken { reason }.into())
            }

            async fn end(&mut self) -> Result<(), sqlx::Error> {
                if let Some(xid) = self.xid()
                    && (self.has_written || self.has_written_unseen().await?)
                    && let Some(branch) = self.branch.take()
                {
                    return self.prepare(xid, &branch).await.map_err(Into::into);
                }
                self.commit_unwritten().await?;
                self.held.clean();
                Ok(())
            }

            /// Runs one text. What is under way when the future is dropped leaves the transaction
            /// fit for a rollback only.
            pub(in crate::store::$store) async fn start<'c>(
                &'c mut self,
                statement: Statement,
            ) -> Result<BoxStream<'c, Result<Step, sqlx::Error>>, sqlx::Error> {
                let seen = self.inspect(statement.sql.as_str()).await?;
                let returns = returns_to_savepoint(statement.sql.as_str());
                match std::mem::replace(&mut self.state, State::Busy) {
                    State::Open => {}
                    State::Idle => self.begin().await.map_err(|error| self.break_by(error))?,
                    // Drops whatever a failed or cancelled statement did; the database knows
                    // whether there is such a savepoint.
                    State::Busy | State::Broken(_) if returns => {}
                    State::Busy => return Err(self.stay_broken("a call on it was cancelled")),
                    State::Broken(reason) => return Err(self.stay_broken(&reason)),
                }
                self.has_written |= seen.writes == Writes::Yes;
                let branch = self.branch.as_ref();
                let watch = Watch::new(
                    self.pool.at(),
                    branch.and_then(|branch| branch.xid),
                    branch.and_then(Branch::backend),
                );
                Ok(self.follow(watch, statement, seen))
            }

            /// Hands on the steps of a text. The transaction is usable again once its last
            /// statement has yielded something: who drops a stream of rows after that has seen
            /// what it wanted.
            fn follow<'c>(
                &'c mut self,
                watch: Watch<AtPool>,
                statement: Statement,
                seen: Text,
            ) -> BoxStream<'c, Result<Step, sqlx::Error>> {
                let Self {
                    held,
                    state,
                    retryable,
                    has_written,
                    ..
                } = self;
                let steps = watch.over_steps(held.get().fetch_many(statement));
                let follow = move |(mut steps, state, [retryable, has_written], mut ended): (
                    BoxStream<'c, _>,
                    &'c mut State,
                    [&'c mut bool; 2],
                    usize,
                )| async move {
                    let step: Option<Result<Step, sqlx::Error>> = steps.next().await;
                    match &step {
                        Some(Ok(done)) => {
                            let rows = done.as_ref().left().map_or(1, $result::rows_affected);
                            *has_written |= seen.writes == Writes::IfRows && rows > 0;
                            if ended + 1 >= seen.statements {
                                *state = State::Open;
                                *retryable = false;
                            }
                            ended += usize::from(matches!(done, Either::Left(_)));
                        }
                        Some(Err(_)) => {}
                        None if matches!(state, State::Busy) => *state = State::Open,
                        None => {}
                    }
                    let step = step?.map_err(|error| after_error(state, retryable, error));
                    Some((step, (steps, state, [retryable, has_written], ended)))
                };
                stream::unfold((steps, state, [retryable, has_written], 0), follow).boxed()
            }

            fn stay_broken(&mut self, reason: &str) -> sqlx::Error {
                self.state = State::Broken(reason.to_owned());
                Error::Broken {
                    reason: reason.to_owned(),
                }
                .into()
            }

            fn break_by(&mut self, error: sqlx::Error) -> sqlx::Error {
                break_by(&mut self.state, &mut self.retryable, error)
            }
        }

        impl Repeatable for XaTransaction {
            fn failed_retryably(&self) -> bool {
                self.retryable
            }

            async fn commit(self) -> Result<(), sqlx::Error> {
                self.commit().await
            }

            async fn rollback(self) -> Result<(), sqlx::Error> {
                self.rollback().await
            }
        }
    };
}
