//! The Redis, which may be killed, and may have lost its last second when it comes back, or all.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::Redis;

/// What it keeps on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    All,
    /// What was written in the last second may be lost.
    AllButASecond,
    Nothing,
}

impl Keeps {
    pub(crate) const ALL: [Self; 3] = [Self::All, Self::AllButASecond, Self::Nothing];
}

pub(crate) struct Server {
    redis: Redis,
    pub(crate) keeps: Keeps,
    pub(crate) is_up: bool,
    /// How long the file was, and when.
    sizes: VecDeque<(Instant, u64)>,
}

impl Server {
    pub(crate) fn start(keeps: Keeps) -> Self {
        let options: &[&str] = match keeps {
            Keeps::All => &["--appendonly", "yes", "--appendfsync", "always"],
            Keeps::AllButASecond => &["--appendonly", "yes", "--appendfsync", "everysec"],
            Keeps::Nothing => &[],
        };
        // Gateways come from hosts of their own.
        let options = [options, &["--protected-mode", "no"]].concat();
        Self {
            redis: Redis::start_with_options(&options),
            keeps,
            is_up: true,
            sizes: VecDeque::new(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.redis.address()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.redis.signal(signal);
    }

    /// A command that may fail, since the server may be away.
    pub(crate) fn ask(&self, pipe: &redis::Pipeline) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.redis.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        pipe.query(&mut connection)
    }

    fn file(&self) -> PathBuf {
        self.redis
            .path("appendonlydir")
            .join("appendonly.aof.1.incr.aof")
    }

    /// Remembers what would be left if it crashed a second later.
    pub(crate) fn look(&mut self) {
        if self.keeps != Keeps::AllButASecond || !self.is_up {
            return;
        }
        let size = std::fs::metadata(self.file()).map_or(0, |it| it.len());
        self.sizes.push_back((Instant::now(), size));
        let is_old = |it: &(Instant, u64)| it.0.elapsed() > Duration::from_secs(2);
        while self.sizes.front().is_some_and(is_old) {
            self.sizes.pop_front();
        }
    }

    /// Ends it as a crash would, of the machine if the last second `is_lost`. True if that is so.
    pub(crate) fn kill(&mut self, is_lost: bool) -> bool {
        self.redis.kill();
        self.is_up = false;
        let second = Duration::from_secs(1);
        let before = self.sizes.iter().rfind(|it| it.0.elapsed() >= second);
        let before = before.filter(|_| is_lost).copied();
        self.sizes.clear();
        let Some((_, size)) = before else {
            return false;
        };
        let file = std::fs::File::options().write(true).open(self.file());
        file.unwrap().set_len(size).unwrap();
        true
    }

    /// Starts it with what it has kept.
    pub(crate) fn restart(&mut self) {
        self.redis.restart();
        self.is_up = true;
    }
}
