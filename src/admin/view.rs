//! What the admin listener looks at, and what it has refused.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::Reloads;
use crate::error::AdminRefusal;
use crate::fleet::heartbeat::Heartbeat;
use crate::logs::throttle::Throttle;
use crate::logs::writer::LogQueue;
use crate::proxy::Gateway;
use crate::store::Publisher;
use crate::upstream::check::Checker;

/// What the admin listener looks at.
pub(crate) struct View {
    /// The data plane.
    pub(crate) gateway: Arc<Gateway>,
    /// The lists' way into it.
    pub(crate) publisher: Arc<Publisher>,
    /// By which other machines know this gateway, if there is one.
    pub(crate) heartbeat: Option<Arc<Heartbeat>>,
    /// The health checks of peers.
    pub(crate) checker: Arc<Checker>,
    /// The outcomes of the reloads.
    pub(crate) reloads: Arc<Reloads>,
    /// The error log.
    pub(crate) error_log: LogQueue,
    /// What was refused here.
    pub(crate) refused: Refused,
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
