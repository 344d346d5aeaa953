//! The pool of XA transactions, over the connections of an [`AtPool`].

use super::{Known, XaTransaction};
use crate::store::postgres::{AtPool, AtTransaction};

xa_pool!(
    PgPool,
    "accede_rm_agent::AtPool",
    postgres,
    "PREPARE TRANSACTION"
);
