//! `graygate peers`: every server of the lists in force, and how it does.

use std::path::Path;
use std::time::Duration;

use crate::admin::pages::Member as _;
use crate::admin::pages::peers::{PeerSeen, PeersPage, PoolSeen};
use crate::admin::query::SERVICE;
use crate::cli::admin_client::AdminClient;
use crate::cli::report::Report;
use crate::cli::table;
use crate::upstream::health::{PeerState, Why};

/// The peers of the gateway that runs with the ini file at `config`, of one service or of all; as JSON, the
/// page `/peers`.
///
/// # Errors
/// One line: it cannot be asked, does not answer, or has no such service.
pub(crate) fn show(config: &Path, service: Option<&str>) -> Result<Report, String> {
    let asker = AdminClient::of(config)?;
    let page: PeersPage = match service {
        None => asker.page()?,
        // A gateway of an older version answers with all of them.
        Some(name) => {
            let page: PeersPage = asker.page_with(&[(SERVICE, name)])?;
            page.only(name)
        }
    };
    Ok(Report::new(table(&page), page.render()))
}

const TITLES: [&str; 12] = [
    "SERVICE", "POOL", "ADDRESS", "NAME", "WEIGHT", "STATE", "OUTS", "ACTIVE", "ANSWERED",
    "FAILED", "MEDIAN", "P99",
];

/// A line for each peer, below a line of titles.
fn table(page: &PeersPage) -> String {
    let pools = page.pools.iter();
    let rows = pools.flat_map(|pool| pool.peers.iter().map(move |it| row(pool, it)));
    let rows: Vec<_> = [TITLES.map(str::to_owned)]
        .into_iter()
        .chain(rows)
        .collect();
    table::text(&rows)
}

fn row(pool: &PoolSeen, peer: &PeerSeen) -> [String; 12] {
    let seconds = |it: Option<f64>| it.map_or("-".to_owned(), shown);
    [
        pool.service.clone(),
        pool.pool.clone(),
        peer.address.clone(),
        peer.name.clone().unwrap_or_else(|| "-".to_owned()),
        peer.weight.to_string(),
        state(peer),
        peer.outs_in_a_row.to_string(),
        peer.in_flight.to_string(),
        peer.answered.to_string(),
        failures(peer),
        seconds(peer.latency_median_seconds),
        seconds(peer.latency_p99_seconds),
    ]
}

/// The state with all that belongs to it, in one cell.
fn state(peer: &PeerSeen) -> String {
    let reason = peer.reason.as_deref().map(|it| format!(" {it}"));
    let mut parts = vec![format!("{}{}", peer.state, reason.unwrap_or_default())];
    let is_by_check = peer.reason.as_deref() == Some(Why::Check.name())
        || peer.state == PeerState::Unchecked.name();
    if let Some(check) = peer.last_check.as_deref().filter(|_| is_by_check) {
        let status = peer.last_check_status.map(|it| format!(" {it}"));
        parts.push(format!("last check {check}{}", status.unwrap_or_default()));
    }
    if let Some(left) = peer.left_seconds {
        parts.push(match left > 0.0 {
            true => format!("{left:.0}s left"),
            // It waits for a request that may be risked.
            false => "trial due".to_owned(),
        });
    }
    if peer.asked && !peer.up {
        parts.push("asked all the same".to_owned());
    }
    parts.join(", ")
}

/// How many have failed, and how.
fn failures(peer: &PeerSeen) -> String {
    if peer.failed == 0 {
        return "0".to_owned();
    }
    let kinds = peer.failures.iter();
    let kinds: Vec<_> = kinds
        .map(|(name, count)| format!("{name}:{count}"))
        .collect();
    format!("{} {}", peer.failed, kinds.join(" "))
}

/// A time with three digits or so.
fn shown(seconds: f64) -> String {
    let time = Duration::from_secs_f64(seconds.clamp(0.0, 1e6));
    format!("{time:.1?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_peer() {
        let well = PeerSeen {
            address: "127.0.0.1:81".to_owned(),
            weight: 3,
            state: "up".to_owned(),
            up: true,
            asked: true,
            answered: 1200,
            abandoned: 3,
            in_flight: 2,
            latency_median_seconds: Some(0.001_25),
            latency_p99_seconds: Some(1.5),
            ..PeerSeen::default()
        };
        let out = PeerSeen {
            address: "127.0.0.10:8080".to_owned(),
            name: Some("app1.internal".to_owned()),
            weight: 1,
            state: "out".to_owned(),
            reason: Some("read-timeout".to_owned()),
            left_seconds: Some(8.4),
            asked: true,
            outs_in_a_row: 2,
            failed: 7,
            failures: [
                ("closed-early".to_owned(), 1),
                ("read-timeout".to_owned(), 6),
            ]
            .into(),
            ..PeerSeen::default()
        };
        let due = PeerSeen {
            address: "127.0.0.3:81".to_owned(),
            weight: 1,
            state: "out".to_owned(),
            reason: Some("connect-refused".to_owned()),
            left_seconds: Some(0.0),
            outs_in_a_row: 1,
            ..PeerSeen::default()
        };
        let sick = PeerSeen {
            address: "127.0.0.4:81".to_owned(),
            weight: 1,
            state: "out".to_owned(),
            reason: Some("check-failed".to_owned()),
            last_check: Some("status".to_owned()),
            last_check_status: Some(503),
            ..PeerSeen::default()
        };
        let pool = |name: &str, peers| PoolSeen {
            service: "default".to_owned(),
            pool: name.to_owned(),
            peers,
            ..PoolSeen::default()
        };
        let page = PeersPage {
            pools: vec![pool("pre", vec![well, out]), pool("prod", vec![due, sick])],
        };
        let expected = "\
SERVICE  POOL  ADDRESS          NAME           WEIGHT  STATE                                          OUTS  ACTIVE  ANSWERED  FAILED                           MEDIAN  P99
default  pre   127.0.0.1:81     -              3       up                                             0     2       1200      0                                1.2ms   1.5s
default  pre   127.0.0.10:8080  app1.internal  1       out read-timeout, 8s left, asked all the same  2     0       0         7 closed-early:1 read-timeout:6  -       -
default  prod  127.0.0.3:81     -              1       out connect-refused, trial due                 1     0       0         0                                -       -
default  prod  127.0.0.4:81     -              1       out check-failed, last check status 503        0     0       0         0                                -       -
";
        assert_eq!(table(&page), expected);
    }
}
