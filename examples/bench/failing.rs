//! What it costs when servers fail: the same load on a proxy whose servers hang, refuse, reset or close,
//! and beside it on others, and on the gateway with sound servers only. Failed requests are counted here
//! and not refused.
//!
//! Each run has a new instance, so that none of them knows its servers yet. Latencies are those after
//! [`LEARNS`], failed requests those of the whole run.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::accounting;
use crate::children::{Running, free_address};
use crate::figures::{Metric, Sample, Spread, spread};
use crate::load::{self, Pace, Plan};
use crate::origin::{Manner, Origin};
use crate::proxies::{Proxy, with_sbin};
use crate::scenarios::Content;
use crate::site::Site;
use crate::tables::Table;

/// Names all of [`CASES`].
pub(crate) const ALL: &str = "failing";

/// Load with which a proxy gets to know its servers.
const LEARNS: Duration = Duration::from_secs(2);

const CONNECTIONS: usize = 32;
const UPLOAD: usize = 1 << 10;

/// What stands behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Servers {
    /// Two sound ones.
    Sound,
    /// Two sound ones, one that hangs and one that refuses.
    HungAndRefusing,
    /// Two sound ones, and one that answers one of three requests with a reset.
    Resetting,
    /// Two that close connections which wait for their next request.
    Closing,
    /// Two sound ones of the old version, two of the new one that refuse, and clients for the latter.
    PreRefusing,
}

/// Whose figures stand in a row.
#[derive(Clone, Copy, Debug)]
struct Subject {
    proxy: Proxy,
    servers: Servers,
    /// It never leaves a server alone; only nginx is told so. As shipped it leaves both alone for ten
    /// seconds, and answers 502 meanwhile, where both have closed a connection that it had kept.
    never_out: bool,
}

/// The load of all its subjects.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    title: &'static str,
    content: Content,
    workers: u8,
    /// Of each run, behind [`LEARNS`], unless the command says otherwise.
    measured: Duration,
    /// Unless the command says otherwise.
    rounds: usize,
    subjects: &'static [Subject],
    targets: &'static [Target],
}

/// A bound to the figures of the first subject.
#[derive(Debug)]
enum Target {
    /// Requests a second are so many times those of this subject, at least.
    Rate(usize, f64),
    /// The 99th percentile of latencies is so many times that of this subject, at most.
    P99(usize, f64),
    /// Failed requests in a run of a minute, for each worker.
    FailedEach(u64),
    /// No more failed requests than this subject has.
    FailedAs(usize),
}

const fn of(proxy: Proxy, servers: Servers) -> Subject {
    Subject {
        proxy,
        servers,
        never_out: false,
    }
}

const FOUR: &[Subject] = &[
    of(Proxy::Graygate, Servers::HungAndRefusing),
    of(Proxy::Graygate, Servers::Sound),
    of(Proxy::Nginx, Servers::HungAndRefusing),
    of(Proxy::Haproxy, Servers::HungAndRefusing),
];
const FOUR_TARGETS: &[Target] = &[
    Target::Rate(1, 0.95),
    Target::Rate(2, 1.0),
    Target::Rate(3, 1.0),
    Target::P99(1, 1.5),
    Target::FailedEach(0),
];
const CLOSING: &[Subject] = &[
    of(Proxy::Graygate, Servers::Closing),
    Subject {
        never_out: true,
        ..of(Proxy::Nginx, Servers::Closing)
    },
    of(Proxy::Nginx, Servers::Closing),
    of(Proxy::Haproxy, Servers::Closing),
];
const MINUTE: Duration = Duration::from_secs(58);

