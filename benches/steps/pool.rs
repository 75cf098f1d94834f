//! An idle connection to a peer: taken from the pool, and given back.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use graygate::net::{self, Stream, Watch};
use graygate::upstream::pool::{Asker, CheckedOut, Leftover, Pool};

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
        for _ in 0..Self::KEPT {
            pool.checkin(peer, connect(), Leftover::None, Asker::Anybody, Self::KEPT);
        }
        Self {
            pool,
            peer,
            _listener: listener,
        }
    }

    /// Takes a connection and gives it back. True when there was one.
    pub(crate) fn check_out_and_in(&self) -> bool {
        // A client's connection, as in the gateway.
        let asker = Asker::Connection(1);
        match self.pool.checkout(self.peer, asker) {
            Some(CheckedOut { stream, leftover }) => {
                self.pool
                    .checkin(self.peer, stream, leftover, asker, Self::KEPT);
                true
            }
            None => false,
        }
    }
}
