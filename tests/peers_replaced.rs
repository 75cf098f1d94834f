//! Servers that leave the lists, and others that take their place, while requests are under way.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{DEADLINE, Gateway, Origin, Setup, ok, wait_for, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Where idle connections are to be gone.
const SOON: Duration = Duration::from_secs(4);

/// Replaces the lists, and waits until they are in force.
#[track_caller]
fn replace(gateway: &Gateway, gray: &[&str], pre: &[&dyn Display], prod: &[&dyn Display]) {
    let before = gateway.lists()["generation"].as_u64().unwrap();
    gateway.write_lists(gray, pre, prod);
    gateway.wait_for_lists("the new lists", |it| {
        it["generation"].as_u64().unwrap() > before
    });
}

/// Answers `/held` when it is released.
fn holding(name: &'static str) -> Origin {
    Origin::scripted(move |conn| {
        while let Some(request) = conn.request()? {
            if request.head.target() == "/held" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nheld")?;
                conn.wait_for_release()?;
                conn.send("held")?;
            } else {
                conn.send(ok(name))?;
            }
        }
        Ok(())
    })
}

fn setup() -> Setup {
    Setup::new()
        .set("upstream.keepalive_timeout", "1h")
        .set("lists.guard_share", 100)
}

#[test]
fn a_peer_that_leaves_the_list_ends_what_it_has_and_gets_nothing_more() {
    let (old, new) = (holding("old"), Origin::named("new"));
    let gateway = setup().lists(&[], &[], &[&old]).start();
    let mut held = gateway.connect();
    held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(held.head().status(), 200);
    let mut others: Vec<_> = (0..8).map(|_| gateway.connect()).collect();
    for other in &mut others {
        assert_eq!(other.ask(GET).text(), "old");
    }
    let (asked, accepted) = (old.requests().len(), old.accepted());
    assert!(accepted > 1);
    replace(&gateway, &[], &[], &[&new]);
    for other in &mut others {
        assert_eq!(other.ask(GET).text(), "new");
    }
    wait_until("all but one connection are closed", SOON, || {
        old.seen(|it| it.closed) == accepted - 1
    });
    assert_eq!(held.exactly(4), b"held");
    assert_eq!(held.glance(Duration::from_millis(50)), None);
    old.release();
    assert_eq!(held.exactly(4), b"held");
    assert_eq!(held.ask(GET).text(), "new");
    wait_until("the last one is closed, too", SOON, || {
        old.seen(|it| it.closed) == accepted
    });
    assert_eq!(old.requests().len(), asked);
}

#[test]
fn a_second_attempt_goes_to_no_peer_that_has_left_meanwhile() {
    let (mute, old, new) = (Origin::mute(), Origin::named("old"), Origin::named("new"));
    let gateway = setup()
        .set("upstream.read_timeout", "1500ms")
        .lists(&["127.0.0.5"], &[&mute], &[&old])
        .start();
    let mut client = gateway.connect_from("127.0.0.5");
    client.send(GET);
    mute.wait("the request", |it| it.requests.len() == 1);
    replace(&gateway, &["127.0.0.5"], &[&mute], &[&new]);
    assert_eq!(client.response().text(), "new");
    assert_eq!(old.accepted(), 0);
}

/// Asks for an authentication of the connection where that is begun, and fails for all others once it is ill.
fn challenging(is_ill: &Arc<AtomicBool>) -> Origin {
    const CHALLENGE: &str =
        "HTTP/1.1 401 U\r\nWWW-Authenticate: NTLM xyz\r\nContent-Length: 0\r\n\r\n";
    let is_ill = Arc::clone(is_ill);
    Origin::scripted(move |conn| {
        while let Some(request) = conn.request()? {
            match request.field("authorization") {
                Some(_) => conn.send(CHALLENGE)?,
                None if is_ill.load(Ordering::SeqCst) => return Ok(()),
                None => conn.send(ok("old"))?,
            }
        }
        Ok(())
    })
}

