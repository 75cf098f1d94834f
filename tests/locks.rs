//! In the steady state no request takes a lock, not even one that is free: the real program, run by
//! callgrind, which says in which source files a worker has spent its instructions. What the compiler
//! has put in place of a call is told by the line tables.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::{Client, Gateway, Setup, Traffic};

/// Requests that are looked at, of each kind.
const COUNT: usize = 50;

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

/// Lets callgrind write down what the worker has spent so far, and begin anew: it does so where a
/// request is refused.
#[track_caller]
fn mark(mut client: Client) {
    assert_eq!(client.ask("bad\r\n\r\n").status(), 400);
    client.expect_close();
}

/// What the worker has spent before the mark of this number.
#[track_caller]
fn costs_before_mark(gateway: &Gateway, number: usize) -> Costs {
    let begin = format!("counts.{number}-");
    let files = fs::read_dir(gateway.path("")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let is_of_mark = |file: &std::path::PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with(&begin)
    };
    // Only the thread that comes to a mark is written down there.
    let files: Vec<_> = files.filter(is_of_mark).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    read_costs(&files[0])
}

#[test]
fn a_request_takes_no_lock() {
    let origin = Traffic::origin();
    let setup = Setup::new()
        .set("gateway.workers", 1)
        .set("log.access", "off")
        .set("upstream.connect_timeout", "1m")
        .set("upstream.read_timeout", "1m")
        .lists(&[], &[], &[&origin]);
    let counts = format!("--callgrind-out-file={}", setup.path("counts").display());
    let gateway = setup
        .under(&[
            "valgrind",
            "--tool=callgrind",
            "--separate-threads=yes",
            "--compress-strings=no",
            "--compress-pos=no",
            "--dump-before=graygate::http::encode::answer",
            &counts,
        ])
        .ready_within(SLOW)
        .start();
    let marks = [gateway.connect(), gateway.connect()];
    let kinds = Traffic::kinds();
    let mut clients: Vec<Client> = kinds.iter().map(|_| gateway.connect()).collect();
    let mut ask = |count| {
        std::thread::scope(|scope| {
            for (client, traffic) in clients.iter_mut().zip(&kinds) {
                scope.spawn(move || traffic.ask(client, count));
            }
        });
    };
    ask(WARM_UP);
    let [first, second] = marks;
    mark(first);
    ask(COUNT);
    mark(second);

    let spent = |costs: &Costs, is_counted: &dyn Fn(&str) -> bool| -> u64 {
        let counted = costs.iter().filter(|(file, ..)| is_counted(file));
        counted.map(|(.., cost)| cost).sum()
    };
    let requests = (COUNT * kinds.len()) as u64;
    let costs = costs_before_mark(&gateway, 2);
    let heads = spent(&costs, &|file| file.ends_with("src/http/head.rs"));
    assert!(heads > 100 * requests, "{heads} instructions for heads");
    let locks: Vec<_> = costs.iter().filter(|(file, ..)| is_of_lock(file)).collect();
    assert!(locks.is_empty(), "{requests} requests: {locks:#?}");
    // A start takes locks, so this would have seen them.
    let of_start = costs_before_mark(&gateway, 1);
    assert!(spent(&of_start, &is_of_lock) > 0, "no locks at all?");
}
