//! What a gateway has: what the kernel says in `/proc`, and what it says itself on `/metrics`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::client::Client;
use crate::site::Gateway;
use crate::verdict::Slack;

/// When the numbers of a quantity are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// In the quiet moment after a round of load.
    Idle,
    /// At the end of a round, under load; or over all of the round.
    Busy,
}

impl State {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
        }
    }
}

/// Something that is looked at.
#[derive(Debug)]
pub(crate) struct Quantity {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    /// How much it differs from round to round in a sound gateway; see docs/soak.md.
    pub(crate) slack: Slack,
}

pub(crate) const fn quantity(name: &'static str, state: State, fixed: f64, share: f64) -> Quantity {
    let slack = Slack { fixed, share };
    Quantity { name, state, slack }
}

/// Everything that is looked at of a gateway, in the order of the page.
pub(crate) const QUANTITIES: [Quantity; 16] = [
    quantity("descriptors", State::Idle, 16.0, 0.1),
    quantity("descriptors", State::Busy, 32.0, 0.25),
    quantity("highest socket", State::Idle, 32.0, 0.25),
    quantity("highest socket", State::Busy, 64.0, 0.5),
    quantity("maps", State::Idle, 32.0, 0.1),
    quantity("resident KiB", State::Idle, 2048.0, 0.05),
    quantity("threads", State::Idle, 2.0, 0.0),
    quantity("client connections", State::Idle, 2.0, 0.0),
    quantity("parked", State::Idle, 2.0, 0.0),
    quantity("upstream idle", State::Idle, 16.0, 0.25),
    quantity("unaccounted descriptors", State::Idle, 16.0, 0.1),
    quantity("access log queue", State::Idle, 65536.0, 0.0),
    quantity("error log queue", State::Idle, 4096.0, 0.0),
    quantity("snapshots of lists", State::Idle, 2.0, 0.0),
    quantity("lines dropped", State::Idle, 0.5, 0.0),
    quantity("workers' CPU µs a request", State::Busy, 30.0, 0.5),
];

/// The numbers of one gateway, or of Redis, each quantity's in a row.
pub(crate) struct Series {
    /// Whose they are.
    pub(crate) name: String,
    pub(crate) quantities: &'static [Quantity],
    pub(crate) rows: Vec<Vec<f64>>,
    /// CPU time and requests at the begin of the round.
    begun: (Duration, f64),
}

pub(crate) type Numbers = BTreeMap<&'static str, f64>;

impl Series {
    pub(crate) fn new(name: String, quantities: &'static [Quantity]) -> Self {
        Self {
            name,
            quantities,
            rows: quantities.iter().map(|_| Vec::new()).collect(),
            begun: (Duration::ZERO, 0.0),
        }
    }

    pub(crate) fn of_gateway(gateway: &Gateway) -> Self {
        Self::new(format!("{} workers", gateway.workers), &QUANTITIES)
    }

    /// Begins a round.
    pub(crate) fn begin(&mut self, gateway: &Gateway) -> Result<(), String> {
        self.begun = (workers_time(gateway.id())?, requests(&metrics(gateway)?));
        Ok(())
    }

    /// At the end of a round, while it goes on.
    pub(crate) fn take_busy(&mut self, gateway: &Gateway) -> Result<(), String> {
        let mut numbers = kernels(gateway.id())?;
        let cpu = workers_time(gateway.id())?.saturating_sub(self.begun.0);
        let requests = requests(&metrics(gateway)?) - self.begun.1;
        if requests > 0.0 {
            numbers.insert(
                "workers' CPU µs a request",
                cpu.as_secs_f64() * 1e6 / requests,
            );
        }
        self.note(State::Busy, &numbers);
        Ok(())
    }

    /// In the quiet moment after it.
    pub(crate) fn take_idle(&mut self, gateway: &Gateway) -> Result<(), String> {
        let metrics = metrics(gateway)?;
        let sum = |name: &str| sum(&metrics, name);
        let mut numbers = kernels(gateway.id())?;
        let (active, idle) = (
            sum("graygate_connections_active"),
            sum("graygate_upstream_connections_idle"),
        );
        let unaccounted = numbers["descriptors"] - active - idle;
        numbers.extend([
            ("client connections", active),
            ("parked", sum("graygate_connections_parked")),
            ("upstream idle", idle),
            ("unaccounted descriptors", unaccounted),
            (
                "access log queue",
                sum("graygate_log_queued_bytes{log=\"access\"}"),
            ),
            (
                "error log queue",
                sum("graygate_log_queued_bytes{log=\"error\"}"),
            ),
            ("snapshots of lists", sum("graygate_lists_snapshots")),
            ("lines dropped", sum("graygate_log_dropped_total")),
        ]);
        self.note(State::Idle, &numbers);
        Ok(())
    }