#[test]
fn a_connection_of_one_client_ends_when_its_peer_leaves_or_goes_out() {
    const NTLM: &str = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM abc\r\n\r\n";
    for (goes_out, asks) in [(false, true), (false, false), (true, true), (true, false)] {
        let is_ill = Arc::new(AtomicBool::new(false));
        let (old, new) = (challenging(&is_ill), Origin::named("new"));
        let gateway = setup().one_worker().lists(&[], &[], &[&old]).start();
        let mut client = gateway.connect();
        assert_eq!(client.ask(NTLM).status(), 401);
        let pinned = "graygate_upstream_connections_pinned{worker=\"0\"}";
        gateway.wait_for_metric(pinned, 1.0);
        if asks {
            assert_eq!(client.ask(GET).text(), "old");
        } else {
            // Nobody looks for it then but the worker itself.
            gateway.wait_for_metric("graygate_connections_parked{worker=\"0\"}", 1.0);
        }
        match goes_out {
            false => replace(&gateway, &[], &[], &[&new]),
            true => {
                replace(&gateway, &[], &[], &[&old, &new]);
                is_ill.store(true, Ordering::SeqCst);
                wait_until("it is out", DEADLINE, || {
                    gateway.get("127.0.0.1", "/");
                    gateway.stderr.count(" peer-out ") == 1
                });
            }
        }
        if !asks {
            gateway.wait_for_metric(pinned, 0.0);
            wait_until("it is closed", SOON, || {
                old.seen(|it| it.closed == it.accepted)
            });
        }
        assert_eq!(client.ask(GET).text(), "new", "{goes_out} {asks}");
        assert_eq!(gateway.metric(pinned), 0.0);
    }
}

/// Whatever else becomes of the lists, its weight and its pool included, and of the settings.
#[test]
fn a_peer_that_stays_keeps_what_is_known_of_it() {
    let (ill, good, new) = (
        challenging(&Arc::new(AtomicBool::new(true))),
        Origin::named("good"),
        Origin::named("new"),
    );
    let mut gateway = setup()
        .set("upstream.fail_timeout", "1h")
        .lists(&["127.0.0.5"], &[], &[&ill, &good])
        .start();
    wait_until("it is out", DEADLINE, || {
        gateway.get("127.0.0.1", "/");
        gateway.stderr.count(" peer-out ") == 1
    });
    let asked = ill.requests().len();
    let is_left_alone = |gateway: &Gateway, what: &str| {
        for client in ["127.0.0.1", "127.0.0.5"] {
            for _ in 0..20 {
                assert_ne!(gateway.get(client, "/").text(), "old", "{what}");
            }
        }
        assert_eq!(ill.requests().len(), asked, "{what}");
    };
    let heavy = format!("{ill} weight=100");
    let change = |what: &str, pre: &[&dyn Display], prod: &[&dyn Display]| {
        replace(&gateway, &["127.0.0.5"], pre, prod);
        is_left_alone(&gateway, what);
    };
    change("others", &[&new], &[&good, &ill, &new]);
    change("its weight", &[&new], &[&heavy, &good]);
    change("a second pool", &[&ill, &new], &[&ill, &good]);
    change("another pool", &[&ill, &new], &[&good]);
    gateway.edit_ini(|it| it.set("upstream.fail_timeout", "2h"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reloaded file=");
    is_left_alone(&gateway, "a reload");
}

#[test]
fn all_of_pre_is_replaced_under_load_and_no_request_fails() {
    let generations: Vec<[Origin; 2]> = (0..4)
        .map(|_| [Origin::named("pre"), Origin::named("pre")])
        .collect();
    let prod = Origin::named("prod");
    let gateway = setup()
        .lists(
            &["127.0.0.5"],
            &[&generations[0][0], &generations[0][1]],
            &[&prod],
        )
        .start();
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed: Vec<String> = thread::scope(|scope| {
        let load = || {
            let mut failed = Vec::new();
            let mut client = gateway.connect_from("127.0.0.5");
            for number in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                let answer = match number % 2 {
                    0 => client.ask(GET),
                    _ => client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"),
                };
                if (answer.status(), &*answer.text()) != (200, "pre") {
                    failed.push(format!("{} {}", answer.status(), answer.text()));
                }
                served.fetch_add(1, Ordering::SeqCst);
            }
            failed
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        for [one, other] in &generations[1..] {
            let before = served.load(Ordering::SeqCst);
            wait_until("requests are served", DEADLINE, || {
                served.load(Ordering::SeqCst) > before + 100
            });
            replace(&gateway, &["127.0.0.5"], &[one, other], &[&prod]);
            wait_for("the new ones are asked", || {
                (one.accepted() > 0 && other.accepted() > 0).then_some(())
            });
        }
        is_over.store(true, Ordering::SeqCst);
        clients
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    assert!(failed.is_empty(), "{failed:?}");
    for gone in generations[..3].iter().flatten() {
        wait_until("their connections are closed", SOON, || {
            gone.seen(|it| it.closed == it.accepted)
        });
    }
}
