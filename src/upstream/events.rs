//! What the error log is told of peers that go out and come back, and of pools.
//!
//! Each line says how the pool stands: `up=1/4` means that one of its four peers is up or starting. How
//! often a peer changes is bounded by its own state, so nothing here is limited.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use super::health::{Change, PeerState};
use super::roster::Peer;
use super::serving::Pools;
use crate::config;
use crate::lists::{PoolName, ServiceName};

/// A peer of a pool has gone out or come back, as its requests have shown.
#[cold]
pub(crate) fn peer_changed(pools: &Pools, pool: PoolName, peer: &Peer, change: Change) {
    let standing = Up::of(pools[pool].peers());
    let pool = NamedPool(pools.service(), pool);
    let name = named(peer);
    let address = peer.address;
    match change {
        Change::Out(pause, why) => {
            let (why, strikes) = (why.name(), peer.health.strikes());
            let seconds = pause.as_secs_f64();
            log::warn!(
                "peer-out {pool} peer={address}{name} why={why} for={seconds:.1}s times={strikes} {standing}"
            );
        }
        Change::Back => {
            let after = peer.health.out_for(Instant::now()).as_secs_f64();
            log::info!(
                "peer-back {pool} peer={address}{name} why=answered after={after:.1}s {standing}"
            );
        }
    }
}

/// The name that a peer was found by, if it has one, as a part of a line.
pub(crate) fn named(peer: &Peer) -> String {
    let name = peer.name.as_deref().map(|it| format!(" name={it}"));
    name.unwrap_or_default()
}

/// A pool as it is named in lines: `pool=pre`, with its service before it unless that is the default one.
pub(crate) struct NamedPool<'a>(pub(crate) &'a ServiceName, pub(crate) PoolName);

impl std::fmt::Display for NamedPool<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(service, pool) = self;
        if !service.is_default() {
            write!(f, "service={service} ")?;
        }
        write!(f, "pool={}", pool.name())
    }
}

/// How many of so many peers are up or starting.
#[derive(Clone, Copy)]
pub(crate) struct Up {
    pub(crate) up: usize,
    pub(crate) all: usize,
}

impl Up {
    pub(crate) fn of(peers: &[Peer]) -> Self {
        Self {
            up: peers.iter().filter(|it| it.health.is_up()).count(),
            all: peers.len(),
        }
    }
}

impl std::fmt::Display for Up {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "up={}/{}", self.up, self.all)
    }
}

/// Sees when all peers of a pool are out, and when one is back.
#[derive(Default)]
pub(super) struct PoolWatch {
    /// Of the pools in their order.
    out_since: [Option<Instant>; PoolName::ALL.len()],
}

impl PoolWatch {
    /// To be called once a second, by one thread.
    pub(super) fn look(&mut self, pools: &Pools, now: Instant) {
        let rules = pools.rules();
        for (pool, out_since) in PoolName::ALL.into_iter().zip(&mut self.out_since) {
            let peers = pools[pool].peers();
            let is_up = Up::of(peers).up > 0;
            match *out_since {
                // Those that nobody has checked yet have not failed.
                None if !is_up && has_one_out(peers, rules, now) => {
                    *out_since = Some(now);
                    pool_out(pool, pools, now);
                }
                Some(since) if is_up => {
                    *out_since = None;
                    pool_back(pools, pool, now.saturating_duration_since(since));
                }
                // Others stand in the list, or nobody does.
                Some(_) if !has_one_out(peers, rules, now) => *out_since = None,
                _ => {}
            }
        }
    }
}

fn has_one_out(peers: &[Peer], rules: &config::UpstreamSettings, now: Instant) -> bool {
    let mut states = peers.iter().map(|it| it.health.state(now, rules));
    states.any(|it| matches!(it, PeerState::Out { .. } | PeerState::Trial { .. }))
}

fn pool_out(pool: PoolName, pools: &Pools, now: Instant) {
    let rules = pools.rules();
    let (peers, name) = (pools[pool].peers(), NamedPool(pools.service(), pool));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for peer in peers {
        let why = match peer.health.state(now, rules) {
            PeerState::Out { why, .. } => why.name(),
            other => other.name(),
        };
        *counts.entry(why).or_default() += 1;
    }
    let mut why = String::new();
    for (name, count) in counts {
        let comma = if why.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(why, "{comma}{name}:{count}");
    }
    let (up, asked) = (Up::of(peers), pools.usable(pool, now).len());
    match pools.fall_back(pool) {
        true => log::warn!("pool-out {name} {up} why={why} asked={asked} fallback=prod"),
        false => log::error!("pool-out {name} {up} why={why} asked={asked} fallback=none"),
    }
}

fn pool_back(pools: &Pools, pool: PoolName, after: Duration) {
    let (up, after) = (Up::of(pools[pool].peers()), after.as_secs_f64());
    let pool = NamedPool(pools.service(), pool);
    log::info!("pool-back {pool} {up} after={after:.1}s");
}
