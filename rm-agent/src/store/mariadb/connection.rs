//! How connections to MariaDB are given back.

use futures_util::future::BoxFuture;
use sqlx::{MySql, MySqlConnection};

use super::session::ROLLBACK;
use crate::store::connection::{self, Lendable};

pub(super) type Held = connection::Held<MySql>;
pub(super) type Lender = connection::Lender<MySql>;

impl Lendable for MySql {
    type Session = ();

    fn roll_back(connection: &mut MySqlConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async move { sqlx::raw_sql(ROLLBACK).execute(connection).await.map(drop) })
    }
}
