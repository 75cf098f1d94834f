//! What the kernel says of this process.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};

/// Of one moment. What cannot be found out is `None`.
pub(crate) struct Figures {
    /// Of all threads, in the program and in the kernel.
    pub(crate) cpu: Duration,
    /// When it was started, since 1970.
    pub(crate) started: Option<Duration>,
    /// Memory in use, in bytes.
    pub(crate) resident: Option<u64>,
    pub(crate) open_descriptors: Option<u64>,
    pub(crate) max_descriptors: Option<u64>,
}

impl Figures {
    pub(crate) fn now() -> Self {
        Self {
            cpu: cpu_time(),
            started: started(),
            resident: resident(),
            open_descriptors: open_descriptors(),
            max_descriptors: max_descriptors(),
        }
    }
}

fn cpu_time() -> Duration {
    let span = |time: TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    usage.map_or(Duration::ZERO, |it| {
        span(it.user_time()) + span(it.system_time())
    })
}

/// Clock ticks a second in what the kernel tells of times (`USER_HZ`), whatever its own clock is.
const TICKS: u64 = 100;

/// Worked out once: whoever looks for restarts takes every other value for one.
fn started() -> Option<Duration> {
    static STARTED: OnceLock<Option<Duration>> = OnceLock::new();
    *STARTED.get_or_init(find_start)
}

/// Told from now, and from the time since the machine was started (proc_pid_stat(5)).
fn find_start() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name before it, in parentheses, may have blanks.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let since_boot = Duration::from_millis(ticks.saturating_mul(1000 / TICKS));
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    let age = Duration::from(up).checked_sub(since_boot)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok()?.checked_sub(age)
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// How many descriptors are open.
pub(crate) fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    // Since Linux 6.2 the folder's size is their number (proc_pid_fd(5)).
    match fs::metadata(FOLDER).ok()?.len() {
        0 => {
            let open = fs::read_dir(FOLDER).ok()?.count() as u64;
            // Less the one that was looked through.
            Some(open.saturating_sub(1))
        }
        open => Some(open),
    }
}

/// How many may be.
pub(crate) fn max_descriptors() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft)
}
