//! Upgraded connections (WebSocket and the like): bytes both ways, unread.
//!
//! Two coroutines of the same worker, one a direction, on handles of their own, since at most one
//! coroutine may wait on a handle. Each ends at the end of its source and passes that end on;
//! an error, or silence in both directions for too long, ends both. Once one side has ended, the
//! other's silence need not be long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::net::{self, Patience, Stream, Wake, Watch};

/// After so many bytes the worker's other connections get their turn.
const FAIR_SHARE: usize = 256 * 1024;

/// Once one side has nothing more to send, the other may be silent for so long. Protocols that are
/// upgraded to say goodbye on both sides; a side that is gone for good never will.
const HALF_CLOSED: Duration = Duration::from_secs(2);

/// Limits of a tunnel.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Longest silence in both directions.
    pub(super) idle: Duration,
    /// Longest time that a side takes nothing.
    pub(super) send: Duration,
}

/// Bytes carried.
pub(super) struct Carried {
    /// From the client to the peer.
    pub(super) up: u64,
    /// From the peer to the client.
    pub(super) down: u64,
}

/// What both directions know.
struct Shared {
    begun: Instant,
    /// When the last byte passed, in milliseconds from `begun`.
    last: AtomicU64,
    down: AtomicU64,
}

/// Carries bytes between the client and the peer until both directions have ended.
///
/// # Errors
/// When the second direction cannot be set up; nothing was carried then.
pub(super) fn carry(client: &Stream, peer: &Stream, limits: Limits) -> io::Result<Carried> {
    let shared = Arc::new(Shared {
        begun: Instant::now(),
        last: AtomicU64::new(0),
        down: AtomicU64::new(0),
    });
    let (from, to) = (peer.twin()?, client.twin()?);
    let down = {
        let shared = Arc::clone(&shared);
        move || {
            if let (Ok(from), Ok(to)) = (from.attach(), to.attach()) {
                let count = one_way(&from, &to, limits, &shared);
                shared.down.store(count, Ordering::Relaxed);
            }
        }
    };
    let companion = net::spawn_joinable(net::worker(), down)?;
    let up = one_way(client, peer, limits, &shared);
    companion.join();
    Ok(Carried {
        up,
        down: shared.down.load(Ordering::Relaxed),
    })
}

/// Copies one direction to its end; returns the bytes copied.
fn one_way(from: &Stream, to: &Stream, limits: Limits, shared: &Shared) -> u64 {
    let (mut buffer, mut count, mut share) = (Buffer::new(), 0, FAIR_SHARE);
    let patience = Patience::new(limits.send);
    loop {
        // An idle tunnel holds no buffer.
        buffer.release();
        let Some(length) = read_some(from, to, &mut buffer, limits, shared) else {
            break;
        };
        if length == 0 {
            to.shutdown_write();
            return count;
        }
        shared.touch();
        if to.write_all(buffer.filled(), &patience).is_err() {
            break;
        }
        buffer.consume(length);
        count += length as u64;
        share = share.saturating_sub(length);
        if share == 0 {
            net::hand_back();
            share = FAIR_SHARE;
        }
    }
    // Wakes the other direction, too.
    from.shutdown_both();
    to.shutdown_both();
    count
}

/// Reads from `from`; `None` when the tunnel is to end. `to` is where the bytes go, and where those
/// of the other direction come from.
fn read_some(
    from: &Stream,
    to: &Stream,
    buffer: &mut Buffer,
    limits: Limits,
    shared: &Shared,
) -> Option<usize> {
    // Since when the other direction has ended, so that this one is all there is.
    let mut alone: Option<Instant> = None;
    loop {
        let due = |alone: Option<Instant>| match alone {
            None => shared.last_byte() + limits.idle,
            Some(since) => shared.last_byte().max(since) + HALF_CLOSED.min(limits.idle),
        };
        let watch = match alone {
            None => Watch::Ended(to),
            Some(_) => Watch::Nothing,
        };
        match from.wait_readable(due(alone), watch) {
            Wake::Ready => {}
            Wake::Watched => {
                alone = Some(Instant::now());
                continue;
            }
            // The other direction may have been busy meanwhile.
            _ if due(alone) > Instant::now() => continue,
            _ => return None,
        }
        let length = from.read(buffer.room(), due(alone)).ok()?;
        buffer.added(length);
        return Some(length);
    }
}

impl Shared {
    fn touch(&self) {
        let now = self.begun.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn last_byte(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}
