//! Redis with TLS, by a socket, and with servers that dawdle.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{
    Authority, DEADLINE, Gateway, Origin, Redis, Setup, Validity, run_to_exit, wait_until,
};
use tempfile::TempDir;

const FAILURES: &str = "graygate_lists_failures_total";

/// A server with TLS on a port of its own, and its authority.
struct Secure {
    redis: Redis,
    address: SocketAddr,
    authority: Authority,
    folder: TempDir,
    _prod: Origin,
}

impl Secure {
    /// Starts one whose certificate is good in this time, for its own address or another host.
    #[track_caller]
    fn start(validity: Validity, host: Option<&str>, wants_certificate: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "ca");
        let mut redis = Redis::stopped();
        // Another port of its own host.
        let free = TcpListener::bind((redis.address().ip(), 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let hosts = match host {
            None => vec![address.ip().to_string(), "localhost".to_owned()],
            Some(host) => vec![host.to_owned()],
        };
        let (cert, key) = authority.vouch("server", &hosts, validity);
        redis.set_options(&[
            "--tls-port",
            &address.port().to_string(),
            "--tls-cert-file",
            cert.to_str().unwrap(),
            "--tls-key-file",
            key.to_str().unwrap(),
            "--tls-ca-cert-file",
            authority.file().to_str().unwrap(),
            "--tls-auth-clients",
            if wants_certificate { "yes" } else { "no" },
        ]);
        redis.restart();
        let user = [
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">a-secret",
            "~*",
            "&*",
            "+@all",
        ];
        redis.cli(&user);
        let prod = Origin::named("prod");
        redis.push("prod", &[&prod]);
        Self {
            redis,
            address,
            authority,
            folder,
            _prod: prod,
        }
    }

    fn setup(&self) -> Setup {
        let url = format!("rediss://app:a-secret@{}/0", self.address);
        let setup = Setup::new().redis(url);
        let setup = setup.set("redis.check_interval", "1h");
        let setup = setup.set("lists.guard_share", 100);
        setup.set("redis.tls_ca", self.authority.file().display())
    }
}

const HEARTBEATS: &str = "graygate_fleet_heartbeats_total{outcome=\"written\"}";

/// Checks that the gateway does not read its lists, says why once, and nothing of the password.
#[track_caller]
fn assert_refused(gateway: &Gateway, why: &str) {
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains(why), "{line}");
    wait_until("some attempts", DEADLINE, || {
        gateway.metric(FAILURES) >= 4.0
    });
    assert_eq!(
        gateway.stderr.count("lists-unreadable"),
        1,
        "{:?}",
        gateway.stderr.all()
    );
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
    let shown = [
        gateway.stderr.all().join("\n"),
        gateway.admin_get("/lists").1,
        gateway.admin_get("/healthz").1,
    ];
    assert!(!shown.concat().contains("a-secret"), "{shown:?}");
}

