//! Upgraded connections (WebSocket and the like): bytes both ways, unread.
//!
//! There are two coroutines of the same worker, one for each direction, each with its own handles, since
//! at most one coroutine may wait on a handle.
//!
//! How a tunnel ends:
//!
//! - A side that has nothing more to send shuts down its sending. That is passed on, and the other
//!   direction continues for as long as it likes: `docker exec` and `nc` end their side and wait for the
//!   output. Once both sides have done so, the tunnel has ended.
//! - Anything else cuts it: a reset, a panic, silence in both directions for too long, a side that takes
//!   nothing for too long, the end of `drain_timeout`. Then both sides are reset at once. A FIN would
//!   claim that everything has arrived, and a side that keeps sending into a closed window would not
//!   even learn that nobody reads any more.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::memory::buffer::Buffer;
use crate::net::{self, Patience, Stream, Turns, Uptake, Wake};
use crate::proxy::downstream::Transport;
use crate::proxy::failsafe::Failsafe;

/// Bytes carried.
pub(in crate::proxy) struct Carried {
    /// From the client to the peer.
    pub(in crate::proxy) up: u64,
    /// From the peer to the client; `None` after a panic there.
    pub(in crate::proxy) down: Option<u64>,
    /// It was cut, before both sides had ended.
    pub(in crate::proxy) cut: bool,
}

/// Second handles of a client's and a peer's connection, for a second coroutine.
pub(in crate::proxy) struct Twins<T> {
    pub(in crate::proxy) client: T,
    pub(in crate::proxy) peer: Stream,
}

impl<T: Transport> Twins<T> {
    /// # Errors
    /// When descriptors run out.
    pub(in crate::proxy) fn of(client: &T, peer: &Stream) -> io::Result<Self> {
        Ok(Self {
            client: client.twin()?,
            peer: peer.twin()?,
        })
    }
}

/// What the two directions know of each other.
struct Progress {
    /// Longest silence in both directions, and longest time that a side takes nothing.
    limit: Duration,
    /// When a byte was last read or written, in either direction.
    last: Cell<Instant>,
    /// One of them has cut the tunnel.
    cut: Cell<bool>,
}

impl Progress {
    /// When the silence will have lasted too long, unless something moves meanwhile.
    fn due(&self) -> Instant {
        let due = self.last.get().checked_add(self.limit);
        // The limit is beyond the clock's range: check again after a day.
        due.unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 60 * 60))
    }
}

/// Carries bytes between the client and the peer until both have ended their side, or the tunnel is
/// cut: then both are reset. `limit` is the longest silence.
///
/// # Errors
/// When the second direction cannot be set up; nothing was carried then.
pub(in crate::proxy) fn carry<T: Transport>(
    client: &T,
    peer: &Stream,
    twins: Twins<T>,
    limit: Duration,
) -> io::Result<Carried> {
    let progress = Rc::new(Progress {
        limit,
        last: Cell::new(Instant::now()),
        cut: Cell::new(false),
    });
    let of_down = Rc::clone(&progress);
    let down = net::spawn_beside(move || one_way(&twins.peer, &twins.client, &of_down))?;
    let up = one_way(client, peer, &progress);
    let down = down.join();
    let cut = progress.cut.get();
    Ok(Carried { up, down, cut })
}

/// Copies one direction to its end; returns the bytes copied.
fn one_way<F: Transport, T: Transport>(from: &F, to: &T, progress: &Progress) -> u64 {
    // This wakes the other direction, too.
    let cut = Failsafe::new(|| {
        progress.cut.set(true);
        from.reset();
        to.reset();
    });
    let (mut buffer, mut count, mut turns) = (Buffer::new(), 0, Turns::new());
    let patience = Patience::new(progress.limit);
    loop {
        // An idle tunnel holds no buffer.
        buffer.release();
        let Some(length) = read_some(from, to, &mut buffer, &mut turns, progress) else {
            break;
        };
        net::note_arrival();
        progress.last.set(Instant::now());
        if length == 0 {
            cut.disarm();
            to.shutdown_write();
            return count;
        }
        // `from` may have ended cleanly in both directions while `to` is still slow to take its bytes.
        let written = to.write_all_unless(buffer.filled(), &patience, from.watch_reset());
        if written.is_err() {
            break;
        }
        progress.last.set(Instant::now());
        buffer.consume(length);
        count += length as u64;
        turns.moved(length);
    }
    count
}

/// Reads from `from`; `None` when the tunnel is to be cut. `to` is where the bytes go.
fn read_some<F: Transport, T: Transport>(
    from: &F,
    to: &T,
    buffer: &mut Buffer,
    turns: &mut Turns,
    progress: &Progress,
) -> Option<usize> {
    let (mut back, mut forth) = (Uptake::default(), Uptake::default());
    loop {
        // Once `to` has ended its side, this direction alone watches it. As we have not ended our side,
        // it is gone only if it was reset.
        match from.wait_readable(progress.due(), to.watch_gone()) {
            Wake::Ready => {}
            Wake::Watched => return None,
            _ if net::are_waits_cut() => return None,
            // The other direction was busy meanwhile.
            _ if progress.due() > Instant::now() => continue,
            // A side that is still taking bytes cannot have answered them yet.
            _ if back.goes_on(from.unsent()) | forth.goes_on(to.unsent()) => {
                progress.last.set(Instant::now());
                continue;
            }
            _ => return None,
        }
        turns.begin();
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