    pub(crate) fn note(&mut self, state: State, numbers: &Numbers) {
        for (quantity, row) in self.quantities.iter().zip(&mut self.rows) {
            if let (true, Some(number)) = (quantity.state == state, numbers.get(quantity.name)) {
                row.push(*number);
            }
        }
    }
}

/// What the kernel says of a process.
fn kernels(id: u32) -> Result<Numbers, String> {
    let folder = format!("/proc/{id}");
    let read = |name: &str| {
        let text = fs::read_to_string(format!("{folder}/{name}"));
        text.map_err(|it| format!("{name} of the gateway: {it}"))
    };
    let open = fs::read_dir(format!("{folder}/fd"));
    let open = open.map_err(|it| format!("descriptors of the gateway: {it}"))?;
    let (mut descriptors, mut highest) = (0.0, 0.0_f64);
    for entry in open.flatten() {
        descriptors += 1.0;
        // What it was started with may have any number.
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if target.to_string_lossy().starts_with("socket:")
            && let Some(number) = entry.file_name().to_str().and_then(|it| it.parse().ok())
        {
            highest = highest.max(number);
        }
    }
    let status = read("status")?;
    let of_status = |name: &str| {
        let line = status.lines().find_map(|it| it.strip_prefix(name));
        let number = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| format!("{name} of the gateway is missing"))
    };
    Ok(Numbers::from([
        ("descriptors", descriptors),
        ("highest socket", highest),
        ("maps", read("maps")?.lines().count() as f64),
        ("resident KiB", of_status("VmRSS:")?),
        ("threads", of_status("Threads:")?),
    ]))
}

/// CPU time of a gateway's workers so far. What its other threads do comes with the time and not with
/// requests.
fn workers_time(id: u32) -> Result<Duration, String> {
    let failed = |it: std::io::Error| format!("CPU time of the gateway: {it}");
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{id}/task"))
        .map_err(failed)?
        .flatten()
    {
        let read = |name: &str| fs::read_to_string(task.path().join(name));
        // A thread may have ended meanwhile; workers stay.
        if !read("comm").is_ok_and(|name| name.starts_with("worker-")) {
            continue;
        }
        let times = read("schedstat").map_err(failed)?;
        let running = times.split(' ').next().and_then(|it| it.parse().ok());
        sum += Duration::from_nanos(running.unwrap_or_default());
    }
    Ok(sum)
}

/// What `/metrics` says.
pub(crate) fn metrics(gateway: &Gateway) -> Result<String, String> {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut client = Client::connect(gateway.admin).map_err(|it| format!("admin: {it}"))?;
    let answer = client.ask(request).map_err(|it| format!("admin: {it}"))?;
    String::from_utf8(answer.body).map_err(|it| format!("admin: {it}"))
}

/// The sum of all samples whose name, with or without labels, begins like this.
pub(crate) fn sum(metrics: &str, name: &str) -> f64 {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_whole = name.ends_with('}') || rest.starts_with(['{', ' ']);
        is_whole.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    samples.sum()
}

fn requests(metrics: &str) -> f64 {
    sum(metrics, "graygate_worker_requests_total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_up_by_name_and_no_longer_name_is_among_them() {
        let text = "# HELP a x\na{w=\"0\"} 2\na{w=\"1\"} 3\na_total 7\nb 4\n";
        assert_eq!(sum(text, "a"), 5.0);
        assert_eq!(sum(text, "a{w=\"1\"}"), 3.0);
        assert_eq!(sum(text, "b"), 4.0);
        assert_eq!(sum(text, "c"), 0.0);
    }

    #[test]
    fn the_kernel_says_what_this_process_has() {
        let before = kernels(std::process::id()).expect("numbers");
        let _open: Vec<_> = (0..50)
            .map(|_| std::net::UdpSocket::bind("127.0.0.1:0"))
            .collect();
        let after = kernels(std::process::id()).expect("numbers");
        assert!(after["descriptors"] >= before["descriptors"] + 40.0);
        assert!(after["highest socket"] > before["highest socket"]);
        assert!(after["threads"] >= 1.0 && after["resident KiB"] > 100.0);
    }
}
