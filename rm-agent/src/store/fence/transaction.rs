//! The local transaction that handlers get: the same for each database, with sqlx's own types.

/// Defines `FencedTransaction` for a database.
macro_rules! fenced_transaction {
    (
        $database:ident, $connection:ident, $result:ident, $row:ident, $statement:ident,
        $type_info:ident, $name:literal
    ) => {
        #[doc = concat!("A local transaction on ", $name, " in which a handler does its work.")]
        ///
        /// Statements go to it like to sqlx's own transaction, `.execute(&mut *tx)`; it
        /// dereferences to the connection. It is committed by this library, in the same step as
        /// the row that says how far the branch is: run no `COMMIT` or `ROLLBACK` in it. Savepoints
        /// are fine (`tx.begin()` with [`sqlx::Connection`]).
        pub struct FencedTransaction {
            held: Held,
            /// Of a try; `None`: it finishes a branch.
            begun: Option<Begun>,
            key: Option<BranchKey>,
        }

        impl FencedTransaction {
            /// The global transaction. `None` only before the branch is registered, when no
            /// handler has it yet.
            #[must_use]
            pub fn xid(&self) -> Option<accede_proto::Xid> {
                self.key.map(|key| key.xid)
            }

            /// The branch's number in it, from 1.
            #[must_use]
            pub fn branch(&self) -> Option<u32> {
                self.key.map(|key| key.branch)
            }
        }

        impl std::fmt::Debug for FencedTransaction {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("FencedTransaction")
                    .field("branch", &self.key)
                    .finish_non_exhaustive()
            }
        }

        impl std::ops::Deref for FencedTransaction {
            type Target = sqlx::$connection;

            fn deref(&self) -> &Self::Target {
                self.held.peek()
            }
        }

        impl std::ops::DerefMut for FencedTransaction {
            fn deref_mut(&mut self) -> &mut Self::Target {
                self.held.get()
            }
        }

        impl Drop for FencedTransaction {
            fn drop(&mut self) {
                // What finishes branches has few connections with settings of their own: one that
                // is not given back clean is closed.
                if self.begun.is_some() {
                    self.held.abandon();
                }
            }
        }

        impl<'c> sqlx::Executor<'c> for &'c mut FencedTransaction {
            type Database = sqlx::$database;

            fn fetch_many<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> futures_util::stream::BoxStream<
                'e,
                Result<sqlx::Either<$result, $row>, sqlx::Error>,
            >
            where
                'c: 'e,
                E: 'q + sqlx::Execute<'q, sqlx::$database>,
            {
                self.held.get().fetch_many(query)
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> futures_util::future::BoxFuture<'e, Result<Option<$row>, sqlx::Error>>
            where
                'c: 'e,
                E: 'q + sqlx::Execute<'q, sqlx::$database>,
            {
                self.held.get().fetch_optional(query)
            }

            fn prepare_with<'e>(
                self,
                sql: sqlx::SqlStr,
                parameters: &'e [$type_info],
            ) -> futures_util::future::BoxFuture<'e, Result<$statement, sqlx::Error>>
            where
                'c: 'e,
            {
                self.held.get().prepare_with(sql, parameters)
            }

            fn describe<'e>(
                self,
                sql: sqlx::SqlStr,
            ) -> futures_util::future::BoxFuture<
                'e,
                Result<sqlx_core::describe::Describe<sqlx::$database>, sqlx::Error>,
            >
            where
                'c: 'e,
            {
                self.held.get().describe(sql)
            }
        }
    };
}
