use super::*;

use std::path::Path;

use crate::config::ServiceSettings;
use crate::lists::lists_of;
use crate::upstream::in_force::InForce;

const PEER: &str = "10.0.0.2:80";
const PROD: &str = "10.0.0.1:80";
const CLIENT: &str = "1.1.1.1";

const GRACE: Duration = Duration::from_secs(10);

/// What is in force, and the tunnels of a worker.
struct Bench {
    in_force: InForce,
    config: Config,
    recalls: Recalls,
}

impl Bench {
    fn new(lines: &str) -> Self {
        let in_force = InForce::new(1);
        in_force.set_services(&[Arc::new(ServiceSettings::default())]);
        let text = format!("[redis]\nurl = redis://h\n{lines}");
        let bench = Self {
            in_force,
            config: Config::parse(Path::new("/g.ini"), &text, None).unwrap(),
            recalls: Recalls::default(),
        };
        bench.push(&[CLIENT], &[PEER], &[PROD]);
        bench
    }

    fn push(&self, gray: &[&str], pre: &[&str], prod: &[&str]) {
        self.in_force.store(lists_of(gray, pre, prod));
    }

    fn hold(&self, fields: &str, by_proxy: bool, visitor: Option<VisitorId>) -> Held<'_> {
        let head = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let serving = self.in_force.serving();
        let request = TunnelRequest {
            head: head.into_bytes().into(),
            client: CLIENT.parse().unwrap(),
            by_proxy,
            visitor,
            peer: PEER.parse().unwrap(),
            service: serving.reference(0),
        };
        let recall = Rc::new(Recall::of_none());
        self.recalls.hold(request, recall, &serving, &self.config)
    }

    fn tick(&self, now: Instant) {
        let serving = self.in_force.serving();
        self.recalls.tick(&serving, &self.config, 0, now);
    }

    /// Ticks until every tunnel was looked at.
    fn settle(&self) {
        loop {
            self.tick(Instant::now());
            let services = self.recalls.services.borrow();
            if services.values().all(|it| it.left == 0) {
                return;
            }
        }
    }
}

fn is_ending(held: &Held<'_>) -> bool {
    // Its moment may be close to now.
    held.tunnel.ends.get().is_some() || held.tunnel.recall.is_over()
}

#[test]
fn a_tunnel_ends_where_its_client_would_be_served_by_a_prod_without_its_peer() {
    let known = "Cookie: graygate_visitor=00000000000000aa\r\n";
    let (gray, other) = (&[CLIENT][..], &["2.2.2.2"][..]);
    let (pre, prod): (&[&str], &[&str]) = (&[PEER], &[PROD]);
    let none: &[&str] = &[];
    // What was asked for, what is pushed, and whether the tunnel ends.
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str], bool);
    let table: &[Row<'_>] = &[
        ("", gray, pre, prod, false),
        ("", other, pre, prod, true),
        ("", none, pre, prod, true),
        ("", &[CLIENT, "!*"], pre, prod, true),
        ("", &["path:/ws"], pre, prod, false),
        ("", &["path:/other"], pre, prod, true),
        ("Cookie: a=1\r\n", &["cookie:a=1"], pre, prod, false),
        ("Cookie: a=1\r\n", &["cookie:a=2"], pre, prod, true),
        ("", &["* until=2000-01-01T00:00Z"], pre, prod, true),
        (known, &["percent:100:visitor"], pre, prod, false),
        // Who has no id yet is in no share by it.
        ("", &["percent:100:visitor"], pre, prod, true),
        // Promoted, by one change.
        ("", none, none, pre, false),
        ("", none, &[PROD], pre, false),
        // Nobody else could serve the client.
        ("", none, pre, none, false),
        ("", gray, none, none, false),
        // `pre` is empty, or another one.
        ("", gray, none, prod, true),
        ("", gray, &["10.0.0.3:80"], prod, false),
    ];
    for (fields, gray, pre, prod, ends) in table {
        let bench = Bench::new("");
        let held = bench.hold(fields, false, None);
        bench.push(gray, pre, prod);
        bench.settle();
        assert_eq!(
            is_ending(&held),
            *ends,
            "{fields:?} {gray:?} {pre:?} {prod:?}"
        );
        // Whoever is back where the tunnel is keeps it.
        bench.push(&[CLIENT], &[PEER], &[PROD]);
        bench.settle();
        assert!(!is_ending(&held), "{fields:?} {gray:?} {pre:?} {prod:?}");
    }
}

#[test]
fn it_is_known_who_the_client_is_since_the_answer() {
    let bench = Bench::new("");
    let id = VisitorId::of(7);
    let held = bench.hold("", false, Some(id));
    bench.push(&["percent:100:visitor"], &[PEER], &[PROD]);
    bench.settle();
    assert!(!is_ending(&held));
}

#[test]
fn a_trip_counts_for_marks_and_not_for_what_a_tester_says() {
    let lines =
        "[gray]\nfollow_mark = on\nforce_header = X-Force\n[gateway]\ntrusted_proxies = 9.9.9.9\n";
    let bench = Bench::new(lines);
    bench.push(&[], &[PEER], &[PROD]);
    let marked = bench.hold("X-Graygate-Pool: pre\r\n", true, None);
    let forced = bench.hold("X-Force: pre\r\n", false, None);
    let unbelieved = bench.hold("X-Graygate-Pool: pre\r\n", false, None);
    bench.settle();
    let ending = || [&marked, &forced, &unbelieved].map(is_ending);
    assert_eq!(ending(), [false, false, true]);
    let pools = bench.in_force.pools();
    pools.set_tripped(bench.in_force.load().version);
    bench.settle();
    assert_eq!(ending(), [true, false, true]);
    pools.set_tripped(0);
    bench.settle();
    assert_eq!(ending(), [false, false, true]);
}

