//! `accede schema …`.

use std::fmt::Display;

use accede_rm_agent::{Error, schema};
use serde::Serialize;

use crate::{args::Schema, failure::Failure, output::Output};

/// What `accede schema … --json` prints.
#[derive(Serialize)]
struct Answer {
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<&'static str>,
}

/// `accede schema …`.
///
/// # Errors
/// When the URL is none, the database cannot be reached, or is not as it should be.
pub(crate) async fn run(what: &Schema, output: Output) -> Result<(), Failure> {
    let (done, sql, text) = match what {
        Schema::Create { url } => {
            schema::create(url).await.map_err(|error| failure(&error))?;
            (
                "create",
                None,
                "The tables are there; `accede schema check` looks at them closely.",
            )
        }
        Schema::Check { url } => {
            schema::check(url).await.map_err(|error| failure(&error))?;
            ("check", None, "The database is prepared for AT mode.")
        }
        Schema::Print { url } => {
            let sql = schema::print(url).map_err(|error| failure(&error))?;
            ("print", Some(sql), sql)
        }
    };
    output.write(&Answer { done, sql }, text)
}

/// A URL that cannot be used is wrong use; all else is a failure.
fn failure(error: &Error) -> Failure {
    let text = sentence(error);
    match error {
        Error::Configuration(_) => Failure::usage(text),
        _ => Failure::failed(text),
    }
}

/// sqlx's errors end in the operating system's number, which helps nobody.
fn sentence(error: &impl Display) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output {
        json: false,
        colour: false,
    };

    #[tokio::test]
    async fn an_unknown_scheme_is_wrong_use() {
        for url in ["oracle://a/b", "stock", "", "POSTGRES"] {
            for what in [
                Schema::Create { url: url.into() },
                Schema::Check { url: url.into() },
                Schema::Print { url: url.into() },
            ] {
                let failure = run(&what, PLAIN).await.expect_err(url);
                assert_eq!(failure.code(), 2);
                assert!(failure.to_string().contains("postgres://user"), "{failure}");
            }
        }
    }

    #[tokio::test]
    async fn a_database_that_is_down_is_a_failure() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let url = format!("postgres://a@127.0.0.1:{port}/b");
        let failure = run(&Schema::Check { url }, PLAIN)
            .await
            .expect_err("nobody listens");
        assert_eq!(failure.code(), 1);
        let text = failure.to_string();
        assert!(
            text.contains("Connection refused") && !text.contains("os error"),
            "{text}"
        );
    }
}
