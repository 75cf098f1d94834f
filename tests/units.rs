//! What counts for the verdict on a release, and as what: of each client the first request in a second, and
//! whether a server of the client's own pool has failed it, whatever became of it afterwards.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::fmt::Display;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Client, DEADLINE, DeafPeer, Gateway, Origin, RefusingPeer, Setup, ok, wait_until};

/// Of `pre`: units, and bad ones; then those of `prod`.
type Counted = [f64; 4];

const PRE_GOOD: Counted = [1.0, 0.0, 0.0, 0.0];
const PRE_BAD: Counted = [1.0, 1.0, 0.0, 0.0];
const PROD_GOOD: Counted = [0.0, 0.0, 1.0, 0.0];
const PROD_BAD: Counted = [0.0, 0.0, 1.0, 1.0];
const NONE: Counted = [0.0; 4];

/// A client that is gray, and one that is not.
const GRAY: &str = "127.0.0.5";
const OTHER: &str = "127.0.0.1";

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

fn name_of(what: &str, pool: &str) -> String {
    format!("graygate_verdict_{what}_total{{pool=\"{pool}\"}}")
}

#[track_caller]
fn counted(gateway: &Gateway) -> Counted {
    [
        ("units", "pre"),
        ("bad_units", "pre"),
        ("units", "prod"),
        ("bad_units", "prod"),
    ]
    .map(|(what, pool)| gateway.metric(&name_of(what, pool)))
}

fn setup() -> Setup {
    Setup::new().one_worker()
}

fn gateway(setup: Setup, pre: &[&dyn Display], prod: &[&dyn Display]) -> Gateway {
    setup
        .lists(
            &[GRAY, "127.0.1.0/24", "header:X-Gray", "!header:X-Out"],
            pre,
            prod,
        )
        .start()
}

