//! How soon a change of a release is in force on many gateways, and how soon a bad one is taken back: real
//! gateways on a real Redis, servers and clients in this program. `scripts/releases` builds what this needs,
//! and runs it.
//!
//! Everything stays on this machine's loopback and ends with this program.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

#[path = "../bench/accounting.rs"]
#[allow(dead_code)] // The bench uses all of it; here only what ends children.
mod accounting;
#[path = "../bench/children.rs"]
#[allow(dead_code)]
mod children;
#[path = "../bench/interruption.rs"]
mod interruption;
mod load;
mod moves;
mod programs;
mod seen;
mod site;
mod table;
mod trips;
mod version;

/// Measures how soon releases move.
#[derive(Parser)]
#[command(name = "scripts/releases")]
struct Arguments {
    /// Only this; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Question>,
    /// Gateways on one Redis.
    #[arg(long, default_value_t = 10)]
    gateways: usize,
    /// Promotions, of which each is taken back, and so many of the others.
    #[arg(long, default_value_t = 100)]
    moves: usize,
    /// Trips.
    #[arg(long, default_value_t = 100)]
    trips: usize,
    /// Releases of each kind that are watched.
    #[arg(long, default_value_t = 100)]
    releases: usize,
    /// The gateway's program.
    #[arg(long, value_name = "FILE")]
    graygate: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Question {
    /// From a command to the last gateway that serves by it, and that no client sees a half.
    Moves,
    /// From a trip to the last request that the bad version gets.
    Trips,
    /// From a defect to the trip.
    Seen,
}

/// Tells how far it is.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "releases: {text}");
}

/// The wait for something that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until it is so.
fn wait(
    what: &str,
    interrupted: &AtomicBool,
    mut is_so: impl FnMut() -> bool,
) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so() {
        if interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("not within {PATIENCE:?}: {what}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    // Programs are started in folders of their own.
    if let Ok(path) = arguments.graygate.canonicalize() {
        arguments.graygate = path;
    }
    match run(&arguments) {
        Ok((page, is_good)) => match io::stdout().write_all(page.as_bytes()) {
            Ok(()) if is_good => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// What was found, and whether all targets were met.
fn run(arguments: &Arguments) -> Result<(String, bool), String> {
    let interrupted = interruption::interruption()?;
    let wanted = |it: Question| arguments.only.is_empty() || arguments.only.contains(&it);
    let mut page = String::new();
    let mut is_good = true;
    if wanted(Question::Moves) {
        let (text, met) = moves::measure(arguments, &interrupted)?;
        page += &text;
        is_good &= met;
    }
    if wanted(Question::Trips) {
        let (text, met) = trips::measure(arguments, &interrupted)?;
        page += &text;
        is_good &= met;
    }
    if wanted(Question::Seen) {
        let (text, met) = seen::measure(arguments, &interrupted)?;
        page += &text;
        is_good &= met;
    }
    Ok((page, is_good))
}