/// Waits until the gateway follows the lists.
#[track_caller]
fn assert_followed(gateway: &Gateway, redis: &Redis, mode: &str) {
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    assert_eq!(gateway.lists()["mode"], mode);
    let pre = Origin::named("pre");
    redis.push("pre", &[&pre]);
    redis.push("gray", &[&"127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    redis.cli(&["DEL", "pre"]);
    redis.cli(&["DEL", "gray"]);
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    assert_eq!(gateway.metric(FAILURES), 0.0);
}

#[test]
fn with_the_right_authority_lists_are_read_and_followed() {
    let secure = Secure::start(Validity::Now, None, false);
    for (notify, mode) in [
        ("auto", "events"),
        ("tracking", "tracking"),
        ("poll", "poll"),
    ] {
        let setup = secure.setup().set("redis.notify", notify);
        let gateway = setup.set("redis.poll_interval", "50ms").start();
        assert_followed(&gateway, &secure.redis, mode);
        let source = format!("rediss://{}/0", secure.address);
        assert_eq!(gateway.lists()["source"], source);
        wait_until("a heartbeat", DEADLINE, || gateway.metric(HEARTBEATS) > 0.0);
        let fleet = run_to_exit(&[
            "fleet",
            "-c",
            gateway.path("graygate.ini").to_str().unwrap(),
        ]);
        let said = String::from_utf8(fleet.stdout).unwrap();
        assert!(said.contains(&format!(" {mode} ")), "{said}");
    }
}

#[test]
fn a_server_for_which_nobody_vouches_is_refused() {
    let secure = Secure::start(Validity::Now, None, false);
    let other = Authority::new(secure.folder.path(), "other");
    let file = other.file();
    let setup = secure.setup().set("redis.tls_ca", file.display());
    assert_refused(
        &setup.start(),
        "no known authority vouches for the server's certificate",
    );
    // Without a file of one's own, the system's authorities decide.
    let setup = secure.setup().unset("redis.tls_ca");
    let setup = setup.environment("SSL_CERT_FILE", file.display());
    assert_refused(
        &setup.start(),
        "no known authority vouches for the server's certificate",
    );
    let setup = secure.setup().unset("redis.tls_ca");
    let own = secure.authority.file();
    let gateway = setup.environment("SSL_CERT_FILE", own.display()).start();
    assert_followed(&gateway, &secure.redis, "events");
}

#[test]
fn a_certificate_that_is_not_good_for_now_or_for_this_host_is_refused() {
    for (validity, host, why) in [
        (Validity::Past, None, "certificate has expired"),
        (Validity::Future, None, "certificate is not valid yet"),
        (Validity::Now, Some("other.example"), "other.example"),
    ] {
        let secure = Secure::start(validity, host, false);
        assert_refused(&secure.setup().start(), why);
    }
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_the_one_in_the_settings() {
    let secure = Secure::start(Validity::Now, None, true);
    let (cert, key) = secure.authority.vouch("client", &[], Validity::Now);
    let with = |setup: Setup, cert: &Path, key: &Path| {
        let setup = setup.set("redis.tls_cert", cert.display());
        setup.set("redis.tls_key", key.display())
    };
    let gateway = with(secure.setup(), &cert, &key).start();
    assert_followed(&gateway, &secure.redis, "events");

    let gateway = secure.setup().start();
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains("ertificate"), "{line}");
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);

    let stranger = Authority::new(secure.folder.path(), "stranger");
    let (cert, key) = stranger.vouch("their", &[], Validity::Now);
    let gateway = with(secure.setup(), &cert, &key).start();
    gateway.wait_for_log("lists-unreadable");
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
}

#[test]
fn a_server_whose_certificate_turns_bad_changes_nothing_until_it_is_good_again() {
    let mut secure = Secure::start(Validity::Now, None, false);
    let gateway = secure.setup().start();
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    let hosts = [secure.address.ip().to_string()];
    secure.authority.vouch("server", &hosts, Validity::Past);
    secure.redis.kill();
    secure.redis.restart();
    let user = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">a-secret",
        "~*",
        "&*",
        "+@all",
    ];
    secure.redis.cli(&user);
    gateway.wait_for_log("certificate has expired");
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "prod");

    secure.authority.vouch("server", &hosts, Validity::Now);
    secure.redis.kill();
    secure.redis.restart();
    secure.redis.cli(&user);
    let new = Origin::named("new prod");
    secure.redis.push("prod", &[&new]);
    gateway.wait_served("127.0.0.5", "new prod", DEADLINE);
}

/// A reload of the file as it is: whether it is in force.
#[track_caller]
fn reload(gateway: &Gateway) -> bool {
    let outcomes = || {
        let count = |word: &str| gateway.stderr.count(word);
        (count(" reloaded file="), count(" reload-failed "))
    };
    let before = outcomes();
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the reload has ended", DEADLINE, || outcomes() != before);
    outcomes().0 > before.0
}