#[test]
fn a_doomed_tunnel_that_is_gray_again_needs_its_peer_in_pre_to_stay() {
    let bench = Bench::new("");
    let held = bench.hold("", false, None);
    bench.push(&[], &[PEER], &[PROD]);
    bench.settle();
    assert!(is_ending(&held));
    bench.push(&[CLIENT], &["10.0.0.3:80"], &[PROD]);
    bench.settle();
    assert!(is_ending(&held));
}

#[test]
fn the_moments_are_drawn_evenly_within_the_grace_and_drawn_again_only_if_it_is_shorter() {
    const COUNT: usize = 2000;
    let mut bench = Bench::new("[gateway]\ntunnel_grace = 10s");
    {
        let held: Vec<Held<'_>> = (0..COUNT).map(|_| bench.hold("", false, None)).collect();
        let begun = Instant::now();
        bench.push(&[], &[PEER], &[PROD]);
        bench.settle();
        // Some of the first are over already.
        let left = |held: &&Held<'_>| !held.tunnel.recall.is_over();
        let end = |held: &Held<'_>| held.tunnel.ends.get().unwrap();
        let first: Vec<Instant> = held.iter().filter(left).map(end).collect();
        let latest = Instant::now() + GRACE;
        assert!(first.iter().all(|it| (begun..=latest).contains(it)));
        let mut tenths = [0; 11];
        for end in &first {
            tenths[end.duration_since(begun).as_secs() as usize] += 1;
        }
        // 200 each, 13.4 being a standard deviation.
        assert!(
            tenths[..10].iter().all(|it| (90..310).contains(it)),
            "{tenths:?}"
        );
        // Another change moves nobody's end.
        bench.push(&["2.2.2.2"], &[PEER], &[PROD]);
        bench.settle();
        let second: Vec<Instant> = held.iter().filter(left).map(end).collect();
        assert!(second.iter().all(|it| first.contains(it)));
    }
    assert!(bench.recalls.is_idle());
    assert!(bench.recalls.ending.borrow().is_empty());
    // One that is already to end, and a reload.
    bench.push(&[CLIENT], &[PEER], &[PROD]);
    let reloaded = |text: &str| {
        let text = format!("[redis]\nurl = redis://h\n[gateway]\ntunnel_grace = {text}");
        Config::parse(Path::new("/g.ini"), &text, None).unwrap()
    };
    bench.config = reloaded("24h");
    let held = bench.hold("", false, None);
    bench.push(&[], &[PEER], &[PROD]);
    bench.settle();
    assert!(is_ending(&held));
    let serving = bench.in_force.serving();
    let (short, off) = (reloaded("1ms"), reloaded("off"));
    let now = Instant::now();
    bench.recalls.tick(&serving, &off, 1, now);
    assert!(!is_ending(&held));
    bench.recalls.tick(&serving, &short, 2, now);
    let end = held.tunnel.ends.get().unwrap();
    // At once, where the grace is over by the time that it is looked at.
    assert!(end <= Instant::now().max(now + Duration::from_millis(1)));
    // Its moment comes; then it is cut.
    bench.recalls.tick(&serving, &short, 2, end);
    assert!(held.tunnel.recall.is_over());
    assert_eq!(held.tunnel.ends.get(), Some(end + LAST_WORDS));
    bench.recalls.tick(&serving, &short, 2, end + LAST_WORDS);
    assert_eq!(held.tunnel.ends.get(), None);
    assert!(bench.recalls.ending.borrow().is_empty());
}

#[test]
fn all_of_ten_thousand_tunnels_are_looked_at_in_slices_though_each_tick_brings_another_list() {
    const COUNT: usize = 10_000;
    let bench = Bench::new("");
    let fields = "Cookie: a=1; b=2; uid=4711\r\nUser-Agent: Mozilla/5.0\r\nOrigin: http://a\r\n";
    let held: Vec<Held<'_>> = (0..COUNT)
        .map(|_| bench.hold(fields, false, None))
        .collect();
    let (mut ticks, mut longest, mut all) = (0, Duration::ZERO, Duration::ZERO);
    while !held.iter().all(is_ending) {
        let text = format!("cookie:team=qa{ticks}");
        bench.push(&[&text, "percent:1:cookie:other"], &[PEER], &[PROD]);
        let begun = Instant::now();
        bench.tick(begun);
        let took = begun.elapsed();
        (longest, all) = (longest.max(took), all + took);
        ticks += 1;
        // However slow the machine: some in each tick.
        assert!(ticks <= COUNT / BETWEEN_LOOKS_AT_THE_CLOCK + 1);
    }
    bench.settle();
    let quiet = Instant::now();
    for _ in 0..1000 {
        bench.tick(Instant::now());
    }
    println!(
        "{ticks} ticks, {:?} a tunnel, the longest tick {longest:?}, one without a change {:?}",
        all / COUNT as u32,
        quiet.elapsed() / 1000
    );
}
