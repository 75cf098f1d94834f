//! The process: what any program shows of itself, by the names that all of them use.

use super::page::MetricsPage;
use crate::process::figures::Figures;

pub(super) fn render(page: &mut MetricsPage) {
    page.family("build_info", "gauge", "1, with the version of the program.");
    page.value("build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    let figures = Figures::now();
    page.within("process", |page| {
        page.single(
            "cpu_seconds_total",
            "counter",
            "CPU time, of the process and of the kernel for it, in seconds.",
            figures.cpu.as_secs_f64(),
        );
        if let Some(started) = figures.started {
            page.single(
                "start_time_seconds",
                "gauge",
                "When the process was started, in seconds since 1970.",
                started.as_secs_f64(),
            );
        }
        if let Some(bytes) = figures.resident {
            page.single("resident_memory_bytes", "gauge", "Memory in use.", bytes);
        }
        if let Some(open) = figures.open_descriptors {
            page.single("open_fds", "gauge", "Descriptors that are open.", open);
        }
        if let Some(most) = figures.max_descriptors {
            page.single("max_fds", "gauge", "Descriptors that may be open.", most);
        }
    });
}