#[test]
fn the_files_for_tls_and_what_is_in_them_change_by_a_reload() {
    let secure = Secure::start(Validity::Now, None, true);
    let other = Authority::new(secure.folder.path(), "other");
    let (cert, key) = secure.authority.vouch("client", &[], Validity::Now);
    let strange = other.vouch("strange", &[], Validity::Now);
    let with = |setup: Setup, authority: &Authority, cert: &Path, key: &Path| {
        let setup = setup.set("redis.tls_ca", authority.file().display());
        let setup = setup.set("redis.tls_cert", cert.display());
        setup.set("redis.tls_key", key.display())
    };
    let mut gateway = with(secure.setup(), &secure.authority, &cert, &key).start();
    gateway.wait_served("127.0.0.1", "prod", DEADLINE);
    // Neither side believes the other one: nothing changes.
    gateway.edit_ini(|it| with(it, &other, &cert, &key));
    assert!(!reload(&gateway));
    gateway.edit_ini(|it| with(it, &secure.authority, &strange.0, &strange.1));
    assert!(!reload(&gateway));
    assert_followed(&gateway, &secure.redis, "events");
    // Copies of the right ones, and then something else in them.
    let folder = secure.folder.path();
    let copies = ["a.pem", "b.pem", "c.pem"].map(|it| folder.join(it));
    let right = [secure.authority.file(), cert, key];
    for (copy, file) in copies.iter().zip(&right) {
        std::fs::copy(file, copy).unwrap();
    }
    gateway.edit_ini(|it| {
        let it = with(it, &secure.authority, &copies[1], &copies[2]);
        it.set("redis.tls_ca", copies[0].display())
    });
    assert!(reload(&gateway));
    std::fs::copy(other.file(), &copies[0]).unwrap();
    assert!(!reload(&gateway));
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "prod");
    std::fs::copy(&right[0], &copies[0]).unwrap();
    let (cert, key) = secure.authority.vouch("next", &[], Validity::Now);
    std::fs::copy(cert, &copies[1]).unwrap();
    std::fs::copy(key, &copies[2]).unwrap();
    // The number of the first connection that the gateway has.
    let oldest = || -> Option<u64> {
        let all: String = redis::from_redis_value(secure.redis.cli(&["CLIENT", "LIST"])).unwrap();
        let own = all.lines().filter(|it| it.contains(" user=app "));
        own.filter_map(|it| it.strip_prefix("id=")?.split(' ').next()?.parse().ok())
            .min()
    };
    let before = oldest().unwrap();
    assert!(reload(&gateway));
    wait_until("it has connected anew", DEADLINE, || {
        oldest().is_some_and(|it| it > before)
    });
    gateway.wait_served("127.0.0.1", "prod", DEADLINE);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let (cert, key) = authority.vouch("client", &[], Validity::Now);
    let (_, other_key) = authority.vouch("other", &[], Validity::Now);
    let garbage = folder.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate\n").unwrap();
    let missing = folder.path().join("missing.pem");
    let ca = authority.file();
    let table: [(&Path, &Path, &Path, &str, &Path); 5] = [
        (&missing, &cert, &key, "tls_ca", &missing),
        (&garbage, &cert, &key, "tls_ca", &garbage),
        (&ca, &garbage, &key, "tls_cert", &garbage),
        (&ca, &cert, &missing, "tls_key", &missing),
        (&ca, &cert, &other_key, "tls_key", &other_key),
    ];
    for (ca, cert, key, name, file) in table {
        let setup = Setup::new().redis("rediss://127.0.0.1:1/0");
        let setup = setup.set("redis.tls_ca", ca.display());
        let setup = setup.set("redis.tls_cert", cert.display());
        let setup = setup.set("redis.tls_key", key.display());
        let ini: PathBuf = setup.write_ini();
        let checked = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(1), "{said}");
        let expected = format!("[redis] {name} {}: ", file.display());
        assert!(said.contains(&expected), "{said}\nexpected: {expected}");
    }
}

/// Accepts connections, and sends each of them `first` and then a byte every 50 ms.
fn dawdler(first: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut outcome = stream.write_all(first);
                while outcome.is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                    outcome = stream.write_all(b"1");
                }
            });
        }
    });
    address
}

#[test]
fn a_server_that_dawdles_over_a_handshake_is_left_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    // A record of TLS, of a handshake, of 16 KiB.
    let slow = dawdler(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xf0");
    let drops = dawdler(b"$100000\r\n");
    for url in [
        format!("rediss://{}", silent.local_addr().unwrap()),
        format!("rediss://{slow}"),
        format!("redis://{drops}"),
        format!("redis://:a-secret@{drops}"),
    ] {
        let setup = Setup::new().redis(&url).set("redis.timeout", "300ms");
        let start = Instant::now();
        let gateway = setup.start();
        let line = gateway.wait_for_log("lists-unreadable");
        assert!(line.contains("timed out"), "{url}: {line}");
        assert!(start.elapsed() < Duration::from_secs(2), "{url}");
    }
}

#[test]
fn a_socket_of_the_file_system_leads_to_another_database_too() {
    let mut redis = Redis::stopped();
    let socket = redis.path("redis.sock");
    redis.set_options(&["--unixsocket", socket.to_str().unwrap()]);
    redis.restart();
    redis.cli(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">a#secret",
        "~*",
        "&*",
        "+@all",
    ]);
    let (pre, prod) = Origin::pre_and_prod();
    let mut third = redis.connect(3);
    for (key, entry) in [("pre", &pre), ("prod", &prod)] {
        let mut push = redis::cmd("RPUSH");
        push.arg(key)
            .arg(entry.to_string())
            .exec(&mut third)
            .unwrap();
    }
    let url = format!("unix://{}?db=3&user=app&pass=a%23secret", socket.display());
    let setup = Setup::new().redis(url).set("redis.check_interval", "1h");
    let gateway = setup.set("redis.timeout", "300ms").start();
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    let mut push = redis::cmd("LPUSH");
    push.arg("gray").arg("127.0.0.5").exec(&mut third).unwrap();
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    let lists = gateway.lists();
    assert_eq!(lists["mode"], "events");
    assert_eq!(lists["source"], format!("unix://{}?db=3", socket.display()));
    redis.kill();
    gateway.wait_for_log("lists-unreadable");
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre");
}
