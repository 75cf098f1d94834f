//! Peers that hang, refuse, reset, flap: they are left alone, and come back. Clients notice as little of it
//! as HTTP allows.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{
    Client, Conn, DEADLINE, DeafPeer, Gateway, Origin, RefusingPeer, Setup, ok, peer_on, wait_for,
    wait_until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const DELETE: &str = "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

const WORKERS: usize = 2;

/// As shipped.
const MAX_FAILS: usize = 3;

/// An origin that can be made to fail, and counts what it is asked.
struct Patient {
    origin: Origin,
    is_ill: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Display for Patient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.origin.fmt(f)
    }
}

impl Patient {
    /// One that does this with a request while it is ill.
    fn new(ill: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let (is_ill, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (illness, count) = (Arc::clone(&is_ill), Arc::clone(&asked));
        let origin = Origin::scripted(move |conn| {
            while conn.head()?.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                if illness.load(Ordering::SeqCst) {
                    return ill(conn);
                }
                conn.send(ok("fine"))?;
            }
            Ok(())
        });
        Self {
            origin,
            is_ill,
            asked,
        }
    }

    /// One that closes without an answer while it is ill.
    fn closing() -> Self {
        Self::new(|_| Ok(()))
    }

    /// One that never answers while it is ill.
    fn hanging() -> Self {
        Self::new(Conn::wait_gone)
    }

