//! All processes of the shop: the database, the coordinator, the services.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use shop_api::{database::DatabaseKind, mode::ShopMode, v1::front_client::FrontClient};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    args::{Chosen, DatabaseUrls},
    databases::Databases,
    observer::Observers,
    operator::Operator,
    process::{Process, Start},
    report::Progress,
    server,
    wait::until,
};

/// How long a process may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longer than any order may take.
const ORDER_LIMIT: Duration = Duration::from_secs(90);

/// How long the user's databases may take to be tidied when the user leaves.
const ABANDON_LIMIT: Duration = Duration::from_secs(5);

/// The processes of the shop, in the order in which they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Coordinator,
    Stock,
    Account,
    Order,
    Front,
}

impl Part {
    const ALL: [Self; 5] = [
        Self::Coordinator,
        Self::Stock,
        Self::Account,
        Self::Order,
        Self::Front,
    ];
    /// The services with a database.
    pub(crate) const SERVICES: [Self; 3] = [Self::Stock, Self::Account, Self::Order];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Stock => "stock",
            Self::Account => "account",
            Self::Order => "order",
            Self::Front => "front",
        }
    }
}

/// What there is to know about a shop before it starts.
struct Plan {
    home: PathBuf,
    programs: PathBuf,
    databases: DatabaseUrls,
    mode: ShopMode,
    ports: [u16; 5],
    /// Where steps of orders are told, see [`Observers`].
    observers: String,
    keep: bool,
}

/// The running shop. Dropping it ends its processes and removes its files.
pub(crate) struct Shop {
    plan: Plan,
    processes: Vec<Option<Process>>,
    pub(crate) databases: Databases,
    pub(crate) operator: Operator,
    pub(crate) front: FrontClient<Channel>,
    pub(crate) observers: Observers,
    pub(crate) kind: DatabaseKind,
    pub(crate) mode: ShopMode,
    own_databases: bool,
    // Fields drop in this order: the server after its clients, the files last.
    server: Option<Process>,
    home: TempDir,
}

/// What to do with what is there already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choices {
    pub(crate) keep: bool,
    pub(crate) reset: bool,
}

impl Shop {
    /// Starts everything; `progress` hears what is being done.
    pub(crate) async fn start(
        chosen: Chosen,
        choices: Choices,
        progress: &Progress,
    ) -> Result<Self> {
        let programs = programs()?;
        let home = tempfile::Builder::new().prefix("accede-demo-").tempdir()?;
        // The server runs as another user and must reach its folder in here.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711))?;
        let own_databases = chosen.own.is_some();
        let (databases, server) = match chosen.own {
            Some(urls) => (urls, None),
            None => {
                progress.doing(&format!("starting {}", chosen.kind.name()));
                let port = free_port()?;
                let (server, urls) =
                    server::start(chosen.kind, home.path(), port, choices.keep).await?;
                (urls, server)
            }
        };
        let observers = Observers::start().await?;
        let plan = Plan {
            home: home.path().to_owned(),
            programs,
            databases,
            mode: chosen.mode,
            ports: [
                free_port()?,
                free_port()?,
                free_port()?,
                free_port()?,
                free_port()?,
            ],
            observers: observers.callback(),
            keep: choices.keep,
        };
        let databases = Databases::connect(&plan.databases, plan.mode).await?;
        if choices.reset {
            databases.drop_tables().await?;
        } else {
            databases.refuse_used().await?;
        }
        let endpoint = Endpoint::from_shared(plan.url(Part::Front))?.timeout(ORDER_LIMIT);
        let mut shop = Self {
            operator: Operator::new(plan.url(Part::Coordinator))?,
            front: FrontClient::new(endpoint.connect_lazy()),
            observers,
            processes: Part::ALL.iter().map(|_| None).collect(),
            kind: chosen.kind,
            mode: chosen.mode,
            own_databases,
            databases,
            server,
            home,
            plan,
        };
        let opened = shop.open(progress).await;
        if opened.is_err() {
            shop.show_logs(progress);
        }
        opened.map(|()| shop)
    }

