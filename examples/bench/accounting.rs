//! What the kernel says that a proxy takes: CPU time and memory of all its processes.

use std::fs;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The process `root` and all below it, in order.
pub(crate) fn processes(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", found[at]));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|it| it.parse::<u32>().ok()),
            );
        }
        at += 1;
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// CPU time of these processes so far, user and system: of all threads, also of those that have
/// ended, in nanoseconds (the ticks in `/proc` are 10 ms).
pub(crate) fn cpu_time(processes: &[u32]) -> Result<Duration, String> {
    let mut sum = Duration::ZERO;
    for process in processes {
        let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed()));
        let time = clock.and_then(|it| it.now());
        let time = time.map_err(|it| format!("CPU time of a process of the proxy: {it}"))?;
        sum += Duration::from(time);
    }
    Ok(sum)
}

/// Memory of these processes in bytes; pages that several share count once.
pub(crate) fn memory(processes: &[u32]) -> Result<u64, String> {
    let mut sum = 0;
    for process in processes {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(path).map_err(|it| format!("memory of the proxy: {it}"))?;
        let line = text.lines().find_map(|it| it.strip_prefix("Pss:"));
        let kib = line.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
        sum += kib.ok_or("memory of the proxy: no Pss")? * 1024;
    }
    Ok(sum)
}
