//! Upgrades of Graygate, nginx and HAProxy under the same load ([`load`]), and what clients notice of them.
//! `scripts/upgrades` builds what this needs, and runs it.
//!
//! Everything stays on this machine's loopback and ends with this program.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[path = "../bench/interruption.rs"]
mod interruption;
#[allow(dead_code)] // The test uses the rest.
mod load;
mod proxy;

use load::{Count, Load, Origin, Owned, Phase, Plan, Tally};
use proxy::{Kind, Proxy};

/// Upgrades proxies under load, and says what their clients notice.
#[derive(Parser)]
#[command(name = "scripts/upgrades")]
struct Arguments {
    /// How many upgrades there are, of each.
    #[arg(long, default_value_t = 20)]
    upgrades: usize,
    /// Seconds from the begin of one to that of the next, if the proxy is ready for that.
    #[arg(long, default_value_t = 4.0)]
    every: f64,
    /// Graygate's program.
    #[arg(long, value_name = "FILE")]
    graygate: Option<PathBuf>,
    /// With Graygate under a supervisor.
    #[arg(long)]
    supervised: bool,
    /// With nginx (USR2 to the master, then QUIT to the old one).
    #[arg(long)]
    nginx: bool,
    /// With HAProxy (USR2 to the master).
    #[arg(long)]
    haproxy: bool,
    /// With HAProxy that keeps idle connections open until their next answer.
    #[arg(long)]
    haproxy_idle: bool,
}

/// Tells how far it is.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "upgrades: {text}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(page) => match io::stdout().write_all(page.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String, String> {
    let interrupted = interruption::interruption()?;
    allow_descriptors()?;
    let mut kinds = Vec::new();
    kinds.extend(arguments.graygate.clone().map(Kind::Graygate));
    let supervised = arguments.graygate.clone().filter(|_| arguments.supervised);
    kinds.extend(supervised.map(Kind::Supervised));
    kinds.extend(arguments.nginx.then_some(Kind::Nginx));
    kinds.extend(arguments.haproxy.then_some(Kind::Haproxy));
    kinds.extend(arguments.haproxy_idle.then_some(Kind::HaproxyIdle));
    let mut results = Vec::new();
    for kind in kinds {
        let name = kind.name();
        let (outcome, tally) = measure(kind, arguments, &interrupted)?;
        if interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        say(&format!("{name}:\n{tally}"));
        results.push((name, outcome, tally));
    }
    Ok(page(&results))
}

/// Each connection takes two here.
const DESCRIPTORS: u64 = 16_384;

fn allow_descriptors() -> Result<(), String> {
    let in_words = |error: nix::Error| format!("descriptors: {error}");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(in_words)?;
    match soft < DESCRIPTORS {
        true => setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS.min(hard), hard).map_err(in_words),
        false => Ok(()),
    }
}

/// What is known besides of one that was upgraded.
struct Outcome {
    /// Of each upgrade, how long it took until only the new process served, but for what cannot move.
    times: Vec<Duration>,
    /// From the first upgrade to the end of the last one.
    all: Duration,
}

/// The wait for the clients to be there, and to be done.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked who serves.
const LOOK: Duration = Duration::from_millis(50);

fn measure(
    kind: Kind,
    arguments: &Arguments,
    interrupted: &AtomicBool,
) -> Result<(Outcome, Tally), String> {
    let name = kind.name();
    let origin = Origin::start().map_err(|it| format!("a server: {it}"))?;
    let mut proxy = Proxy::start(kind, origin.address)?;
    let load = Load::start(proxy.address, Plan::FULL);
    let idle = Plan::FULL.idle as u64;
    wait("all clients are there", interrupted, || {
        load.tally().of(Count::Answered) > 2 * idle
    })?;
    load.enter(Phase::All);
    // Until there are transfers under way.
    thread::sleep(Duration::from_secs(1));
    let (begun, mut times) = (Instant::now(), Vec::new());
    for at in 1..=arguments.upgrades {
        let next = Duration::from_secs_f64(arguments.every).mul_f64((at - 1) as f64);
        thread::sleep(next.saturating_sub(begun.elapsed()));
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        proxy.wait_until_ready_for_upgrade()?;
        let start = Instant::now();
        proxy.upgrade()?;
        wait("the new one serves everything", interrupted, || {
            serves_alone(&proxy, &load, origin.address.port())
        })?;
        let time = start.elapsed();
        say(&format!("{name}: upgrade {at} after {time:.1?}"));
        times.push(time);
    }
    let all = begun.elapsed();
    load.enter(Phase::Quiet);
    wait("the clients are done", interrupted, || load.is_quiet())?;
    Ok((Outcome { times, all }, load.end()))
}

fn wait(what: &str, interrupted: &AtomicBool, is_so: impl Fn() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so() && !interrupted.load(Ordering::Relaxed) {
        if begun.elapsed() > PATIENCE {
            return Err(format!("not within {PATIENCE:?}: {what}"));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether no earlier process accepts connections, or has one that could be elsewhere.
fn serves_alone(proxy: &Proxy, load: &Load, server: u16) -> bool {
    let earlier: Vec<u32> = proxy.earlier().into_iter().collect();
    let long: BTreeSet<u16> = load.long_ports();
    let owned = Owned::of(&earlier, proxy.address.port(), server);
    let is_left = |it: &Owned| it.listening == 0 && it.clients.is_subset(&long);
    owned.is_ok_and(|owned| owned.iter().all(is_left))
}

/// A table: a column for each proxy.
fn page(results: &[(&str, Outcome, Tally)]) -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut page = format!("scripts/upgrades {}\n\n", arguments.join(" "));
    // Writing to a String cannot fail.
    let mut row = |name: &str, of: &dyn Fn(&Outcome, &Tally) -> String| {
        let _ = write!(page, "| {name} |");
        for (_, outcome, tally) in results {
            let _ = write!(page, " {} |", of(outcome, tally));
        }
        page.push('\n');
    };
    let names = results.iter().map(|(name, ..)| *name);
    let names: Vec<&str> = names.collect();
    row("", &|_, _| String::new());
    for count in Count::ALL {
        row(count.name(), &|_, tally| tally.of(count).to_string());
    }
    row("upgrades", &|outcome, _| outcome.times.len().to_string());
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    row("until the new one serves all, median", &|outcome, _| {
        let mut times = outcome.times.clone();
        times.sort_unstable();
        times
            .get(times.len() / 2)
            .map_or_else(String::new, |it| seconds(*it))
    });
    row("the longest", &|outcome, _| {
        outcome
            .times
            .iter()
            .max()
            .map_or_else(String::new, |it| seconds(*it))
    });
    row("all upgrades took", &|outcome, _| seconds(outcome.all));
    row("longest from a connect to its answer", &|_, tally| {
        format!("{:.0} ms", tally.slowest().as_secs_f64() * 1e3)
    });
    let head = format!("| | {} |", names.join(" | "));
    let line = format!("|---|{}", "---:|".repeat(names.len()));
    let empty = format!("|  |{}", "  |".repeat(names.len()));
    page.replacen(&empty, &format!("{head}\n{line}"), 1)
}
