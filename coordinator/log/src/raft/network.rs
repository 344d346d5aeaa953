//! The network of a cluster of one: there is no peer to call.

use std::future::Future;
use std::io;
use std::marker::PhantomData;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftTypeConfig};

use super::types::{RaftVote, Types};
use crate::snapshot::SnapshotFile;

/// Says of every peer that it cannot be reached.
pub(crate) struct NoPeers<R>(pub(crate) PhantomData<fn() -> R>);

fn unreachable<C: RaftTypeConfig>() -> Unreachable<C> {
    Unreachable::new(&io::Error::from(io::ErrorKind::NotConnected))
}

impl<R: Send + Sync + 'static> RaftNetworkFactory<Types<R>> for NoPeers<R> {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _node: &BasicNode) -> Self {
        Self(PhantomData)
    }
}

impl<R: Send + Sync + 'static> RaftNetworkV2<Types<R>> for NoPeers<R> {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types<R>>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<Types<R>>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: RaftVote,
        _snapshot: openraft::alias::SnapshotOf<Types<R>, SnapshotFile>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        Err(StreamingError::Unreachable(unreachable()))
    }
}
