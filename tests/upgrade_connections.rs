//! Which process goes on with a connection when there is an upgrade, and that its client notices nothing.

#![allow(clippy::unwrap_used)]

mod support;

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{
    Client, DEADLINE, Gateway, LastProcess, Origin, Response, Setup, has_ended, ok, pid_in_file,
    upgrade_well, wait_until,
};

const KEPT: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A request whose answer takes until the origin is released.
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";

fn origin() -> Origin {
    Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            if request.head.target() == "/slow" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")?;
                conn.wait_for_release()?;
                conn.send("half")?;
            } else {
                conn.send(ok("fine"))?;
            }
        }
        Ok(())
    })
}

fn start(origin: &Origin, more: impl FnOnce(Setup) -> Setup) -> Gateway {
    let setup = Setup::serving(origin)
        .set("gateway.pid_file", "pid")
        .set("upstream.stall_timeout", "1h");
    more(setup).start()
}

/// Upgrades it; the process that was the gateway before.
#[track_caller]
fn upgrade(gateway: &Gateway) -> i32 {
    let before = pid_in_file(gateway);
    upgrade_well(gateway);
    before
}

#[track_caller]
fn assert_kept(response: &Response) {
    assert_eq!(response.status(), 200);
    assert_eq!(response.field("connection"), None);
}

/// Waits for the first half of the slow answer.
#[track_caller]
fn begin_slow(client: &mut Client) {
    client.send(SLOW);
    let head = client.head();
    assert_eq!(head.status(), 200);
    assert_eq!(head.field("connection"), None);
    assert_eq!(client.exactly(4), b"half");
}

#[test]
fn what_ends_after_two_upgrades_goes_on_in_the_last_process() {
    let origin = origin();
    let gateway = start(&origin, |setup| setup);
    let _last = LastProcess(&gateway);
    let mut client = gateway.connect();
    begin_slow(&mut client);
    let first = upgrade(&gateway);
    let second = upgrade(&gateway);
    assert_ne!(first, second);
    // It has nothing to do, and its successor is not the first one's.
    wait_until("the second one ends", DEADLINE, || has_ended(second));
    assert!(!has_ended(first));
    origin.release();
    assert_eq!(client.exactly(4), b"half");
    // The first one ends as soon as the connection has left it.
    wait_until("the first one ends", DEADLINE, || has_ended(first));
    for _ in 0..2 {
        assert_kept(&client.ask(KEPT));
    }
}

