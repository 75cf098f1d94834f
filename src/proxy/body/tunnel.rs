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
//! - When the gateway stops, a silent tunnel, which nothing is under way in, does not keep it. A WebSocket is
//!   shut down on both sides: its own Close frame says what a proper end is (RFC 6455 section 7.1.5), and
//!   whoever sees a FIN without one connects again. We cannot send one, since where a frame begins is known
//!   only to who has read all before it. Another protocol may take a FIN for the end of what there was, so
//!   it is reset. A tunnel of which one side has ended waits for the rest, and is not silent in this sense.
//! - When `pre` is taken back from its client (see [`Recall`]), it ends at a moment that is drawn by lot,
//!   be it silent or not, a WebSocket between two pieces of what it carries: each side gets all that was
//!   read for it and then a FIN, and what still comes from either is dropped. Another protocol is reset.
//! - Anything else cuts it: a reset, a panic, silence in both directions for too long, a side that takes
//!   nothing for too long, the end of `drain_timeout`. Then both sides are reset at once. A FIN would
//!   claim that everything has arrived, and a side that keeps sending into a closed window would not
//!   even learn that nobody reads any more.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::memory::buffer::Buffer;
use crate::net::{self, Grip, Patience, Stream, Turns, Uptake, Wake};
use crate::proxy::downstream::Transport;
use crate::proxy::failsafe::Failsafe;

/// How long the sides of a WebSocket that was shut down have to do the same.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a tunnel may be silent.
pub(in crate::proxy) struct Silence {
    /// Longest silence in both directions, and longest time that a side takes nothing.
    pub(in crate::proxy) limit: Duration,
    /// The longest silence from now on, if the gateway stops.
    pub(in crate::proxy) in_stop: Box<dyn Fn() -> Option<Duration>>,
    /// Whether a FIN in the middle cannot be taken for the proper end.
    pub(in crate::proxy) tells_its_end: bool,
    /// What may end it before its time, silent or not.
    pub(in crate::proxy) recall: Option<Rc<Recall>>,
}

/// The end of a tunnel from without, by another coroutine of its worker.
pub(in crate::proxy) struct Recall {
    over: Cell<bool>,
    /// The handles on which its two directions wait.
    grips: [Option<Grip>; 2],
}

impl Recall {
    /// That of a tunnel between this client and the peer of `twins`.
    pub(in crate::proxy) fn of<T: Transport>(client: &T, twins: &Twins<T>) -> Self {
        Self {
            over: Cell::new(false),
            grips: [client.grip(), Some(twins.peer.grip())],
        }
    }

    /// One of no tunnel.
    #[cfg(test)]
    pub(in crate::proxy) fn of_none() -> Self {
        Self {
            over: Cell::new(false),
            grips: [None, None],
        }
    }

    /// The tunnel is to end.
    pub(in crate::proxy) fn end(&self) {
        self.over.set(true);
        self.grips.iter().flatten().for_each(Grip::interrupt);
    }

    /// It was to end, and has not: a side takes nothing. Both are reset.
    pub(in crate::proxy) fn cut(&self) {
        self.grips.iter().flatten().for_each(Grip::reset);
    }

    /// True once it is to end.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        self.over.get()
    }
}

/// Bytes carried.
pub(in crate::proxy) struct Carried {
    /// From the client to the peer.
    pub(in crate::proxy) up: u64,
    /// From the peer to the client; `None` after a panic there.
    pub(in crate::proxy) down: Option<u64>,
    /// It was cut, before both sides had ended.
    pub(in crate::proxy) cut: bool,
    /// The gateway has ended it, as nothing was under way.
    pub(in crate::proxy) stopped: bool,
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
    silence: Silence,
    /// When a byte was last read or written, in either direction.
    last: Cell<Instant>,
    /// One of the sides has ended.
    half_closed: Cell<bool>,
    /// One of the directions has cut the tunnel.
    cut: Cell<bool>,
    /// The gateway stops, and has found the tunnel silent.
    stopped: Cell<bool>,
    /// Both sides were shut down for that: until when they may do the same.
    farewell: Cell<Option<Instant>>,
}

impl Progress {
    /// When the silence will have lasted too long, unless something moves meanwhile.
    fn due(&self) -> Instant {
        if let Some(end) = self.farewell.get() {
            return end;
        }
        let limit = match self.limit_in_stop() {
            Some(limit) => limit.min(self.silence.limit),
            None => self.silence.limit,
        };
        let due = self.last.get().checked_add(limit);
        // The limit is beyond the clock's range: check again after a day.
        due.unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 60 * 60))
    }

    /// The longest silence if the gateway stops, of a tunnel whose sides have not ended.
    fn limit_in_stop(&self) -> Option<Duration> {
        match self.half_closed.get() {
            true => None,
            false => (self.silence.in_stop)(),
        }
    }

    /// True once the tunnel was recalled.
    fn is_recalled(&self) -> bool {
        let recall = self.silence.recall.as_ref();
        recall.is_some_and(|it| it.is_over())
    }

    /// True when the silence is too long only because the gateway stops.
    fn is_due_in_stop(&self) -> bool {
        self.limit_in_stop().is_some() && self.last.get().elapsed() < self.silence.limit
    }
}