/// An origin that reads a request, says this and closes.
fn saying_and_closing(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Origin {
    Origin::scripted(move |conn| {
        conn.request()?;
        conn.send(&bytes)
    })
}

/// One request of a client at `source`, on a connection of its own, and what is counted once it is over.
#[track_caller]
fn counted_of(gateway: &Gateway, source: &str, request: &str) -> Counted {
    let lines = gateway.access_lines().len();
    let mut client = gateway.connect_from(source);
    client.send(request);
    let method = request.split(' ').next().unwrap();
    let _ = client.try_response_to(method);
    gateway.wait_for_access_lines(lines + 1);
    counted(gateway)
}

/// A status without a body.
fn status(line: &str) -> Origin {
    Origin::saying(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"))
}

fn hasty() -> Setup {
    let setup = setup().set("upstream.connect_timeout", "300ms");
    let setup = setup.set("upstream.read_timeout", "300ms");
    setup.set("upstream.stall_timeout", "300ms")
}

#[test]
fn what_a_server_does_wrong_is_bad_though_another_pool_rescues_it() {
    let (refusing, deaf, mute) = (RefusingPeer::new(), DeafPeer::new(), Origin::mute());
    let closing = saying_and_closing("");
    let cut = saying_and_closing("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let cut_head = saying_and_closing("HTTP/1.1 200 OK\r\nConte");
    let malformed = Origin::saying("HTTP/1.1 20 OK\r\n\r\n");
    let framing = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
    let chunk = Origin::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n");
    let stalling = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let peers: [(&str, &dyn Display); 10] = [
        ("refused", &refusing),
        ("connecting timed out", &deaf),
        ("reading timed out", &mute),
        ("closed", &closing),
        ("cut", &cut),
        ("cut within the head", &cut_head),
        ("malformed", &malformed),
        ("malformed length", &framing),
        ("malformed chunk", &chunk),
        ("stalled", &stalling),
    ];
    std::thread::scope(|scope| {
        for (what, peer) in peers {
            let peer = peer.to_string();
            scope.spawn(move || {
                let prod = Origin::named("prod");
                let gateway = gateway(hasty(), &[&peer], &[&prod]);
                assert_eq!(counted_of(&gateway, GRAY, GET), PRE_BAD, "{what}");
            });
        }
    });
    // A request that nobody may send twice.
    let gateway = gateway(setup(), &[&closing], &[&refusing]);
    assert_eq!(counted_of(&gateway, GRAY, POST), PRE_BAD);
    // Of prod as well.
    let prod = [1.0, 1.0, 1.0, 1.0];
    assert_eq!(counted_of(&gateway, OTHER, GET), prod);
}

#[test]
fn a_deadline_that_a_server_lets_pass_is_its_failure() {
    let (mute, prod) = (Origin::mute(), Origin::named("prod"));
    let gateway = gateway(
        setup().set("upstream.deadline", "300ms"),
        &[&mute],
        &[&prod],
    );
    assert_eq!(counted_of(&gateway, GRAY, GET), PRE_BAD);
    gateway.wait_for_access("status=504 error=deadline");
}

#[test]
fn a_status_of_5xx_is_bad_and_any_other_is_not() {
    for (line, pre, prod) in [
        ("500 No", PRE_BAD, PROD_BAD),
        ("503 No", PRE_BAD, PROD_BAD),
        ("599 No", PRE_BAD, PROD_BAD),
        ("404 No", PRE_GOOD, PROD_GOOD),
        ("429 No", PRE_GOOD, PROD_GOOD),
        ("302 There", PRE_GOOD, PROD_GOOD),
        ("200 OK", PRE_GOOD, PROD_GOOD),
    ] {
        let origin = status(line);
        for (source, method, expected) in [
            (GRAY, "GET", pre),
            (GRAY, "HEAD", pre),
            (OTHER, "GET", prod),
        ] {
            let gateway = gateway(setup(), &[&origin], &[&origin]);
            let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
            let counted = counted_of(&gateway, source, &request);
            assert_eq!(counted, expected, "{line} {method}");
        }
    }
}

#[test]
fn a_failure_that_another_server_of_the_same_pool_makes_good_is_one() {
    let (bad, good) = (saying_and_closing(""), Origin::named("pre"));
    let setup = setup().set("upstream.max_fails", 0);
    let gateway = gateway(setup, &[&bad, &good], &[]);
    for client in 1..=20 {
        assert_eq!(gateway.get(&format!("127.0.1.{client}"), "/").text(), "pre");
    }
    let lines = gateway.wait_for_access_lines(20);
    let retried = lines.iter().filter(|it| it.get("attempts") == "2").count();
    assert!(retried > 0);
    assert_eq!(counted(&gateway), [20.0, retried as f64, 0.0, 0.0]);
}

#[test]
fn what_the_client_breaks_is_not_bad() {
    let (mute, echo) = (Origin::mute(), Origin::echo());
    // It goes while it waits.
    let waiting = gateway(setup(), &[&mute], &[&mute]);
    let mut client = waiting.connect_from(GRAY);
    client.send(GET);
    mute.wait("the request", |it| it.requests.len() == 1);
    client.reset();
    waiting.wait_for_access("attempts=1 close=client-gone");
    assert_eq!(counted(&waiting), PRE_GOOD);
    // It goes within its body.
    let uploading = gateway(setup(), &[&echo], &[&echo]);
    let mut client = uploading.connect_from(GRAY);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\nhello");
    echo.wait("the head", |it| it.heads.len() == 1);
    client.reset();
    uploading.wait_for_access("attempts=1 close=body-cut");
    assert_eq!(counted(&uploading), PRE_GOOD);
    // Its body is refused when it is under way already.
    let refusing = gateway(setup(), &[&echo], &[&echo]);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        counted_of(&refusing, GRAY, &format!("{chunked}x\r\n")),
        PRE_GOOD
    );
    refusing.wait_for_access("attempts=1 error=bad-chunk");
}

#[test]
fn what_is_refused_before_anybody_decides_is_no_unit() {
    let origin = Origin::named("any");
    let gateway = gateway(setup(), &[&origin], &[&origin]);
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: nothing\r\nContent-Length: 1\r\n\r\n",
    ] {
        assert_eq!(counted_of(&gateway, GRAY, request), NONE, "{request}");
    }
}

#[test]
fn what_the_gateway_lacks_is_not_bad() {
    let (pre, prod) = (saying_and_closing(ok("pre")), Origin::named("prod"));
    let setup = setup().set("upstream.connect_timeout", "300ms");
    let gateway = gateway(setup, &[&pre], &[&prod]);
    let mut client = gateway.connect_from(GRAY);
    let limit = gateway.descriptor_limit();
    let waiting = gateway.take_descriptors();
    client.send(GET);
    let answer = client.response().text();
    assert_eq!(answer, "503 Service Unavailable: out-of-descriptors\n");
    drop(waiting);
    gateway.limit_descriptors(limit);
    gateway.wait_for_access("pool=pre error=out-of-descriptors");
    assert_eq!(counted(&gateway), PRE_GOOD);
}

#[test]
fn what_a_tunnel_comes_to_is_no_failure_and_it_is_counted_when_it_begins() {
    let switching = Origin::scripted(|conn| {
        conn.request()?;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n",
        )?;
        conn.wait_for_release()?;
        conn.reset_at_end();
        Ok(())
    });
    let gateway = gateway(setup(), &[&switching], &[&switching]);
    let mut client = gateway.connect_from(GRAY);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    gateway.wait_for_metric(&name_of("units", "pre"), 1.0);
    assert!(gateway.access_lines().is_empty());
    switching.release();
    gateway.wait_for_access("status=101 close=tunnel-ended");
    assert_eq!(counted(&gateway), PRE_GOOD);
}