#[test]
fn half_a_head_is_completed_in_the_old_process_and_the_next_request_is_served_by_the_new_one() {
    let origin = origin();
    let gateway = start(&origin, |setup| setup);
    let _last = LastProcess(&gateway);
    let mut clients: Vec<Client> = (0..3).map(|_| gateway.connect()).collect();
    let parts = [
        ("GET / HT", "TP/1.1\r\nHost: a\r\n\r\n"),
        ("\r", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("", KEPT),
    ];
    for (client, (begin, _)) in clients.iter_mut().zip(parts) {
        client.send(begin);
    }
    let old = upgrade(&gateway);
    for (client, (_, rest)) in clients.iter_mut().zip(parts) {
        assert_kept(&client.ask(rest));
    }
    wait_until("the old one ends", DEADLINE, || has_ended(old));
    for client in &mut clients {
        assert_kept(&client.ask(KEPT));
    }
}

#[test]
fn requests_sent_in_one_go_are_all_answered_while_the_connection_moves() {
    let origin = origin();
    let gateway = start(&origin, |setup| setup);
    let _last = LastProcess(&gateway);
    let mut client = gateway.connect();
    begin_slow(&mut client);
    // They wait behind the slow one.
    client.send(KEPT.repeat(20));
    let old = upgrade(&gateway);
    origin.release();
    assert_eq!(client.exactly(4), b"half");
    for _ in 0..20 {
        assert_kept(&client.response());
    }
    wait_until("the old one ends", DEADLINE, || has_ended(old));
    assert_kept(&client.ask(KEPT));
}

#[test]
fn a_connection_whose_proxy_has_not_named_the_client_yet_moves_and_waits_for_that() {
    let origin = origin();
    let gateway = start(&origin, |setup| {
        setup
            .set("gateway.listen", "127.0.0.1:0 proxy")
            .set("gateway.trusted_proxies", "127.0.0.1")
            .set("gateway.head_timeout", "1m")
    });
    let _last = LastProcess(&gateway);
    let (mut silent, mut half) = (gateway.connect(), gateway.connect());
    half.send("PROXY TCP4 192.0.");
    let old = upgrade(&gateway);
    half.send("2.8 127.0.0.1 1 2\r\n");
    assert_kept(&half.ask(KEPT));
    // The other one has gone before it has said anything.
    wait_until("the old one ends", DEADLINE, || has_ended(old));
    silent.send("PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n");
    assert_kept(&silent.ask(KEPT));
    for client in [&mut silent, &mut half] {
        assert_kept(&client.ask(KEPT));
    }
    for client in ["192.0.2.7", "192.0.2.8"] {
        wait_until("both requests are known as its", DEADLINE, || {
            let lines = gateway.access_lines();
            let own = lines.iter().filter(|it| it.get("client") == client);
            own.count() == 2
        });
    }
}

#[test]
fn a_connection_that_moves_is_not_refused_for_being_one_too_many() {
    const MOST: usize = 10;
    let origin = origin();
    let gateway = start(&origin, |setup| setup.set("gateway.max_connections", MOST));
    let _last = LastProcess(&gateway);
    let connect = || (0..MOST).map(|_| gateway.connect()).collect::<Vec<_>>();
    let mut clients = connect();
    for client in &mut clients {
        assert_kept(&client.ask(KEPT));
    }
    let old = thread::scope(|scope| {
        let upgrade = scope.spawn(|| upgrade(&gateway));
        wait_until("the new one accepts", DEADLINE, || {
            // The old one says so at its start.
            gateway.stderr.count(" ready ") == 2
        });
        // As many as it may have.
        let mut others = Vec::new();
        wait_until("it has all that it may", DEADLINE, || {
            let mut client = gateway.connect();
            let is_served = client.ask(KEPT).status() == 200;
            others.extend(is_served.then_some(client));
            others.len() == MOST
        });
        clients.extend(others);
        upgrade.join().unwrap()
    });
    wait_until("the old one ends", DEADLINE, || has_ended(old));
    for client in &mut clients {
        assert_kept(&client.ask(KEPT));
    }
    assert_eq!(gateway.connect().ask(KEPT).status(), 503);
}

/// It is bound to the connection of the old process to the server.
#[test]
fn whoever_is_authenticated_by_connection_is_served_by_the_old_process_to_the_end() {
    let origin = Origin::scripted(|conn| {
        let mut user = false;
        while let Some(request) = conn.request()? {
            user |= request.head.field("authorization").is_some();
            let answer = match user {
                true => ok("fine"),
                false => b"HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"
                    .to_vec(),
            };
            conn.send(answer)?;
        }
        Ok(())
    });
    let gateway = start(&origin, |setup| setup);
    let _last = LastProcess(&gateway);
    let mut client = gateway.connect();
    assert_eq!(client.ask(KEPT).status(), 401);
    let authorized = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM x\r\n\r\n";
    assert_kept(&client.ask(authorized));
    wait_until("it is parked", DEADLINE, || {
        let of = |worker| format!("graygate_connections_parked{{worker=\"{worker}\"}}");
        gateway.metric(&of(0)) + gateway.metric(&of(1)) == 1.0
    });
    let old = upgrade(&gateway);
    for _ in 0..2 {
        assert_kept(&client.ask(KEPT));
        // It is parked again, and has been looked at.
        assert_eq!(client.glance(Duration::from_millis(2500)), None);
    }
    assert!(!has_ended(old));
    drop(client);
    wait_until("the old one ends", DEADLINE, || has_ended(old));
}

#[test]
fn where_the_new_process_dies_the_old_one_answers_what_it_has() {
    let origin = origin();
    let gateway = start(&origin, |setup| setup);
    let mut client = gateway.connect();
    begin_slow(&mut client);
    upgrade(&gateway);
    let new = pid_in_file(&gateway);
    kill(Pid::from_raw(new), Signal::SIGKILL).unwrap();
    wait_until("the new one ends", DEADLINE, || has_ended(new));
    origin.release();
    assert_eq!(client.exactly(4), b"half");
    // At the latest when its connection was on its way to the new one, it is told to connect anew.
    wait_until("it is told so", DEADLINE, || {
        let response = client.ask(KEPT);
        assert_eq!(response.status(), 200);
        response.field("connection").as_deref() == Some("close")
    });
    client.expect_close();
    gateway.wait_for_log("connections-not-moved count=1");
    gateway.wait_for_log("stopped");
}
