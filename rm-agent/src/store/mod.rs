//! One folder per database.

pub(crate) mod postgres;
