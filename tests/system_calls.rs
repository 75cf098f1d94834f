//! The system calls of a request in the steady state, as the kernel sees them: the real program, traced
//! by strace on its workers' threads.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // Clippy knows tests, but not their helpers.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::{CLIENT, Client, DEADLINE, Found, Gateway, Lines, RELEASE, Setup, Traffic};

/// Requests that are traced, on each connection.
const COUNT: usize = 300;

/// Requests before that, so that all is there that is kept.
const WARM_UP: usize = 20;

/// What the tracing itself costs, at its begin and at its end: it cuts the workers' waits, which they
/// report in the error log, and that wakes its writer.
const TRACING: usize = 16;

/// System calls by their names.
#[derive(Debug, Default)]
struct Calls(BTreeMap<String, usize>);

impl Calls {
    fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// How often a worker's clock has ticked: nobody else reads by `read`. A tick is for all
    /// connections of the worker, and comes with the time and not with requests.
    fn ticks(&self) -> usize {
        self.of("read")
    }

    fn all(&self) -> usize {
        self.0.values().sum()
    }

    /// Checks that there were at most `most` calls of this name, besides `beside`.
    #[track_caller]
    fn check(&self, what: &str, name: &str, most: usize, beside: usize) {
        let count = self.of(name);
        assert!(count <= most + beside, "{what}: {count} × {name}: {self:?}");
    }
}

/// A trace under way of the workers of a gateway.
struct Trace<'a> {
    gateway: &'a Gateway,
    strace: Child,
}

impl<'a> Trace<'a> {
    /// Waits until it has begun.
    #[track_caller]
    fn begin(gateway: &'a Gateway) -> Self {
        let mut command = Command::new("strace");
        // Without names of what is read and written.
        command.args(["-s", "0", "-o"]).arg(gateway.path("trace"));
        let threads = worker_threads(gateway);
        for thread in &threads {
            command.args(["-p", thread]);
        }
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut strace = command.spawn().unwrap_or_else(|error| {
            panic!("strace cannot be started, which scripts/test would have installed: {error}")
        });
        let said = Lines::of(strace.stderr.take().unwrap());
        for thread in &threads {
            let attached = said.wait_for(&format!("Process {thread} attached"), DEADLINE);
            assert!(matches!(attached, Found::Line(_)), "{:?}", said.all());
        }
        Self { gateway, strace }
    }

    /// What was called since.
    #[track_caller]
    fn end(mut self) -> Calls {
        kill(
            Pid::from_raw(self.strace.id().cast_signed()),
            Signal::SIGINT,
        )
        .unwrap();
        self.strace.wait().unwrap();
        let text = fs::read_to_string(self.gateway.path("trace")).unwrap();
        let mut calls = Calls::default();
        for name in text.lines().filter_map(name_in) {
            *calls.0.entry(name.to_owned()).or_default() += 1;
        }
        calls
    }
}

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// The name of the call that a line of the trace is of.
fn name_in(line: &str) -> Option<&str> {
    // The thread's number comes first.
    let (_, call) = line.split_once(' ')?;
    let call = call.trim_start();
    // When another thread calls meanwhile, a call has two lines, and the second one says all.
    if call.ends_with("<unfinished ...>") {
        return None;
    }
    let name = match call.strip_prefix("<... ") {
        Some(resumed) => resumed.split(' ').next()?,
        None => call.split_once('(')?.0,
    };
    Some(if call.contains("MSG_PEEK") {
        "peek"
    } else {
        name
    })
}

/// The threads of its workers, as the kernel numbers them.
#[track_caller]
fn worker_threads(gateway: &Gateway) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let is_worker = |task: &std::path::PathBuf| {
        // A thread may end while this looks.
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        name.starts_with("worker-")
    };
    let workers = tasks.filter(is_worker);
    let number = |task: std::path::PathBuf| task.file_name().unwrap().to_str().unwrap().to_owned();
    workers.map(number).collect()
}

/// A gateway with a release under way, for which each request counts, and its origin.
fn start(access_log: &str) -> (Gateway, support::Origin) {
    let origin = Traffic::origin();
    let gateway = Setup::new()
        .lists(&[RELEASE], &[&origin], &[&origin])
        .set("verdict.client", CLIENT)
        .set("log.access", access_log)
        .start();
    (gateway, origin)
}

/// Traces [`COUNT`] requests of each kind on one connection.
#[track_caller]
fn trace_each_kind(check: impl Fn(&str, &Calls)) {
    let (gateway, _origin) = start("off");
    let mut client = gateway.connect();
    for traffic in Traffic::kinds().into_iter().chain([Traffic::failing()]) {
        traffic.ask_as_others(&mut client, WARM_UP);
        let trace = Trace::begin(&gateway);
        traffic.ask_as_others(&mut client, COUNT);
        let calls = trace.end();
        println!("{}: {COUNT} requests, {calls:?}", traffic.name);
        check(traffic.name, &calls);
    }
}

#[test]
fn a_request_takes_a_wait_a_read_and_a_write_on_each_side_and_a_look_at_the_kept_connection() {
    trace_each_kind(|what, calls| {
        let check = |name, each, beside| calls.check(what, name, each * COUNT, beside);
        check("epoll_wait", 2, calls.ticks() + TRACING);
        check("recvfrom", 2, TRACING);
        check("sendto", 2, TRACING);
        // Has anything come on the kept connection?
        check("peek", 1, TRACING);
        let known = ["epoll_wait", "recvfrom", "sendto", "peek", "read"];
        let others = calls.all() - known.map(|it| calls.of(it)).iter().sum::<usize>();
        assert!(others <= TRACING, "{what}: {others} others: {calls:?}");
    });
}

#[test]
fn a_request_takes_seven_system_calls() {
    trace_each_kind(|what, calls| {
        let count = calls.all() - calls.ticks();
        let most = 7 * COUNT + calls.ticks() + TRACING;
        assert!(count <= most, "{what}: {count}: {calls:?}");
    });
}

/// Asks on several connections at once, on both workers; returns what was called meanwhile.
#[track_caller]
fn trace_several_connections(gateway: &Gateway) -> Calls {
    let kinds = Traffic::kinds();
    // Two of each kind.
    let mut clients: Vec<Client> = (0..2 * kinds.len()).map(|_| gateway.connect()).collect();
    let ask = |clients: &mut [Client], count| {
        std::thread::scope(|scope| {
            for (client, traffic) in clients.iter_mut().zip(kinds.iter().cycle()) {
                scope.spawn(move || traffic.ask_as_others(client, count));
            }
        });
    };
    ask(&mut clients, WARM_UP);
    let trace = Trace::begin(gateway);
    ask(&mut clients, COUNT);
    let calls = trace.end();
    println!("{} requests, {calls:?}", clients.len() * COUNT);
    calls
}

#[test]
fn no_request_waits_for_a_lock_or_wakes_somebody_who_does() {
    let (gateway, _origin) = start("off");
    let calls = trace_several_connections(&gateway);
    calls.check("no access log", "futex", 0, TRACING);
}

#[test]
fn an_access_log_wakes_its_writer_at_a_tick_and_not_at_a_request() {
    let (gateway, _origin) = start("access.log");
    let calls = trace_several_connections(&gateway);
    // Or when there is enough for a batch.
    let batches = fs::metadata(gateway.path("access.log")).unwrap().len() / 32_768;
    let batches = usize::try_from(batches).unwrap();
    // Twice: on a busy machine a worker can find the writer's queue held by the other one, who is off the
    // processor.
    let wakes = 2 * (calls.ticks() + batches);
    calls.check("an access log", "futex", wakes, TRACING);
}
