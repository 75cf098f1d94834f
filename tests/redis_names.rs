//! A name that comes to mean another server: the gateway leaves the one that it meant before.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::json;
use support::{DEADLINE, Gateway, Origin, Redis, Setup, wait_until};
use tempfile::TempDir;

/// The hosts file of a gateway alone, in which a name has the addresses that a test says.
struct Names {
    folder: TempDir,
}

const NAME: &str = "lists.graygate.test";

impl Names {
    #[track_caller]
    fn new(hosts: &[SocketAddr]) -> Self {
        let names = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        names.mean(hosts);
        names
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// From now on the name means these.
    #[track_caller]
    fn mean(&self, hosts: &[SocketAddr]) {
        let lines = hosts.iter().map(|it| format!("{} {NAME}\n", it.ip()));
        // In the same file, which is mounted.
        std::fs::write(self.file(), lines.collect::<String>()).unwrap();
    }

    /// Has a gateway go by them.
    fn under(&self, setup: Setup) -> Setup {
        let hosts = self.file();
        let script = format!(
            "mount --bind {} /etc/hosts && exec \"$0\" \"$@\"",
            hosts.display()
        );
        setup.under(&["unshare", "--mount", "sh", "-c", &script])
    }
}

/// Two servers at one port of two hosts, with lists that differ in who is gray.
struct Two {
    one: Redis,
    other: Redis,
    _origins: [Origin; 2],
}

impl Two {
    #[track_caller]
    fn start() -> Self {
        let one = Redis::start();
        let host = Ipv4Addr::new(127, fastrand::u8(1..), fastrand::u8(..), 254);
        let mut other = Redis::stopped_at((host, one.address().port()).into());
        other.restart();
        let origins = ["pre", "prod"].map(Origin::named);
        for (redis, gray) in [(&one, "127.0.0.5"), (&other, "127.0.0.6")] {
            redis.push("pre", &[&origins[0]]);
            redis.push("prod", &[&origins[1]]);
            redis.push("gray", &[&gray]);
        }
        Self {
            one,
            other,
            _origins: origins,
        }
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.one.address(), self.other.address()]
    }

    #[track_caller]
    fn gateway(&self, names: &Names, notify: &str) -> Gateway {
        let url = format!("redis://{NAME}:{}/0", self.one.address().port());
        let setup = names.under(Setup::new().redis(url));
        let setup = setup.set("redis.check_interval", "300ms");
        let setup = setup.set("redis.heartbeat", "100ms");
        setup.set("redis.notify", notify).start()
    }
}

/// Whether a gateway's heartbeats arrive there.
fn has_heartbeat(redis: &Redis) -> bool {
    let keys = redis.cli(&["KEYS", "graygate:node:*"]);
    keys != redis::Value::Array(Vec::new())
}

#[test]
fn a_name_that_means_another_server_is_followed_by_the_lists_and_the_heartbeat() {
    for notify in ["events", "tracking", "poll"] {
        let two = Two::start();
        let [one, other] = two.addresses();
        let names = Names::new(&[one]);
        let gateway = two.gateway(&names, notify);
        gateway.wait_served("127.0.0.5", "pre", DEADLINE);
        assert_eq!(gateway.lists()["server"], json!(one.to_string()));
        wait_until("a heartbeat", DEADLINE, || has_heartbeat(&two.one));
        assert!(!has_heartbeat(&two.other));

        names.mean(&[other]);
        gateway.wait_served("127.0.0.6", "pre", DEADLINE);
        gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        assert_eq!(gateway.lists()["server"], json!(other.to_string()));
        let line = gateway.wait_for_log("redis-moved");
        let from = format!("{NAME}:{} ({})", one.port(), one.ip());
        let told = format!("from={from:?} to={:?}", other.to_string());
        assert!(line.ends_with(&told), "{line}");
        wait_until("the heartbeat has moved, too", DEADLINE, || {
            has_heartbeat(&two.other) && !has_heartbeat(&two.one)
        });
        // What the old one has makes no difference any more, and what the new one has, at once.
        two.one.cli(&["RPUSH", "gray", "127.0.0.7"]);
        two.other.cli(&["RPUSH", "gray", "127.0.0.8"]);
        gateway.wait_served("127.0.0.8", "pre", DEADLINE);
        assert_eq!(gateway.get("127.0.0.7", "/").text(), "prod");
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
        assert_eq!(gateway.stderr.count("redis-moved"), 1);
    }
}

#[test]
fn a_server_that_is_still_among_what_a_name_means_is_not_left() {
    let two = Two::start();
    let [one, other] = two.addresses();
    let names = Names::new(&[one]);
    let gateway = two.gateway(&names, "events");
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
    // More servers, in another order; and then nobody who knows the name at all.
    for meaning in [&[other, one][..], &[]] {
        names.mean(meaning);
        let before = gateway.metric(checks);
        wait_until("some checks", DEADLINE, || {
            gateway.metric(checks) >= before + 3.0
        });
        assert_eq!(gateway.lists()["server"], json!(one.to_string()));
        assert_eq!(gateway.lists()["error"], json!(null));
    }
    assert_eq!(gateway.stderr.count("redis-moved"), 0);
    // All connections of the gateway are to the same one: events come from where the lists do.
    names.mean(&[other, one]);
    two.one.cli(&["RPUSH", "gray", "127.0.0.9"]);
    gateway.wait_served("127.0.0.9", "pre", DEADLINE);
    assert!(has_heartbeat(&two.one) && !has_heartbeat(&two.other));
}

