//! WebSockets and other tunnels to `pre`: they end when `pre` is taken back from their clients, one by one,
//! and only then.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use support::{
    Client, Conn, DEADLINE, Gateway, LastProcess, Origin, Redis, Setup, Site, upgrade_well,
    wait_until,
};

const GRAY: &str = "127.0.0.5";

/// How long something that is to stay is looked at: much longer than the grace of most tests.
const STAYS: Duration = Duration::from_millis(700);

/// Before the lists that a test begins with are in force, a client may be asked again.
const SOON: Duration = Duration::from_secs(3);

fn upgrade(protocol: &str, fields: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n{fields}\r\n"
    )
}

/// An origin that answers requests with its name; upgraded connections begin with that and echo.
fn origin(name: &'static str) -> Origin {
    Origin::scripted(move |conn| {
        loop {
            let Some(head) = conn.head()? else {
                return Ok(());
            };
            let Some(protocol) = head.field("upgrade") else {
                conn.send(support::ok(name))?;
                continue;
            };
            let head =
                format!("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
            conn.send(head + &name[..3])?;
            return echo(conn);
        }
    })
}

/// Echoes, and notes how the other side has ended the connection.
fn echo(conn: &mut Conn) -> std::io::Result<()> {
    let end = loop {
        match conn.wire.some(usize::MAX) {
            Ok(piece) if piece.is_empty() => break "end".to_owned(),
            Ok(piece) => conn.send(piece)?,
            Err(error) => break error.kind().to_string(),
        }
    };
    conn.note(end);
    Ok(())
}

/// A site with such origins and these gray clients, whose tunnels have this grace.
#[track_caller]
fn site(grace: &str, gray: &[&str]) -> Site {
    let redis = Redis::start();
    let (pre, prod) = (origin("pre"), origin("prod"));
    redis.push_peers(&pre, &prod);
    let mut setup = Setup::new().redis(redis.url());
    for (name, value) in [
        ("redis.check_interval", "1h"),
        ("gateway.tunnel_grace", grace),
        ("gateway.pid_file", "pid"),
        ("lists.guard_share", "100"),
        ("gateway.drain_timeout", "1h"),
        ("gray.force_header", "X-Force"),
        ("gray.follow_mark", "on"),
        ("gateway.trusted_proxies", "127.0.0.9"),
    ] {
        setup = setup.set(name, value);
    }
    let gateway = setup.start();
    gateway.wait_served("127.0.0.200", "prod", SOON);
    let site = Site {
        redis,
        gateway,
        pre,
        prod,
    };
    if !gray.is_empty() {
        push(&site, gray);
    }
    site
}

/// Pushes entries, and waits until they are in force.
#[track_caller]
fn push(site: &Site, entries: &[&str]) {
    let entries: Vec<&dyn std::fmt::Display> = entries.iter().map(|it| it as _).collect();
    change(site, || site.redis.push("gray", &entries));
}

/// Does something to the lists, and waits until that is in force.
#[track_caller]
fn change(site: &Site, change: impl FnOnce()) {
    let before = site.gateway.lists()["generation"].clone();
    change();
    site.gateway
        .wait_for_lists("the change", |it| it["generation"] != before);
}

/// Has this origin serve the gray client, by one change.
#[track_caller]
fn release(site: &Site, pre: &Origin) {
    change(site, || {
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("DEL").arg("pre").ignore();
        pipe.cmd("RPUSH")
            .arg("pre")
            .arg(pre.address().to_string())
            .ignore();
        pipe.cmd("RPUSH").arg("gray").arg(GRAY).ignore();
        pipe.exec(&mut site.redis.connect(0)).unwrap();
    });
}

#[track_caller]
fn tunnel_of(gateway: &Gateway, source: &str, protocol: &str, fields: &str) -> (Client, String) {
    let mut client = gateway.connect_from(source);
    client.send(upgrade(protocol, fields));
    assert_eq!(client.head().status(), 101);
    let by = String::from_utf8(client.exactly(3)).unwrap();
    (client, by)
}

/// A WebSocket of the gray client, to `pre`.
#[track_caller]
fn gray_tunnel(site: &Site) -> Client {
    let (client, by) = tunnel_of(&site.gateway, GRAY, "websocket", "");
    assert_eq!(by, "pre");
    client
}

#[track_caller]
fn assert_works(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
}

/// Waits for the end: a FIN, or an error.
#[track_caller]
fn end_of(client: &mut Client) -> Option<ErrorKind> {
    loop {
        match client.wire.some(usize::MAX) {
            Ok(piece) if piece.is_empty() => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it has not ended"),
            Err(error) => return Some(error.kind()),
        }
    }
}

/// A tunnel that leads to `pre`, and one that stays, whatever is done by `take_back`.
#[track_caller]
fn ends_by(gray: &[&str], fields: &str, take_back: impl FnOnce(&Site)) {
    let site = site("50ms", gray);
    let (mut taken, by) = tunnel_of(&site.gateway, GRAY, "websocket", fields);
    assert_eq!(by, "pre");
    let (mut other, by) = tunnel_of(&site.gateway, "127.0.0.77", "websocket", "");
    assert_eq!(by, "pro");
    take_back(&site);
    assert_eq!(end_of(&mut taken), None);
    let (mut again, by) = tunnel_of(&site.gateway, GRAY, "websocket", fields);
    assert_eq!(by, "pro");
    assert_works(&mut again);
    assert_works(&mut other);
    let text = format!("client={GRAY} pool=pre reason=listed status=101 error=- close=taken-back");
    site.gateway.wait_for_access(&text);
    site.gateway.wait_for_metric(
        "graygate_connections_closed_total{reason=\"taken-back\"}",
        1.0,
    );
}

#[test]
fn who_is_removed_from_gray_is_sent_to_prod_with_the_next_tunnel() {
    ends_by(&[GRAY, "127.0.0.6"], "", |site| {
        site.redis(&format!("LREM gray 0 {GRAY}"))
    });
}

#[test]
fn so_is_everybody_when_gray_is_emptied() {
    ends_by(&[GRAY], "", |site| site.redis("DEL gray"));
}

#[test]
fn so_is_who_is_excluded() {
    ends_by(&[GRAY], "", |site| site.redis("RPUSH gray !*"));
}

#[test]
fn so_is_who_was_selected_by_a_cookie_that_is_listed_no_more() {
    let cookie = "Cookie: a=1; team=qa\r\n";
    ends_by(&["cookie:team=qa", "cookie:team=dev"], cookie, |site| {
        site.redis("LREM gray 0 cookie:team=qa");
    });
}

#[test]
fn so_is_who_is_above_a_lower_share() {
    ends_by(&["percent:100:header:X-User"], "X-User: ann\r\n", |site| {
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("DEL").arg("gray").ignore();
        pipe.cmd("RPUSH")
            .arg("gray")
            .arg("percent:0.01:header:X-User")
            .ignore();
        pipe.exec(&mut site.redis.connect(0)).unwrap();
    });
}

#[test]
fn so_is_everybody_after_a_trip() {
    ends_by(&[GRAY], "", |site| {
        site.redis.cli(&["SET", "graygate:tripped", "stop"]);
    });
}

#[test]
fn so_is_everybody_when_pre_is_emptied() {
    ends_by(&[GRAY], "", |site| site.redis("DEL pre"));
}

#[test]
fn an_entry_that_ends_ends_the_tunnels_by_it() {
    let site = site("50ms", &[]);
    let until = SystemTime::now() + Duration::from_secs(4);
    let until = humantime::format_rfc3339_seconds(until).to_string();
    push(&site, &[&format!("{GRAY} until={until}")]);
    let mut tunnel = gray_tunnel(&site);
    assert_eq!(end_of(&mut tunnel), None);
    let (_again, by) = tunnel_of(&site.gateway, GRAY, "websocket", "");
    assert_eq!(by, "pro");
    site.gateway.wait_for_access("status=101 close=taken-back");
}

#[test]
fn another_protocol_is_reset_on_both_sides_and_a_websocket_is_shut_down_on_both() {
    let site = site("50ms", &[GRAY]);
    let mut websocket = gray_tunnel(&site);
    let (mut raw, by) = tunnel_of(&site.gateway, GRAY, "raw", "");
    assert_eq!(by, "pre");
    assert_works(&mut websocket);
    assert_works(&mut raw);
    site.redis("DEL gray");
    assert_eq!(end_of(&mut websocket), None);
    assert_eq!(end_of(&mut raw), Some(ErrorKind::ConnectionReset));
    let reset = ErrorKind::ConnectionReset.to_string();
    site.pre.wait("both ends", |it| {
        it.notes.len() == 2 && it.notes.contains(&"end".to_owned()) && it.notes.contains(&reset)
    });
}

#[test]
fn tunnels_stay_with_grace_off_and_of_testers_and_of_who_becomes_gray() {
    let site = site("off", &[GRAY]);
    let mut off = gray_tunnel(&site);
    site.redis("DEL gray");
    assert_eq!(off.glance(STAYS), None);
    assert_works(&mut off);
    drop(off);

    let site = self::site("1ms", &[GRAY]);
    let mut marked = tunnel_of(
        &site.gateway,
        "127.0.0.9",
        "websocket",
        "X-Graygate-Pool: pre\r\n",
    );
    let mut forced = tunnel_of(&site.gateway, GRAY, "websocket", "X-Force: pre\r\n");
    let mut prods = tunnel_of(&site.gateway, "127.0.0.6", "websocket", "");
    assert_eq!([&*marked.1, &forced.1, &prods.1], ["pre", "pre", "pro"]);
    let mut gray = gray_tunnel(&site);
    push(&site, &["127.0.0.6"]);
    site.redis(&format!("LREM gray 0 {GRAY}"));
    assert_eq!(end_of(&mut gray), None);
    for client in [&mut marked.0, &mut forced.0, &mut prods.0] {
        assert_eq!(client.glance(STAYS / 3), None);
        assert_works(client);
    }
    // A mark is no more than the list's word.
    site.redis.cli(&["SET", "graygate:tripped", "stop"]);
    assert_eq!(end_of(&mut marked.0), None);
    assert_works(&mut forced.0);
}

#[test]
fn who_is_gray_again_within_the_grace_keeps_the_tunnel() {
    let site = site("24h", &[GRAY]);
    let mut tunnels: Vec<Client> = (0..20).map(|_| gray_tunnel(&site)).collect();
    change(&site, || site.redis("DEL gray"));
    // Longer than a tick of the workers' clocks, so that all of them have seen it.
    assert_eq!(tunnels[0].glance(STAYS / 2), None);
    push(&site, &[GRAY]);
    assert_eq!(tunnels[0].glance(STAYS / 2), None);
    // A shorter grace is for those that are still to end, of which there is none.
    let mut site = site;
    site.gateway
        .edit_ini(|it| it.set("gateway.tunnel_grace", "1ms"));
    site.gateway.signal(nix::sys::signal::Signal::SIGHUP);
    site.gateway.wait_for_log("reloaded");
    assert_eq!(tunnels[0].glance(STAYS), None);
    tunnels.iter_mut().for_each(assert_works);
    // And it holds for those that are.
    site.redis("DEL gray");
    for client in &mut tunnels {
        assert_eq!(end_of(client), None);
    }
}

#[test]
fn who_is_gray_again_before_the_moment_of_the_end_has_none() {
    const GRACE: Duration = Duration::from_secs(4);
    let site = site("4s", &[GRAY]);
    let mut tunnels: Vec<Client> = (0..20).map(|_| gray_tunnel(&site)).collect();
    let begun = Instant::now();
    change(&site, || site.redis("DEL gray"));
    // Workers have seen it when the first one ends.
    let mut first = None;
    wait_until("the first end", DEADLINE, || {
        first = tunnels
            .iter_mut()
            .position(|it| it.glance(Duration::from_millis(1)).is_some());
        first.is_some()
    });
    push(&site, &[GRAY]);
    let gone = begun.elapsed().as_secs_f64() / GRACE.as_secs_f64();
    tunnels.remove(first.unwrap());
    let until = begun + GRACE + STAYS;
    let left = |tunnels: &mut Vec<Client>| {
        tunnels.retain_mut(|it| it.glance(Duration::from_millis(1)).is_none());
        tunnels.len()
    };
    while Instant::now() < until {
        left(&mut tunnels);
    }
    // Of those whose moment had not come, which are many unless the machine was asleep.
    assert!(left(&mut tunnels) > 0 || gone > 0.7, "{gone}");
    tunnels.iter_mut().for_each(assert_works);
}

#[test]
fn a_shorter_grace_holds_for_those_that_are_still_to_end() {
    let mut site = site("24h", &[GRAY]);
    let mut tunnels: Vec<Client> = (0..5).map(|_| gray_tunnel(&site)).collect();
    change(&site, || site.redis("DEL gray"));
    assert_eq!(tunnels[0].glance(STAYS / 2), None);
    site.gateway
        .edit_ini(|it| it.set("gateway.tunnel_grace", "1ms"));
    site.gateway.signal(nix::sys::signal::Signal::SIGHUP);
    for client in &mut tunnels {
        assert_eq!(end_of(client), None);
    }
}

#[test]
fn what_has_changed_while_the_server_thinks_counts_for_the_tunnel_that_it_begins() {
    let (answer, may_answer) = std::sync::mpsc::channel::<()>();
    let may_answer = std::sync::Mutex::new(may_answer);
    let pre = Origin::scripted(move |conn| {
        let Some(head) = conn.head()? else {
            return Ok(());
        };
        if head.field("upgrade").is_none() {
            return conn.send(support::ok("slow"));
        }
        // Until it is told to, or the test is over.
        let _ = may_answer.lock().unwrap().recv();
        conn.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        echo(conn)
    });
    let site = site("50ms", &[]);
    release(&site, &pre);
    let mut client = site.gateway.connect_from(GRAY);
    client.send(upgrade("websocket", ""));
    pre.wait("it is asked", |it| {
        it.heads.iter().any(|it| it.field("upgrade").is_some())
    });
    change(&site, || site.redis("DEL gray"));
    answer.send(()).unwrap();
    assert_eq!(client.head().status(), 101);
    assert_eq!(end_of(&mut client), None);
    site.gateway.wait_for_access("status=101 close=taken-back");
}

#[test]
fn what_was_promoted_keeps_its_tunnels() {
    let site = site("1ms", &[GRAY]);
    let mut tunnel = gray_tunnel(&site);
    let new = site.pre.address().to_string();
    change(&site, || {
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("DEL").arg("gray").arg("prod").ignore();
        pipe.cmd("RPUSH").arg("prod").arg(&new).ignore();
        pipe.exec(&mut site.redis.connect(0)).unwrap();
    });
    assert_eq!(tunnel.glance(STAYS), None);
    assert_works(&mut tunnel);
    // Another `pre` for who is gray is none that was taken back.
    let other = origin("other");
    push(&site, &[GRAY]);
    change(&site, || {
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("DEL").arg("pre").ignore();
        pipe.cmd("RPUSH")
            .arg("pre")
            .arg(other.address().to_string())
            .ignore();
        pipe.exec(&mut site.redis.connect(0)).unwrap();
    });
    assert_eq!(tunnel.glance(STAYS), None);
    assert_works(&mut tunnel);
}

#[test]
fn forty_tunnels_end_one_by_one_within_the_grace() {
    const GRACE: Duration = Duration::from_secs(1);
    let site = site("1s", &[GRAY]);
    let tunnels: Vec<Client> = (0..40).map(|_| gray_tunnel(&site)).collect();
    let begun = Instant::now();
    site.redis("DEL gray");
    let mut ends: Vec<Duration> = std::thread::scope(|scope| {
        let ends = tunnels.into_iter().map(|mut client| {
            scope.spawn(move || {
                assert_eq!(end_of(&mut client), None);
                begun.elapsed()
            })
        });
        let ends: Vec<_> = ends.collect();
        ends.into_iter().map(|it| it.join().unwrap()).collect()
    });
    ends.sort();
    // Of 40 that are drawn evenly, less than 5 in the first half come once in ten million times.
    let in_first_half = ends.iter().filter(|it| **it < GRACE / 2).count();
    assert!((5..=35).contains(&in_first_half), "{ends:?}");
    let longest = ends.windows(2).map(|it| it[1] - it[0]).max().unwrap();
    assert!(longest < GRACE / 2, "{ends:?}");
    assert!(ends[39] < GRACE + Duration::from_secs(2), "{ends:?}");
}

#[test]
fn a_busy_websocket_gets_all_that_was_sent_before_its_end() {
    let pre = Origin::scripted(|conn| {
        let stream = conn.wire.stream.try_clone()?;
        let mut socket = tungstenite::accept(stream).map_err(std::io::Error::other)?;
        let text = "x".repeat(1000);
        while socket
            .send(tungstenite::Message::text(text.clone()))
            .is_ok()
        {}
        Ok(())
    });
    let site = site("300ms", &[]);
    release(&site, &pre);
    let stream = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source: std::net::SocketAddr = (std::net::Ipv4Addr::new(127, 0, 0, 5), 0).into();
    stream.bind(&source.into()).unwrap();
    stream.connect(&site.gateway.addr().into()).unwrap();
    let stream = TcpStream::from(stream);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut socket, _) = tungstenite::client("ws://test/", stream).unwrap();
    assert_eq!(socket.read().unwrap().to_text().unwrap().len(), 1000);
    site.redis("DEL gray");
    let mut count = 0;
    let error = loop {
        match socket.read() {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    // Whole pieces, and a FIN without a Close frame, which is no proper end.
    let text = error.to_string();
    assert!(
        text.contains("without closing handshake") || text.contains("eset"),
        "{text}"
    );
    assert!(count > 0);
    site.gateway.wait_for_access("status=101 close=taken-back");
}

#[test]
fn a_tunnel_whose_sides_take_nothing_is_cut_soon_after_its_time() {
    let pre = Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        while conn.send([b'x'; 64 * 1024]).is_ok() {}
        conn.note("cut");
        Ok(())
    });
    let site = site("1ms", &[]);
    release(&site, &pre);
    let mut client = site.gateway.connect_from(GRAY);
    client.send(upgrade("websocket", ""));
    assert_eq!(client.head().status(), 101);
    site.redis("DEL gray");
    pre.wait("the cut", |it| it.notes.iter().any(|it| it == "cut"));
    site.gateway.wait_for_access("status=101 close=taken-back");
}

#[test]
fn an_old_process_goes_on_with_it_after_an_upgrade_and_hears_of_what_comes_later() {
    let site = site("1500ms", &[GRAY, "127.0.0.6"]);
    let mut drawn = gray_tunnel(&site);
    let (mut later, by) = tunnel_of(&site.gateway, "127.0.0.6", "websocket", "");
    assert_eq!(by, "pre");
    change(&site, || site.redis(&format!("LREM gray 0 {GRAY}")));
    let _last = LastProcess(&site.gateway);
    upgrade_well(&site.gateway);
    assert_eq!(end_of(&mut drawn), None);
    assert_works(&mut later);
    site.redis("DEL gray");
    assert_eq!(end_of(&mut later), None);
    let (mut again, by) = tunnel_of(&site.gateway, GRAY, "websocket", "");
    assert_eq!(by, "pro");
    assert_works(&mut again);
    drop(again);
    wait_until("the old process to end", DEADLINE, || {
        site.gateway.stderr.count("stopped") > 0
    });
}
