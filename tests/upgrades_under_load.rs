//! Twenty upgrades in a row, of which two fail, cost none of the clients anything.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "../examples/upgrades/load/mod.rs"]
#[allow(dead_code)] // The comparison uses the rest.
mod load;

use std::fs;
use std::io::IoSlice;
use std::thread;
use std::time::Duration;

use load::{Count, Load, Owned, Phase, Plan, processes_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketType, connect, recv,
    sendmsg, socket,
};
use sha2::{Digest, Sha256};
use support::{
    AccessLine, DEADLINE, Gateway, Setup, allow_descriptors, pid_in_file, upgrade_command,
    wait_until,
};

const UPGRADES: usize = 20;

/// These two fail: a program that ends at once, and one that says that it is ready, and dies.
const ENDS_AT_ONCE: usize = 7;
const SAYS_THAT_IT_IS_READY: usize = 14;

/// Of the last process, more than of an earlier one in the same state: what chance may make of it.
const SLACK_KIB: u64 = 8 * 1024;
const SLACK_DESCRIPTORS: usize = 2;
/// Under load there is one descriptor besides for each predecessor that is still there.
const PREDECESSORS: usize = 6;

/// The processes of a gateway and of its successors.
struct Site<'a> {
    gateway: &'a Gateway,
    server: u16,
}

impl Site<'_> {
    fn pid(&self) -> u32 {
        pid_in_file(self.gateway).cast_unsigned()
    }

    fn owned(&self) -> Owned {
        let proxy = self.gateway.addr().port();
        let owned = Owned::of(&[self.pid()], proxy, self.server).unwrap();
        owned.into_iter().next().unwrap()
    }

    fn processes(&self) -> Vec<u32> {
        let ini = self.gateway.path("graygate.ini");
        processes_of(ini.to_str().unwrap()).into_iter().collect()
    }

    /// What the gateway has once its clients are silent and predecessors have ended.
    fn owned_when_quiet(&self, load: &Load, limit: Duration) -> Owned {
        wait_until("the clients are silent", limit, || load.is_quiet());
        let all = Plan::FULL.idle + Plan::FULL.busy;
        wait_until("the last process alone is left", limit, || {
            self.processes() == [self.pid()]
        });
        let parked = |worker| format!("graygate_connections_parked{{worker=\"{worker}\"}}");
        let parked = || {
            (0..2)
                .map(|it| self.gateway.metric(&parked(it)))
                .sum::<f64>()
        };
        // Those of transfers may be kept as well.
        let mut owned = Owned::default();
        wait_until("every connection is there, and parked", DEADLINE, || {
            let parked = parked();
            owned = self.owned();
            owned.clients.len() >= all && owned.clients.len() as f64 == parked
        });
        owned
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        for pid in self.processes() {
            // The first one is its parent's, who waits for it.
            if pid != self.gateway.pid() {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        }
    }
}

