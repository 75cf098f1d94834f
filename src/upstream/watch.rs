//! The thread that looks after what is known of peers: see [`InForce::look`].

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::in_force::InForce;
use crate::process::supervised;

/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts it.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(in_force: Arc<InForce>) -> io::Result<()> {
    supervised::spawn("peers-look", move || {
        loop {
            thread::sleep(PERIOD);
            in_force.look(Instant::now());
        }
    })?;
    Ok(())
}
