//! The agent's side of the session.

use std::sync::Arc;

use accede_link::session::{BranchFrames, ClusterId, QueuedFrames, Role};
use accede_proto::v1::{
    OpenBranchSession, Refusal, Resource as WireResource, branch_event::Body as Answer,
    branch_request::Body as Ask, refusal::Code,
};
use parking_lot::Mutex;

use super::orders::Orders;

pub(super) struct AgentRole {
    pub(super) name: String,
    pub(super) agent: u64,
    pub(super) orders: Vec<Arc<Orders>>,
    /// Which resources the newest opening frame shows, by their place in `orders`.
    shown: Mutex<Vec<usize>>,
}

impl AgentRole {
    pub(super) fn new(name: String, agent: u64, orders: Vec<Arc<Orders>>) -> Self {
        Self {
            name,
            agent,
            orders,
            shown: Mutex::new(Vec::new()),
        }
    }
}

impl Role<BranchFrames> for AgentRole {
    fn opening(&self, cluster: Option<ClusterId>) -> Ask {
        let mut shown = self.shown.lock();
        shown.clear();
        let mut resources = Vec::new();
        for (place, orders) in self.orders.iter().enumerate() {
            let resource = orders.resource();
            if let Some(identity) = resource.identity() {
                shown.push(place);
                resources.push(WireResource {
                    name: resource.name.as_ref().to_owned(),
                    database_id: identity.database.map_or_else(Vec::new, Vec::from).into(),
                });
            }
        }
        Ask::Open(OpenBranchSession {
            agent_name: self.name.clone(),
            agent: self.agent,
            resources,
            cluster_id: cluster
                .map_or_else(Vec::new, |cluster| cluster.as_bytes().to_vec())
                .into(),
        })
    }

    fn opened(
        &self,
        _: Answer,
        cluster: ClusterId,
        queue: &QueuedFrames<'_, BranchFrames>,
    ) -> Result<Vec<Ask>, String> {
        // Answers to orders of the former connection: the coordinator repeats what it is owed.
        queue.discard();
        for place in self.shown.lock().drain(..) {
            self.orders[place].resource().show_to(cluster);
        }
        Ok(Vec::new())
    }

    fn opening_refused(&self, refusal: &Refusal) {
        if refusal.code() != Code::ResourceMismatch {
            return;
        }
        let mut resources = self.orders.iter().map(|orders| orders.resource());
        if let Some(blamed) = resources.find(|resource| *resource.name == *refusal.resource) {
            blamed.refuse(&refusal.message);
        }
    }

    fn news(&self, news: Answer) {
        let Answer::Order(order) = news else {
            tracing::debug!(?news, "ignored an event that answers nothing");
            return;
        };
        let orders = self
            .orders
            .iter()
            .find(|orders| *orders.resource().name == *order.resource);
        match orders {
            Some(orders) => orders.accept(&order),
            // It was not shown by this agent: no answer can be right.
            None => tracing::warn!(
                resource = %order.resource,
                "ignored an order for a resource that this agent does not have"
            ),
        }
    }

    fn delivery_refused(&self, body: &Ask, refusal: &Refusal) {
        let (what, xid) = match body {
            Ask::Done(done) => ("done", done.xid),
            Ask::Withdrawn(withdrawn) => ("withdrawn", withdrawn.xid),
            Ask::Doomed(doomed) => ("doomed", doomed.xid),
            _ => ("other", 0),
        };
        tracing::warn!(
            xid = format_args!("{xid:016x}"),
            what,
            code = ?refusal.code(),
            reason = %refusal.message,
            "the coordinator did not take the message that ends a branch's phase one"
        );
    }
}