/// All of them, in the order in which they run.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "failing-gets",
        title: "GETs, four servers of which one hangs and one refuses, 1 worker",
        content: Content::Small,
        workers: 1,
        measured: Duration::from_secs(12),
        rounds: 3,
        subjects: FOUR,
        targets: FOUR_TARGETS,
    },
    Case {
        name: "failing-gets-2",
        title: "The same with 2 workers",
        content: Content::Small,
        workers: 2,
        measured: Duration::from_secs(12),
        rounds: 3,
        subjects: FOUR,
        targets: FOUR_TARGETS,
    },
    Case {
        name: "failing-posts",
        title: "POSTs of 1 KiB, four servers of which one hangs and one refuses, 2 workers, a minute",
        content: Content::Upload(UPLOAD),
        workers: 2,
        measured: MINUTE,
        rounds: 1,
        subjects: FOUR,
        targets: &[Target::FailedEach(3)],
    },
    Case {
        name: "failing-resets",
        title: "GETs, three servers of which one answers 1 of 3 requests with a reset",
        content: Content::Small,
        workers: 2,
        measured: Duration::from_secs(20),
        rounds: 3,
        subjects: &[
            of(Proxy::Graygate, Servers::Resetting),
            of(Proxy::Nginx, Servers::Resetting),
            of(Proxy::Haproxy, Servers::Resetting),
        ],
        targets: &[Target::FailedEach(0)],
    },
    Case {
        name: "failing-closes",
        title: "GETs, servers that close kept connections at random, 100 a second, a minute",
        content: Content::Small,
        workers: 2,
        measured: MINUTE,
        rounds: 1,
        subjects: CLOSING,
        targets: &[Target::FailedEach(0)],
    },
    Case {
        name: "failing-closes-posts",
        title: "POSTs of 1 KiB, servers that close kept connections at random, 100 a second, a minute",
        content: Content::Upload(UPLOAD),
        workers: 2,
        measured: MINUTE,
        rounds: 1,
        subjects: CLOSING,
        targets: &[Target::FailedAs(1)],
    },
    Case {
        name: "failing-pre",
        title: "GETs of listed clients, all servers of the new version refuse",
        content: Content::Small,
        workers: 1,
        measured: Duration::from_secs(12),
        rounds: 3,
        subjects: &[
            of(Proxy::Graygate, Servers::PreRefusing),
            of(Proxy::Graygate, Servers::Sound),
        ],
        targets: &[Target::FailedEach(0), Target::P99(1, 2.0)],
    },
];

impl Subject {
    fn name(self) -> String {
        let name = self.proxy.name();
        match self.servers {
            Servers::Sound => format!("{name}, sound servers only"),
            _ if self.never_out => format!("{name}, max_fails=0"),
            _ => name.to_owned(),
        }
    }
}

/// The servers.
struct Failing {
    origin: Origin<6>,
    /// Nobody listens there, and nobody will: it is kept.
    refusing: [SocketAddr; 2],
    _kept: [socket2::Socket; 2],
}

impl Failing {
    fn start() -> Result<Self, String> {
        let failed = |it| format!("the servers: {it}");
        let origin = Origin::of([
            Manner::Answers,
            Manner::Answers,
            Manner::Hangs,
            Manner::Resets,
            Manner::Closes,
            Manner::Closes,
        ]);
        let [(one, kept), (other, also_kept)] = [refusing()?, refusing()?];
        Ok(Self {
            origin: origin.map_err(failed)?,
            refusing: [one, other],
            _kept: [kept, also_kept],
        })
    }

    /// Those of the new version, and of the old one.
    fn of(&self, servers: Servers) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let [a, b, hung, resetting, closing, other] = self.origin.addresses;
        let [refusing, also_refusing] = self.refusing;
        match servers {
            Servers::Sound => (vec![], vec![a, b]),
            Servers::HungAndRefusing => (vec![], vec![a, hung, b, refusing]),
            Servers::Resetting => (vec![], vec![a, resetting, b]),
            Servers::Closing => (vec![], vec![closing, other]),
            Servers::PreRefusing => (vec![refusing, also_refusing], vec![a, b]),
        }
    }
}

/// An address that is taken, and at which nobody listens.
fn refusing() -> Result<(SocketAddr, socket2::Socket), String> {
    let bind = || -> std::io::Result<_> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into())?;
        let bound = socket.local_addr()?.as_socket();
        Ok((bound.unwrap_or(any), socket))
    };
    bind().map_err(|it| format!("the servers: {it}"))
}

/// A run's figures.
struct Run {
    sample: Sample,
    failed: u64,
    /// What has failed, and how often.
    failures: String,
}

/// A case's figures: of each subject, by round.
pub(crate) struct Measured {
    case: &'static Case,
    runs: Vec<Vec<Run>>,
}

impl Case {
    /// Rounds, where so many are asked for, or none are.
    pub(crate) fn rounds(&self, asked: Option<u8>) -> usize {
        asked.map_or(self.rounds, usize::from)
    }
}

