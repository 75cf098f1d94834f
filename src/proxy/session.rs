//! One downstream connection: request after request, until one of them ends it.
//!
//! Between two requests a session holds little more than its socket: no buffer, no workspace. After a
//! moment of silence it is parked, without a coroutine, and a new coroutine resumes it when bytes
//! arrive.

mod answer;
mod dormant;
mod leave;
mod request;
mod sessions;
mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

pub(super) use dormant::Arrival;
use dormant::{Dormant, Parked};
pub(super) use sessions::Sessions;

use super::body::request_body::RequestBody;
use super::worker::Worker;
use crate::error::Close;
use crate::memory::buffer::Buffer;
use crate::net::{self, Accepted, Detached, Stream};

/// Serves a connection until it ends or is parked; returns it when the worker has no descriptor for it.
pub(super) fn serve(
    sessions: &Rc<Sessions>,
    connection: Accepted,
    arrival: &Arrival,
) -> Result<(), Accepted> {
    let connection = connection.settle().map_err(|(connection, _)| connection)?;
    let number = sessions.next_number();
    let dormant = Dormant::new(&sessions.worker.counters, number, arrival);
    go_on(sessions, connection, dormant);
    Ok(())
}

/// Starts to resume parked connections when bytes arrive.
pub(super) fn watch_parked(sessions: &Rc<Sessions>) {
    sessions.watch(resume);
}

/// Ends parked connections whose time is over; all of them when the gateway is to end.
pub(super) fn sweep_parked(sessions: &Rc<Sessions>, now: Instant) {
    let draining = sessions.worker.gateway().is_draining();
    sessions.sweep(now, draining, |connection, parked| {
        leave(sessions, connection, parked, draining);
    });
}

/// Resumes a connection on which something has arrived, on the calling worker.
fn resume(sessions: &Rc<Sessions>, connection: Detached, parked: Parked) {
    let metrics = sessions.worker.metrics();
    metrics.parked.decrement();
    let here = Rc::clone(sessions);
    let spawned = net::spawn_beside(move || go_on(&here, connection, parked.dormant));
    if spawned.is_err() {
        metrics.closes[Close::OverCapacity.index()].increment();
    }
}

/// Ends a connection whose time is over, unless something has arrived at the last moment: then it is
/// resumed. During a drain, so is one that has had no request yet.
fn leave(sessions: &Rc<Sessions>, connection: Detached, parked: Parked, draining: bool) {
    let moves = draining && parked.dormant.pinned.is_none();
    let moves = moves && sessions.worker.gateway().heir.get().is_some();
    let first = draining && parked.dormant.served == 0 && !moves;
    if first || connection.is_readable_now() {
        return resume(sessions, connection, parked);
    }
    let close = match draining {
        true if moves => parked.dormant.move_to_heir(&sessions.worker, &connection),
        true => Close::Draining,
        false => parked.close,
    };
    let metrics = sessions.worker.metrics();
    metrics.parked.decrement();
    metrics.closes[close.index()].increment();
}

fn go_on(sessions: &Rc<Sessions>, connection: Detached, dormant: Dormant) {
    let worker = &sessions.worker;
    let close = match connection.attach() {
        Ok(stream) => {
            let mut session = Session {
                sessions,
                worker,
                stream,
                dormant,
                begun: Instant::now(),
                buffer: Buffer::new(),
                unpaused: 0,
                body: RequestBody::unknown(),
            };
            let served = catch_unwind(AssertUnwindSafe(|| session.run()));
            match served {
                Ok(Pause::End(close)) => close,
                Ok(Pause::Silence) => match session.park() {
                    Ok(()) => return,
                    Err(close) => close,
                },
                Ok(Pause::Move) => session.move_on(),
                Err(_) => {
                    worker.metrics().panics.increment();
                    Close::Panic
                }
            }
        }
        Err(error) => {
            worker.reports.attach_failed(dormant.socket, &error);
            Close::OverCapacity
        }
    };
    worker.metrics().closes[close.index()].increment();
}

struct Session<'a> {
    sessions: &'a Sessions,
    worker: &'a Rc<Worker>,
    stream: Stream,
    dormant: Dormant,
    /// Since when it has had a coroutine.
    begun: Instant,
    /// Bytes received and not yet used.
    buffer: Buffer,
    /// Requests in a row that involved no waiting.
    unpaused: usize,
    /// The body of the last request.
    body: RequestBody,
}

/// What follows a request.
enum Next {
    /// Another request may come.
    Request,
    /// The connection ends, after everything sent has arrived.
    Close(Close),
    /// The connection ends, and the client must see that something is missing.
    Abort(Close),
}

/// Why a session stops, for now or for good.
enum Pause {
    End(Close),
    /// The client has been silent for a moment.
    Silence,
    /// It goes on in another process.
    Move,
}

impl From<Close> for Pause {
    fn from(close: Close) -> Self {
        Self::End(close)
    }
}

impl Session<'_> {
    fn run(&mut self) -> Pause {
        if self.dormant.header_due
            && let Err(pause) = self.read_proxy_header()
        {
            if let Pause::End(close) = pause {
                self.worker.reports.turned_away(self.dormant.socket, close);
            }
            return pause;
        }
        loop {
            if let Err(pause) = self.wait_for_request() {
                return pause;
            }
            match self.serve_request() {
                Next::Request => self.dormant.served += 1,
                Next::Close(close) => {
                    self.linger(close);
                    return Pause::End(close);
                }
                Next::Abort(close) => {
                    self.stream.abort();
                    return Pause::End(close);
                }
            }
        }
    }
}
