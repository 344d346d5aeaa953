//! One command, one file: the rules of each verb.

mod begin;
mod bind_resource;
mod blocked;
mod branch_done;
mod check_locks;
mod commit;
mod doom_branch;
mod end_lease;
mod expire;
mod finish_branch;
mod lease_worker;
mod name_action;
mod register_branch;
mod repair;
mod roll_back;
mod start_saga;
mod take_office;
mod withdraw_branch;

// What several verbs share.
mod decide;
mod known;
mod one_phase;
mod phase_two;
mod pre_commit;
mod request;
mod size;
mod steps;

use crate::{effect::Effects, id::WallTime, state::State};

/// What a handler works on: the state, the effects it adds to, and the entry's wall time.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) effects: &'a mut Effects,
    pub(crate) wall: WallTime,
}
