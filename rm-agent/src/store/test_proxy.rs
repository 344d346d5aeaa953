//! A TCP proxy that counts round trips: how often the client speaks after the server.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

#[derive(Default)]
pub(super) struct Trips {
    count: AtomicUsize,
    loses_answers: AtomicBool,
}

impl Trips {
    /// Counts from here on; returns what was counted.
    pub(super) fn take(&self) -> usize {
        self.count.swap(0, Ordering::SeqCst)
    }

    /// From now on a connection ends when the server answers on it; the client hears nothing.
    pub(super) fn lose_answers(&self, yes: bool) {
        self.loses_answers.store(yes, Ordering::SeqCst);
    }
}

/// Starts a proxy in front of the database at `url`; returns the proxy's URL.
pub(super) async fn start(url: &str) -> (String, Arc<Trips>) {
    let (before, rest) = url.split_once('@').expect("the URL has a user");
    let (target, database) = rest.split_once('/').expect("the URL has a database");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let trips = Arc::new(Trips::default());
    let (counted, target) = (Arc::clone(&trips), target.to_owned());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&target).await.expect("the server is up");
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            let server_spoke = Arc::new(AtomicBool::new(true));
            let spoke = Arc::clone(&server_spoke);
            let trips = Arc::clone(&counted);
            tokio::spawn(pump(client_read, server_write, move || {
                if spoke.swap(false, Ordering::SeqCst) {
                    trips.count.fetch_add(1, Ordering::SeqCst);
                }
                true
            }));
            let trips = Arc::clone(&counted);
            tokio::spawn(pump(server_read, client_write, move || {
                server_spoke.store(true, Ordering::SeqCst);
                !trips.loses_answers.load(Ordering::SeqCst)
            }));
        }
    });
    (format!("{before}@{address}/{database}"), trips)
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    goes_on: impl Fn() -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !goes_on() || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}
