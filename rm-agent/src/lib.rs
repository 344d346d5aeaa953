//! The resource manager's side of Accede, beside the data: AT transactions over
//! PostgreSQL, MariaDB and SQLite through sqlx.
//!
//! [`AtPool`] takes the place of sqlx's `PgPool`. A statement that runs while
//! the task works for a global transaction becomes part of a *branch*: its rows'
//! images are recorded, the branch is registered with the coordinator, and the
//! undo record is written in the same local transaction. Everything else runs
//! untouched. Where the database shall undo by itself, [`XaPool`] has it
//! prepare the branch instead. [`RmAgent`] connects the pools of a process with the coordinator.

mod action;
mod agent;
mod at;
mod clock;
mod context;
mod error;
mod global_lock;
pub mod limits;
mod moment;
#[cfg(any(test, feature = "testkit"))]
mod polled;
mod registrar;
pub mod saga;
#[cfg(feature = "schema")]
pub mod schema;
mod store;
pub mod tcc;
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod testkit;
pub mod three_phase;

/// How a service learns of its caller's transaction and passes it on.
pub use accede_link::{
    context::{
        NoTransaction, TransactionContext, carry, current_xid, scope, spawn_in_transaction, suspend,
    },
    propagate,
};
pub use accede_rm_macros::{saga_step, tcc, three_phase};
pub use agent::{
    AgentLimits, AgentStatus, ResourceState, ResourceStatus, RmAgent, RmAgentBuilder,
    SessionLimits, SessionStatus,
};
pub use at::lock_name::describe_row_lock;
pub use error::{Error, is_retryable};
pub use global_lock::{global_lock, global_lock_within};
pub use registrar::{
    ColumnDelta, EscrowLock, LockKey, RefusalCode, Refused, Registered, Registrar, Registration,
    RowCheck,
};
pub use store::postgres::{
    AtPool, AtPoolBuilder, AtSavepoint, AtTransaction, FencedTransaction, XaPool, XaTransaction,
};

/// The code of docs/xa.md is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/xa.md")]
struct XaPage;

/// AT and XA on MariaDB: what stands at the top of this crate for PostgreSQL.
pub mod mariadb {
    pub use crate::store::mariadb::{
        AtPool, AtPoolBuilder, AtSavepoint, AtTransaction, FencedTransaction, XaPool, XaTransaction,
    };
}

/// AT on SQLite: what stands at the top of this crate for PostgreSQL.
pub mod sqlite {
    pub use crate::store::sqlite::{AtPool, AtPoolBuilder, AtTransaction, FencedTransaction};
}
