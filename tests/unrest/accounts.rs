//! What became of every request, as its client saw it, and whether the gateway has counted the same.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Gateway, Samples, read_metrics};

/// How a request has ended for its client.
#[derive(Debug)]
pub(crate) enum End {
    /// As it must, or the client left with the head of the answer.
    Answered(u16),
    /// The client left before anything had come, and does not know.
    LeftEarly,
    /// The body was cut by a server in trouble.
    Cut,
    /// What cannot be sent twice has failed with its server.
    Failed(u16),
    /// As it must not; with the status, if there was one.
    Wrong(Option<u16>, String),
}

impl End {
    pub(crate) fn leaves_it_open(&self) -> bool {
        matches!(self, Self::Answered(_))
    }
}

/// Of all clients.
#[derive(Default)]
pub(crate) struct Accounts {
    /// Answers by class of status.
    answers: [AtomicU64; 6],
    left_early: AtomicU64,
    /// By method and what it was.
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    wrong: Mutex<Vec<String>>,
}

impl Accounts {
    pub(crate) fn note(&self, method: &'static str, end: End) {
        let (status, what) = match &end {
            End::Answered(status) => (Some(*status), "as it must"),
            End::LeftEarly => (None, "left early"),
            End::Cut => (Some(200), "cut"),
            End::Failed(status) => (Some(*status), "failed"),
            End::Wrong(status, _) => (*status, "WRONG"),
        };
        match status {
            Some(status) => &self.answers[usize::from(status / 100)],
            None => &self.left_early,
        }
        .fetch_add(1, Ordering::Relaxed);
        *self
            .counts
            .lock()
            .unwrap()
            .entry((method, what))
            .or_default() += 1;
        if let End::Wrong(_, what) = end {
            self.wrong(what);
        }
    }

    pub(crate) fn wrong(&self, what: String) {
        eprintln!("WRONG: {what}");
        self.wrong.lock().unwrap().push(what);
    }

    pub(crate) fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut self.wrong.lock().unwrap())
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answers
            .iter()
            .map(|it| it.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn page(&self) -> String {
        let counts = self.counts.lock().unwrap();
        let lines = counts
            .iter()
            .map(|((method, what), count)| format!("{method:5} {count:8} {what}\n"));
        lines.collect()
    }

    /// Whether `gateway`, which has nothing to do any more, has counted the same: nothing when it has.
    pub(crate) fn differences(&self, gateway: &Gateway) -> Vec<String> {
        let metrics = Metrics::of(gateway);
        let mut differences = Vec::new();
        let mut must = |is_so: bool, what: String| {
            if !is_so {
                differences.push(what);
            }
        };
        // Of a client that has left early nobody knows whether the gateway has seen its request, nor how far
        // it has come with it.
        let unknown = self.left_early.load(Ordering::Relaxed);
        for (class, answers) in self.answers.iter().enumerate() {
            let seen = answers.load(Ordering::Relaxed);
            let counted = metrics.sum("graygate_requests_total", &format!("{class}xx"));
            let most = match class {
                0 | 2 | 5 => seen + unknown,
                _ => seen,
            };
            must(
                (seen..=most).contains(&counted),
                format!("{class}xx: clients have seen {seen} to {most}, {counted} are counted"),
            );
        }
        let requests = metrics.sum("graygate_requests_total", "");
        let (answers, gone) = (
            requests - metrics.sum("graygate_requests_total", "0xx"),
            metrics.sum("graygate_requests_total", "0xx"),
        );
        let seen = self.answered();
        must(
            answers >= seen && answers + gone <= seen + unknown,
            format!("{answers} answers and {gone} clients gone, of {seen} and {unknown} at most"),
        );
        let attempts = metrics.sum("graygate_attempts_total", "");
        let attempted = metrics.sum("graygate_requests_attempted_total", "");
        let retries = metrics.sum("graygate_retries_total", "");
        must(
            attempts == attempted + retries,
            format!("{attempts} attempts, {attempted} requests and {retries} retries"),
        );
        must(attempted <= requests, format!("{attempted} of {requests}"));
        let timed = metrics.sum("graygate_request_duration_seconds_count", "");
        must(timed == requests, format!("{timed} timed, of {requests}"));
        let connections = metrics.sum("graygate_connections_total", "");
        let closed = metrics.sum("graygate_connections_closed_total", "");
        let open = metrics.sum("graygate_connections_active", "");
        must(
            connections == closed + open,
            format!("{connections} connections, {closed} closed, {open} open"),
        );
        must(
            metrics.sum("graygate_panics_total", "") == 0,
            "panics".to_owned(),
        );
        differences
    }
}

struct Metrics(Samples);

impl Metrics {
    fn of(gateway: &Gateway) -> Self {
        let (status, page) = gateway.admin_get("/metrics");
        assert_eq!(status, 200, "{page}");
        Self(read_metrics(&page))
    }

    /// The sum of all samples of a family, with these words in their labels.
    fn sum(&self, family: &str, label: &str) -> u64 {
        let samples = self.0.iter().filter(|(name, _)| {
            let rest = name.strip_prefix(family);
            rest.is_some_and(|it| (it.is_empty() || it.starts_with('{')) && it.contains(label))
        });
        samples.map(|(_, value)| *value as u64).sum()
    }
}