    fn set_ill(&self, is_ill: bool) {
        self.is_ill.store(is_ill, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Asks so many times, one after the other, on each of so many connections at once. Returns how many were not
/// answered with 200.
fn failed_of(gateway: &Gateway, connections: usize, times: usize, request: &str) -> usize {
    let ask_all = || {
        let mut client = gateway.connect();
        let answers = (0..times).map(|_| client.ask(request).status());
        answers.filter(|it| *it != 200).count()
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|_| scope.spawn(ask_all)).collect();
        clients.into_iter().map(|it| it.join().unwrap()).sum()
    })
}

fn outs(gateway: &Gateway) -> usize {
    gateway.stderr.count(" peer-out ")
}

fn backs(gateway: &Gateway) -> usize {
    gateway.stderr.count(" peer-back ")
}

/// Asks until `cond` holds.
#[track_caller]
fn ask_until(gateway: &Gateway, what: &str, request: &str, cond: impl Fn() -> bool) {
    let mut client = gateway.connect();
    wait_until(what, 2 * DEADLINE, || {
        client.ask(request);
        cond()
    });
}

/// Four peers of which one hangs and one refuses.
fn with_hung_and_refusing() -> (Gateway, [Origin; 2], Origin, RefusingPeer) {
    let good = [Origin::saying(ok("good")), Origin::saying(ok("good"))];
    let (hung, refusing) = (Origin::mute(), RefusingPeer::new());
    let gateway = Setup::new()
        .set("gateway.workers", WORKERS)
        .set("upstream.read_timeout", "500ms")
        .lists(&[], &[], &[&good[0], &hung, &good[1], &refusing])
        .start();
    (gateway, good, hung, refusing)
}

#[test]
fn of_four_peers_one_hangs_and_one_refuses_and_no_get_fails() {
    let (gateway, _good, hung, _refusing) = with_hung_and_refusing();
    let begun = Instant::now();
    assert_eq!(failed_of(&gateway, 32, 30, GET), 0);
    // Each connection has met the hung one at most once.
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    let heads = hung.seen(|it| it.heads.len());
    assert!(heads <= 32 + 1, "{heads}");
    assert_eq!(outs(&gateway), 2);
}

#[test]
fn of_four_peers_one_hangs_and_one_refuses_and_few_posts_fail() {
    assert_few_fail(POST);
}

/// It could be sent twice, but not after `read_timeout`.
#[test]
fn of_four_peers_one_hangs_and_one_refuses_and_as_few_deletes_fail() {
    assert_few_fail(DELETE);
}

#[track_caller]
fn assert_few_fail(request: &str) {
    let (gateway, _good, hung, _refusing) = with_hung_and_refusing();
    let failed = failed_of(&gateway, 32, 30, request);
    let lines = gateway.wait_for_access_lines(32 * 30);
    let of_failed = lines.iter().filter(|it| !it.has("status=200"));
    let of_failed: Vec<_> = of_failed.map(|it| &it.raw).collect();
    assert!(failed <= MAX_FAILS * WORKERS, "{of_failed:#?}");
    let heads = hung.seen(|it| it.heads.len());
    assert_eq!(heads, failed, "each was executed once, and none again");
}

/// Where servers never go out, they are not kept from requests in other ways either.
#[test]
fn without_max_fails_a_peer_that_failed_before_its_first_answer_gets_posts_all_the_same() {
    let (late, good) = (Patient::closing(), Origin::saying(ok("good")));
    late.set_ill(true);
    let gateway = Setup::new()
        .set("upstream.max_fails", 0)
        .lists(&[], &[], &[&late, &good])
        .start();
    ask_until(&gateway, "it fails", POST, || late.asked() > 0);
    late.set_ill(false);
    let asked = late.asked();
    ask_until(&gateway, "it is asked again", POST, || late.asked() > asked);
}

#[test]
fn what_hangs_at_a_peer_that_goes_out_is_taken_up_by_the_others_however_much_it_is() {
    let (hung, good) = (Patient::hanging(), Origin::saying(ok("good")));
    let gateway = Setup::new()
        .set("gateway.workers", WORKERS)
        .set("upstream.read_timeout", "3s")
        .set("upstream.retry_budget", 0)
        .lists(&[], &[], &[&hung, &good])
        .start();
    hung.set_ill(true);
    assert_eq!(failed_of(&gateway, 200, 3, GET), 0);
    assert!(hung.asked() > 60, "{}", hung.asked());
}

#[test]
fn a_peer_that_resets_one_of_three_fails_no_get() {
    let count = AtomicUsize::new(0);
    let resetting = Origin::scripted(move |conn| {
        while conn.request()?.is_some() {
            match count.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => {
                    conn.reset_at_end();
                    return Ok(());
                }
                _ => conn.send(ok("fine"))?,
            }
        }
        Ok(())
    });
    let good = [Origin::saying(ok("good")), Origin::saying(ok("good"))];
    let gateway = Setup::new()
        .lists(&[], &[], &[&resetting, &good[0], &good[1]])
        .start();
    assert_eq!(failed_of(&gateway, 8, 100, GET), 0);
    let asked = resetting.seen(|it| it.requests.len());
    // By chance it may go out.
    assert!(asked > 2, "{asked}");
}

/// At most half of them are left alone, and the others are asked all the same.
#[test]
fn where_one_of_ten_is_good_a_second_attempt_finds_it() {
    let bad: Vec<_> = (0..9).map(|_| Patient::closing()).collect();
    let good = Origin::saying(ok("good"));
    let mut peers: Vec<&dyn Display> = vec![&good];
    for peer in &bad {
        peer.set_ill(true);
        peers.push(peer);
    }
    let gateway = Setup::new()
        .set("gateway.workers", WORKERS)
        .set("upstream.retry_budget", 1000)
        .set("upstream.fail_timeout", "1m")
        .lists(&[], &[], &peers)
        .start();
    ask_until(&gateway, "all bad ones are out", GET, || {
        outs(&gateway) == 9
    });
    let asked = || bad.iter().map(Patient::asked).sum::<usize>();
    let before = asked();
    assert_eq!(failed_of(&gateway, 16, 100, GET), 0);
    assert!(asked() > before, "some are asked all the same");
}

