//! The proxies: how each is started and upgraded, and which of its processes are those of earlier ones.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::load::processes_of;

/// Longest wait for a process.
const PATIENCE: Duration = Duration::from_secs(60);

/// A signal that has had no effect for so long is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is upgraded.
pub(crate) enum Kind {
    /// By `graygate upgrade`.
    Graygate(PathBuf),
    /// The same, with a supervisor.
    Supervised(PathBuf),
    /// By USR2 to the master, and QUIT to the old one as soon as the new one has workers.
    Nginx,
    /// By USR2 to the master.
    Haproxy,
    /// The same with `option idle-close-on-response`.
    HaproxyIdle,
}

impl Kind {
    /// As in tables.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Graygate(_) => "Graygate",
            Self::Supervised(_) => "Graygate, supervised",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::HaproxyIdle => "HAProxy, `idle-close-on-response`",
        }
    }

    /// Its configuration's file, and what is in it.
    fn configuration(&self) -> (&'static str, &'static str) {
        match self {
            Self::Graygate(_) | Self::Supervised(_) => {
                ("graygate.ini", include_str!("conf/graygate.ini"))
            }
            Self::Nginx => ("nginx.conf", include_str!("conf/nginx.conf")),
            Self::Haproxy | Self::HaproxyIdle => ("haproxy.cfg", include_str!("conf/haproxy.cfg")),
        }
    }
}

/// A running proxy, and all of its processes; they end with it.
pub(crate) struct Proxy {
    kind: Kind,
    pub(crate) address: SocketAddr,
    file: PathBuf,
    /// The first process, unless it goes to the background by itself.
    first: Child,
    folder: TempDir,
}

