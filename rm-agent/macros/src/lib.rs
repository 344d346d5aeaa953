//! The attribute macros of `accede-rm-agent`, which re-exports and documents them.

mod arguments;
mod phase_one;
mod saga_step;
mod tcc;
mod three_phase;

use proc_macro::TokenStream;

/// Makes a method of a service the try of a TCC action.
///
/// ```
/// use std::sync::Arc;
///
/// use accede_rm_agent::{
///     Error, FencedTransaction, tcc,
///     tcc::{HandlerError, Tcc},
/// };
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Freeze {
///     account: i64,
///     amount: i64,
/// }
///
/// #[derive(Debug, thiserror::Error)]
/// enum AccountError {
///     #[error("not enough money")]
///     NotEnough,
///     #[error(transparent)]
///     Accede(#[from] Error),
///     #[error(transparent)]
///     Database(#[from] sqlx::Error),
/// }
///
/// struct Accounts;
///
/// impl Accounts {
///     #[tcc(resource = "account.freeze", confirm = settle, cancel = release)]
///     async fn freeze(&self, tx: &mut FencedTransaction, args: Freeze) -> Result<(), AccountError> {
///         let frozen = sqlx::query(
///             "UPDATE account SET free = free - $2, frozen = frozen + $2 WHERE id = $1 AND free >= $2",
///         );
///         let frozen = frozen.bind(args.account).bind(args.amount).execute(&mut *tx).await?;
///         match frozen.rows_affected() {
///             0 => Err(AccountError::NotEnough),
///             _ => Ok(()),
///         }
///     }
///
///     async fn settle(&self, tx: &mut FencedTransaction, args: Freeze) -> Result<(), HandlerError> {
///         let settled = sqlx::query("UPDATE account SET frozen = frozen - $2 WHERE id = $1");
///         settled.bind(args.account).bind(args.amount).execute(&mut *tx).await?;
///         Ok(())
///     }
///
///     async fn release(&self, tx: &mut FencedTransaction, args: Freeze) -> Result<(), HandlerError> {
///         let released = sqlx::query(
///             "UPDATE account SET free = free + $2, frozen = frozen - $2 WHERE id = $1",
///         );
///         released.bind(args.account).bind(args.amount).execute(&mut *tx).await?;
///         Ok(())
///     }
/// }
///
/// let accounts = Arc::new(Accounts);
/// let freeze: Tcc<Freeze, AccountError> = Accounts::freeze_tcc(&accounts);
/// // RmAgent::builder("account").postgres("account-db", url).tcc("account-db", &freeze) …
/// // then, inside a global transaction: freeze.call(Freeze { account: 7, amount: 5 }).await?
/// # assert_eq!(freeze.resource(), "account.freeze");
/// ```
///
/// | key | meaning |
/// |---|---|
/// | `resource` | the action's name, the same in all services that can finish it |
/// | `confirm` | the method that turns what was reserved into what was meant |
/// | `cancel` | the method that gives back what was reserved |
///
/// Beside the method, which stays as it is, there is a function of its name with `_tcc` at the
/// end: it takes the service in an `Arc` and returns a `Tcc`, to be given to the agent's builder
/// and called. All three methods take `&self`, the transaction (`&mut FencedTransaction` of the
/// database, or `&mut Unfenced`) and the arguments by value. The errors of `confirm` and `cancel`
/// become a `HandlerError`. A method without the attribute is called directly and is no branch.
#[proc_macro_attribute]
pub fn tcc(arguments: TokenStream, item: TokenStream) -> TokenStream {
    tcc::expand(arguments.into(), &item.into()).into()
}

/// Makes a method of a service a participant of 3PC: the method is its `can_commit`.
///
/// ```
/// use std::sync::Arc;
///
/// use accede_rm_agent::{
///     Error, FencedTransaction, three_phase,
///     three_phase::{HandlerError, Participant},
/// };
///
/// struct Accounts;
///
/// impl Accounts {
///     #[three_phase(resource = "account.pay", do_commit = settle, abort = release)]
///     async fn promise(&self, tx: &mut FencedTransaction, amount: i64) -> Result<(), Error> {
///         // reserve it; an error is a no
///         Ok(())
///     }
///
///     async fn settle(&self, tx: &mut FencedTransaction, amount: i64) -> Result<(), HandlerError> {
///         Ok(())
///     }
///
///     async fn release(&self, tx: &mut FencedTransaction, amount: i64) -> Result<(), HandlerError> {
///         Ok(())
///     }
/// }
///
/// let pay: Participant<i64, Error> = Accounts::promise_three_phase(&Arc::new(Accounts));
/// // RmAgent::builder("account").postgres("account-db", url).three_phase("account-db", &pay) …
/// // then, inside a global transaction: pay.call(5).await?
/// # assert_eq!(pay.resource(), "account.pay");
/// ```
///
/// | key | meaning |
/// |---|---|
/// | `resource` | the action's name, the same in all services that can finish it |
/// | `pre_commit` | the method that hears that the commit is decided; may be left out |
/// | `do_commit` | the method that turns the promise into what it was for |
/// | `abort` | the method that takes the promise back |
///
/// Beside the method, which stays as it is, there is a function of its name with `_three_phase` at
/// the end: it takes the service in an `Arc` and returns a `Participant`, to be given to the
/// agent's builder and called. All methods take `&self`, the transaction (`&mut
/// FencedTransaction` of the database) and the arguments by value. The errors of the others become
/// a `HandlerError`. A method without the attribute is called directly and is no branch.
#[proc_macro_attribute]
pub fn three_phase(arguments: TokenStream, item: TokenStream) -> TokenStream {
    three_phase::expand(arguments.into(), &item.into()).into()
}

/// Makes a method of a service a step of sagas.
///
/// ```
/// use std::sync::Arc;
///
/// use accede_rm_agent::{
///     FencedTransaction, saga_step,
///     saga::{HandlerError, SagaAction, StepInput},
/// };
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Booking {
///     trip: i64,
///     seats: i64,
/// }
///
/// struct Flights;
///
/// impl Flights {
///     #[saga_step(resource = "flight.book", compensate = cancel)]
///     async fn book(
///         &self,
///         tx: &mut FencedTransaction,
///         step: StepInput<Booking>,
///     ) -> Result<i64, HandlerError> {
///         let booked = sqlx::query_scalar(
///             "UPDATE flight SET free = free - $1 WHERE free >= $1 RETURNING number",
///         );
///         let flight: Option<i64> = booked.bind(step.input.seats).fetch_optional(&mut *tx).await?;
///         flight.ok_or_else(|| HandlerError::definite("no flight has so many free seats"))
///     }
///
///     async fn cancel(
///         &self,
///         tx: &mut FencedTransaction,
///         step: StepInput<Booking>,
///     ) -> Result<(), HandlerError> {
///         let flight: Option<i64> = step.own_result()?;
///         let cancelled = sqlx::query("UPDATE flight SET free = free + $1 WHERE number = $2");
///         cancelled.bind(step.input.seats).bind(flight).execute(&mut *tx).await?;
///         Ok(())
///     }
/// }
///
/// let flights = Arc::new(Flights);
/// let book: SagaAction = Flights::book_step(&flights);
/// // RmAgent::builder("flight").postgres("flight-db", url).saga_step("flight-db", &book) …
/// # assert_eq!(book.resource(), "flight.book");
/// ```
///
/// | key | meaning |
/// |---|---|
/// | `resource` | the action's name, the same in all services that do it |
/// | `compensate` | the method that takes back what was done |
///
/// Beside the method, which stays as it is, there is a function of its name with `_step` at the
/// end: it takes the service in an `Arc` and returns a `SagaAction`, to be given to the agent's
/// builder. Both methods take `&self`, the transaction (`&mut FencedTransaction` of the database)
/// and a `StepInput` by value. Their errors become a `HandlerError`.
#[proc_macro_attribute]
pub fn saga_step(arguments: TokenStream, item: TokenStream) -> TokenStream {
    saga_step::expand(arguments.into(), &item.into()).into()
}