#[test]
fn who_is_served_by_another_pool_than_the_own_one_is_no_unit() {
    let (pre, prod) = Origin::pre_and_prod();
    let setup = setup()
        .set("gray.force_header", "X-Force")
        .set("gray.follow_mark", "on")
        .set("gateway.trusted_proxies", OTHER);
    let gateway = gateway(setup, &[&pre], &[&prod]);
    let mut before = NONE;
    for (field, source, expected) in [
        ("X-Force: pre", "127.0.0.9", NONE),
        ("X-Force: prod", GRAY, NONE),
        ("X-Graygate-Pool: pre", OTHER, PRE_GOOD),
        ("X-Graygate-Pool: prod", "127.0.0.9", PROD_GOOD),
        ("X-Gray: 1", "127.0.0.10", PRE_GOOD),
        ("X-Out: 1", GRAY, PROD_GOOD),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        let now = counted_of(&gateway, source, &request);
        let more: Vec<f64> = now
            .iter()
            .zip(before)
            .map(|(now, before)| now - before)
            .collect();
        assert_eq!(more, expected, "{field}");
        before = now;
    }
    gateway.wait_for_access("pool=pre reason=forced");
    gateway.wait_for_access("pool=pre reason=marked");
    gateway.wait_for_access("pool=prod reason=excluded");
}

#[test]
fn without_an_attempt_on_pre_its_clients_are_no_units() {
    let (dead, prod) = (RefusingPeer::new(), Origin::named("prod"));
    let setup = setup()
        .set("upstream.max_fails", 1)
        .set("upstream.fail_timeout", "1h");
    let out = gateway(setup, &[&dead], &[&prod]);
    for client in 1..=10 {
        assert_eq!(out.get(&format!("127.0.1.{client}"), "/").text(), "prod");
    }
    let lines = out.wait_for_access_lines(10);
    let of = |reason: &str| lines.iter().filter(|it| it.get("reason") == reason).count();
    assert_eq!((of("pre-exhausted"), of("pre-out")), (1, 9));
    assert_eq!(counted(&out), PRE_BAD);
}

#[test]
fn nothing_is_counted_without_a_release_or_where_nobody_wants_to_know() {
    let (pre, prod) = Origin::pre_and_prod();
    let is_shown = |gateway: &Gateway| gateway.shown_metric(&name_of("units", "prod")).is_some();
    let mut gateway = gateway(setup(), &[], &[&prod]);
    assert_eq!(gateway.get(GRAY, "/").text(), "prod");
    gateway.wait_for_access("reason=pre-empty");
    assert!(!is_shown(&gateway));
    // A release begins, and nobody wants to know.
    gateway.write_lists(&[GRAY], &[&pre], &[&prod]);
    gateway.wait_served(GRAY, "pre", DEADLINE);
    assert!(is_shown(&gateway));
    gateway.edit_ini(|it| it.set("verdict.mode", "off"));
    gateway.signal(Signal::SIGHUP);
    wait_until("nothing is counted", DEADLINE, || !is_shown(&gateway));
    gateway.edit_ini(|it| it.set("verdict.mode", "observe"));
    gateway.signal(Signal::SIGHUP);
    wait_until("it is counted again", DEADLINE, || is_shown(&gateway));
    gateway.wait_for_metric(&name_of("units", "pre"), 0.0);
    assert_eq!(gateway.get(OTHER, "/").text(), "prod");
    gateway.wait_for_metric(&name_of("units", "prod"), 1.0);
    // It ends.
    gateway.write_lists(&[GRAY], &[], &[&prod]);
    wait_until("it is over", DEADLINE, || !is_shown(&gateway));
}