#[test]
fn twenty_upgrades_in_a_row_cost_the_clients_nothing() {
    allow_descriptors(16_384);
    let origin = load::Origin::start().unwrap();
    let gateway = Setup::serving(&origin.address)
        .set("gateway.pid_file", "pid")
        // For what takes longer than several upgrades.
        .set("gateway.drain_timeout", "90s")
        .set("log.error", "error.log")
        .start();
    let site = Site {
        gateway: &gateway,
        server: origin.address.port(),
    };
    let ready_and_dead = script(&gateway);

    let load = Load::start(gateway.addr(), Plan::FULL);
    // Nobody connects any more once all are to be silent.
    wait_until("all are connected", 3 * DEADLINE, || {
        site.owned().clients.len() >= Plan::FULL.idle + Plan::FULL.busy
    });
    load.enter(Phase::Quiet);
    let first = site.owned_when_quiet(&load, DEADLINE);

    load.enter(Phase::All);
    let mut under_load = Vec::new();
    for at in 1..=UPGRADES {
        let before = site.pid();
        let (program, why) = match at {
            ENDS_AT_ONCE => ("/bin/false", "it has ended"),
            SAYS_THAT_IT_IS_READY => (ready_and_dead.to_str().unwrap(), "within its first seconds"),
            _ => {
                let output = thread::scope(|scope| {
                    let upgrade = scope.spawn(|| upgrade_command(&gateway, &[]).output().unwrap());
                    // When what has just arrived is silent again, and before the next one takes over.
                    thread::sleep(Duration::from_secs(2));
                    under_load.push(site.owned());
                    upgrade.join().unwrap()
                });
                assert!(output.status.success(), "upgrade {at}: {output:?}");
                assert_ne!(site.pid(), before);
                continue;
            }
        };
        let output = upgrade_command(&gateway, &["--program", program])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "upgrade {at}: {output:?}");
        assert!(
            said.contains("the running gateway serves on"),
            "upgrade {at}: {said}"
        );
        wait_until("it is said why", DEADLINE, || {
            let log = fs::read_to_string(gateway.path("error.log")).unwrap();
            said.contains(why) || log.contains(why)
        });
        assert_eq!(site.pid(), before);
    }

    load.enter(Phase::Quiet);
    let last = site.owned_when_quiet(&load, 6 * DEADLINE);
    let tally = load.end();
    let shown: Vec<_> = under_load.iter().map(ToString::to_string).collect();
    println!("{tally}\nbefore: {first}\nafter: {last}\nmeanwhile: {shown:#?}");
    assert_eq!(tally.harm(), 0, "{tally}");
    let done = [Count::Messages, Count::Tunnels, Count::Transfers].map(|it| tally.of(it));
    assert!(done.iter().all(|it| *it > 20), "{tally}");

    // As at the beginning, and it does not grow from upgrade to upgrade.
    let (fifth, last_one) = (&under_load[4], &under_load[UPGRADES - 3]);
    let pairs = [(&first, &last, 0), (fifth, last_one, PREDECESSORS)];
    for (earlier, later, more) in pairs {
        assert!(
            later.others <= earlier.others + SLACK_DESCRIPTORS + more,
            "{later} after {earlier}"
        );
        assert!(
            later.resident_kib <= earlier.resident_kib + SLACK_KIB,
            "{later} after {earlier}"
        );
        assert_eq!(later.listening, earlier.listening);
    }
    // Of all the processes that have written the access log, no line is missing or torn.
    let answered = tally.of(Count::Answered);
    let log = || fs::read_to_string(gateway.path("access.log")).unwrap();
    wait_until("all lines are there", DEADLINE, || {
        log().lines().count() as u64 >= answered
    });
    assert_eq!(log().lines().count() as u64, answered);
    assert!(log().lines().all(|line| AccessLine::parse(line).is_some()));
}

/// A program for `graygate upgrade`, which becomes [`says_that_it_is_ready_and_dies`].
fn script(gateway: &Gateway) -> std::path::PathBuf {
    let path = gateway.path("ready-and-dead");
    let test = std::env::current_exe().unwrap();
    let name = "says_that_it_is_ready_and_dies";
    let text = format!(
        "#!/bin/sh\nGRAYGATE_INI=\"$3\" exec {test:?} --exact {name} --ignored --nocapture\n"
    );
    fs::write(&path, text).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, executable).unwrap();
    path
}

#[test]
#[ignore = "a program that the other test upgrades to"]
fn says_that_it_is_ready_and_dies() {
    let ini = std::env::var_os("GRAYGATE_INI").unwrap();
    let path = fs::canonicalize(ini).unwrap();
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let hash: String = hash[..16].iter().map(|it| format!("{it:02x}")).collect();
    let name = format!("graygate-upgrade:{hash}");
    let channel = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    connect(&channel, &name).unwrap();
    let say = |text: &str| {
        let parts = [IoSlice::new(text.as_bytes())];
        let mut none = SendAncillaryBuffer::default();
        sendmsg(&channel, &parts, &mut none, SendFlags::empty()).unwrap();
    };
    say(r#"{"message":"take","version":1,"program":"broken"}"#);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let (length, _) = recv(&channel, &mut bytes, rustix::net::RecvFlags::empty()).unwrap();
        assert!(length > 0);
        if String::from_utf8_lossy(&bytes[..length]).contains("offered") {
            break;
        }
    }
    say(r#"{"message":"ready"}"#);
    thread::sleep(Duration::from_millis(300));
    std::process::exit(1);
}