    async fn open(&mut self, progress: &Progress) -> Result<()> {
        progress.doing("creating the schemas");
        let databases = &self.plan.databases;
        for url in [&databases.order, &databases.stock, &databases.account] {
            self.plan.create_schema(url).await?;
        }
        // The services need not wait for the coordinator, so all start at once.
        progress.doing("starting the coordinator and the services");
        for part in Part::ALL {
            self.processes[part as usize] = Some(self.plan.start(part)?);
        }
        for part in Part::ALL {
            self.ready(part).await?;
        }
        self.databases.fill().await
    }

    fn process(&mut self, part: Part) -> Result<&mut Process> {
        self.processes[part as usize]
            .as_mut()
            .with_context(|| format!("{} does not run", part.name()))
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&mut self, part: Part) -> Result<()> {
        let url = self.plan.url(part);
        let operator = self.operator.clone();
        let process = self.process(part)?;
        until(
            format_args!("{} is ready", part.name()),
            READY_LIMIT,
            async || {
                process.check_alive()?;
                if part == Part::Coordinator {
                    ensure!(operator.status().await?.leader, "it does not lead yet");
                    return Ok(());
                }
                let channel = Endpoint::from_shared(url.clone())?.connect().await?;
                let answer = HealthClient::new(channel)
                    .check(HealthCheckRequest::default())
                    .await?;
                let status = answer.into_inner().status();
                ensure!(
                    status == ServingStatus::Serving,
                    "it is {}",
                    status.as_str_name()
                );
                Ok(())
            },
        )
        .await
    }

    /// SIGKILL, whatever it is doing.
    pub(crate) fn kill(&mut self, part: Part) -> Result<()> {
        self.process(part)?.kill()?;
        self.processes[part as usize] = None;
        Ok(())
    }

    /// Starts it again, at the same address and with the same data.
    pub(crate) fn restart(&mut self, part: Part) -> Result<()> {
        self.processes[part as usize] = Some(self.plan.start(part)?);
        Ok(())
    }

    /// SIGSTOP: it neither answers nor dies.
    pub(crate) fn freeze(&mut self, part: Part) -> Result<()> {
        self.process(part)?.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn thaw(&mut self, part: Part) -> Result<()> {
        self.process(part)?.signal(Signal::CONT)
    }

    /// After a scenario that failed half-way: everything runs and nothing is frozen.
    pub(crate) async fn mend(&mut self) -> Result<()> {
        for part in Part::ALL {
            let runs = match &mut self.processes[part as usize] {
                Some(process) => process.exited()?.is_none(),
                None => false,
            };
            if runs {
                self.thaw(part)?;
            } else {
                self.restart(part)?;
            }
        }
        for part in Part::ALL {
            self.ready(part).await?;
        }
        Ok(())
    }

    /// Stops all processes in order, each within a limit, and removes the files.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let mut stopped = Ok(());
        for part in Part::ALL.into_iter().rev() {
            if let Some(mut process) = self.processes[part as usize].take() {
                stopped = stopped.and(process.stop().await);
            }
        }
        if self.own_databases {
            stopped = stopped.and(self.databases.drop_tables().await);
        }
        self.databases.close().await;
        if let Some(mut server) = self.server.take() {
            stopped = stopped.and(server.stop().await);
        }
        stopped
    }

    /// Ends everything at once.
    pub(crate) async fn abandon(mut self) {
        for process in self.processes.iter_mut().flatten() {
            // One that is gone already is what was wanted.
            let _ = process.kill();
        }
        if self.own_databases {
            // The user is leaving; tables that are left are named by the next run.
            let _ = tokio::time::timeout(ABANDON_LIMIT, self.databases.drop_tables()).await;
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.quit();
        }
    }

