//! `accede status`.

use std::collections::BTreeMap;

use accede_proto::v1::{AttachedAgent, CoordinatorStatus, ResourceStatus};
use serde::Serialize;

use super::hex;
use crate::{output::Output, output::trimmed, text};

/// What `accede status --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    version: String,
    cluster_id: String,
    data_dir: String,
    leader: bool,
    epoch: u64,
    uptime_ms: u64,
    log_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    log_bytes: u64,
    forced_writes: u64,
    transactions: BTreeMap<String, u64>,
    row_locks: u64,
    waiting_requests: u64,
    payload_bytes: u64,
    workers: u64,
    agents: Vec<AgentView>,
    resources: Vec<ResourceView>,
}

#[derive(Debug, Serialize)]
struct AgentView {
    name: String,
    agent: String,
    resources: Vec<String>,
    attached_for_ms: u64,
    open_orders: u32,
}

#[derive(Debug, Serialize)]
struct ResourceView {
    name: String,
    /// `database` or `action`.
    kind: &'static str,
    /// Empty for an action.
    database_id: String,
    attached_agents: u32,
    waiting_orders: u32,
}

impl From<CoordinatorStatus> for StatusView {
    fn from(status: CoordinatorStatus) -> Self {
        Self {
            version: status.version,
            cluster_id: hex(&status.cluster_id),
            data_dir: status.data_dir,
            leader: status.leader,
            epoch: status.epoch,
            uptime_ms: status.uptime_ms,
            log_index: status.log_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            log_bytes: status.log_bytes,
            forced_writes: status.forced_writes,
            transactions: status.transactions.into_iter().collect(),
            row_locks: status.row_locks,
            waiting_requests: status.waiting_requests,
            payload_bytes: status.payload_bytes,
            workers: status.workers,
            agents: status.agents.into_iter().map(AgentView::from).collect(),
            resources: status
                .resources
                .into_iter()
                .map(ResourceView::from)
                .collect(),
        }
    }
}

impl From<AttachedAgent> for AgentView {
    fn from(agent: AttachedAgent) -> Self {
        Self {
            name: agent.name,
            agent: format!("{:016x}", agent.agent),
            resources: agent.resources,
            attached_for_ms: agent.attached_for_ms,
            open_orders: agent.open_orders,
        }
    }
}

impl From<ResourceStatus> for ResourceView {
    fn from(resource: ResourceStatus) -> Self {
        Self {
            name: resource.name,
            kind: match resource.database_id.is_empty() {
                true => "action",
                false => "database",
            },
            database_id: hex(&resource.database_id),
            attached_agents: resource.attached_agents,
            waiting_orders: resource.waiting_orders,
        }
    }
}

impl StatusView {
    /// The same for people.
    pub(crate) fn to_text(&self, output: Output) -> String {
        let mut parts = vec![self.facts(output)];
        if self.agents.is_empty() {
            parts.push("No agent is attached.".to_owned());
        } else {
            parts.push(self.agents_table(output));
        }
        if !self.resources.is_empty() {
            parts.push(self.resources_table(output));
        }
        parts.join("\n\n")
    }

    fn facts(&self, output: Output) -> String {
        let role = if self.leader {
            "leads"
        } else {
            "does not lead"
        };
        let transactions = match &self.transactions {
            counts if counts.values().all(|n| *n == 0) => "none".to_owned(),
            counts => counts
                .iter()
                .filter(|(_, n)| **n > 0)
                .map(|(status, n)| format!("{n} {status}"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let mut table = output.table(&[]);
        let rows = [
            ("version", self.version.clone()),
            ("cluster", self.cluster_id.clone()),
            ("data directory", self.data_dir.clone()),
            ("role", format!("{role}, epoch {}", self.epoch)),
            ("up for", text::duration(self.uptime_ms)),
            (
                "log",
                format!(
                    "entry {} written, {} applied, snapshot at {}, {} written, {}",
                    self.log_index,
                    self.applied_index,
                    self.snapshot_index,
                    text::bytes(self.log_bytes),
                    text::count(self.forced_writes, "forced write"),
                ),
            ),
            ("transactions", transactions),
            ("row locks", self.row_locks.to_string()),
            ("waiting requests", self.waiting_requests.to_string()),
            ("branches' arguments", text::bytes(self.payload_bytes)),
            ("workers", self.workers.to_string()),
        ];
        table.add_rows(rows.map(|(name, value)| [name.to_owned(), value]));
        trimmed(&table)
    }

    fn agents_table(&self, output: Output) -> String {
        let mut table = output.table(&["agent", "resources", "attached for", "open orders"]);
        table.add_rows(self.agents.iter().map(|agent| {
            [
                agent.name.clone(),
                agent.resources.join(", "),
                text::duration(agent.attached_for_ms),
                agent.open_orders.to_string(),
            ]
        }));
        trimmed(&table)
    }

    fn resources_table(&self, output: Output) -> String {
        let mut table = output.table(&["resource", "kind", "database", "agents", "waiting orders"]);
        table.add_rows(self.resources.iter().map(|resource| {
            [
                resource.name.clone(),
                resource.kind.to_owned(),
                resource.database_id.clone(),
                resource.attached_agents.to_string(),
                resource.waiting_orders.to_string(),
            ]
        }));
        trimmed(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output {
        json: false,
        colour: false,
    };

    #[test]
    fn a_fresh_coordinator_reads_well() {
        let view = StatusView::from(CoordinatorStatus {
            version: "0.1.0".to_owned(),
            leader: true,
            transactions: [("active".to_owned(), 0)].into(),
            ..Default::default()
        });
        let text = view.to_text(PLAIN);
        for line in [
            "leads, epoch 0",
            "transactions",
            "none",
            "No agent is attached.",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn agents_and_resources_are_listed() {
        let view = StatusView::from(CoordinatorStatus {
            transactions: [("stuck".to_owned(), 2), ("active".to_owned(), 1)].into(),
            agents: vec![AttachedAgent {
                name: "stock@host-3".to_owned(),
                agent: 7,
                resources: vec!["stock-db".to_owned()],
                attached_for_ms: 61_000,
                open_orders: 4,
            }],
            resources: vec![
                ResourceStatus {
                    name: "stock-db".to_owned(),
                    database_id: vec![0xab; 16].into(),
                    attached_agents: 1,
                    waiting_orders: 9,
                },
                ResourceStatus {
                    name: "account.freeze".to_owned(),
                    ..Default::default()
                },
            ],
            ..Default::default()
        });
        let text = view.to_text(PLAIN);
        for part in [
            "1 active, 2 stuck",
            "stock@host-3",
            "1 min 1 s",
            "abab",
            "does not lead",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let json = serde_json::to_value(&view).expect("plain data");
        assert_eq!(json["agents"][0]["agent"], "0000000000000007");
        assert_eq!(json["resources"][0]["waiting_orders"], 9);
        assert_eq!(json["resources"][0]["kind"], "database");
        assert_eq!(json["resources"][1]["kind"], "action");
    }
}