/// Asks again and again until `is_over`; how long that took.
#[track_caller]
fn ask_until(client: &mut Client, path: &str, mut is_over: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_over() {
        client.get(path);
        assert!(begun.elapsed() < DEADLINE, "it goes on and on");
    }
    begun.elapsed()
}

/// Answers what is bad with 500.
fn judging() -> Origin {
    Origin::answering(|it| match &*it.head.target() {
        "/bad" => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("good"),
    })
}

#[test]
fn of_a_client_one_request_in_a_second_is_a_unit() {
    let origin = judging();
    let gateway = gateway(setup(), &[&origin], &[&origin]);
    let units = || counted(&gateway)[0] + counted(&gateway)[2];
    let (mut gray, mut other) = (gateway.connect_from(GRAY), gateway.connect_from(OTHER));
    let begun = Instant::now();
    for _ in 0..50 {
        gray.get("/");
        other.get("/");
    }
    gateway.wait_for_access_lines(100);
    let most = 2 * (begun.elapsed().as_secs() + 2);
    assert!(
        (2.0..=most as f64).contains(&units()),
        "{} of {most}",
        units()
    );
    let before = units();
    let took = ask_until(&mut gray, "/", || units() >= before + 3.0);
    assert!(took >= Duration::from_secs(2), "3 units in {took:?}");
}

#[test]
fn where_pre_has_many_clients_each_counts_until_its_first_bad_unit() {
    let origin = judging();
    let gateway = gateway(setup(), &[&origin], &[&origin]);
    for client in 1..=6 {
        gateway.get(&format!("127.0.1.{client}"), "/");
    }
    let seconds_pass = || {
        // Of a client that counts for ever, which shows that time has passed.
        let before = counted(&gateway)[0];
        let mut client = gateway.connect_from("127.0.1.1");
        ask_until(&mut client, "/", || counted(&gateway)[0] >= before + 2.0);
    };
    // Once a second the gateway looks how many there are.
    seconds_pass();
    for (source, bad) in [("127.0.1.7", 1), ("127.0.0.1", 3)] {
        let before = counted(&gateway);
        gateway.get(source, "/bad");
        gateway.wait_for_metric(
            &name_of("bad_units", if bad == 1 { "pre" } else { "prod" }),
            1.0,
        );
        for _ in 0..2 {
            seconds_pass();
            gateway.get(source, "/bad");
            gateway.get(source, "/");
        }
        let now = counted(&gateway);
        assert_eq!(now[bad] - before[bad], 1.0, "{source}");
        if bad == 3 {
            assert_eq!(now[2] - before[2], 1.0, "nor do its good ones count");
        }
    }
    // Another pre, and everybody counts again.
    let next = judging();
    gateway.write_lists(&["127.0.1.0/24"], &[&next], &[&origin]);
    wait_until("it is in force", DEADLINE, || {
        gateway.get("127.0.1.1", "/");
        next.accepted() > 0
    });
    let before = counted(&gateway);
    gateway.get("127.0.1.7", "/bad");
    gateway.wait_for_metric(&name_of("bad_units", "pre"), before[1] + 1.0);
}

#[test]
fn where_pre_has_few_clients_several_bad_units_of_each_count() {
    let origin = judging();
    let gateway = gateway(setup(), &[&origin], &[&origin]);
    let mut client = gateway.connect_from(GRAY);
    ask_until(&mut client, "/bad", || counted(&gateway)[1] >= 3.0);
}

