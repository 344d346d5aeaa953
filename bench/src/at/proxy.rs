//! Stands between client and database and counts round trips: how often the client speaks after
//! the server has spoken.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// A running proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    trips: Arc<AtomicU64>,
    /// The port of 127.0.0.1 on which it listens.
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy in front of `target`, like `127.0.0.1:5432`.
    ///
    /// # Errors
    /// When there is no free port.
    pub(crate) async fn start(target: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let trips = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let counted = Arc::clone(&trips);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // A connection that breaks is reported by the client at its other end.
                connections.spawn(connection(client, target.clone(), Arc::clone(&counted)));
            }
        });
        Ok(Self {
            trips,
            port,
            _tasks: tasks,
        })
    }

    /// Round trips so far.
    pub(crate) fn trips(&self) -> u64 {
        self.trips.load(SeqCst)
    }
}

async fn connection(client: TcpStream, target: String, trips: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    // Without it messages wait: slower, still counted right.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let server_spoke = AtomicBool::new(true);
    let client_speaks = || {
        if server_spoke.swap(false, SeqCst) {
            trips.fetch_add(1, SeqCst);
        }
    };
    tokio::select! {
        () = pump(from_client, to_server, client_speaks) => {}
        () = pump(from_server, to_client, || server_spoke.store(true, SeqCst)) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    speaks: impl Fn(),
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        speaks();
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trip_is_a_question_after_an_answer() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut connection, _) = server.accept().await.unwrap();
            let mut two = [0; 2];
            while connection.read_exact(&mut two).await.is_ok() {
                connection.write_all(b"!").await.unwrap();
            }
        });
        let proxy = Proxy::start(target).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        let mut one = [0];
        for _ in 0..5 {
            // Two writes, one trip.
            client.write_all(b"a").await.unwrap();
            client.write_all(b"b").await.unwrap();
            client.read_exact(&mut one).await.unwrap();
        }
        assert_eq!(proxy.trips(), 5);
    }
}
