//! Graygate compared with nginx, HAProxy, the OpenResty set-up that it replaces, and the floor: the same
//! traffic in turn through each, on the same origin, with the CPU time that the kernel says each took.
//! `scripts/bench` builds what this needs, and runs it.
//!
//! Everything runs on this machine's loopback: the load generator in the main thread ([`load`]), the
//! origin in another ([`origin`]), Redis and the proxies as children ([`proxies`]). They end with this
//! program. A run with errors does not count, and makes the exit code 1.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

mod accounting;
mod changes;
mod children;
mod client;
mod downloads;
mod failing;
mod figures;
mod idle;
mod interruption;
mod load;
mod machine;
mod origin;
#[path = "../../benches/steps/others.rs"]
mod others;
mod page;
mod plots;
mod poll;
mod proxies;
mod report;
mod runs;
mod scenarios;
mod site;
mod tables;
mod targets;

use runs::{Effort, Measured, Runner};
use scenarios::{MAIN, OF_BUILDS, SCENARIOS, Scenario};
use site::{Programs, Site};

/// For 10,000 connections: as many descriptors here, and in some proxies twice as many.
const DESCRIPTORS: u64 = 65_536;

/// Measures Graygate beside other proxies.
#[derive(Parser)]
#[command(name = "scripts/bench")]
struct Arguments {
    /// Only the main table, in less than three minutes.
    #[arg(long)]
    quick: bool,
    /// Only this scenario; may be given several times. Those with servers that fail run only when they are
    /// named, or all of them by `failing`.
    #[arg(long, value_name = "SCENARIO", value_parser = scenario_names())]
    only: Vec<String>,
    /// Rounds, in each of which each proxy has its turn.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: Option<u8>,
    /// Length of each run, beside its warm-up.
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// Also write docs/benchmarks.md and its plots; not with --quick or --only, since the page is that of
    /// all scenarios.
    #[arg(long)]
    write: bool,
    /// Only beside another build of the gateway, such as that of scripts/build-static.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "write"])]
    beside: Option<PathBuf>,
    /// The gateway's program.
    #[arg(long, value_name = "FILE")]
    graygate: PathBuf,
    /// The floor's program.
    #[arg(long, value_name = "FILE")]
    floor: PathBuf,
}

fn scenario_names() -> clap::builder::PossibleValuesParser {
    let sound = SCENARIOS.iter().map(|it| it.name);
    let failing = failing::CASES.iter().map(|it| it.name);
    let all = sound.chain([failing::ALL]).chain(failing);
    all.collect::<Vec<_>>().into()
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=600.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err("from 0.1 to 600".to_owned())
}

impl Arguments {
    fn effort(&self) -> Effort {
        let (rounds, measured) = if self.quick {
            (3, Duration::from_secs(3))
        } else {
            (5, Duration::from_secs(3))
        };
        Effort {
            rounds: self.rounds.map_or(rounds, usize::from),
            measured: self.seconds.unwrap_or(measured),
        }
    }

    /// What to type for the same.
    fn command(&self) -> String {
        let mut command = "scripts/bench".to_owned();
        let mut add = |it: &str| command.push_str(it);
        if self.quick {
            add(" --quick");
        }
        for name in &self.only {
            add(&format!(" --only {name}"));
        }
        if let Some(rounds) = self.rounds {
            add(&format!(" --rounds {rounds}"));
        }
        if let Some(seconds) = self.seconds {
            add(&format!(" --seconds {}", seconds.as_secs_f64()));
        }
        if self.write {
            add(" --write");
        }
        if let Some(path) = &self.beside {
            add(&format!(" --beside {}", path.display()));
        }
        command
    }

    fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> {
        let all = match self.beside {
            Some(_) => OF_BUILDS,
            None => SCENARIOS,
        };
        all.iter().filter(|scenario| {
            if self.only.is_empty() {
                !self.quick || scenario.name == MAIN
            } else {
                self.only.iter().any(|it| it == scenario.name)
            }
        })
    }
}

