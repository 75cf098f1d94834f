//! What the admin listeners look at, and what they have refused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::admin::token::Token;
use crate::config::{Reloads, Store};
use crate::error::AdminRefusal;
use crate::fleet::heartbeat::Heartbeat;
use crate::logs::throttle::Throttle;
use crate::logs::writer::LogQueue;
use crate::process::lineage::Lineage;
use crate::proxy::Gateway;
use crate::release::judge::Judge;
use crate::release::trips::Trips;
use crate::release::webhook::Webhook;
use crate::store::Publisher;

/// What the admin listeners look at.
pub(crate) struct View {
    /// The data plane.
    pub(crate) gateway: Arc<Gateway>,
    /// The lists' way into it.
    pub(crate) publisher: Arc<Publisher>,
    /// What is known of releases.
    pub(crate) judge: Arc<Judge>,
    /// What was taken back.
    pub(crate) trips: Arc<Trips>,
    /// Where people are told of it.
    pub(crate) webhook: Arc<Webhook>,
    /// By which other machines know this gateway, if there is one.
    pub(crate) heartbeat: Arc<ArcSwapOption<Heartbeat>>,
    /// The outcomes of the reloads.
    pub(crate) reloads: Arc<Reloads>,
    /// The processes of this gateway.
    pub(crate) lineage: Arc<Lineage>,
    /// The error log.
    pub(crate) error_log: LogQueue,
    /// Where they are.
    pub(crate) doors: ArcSwap<Doors>,
    /// What changes over TCP require, if they are possible.
    pub(crate) token: ArcSwapOption<Token>,
    /// What was refused here.
    pub(crate) refused: Refused,
    /// Who starts this gateway again should it die.
    pub(crate) supervision: Option<Supervision>,
}

/// What a supervisor has said at the start.
#[derive(Clone, Debug)]
pub(crate) struct Supervision {
    /// The supervisor's process id.
    pub(crate) pid: u32,
    /// How often a gateway was started again since the supervisor was.
    pub(crate) restarts: u64,
    /// Why, the last time.
    pub(crate) reason: Option<String>,
}

impl View {
    /// Why the store cannot be read at present. A lists file may have an entry that is wrong, which is named
    /// only to whoever may see `clients`.
    pub(super) fn store_error(&self, clients: bool) -> Option<String> {
        let error = self.publisher.status().error?;
        let is_file = matches!(self.gateway.config.load().store, Store::File(_));
        Some(match is_file && !clients {
            true => without_entry(&error),
            false => error,
        })
    }
}

/// In the place of an entry that is not shown.
pub(super) const NO_ENTRY: &str = "(hidden)";

/// An error of a lists file without the entry, which stands there in quotes and may have quotes itself.
fn without_entry(error: &str) -> String {
    match (error.split_once('"'), error.rsplit_once('"')) {
        (Some((before, _)), Some((_, after))) => format!("{before}{NO_ENTRY}{after}"),
        _ => error.to_owned(),
    }
}

/// Where the admin listeners are.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    /// The Unix socket.
    pub(crate) socket: Option<PathBuf>,
    /// Where the pages can be read.
    pub(crate) listen: Option<SocketAddr>,
    /// Where `/metrics` and `/healthz` can be read.
    pub(crate) metrics: Option<SocketAddr>,
}

/// Counts and logs refused requests.
#[derive(Default)]
pub(crate) struct Refused {
    counts: [AtomicU64; AdminRefusal::ALL.len()],
    throttle: Mutex<Throttle>,
}

impl Refused {
    /// Counts one, and logs it unless others were logged just now.
    pub(super) fn note(
        &self,
        why: AdminRefusal,
        host: &[u8],
        target: &[u8],
        from: Option<SocketAddr>,
    ) {
        self.counts[why.index()].fetch_add(1, Ordering::Relaxed);
        let throttle = self.throttle.lock();
        let turn = throttle
            .unwrap_or_else(PoisonError::into_inner)
            .turn(Instant::now());
        let Some(untold) = turn else { return };
        let shown = |bytes: &[u8]| {
            let part = &bytes[..bytes.len().min(SHOWN)];
            part.escape_ascii().to_string()
        };
        let (reason, host, target) = (why.name(), shown(host), shown(target));
        let from = from.map_or("-".to_owned(), |it| it.to_string());
        log::warn!(
            "admin-refused reason={reason} host=\"{host}\" target=\"{target}\" from={from} untold={untold}"
        );
    }

    /// How many requests were refused for this.
    pub(super) fn count(&self, why: AdminRefusal) -> u64 {
        self.counts[why.index()].load(Ordering::Relaxed)
    }
}

/// How much of a name or target is logged, in bytes.
pub(super) const SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_its_entry_says_all_the_rest() {
        for (error, shown) in [
            (
                "line 5: \"10.0.0.1x\": no address",
                "line 5: (hidden): no address",
            ),
            (
                r#"line 5: "10.0.0.1\" \"x": no address"#,
                "line 5: (hidden): no address",
            ),
            ("there is no section [gray]", "there is no section [gray]"),
        ] {
            assert_eq!(without_entry(error), shown);
        }
    }
}
