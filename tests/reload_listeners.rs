//! A reload takes on addresses: new ones are bound before anything else changes, clients of removed ones are
//! served to the end, and no request fails because of it.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;
use support::{Client, DEADLINE, Gateway, Origin, Setup, free_address, wait_until};

/// A gateway at these addresses.
#[track_caller]
fn at(listen: &str) -> (Gateway, Origin) {
    let origin = Origin::named("prod");
    let gateway = Setup::serving(&origin)
        .set("gateway.listen", listen)
        .start();
    (gateway, origin)
}

/// Reloads so far, by outcome.
fn reloads(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("graygate_reloads_total{{outcome={outcome:?}}}"))
}

/// A reload with this setting, and how it ends.
#[track_caller]
fn reload(gateway: &mut Gateway, name: &str, value: impl std::fmt::Display, outcome: &str) {
    gateway.edit_ini(|it| it.set(name, value));
    let before = reloads(gateway, outcome);
    gateway.signal(Signal::SIGHUP);
    wait_until(&format!("a reload that is {outcome}"), DEADLINE, || {
        reloads(gateway, outcome) > before
    });
}

#[track_caller]
fn listen(gateway: &mut Gateway, addrs: &[SocketAddr]) {
    let addrs: Vec<String> = addrs.iter().map(ToString::to_string).collect();
    reload(gateway, "gateway.listen", addrs.join(", "), "ok");
}

#[track_caller]
fn serves(addr: SocketAddr) {
    let mut client = Client::connect(addr);
    assert_eq!(client.get("/").text(), "prod", "{addr}");
}

fn is_refused(addr: SocketAddr) -> bool {
    let outcome = TcpStream::connect(addr);
    outcome.is_err_and(|it| it.kind() == io::ErrorKind::ConnectionRefused)
}

/// Clients that ask at an address all the time, half of them with a new connection for each request.
struct Load {
    ends: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn at(addr: SocketAddr) -> Self {
        let (ends, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..4).map(|number| {
            let (ends, served) = (Arc::clone(&ends), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut client = Client::connect(addr);
                while !ends.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        client = Client::from_another(addr);
                    }
                    assert_eq!(client.get("/").text(), "prod");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self {
            threads: threads.collect(),
            ends,
            served,
        }
    }

    /// Waits until so many more requests were served.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        wait_until("more requests", DEADLINE, || {
            self.served.load(Ordering::Relaxed) > before + 20
        });
    }

    #[track_caller]
    fn end(self) {
        self.goes_on();
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn addresses_come_and_go_while_others_are_served() {
    let (one, two, three) = (free_address(), free_address(), free_address());
    let six: SocketAddr = format!("[::1]:{}", three.port()).parse().unwrap();
    let (mut gateway, _origin) = at(&one.to_string());
    let load = Load::at(one);
    listen(&mut gateway, &[one, two, six]);
    gateway.wait_for_log(&format!(" listener-added listen={two}"));
    serves(two);
    serves(six);
    load.goes_on();
    listen(&mut gateway, &[six, one, three]);
    gateway.wait_for_log(&format!(" listener-removed listen={two}"));
    wait_until("nobody listens there", DEADLINE, || is_refused(two));
    serves(three);
    serves(six);
    load.goes_on();
    // It comes back.
    listen(&mut gateway, &[one, two]);
    serves(two);
    wait_until("nobody listens there", DEADLINE, || is_refused(three));
    load.end();
}

#[test]
fn what_came_in_by_a_removed_address_is_served_and_then_told_to_close() {
    let (stays, goes) = (free_address(), free_address());
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            if request.head.target() == "/slow" {
                conn.wait_for_release()?;
            }
            conn.send(support::ok("prod"))?;
        }
        Ok(())
    });
    let mut gateway = Setup::serving(&origin)
        .set("gateway.listen", format!("{stays}, {goes}"))
        .start();
    let (mut idle, mut busy, mut silent, mut other) = (
        Client::connect(goes),
        Client::connect(goes),
        Client::connect(goes),
        Client::connect(stays),
    );
    assert_eq!(idle.get("/").status(), 200);
    assert_eq!(other.get("/").status(), 200);
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait("the slow request", |it| {
        it.requests.iter().any(|it| it.head.target() == "/slow")
    });
    listen(&mut gateway, &[stays]);
    wait_until("nobody listens there", DEADLINE, || is_refused(goes));
    origin.release();
    let response = busy.response();
    assert_eq!(response.status(), 200);
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    busy.expect_close();
    for client in [&mut idle, &mut silent] {
        let response = client.get("/");
        assert_eq!(response.status(), 200);
        assert_eq!(response.field("connection").as_deref(), Some("close"));
        client.expect_close();
    }
    let response = other.get("/");
    assert_eq!(response.field("connection"), None);
    let name = "graygate_connections_closed_total{reason=\"listener-removed\"}";
    gateway.wait_for_metric(name, 3.0);
}

