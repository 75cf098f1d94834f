//! Clients with short requests: busy ones, idle ones, and one that connects anew each time.

use std::thread;
use std::time::{Duration, Instant};

use super::connection::{Answer, Connection, Trouble};
use super::tally::Count;
use super::{LOOK, Phase, Shared, content, pause};

/// The idle connections are shared out among so many threads.
pub(super) const IDLE_THREADS: usize = 8;

/// Between two new connections.
const PROBE_PAUSE: Duration = Duration::from_millis(10);

/// While these last, requests are sent.
const ASKING: [Phase; 2] = [Phase::Short, Phase::All];

/// A request, and the content of its answer.
struct Exchange {
    request: Vec<u8>,
    content: Vec<u8>,
}

impl Exchange {
    fn get(more: &str) -> Self {
        let (number, length) = (fastrand::u64(..), fastrand::usize(..8192));
        let request = format!("GET /content/{number}/{length} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        Self {
            request: request.into_bytes(),
            content: content(number, length),
        }
    }

    fn post() -> Self {
        let content = content(fastrand::u64(..), fastrand::usize(..8192));
        let length = content.len();
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        Self {
            request: [head.as_bytes(), &content].concat(),
            content,
        }
    }

    fn any() -> Self {
        match fastrand::bool() {
            true => Self::get(""),
            false => Self::post(),
        }
    }
}

/// A connection that is meant to last.
#[derive(Default)]
struct Kept(Option<Connection>);

impl Kept {
    /// Asks; connects first where there is no connection.
    fn ask(&mut self, shared: &Shared) {
        let mut connection = match self.0.take() {
            Some(connection) => connection,
            None => match Connection::open(shared.proxy) {
                Ok(connection) => connection,
                Err(trouble) => return trouble.note(&shared.tally),
            },
        };
        let Exchange { request, content } = Exchange::any();
        match connection.ask(&request, &content) {
            Ok(answer) => {
                shared.tally.increment(Count::Answered);
                match answer {
                    Answer::Kept => self.0 = Some(connection),
                    Answer::Last => shared.tally.increment(Count::Told),
                }
            }
            Err(trouble) => trouble.note(&shared.tally),
        }
    }
}

/// One request after the other on a connection.
pub(super) fn busy(shared: &Shared, _: usize) {
    let mut kept = Kept::default();
    while shared.has_turn(&ASKING) {
        kept.ask(shared);
        shared.rest();
        pause(shared.plan.pause, None);
    }
    // It must be there to the end.
    kept.ask(shared);
}

/// Connections that are silent but for a request now and then.
pub(super) fn idle(shared: &Shared, at: usize) {
    let own = (at..shared.plan.idle).step_by(IDLE_THREADS);
    let mut kept: Vec<Kept> = own.map(|_| Kept::default()).collect();
    for kept in &mut kept {
        if !shared.has_turn(&ASKING) {
            return;
        }
        kept.ask(shared);
        shared.rest();
    }
    let due = |_: &Kept| Instant::now() + shared.plan.silence.mul_f64(fastrand::f64());
    let mut dues: Vec<Instant> = kept.iter().map(due).collect();
    while shared.has_turn(&ASKING) {
        for (kept, at) in kept.iter_mut().zip(&mut dues) {
            if *at <= Instant::now() {
                kept.ask(shared);
                *at = due(kept);
            }
        }
        shared.rest();
        thread::sleep(LOOK);
    }
    for kept in &mut kept {
        kept.ask(shared);
    }
}

/// A new connection for each request, all the time.
pub(super) fn probe(shared: &Shared, _: usize) {
    while shared.has_turn(&ASKING) {
        let begun = Instant::now();
        match probe_once(shared) {
            Ok(()) => {
                shared.tally.increment(Count::Answered);
                shared.tally.probed(begun.elapsed());
            }
            Err(trouble) => trouble.note(&shared.tally),
        }
        shared.rest();
        thread::sleep(PROBE_PAUSE);
    }
}

fn probe_once(shared: &Shared) -> Result<(), Trouble> {
    let mut connection = Connection::open(shared.proxy)?;
    let Exchange { request, content } = Exchange::get("Connection: close\r\n");
    connection.ask(&request, &content).map(drop)
}
