//! Pools and their peers.
//!
//! A peer that is in no list any more has no series any more, and of a pool only so many peers have theirs,
//! so that a list cannot flood whoever collects them; how many have none is told.

use std::fmt::Display;
use std::time::Instant;

use super::page::{Labels, MetricsPage};
use crate::admin::pages::peers::{PeerSeen, PoolSeen};
use crate::lists::PoolName;
use crate::proxy::Gateway;

/// So many peers of a pool have series of their own: the first ones by address.
const WITH_SERIES: usize = 1000;

/// And so many of all pools of all services, in the order of these.
const WITH_SERIES_OF_ALL: usize = 10_000;

pub(super) fn render(page: &mut MetricsPage, gateway: &Gateway) {
    let pools = PoolSeen::all(gateway, Instant::now());
    let several = pools.len() > PoolName::ALL.len();
    let in_pool = |pool: &'_ PoolSeen| match several {
        true => vec![
            ("service", pool.service.clone()),
            ("pool", pool.pool.clone()),
        ],
        false => vec![("pool", pool.pool.clone())],
    };
    page.family("peers", "gauge", "Peers by pool and state.");
    for pool in &pools {
        let own = in_pool(pool);
        for (state, count) in &pool.states {
            page.value("peers", &and(&own, &[("state", state)]), count);
        }
    }
    page.family(
        "peers_asked",
        "gauge",
        "Peers that may be asked at present, by pool, those that are out and asked all the same among them.",
    );
    for pool in &pools {
        page.value("peers_asked", &and(&in_pool(pool), &[]), pool.asked);
    }
    page.family(
        "peers_without_series",
        "gauge",
        "Peers beyond the first 1000 of their pool, which are not shown one by one, by pool.",
    );
    let mut left = WITH_SERIES_OF_ALL;
    let shown = pools.iter().map(|pool| {
        let shown = pool.peers.len().min(WITH_SERIES).min(left);
        left -= shown;
        shown
    });
    let shown: Vec<usize> = shown.collect();
    for (pool, shown) in pools.iter().zip(&shown) {
        let without = pool.peers.len() - shown;
        page.value("peers_without_series", &and(&in_pool(pool), &[]), without);
    }
    let shown = pools.iter().zip(shown);
    let shown = shown.map(|(pool, shown)| (in_pool(pool), &pool.peers[..shown]));
    each_peer(page, &shown.collect::<Vec<_>>());
}

/// Peers of a pool that have samples, and its labels before them.
type ShownPeers<'a> = (Vec<(&'static str, String)>, &'a [PeerSeen]);

/// The samples of peers, which stand beside the labels of their pools.
fn each_peer(page: &mut MetricsPage, shown: &[ShownPeers<'_>]) {
    let mut each = |name: &str, kind: &str, help: &str, write: Write| {
        page.family(name, kind, help);
        for (own, peers) in shown {
            for peer in *peers {
                write(page, name, &and(own, &[("peer", &peer.address)]), peer);
            }
        }
    };
    each(
        "peer_up",
        "gauge",
        "1 while a peer is up or starting, 0 while it is out, on trial or unchecked.",
        |page, name, labels, peer| page.value(name, labels, u8::from(peer.up)),
    );
    each(
        "peer_in_flight",
        "gauge",
        "Requests that are under way at a peer.",
        |page, name, labels, peer| page.value(name, labels, peer.in_flight),
    );
    each(
        "peer_attempts_total",
        "counter",
        "Attempts on a peer by outcome, for as long as it is listed; a peer in both pools shows those of both in each.",
        |page, name, labels, peer| {
            for (outcome, count) in [
                ("answered", peer.answered),
                ("failed", peer.failed),
                ("abandoned", peer.abandoned),
            ] {
                page.value(name, &[labels, &[("outcome", &outcome)]].concat(), count);
            }
        },
    );
    each(
        "peer_latency_seconds",
        "gauge",
        "Time to the head of a peer's response, in the last minute; nothing while there was none.",
        |page, name, labels, peer| {
            let quantiles = [
                ("0.5", peer.latency_median_seconds),
                ("0.99", peer.latency_p99_seconds),
            ];
            for (quantile, seconds) in quantiles {
                if let Some(seconds) = seconds {
                    let labels = [labels, &[("quantile", &quantile)]].concat();
                    page.value(name, &labels, seconds);
                }
            }
        },
    );
}

/// The labels of a pool, and others behind them.
fn and<'a>(
    own: &'a [(&'static str, String)],
    others: Labels<'a>,
) -> Vec<(&'a str, &'a dyn Display)> {
    let own = own.iter().map(|(name, text)| (*name, text as &dyn Display));
    own.chain(others.iter().copied()).collect()
}

/// Writes the samples of one peer.
type Write = fn(&mut MetricsPage, &str, Labels<'_>, &PeerSeen);
