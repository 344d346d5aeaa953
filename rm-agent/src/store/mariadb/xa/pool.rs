//! The pool of XA transactions, over the connections of an [`AtPool`].

use super::{Known, XaTransaction};
use crate::store::mariadb::{AtPool, AtTransaction};

xa_pool!(
    MySqlPool,
    "accede_rm_agent::mariadb::AtPool",
    mariadb,
    "XA PREPARE"
);
