//! Upgraded connections (WebSocket and the like): bytes both ways, unread.
//!
//! Two coroutines of the same worker, one a direction, on handles of their own, since at most one
//! coroutine may wait on a handle. Each ends at the end of its source and passes that end on;
//! an error, a panic, or silence in both directions for too long, ends both. Once one side has
//! ended, the other's silence need not be long.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::failsafe::Failsafe;
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
    /// From the peer to the client; `None` after a panic there.
    pub(super) down: Option<u64>,
}

/// Second handles of a client's and a peer's connection, for a second coroutine.
pub(super) struct Twins {
    pub(super) client: Stream,
    pub(super) peer: Stream,
}

impl Twins {
    /// # Errors
    /// When descriptors run out.
    pub(super) fn of(client: &Stream, peer: &Stream) -> io::Result<Self> {
        Ok(Self {
            client: client.twin()?,
            peer: peer.twin()?,
        })
    }
}

/// Carries bytes between the client and the peer until both directions have ended.
///
/// # Errors
/// When the second direction cannot be set up; nothing was carried then.
pub(super) fn carry(
    client: &Stream,
    peer: &Stream,
    twins: Twins,
    limits: Limits,
) -> io::Result<Carried> {
    let last_byte = Rc::new(Cell::new(Instant::now()));
    let of_down = Rc::clone(&last_byte);
    let down = move || one_way(&twins.peer, &twins.client, limits, &of_down);
    let down = net::spawn_beside(down)?;
    let up = one_way(client, peer, limits, &last_byte);
    let down = down.join();
    Ok(Carried { up, down })
}

/// Copies one direction to its end; returns the bytes copied.
fn one_way(from: &Stream, to: &Stream, limits: Limits, last_byte: &Cell<Instant>) -> u64 {
    // Ends the other direction, too.
    let end_both = Failsafe::new(|| {
        from.shutdown_both();
        to.shutdown_both();
    });
    let (mut buffer, mut count, mut share) = (Buffer::new(), 0, FAIR_SHARE);
    let patience = Patience::new(limits.send);
    loop {
        // An idle tunnel holds no buffer.
        buffer.release();
        let Some(length) = read_some(from, to, &mut buffer, limits, last_byte) else {
            break;
        };
        if length == 0 {
            end_both.disarm();
            to.shutdown_write();
            return count;
        }
        last_byte.set(Instant::now());
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
    count
}

/// Reads from `from`; `None` when the tunnel is to end. `to` is where the bytes go, and where those
/// of the other direction come from.
fn read_some(
    from: &Stream,
    to: &Stream,
    buffer: &mut Buffer,
    limits: Limits,
    last_byte: &Cell<Instant>,
) -> Option<usize> {
    // Since when the other direction has ended, so that this one is all there is.
    let mut alone: Option<Instant> = None;
    loop {
        let due = |alone: Option<Instant>| match alone {
            None => last_byte.get() + limits.idle,
            Some(since) => last_byte.get().max(since) + HALF_CLOSED.min(limits.idle),
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
            _ if due(alone) > Instant::now() && !net::are_waits_cut() => continue,
            _ => return None,
        }
        let length = from.read(buffer.room(), due(alone)).ok()?;
        buffer.added(length);
        return Some(length);
    }
}
