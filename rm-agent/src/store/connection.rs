//! Connections on loan: never reused with a transaction left open, and kept at hand
//! between transactions.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::{Connection as _, Pool, pool::PoolConnection};

use crate::{clock, error::Error, limits};

/// What differs between databases when a connection is given back.
pub(super) trait Lendable: sqlx::Database {
    /// What is known of a connection from one loan to the next, as long as it stays at hand.
    type Session: Default + Send;

    /// Ends whatever transaction is open, so that the connection may be reused.
    fn roll_back<'c>(
        connection: &'c mut Self::Connection,
        session: &'c mut Self::Session,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>>;
}

/// A pool, and those of its connections that are kept at hand.
///
/// sqlx asks every connection that is given back whether it lives, which is a round
/// trip for each transaction. One whose last message was just answered needs no such
/// question, and the next transaction may have it at once. It goes back to the pool,
/// which tests it, ends what is too old and serves whoever waits there:
///
/// - when a transaction waits for a connection,
/// - after [`limits::LOANS`] transactions, so that others of the pool have their turn,
/// - after [`limits::AT_HAND`] without use.
pub(super) struct Lender<DB: Lendable> {
    pool: Pool<DB>,
    /// Off when the application has settings of its own for connections that are given back.
    keeps: bool,
    shelf: Mutex<Shelf<DB>>,
}

struct Shelf<DB: Lendable> {
    /// The one used last is at the end, and is taken first.
    kept: Vec<Kept<DB>>,
    /// Transactions that wait for a connection of the pool.
    waiting: usize,
    /// A task looks after `kept`.
    tended: bool,
}

struct Kept<DB: Lendable> {
    connection: PoolConnection<DB>,
    session: DB::Session,
    loans: u32,
    since: Instant,
}

impl<DB: Lendable> Lender<DB> {
    pub(super) fn new(pool: Pool<DB>, keeps: bool) -> Arc<Self> {
        let shelf = Shelf {
            kept: Vec::new(),
            waiting: 0,
            tended: false,
        };
        Arc::new(Self {
            pool,
            keeps,
            shelf: Mutex::new(shelf),
        })
    }

    pub(super) fn pool(&self) -> &Pool<DB> {
        &self.pool
    }

    /// A connection at hand, or one of the pool.
    ///
    /// # Errors
    /// Those of [`Pool::acquire`].
    pub(super) async fn lend(self: &Arc<Self>) -> Result<Held<DB>, sqlx::Error> {
        let kept = {
            let mut shelf = self.shelf.lock();
            let kept = shelf.kept.pop();
            shelf.waiting += usize::from(kept.is_none());
            kept
        };
        let mut held = match kept {
            Some(kept) => {
                let mut held = Held::new(kept.connection);
                held.session = kept.session;
                held.loans = kept.loans;
                held
            }
            None => {
                let _waiting = Waiting(self);
                Held::new(self.pool.acquire().await?)
            }
        };
        held.lender = Some(Arc::clone(self));
        Ok(held)
    }

    /// A transaction waits for a connection of the pool.
    pub(super) fn is_waited_for(&self) -> bool {
        self.shelf.lock().waiting > 0
    }

    /// A connection that was lent; if there was none in time, why.
    ///
    /// # Errors
    /// [`Error::NoConnection`], and what the database said.
    pub(super) async fn explained(
        &self,
        lent: Result<Held<DB>, sqlx::Error>,
        resource: &Arc<str>,
    ) -> Result<Held<DB>, Error> {
        match lent {
            Err(sqlx::Error::PoolTimedOut) => Err(self.why_none(resource).await),
            lent => lent.map_err(Error::database("taking a connection")),
        }
    }

    /// Why there was none in time. The pool itself only says that time is up.
    async fn why_none(&self, resource: &Arc<str>) -> Error {
        let most = self.pool.options().get_max_connections();
        let reason = if self.pool.size() >= most {
            format!("all {most} are in use; end transactions sooner, or allow more of them")
        } else {
            let options = self.pool.connect_options();
            let connecting = DB::Connection::connect_with(&options);
            match tokio::time::timeout(limits::CONNECT_PROBE, connecting).await {
                Ok(Ok(_)) => "it could not be reached, but can be now; try again".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            }
        };
        Error::NoConnection {
            resource: Arc::clone(resource),
            waited: self.pool.options().get_acquire_timeout(),
            reason,
        }
    }

    fn take_back(
        self: &Arc<Self>,
        connection: PoolConnection<DB>,
        session: DB::Session,
        loans: u32,
    ) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // sqlx cannot take it back without one.
            return drop(connection.detach());
        };
        if !self.keeps || loans >= limits::LOANS {
            return;
        }
        let mut shelf = self.shelf.lock();
        if shelf.waiting > 0 {
            // To the pool, after the lock.
            drop(shelf);
            return drop(connection);
        }
        shelf.kept.push(Kept {
            connection,
            session,
            loans,
            since: clock::now(),
        });
        if !std::mem::replace(&mut shelf.tended, true) {
            runtime.spawn(tend(Arc::downgrade(self)));
        }
    }

    /// Gives back what nobody has used for a while; false if nothing is left.
    fn give_back_unused(&self) -> bool {
        let now = clock::now();
        let mut shelf = self.shelf.lock();
        let unused = |kept: &Kept<DB>| now.duration_since(kept.since) >= limits::AT_HAND;
        let count = shelf.kept.iter().take_while(|kept| unused(kept)).count();
        let unused: Vec<Kept<DB>> = shelf.kept.drain(..count).collect();
        shelf.tended = !shelf.kept.is_empty();
        let tended = shelf.tended;
        drop(shelf);
        drop(unused);
        tended
    }
}

