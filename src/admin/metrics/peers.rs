//! Pools and their peers.
//!
//! A peer that is in no list any more has no series any more, and of a pool only so many peers have theirs,
//! so that a list cannot flood whoever collects them; how many have none is told.

use std::time::Instant;

use super::page::{Labels, MetricsPage};
use crate::admin::pages::peers::{PeerSeen, PoolSeen};
use crate::proxy::Gateway;

/// So many peers of a pool have series of their own: the first ones by address.
const WITH_SERIES: usize = 1000;

pub(super) fn render(page: &mut MetricsPage, gateway: &Gateway) {
    let pools = PoolSeen::all(gateway, Instant::now());
    page.family("peers", "gauge", "Peers by pool and state.");
    for pool in &pools {
        for (state, count) in &pool.states {
            page.value("peers", &[("pool", &pool.pool), ("state", state)], count);
        }
    }
    page.family(
        "peers_asked",
        "gauge",
        "Peers that may be asked at present, by pool, those that are out and asked all the same among them.",
    );
    for pool in &pools {
        page.value("peers_asked", &[("pool", &pool.pool)], pool.asked);
    }
    page.family(
        "peers_without_series",
        "gauge",
        "Peers beyond the first 1000 of their pool, which are not shown one by one, by pool.",
    );
    for pool in &pools {
        let without = pool.peers.len().saturating_sub(WITH_SERIES);
        page.value("peers_without_series", &[("pool", &pool.pool)], without);
    }
    let mut each = |name: &str, kind: &str, help: &str, write: Write| {
        page.family(name, kind, help);
        for pool in &pools {
            for peer in pool.peers.iter().take(WITH_SERIES) {
                let labels: Labels<'_> = &[("pool", &pool.pool), ("peer", &peer.address)];
                write(page, name, labels, peer);
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
                page.value(name, &[labels[0], labels[1], ("outcome", &outcome)], count);
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
                    page.value(
                        name,
                        &[labels[0], labels[1], ("quantile", &quantile)],
                        seconds,
                    );
                }
            }
        },
    );
}

/// Writes the samples of one peer.
type Write = fn(&mut MetricsPage, &str, Labels<'_>, &PeerSeen);
