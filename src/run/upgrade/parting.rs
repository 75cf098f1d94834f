//! The old process after it has handed over: it says how far it is.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::HeirWay;
use crate::process::handover::{DrainNote, Message};
use crate::process::lineage::to_millis;
use crate::proxy::Gateway;

/// How often it does.
const REPORT: Duration = Duration::from_secs(1);

/// A process that finishes what is under way.
pub(in crate::run) struct Parting {
    gateway: Arc<Gateway>,
    way: Arc<HeirWay>,
    since: SystemTime,
    until: SystemTime,
}

impl Parting {
    /// Reports to whoever serves from now on, until the process ends, after `limit` at most.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::run) fn start(
        gateway: &Arc<Gateway>,
        way: &Arc<HeirWay>,
        limit: Duration,
    ) -> io::Result<()> {
        let since = SystemTime::now();
        let parting = Self {
            gateway: Arc::clone(gateway),
            way: Arc::clone(way),
            since,
            until: since + limit,
        };
        let mut is_heard = parting.report();
        let thread = std::thread::Builder::new().name("drain-report".to_owned());
        thread.spawn(move || {
            while is_heard {
                std::thread::sleep(REPORT);
                is_heard = parting.report();
            }
        })?;
        Ok(())
    }

    /// False when nobody hears it.
    fn report(&self) -> bool {
        let note = Message::Draining(DrainNote {
            pid: u64::from(std::process::id()),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            since_ms: to_millis(self.since),
            connections: self.gateway.open_connections() as u64,
            until_ms: to_millis(self.until),
        });
        let mut channel = self.way.channel();
        while let Some(at) = &channel {
            if at.send(&note, &[]).is_ok() {
                return true;
            }
            channel = self.way.instead_of(at);
        }
        false
    }
}