#[test]
fn a_flapping_peer_goes_out_and_comes_back_and_no_get_fails() {
    let (flapping, good) = (Patient::closing(), Origin::saying(ok("good")));
    let gateway = Setup::new()
        .set("upstream.fail_timeout", "100ms")
        .set("upstream.slow_start", "off")
        .lists(&[], &[], &[&flapping, &good])
        .start();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut failed = 0;
            while !is_over.load(Ordering::SeqCst) {
                failed += failed_of(&gateway, 4, 20, GET);
            }
            failed
        });
        for round in 1..=3 {
            flapping.set_ill(true);
            wait_until("it is out", DEADLINE, || outs(&gateway) >= round);
            flapping.set_ill(false);
            wait_until("it is back", DEADLINE, || backs(&gateway) >= round);
        }
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(asking.join().unwrap(), 0);
    });
    let line = gateway.wait_for_log(" peer-out ");
    let expected = format!("pool=prod peer={flapping} why=closed-early for=0.1s times=1");
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn a_peer_that_cuts_its_responses_short_goes_out_though_each_has_a_head() {
    let cutting = Patient::new(|conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun")?;
        conn.reset_at_end();
        Ok(())
    });
    let good = Origin::saying(ok("good"));
    let gateway = Setup::new().lists(&[], &[], &[&cutting, &good]).start();
    cutting.set_ill(true);
    for _ in 0..60 {
        let mut client = gateway.connect();
        client.send(GET);
        // Either its begin and the end, or that it is cut before it has begun.
        let _ = client.try_response_to("GET");
    }
    gateway.wait_for_log("why=response-cut");
    assert_eq!(cutting.asked(), 5 * MAX_FAILS, "each counts a fifth");
    gateway.wait_for_access("status=200 error=response-cut close=response-cut");
}

/// Nobody can tell where such a response ends, so it is none, and its head is no answer.
#[test]
fn a_peer_whose_responses_are_ambiguous_goes_out_after_as_few_as_any_other() {
    let ambiguous = Patient::new(|conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi")
    });
    let good = Origin::saying(ok("good"));
    let gateway = Setup::new()
        .set("upstream.fail_timeout", "1s")
        .lists(&[], &[], &[&ambiguous, &good])
        .start();
    ambiguous.set_ill(true);
    ask_until(&gateway, "it is out", GET, || outs(&gateway) == 1);
    assert_eq!(ambiguous.asked(), MAX_FAILS);
    gateway.wait_for_log("why=bad-response-framing");
    ask_until(&gateway, "a trial has failed", GET, || outs(&gateway) == 2);
    assert_eq!((ambiguous.asked(), backs(&gateway)), (MAX_FAILS + 1, 0));
}

/// Each in its own words, when another peer has answered the same request.
#[test]
fn whatever_a_peer_does_wrong_puts_it_out_by_its_name() {
    let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(40_000));
    let (deaf, refusing, mute) = (DeafPeer::new(), RefusingPeer::new(), Origin::mute());
    let closing = Patient::closing();
    closing.set_ill(true);
    let resetting = Origin::scripted(|conn| {
        conn.request()?;
        conn.reset_at_end();
        Ok(())
    });
    let saying = [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        &large,
    ]
    .map(Origin::saying);
    let table: [(&dyn Display, &str); 9] = [
        (&deaf, "connect-timeout"),
        (&refusing, "connect-refused"),
        (&mute, "read-timeout"),
        (&closing, "closed-early"),
        (&resetting, "closed-early"),
        (&saying[0], "bad-response-head"),
        (&saying[1], "bad-response-framing"),
        (&saying[2], "unexpected-upgrade"),
        (&saying[3], "response-head-too-large"),
    ];
    for (bad, why) in table {
        let good = Origin::saying(ok("good"));
        let gateway = Setup::new()
            .set("upstream.connect_timeout", "300ms")
            .set("upstream.read_timeout", "300ms")
            .lists(&[], &[], &[&bad, &good])
            .start();
        let mut client = gateway.connect();
        for _ in 0..40 {
            assert_eq!(client.ask(GET).text(), "good", "{why}");
        }
        gateway.wait_for_log(&format!("peer-out pool=prod peer={bad} why={why} "));
        let counted = format!("graygate_attempts_total{{pool=\"prod\",outcome=\"{why}\"}}");
        assert_eq!(gateway.metric(&counted), MAX_FAILS as f64, "{why}");
    }
}