/// Runs one of them. `note` is told of each run.
pub(crate) fn run(
    case: &'static Case,
    site: &Site,
    rounds: Option<u8>,
    measured: Option<Duration>,
    interrupted: &AtomicBool,
    mut note: impl FnMut(usize, &str),
) -> Result<Measured, String> {
    let servers = Failing::start()?;
    let measured = measured.unwrap_or(case.measured);
    let mut runs: Vec<Vec<Run>> = case.subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..case.rounds(rounds) {
        for (subject, runs) in case.subjects.iter().zip(&mut runs) {
            if interrupted.load(Ordering::Relaxed) {
                return Err("interrupted".to_owned());
            }
            note(round, &subject.name());
            let running = start(*subject, case.workers, &servers, site)?;
            runs.push(load(case, &running, measured, interrupted)?);
            if !servers.origin.is_running() {
                return Err("the servers ended".to_owned());
            }
        }
    }
    Ok(Measured { case, runs })
}

fn load(
    case: &Case,
    running: &Running,
    measured: Duration,
    interrupted: &AtomicBool,
) -> Result<Run, String> {
    let request = case.content.request();
    let plan = Plan {
        address: running.address,
        request: &request,
        connections: CONNECTIONS,
        pace: Pace::Closed,
        warm_up: LEARNS,
        measured,
        endures: true,
    };
    // Asked for the first time behind the begin, when all its workers are there.
    let mut processes = Vec::new();
    let outcome = load::run(&plan, interrupted, || {
        if processes.is_empty() {
            processes = accounting::processes(running.id())?;
        }
        accounting::cpu_time(&processes)
    });
    let mut outcome = outcome.map_err(|it| format!("{it}\n{}", running.said()))?;
    // They are counted, and the figures of those that were answered stand.
    let errors = std::mem::take(&mut outcome.errors);
    let failures: Vec<String> = errors.iter().map(|(it, n)| format!("{n} × {it}")).collect();
    Ok(Run {
        sample: Sample::of(outcome),
        failed: errors.values().sum(),
        failures: failures.join(", "),
    })
}

