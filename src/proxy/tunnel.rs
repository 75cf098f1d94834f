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
use crate::net::{self, Patience, Stream, Turns, Uptake, Wake, Watch};

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

/// What the two directions know of each other.
struct Progress {
    /// When a byte was last read or written, in either direction.
    last: Cell<Instant>,
    /// When one of them has carried all there was.
    ended: Cell<Option<Instant>>,
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
    let progress = Rc::new(Progress {
        last: Cell::new(Instant::now()),
        ended: Cell::new(None),
    });
    let of_down = Rc::clone(&progress);
    let down = move || one_way(&twins.peer, &twins.client, limits, &of_down);
    let down = net::spawn_beside(down)?;
    let up = one_way(client, peer, limits, &progress);
    let down = down.join();
    Ok(Carried { up, down })
}

/// Copies one direction to its end; returns the bytes copied.
fn one_way(from: &Stream, to: &Stream, limits: Limits, progress: &Progress) -> u64 {
    // Ends the other direction, too.
    let end_both = Failsafe::new(|| {
        from.shutdown_both();
        to.shutdown_both();
    });
    let (mut buffer, mut count, mut turns) = (Buffer::new(), 0, Turns::new());
    let patience = Patience::new(limits.send);
    loop {
        // An idle tunnel holds no buffer.
        buffer.release();
        let Some(length) = read_some(from, to, &mut buffer, limits, progress) else {
            break;
        };
        net::note_arrival();
        progress.last.set(Instant::now());
        if length == 0 {
            end_both.disarm();
            to.shutdown_write();
            progress.ended.set(Some(Instant::now()));
            return count;
        }
        if to.write_all(buffer.filled(), &patience).is_err() {
            break;
        }
        progress.last.set(Instant::now());
        buffer.consume(length);
        count += length as u64;
        turns.moved(length);
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
    progress: &Progress,
) -> Option<usize> {
    // The other direction's source has ended.
    let mut alone = false;
    let mut uptake = Uptake::default();
    loop {
        let half_closed = HALF_CLOSED.min(limits.idle);
        let due = match (alone, progress.ended.get()) {
            (false, _) => progress.last.get() + limits.idle,
            // It has bytes to carry, and deadlines of its own.
            (true, None) => Instant::now() + half_closed,
            (true, Some(ended)) => progress.last.get().max(ended) + half_closed,
        };
        let watch = match alone {
            false => Watch::Ended(to),
            true => Watch::Nothing,
        };
        match from.wait_readable(due, watch) {
            Wake::Ready => {}
            Wake::Watched => {
                alone = true;
                continue;
            }
            _ if net::are_waits_cut() => return None,
            // The other direction may have been busy meanwhile.
            _ if alone && progress.ended.get().is_none() => continue,
            _ if !alone && progress.last.get() + limits.idle > Instant::now() => continue,
            _ if !alone => return None,
            // Who still takes what was carried cannot have answered it.
            _ if uptake.goes_on(from) => {
                progress.last.set(Instant::now());
                continue;
            }
            _ => return None,
        }
        match from.read_now(buffer.room()) {
            Ok(length) => {
                buffer.added(length);
                return Some(length);
            }
            // Old news.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}