/// What makes any server close at once.
const POISON: &str = "GET /poison HTTP/1.1\r\nHost: a\r\n\r\n";

/// An origin that closes when it is asked for [`POISON`], and answers all else.
fn poisoned() -> Origin {
    Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            if request.head.raw.starts_with(b"GET /poison ") {
                return Ok(());
            }
            conn.send(ok("fine"))?;
        }
        Ok(())
    })
}

#[test]
fn what_fails_at_every_peer_because_of_what_it_asks_for_puts_none_out() {
    let peers = [poisoned(), poisoned(), poisoned()];
    let gateway = Setup::new()
        .lists(&[], &[], &[&peers[0], &peers[1], &peers[2]])
        .start();
    let mut client = gateway.connect();
    // With retries first, which are soon used up.
    for _ in 0..100 {
        assert_eq!(client.ask(POISON).status(), 502);
        assert_eq!(client.ask(GET).status(), 200);
    }
    assert!(gateway.metric("graygate_retries_denied_total{pool=\"prod\"}") > 0.0);
    for _ in 0..4 {
        assert_eq!(client.ask(POISON).status(), 502);
    }
    assert_eq!(outs(&gateway), 0);
    // They are counted as what they are, all the same: on kept connections, a close says nothing at all.
    let poison = |it: &Origin| {
        it.seen(|it| {
            it.requests
                .iter()
                .filter(|it| it.head.raw.starts_with(b"GET /poison "))
                .count()
        })
    };
    for peer in &peers {
        let shown = peer_on(&gateway.peers(), "prod", peer);
        let count = |kind: &str| usize::try_from(shown[kind].as_u64().unwrap()).unwrap();
        assert_eq!(shown["failures"]["closed-early"], shown["failed"]);
        assert_eq!(
            count("failed") + count("abandoned"),
            poison(peer),
            "{shown}"
        );
    }
}

#[test]
fn a_pool_that_answers_nothing_goes_out_as_far_as_it_may() {
    let ill: Vec<_> = (0..4).map(|_| Patient::closing()).collect();
    ill.iter().for_each(|it| it.set_ill(true));
    let gateway = Setup::new()
        .lists(&[], &[], &[&ill[0], &ill[1], &ill[2], &ill[3]])
        .start();
    ask_until(&gateway, "half of prod is out", GET, || outs(&gateway) == 2);
}

#[test]
fn of_pre_that_answers_nothing_each_goes_out_since_prod_has_answered() {
    let ill = [Patient::closing(), Patient::closing()];
    ill.iter().for_each(|it| it.set_ill(true));
    let prod = Origin::named("prod");
    let gateway = Setup::new()
        .lists(&["127.0.0.5"], &[&ill[0], &ill[1]], &[&prod])
        .start();
    let mut client = gateway.connect_from("127.0.0.5");
    for _ in 0..10 {
        assert_eq!(client.ask(GET).text(), "prod");
    }
    wait_until("both are out", DEADLINE, || outs(&gateway) == 2);
    assert_eq!(ill.iter().map(Patient::asked).sum::<usize>(), 2 * MAX_FAILS);
}

