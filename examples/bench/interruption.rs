//! What ends a run before its time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// True once this program is told to end, by a signal.
pub(crate) fn interruption() -> Result<Arc<AtomicBool>, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let registered = flag::register(signal, Arc::clone(&interrupted));
        registered.map_err(|it| format!("signals: {it}"))?;
    }
    Ok(interrupted)
}
