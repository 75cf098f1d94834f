//! An idle connection to a peer: taken from the pool, and given back.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use graygate::net::{self, Stream, Watch};
use graygate::upstream::pool::{Certainty, Pool};

/// Runs `task` on a worker, the only place where connections can live, and waits for it.
pub(crate) fn on_a_worker(task: impl FnOnce() + Send + 'static) {
    let (done, end) = std::sync::mpsc::channel();
    net::start(1).unwrap();
    net::spawn(0, move || {
        task();
        done.send(()).unwrap();
    })
    .unwrap();
    // A panic there has been reported.
    end.recv().unwrap();
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A pool with a few connections to one peer, as a busy worker has it.
pub(crate) struct PoolStep {
    pool: Pool,
    peer: SocketAddr,
    /// A connection on which news can come, and its other side.
    news: (Stream, TcpStream),
    /// The kernel completes connections that nobody accepts.
    _listener: TcpListener,
}

impl PoolStep {
    /// What the gateway keeps for one peer without settings of its own is far more.
    pub(crate) const KEPT: usize = 8;

    /// To be called on a worker.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let pool = Pool::default();
        let connect = || Stream::connect(peer, deadline(), Watch::Nothing).unwrap();
        let news = (connect(), listener.accept().unwrap().0);
        for _ in 0..Self::KEPT {
            pool.checkin(peer, connect(), Self::KEPT);
        }
        Self {
            pool,
            peer,
            news,
            _listener: listener,
        }
    }

    /// Lets the worker poll, as it does between two requests, after which all that has happened is
    /// known.
    pub(crate) fn poll(&self) {
        let (stream, mut other) = (&self.news.0, &self.news.1);
        let before = net::polls().last;
        while net::polls().last == before {
            net::note_poll();
            other.write_all(b"news").unwrap();
            // The room is larger, so that there is nothing left.
            let count = stream.read(&mut [0; 8], deadline()).unwrap();
            assert_eq!(count, 4);
        }
        net::take_in_events();
    }

    /// Takes a connection and gives it back. True when there was one. It was idle since before the last
    /// [poll](Self::poll) up to `KEPT` times from there, as it is in the steady state; from then on the
    /// kernel is asked whether it is sound.
    pub(crate) fn check_out_and_in(&self) -> bool {
        match self.pool.checkout(self.peer, Certainty::LastPoll) {
            Some(stream) => {
                self.pool.checkin(self.peer, stream, Self::KEPT);
                true
            }
            None => false,
        }
    }
}