impl<DB: Lendable> Drop for Lender<DB> {
    fn drop(&mut self) {
        // Perhaps without a runtime; closed like the idle ones of a pool that is dropped.
        for kept in self.shelf.get_mut().kept.drain(..) {
            drop(kept.connection.detach());
        }
    }
}

async fn tend<DB: Lendable>(lender: Weak<Lender<DB>>) {
    loop {
        tokio::time::sleep(limits::AT_HAND).await;
        match lender.upgrade() {
            Some(lender) if lender.give_back_unused() => {}
            _ => return,
        }
    }
}

/// Counts a transaction that waits for the pool.
struct Waiting<'a, DB: Lendable>(&'a Lender<DB>);

impl<DB: Lendable> Drop for Waiting<'_, DB> {
    fn drop(&mut self) {
        self.0.shelf.lock().waiting -= 1;
    }
}

/// A connection on loan. Unless it was marked clean when it is dropped, it is
/// closed instead of being given back.
pub(super) struct Held<DB: Lendable> {
    connection: Option<PoolConnection<DB>>,
    clean: bool,
    /// Something was sent since it was last known to be at rest.
    touched: bool,
    lender: Option<Arc<Lender<DB>>>,
    session: DB::Session,
    /// How often it was lent without a visit to the pool.
    loans: u32,
}

impl<DB: Lendable> Held<DB> {
    /// One that goes back to its pool.
    pub(super) fn new(connection: PoolConnection<DB>) -> Self {
        Self {
            connection: Some(connection),
            clean: true,
            touched: false,
            lender: None,
            session: DB::Session::default(),
            loans: 0,
        }
    }

    /// What is known of it; nothing, if it comes from the pool.
    pub(super) fn session(&mut self) -> &mut DB::Session {
        &mut self.session
    }

    /// The connection itself.
    pub(super) fn get(&mut self) -> &mut DB::Connection {
        self.touched = true;
        self.connection
            .as_mut()
            .expect("after `drop`, `close`, `abandon` or a failed `renew` nobody asks")
    }

    /// The same, only to look at.
    pub(super) fn peek(&self) -> &DB::Connection {
        self.connection
            .as_ref()
            .expect("after `drop`, `close`, `abandon` or a failed `renew` nobody asks")
    }

    /// Sends the message that opens a local transaction. A pooled connection may have died since
    /// it was last used; nothing has happened on it yet, so another one takes its place.
    pub(super) async fn first<T>(
        &mut self,
        pool: &Pool<DB>,
        is_lost: fn(&sqlx::Error) -> bool,
        mut send: impl for<'c> FnMut(
            &'c mut DB::Connection,
            &DB::Session,
        ) -> BoxFuture<'c, Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let mut renewals = pool.size();
        loop {
            self.soil();
            self.touched = true;
            let connection = self
                .connection
                .as_mut()
                .expect("after `drop`, `close`, `abandon` or a failed `renew` nobody asks");
            match send(connection, &self.session).await {
                Err(error) if renewals > 0 && is_lost(&error) => {
                    renewals -= 1;
                    self.renew(pool).await?;
                }
                result => return result,
            }
        }
    }

    /// From now on there may be an open transaction.
    pub(super) fn soil(&mut self) {
        self.clean = false;
    }

    /// There certainly is no open transaction, and no answer is under way.
    pub(super) fn clean(&mut self) {
        self.clean = true;
        self.touched = false;
    }

    /// Rolls back; on success the connection may be reused.
    ///
    /// # Errors
    /// When the connection broke; then the database rolls back by itself.
    pub(super) async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        if !self.clean && self.connection.is_some() {
            self.touched = true;
            if let Some(connection) = self.connection.as_mut() {
                DB::roll_back(connection, &mut self.session).await?;
            }
            self.clean();
        }
        Ok(())
    }

    /// Closes the connection, which proved to be broken, and takes another.
    ///
    /// # Errors
    /// Those of [`Pool::acquire`].
    pub(super) async fn renew(&mut self, pool: &Pool<DB>) -> Result<(), sqlx::Error> {
        // First out, then in: it may be the pool's only one.
        self.close().await;
        self.connection = Some(pool.acquire().await?);
        self.clean();
        self.session = DB::Session::default();
        self.loans = 0;
        Ok(())
    }

    /// Closes the connection, which rolls back.
    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = connection.close().await;
        }
    }

    /// Moves the connection on, with whatever is open on it. Here is none afterwards.
    pub(super) fn take(&mut self) -> Self {
        Self {
            connection: self.connection.take(),
            clean: std::mem::replace(&mut self.clean, true),
            touched: true,
            lender: self.lender.take(),
            session: std::mem::take(&mut self.session),
            loans: self.loans,
        }
    }

    /// For destructors: rolls back in the background if there is a runtime,
    /// else the connection is closed, which rolls back too.
    pub(super) fn abandon(&mut self) {
        if self.clean {
            return;
        }
        let mut held = self.take();
        if held.connection.is_none() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let rollback =
                    tokio::time::timeout(limits::DROP_ROLLBACK_TIMEOUT, held.roll_back());
                if !matches!(rollback.await, Ok(Ok(()))) {
                    tracing::debug!("closing a connection whose rollback did not finish");
                }
            });
        }
    }
}

impl<DB: Lendable> Drop for Held<DB> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if !self.clean {
            connection.close_on_drop();
        } else if let (Some(lender), false) = (&self.lender, self.touched) {
            let session = std::mem::take(&mut self.session);
            lender.take_back(connection, session, self.loans + 1);
        }
    }
}

impl<DB: Lendable> std::fmt::Debug for Held<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("clean", &self.clean)
            .field("loans", &self.loans)
            .finish_non_exhaustive()
    }
}