#[test]
fn statuses_are_failures_where_that_is_set_and_are_answers_all_the_same() {
    let busy = Patient::new(|conn| {
        conn.send("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
    });
    let good = Origin::saying(ok("good"));
    for (statuses, goes_out) in [("502, 503, 504", true), ("", false)] {
        let gateway = Setup::new()
            .set("upstream.fail_statuses", statuses)
            .lists(&[], &[], &[&busy, &good])
            .start();
        busy.set_ill(true);
        let mut answers = Vec::new();
        for _ in 0..60 {
            answers.push(gateway.get("127.0.0.1", "/").status());
        }
        let busy = answers.iter().filter(|it| **it == 503).count();
        match goes_out {
            true => {
                assert_eq!(busy, MAX_FAILS);
                gateway.wait_for_log("why=fail-status");
            }
            false => {
                assert!(busy > MAX_FAILS, "{busy}");
                assert_eq!(outs(&gateway), 0);
            }
        }
    }
}

/// It answers in between, so that it never fails as often in a row as `max_fails`.
#[test]
fn a_peer_of_which_most_requests_fail_goes_out_and_one_of_which_fewer_do_does_not() {
    for (of_three, goes_out) in [(2, true), (1, false)] {
        let count = AtomicUsize::new(0);
        let failing = Origin::scripted(move |conn| {
            conn.request()?;
            // Not on a kept connection, whose end would say nothing.
            match count.fetch_add(1, Ordering::SeqCst) % 3 < of_three {
                true => Ok(()),
                false => conn.send("HTTP/1.1 204 Fine\r\nConnection: close\r\n\r\n"),
            }
        });
        let good = Origin::saying("HTTP/1.1 204 Fine\r\n\r\n");
        let gateway = Setup::new().lists(&[], &[], &[&failing, &good]).start();
        let mut client = gateway.connect();
        for _ in 0..120 {
            assert_eq!(client.ask(GET).status(), 204);
        }
        let asked = failing.seen(|it| it.requests.len());
        match goes_out {
            // Twenty outcomes are enough, and it is the failed one of them that tells.
            true => {
                assert!((20..=22).contains(&asked), "{asked}");
                assert_eq!(outs(&gateway), 1);
            }
            false => {
                assert!(asked > 30, "{asked}");
                assert_eq!(outs(&gateway), 0);
            }
        }
    }
}

#[test]
fn so_many_of_a_pool_are_left_alone_as_max_out_says() {
    let ill: Vec<_> = (0..4).map(|_| Patient::closing()).collect();
    ill.iter().for_each(|it| it.set_ill(true));
    let good = Origin::saying(ok("good"));
    for (max_out, alone) in [(20, 1), (50, 2), (100, 4)] {
        let gateway = Setup::new()
            .set("upstream.max_out", max_out)
            .set("upstream.fail_timeout", "1h")
            .lists(&[], &[], &[&ill[0], &ill[1], &ill[2], &ill[3], &good])
            .start();
        ask_until(&gateway, "all are out", GET, || outs(&gateway) == 4);
        let before: Vec<_> = ill.iter().map(Patient::asked).collect();
        // Some fail: tried on three that are ill.
        failed_of(&gateway, 4, 100, GET);
        let asked = ill.iter().map(Patient::asked);
        let left_alone = asked.zip(before).filter(|(now, before)| now == before);
        assert_eq!(left_alone.count(), alone, "{max_out}");
    }
}

#[test]
fn the_last_peer_is_never_out_and_is_asked_without_a_pause() {
    let only = Patient::closing();
    let gateway = Setup::new()
        .set("upstream.fail_timeout", "1h")
        .lists(&[], &[], &[&only])
        .start();
    only.set_ill(true);
    for _ in 0..5 {
        assert_eq!(gateway.get("127.0.0.1", "/").status(), 502);
    }
    assert_eq!(only.asked(), 5);
    gateway.wait_for_log(" peer-out pool=prod ");
    only.set_ill(false);
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
}

/// Puts `peer` out, which is one of two.
#[track_caller]
fn put_out(gateway: &Gateway, peer: &Patient) {
    peer.set_ill(true);
    ask_until(gateway, "it is out", GET, || outs(gateway) == 1);
}

#[test]
fn one_request_of_all_workers_is_the_trial() {
    let (hung, good) = (Patient::hanging(), Origin::saying(ok("good")));
    let gateway = Setup::new()
        .set("gateway.workers", 4)
        .set("upstream.read_timeout", "500ms")
        .set("upstream.fail_timeout", "1s")
        .lists(&[], &[], &[&hung, &good])
        .start();
    hung.set_ill(true);
    assert_eq!(failed_of(&gateway, 16, 10, GET), 0);
    assert_eq!(outs(&gateway), 1);
    let before = hung.asked();
    let begun = Instant::now();
    let times = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = gateway.connect();
                // Its trial hangs, fails, and puts it out for twice as long.
                while outs(&gateway) < 2 && begun.elapsed() < DEADLINE {
                    assert_eq!(client.ask(GET).status(), 200);
                    times.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(times.load(Ordering::SeqCst) > 100);
    assert_eq!(hung.asked() - before, 1);
    let line = wait_for("a second line", || {
        let all = gateway.stderr.all();
        all.into_iter()
            .filter(|it| it.contains(" peer-out "))
            .nth(1)
    });
    assert!(
        line.contains(" for=2.") && line.contains("times=2"),
        "{line}"
    );
}

#[test]
fn a_client_that_leaves_during_a_trial_leaves_it_to_the_next_request() {
    let (hung, good) = (Patient::hanging(), Origin::saying(ok("good")));
    let gateway = Setup::new()
        .set("upstream.fail_timeout", "300ms")
        .lists(&[], &[], &[&hung, &good])
        .set("upstream.read_timeout", "300ms")
        .start();
    put_out(&gateway, &hung);
    let before = hung.asked();
    let mut trying = None;
    wait_until("a trial", DEADLINE, || {
        let mut client = gateway.connect();
        client.send(GET);
        let answer = client.glance(Duration::from_millis(100));
        trying = answer.is_none().then_some(client);
        trying.is_some()
    });
    hung.set_ill(false);
    trying.unwrap().reset();
    ask_until(&gateway, "it is back", GET, || backs(&gateway) == 1);
    assert_eq!(outs(&gateway), 1, "the client was at fault");
    assert!(hung.asked() >= before + 2);
}

/// Whatever it was that all of them had in common is over for all of them.
#[test]
fn after_an_outage_of_all_servers_the_first_answers_bring_all_of_them_back() {
    let peers: Vec<_> = (0..4).map(|_| Patient::closing()).collect();
    peers.iter().for_each(|it| it.set_ill(true));
    let entries: Vec<&dyn Display> = peers.iter().map(|it| it as &dyn Display).collect();
    let mut gateway = Setup::new()
        .set("upstream.fail_timeout", "1h")
        .lists(&[], &[], &entries)
        .start();
    ask_until(&gateway, "all are out", POST, || outs(&gateway) == 4);
    // They have been out for long, and stay out for an hour.
    gateway.edit_ini(|it| it.set("upstream.fail_timeout", "100ms"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_metric("graygate_reloads_total{outcome=\"ok\"}", 1.0);
    peers.iter().for_each(|it| it.set_ill(false));
    ask_until(&gateway, "all are back", GET, || backs(&gateway) == 4);
}

#[test]
fn a_service_of_posts_only_gets_its_peer_back_too() {
    let (ill, good) = (Patient::closing(), Origin::saying(ok("good")));
    let gateway = Setup::new()
        .set("upstream.fail_timeout", "200ms")
        .lists(&[], &[], &[&ill, &good])
        .start();
    ill.set_ill(true);
    ask_until(&gateway, "it is out", POST, || outs(&gateway) == 1);
    ill.set_ill(false);
    let begun = Instant::now();
    // Six times as long as with what can be sent again, and a minute at most.
    ask_until(&gateway, "it is back", POST, || backs(&gateway) == 1);
    assert!(begun.elapsed() > Duration::from_secs(1), "not risked early");
}

#[test]
fn a_peer_that_is_back_gets_a_tenth_of_its_share_and_more_with_time() {
    let (ill, good) = (Patient::closing(), Patient::closing());
    let gateway = Setup::new()
        .set("upstream.fail_timeout", "200ms")
        .set("upstream.slow_start", "4s")
        .lists(&[], &[], &[&ill, &good])
        .start();
    put_out(&gateway, &ill);
    ill.set_ill(false);
    ask_until(&gateway, "it is back", GET, || backs(&gateway) == 1);
    let begun = Instant::now();
    let mut client = gateway.connect();
    let mut share_of = |times: usize| {
        let (before, before_good) = (ill.asked(), good.asked());
        (0..times).for_each(|_| assert_eq!(client.ask(GET).status(), 200));
        let (ill, good) = (ill.asked() - before, good.asked() - before_good);
        assert_eq!(ill + good, times);
        ill as f64 / times as f64
    };
    let early = share_of(200);
    if begun.elapsed() < Duration::from_secs(1) {
        // At a quarter of its time, of the shares 0.25 and 1.
        assert!(early < 0.3, "{early}");
    }
    wait_until("half of the time is over", DEADLINE, || {
        begun.elapsed() > Duration::from_millis(2400)
    });
    let between = share_of(200);
    if begun.elapsed() < Duration::from_millis(3200) {
        // Of the shares 0.6 to 0.8 and 1.
        assert!((0.25..0.48).contains(&between), "{between}");
    }
    wait_until("it has its share", DEADLINE, || {
        begun.elapsed() > Duration::from_millis(4300)
    });
    let late = share_of(400);
    assert!((late - 0.5).abs() < 0.15, "{late}");
}

#[test]
fn a_pool_that_fails_is_not_asked_three_times_over_and_the_denied_retry_is_named() {
    let ill: Vec<_> = (0..3).map(|_| Patient::closing()).collect();
    ill.iter().for_each(|it| it.set_ill(true));
    let gateway = Setup::new()
        .lists(&[], &[], &[&ill[0], &ill[1], &ill[2]])
        .start();
    const TIMES: usize = 200;
    let mut client = gateway.connect();
    for _ in 0..TIMES {
        assert_eq!(client.ask(GET).status(), 502);
    }
    let asked: usize = ill.iter().map(Patient::asked).sum();
    // A fifth of the requests, three a second of ten, and what has put each peer out.
    let most = TIMES + TIMES / 5 + 30 + ill.len();
    assert!(asked <= most, "{asked}");
    gateway.wait_for_access("status=502 attempts=1 error=closed-early denied=retry-budget");
    let denied = gateway.metric("graygate_retries_denied_total{pool=\"prod\"}");
    assert!(denied >= (TIMES - TIMES / 5 - 30) as f64, "{denied}");
}

/// One at which others have just waited in vain is accused until another one has answered these; nobody else
/// goes there meanwhile.
#[test]
fn while_a_peer_is_accused_requests_go_to_others() {
    const REQUESTS: usize = 12;
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = Arc::clone(&is_slow);
    let good = Origin::scripted(move |conn| {
        while conn.request()?.is_some() {
            if slow.load(Ordering::SeqCst) {
                conn.wait_for_release()?;
            }
            conn.send(ok("good"))?;
        }
        Ok(())
    });
    let hung = Origin::mute();
    let gateway = Setup::new()
        .set("upstream.read_timeout", "2s")
        .set("upstream.max_fails", 1)
        .lists(&[], &[], &[&hung, &good])
        .start();
    let at = |origin: &Origin| origin.seen(|it| it.requests.len());
    let ask = || -> Vec<Client> {
        let before = at(&hung) + at(&good);
        let mut clients: Vec<Client> = (0..REQUESTS).map(|_| gateway.connect()).collect();
        clients.iter_mut().for_each(|it| it.send(GET));
        wait_until("all have come", DEADLINE, || {
            at(&hung) + at(&good) == before + REQUESTS
        });
        clients
    };
    let first = ask();
    let waiting = at(&hung);
    is_slow.store(true, Ordering::SeqCst);
    good.wait("what has waited in vain", |it| {
        it.requests.len() == REQUESTS
    });
    let second = ask();
    assert_eq!(at(&hung), waiting);
    good.release();
    for mut client in first.into_iter().chain(second) {
        assert_eq!(client.response().text(), "good");
    }
}

/// What others wait for in vain just now is not tried as well.
#[test]
fn where_all_of_pre_hangs_a_request_that_has_met_one_of_them_goes_to_prod() {
    const REQUESTS: usize = 24;
    let (hung, prod) = ([Origin::mute(), Origin::mute()], Origin::named("prod"));
    let gateway = Setup::new()
        .set("upstream.read_timeout", "500ms")
        .set("upstream.max_fails", 1)
        .lists(&["127.0.0.5"], &[&hung[0], &hung[1]], &[&prod])
        .start();
    let mut clients: Vec<Client> = (0..REQUESTS)
        .map(|_| gateway.connect_from("127.0.0.5"))
        .collect();
    clients.iter_mut().for_each(|it| it.send(GET));
    for client in &mut clients {
        assert_eq!(client.response().text(), "prod");
    }
    let lines = gateway.wait_for_access_lines(REQUESTS);
    // The first ones cannot know.
    let of_both = lines.iter().filter(|it| it.has("attempts=3")).count();
    assert!(of_both <= REQUESTS / 2, "{of_both}");
}

#[test]
fn all_of_pre_refuses_and_prod_answers_at_once() {
    let dead = [RefusingPeer::new(), RefusingPeer::new()];
    let prod = Origin::named("prod");
    let gateway = Setup::new()
        .set("upstream.fail_timeout", "1h")
        .lists(&["127.0.0.5"], &[&dead[0], &dead[1]], &[&prod])
        .start();
    let mut client = gateway.connect_from("127.0.0.5");
    for _ in 0..20 {
        assert_eq!(client.ask(GET).text(), "prod");
    }
    let out = "graygate_fallbacks_total{reason=\"pre-out\"}";
    let exhausted = gateway.metric("graygate_fallbacks_total{reason=\"pre-exhausted\"}");
    // Three failures of each, of which a request meets one or both.
    assert!((3.0..=6.0).contains(&exhausted), "{exhausted}");
    assert_eq!(gateway.metric(out), 20.0 - exhausted);
    let line = gateway.wait_for_access("reason=pre-out");
    assert!(line.has("pool=prod attempts=1 status=200"), "{}", line.raw);
}

/// A client that has connected and is asked for nothing counts as one that stays.
#[test]
fn what_a_client_causes_is_no_failure_of_the_peer() {
    let only = Patient::hanging();
    let gateway = Setup::new()
        .set("gateway.body_timeout", "200ms")
        .lists(&[], &[], &[&only])
        .start();
    only.set_ill(true);
    for number in 1..=4 {
        // It leaves while its answer is awaited.
        let mut client = gateway.connect();
        client.send(GET);
        wait_until("it is asked", DEADLINE, || only.asked() == number);
        client.reset();
    }
    for _ in 0..4 {
        // Its body does not come.
        let mut client = gateway.connect();
        let response = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(response.status(), 408);
    }
    // It does not read its answer.
    let flood = Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")?;
        conn.send(vec![b'x'; 50_000_000])
    });
    let slow = Setup::serving(&flood)
        .set("gateway.send_timeout", "200ms")
        .start();
    for _ in 0..4 {
        let mut client = Client::with_small_window("127.0.0.1", slow.addr(), 4096);
        client.send(GET);
        wait_until("it is cut", DEADLINE, || {
            client.wire.stream.take_error().unwrap().is_some()
        });
    }
    assert_eq!((outs(&gateway), outs(&slow)), (0, 0));
}
