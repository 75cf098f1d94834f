//! The threads that look after what is known of peers: one ages it, see [`InForce::look`], and tells of
//! pools; one has their names looked up.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::events::PoolWatch;
use super::in_force::InForce;
use crate::config::Config;
use crate::process::supervised;
use crate::snapshot::Published;

/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts them.
///
/// # Errors
/// When a thread cannot be started.
pub(crate) fn start(in_force: Arc<InForce>, config: Arc<Published<Config>>) -> io::Result<()> {
    let (lists, settings) = (Arc::clone(&in_force), Arc::clone(&config));
    supervised::spawn("names", move || {
        loop {
            let interval = settings.load().upstream.resolve_interval;
            if lists.names().turn(interval) {
                lists.find_peers();
            }
        }
    })?;
    supervised::spawn("peers-look", move || {
        let mut watch = PoolWatch::default();
        loop {
            thread::sleep(PERIOD);
            let now = Instant::now();
            in_force.look(now);
            watch.look(&in_force.pools(), &config.load().upstream, now);
        }
    })?;
    Ok(())
}