/// A connection that a server has authenticated, and which serves its client alone.
#[test]
fn what_comes_on_a_connection_of_the_clients_own_counts_as_any_other() {
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            match (request.field("authorization"), &*request.head.target()) {
                (None, "/") => conn.send(
                    "HTTP/1.1 401 Who\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
                )?,
                (_, "/bad") => conn.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")?,
                _ => conn.send(ok("fine"))?,
            }
        }
        Ok(())
    });
    let gateway = gateway(setup(), &[&origin], &[&origin]);
    let mut client = gateway.connect_from(GRAY);
    let pinned = "graygate_upstream_connections_pinned{worker=\"0\"}";
    assert_eq!(client.get("/").status(), 401);
    gateway.wait_for_metric(pinned, 1.0);
    ask_until(&mut client, "/fine", || counted(&gateway)[0] >= 2.0);
    assert_eq!(counted(&gateway)[1], 0.0);
    ask_until(&mut client, "/bad", || counted(&gateway)[1] >= 1.0);
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_client_is_whom_the_settings_say() {
    let origin = Origin::named("any");
    for (key, field, others) in [
        ("cookie:uid", "Cookie: a=b; uid=", "Cookie: a="),
        ("header:X-User", "X-User: ", "X-Other: "),
    ] {
        let setup = setup().set("verdict.client", key);
        let gateway = gateway(setup, &[&origin], &[&origin]);
        let mut client = gateway.connect_from(GRAY);
        let mut ask = |field: &str, name: &str| {
            client.ask(format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{field}{name}\r\n\r\n"
            ));
        };
        let begun = Instant::now();
        for name in 0..20 {
            ask(field, &name.to_string());
        }
        gateway.wait_for_access_lines(20);
        let units = counted(&gateway)[0];
        assert!(units >= 20.0, "{key}: {units}");
        // Whoever has none is known by the address.
        (0..20).for_each(|name| ask(others, &name.to_string()));
        gateway.wait_for_access_lines(40);
        let more = counted(&gateway)[0] - units;
        let most = begun.elapsed().as_secs() + 2;
        assert!((1.0..=most as f64).contains(&more), "{key}: {more}");
    }
}

#[test]
fn services_are_counted_each_by_itself() {
    let (pre, prod) = (status("500 No"), Origin::named("prod"));
    let setup = setup()
        .set("service shop.hosts", "shop")
        .set("service other.hosts", "other");
    let setup = setup.file(
        "lists",
        &format!(
            "[gray]\n{GRAY}\n[pre]\n[prod]\n{prod}\n[shop gray]\n{GRAY}\n[shop pre]\n{pre}\n[shop prod]\n{prod}\n\
             [other gray]\n{GRAY}\n[other pre]\n{prod}\n[other prod]\n{prod}\n"
        ),
    );
    let gateway = setup.start();
    for host in ["shop", "other", "a"] {
        let mut client = gateway.connect_from(GRAY);
        client.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    gateway.wait_for_access_lines(3);
    let shown = |what: &str, service: &str| {
        let labels = format!("{{service=\"{service}\",pool=\"pre\"}}");
        gateway.shown_metric(&format!("graygate_verdict_{what}_total{labels}"))
    };
    let of = |service| (shown("units", service), shown("bad_units", service));
    assert_eq!(of("shop"), (Some(1.0), Some(1.0)));
    assert_eq!(of("other"), (Some(1.0), Some(0.0)));
    assert_eq!(of("default"), (None, None), "it has no release");
}

/// What a gateway with so many services has in memory, in KiB; `pre` is the same in all of them.
#[track_caller]
fn memory_with(services: usize, mode: &str, pre: &str) -> u64 {
    let mut setup = setup().set("verdict.mode", mode);
    let mut lists = "[gray]\n[pre]\n[prod]\n127.0.0.1:1\n".to_owned();
    for at in 0..services {
        setup = setup.set(&format!("service s{at}.hosts"), format!("s{at}"));
        lists += &format!("[s{at} gray]\n[s{at} pre]\n{pre}\n[s{at} prod]\n127.0.0.1:1\n");
    }
    let gateway = setup.file("lists", &lists).start();
    let shown = gateway.admin_get("/metrics").1;
    let units = shown.matches("verdict_units_total{").count();
    let watched = if mode == "off" || pre.is_empty() {
        0
    } else {
        2 * services
    };
    assert_eq!(units, watched);
    gateway.rss_kib()
}

#[test]
fn a_service_takes_no_memory_for_it_without_a_release_and_little_with_one() {
    // So many that the 8 MiB by which two processes differ, of the same settings, make no difference.
    const SERVICES: usize = 2500;
    for (pre, most) in [("", 4), ("127.0.0.1:2", 24)] {
        let without = memory_with(SERVICES, "off", pre);
        let with = memory_with(SERVICES, "observe", pre);
        let each = with.saturating_sub(without) / SERVICES as u64;
        assert!(
            each < most,
            "{each} KiB for each service: {without}, {with}, {pre}"
        );
    }
}
