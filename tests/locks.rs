//! In the steady state no request takes a lock, not even one that is free: the real program, run by
//! callgrind, which says in which source files a worker has spent its instructions. What the compiler
//! has put in place of a call is told by the line tables.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use support::{CLIENT, Client, Gateway, RELEASE, Setup, Traffic};

/// Requests that are looked at, on each connection.
const COUNT: usize = 25;

const WORKERS: usize = 2;

/// Requests before that, so that all is there that is kept.
const WARM_UP: usize = 5;

/// Everything takes some fifty times as long.
const SLOW: Duration = Duration::from_secs(60);

/// Source files of what makes threads wait for each other, by parts of their paths: of the standard
/// library, of the C library below it, and of crates that are in use or might come to be.
const LOCKS: &[&[&str]] = &[
    &["/std/src/sys/sync/"],
    &["/std/src/sys/pal/unix/futex.rs"],
    &["/nptl/", "pthread_mutex"],
    &["/nptl/", "pthread_rwlock"],
    &["/nptl/", "pthread_cond"],
    &["/nptl/", "lowlevellock"],
    &["/may-", "/src/sync/mutex.rs"],
    &["/may-", "/src/sync/rwlock.rs"],
    &["/may-", "/src/sync/condvar.rs"],
    &["/may-", "/src/sync/semphore.rs"],
    &["/crossbeam-channel-"],
    &["/parking_lot"],
    &["/lock_api-"],
    &["/spin-"],
];

fn is_of_lock(file: &str) -> bool {
    let is_in_file = |part: &&str| file.contains(part);
    LOCKS.iter().any(|parts| parts.iter().all(is_in_file))
}

/// What one thread has spent where: (file, function, instructions).
type Costs = Vec<(String, String, u64)>;

/// Reads what callgrind has written (<https://valgrind.org/docs/manual/cl-format.html>), with names and
/// line numbers in full.
fn read_costs(path: &Path) -> Costs {
    let text = fs::read_to_string(path).unwrap();
    let (mut file, mut function) = (String::new(), String::new());
    let mut is_of_callee = false;
    let mut costs = Costs::new();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            match key {
                // The last two are of what was put in place of a call.
                "fl" | "fi" | "fe" => value.clone_into(&mut file),
                "fn" => value.clone_into(&mut function),
                // The next line is what the callee has spent, which stands there, too.
                "calls" => is_of_callee = true,
                _ => {}
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit())
            && !std::mem::take(&mut is_of_callee)
        {
            let (_, cost) = line.split_once(' ').unwrap();
            costs.push((file.clone(), function.clone(), cost.parse().unwrap()));
        }
    }
    costs
}

/// Lets callgrind write down what the connection's worker has spent so far, and begin anew: it does so
/// where a request is refused.
#[track_caller]
fn mark(mut client: Client) {
    assert_eq!(client.ask("bad\r\n\r\n").status(), 400);
    client.expect_close();
}

