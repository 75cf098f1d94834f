//! A long run of the gateway with 1, 2 and 4 workers side by side, under everything that clients, origins,
//! Redis and operators do ([`load`], [`origin`], [`unrest`], [`release`]). What each gateway has is sampled
//! ([`sample`]), and what Redis has ([`stored`]), and [`verdict`] says whether it grows with time instead of
//! with load.
//! `scripts/soak` builds what this needs, and runs it.
//!
//! Load comes in rounds with a quiet moment after each, so that what an idle gateway has can be compared
//! with what it had when it was idle before. Everything stays on this machine's loopback and ends with
//! this program.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

#[path = "../bench/accounting.rs"]
#[allow(dead_code)] // The bench uses all of it; here only what ends children.
mod accounting;
mod acts;
#[path = "../bench/children.rs"]
#[allow(dead_code)]
mod children;
mod client;
#[path = "../bench/interruption.rs"]
mod interruption;
mod load;
mod origin;
mod page;
mod receiver;
mod release;
mod sample;
mod selected;
mod short;
mod site;
mod stored;
mod tally;
mod unrest;
mod verdict;

use site::Site;

/// Runs the gateway for long, and says what grows.
#[derive(Parser)]
#[command(name = "scripts/soak")]
struct Arguments {
    /// How long it runs.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// So many short connections instead, closed on both sides, through one gateway.
    #[arg(long, value_name = "COUNT")]
    connections: Option<u64>,
    /// Workers of that gateway.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// What chance begins with; by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// The gateway's program.
    #[arg(long, value_name = "FILE")]
    graygate: PathBuf,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.5..=10_080.0).contains(&minutes) {
        true => Ok(minutes),
        false => Err("from 0.5 to 10080".to_owned()),
    }
}

/// Tells how far it is.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "soak: {text}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// False when something grows, or a request has failed that must not.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let interrupted = interruption::interruption()?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let (page, sound) = match arguments.connections {
        Some(count) => {
            say(&format!(
                "{count} connections, {} workers",
                arguments.workers
            ));
            short::run(&arguments.graygate, arguments.workers, count, &interrupted)?
        }
        None => {
            say(&format!("{} minutes, --seed {seed}", arguments.minutes));
            soak(arguments, seed, &interrupted)?
        }
    };
    let mut out = io::stdout().lock();
    let written = out.write_all(page.as_bytes()).and_then(|()| out.flush());
    written.map_err(|it| it.to_string())?;
    match interrupted.load(Ordering::Relaxed) {
        true => Err("interrupted".to_owned()),
        false => Ok(sound),
    }
}

/// Length of a round of load, of `minutes`: at least twelve, so that there is a trend to be seen.
fn round(minutes: f64) -> Duration {
    Duration::from_secs_f64((minutes * 60.0 / 14.0).clamp(2.0, 60.0))
}

/// After a round, until what was under way has ended and is closed on both sides.
const QUIET: Duration = Duration::from_millis(1500);

fn soak(
    arguments: &Arguments,
    seed: u64,
    interrupted: &AtomicBool,
) -> Result<(String, bool), String> {
    let (start, round) = (Instant::now(), round(arguments.minutes));
    let end = start + Duration::from_secs_f64(arguments.minutes * 60.0);
    let mut site = Site::start(&arguments.graygate, &[1, 2, 4])?;
    let mut series: Vec<sample::Series> = site
        .gateways
        .iter()
        .map(sample::Series::of_gateway)
        .collect();
    let mut stored = stored::series();
    let tallies = tally::Tallies::new(site.gateways.len());
    for at in 0.. {
        let busy = round.saturating_sub(QUIET).max(QUIET);
        if interrupted.load(Ordering::Relaxed) || Instant::now() + busy + QUIET > end {
            break;
        }
        let until = Instant::now() + busy;
        let round = load::Round {
            at,
            seed: seed.wrapping_add(at << 32),
            until,
        };
        round.run(&mut site, &arguments.graygate, &tallies, &mut series)?;
        std::thread::sleep(QUIET);
        for (series, gateway) in series.iter_mut().zip(&site.gateways) {
            series.take_idle(gateway)?;
        }
        stored::take(&mut stored, &site.redis)?;
        let (seconds, failed) = (start.elapsed().as_secs(), tallies.failed());
        let requests = tallies.requests();
        say(&format!(
            "{seconds:5} s: {requests} requests, {failed} failed that must not"
        ));
    }
    series.push(stored);
    let command = format!("scripts/soak --minutes {} --seed {seed}", arguments.minutes);
    Ok(page::of(&command, &series, &tallies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_rounds_for_a_trend_and_none_is_longer_than_a_minute() {
        for (minutes, seconds) in [(2.0, 8.57), (10.0, 42.86), (60.0, 60.0)] {
            let round = round(minutes).as_secs_f64();
            assert!((round - seconds).abs() < 0.01, "{round}");
        }
    }
}
