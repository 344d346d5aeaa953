//! One throw-away PostgreSQL server per test binary.
//!
//! A shell script runs it and waits at its standard input: when this process
//! ends, however it does, the pipe closes and the script stops the server and
//! removes its folder.

use std::{
    io::Write as _,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection};

const SCRIPT: &str = r#"
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
PATH="${bin:-}:$PATH"
dir=$(mktemp -d /tmp/accede-rm-test-XXXXXX)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
initdb -D "$dir/data" -U tester --auth=trust --encoding=UTF8 --no-locale --no-sync >/dev/null
postgres -D "$dir/data" -k "$dir" -p "$1" -c listen_addresses=127.0.0.1 -c fsync=off \
  -c max_connections=300 -c max_prepared_transactions=200 -c shared_buffers=64MB \
  -c deadlock_timeout=200ms </dev/null &
server=$!
read -r _ || true
kill -INT "$server"
wait "$server" || true
"#;

struct Server {
    base_url: String,
    /// Keeps the pipe open.
    _script: Option<Child>,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

fn server() -> &'static Server {
    SERVER.get_or_init(|| {
        if let Ok(url) = std::env::var("ACCEDE_TEST_DATABASE_URL") {
            let base_url = url.trim_end_matches('/').to_owned();
            return Server {
                base_url,
                _script: None,
            };
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let root = std::fs::metadata("/proc/self").is_ok_and(|meta| {
            use std::os::unix::fs::MetadataExt as _;
            meta.uid() == 0
        });
        let mut command = if root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let script = command
            .args(["-c", SCRIPT, "sh", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "throw-away PostgreSQL on port {port}");
        Server {
            base_url: format!("postgres://tester@127.0.0.1:{port}"),
            _script: Some(script),
        }
    })
}

/// Creates an empty database and returns its URL.
pub(super) async fn database() -> String {
    let server = tokio::task::spawn_blocking(server)
        .await
        .expect("the server starts");
    let admin = format!("{}/postgres", server.base_url);
    let connect = async {
        loop {
            match PgConnection::connect(&admin).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let mut connection = tokio::time::timeout(Duration::from_secs(60), connect)
        .await
        .expect("PostgreSQL answers within a minute; is it installed?");
    let name = format!(
        "t{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    connection
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "CREATE DATABASE {name}"
        ))))
        .await
        .expect("a database");
    format!("{}/{name}", server.base_url)
}