#[test]
fn if_one_address_cannot_be_bound_nothing_changes_and_the_reason_is_said() {
    let (one, two) = (free_address(), free_address());
    let (mut gateway, _origin) = at(&one.to_string());
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    gateway.edit_ini(|it| it.set("gateway.max_connections", 7));
    let wanted = format!("{two}, {taken}");
    reload(&mut gateway, "gateway.listen", wanted, "failed");
    let line = gateway.wait_for_log(" reload-failed ");
    assert!(
        line.contains(&format!("cannot listen on {taken}")),
        "{line}"
    );
    assert!(is_refused(two));
    serves(one);
    assert!(gateway.metric("graygate_max_connections") > 7.0);
    let (_, health) = gateway.admin_get("/healthz?full");
    assert!(health.contains("degraded reload-failed: "), "{health}");
}

#[test]
fn an_address_for_proxies_is_changed_without_being_bound_anew() {
    let one = free_address();
    let (mut gateway, _origin) = at(&one.to_string());
    gateway.edit_ini(|it| it.set("gateway.trusted_proxies", "127.0.0.1"));
    let mut before = Client::connect(one);
    assert_eq!(before.get("/").status(), 200);
    reload(&mut gateway, "gateway.listen", format!("{one} proxy"), "ok");
    let mut client = Client::connect(one);
    client.send("PROXY TCP4 192.0.2.5 192.0.2.6 1 2\r\nGET /proxied HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    gateway.wait_for_access("client=192.0.2.5 target=/proxied");
    // It is not a new connection.
    assert_eq!(before.get("/").status(), 200);
    gateway.edit_ini(|it| it.unset("gateway.trusted_proxies"));
    reload(&mut gateway, "gateway.listen", one, "ok");
    serves(one);
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn an_address_that_another_one_contains_takes_its_place_and_back() {
    // Clients of other tests must not have the port.
    let mut ports = (0..).map(|_| fastrand::u16(10_000..30_000));
    let all = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let port = ports
        .find(|it| TcpListener::bind(all(*it)).is_ok())
        .unwrap();
    let (one, all) = (SocketAddr::from(([127, 0, 0, 1], port)), all(port));
    let elsewhere: SocketAddr = ([127, 0, 0, 5], one.port()).into();
    let (mut gateway, _origin) = at(&one.to_string());
    listen(&mut gateway, &[all]);
    serves(one);
    serves(elsewhere);
    listen(&mut gateway, &[one]);
    serves(one);
    wait_until("only one is left", DEADLINE, || is_refused(elsewhere));
    // Nobody else may listen there.
    assert!(TcpListener::bind(all).is_err());
}

#[test]
fn an_address_moves_between_clients_and_the_pages_and_no_connection_is_refused() {
    let (one, two) = (free_address(), free_address());
    let (mut gateway, _origin) = at(&format!("{one}, {two}"));
    let load = Load::at(one);
    gateway.edit_ini(|it| it.set("gateway.listen", one));
    reload(&mut gateway, "admin.metrics", two, "ok");
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {two}\r\n\r\n");
    let health = || Client::connect(two).ask(&request).text();
    wait_until("the health at the other address", DEADLINE, || {
        health().starts_with("ok generation=")
    });
    gateway.edit_ini(|it| it.set("gateway.listen", format!("{one}, {two}")));
    reload(&mut gateway, "admin.metrics", "off", "ok");
    wait_until("clients are served there", DEADLINE, || health() == "prod");
    load.end();
}

#[test]
fn any_free_port_stays_the_same_one() {
    let (mut gateway, _origin) = at("127.0.0.1:0, 127.0.0.1:0");
    let addrs = gateway.addrs().to_vec();
    reload(&mut gateway, "gateway.listen", "127.0.0.1:0", "ok");
    serves(addrs[0]);
    wait_until("one is left", DEADLINE, || is_refused(addrs[1]));
    reload(&mut gateway, "gateway.max_connections", 99, "ok");
    serves(addrs[0]);
    // Whoever wants to keep it can write it down.
    reload(&mut gateway, "gateway.listen", addrs[0], "ok");
    serves(addrs[0]);
}

/// Whether only root may listen on low ports here, and this is root.
fn low_ports_are_roots() -> bool {
    let from = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let from = from.ok().and_then(|it| it.trim().parse::<u16>().ok());
    nix::unistd::geteuid().is_root() && from.is_some_and(|it| it > 1000)
}

#[test]
fn where_roots_rights_would_be_needed_that_is_said() {
    if !low_ports_are_roots() {
        return;
    }
    let one = free_address();
    let origin = Origin::named("prod");
    let setup = Setup::serving(&origin).set("gateway.user", "nobody");
    let mut gateway = setup.set("gateway.listen", one).open_to_all().start();
    let wanted = format!("{one}, 127.0.0.1:997");
    reload(&mut gateway, "gateway.listen", wanted, "failed");
    let line = gateway.wait_for_log(" reload-failed ");
    let said = "cannot listen on 127.0.0.1:997: Permission denied (os error 13): root's rights, which this takes, \
                were given up at the start; `graygate upgrade`, started by root, ";
    assert!(line.contains(said), "{line}");
    serves(one);
}