impl Arguments {
    /// Those of servers that fail, which have to be named.
    fn failing(&self) -> impl Iterator<Item = &'static failing::Case> {
        failing::CASES.iter().filter(|case| {
            let mut named = self.only.iter();
            named.any(|it| it == failing::ALL || it == case.name)
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.write && (arguments.quick || !arguments.only.is_empty()) {
        let _ = writeln!(
            io::stderr(),
            "bench: --write is refused with --quick and --only, which measure only a part of the page"
        );
        return ExitCode::from(2);
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False when some figures are missing or do not count.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let interrupted = interruption::interruption()?;
    let descriptors = raise_descriptor_limit()?;
    let programs = Programs {
        graygate: arguments.graygate.clone(),
        other_build: arguments.beside.clone(),
        floor: arguments.floor.clone(),
    };
    let site = Site::start(programs)?;
    let mut runner = Runner {
        site: &site,
        effort: arguments.effort(),
        interrupted: &interrupted,
        descriptors,
        best_of_nginx: Vec::new(),
    };
    let start = Instant::now();
    let mut all: Vec<Measured> = Vec::new();
    for scenario in arguments.scenarios() {
        let rounds = runner.effort.rounds.min(scenario.rounds);
        let measured = runner.run(scenario, |round, setting| {
            let (at, round) = (start.elapsed().as_secs(), round + 1);
            let (name, subject) = (scenario.name, report::name(setting));
            let workers = setting.workers;
            let _ = writeln!(
                io::stderr(),
                "bench: {at:4} s: {name}, round {round} of {rounds}: {subject}, {workers} workers"
            );
        });
        print(&measured).map_err(|it| it.to_string())?;
        all.push(measured);
        if interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
    }
    for case in arguments.failing() {
        let (rounds, seconds) = (case.rounds(arguments.rounds), arguments.seconds);
        let measured = failing::run(
            case,
            &site,
            arguments.rounds,
            seconds,
            &interrupted,
            |round, subject| {
                let (at, round, name) = (start.elapsed().as_secs(), round + 1, case.name);
                let _ = writeln!(
                    io::stderr(),
                    "bench: {at:4} s: {name}, round {round} of {rounds}: {subject}"
                );
            },
        )?;
        print_failing(&measured).map_err(|it| it.to_string())?;
    }
    conclude(arguments, &all, descriptors)?;
    Ok(all.iter().all(Measured::is_clean))
}

/// Of this process, and so of its children. Without the right to, the hard limit stays. Returns what
/// there is.
fn raise_descriptor_limit() -> Result<u64, String> {
    let failed = |it| format!("limit of descriptors: {it}");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let wanted = hard.max(DESCRIPTORS);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    Ok(hard)
}

/// After all scenarios: what stands above them.
fn conclude(arguments: &Arguments, all: &[Measured], descriptors: u64) -> Result<(), String> {
    let machine = machine::lines(&arguments.graygate, descriptors);
    let effort = arguments.effort();
    let mut text = "\n".to_owned();
    for (name, value) in &machine {
        text.push_str(&format!("{name}: {value}\n"));
    }
    let targets = targets::table(all);
    if !targets.is_empty() {
        text.push_str(&format!(
            "\nTargets: ratios of Graygate's figures; met in every round, MISSED in none, or unclear\n\n{}",
            targets.text()
        ));
    }
    for measured in all {
        for problem in report::problems(measured) {
            text.push_str(&format!("ERROR in {}: {problem}\n", measured.scenario.name));
        }
    }
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(|it| it.to_string())?;
    if arguments.write {
        let command = arguments.command();
        page::write(Path::new("docs"), all, effort, &machine, &command)?;
    }
    Ok(())
}

fn print(measured: &Measured) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let scenario = measured.scenario;
    writeln!(out, "\n{} ({})\n", measured.title, scenario.name)?;
    writeln!(out, "{}", report::figures(measured).text())?;
    if let Some(remark) = report::remark(measured) {
        writeln!(out, "{remark}\n")?;
    }
    let ratios = report::ratios(measured);
    if !ratios.is_empty() {
        writeln!(out, "{}", ratios.text())?;
    }
    for problem in report::problems(measured) {
        writeln!(out, "ERROR: {problem}")?;
    }
    out.flush()
}

fn print_failing(measured: &failing::Measured) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}\n", measured.headline())?;
    writeln!(out, "{}", measured.figures().text())?;
    writeln!(out, "{}", measured.targets().text())?;
    for line in measured.failures() {
        writeln!(out, "failed: {line}")?;
    }
    out.flush()
}
