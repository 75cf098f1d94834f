//! An idle connection to a peer: taken from the pool, and given back.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use graygate::net::{self, Moment, Stream, Watch};
use graygate::upstream::pool::{Asker, InUse, Leftover, Need, Pool, PoolLimits, Spent};

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

/// As shipped.
const LIMITS: PoolLimits = PoolLimits {
    most: usize::MAX,
    total: 5000,
    age: Duration::from_secs(30),
};

/// A client's connection, as in the gateway.
const ASKER: Asker = Asker::Connection(1);

fn spent(stream: Stream, in_use: InUse, leftover: Leftover) -> Spent {
    Spent {
        stream,
        leftover,
        asker: ASKER,
        in_use,
        answered: Moment::now(),
        announced: None,
    }
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
    pub(crate) const KEPT: usize = 8;

    /// To be called on a worker.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let pool = Pool::default();
        let connect = || Stream::connect(peer, deadline(), Watch::Nothing).unwrap();
        let kept: Vec<_> = (0..Self::KEPT)
            .map(|_| (connect(), pool.begin(peer, &LIMITS)))
            .collect();
        for (stream, in_use) in kept {
            pool.checkin(spent(stream, in_use, Leftover::None), &LIMITS);
        }
        Self {
            pool,
            peer,
            _listener: listener,
        }
    }

    /// Takes a connection for a request that cannot be sent twice, and gives it back. True when there was
    /// one.
    pub(crate) fn check_out_and_in(&self) -> bool {
        let need = Need::Once(Moment::now());
        match self.pool.checkout(self.peer, ASKER, need) {
            Some(found) => {
                let spent = spent(found.stream, found.in_use, found.leftover);
                self.pool.checkin(spent, &LIMITS);
                true
            }
            None => false,
        }
    }
}
