//! Whom a connection to a peer may serve next, once both messages on it are complete.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Exchange;
use crate::http::version::Version;
use crate::net::{self, Moment, Peeked, Stream, Wake, Watch};
use crate::proxy::downstream::Downstream;
use crate::proxy::pinned::{Pinned, Pinning, Taken};
use crate::upstream::pool::{InUse, Leftover, Spent};

/// How long to listen to a peer that may send the body of a response that must not have one: long enough
/// for the client's own next request, but [not](Leftover) for anybody else's.
const LATE_BODY: Duration = Duration::from_millis(50);

/// A connection to the peer, on which both messages are complete.
pub(super) struct Kept {
    pub(super) stream: Stream,
    /// Counts it.
    pub(super) in_use: InUse,
    /// What may still come on it.
    pub(super) leftover: Leftover,
    /// When the head of the response was there, and maybe all of it.
    pub(super) answered: Moment,
    /// How long the peer keeps an idle connection, as it has said.
    pub(super) announced: Option<Duration>,
    /// The answer began before the request's body had ended.
    pub(super) ahead: bool,
    /// The client may ask again.
    pub(super) client_stays: bool,
}

/// What was on the connection, as far as its next request depends on that.
#[derive(Clone, Copy, Debug)]
struct Exchanged {
    /// It counts as a user's: credentials or a challenge that authenticate connections were on it.
    pins: bool,
    /// The answer began before the request's body had ended.
    ahead: bool,
    /// An upgrade was requested, and not granted.
    upgrade: bool,
    /// The client is a trusted proxy, on whose connection requests of many people may come.
    by_proxy: bool,
    /// The client may send another request.
    client_stays: bool,
}

/// Whom it serves next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// Nobody.
    Close,
    /// The same client connection only.
    Pin,
    /// Anybody.
    Pool,
}

impl Keeping {
    fn after(exchanged: Exchanged) -> Self {
        let Exchanged {
            pins,
            ahead,
            upgrade,
            by_proxy,
            client_stays,
        } = exchanged;
        // Some peers answer before the end of a body and take the rest for the next request; some take
        // what follows a request for an upgrade for another protocol, whatever they answered. So the
        // next request on such a connection must be the same user's; and credentials in a field do not
        // make a proxy's connection a single user's.
        if (ahead || upgrade) && by_proxy {
            return Self::Close;
        }
        if pins || ahead {
            return match client_stays {
                true => Self::Pin,
                false => Self::Close,
            };
        }
        match upgrade {
            true => Self::Close,
            false => Self::Pool,
        }
    }
}

impl<D: Downstream> Exchange<'_, D> {
    /// True when the peer will take another request on its connection.
    pub(super) fn peer_keeps(&self) -> bool {
        let options = &self.workspace.response_options;
        match self.workspace.response.version {
            Version::Http11 => !options.close,
            Version::Http10 => options.keep_alive && !options.close,
        }
    }

    /// Keeps a connection for whom it may serve.
    pub(super) fn keep(&mut self, kept: Kept) {
        let Kept {
            stream,
            mut in_use,
            leftover,
            answered,
            announced,
            ahead,
            client_stays,
        } = kept;
        let (Some(peer), Some(pool)) = (self.tally.peer, self.tally.pool) else {
            return;
        };
        let keeping = Keeping::after(Exchanged {
            pins: self.pinning != Pinning::None,
            ahead,
            upgrade: self.plan.upgrade,
            by_proxy: self.plan.by_proxy,
            client_stays,
        });
        let challenged = self.pinning == Pinning::Challenged;
        match keeping {
            Keeping::Close => {}
            // The next request on a proxy's connection may be another user's, whatever credentials this one
            // has.
            Keeping::Pin if self.plan.by_proxy && !challenged && leftover != Leftover::None => {}
            Keeping::Pin => {
                in_use.pin();
                let taken = Taken {
                    stream,
                    in_use,
                    service: self.candidates.service(),
                    peer,
                    pool,
                    challenged,
                };
                let limit = self.rules.keepalive.claims();
                let pinned = Pinned::new(self.worker, taken, self.decided, limit);
                *self.pinned = pinned.map(Box::new);
            }
            Keeping::Pool => {
                let worker = self.worker;
                let leftover = match leftover {
                    _ if self.leftover != Leftover::None => Leftover::Answer,
                    Leftover::Body if worker.pool.is_to_be_heard(peer) => {
                        if !self.is_silent(peer, &stream) {
                            return;
                        }
                        Leftover::Doubtful
                    }
                    leftover => leftover,
                };
                let spent = Spent {
                    stream,
                    leftover,
                    asker: self.asker,
                    in_use,
                    answered,
                    announced,
                };
                worker.keep_upstream(spent, self.config, self.rules);
            }
        }
    }

    /// Listens for a moment whether the peer sends a body where none is allowed; once for each peer.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn is_silent(&self, peer: SocketAddr, stream: &Stream) -> bool {
        let deadline = Instant::now() + LATE_BODY;
        let outcome = loop {
            match stream.wait_readable(deadline, Watch::Nothing) {
                Wake::Ready => match stream.peek_now() {
                    // Old news.
                    Peeked::Nothing => {}
                    peeked => break peeked,
                },
                _ if net::are_waits_cut() => return false,
                _ => break Peeked::Nothing,
            }
        };
        if outcome != Peeked::End {
            let talks = outcome == Peeked::Bytes;
            self.worker.pool.heard(peer, talks);
        }
        outcome == Peeked::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pins ahead upgrade by_proxy client_stays`, and who is served next.
    const ROWS: &str = "
        00000 pool,  00001 pool,  00010 pool,  00011 pool,
        00100 close, 00101 close, 00110 close, 00111 close,
        01000 close, 01001 pin,   01010 close, 01011 close,
        01100 close, 01101 pin,   01110 close, 01111 close,
        10000 close, 10001 pin,   10010 close, 10011 pin,
        10100 close, 10101 pin,   10110 close, 10111 close,
        11000 close, 11001 pin,   11010 close, 11011 close,
        11100 close, 11101 pin,   11110 close, 11111 close";

    #[test]
    fn whom_a_connection_serves_next_depends_on_what_was_on_it() {
        let rows = ROWS.split(',').map(str::trim);
        let mut count = 0;
        for (number, row) in rows.enumerate() {
            let (bits, expected) = row.split_once(' ').unwrap();
            assert_eq!(usize::from_str_radix(bits, 2), Ok(number));
            let bit = |place: usize| bits.as_bytes()[place] == b'1';
            let keeping = Keeping::after(Exchanged {
                pins: bit(0),
                ahead: bit(1),
                upgrade: bit(2),
                by_proxy: bit(3),
                client_stays: bit(4),
            });
            let expected = match expected.trim() {
                "close" => Keeping::Close,
                "pin" => Keeping::Pin,
                _ => Keeping::Pool,
            };
            assert_eq!(keeping, expected, "{bits}");
            count += 1;
        }
        assert_eq!(count, 32);
    }
}
