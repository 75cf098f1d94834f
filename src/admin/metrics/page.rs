//! The text format: families, each with its samples.

use std::fmt::{Display, Write};

use crate::metrics::{Counter, DURATION_BOUNDS, HistogramSum, WorkerMetrics};

/// One of a worker's counters.
pub(super) type Select = fn(&WorkerMetrics) -> &Counter;

/// Names and values; a value is a name of ours, an address or a number, so nothing needs escaping.
pub(super) type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

/// A page that is being written.
pub(super) struct MetricsPage {
    text: String,
    /// What the names begin with.
    namespace: &'static str,
}

impl MetricsPage {
    pub(super) const fn new() -> Self {
        Self {
            text: String::new(),
            namespace: "graygate",
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Writes what does not belong to Graygate, but is named as every program names it.
    pub(super) fn within(&mut self, namespace: &'static str, write: impl FnOnce(&mut Self)) {
        let own = std::mem::replace(&mut self.namespace, namespace);
        write(self);
        self.namespace = own;
    }

    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let space = self.namespace;
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.text,
            "# HELP {space}_{name} {help}\n# TYPE {space}_{name} {kind}"
        );
    }

    pub(super) fn value(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        let _ = write!(self.text, "{}_{name}", self.namespace);
        for (at, (label, text)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{text}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    /// A family of one sample.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.value(name, &[], value);
    }

    /// One histogram of a family.
    pub(super) fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &HistogramSum) {
        let bucket = format!("{name}_bucket");
        let mut cumulated = 0;
        for (at, count) in histogram.buckets.iter().enumerate() {
            cumulated += count;
            let bound = DURATION_BOUNDS.get(at).map(|it| *it as f64 / 1e6);
            let bound = bound.map_or("+Inf".to_owned(), |it| it.to_string());
            let le: (&str, &dyn Display) = ("le", &bound);
            let labels: Vec<_> = labels.iter().copied().chain([le]).collect();
            self.value(&bucket, &labels, cumulated);
        }
        self.value(&format!("{name}_sum"), labels, histogram.sum as f64 / 1e6);
        self.value(&format!("{name}_count"), labels, cumulated);
    }
}
