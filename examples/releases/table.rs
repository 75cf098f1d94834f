//! Figures, as tables.

use std::fmt::Write as _;
use std::time::Duration;

/// Sorted, so that shares of them can be told.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// What this share of them is not above; nothing without one.
    pub(crate) fn share(&self, share: f64) -> Option<Duration> {
        let place = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(place.max(1) - 1).copied()
    }
}

/// In milliseconds, or seconds where that is more.
pub(crate) fn time(time: Option<Duration>) -> String {
    match time {
        None => "-".to_owned(),
        Some(it) if it < Duration::from_secs(1) => format!("{:.1} ms", it.as_secs_f64() * 1e3),
        Some(it) => format!("{:.1} s", it.as_secs_f64()),
    }
}

/// A table with these columns.
pub(crate) fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut page = format!("| {} |\n|---|", columns.join(" | "));
    page += &"---:|".repeat(columns.len() - 1);
    page.push('\n');
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| {} |", row.join(" | "));
    }
    page.push('\n');
    page
}
