//! One row lock that everybody wants.

use std::collections::VecDeque;

use accede_core::{LockKey, Reply, Xid};
use anyhow::bail;
use serde::Serialize;

use super::load::{self, World};
use crate::{clock, report::rounded};

const WAITERS: usize = 256;
const HAND_OVERS: usize = 50_000;

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct HotRow {
    pub(super) waiters: usize,
    pub(super) grants_per_s: f64,
    pub(super) max_wait_over_mean: f64,
}

/// Hands the lock over again and again.
pub(super) fn measure() -> anyhow::Result<HotRow> {
    let mut world = World::new()?;
    let row = LockKey::from(&b"public.stock:hot"[..]);
    // When each began to wait, counted in hand-overs.
    let mut waiting: VecDeque<(Xid, usize)> = VecDeque::new();
    let mut holder = queue(&mut world, &row)?;
    for _ in 0..WAITERS {
        waiting.push_back((queue(&mut world, &row)?, 0));
    }
    let mut waits = Vec::with_capacity(HAND_OVERS);
    let began = clock::now();
    for turn in 0..HAND_OVERS {
        waiting.push_back((queue(&mut world, &row)?, turn));
        world.apply(load::done(holder, 0))?;
        world.apply(load::commit(holder))?;
        let granted = world
            .answers()
            .any(|reply| matches!(reply, Reply::Registered { .. }));
        let Some((next, since)) = waiting.pop_front().filter(|_| granted) else {
            bail!("the lock of {holder} went to nobody");
        };
        waits.push((turn - since) as f64);
        let epoch = world.epoch();
        world.apply(load::finished(holder, 0, epoch))?;
        holder = next;
    }
    let seconds = (clock::now() - began).as_secs_f64();
    // The first ones had nobody before them for as long.
    let settled = &waits[WAITERS..];
    let mean = settled.iter().sum::<f64>() / settled.len() as f64;
    let longest = settled.iter().copied().fold(0.0, f64::max);
    Ok(HotRow {
        waiters: WAITERS,
        grants_per_s: rounded(HAND_OVERS as f64 / seconds),
        max_wait_over_mean: rounded(longest / mean),
    })
}

fn queue(world: &mut World, row: &LockKey) -> anyhow::Result<Xid> {
    let xid = world.next_xid()?;
    world.apply(load::begin(xid))?;
    let register = world.register(xid, 0, Some(row));
    world.apply(register)?;
    Ok(xid)
}
