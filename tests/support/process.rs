//! The gateway as the kernel sees it: time, memory, descriptors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::client::Client;
use super::gateway::Gateway;
use super::{DEADLINE, wait_until};

impl Gateway {
    /// The CPU time that it has taken so far, in clock ticks.
    #[track_caller]
    pub(crate) fn cpu_ticks(&self) -> u64 {
        ticks_in(&fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap())
    }

    /// Waits until it has ended: the CPU time that it has taken in all, in clock ticks.
    #[track_caller]
    pub(crate) fn cpu_ticks_at_the_end(&self) -> u64 {
        let pid = Pid::from_raw(self.pid().cast_signed());
        // Its status stays, so that what is known of it does.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        wait_until("the gateway ends", DEADLINE, || {
            waitid(Id::Pid(pid), flags).unwrap() != WaitStatus::StillAlive
        });
        self.cpu_ticks()
    }

    /// Stops it as SIGSTOP does, and waits until each of its threads stands.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = || fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let stands = |task: io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            // Behind the name, which is in brackets, stands the state.
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        wait_until("it stands", DEADLINE, || tasks().all(stands));
    }

    /// CPU time of each worker's thread so far, in clock ticks.
    #[track_caller]
    pub(crate) fn cpu_ticks_by_worker(&self) -> BTreeMap<String, u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // A thread may end while this looks.
        let stats =
            tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let named = stats.map(|stat| {
            let (_, rest) = stat.split_once('(').unwrap();
            let (name, _) = rest.rsplit_once(')').unwrap();
            (name.to_owned(), ticks_in(&stat))
        });
        named
            .filter(|(name, _)| name.starts_with("worker-"))
            .collect()
    }

    /// Its resident size.
    #[track_caller]
    pub(crate) fn rss_kib(&self) -> u64 {
        self.size_kib("VmRSS:")
    }

    /// The largest resident size that it has had.
    #[track_caller]
    pub(crate) fn peak_rss_kib(&self) -> u64 {
        self.size_kib("VmHWM:")
    }

    #[track_caller]
    fn size_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Sets its soft limit of descriptors.
    #[track_caller]
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let (pid, limit) = (self.pid().to_string(), format!("--nofile={limit}:"));
        let mut command = Command::new("prlimit");
        let status = command.args(["--pid", &pid, &limit]).status().unwrap();
        assert!(status.success());
    }

    /// Its soft limit of descriptors.
    #[track_caller]
    pub(crate) fn descriptor_limit(&self) -> u64 {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid())).unwrap();
        let mut lines = limits.lines();
        let line = lines.find_map(|line| line.strip_prefix("Max open files"));
        let soft = line.unwrap().split_whitespace().next().unwrap();
        soft.parse().unwrap()
    }

    /// How many descriptors it has.
    #[track_caller]
    pub(crate) fn descriptors(&self) -> usize {
        self.descriptor_numbers().len()
    }

    /// Lowers its soft limit so far that it can open so many more, unless it closes one with a low number.
    #[track_caller]
    pub(crate) fn leave_descriptors(&self, count: usize) {
        let open = self.descriptor_numbers();
        let free = (0..).filter(|it| !open.contains(it));
        let limit = free.take(count + 1).last().unwrap();
        self.limit_descriptors(limit);
    }

    #[track_caller]
    fn descriptor_numbers(&self) -> BTreeSet<u64> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let names = open.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.map(|it| it.parse().unwrap()).collect()
    }

    /// Uses up what it has of descriptors: with these connections, of which the last ones are not
    /// accepted.
    #[track_caller]
    pub(crate) fn take_descriptors(&self) -> Vec<Client> {
        let highest = self.descriptor_numbers().pop_last().unwrap();
        self.limit_descriptors(highest + 1);
        let mut clients = Vec::new();
        wait_until("no descriptor is left", DEADLINE, || {
            clients.push(self.connect());
            self.stderr.count("accept-failed") > 0
        });
        clients
    }
}

/// Allows this process, and so the gateways that it starts, more descriptors; how many there are.
#[track_caller]
pub(crate) fn allow_descriptors(wanted: u64) -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Only root may raise the hard limit.
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted.max(hard)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).unwrap();
    }
    getrlimit(Resource::RLIMIT_NOFILE).unwrap().0
}

/// User and system time in a `/proc/.../stat` line, in clock ticks.
#[track_caller]
fn ticks_in(stat: &str) -> u64 {
    // Behind the name, which may hold blanks: state is the 3rd field, utime and stime are the
    // 14th and 15th (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let [user, system] = [fields[11], fields[12]].map(|it| it.parse::<u64>().unwrap());
    user + system
}