/// Starts an instance that knows nothing of its servers.
fn start(subject: Subject, workers: u8, servers: &Failing, site: &Site) -> Result<Running, String> {
    let address = free_address()?;
    let name = format!("failing-{:?}-{}", subject.proxy, address.port());
    let (pre, prod) = servers.of(subject.servers);
    let write = |file: &str, text: &str| {
        let path = site.scratch().join(format!("{name}-{file}"));
        let written = std::fs::write(&path, text).map(|()| path);
        written.map_err(|it| format!("a configuration: {it}"))
    };
    let lists = write("lists", &lists(&pre, &prod))?;
    let lines = |line: &dyn Fn((usize, &SocketAddr)) -> String| -> String {
        let lines: Vec<String> = prod.iter().enumerate().map(line).collect();
        lines.join("\n")
    };
    let max_fails = if subject.never_out {
        " max_fails=0"
    } else {
        ""
    };
    let fill_in = |text: &str| {
        [
            ("@NAME@", name.clone()),
            ("@SCRATCH@", site.scratch().display().to_string()),
            ("@WORKERS@", workers.to_string()),
            ("@LISTEN@", address.to_string()),
            ("@LISTS@", lists.display().to_string()),
            (
                "@NGINX_SERVERS@",
                lines(&|(_, it)| format!("        server {it}{max_fails};")),
            ),
            (
                "@HAPROXY_SERVERS@",
                lines(&|(at, it)| format!("    server s{at} {it} check")),
            ),
        ]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    let command = match subject.proxy {
        Proxy::Nginx => {
            let text = fill_in(include_str!("conf/failing/nginx.conf"));
            let mut command = Command::new("nginx");
            command.arg("-c").arg(write("nginx.conf", &text)?);
            command
        }
        Proxy::Haproxy => {
            let text = fill_in(include_str!("conf/failing/haproxy.cfg"));
            let mut command = Command::new("haproxy");
            command.args(["-db", "-f"]);
            command.arg(write("haproxy.cfg", &text)?);
            command
        }
        _ => {
            let text = fill_in(include_str!("conf/failing/graygate.ini"));
            let mut command = Command::new(&site.programs.graygate);
            command.args(["run", "-c"]);
            command.arg(write("graygate.ini", &text)?);
            command
        }
    };
    let log = site.scratch().join(format!("{name}.out"));
    Running::start(with_sbin(command), address, &log)
}

/// A lists file in which the load's clients are listed, if there is a new version.
fn lists(pre: &[SocketAddr], prod: &[SocketAddr]) -> String {
    let lines = |of: &[SocketAddr]| -> String { of.iter().map(|it| format!("{it}\n")).collect() };
    let gray = if pre.is_empty() { "" } else { "127.0.0.0/8\n" };
    format!("[gray]\n{gray}[pre]\n{}[prod]\n{}", lines(pre), lines(prod))
}

impl Measured {
    /// As a headline.
    pub(crate) fn headline(&self) -> String {
        format!("{} ({})", self.case.title, self.case.name)
    }

    fn of(&self, subject: usize, metric: Metric) -> Option<Spread> {
        let runs = self.runs[subject].iter();
        spread(runs.filter_map(|it| it.sample.get(metric)))
    }

    fn failed(&self, subject: usize) -> Option<Spread> {
        spread(self.runs[subject].iter().map(|it| it.failed as f64))
    }

    /// The figures of each subject: medians of the rounds.
    pub(crate) fn figures(&self) -> Table {
        let head = [
            "proxy",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "CPU µs/req",
            "failed",
            "from",
            "to",
        ];
        let mut table = Table::new(1, head);
        for (at, subject) in self.case.subjects.iter().enumerate() {
            let median = |metric, digits: usize| {
                let value = self.of(at, metric);
                value.map_or("-".to_owned(), |it| format!("{:.digits$}", it.median))
            };
            let mut row = vec![
                subject.name(),
                median(Metric::Rate, 0),
                median(Metric::P50, 2),
                median(Metric::P99, 2),
                median(Metric::P999, 2),
                median(Metric::CpuRequest, 2),
            ];
            let failed = self.failed(at);
            row.extend(failed.map_or_else(
                || ["-", "-", "-"].map(str::to_owned),
                |it| [it.median, it.min, it.max].map(|it| format!("{it:.0}")),
            ));
            table.push(row);
        }
        table
    }

    /// What has failed, a line for each run in which something has.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (subject, runs) in self.case.subjects.iter().zip(&self.runs) {
            for (round, run) in runs.iter().enumerate().filter(|(_, it)| it.failed > 0) {
                let (name, round) = (subject.name(), round + 1);
                lines.push(format!("{name}, round {round}: {}", run.failures));
            }
        }
        lines
    }

    /// Whether the targets are met: by the medians of the rounds.
    pub(crate) fn targets(&self) -> Table {
        let mut table = Table::new(2, ["target", "verdict", "median", "from", "to"]);
        for target in self.case.targets {
            let (text, is_met, value) = self.judge(target);
            let verdict = if is_met { "met" } else { "MISSED" };
            let mut row = vec![text, verdict.to_owned()];
            row.extend([value.median, value.min, value.max].map(|it| match target {
                Target::Rate(..) | Target::P99(..) => format!("{it:.2}"),
                Target::FailedEach(_) | Target::FailedAs(_) => format!("{it:.0}"),
            }));
            table.push(row);
        }
        table
    }

    fn judge(&self, target: &Target) -> (String, bool, Spread) {
        let nothing = Spread {
            median: f64::NAN,
            min: f64::NAN,
            max: f64::NAN,
        };
        let ratio = |other: usize, metric| {
            let rounds = self.runs[0].iter().zip(&self.runs[other]);
            let ratios = rounds.filter_map(|(own, other)| {
                Some(own.sample.get(metric)? / other.sample.get(metric)?)
            });
            spread(ratios).unwrap_or(nothing)
        };
        let name = |at: usize| self.case.subjects[at].name();
        let failed = self.failed(0).unwrap_or(nothing);
        match *target {
            Target::Rate(other, least) => {
                let value = ratio(other, Metric::Rate);
                let text = format!("requests/s ≥ {least:.2} × {}", name(other));
                (text, value.median >= least, value)
            }
            Target::P99(other, most) => {
                let value = ratio(other, Metric::P99);
                let text = format!("p99 ≤ {most:.1} × {}", name(other));
                (text, value.median <= most, value)
            }
            // Of these no round may have more.
            Target::FailedEach(most) => {
                let most = most * u64::from(self.case.workers);
                (
                    format!("failed ≤ {most}"),
                    failed.max <= most as f64,
                    failed,
                )
            }
            Target::FailedAs(other) => {
                let others = self.failed(other).unwrap_or(nothing);
                let text = format!("failed ≤ {}", name(other));
                (text, failed.median <= others.median, failed)
            }
        }
    }
}
