//! What all proxies of a run share: the origin, the lists in Redis, the folder of their files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::children::{Running, free_address};
use crate::load::client_number;
use crate::origin::Origin;
use crate::others::other_entries;

/// Key of the gray list that nobody changes, with ten entries, as that of a careful release.
pub(crate) const STILL: &str = "gray";
/// Key of a gray list like it, but for its changes.
pub(crate) const CHANGING: &str = "changing";
/// Key of a gray list with a million entries.
pub(crate) const MILLION: &str = "million";
/// Key of the same list with a hundred other entries.
pub(crate) const OTHERS: &str = "others";
/// Key of a gray list that has half of the clients.
pub(crate) const HALF: &str = "half";
/// So many they are, where each connection is another client's.
pub(crate) const CLIENTS: usize = 64;

/// The programs that are not found by their names.
pub(crate) struct Programs {
    pub(crate) graygate: PathBuf,
    pub(crate) other_build: Option<PathBuf>,
    pub(crate) floor: PathBuf,
}

/// Everything but the proxies; fields in the order in which they end.
pub(crate) struct Site {
    redis: Running,
    pub(crate) origin: Origin,
    pub(crate) programs: Programs,
    scratch: TempDir,
}

impl Site {
    pub(crate) fn start(programs: Programs) -> Result<Self, String> {
        let scratch = tempfile::Builder::new().prefix("bench-").tempdir();
        let scratch = scratch.map_err(|it| format!("a folder: {it}"))?;
        let origin = Origin::start().map_err(|it| format!("the origin: {it}"))?;
        let address = free_address()?;
        let mut redis = Command::new("redis-server");
        redis
            .args(["--bind", &address.ip().to_string()])
            .args(["--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            // As the proxies: the OpenResty set-up connects for each request. The kernel allows
            // no more than net.core.somaxconn, which is 4096 by default.
            .args(["--tcp-backlog", "4096"])
            .arg("--dir")
            .arg(scratch.path());
        let redis = Running::start(redis, address, &scratch.path().join("redis.log"))?;
        let site = Self {
            redis,
            origin,
            programs,
            scratch,
        };
        site.fill().map_err(|it| format!("redis: {it}"))?;
        Ok(site)
    }

    fn fill(&self) -> redis::RedisResult<()> {
        let mut connection = self.connect_to_redis()?;
        let mut lists = redis::pipe();
        for key in [STILL, CHANGING] {
            let entries: Vec<String> = (1..=10).map(|it| format!("192.168.1.{it}")).collect();
            lists.cmd("RPUSH").arg(key).arg(entries);
        }
        let half = (0..CLIENTS).step_by(2).map(client_number);
        let half: Vec<String> = half.map(|it| it.to_string()).collect();
        lists.cmd("RPUSH").arg(HALF).arg(half);
        for key in ["pre", "prod"] {
            let servers = self.origin.addresses.map(|it| it.to_string());
            lists.cmd("RPUSH").arg(key).arg(&servers);
        }
        lists.exec(&mut connection)
    }

    /// Makes the list of a million entries, if it is not there. Nobody here is on it.
    pub(crate) fn fill_million(&self) -> redis::RedisResult<()> {
        const STEP: u32 = 10_000;
        let mut connection = self.connect_to_redis()?;
        if redis::cmd("EXISTS").arg(MILLION).query(&mut connection)? {
            return Ok(());
        }
        for start in (0..1_000_000).step_by(STEP as usize) {
            let mut push = redis::cmd("RPUSH");
            push.arg(MILLION);
            for at in start..start + STEP {
                // An odd factor: no number comes twice. All from 128.0.0.0 on.
                let spread = at.wrapping_mul(2_654_435_761) | 1 << 31;
                push.arg(std::net::Ipv4Addr::from_bits(spread).to_string());
            }
            push.exec(&mut connection)?;
        }
        Ok(())
    }

    /// Makes the list of the same entries and a hundred others, if it is not there.
    pub(crate) fn fill_others(&self) -> redis::RedisResult<()> {
        self.fill_million()?;
        let mut connection = self.connect_to_redis()?;
        let mut copy = redis::cmd("COPY");
        match copy.arg(MILLION).arg(OTHERS).query(&mut connection)? {
            true => {
                let mut push = redis::cmd("RPUSH");
                push.arg(OTHERS).arg(other_entries()).exec(&mut connection)
            }
            false => Ok(()),
        }
    }

    pub(crate) fn connect_to_redis(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(format!("redis://{}/0", self.redis.address))?;
        client.get_connection_with_timeout(Duration::from_secs(5))
    }

    pub(crate) fn redis(&self) -> SocketAddr {
        self.redis.address
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}
