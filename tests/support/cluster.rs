//! A real Redis Cluster: three masters, and a replica of the one that has the slot of `{gg}`.

use std::net::TcpListener;

use super::redis::Redis;
use super::{DEADLINE, wait_until};

/// The slots of each master.
const RANGES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// The slot of keys with the hash tag `{gg}`, and the master that has it at first.
pub(crate) const SLOT: u16 = 3836;
pub(crate) const OWNER: usize = 0;

/// A cluster.
pub(crate) struct Cluster {
    /// Three masters, and the replica.
    pub(crate) servers: Vec<Redis>,
}

impl Cluster {
    /// Starts one, and waits until it serves.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let servers: Vec<Redis> = (0..4).map(|_| server()).collect();
        let cluster = Self { servers };
        for (at, server) in cluster.servers.iter().enumerate() {
            server.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
            if let Some((first, last)) = RANGES.get(at) {
                let (first, last) = (first.to_string(), last.to_string());
                server.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
        }
        let first = &cluster.servers[0];
        for other in &cluster.servers[1..] {
            let (ip, port) = (other.address().ip().to_string(), other.address().port());
            let bus = config(other, "cluster-port");
            first.cli(&["CLUSTER", "MEET", &ip, &port.to_string(), &bus]);
        }
        let owner = cluster.id(OWNER);
        cluster.wait_for("it serves", |info| info.contains("cluster_state:ok"));
        wait_until("it is a replica", DEADLINE, || {
            // It may not know its master yet.
            cluster.servers[3]
                .try_cli(&["CLUSTER", "REPLICATE", &owner])
                .is_ok()
        });
        cluster.wait_for("all know each other", |info| {
            info.contains("cluster_known_nodes:4") && info.contains("cluster_state:ok")
        });
        cluster.wait_for_sync(3);
        cluster
    }

    /// Waits until a replica has its master's data.
    #[track_caller]
    pub(crate) fn wait_for_sync(&self, at: usize) {
        wait_until("the replica is in sync", DEADLINE, || {
            let info = self.servers[at].cli(&["INFO", "replication"]);
            let info: String = redis::from_redis_value(info).unwrap();
            info.contains("master_link_status:up")
        });
    }

    /// Waits until each server says so of the cluster.
    #[track_caller]
    fn wait_for(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        wait_until(what, DEADLINE, || {
            self.servers.iter().all(|it| {
                let info = it.cli(&["CLUSTER", "INFO"]);
                is_so(&redis::from_redis_value::<String>(info).unwrap())
            })
        });
    }

    /// The id of a server.
    #[track_caller]
    pub(crate) fn id(&self, at: usize) -> String {
        redis::from_redis_value(self.servers[at].cli(&["CLUSTER", "MYID"])).unwrap()
    }

    /// Runs a command where its key is at present.
    #[track_caller]
    pub(crate) fn run(&self, command: &[&str]) -> redis::Value {
        let mut reply = None;
        wait_until(&format!("{command:?}"), DEADLINE, || {
            let mut replies = self.servers.iter().map(|it| it.try_cli(command));
            reply = replies.find_map(Result::ok);
            reply.is_some()
        });
        reply.unwrap()
    }
}

fn server() -> Redis {
    let mut last = None;
    for _ in 0..5 {
        let mut redis = Redis::stopped();
        let ip = redis.address().ip().to_string();
        let bus = TcpListener::bind((redis.address().ip(), 0)).unwrap();
        let bus_port = bus.local_addr().unwrap().port().to_string();
        drop(bus);
        redis.set_options(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus_port,
            "--cluster-announce-ip",
            &ip,
            "--cluster-node-timeout",
            "2000",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        match redis.try_restart() {
            Ok(()) => return redis,
            Err(error) => last = Some(error),
        }
    }
    panic!("no server: {last:?}");
}

#[track_caller]
fn config(redis: &Redis, name: &str) -> String {
    let [_, value]: [String; 2] =
        redis::from_redis_value(redis.cli(&["CONFIG", "GET", name])).unwrap();
    value
}
