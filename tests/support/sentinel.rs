//! Real Sentinels: a `redis-server` that watches others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::ports::free_address;
use super::{DEADLINE, wait_until};

/// A Sentinel of a test. It displays as its address.
#[derive(Debug)]
pub(crate) struct Sentinel {
    address: SocketAddr,
    name: String,
    password: Option<String>,
    child: Child,
    _dir: TempDir,
}

impl Sentinel {
    /// Watches the master at `master` under this name, alone; it may ask for a password.
    #[track_caller]
    pub(crate) fn watching(name: &str, master: SocketAddr, password: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let more = password.map(|it| format!("requirepass {it}"));
        let more = more.unwrap_or_default();
        let file = dir.path().join("sentinel.conf");
        // With less, a server that a busy machine has kept waiting is taken for dead.
        let text = format!(
            "bind {}\nport {}\ndir {}\nlogfile {}\n\
             sentinel monitor {name} {} {} 1\n\
             sentinel down-after-milliseconds {name} 1500\n\
             sentinel failover-timeout {name} 3000\n{more}\n",
            address.ip(),
            address.port(),
            dir.path().display(),
            dir.path().join("log").display(),
            master.ip(),
            master.port(),
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel");
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let sentinel = Self {
            address,
            name: name.to_owned(),
            password: password.map(str::to_owned),
            child: quiet.spawn().unwrap(),
            _dir: dir,
        };
        wait_until("the Sentinel answers", DEADLINE, || {
            sentinel.try_ask(&["PING"]).is_ok_and(|_| true)
        });
        sentinel
    }

    /// Waits until it knows of so many replicas that could become masters.
    #[track_caller]
    pub(crate) fn wait_for_replicas(&self, count: usize) {
        wait_until("the Sentinel knows the replicas", DEADLINE, || {
            let replicas = self.try_ask(&["SENTINEL", "replicas", &self.name]);
            let replicas = replicas.and_then(|it| Ok(redis::from_redis_value(it)?));
            let replicas: Vec<HashMap<String, String>> = replicas.unwrap_or_default();
            // And nothing else, as `disconnected`.
            replicas.iter().filter(|it| it["flags"] == "slave").count() == count
        });
    }

    /// Runs a command on it.
    pub(crate) fn try_ask(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let password = self.password.as_deref().unwrap_or_default();
        let url = match password {
            "" => format!("redis://{}", self.address),
            _ => format!("redis://:{password}@{}", self.address),
        };
        let client = redis::Client::open(url)?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(DEADLINE))?;
        redis::cmd(command[0])
            .arg(&command[1..])
            .query(&mut connection)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a signal to it, for instance SIGSTOP.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl std::fmt::Display for Sentinel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