/// A name server of a gateway alone, which tells one address of the name at a time, in turns.
struct NameServer {
    folder: TempDir,
    address: SocketAddr,
    hosts: Arc<Mutex<Vec<Ipv4Addr>>>,
}

impl NameServer {
    #[track_caller]
    fn start(hosts: &[SocketAddr]) -> Self {
        let own = Ipv4Addr::new(127, fastrand::u8(1..), fastrand::u8(..), 253);
        let socket = UdpSocket::bind((own, 53)).unwrap();
        let server = Self {
            folder: tempfile::tempdir().unwrap(),
            address: socket.local_addr().unwrap(),
            hosts: Arc::default(),
        };
        server.mean(hosts);
        std::fs::write(server.folder.path().join("hosts"), "").unwrap();
        let conf = format!("nameserver {own}\n");
        std::fs::write(server.folder.path().join("resolv.conf"), conf).unwrap();
        let hosts = Arc::clone(&server.hosts);
        std::thread::spawn(move || {
            let mut question = [0; 512];
            // An empty one ends it.
            while let Ok((length @ 1.., from)) = socket.recv_from(&mut question) {
                let answer = answer(&question[..length], &mut hosts.lock().unwrap());
                let _ = socket.send_to(&answer, from);
            }
        });
        server
    }

    fn mean(&self, hosts: &[SocketAddr]) {
        let v4 = |it: &SocketAddr| match it {
            SocketAddr::V4(it) => *it.ip(),
            SocketAddr::V6(it) => panic!("{it}"),
        };
        *self.hosts.lock().unwrap() = hosts.iter().map(v4).collect();
    }

    fn under(&self, setup: Setup) -> Setup {
        let folder = self.folder.path().display();
        let mount = |name: &str| format!("mount --bind {folder}/{name} /etc/{name} && ");
        let mounts = ["hosts", "resolv.conf"].map(mount).concat();
        let script = format!("{mounts}exec \"$0\" \"$@\"");
        setup.under(&["unshare", "--mount", "sh", "-c", &script])
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0");
        let _ = socket.and_then(|it| it.send_to(&[], self.address));
    }
}

/// RFC 1035, 4.1: the question, and the first of the hosts, which becomes the last.
fn answer(question: &[u8], hosts: &mut [Ipv4Addr]) -> Vec<u8> {
    let name = question[12..].iter().position(|it| *it == 0).unwrap();
    let end = 12 + name + 5;
    let is_v4 = question[end - 4..end - 2] == [0, 1];
    let mut answer = question[..end].to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..12].copy_from_slice(&[0, u8::from(is_v4), 0, 0, 0, 0]);
    if is_v4 {
        hosts.rotate_left(1);
        // The name of the question, A, IN, no time to live, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(hosts.last().unwrap().octets());
    }
    answer
}

#[test]
fn a_server_is_not_left_while_a_name_means_it_in_turn_with_others() {
    let two = Two::start();
    let [one, other] = two.addresses();
    let third = SocketAddr::from(([127, 0, 0, 1], 1));
    let names = NameServer::start(&[one, other, third]);
    let url = format!("redis://{NAME}:{}/0", one.port());
    let setup = names.under(Setup::new().redis(url));
    let setup = setup.set("redis.heartbeat", "off");
    let gateway = setup.set("redis.check_interval", "300ms").start();
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
    wait_until("some checks", DEADLINE, || gateway.metric(checks) >= 7.0);
    assert_eq!(gateway.stderr.count("redis-moved"), 0);
    assert_eq!(gateway.lists()["server"], json!(one.to_string()));
    // It is when none of the answers has it.
    names.mean(&[other, third]);
    gateway.wait_served("127.0.0.6", "pre", DEADLINE);
    assert_eq!(gateway.lists()["server"], json!(other.to_string()));
    assert_eq!(gateway.stderr.count("redis-moved"), 1);
}

#[test]
fn a_demoted_master_is_left_for_the_one_that_the_name_means() {
    let two = Two::start();
    let [one, other] = two.addresses();
    let names = Names::new(&[one]);
    let gateway = two.gateway(&names, "events");
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    // It becomes a replica of somebody who is away, as in a failover that was cut short.
    let away = support::RefusingPeer::new();
    let (host, port) = (away.address().ip(), away.address().port());
    two.one
        .cli(&["REPLICAOF", &host.to_string(), &port.to_string()]);
    // It was in order when the lists came from it.
    let line = gateway.wait_for_log("replica-link-down");
    assert!(line.contains(&away.address().to_string()), "{line}");
    gateway.wait_for_log("heartbeat-refused");
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre");
    names.mean(&[other]);
    gateway.wait_served("127.0.0.6", "pre", DEADLINE);
    gateway.wait_for_log("replica-link-down-over");
}
