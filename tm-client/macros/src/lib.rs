//! The attribute macros of `accede-tm-client`, which re-exports and documents them.

mod arguments;
mod duration;
mod global_transaction;

use proc_macro::TokenStream;

/// Makes an async function a global transaction: `Ok` commits, `Err` rolls back
/// everywhere.
///
/// ```
/// use accede_tm_client::{Error, TransactionClient, global_transaction};
///
/// struct Shop {
///     transactions: TransactionClient,
/// }
///
/// #[global_transaction(client = shop.transactions, name = "place-order", timeout = "30s")]
/// async fn place_order(shop: &Shop, product: &str) -> Result<(), Error> {
///     // Calls of other services and database work go here.
///     Ok(())
/// }
/// ```
///
/// | key | meaning | default |
/// |---|---|---|
/// | `client` | an expression for the `TransactionClient`, made of the function's parameters | required |
/// | `name` | what people see in lists and logs | the function's name |
/// | `timeout` | how long it may stay undecided: `"500ms"`, `"30s"`, `"5m"`, `"1h"` | 60 s |
/// | `propagation` | `"required"`, `"requires_new"`, `"supports"`, `"not_supported"`, `"mandatory"`, `"never"` | `"required"` |
/// | `rollback_on` | a function `fn(&E) -> bool`: which errors roll back; the others commit | all |
/// | `commit_on` | the same, the other way round; only one of the two | none |
///
/// The function returns a `Result`, and its error type implements
/// `From<accede_tm_client::Error>`, so that it can tell that the commit was
/// decided otherwise or is not known. The macro only wraps the body into
/// `TransactionClient::run_deciding`, where the rules are written down; the same
/// can be had without it.
///
/// Attributes above this one see an async function, those below the wrapped one:
/// put `#[tracing::instrument]` above it so that the span covers the commit. On
/// methods inside an `#[async_trait]` block it cannot be used, as those are not
/// async any more: call an annotated method from there.
#[proc_macro_attribute]
pub fn global_transaction(arguments: TokenStream, item: TokenStream) -> TokenStream {
    global_transaction::expand(arguments.into(), &item.into()).into()
}