/// What a worker has spent before the mark of this number, and which thread that is.
#[track_caller]
fn costs_before_mark(gateway: &Gateway, number: usize) -> (String, Costs) {
    let begin = format!("counts.{number}-");
    let files = fs::read_dir(gateway.path("")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let threads = names.filter_map(|name| Some(name.strip_prefix(&begin)?.to_owned()));
    // Only the thread that comes to a mark is written down there.
    let threads: Vec<_> = threads.collect();
    assert_eq!(threads.len(), 1, "{threads:?}");
    let [thread] = <[String; 1]>::try_from(threads).unwrap();
    let costs = read_costs(&gateway.path(&format!("{begin}{thread}")));
    (thread, costs)
}

/// As [`costs_before_mark`], of marks with these numbers, one on each worker.
#[track_caller]
fn costs_before_marks(gateway: &Gateway, numbers: [usize; WORKERS]) -> Costs {
    let marks = numbers.map(|number| costs_before_mark(gateway, number));
    let threads: BTreeSet<_> = marks.iter().map(|(thread, _)| thread).collect();
    assert_eq!(threads.len(), WORKERS, "each has come to one");
    marks.into_iter().flat_map(|(_, costs)| costs).collect()
}

/// Checks that requests take no lock, with these settings of callgrind's. A release is under way, and each
/// request counts for it.
#[track_caller]
fn check_requests(access_log: &str, settings: &[&str]) {
    let origin = Traffic::origin();
    let setup = Setup::new()
        .lists(&[RELEASE], &[&origin], &[&origin])
        .set("verdict.client", CLIENT)
        .set("gateway.workers", WORKERS)
        .set("gateway.head_timeout", "1m")
        .set("log.access", access_log)
        .set("upstream.connect_timeout", "1m")
        .set("upstream.read_timeout", "1m");
    let counts = format!("--callgrind-out-file={}", setup.path("counts").display());
    let valgrind = [
        "valgrind",
        "--tool=callgrind",
        "--separate-threads=yes",
        "--compress-strings=no",
        "--compress-pos=no",
        "--dump-before=graygate::http::h1::encode::answer::answer",
        &counts,
    ];
    let gateway = setup
        .under(&[&valgrind, settings].concat())
        .ready_within(SLOW)
        .start();
    // Connections are shared out evenly, so that each worker has one of each.
    let [first, second] = [(); 2].map(|()| [(); WORKERS].map(|()| gateway.connect()));
    let kinds = Traffic::kinds().into_iter().chain([Traffic::failing()]);
    let kinds: Vec<Traffic> = kinds.collect();
    // Two of each kind.
    let mut clients: Vec<Client> = (0..2 * kinds.len()).map(|_| gateway.connect()).collect();
    let mut ask = |count| {
        std::thread::scope(|scope| {
            for (client, traffic) in clients.iter_mut().zip(kinds.iter().cycle()) {
                scope.spawn(move || traffic.ask_as_others(client, count));
            }
        });
    };
    ask(WARM_UP);
    first.into_iter().for_each(mark);
    ask(COUNT);
    second.into_iter().for_each(mark);

    let spent = |costs: &Costs, is_counted: &dyn Fn(&str) -> bool| -> u64 {
        let counted = costs.iter().filter(|(file, ..)| is_counted(file));
        counted.map(|(.., cost)| cost).sum()
    };
    let requests = (COUNT * clients.len()) as u64;
    let costs = costs_before_marks(&gateway, [3, 4]);
    let heads = spent(&costs, &|file| file.ends_with("src/http/h1/head.rs"));
    assert!(heads > 100 * requests, "{heads} instructions for heads");
    let units = spent(&costs, &|file| file.ends_with("src/upstream/units.rs"));
    assert!(units > 10 * requests, "{units} instructions for units");
    let records = spent(&costs, &|file| file.ends_with("src/logs/access.rs"));
    let least = if access_log == "off" {
        0
    } else {
        100 * requests
    };
    assert!(records >= least, "{records} instructions for records");
    let locks: Vec<_> = costs.iter().filter(|(file, ..)| is_of_lock(file)).collect();
    assert!(locks.is_empty(), "{requests} requests: {locks:#?}");
    // A start takes locks, so this would have seen them.
    let of_start = costs_before_marks(&gateway, [1, 2]);
    assert!(spent(&of_start, &is_of_lock) > 0, "no locks at all?");
}

#[test]
fn a_request_takes_no_lock() {
    check_requests("off", &[]);
}

/// What a worker does with its lines at a tick of its clock is not counted, whatever it takes: a tick
/// comes with the time and not with requests. (Nor does a batch become full here: that takes more
/// requests than there are.)
#[test]
fn a_request_that_is_logged_takes_no_lock() {
    let besides_ticks = [
        "--toggle-collect=graygate::logs::access::AccessLog::tick",
        // Else nothing is counted but ticks.
        "--collect-atstart=yes",
    ];
    check_requests("access.log", &besides_ticks);
}
