//! The accept loop: one task for each connection, HTTP/1 and HTTP/2 told apart by the first bytes.

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::limits::{
    ACCEPT_PAUSE, CONNECTION_WINDOW_BYTES, CONNECTIONS, FIRST_BYTES, KEEP_ALIVE_INTERVAL,
    KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES, STREAMS,
};

/// How connections are ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    /// No new connection and no new stream.
    pub(crate) graceful: CancellationToken,
    /// Now.
    pub(crate) abrupt: CancellationToken,
    /// Told when the last connection has ended.
    pub(crate) connections: TaskTracker,
}

/// Accepts connections until it is told to end.
pub(crate) async fn accept(listener: TcpListener, routes: Router, ending: Ending) {
    let builder = Arc::new(builder());
    let service = TowerToHyperService::new(routes);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = ending.graceful.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%peer, "refused a connection: {CONNECTIONS} are open");
            continue;
        };
        let (builder, service, ending) = (Arc::clone(&builder), service.clone(), ending.clone());
        ending.connections.clone().spawn(async move {
            serve(&builder, service, stream, peer, &ending).await;
            drop(permit);
        });
    }
    ending.connections.close();
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

async fn serve(
    builder: &auto::Builder<TokioExecutor>,
    service: TowerToHyperService<Router>,
    stream: TcpStream,
    peer: SocketAddr,
    ending: &Ending,
) {
    // Small answers must not wait for the acknowledgement of earlier ones.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    // Whoever connects and says nothing takes no room for long.
    let first = tokio::select! {
        () = ending.graceful.cancelled() => return,
        first = timeout(FIRST_BYTES, stream.readable()) => first,
    };
    if first.is_err() {
        return;
    }
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut leaving = false;
    loop {
        tokio::select! {
            result = &mut connection => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "a connection ended");
                }
                return;
            }
            () = ending.graceful.cancelled(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = ending.abrupt.cancelled() => return,
        }
    }
}
