//! What only a restart changes, and all the rest as well, changes by an upgrade, and no client notices.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use serde_json::Value;
use support::{
    AccessLine, Client, DEADLINE, Gateway, LastProcess, Origin, Redis, Setup, free_address,
    has_ended, pid_in_file, run_to_exit, upgrade_command, upgrade_well, wait_for, wait_until,
};

const KEPT: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A page of the admin, if it is served there.
fn page(addr: SocketAddr, path: &str) -> Option<String> {
    if std::net::TcpStream::connect(addr).is_err() {
        return None;
    }
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let response = Client::connect(addr).ask(request);
    (response.status() == 200).then(|| response.text().to_owned())
}

/// The numbers of the user and the group that a process has.
fn rights(pid: i32) -> [u32; 2] {
    let folder = fs::metadata(format!("/proc/{pid}")).unwrap();
    [folder.uid(), folder.gid()]
}

fn rights_of(user: &str) -> [u32; 2] {
    let user = User::from_name(user).unwrap().unwrap();
    [user.uid.as_raw(), user.gid.as_raw()]
}

/// Clients that ask on while something is done.
fn under_load<T>(gateway: &Gateway, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for kind in [KEPT, CLOSE].iter().cycle().take(4) {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut client = gateway.connect();
                while !is_over.load(Ordering::SeqCst) {
                    assert_eq!(client.ask(kind).status(), 200);
                    if *kind == CLOSE {
                        client = gateway.connect_from_another();
                    }
                }
            });
        }
        // Also where it fails, or the clients would go on for ever.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::SeqCst);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn whatever_only_a_restart_changes_is_changed_by_an_upgrade_under_load() {
    let (before, after) = (Origin::named("before"), Origin::named("after"));
    let (first, second) = (Redis::start(), Redis::start_with_password(Some("secret")));
    first.push("prod", &[&before]);
    second.push("prod", &[&after]);
    let [kept, gone, new, admin] = [(); 4].map(|()| free_address());
    let is_root = geteuid().is_root();
    let user = |name: &'static str| if is_root { name } else { "" };
    let setup = Setup::new()
        .open_to_all()
        .redis(first.url())
        .set("gateway.listen", format!("{kept}, {gone}"))
        .set("gateway.pid_file", "pid")
        .set("gateway.user", user("nobody"))
        // In a folder that is made for its user.
        .set("admin.socket", "run/admin.sock");
    let mut gateway = setup.start();
    gateway.wait_served("127.0.0.1", "before", DEADLINE);
    let mut client = gateway.connect();
    assert_eq!(client.ask(KEPT).text(), "before");
    let old = pid_in_file(&gateway);
    let url = format!("redis://:secret@{}/0", second.address());
    gateway.edit_ini(|it| {
        it.redis(url)
            .set("gateway.listen", format!("{new}, {kept}"))
            .set("gateway.workers", 3)
            .set("gateway.user", user("daemon"))
            .set("log.access", "other-access.log")
            .set("log.format", "json")
            .set("log.error", "other-error.log")
            .set("admin.listen", admin)
            .set("admin.socket", "run-2/other.sock")
    });
    let _last = LastProcess(&gateway);
    under_load(&gateway, || upgrade_well(&gateway));
    let now = pid_in_file(&gateway);
    assert_ne!(now, old);
    // What comes before the connection has moved is still answered by the old one.
    wait_until("the connection is the new one's", DEADLINE, || {
        client.ask(KEPT).text() == "after"
    });
    assert_eq!(Client::connect(new).ask(CLOSE).text(), "after");
    wait_until("the old process has ended", DEADLINE, || has_ended(old));
    assert!(std::net::TcpStream::connect(gone).is_err());
    assert!(std::net::TcpStream::connect(gateway.admin()).is_err());
    // Whichever of the two lets go of it last takes it away.
    wait_until("the old socket has gone", DEADLINE, || {
        !gateway.path("run/admin.sock").exists()
    });
    assert!(gateway.path("run-2/other.sock").exists());

    let metrics = page(admin, "/metrics").unwrap();
    assert!(metrics.contains("\ngraygate_workers 3\n"), "{metrics}");
    let config: Value = serde_json::from_str(&page(admin, "/config").unwrap()).unwrap();
    assert_eq!(config["ignored"], serde_json::json!([]), "{config}");
    if is_root {
        assert_eq!(rights(now), rights_of("daemon"));
        let log = fs::metadata(gateway.path("other-access.log")).unwrap();
        assert_eq!(log.uid(), rights_of("daemon")[0]);
    }
    // Each of its own: what the old one has served it has logged where it did before.
    wait_until("the requests are logged", DEADLINE, || {
        let text = fs::read_to_string(gateway.path("other-access.log")).unwrap();
        text.lines().count() >= 2
    });
    let text = fs::read_to_string(gateway.path("other-access.log")).unwrap();
    assert!(
        text.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    let text = fs::read_to_string(gateway.path("access.log")).unwrap();
    assert!(text.lines().all(|line| AccessLine::parse(line).is_some()));
    wait_until("it logs elsewhere", DEADLINE, || {
        let text = fs::read_to_string(gateway.path("other-error.log")).unwrap_or_default();
        text.contains("predecessor-ended")
    });
}

