//! The client's side for reqwest.

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};

use super::headers;
use crate::context;

/// Sends the caller's transaction along with every request of a
/// `reqwest_middleware::ClientWithMiddleware`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutgoingXidMiddleware;

#[async_trait::async_trait]
impl Middleware for OutgoingXidMiddleware {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        headers::write(request.headers_mut(), context::current());
        next.run(request, extensions).await
    }
}