impl Proxy {
    /// Starts one, and waits until it accepts connections.
    pub(crate) fn start(kind: Kind, origin: SocketAddr) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("upgrades-").tempdir();
        let folder = folder.map_err(|it| format!("a folder: {it}"))?;
        let address = free_address()?;
        let idle = match kind {
            Kind::HaproxyIdle => "    option idle-close-on-response",
            _ => "",
        };
        let (name, text) = kind.configuration();
        let text = [
            ("@SCRATCH@", folder.path().display().to_string()),
            ("@LISTEN@", address.to_string()),
            ("@ORIGIN@", origin.to_string()),
            ("@IDLE@", idle.to_owned()),
        ]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let file = folder.path().join(name);
        let lists = format!("[gray]\n[pre]\n[prod]\n{origin}\n");
        let written = fs::write(&file, text);
        let written = written.and_then(|()| fs::write(folder.path().join("lists"), lists));
        written.map_err(|it| format!("a configuration: {it}"))?;
        let mut command = match &kind {
            Kind::Graygate(program) => {
                let mut command = Command::new(program);
                command.args(["run", "-c"]).arg(&file);
                command
            }
            Kind::Supervised(program) => {
                let mut command = Command::new(program);
                command.args(["run", "--supervise", "-c"]).arg(&file);
                command
            }
            Kind::Nginx => {
                // It starts its successor by the path that it was started by.
                let mut command = Command::new(program("nginx")?);
                command.arg("-c").arg(&file);
                command
            }
            Kind::Haproxy | Kind::HaproxyIdle => {
                let mut command = Command::new(program("haproxy")?);
                command.arg("-W").arg("-f").arg(&file);
                command
            }
        };
        let first = spawn(&mut command, folder.path())?;
        let proxy = Self {
            kind,
            address,
            file,
            first,
            folder,
        };
        until("it accepts connections", || {
            TcpStream::connect(address).is_ok()
        })?;
        Ok(proxy)
    }

    /// nginx ignores USR2 while the master before is still there, that is, until its last connection has ended.
    pub(crate) fn wait_until_ready_for_upgrade(&self) -> Result<(), String> {
        match self.kind {
            Kind::Nginx => until("the old master has ended", || self.masters().len() == 1),
            _ => Ok(()),
        }
    }

    /// Upgrades it, and waits until the new process is there.
    pub(crate) fn upgrade(&mut self) -> Result<(), String> {
        match &self.kind {
            Kind::Graygate(program) | Kind::Supervised(program) => {
                let mut command = Command::new(program);
                command.args(["upgrade", "-c"]).arg(&self.file);
                let mut upgrade = spawn(&mut command, self.folder.path())?;
                let status = upgrade.wait().map_err(|it| it.to_string())?;
                match status.success() {
                    true => Ok(()),
                    false => Err(self.said()),
                }
            }
            Kind::Nginx => {
                let old = self.pid_in_file()?;
                let mut asked = None;
                until("the new master has workers", || {
                    // It ignores the signal in the moment in which the master before ends, and, once it has
                    // heard it, every other one.
                    if asked.is_none_or(|it: Instant| it.elapsed() > AGAIN) {
                        let _ = signal(old, Signal::SIGUSR2);
                        asked = Some(Instant::now());
                    }
                    let new = self.pid_in_file().unwrap_or(old);
                    new != old && children(new).len() == 2
                })?;
                signal(old, Signal::SIGQUIT)
            }
            Kind::Haproxy | Kind::HaproxyIdle => {
                let before = children(self.first.id());
                signal(self.first.id(), Signal::SIGUSR2)?;
                until("there is a new worker", || {
                    !children(self.first.id()).is_subset(&before)
                })
            }
        }
    }

    /// The processes that the present ones have succeeded.
    pub(crate) fn earlier(&self) -> BTreeSet<u32> {
        let mut processes = self.masters();
        match self.kind {
            Kind::Graygate(_) => {
                processes.remove(&self.pid_in_file().unwrap_or_default());
            }
            Kind::Nginx => {
                let present = self.pid_in_file().unwrap_or_default();
                processes.remove(&present);
                let workers: Vec<u32> = processes.iter().copied().flat_map(children).collect();
                processes.extend(workers);
                // It is a child of the one before.
                processes.remove(&present);
            }
            Kind::Haproxy | Kind::HaproxyIdle | Kind::Supervised(_) => {
                processes = children(self.first.id());
                // The one that was begun last; numbers of processes begin anew only after millions.
                processes.pop_last();
            }
        }
        processes
    }

    /// The processes that name their configuration.
    fn masters(&self) -> BTreeSet<u32> {
        processes_of(&self.file.display().to_string())
    }

    fn pid_in_file(&self) -> Result<u32, String> {
        let name = match self.kind {
            Kind::Nginx => "nginx.pid",
            _ => "pid",
        };
        let text = fs::read_to_string(self.folder.path().join(name));
        let text = text.map_err(|it| format!("{name}: {it}"))?;
        text.trim()
            .parse()
            .map_err(|_| format!("{name}: no number"))
    }

    fn said(&self) -> String {
        let said = fs::read_to_string(self.folder.path().join("out"));
        format!("it failed: {}", said.unwrap_or_default())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let masters = self.masters();
        let below: Vec<u32> = masters.iter().copied().flat_map(children).collect();
        // Masters first, so that none of them begins another worker.
        for pid in masters.into_iter().chain(below) {
            let _ = signal(pid, Signal::SIGKILL);
        }
        let _ = self.first.wait();
    }
}

fn spawn(command: &mut Command, folder: &Path) -> Result<Child, String> {
    let path = folder.join("out");
    let output = fs::File::options().create(true).append(true).open(path);
    let output = output.map_err(|it| format!("a file: {it}"))?;
    let errors = output.try_clone().map_err(|it| format!("a file: {it}"))?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let spawned = command.spawn();
    spawned.map_err(|it| format!("{}: {it}", command.get_program().display()))
}

/// The path of a program.
fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where not everybody looks for programs.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut paths = folders.map(|folder| folder.join(name));
    let found = paths.find(|it| it.is_file());
    found.ok_or_else(|| format!("{name}: no such program"))
}

fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    let sent = kill(Pid::from_raw(pid.cast_signed()), signal);
    sent.map_err(|it| format!("a signal: {it}"))
}

fn children(of: u32) -> BTreeSet<u32> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace().flat_map(str::parse).collect()
}

/// On a host of its own, so that nobody takes the port meanwhile.
fn free_address() -> Result<SocketAddr, String> {
    let host = Ipv4Addr::new(
        127,
        fastrand::u8(1..),
        fastrand::u8(..),
        fastrand::u8(1..255),
    );
    let listener = TcpListener::bind((host, 0)).and_then(|it| it.local_addr());
    listener.map_err(|it| format!("an address: {it}"))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("not within {PATIENCE:?}: {what}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
