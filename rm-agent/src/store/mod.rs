//! One folder per database, and what they share.

#[macro_use]
pub(crate) mod fence;
#[cfg(test)]
#[macro_use]
mod test_tcc;
#[macro_use]
mod xa;
#[cfg(test)]
#[macro_use]
mod test_xa_open;
#[cfg(test)]
mod test_saga;
#[cfg(test)]
mod test_three_phase;

mod connection;
pub(crate) mod finish;
mod lock_check;
pub(crate) mod mariadb;
pub(crate) mod outcome;
pub(crate) mod postgres;
mod retry;
mod savepoint;
pub(crate) mod sqlite;
mod state;
#[cfg(test)]
mod test_proxy;
#[cfg(test)]
mod test_random;
#[cfg(test)]
pub(crate) mod test_registrar;
pub(crate) mod watch;
