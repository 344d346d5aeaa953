//! A name is a database's or an action's, never both: whoever comes second is told at once, with a
//! real daemon.

use std::{path::Path, time::Duration};

use accede_rm_agent::{
    AgentLimits, Error, ResourceState, RmAgent, RmAgentBuilder, schema,
    tcc::{HandlerError, Tcc, TccAction, Unfenced},
};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually,
};

/// Far beyond anything that is waited for.
const SOON: Duration = Duration::from_secs(60);

/// An action under any name.
struct Act(&'static str);

impl TccAction for Act {
    type Transaction = Unfenced;
    type Arguments = ();
    type Output = ();
    type Error = Error;

    fn resource(&self) -> &'static str {
        self.0
    }

    async fn try_it(&self, _: &mut Unfenced, (): ()) -> Result<(), Error> {
        Ok(())
    }

    async fn confirm(&self, _: &mut Unfenced, (): ()) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn cancel(&self, _: &mut Unfenced, (): ()) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn agent(coordinator: &str) -> RmAgentBuilder {
    RmAgent::builder("shop")
        .coordinator(coordinator)
        .limits(AgentLimits {
            first_answer: SOON,
            ..AgentLimits::default()
        })
}

async fn database(folder: &Path, name: &str) -> anyhow::Result<String> {
    let file = folder.join(name);
    let url = format!("sqlite://{}?mode=rwc", file.display());
    schema::create(&url).await?;
    Ok(url)
}

fn told(started: Result<RmAgent, Error>) -> String {
    match started {
        Err(Error::Configuration(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn states(agent: &RmAgent) -> Vec<ResourceState> {
    let resources = agent.status().resources.into_iter();
    resources.map(|resource| resource.state).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_something_else_ends_the_start() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = Daemon::start(&folder.path().join("data"), free_port()).await?;
    let url = daemon.url();
    let shop = database(folder.path(), "shop.db").await?;

    // In one agent.
    let both = agent(&url).sqlite("shop-db", &shop);
    let text = told(both.tcc_unfenced(&Tcc::new(Act("shop-db"))).start().await);
    assert!(
        text.contains("\"shop-db\" is given twice, to a database and to an action"),
        "{text}"
    );

    // In two, whoever comes first.
    let first = agent(&url)
        .sqlite("shop-db", &shop)
        .tcc_unfenced(&Tcc::new(Act("freeze")));
    let first = first.start().await?;
    assert_eq!(states(&first), [const { ResourceState::Attached }; 2]);
    let second = agent(&url).tcc_unfenced(&Tcc::new(Act("shop-db")));
    let text = told(second.start().await);
    assert!(
        text.contains("shows an action as resource \"shop-db\"")
            && text.contains("\"shop-db\" is the name of a database")
            && text.contains("give the action another name"),
        "{text}"
    );
    let other = database(folder.path(), "other.db").await?;
    let text = told(agent(&url).sqlite("freeze", &other).start().await);
    assert!(
        text.contains("as resource \"freeze\"")
            && text.contains("\"freeze\" is the name of an action")
            && text.contains("give the database another name"),
        "{text}"
    );
    // Another database under the name.
    let text = told(agent(&url).sqlite("shop-db", &other).start().await);
    assert!(
        text.contains("the name \"shop-db\" belongs to database"),
        "{text}"
    );
    first.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_before_the_coordinator_is_told_when_it_comes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, port) = (folder.path().join("data"), free_port());
    let daemon = Daemon::start(&data, port).await?;
    let url = daemon.url();
    let shop = database(folder.path(), "shop.db").await?;
    let first = agent(&url).sqlite("shop-db", &shop).start().await?;
    first.shutdown().await;
    daemon.kill()?;

    let second = agent(&url)
        .tcc_unfenced(&Tcc::new(Act("shop-db")))
        .tcc_unfenced(&Tcc::new(Act("freeze")));
    let second = second.start().await?;
    let _daemon = Daemon::start(&data, port).await?;
    let settled = eventually("what fits is served", SOON, async || {
        let states = states(&second);
        (states[1] == ResourceState::Attached).then_some(states)
    });
    let states = settled.await?;
    assert!(
        matches!(&states[0], ResourceState::Refused { problem }
            if problem.contains("give the action another name")),
        "{states:?}"
    );
    second.shutdown().await;
    Ok(())
}