    /// What each process said last.
    pub(crate) fn show_logs(&self, progress: &Progress) {
        for process in self.running() {
            let (name, tail) = (process.name(), process.log_tail());
            progress.say(&format!("--- the end of {name}'s log ---\n{tail}"));
        }
    }

    /// Every running process, in the order in which they stop best.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().rev().flatten().chain(&self.server)
    }

    /// Leaves the processes running and the files where they are.
    pub(crate) fn leave(mut self) -> PathBuf {
        for process in self.processes.iter_mut().flatten().chain(&mut self.server) {
            process.leave();
        }
        self.home.disable_cleanup(true);
        self.home.path().to_owned()
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Address and database of each part, for people.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, String)> {
        let mut all: Vec<_> = Part::ALL
            .into_iter()
            .map(|part| (part.name(), self.plan.url(part)))
            .collect();
        if !self.own_databases {
            let databases = &self.plan.databases;
            all.push(("order database", databases.order.clone()));
            all.push(("stock database", databases.stock.clone()));
            all.push(("account database", databases.account.clone()));
        }
        all
    }
}

impl Plan {
    fn listen(&self, part: Part) -> String {
        format!("127.0.0.1:{}", self.ports[part as usize])
    }

    fn url(&self, part: Part) -> String {
        format!("http://{}", self.listen(part))
    }

    async fn create_schema(&self, url: &str) -> Result<()> {
        let output = tokio::process::Command::new(self.programs.join("accede"))
            .args(["schema", "create", url])
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "accede schema create: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    fn start(&self, part: Part) -> Result<Process> {
        let program = match part {
            Part::Coordinator => "accede",
            Part::Stock => "shop-stock",
            Part::Account => "shop-account",
            Part::Order => "shop-order",
            Part::Front => "shop-front",
        };
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.home);
        // The shop's daemon has its defaults, whatever is set for one of the user's own.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"ACCEDE_") {
                command.env_remove(name);
            }
        }
        if part == Part::Coordinator {
            command
                .args(["serve", "--listen", &self.listen(part)])
                // Orders in the mode saga have steps that tell how far they are.
                .args(["--saga-callbacks", &self.observers, "--data-dir"])
                .arg(self.home.join("coordinator"));
        } else {
            command
                .args(["--listen", &self.listen(part)])
                .args(["--coordinator", &self.url(Part::Coordinator)])
                .env("SHOP_MODE", self.mode.name());
        }
        match part {
            Part::Coordinator => {}
            // A URL may hold a password: not where others can list it.
            Part::Stock => {
                command.env("STOCK_DATABASE_URL", &self.databases.stock);
            }
            Part::Account => {
                command.env("ACCOUNT_DATABASE_URL", &self.databases.account);
            }
            Part::Order => {
                command.env("ORDER_DATABASE_URL", &self.databases.order);
            }
            Part::Front => {
                command
                    .args(["--stock", &self.url(Part::Stock)])
                    .args(["--account", &self.url(Part::Account)])
                    .args(["--orders", &self.url(Part::Order)])
                    .arg("--allow-observers");
            }
        }
        Process::start(Start {
            name: part.name(),
            command,
            user: None,
            log: log_of(&self.home, part.name()),
            stop: Signal::TERM,
            end: Signal::KILL,
            keep: self.keep,
        })
    }
}

fn log_of(home: &Path, name: &str) -> PathBuf {
    home.join(format!("{name}.log"))
}

/// The folder of this program; the others were built into the same one.
fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program is in no folder")?;
    for program in [
        "accede",
        "shop-stock",
        "shop-account",
        "shop-order",
        "shop-front",
    ] {
        ensure!(
            folder.join(program).exists(),
            "{program} is not in {}; run ./dev demo, which builds it",
            folder.display()
        );
    }
    Ok(folder.to_owned())
}

/// A port that is free now. Below those that the kernel gives to outgoing
/// connections, so that it is still free when a process that was killed starts again.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..1_000 {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port was found between 10000 and 32000")
}