#[test]
fn the_pid_file_moves_with_an_upgrade() {
    let origin = Origin::named("prod");
    let mut gateway = Setup::serving(&origin)
        .set("gateway.pid_file", "pid")
        .start();
    let old = pid_in_file(&gateway);
    gateway.edit_ini(|it| it.set("gateway.pid_file", "other-pid"));
    let upgraded = under_load(&gateway, || {
        upgrade_command(&gateway, &[]).output().unwrap()
    });
    assert!(upgraded.status.success(), "{upgraded:?}");
    let now: i32 = wait_for("the other file says who it is", || {
        let text = fs::read_to_string(gateway.path("other-pid")).ok()?;
        text.trim().parse().ok()
    });
    assert_ne!(now, old);
    wait_until("the old process and its file are gone", DEADLINE, || {
        has_ended(old) && !gateway.path("pid").exists()
    });
    let ini = gateway.path("graygate.ini");
    let reloaded = run_to_exit(&["reload", "-c", ini.to_str().unwrap()]);
    let said = String::from_utf8(reloaded.stdout).unwrap();
    assert_eq!(said, format!("reloaded (pid {now})\n"));
    kill(Pid::from_raw(now), Signal::SIGTERM).unwrap();
    wait_until("it ends", DEADLINE, || has_ended(now));
    assert!(!gateway.path("other-pid").exists());
}

#[test]
fn a_supervised_gateway_becomes_another_user_by_an_upgrade() {
    if !geteuid().is_root() {
        eprintln!("not run: only root can become somebody else");
        return;
    }
    let origin = Origin::named("prod");
    let setup = Setup::serving(&origin)
        .open_to_all()
        .set("gateway.pid_file", "pid")
        .set("gateway.user", "nobody");
    let mut gateway = setup.supervised().start();
    let child = |gateway: &Gateway| {
        wait_for("there is one gateway", || match gateway.children()[..] {
            [one] => Some(one),
            _ => None,
        })
    };
    let old = child(&gateway);
    assert_eq!(rights(old), rights_of("nobody"));
    gateway.edit_ini(|it| it.set("gateway.user", "daemon").set("gateway.workers", 3));
    let upgraded = under_load(&gateway, || {
        upgrade_command(&gateway, &[]).output().unwrap()
    });
    assert!(upgraded.status.success(), "{upgraded:?}");
    wait_until("the old process has ended", DEADLINE, || has_ended(old));
    assert_eq!(rights(child(&gateway)), rights_of("daemon"));
    assert_eq!(gateway.metric("graygate_workers"), 3.0);
    // The socket that it has taken over is root's and of its own group.
    let socket = fs::metadata(gateway.path("admin.sock")).unwrap();
    let expected = (0, rights_of("daemon")[1], 0o660);
    assert_eq!(
        (socket.uid(), socket.gid(), socket.mode() & 0o777),
        expected
    );
    // And what starts one again goes by it, too.
    kill(Pid::from_raw(child(&gateway)), Signal::SIGKILL).unwrap();
    wait_until("another one serves", DEADLINE, || {
        gateway.connect().ask(CLOSE).status() == 200
    });
    assert_eq!(rights(child(&gateway)), rights_of("daemon"));
    gateway.end();
}
