//! One folder per database, and what they share.

mod connection;
pub(crate) mod finish;
mod lock_check;
pub(crate) mod mariadb;
mod outcome;
pub(crate) mod postgres;
mod retry;
mod savepoint;
pub(crate) mod sqlite;
#[cfg(test)]
mod test_proxy;
#[cfg(test)]
mod test_random;
#[cfg(test)]
mod test_registrar;
mod watch;