/// Carries bytes between the client and the peer until both have ended their side, or the tunnel is
/// cut: then both are reset.
///
/// # Errors
/// When the second direction cannot be set up; nothing was carried then.
pub(in crate::proxy) fn carry<T: Transport>(
    client: &T,
    peer: &Stream,
    twins: Twins<T>,
    silence: Silence,
) -> io::Result<Carried> {
    let progress = Rc::new(Progress {
        silence,
        last: Cell::new(Instant::now()),
        half_closed: Cell::new(false),
        cut: Cell::new(false),
        stopped: Cell::new(false),
        farewell: Cell::new(None),
    });
    let of_down = Rc::clone(&progress);
    let down = net::spawn_beside(move || one_way(&twins.peer, &twins.client, &of_down))?;
    let up = one_way(client, peer, &progress);
    let down = down.join();
    Ok(Carried {
        up,
        down,
        cut: progress.cut.get(),
        stopped: progress.stopped.get(),
    })
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
    let patience = Patience::new(progress.silence.limit);
    loop {
        // An idle tunnel holds no buffer.
        buffer.release();
        let length = match read_some(from, to, &mut buffer, &mut turns, progress) {
            Read::Some(length) => length,
            Read::Cut => break,
            Read::Over => {
                cut.disarm();
                return count;
            }
            // What is at its end in one direction may not be in the other.
            Read::Recalled if !progress.silence.tells_its_end => break,
            Read::Recalled => {
                to.shutdown_write();
                part(from, to, buffer.room());
                cut.disarm();
                return count;
            }
        };
        net::note_arrival();
        progress.last.set(Instant::now());
        if length == 0 {
            cut.disarm();
            progress.half_closed.set(true);
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

/// What comes next in a direction.
enum Read {
    /// So many bytes; 0 at its end.
    Some(usize),
    /// Nothing: the tunnel is to be cut.
    Cut,
    /// Nothing, and nothing is missing.
    Over,
    /// Nothing: the tunnel was recalled.
    Recalled,
}

/// Reads from `from`. `to` is where the bytes go.
fn read_some<F: Transport, T: Transport>(
    from: &F,
    to: &T,
    buffer: &mut Buffer,
    turns: &mut Turns,
    progress: &Progress,
) -> Read {
    let (mut back, mut forth) = (Uptake::default(), Uptake::default());
    loop {
        let farewell = progress.farewell.get().is_some();
        // Once `to` has ended its side, this direction alone watches it. As we have not ended our side,
        // it is gone only if it was reset.
        let watch = match farewell {
            false => to.watch_gone(),
            true => to.watch_reset(),
        };
        let wake = from.wait_in_tunnel(progress.due(), watch);
        if progress.is_recalled() && !farewell && !net::are_waits_cut() {
            return Read::Recalled;
        }
        match wake {
            Wake::Ready => {}
            // The other direction has shut it down meanwhile.
            Wake::Watched if progress.farewell.get().is_some() && !farewell => continue,
            Wake::Watched => return Read::Cut,
            _ if net::are_waits_cut() => return Read::Cut,
            // The other direction was busy meanwhile, or the gateway is about to stop.
            _ if progress.due() > Instant::now() => continue,
            _ if farewell => return Read::Over,
            _ if progress.is_due_in_stop() => match end_in_stop(from, to, progress) {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(read) => return read,
            },
            // A side that is still taking bytes cannot have answered them yet.
            _ if back.goes_on(from.unsent()) | forth.goes_on(to.unsent()) => {
                progress.last.set(Instant::now());
                continue;
            }
            _ => return Read::Cut,
        }
        turns.begin();
        match from.read_now(buffer.room()) {
            Ok(length) => {
                buffer.added(length);
                return Read::Some(length);
            }
            // Old news.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Read::Cut,
        }
    }
}

/// Ends a tunnel that is silent while the gateway stops, unless something is still on its way.
fn end_in_stop<F: Transport, T: Transport>(
    from: &F,
    to: &T,
    progress: &Progress,
) -> ControlFlow<Read> {
    if from.unsent() + to.unsent() > 0 {
        progress.last.set(Instant::now());
        return ControlFlow::Continue(());
    }
    progress.stopped.set(true);
    if !progress.silence.tells_its_end {
        return ControlFlow::Break(Read::Cut);
    }
    from.shutdown_write();
    to.shutdown_write();
    progress.farewell.set(Some(Instant::now() + FAREWELL));
    ControlFlow::Continue(())
}

/// Reads to the end what still comes from a side that was told the end of a recalled tunnel, and drops it: a
/// socket that is closed with bytes unread is reset, and what was on its way from there is lost.
fn part<F: Transport, T: Transport>(from: &F, to: &T, into: &mut [u8]) {
    let end = Instant::now() + FAREWELL;
    while Instant::now() < end {
        match from.wait_in_tunnel(end, to.watch_reset()) {
            Wake::Ready => {}
            Wake::Interrupted if !net::are_waits_cut() => continue,
            _ => return,
        }
        match from.read_now(into) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}
