//! Programs that the bench starts: until they are there, and that none is left.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::accounting;

const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A program that listens, until it is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts it, and waits until it accepts connections. What it says goes to `log`.
    pub(crate) fn start(
        mut command: Command,
        address: SocketAddr,
        log: &Path,
    ) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = fs::File::create(log).and_then(|it| Ok((it.try_clone()?, it)));
        let (output, errors) = output.map_err(|it| format!("a log: {it}"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|it| format!("cannot start {program}: {it}"))?;
        let mut running = Self {
            child,
            log: log.to_owned(),
            address,
        };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = running.child.try_wait().is_ok_and(|it| it.is_some());
            if ended || start.elapsed() > PATIENCE {
                return Err(format!("{program} did not start: {}", running.said()));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(running)
    }

    /// The end of what it said so far.
    pub(crate) fn said(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.trim().lines().collect();
        lines[lines.len().saturating_sub(4)..].join("\n")
    }

    /// The process that was started.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The workers of nginx outlive a master that is killed, so remember who is there.
        let below = accounting::processes(self.id()).unwrap_or_default();
        let id = Pid::from_raw(self.id().cast_signed());
        let _ = kill(id, Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        for process in below {
            let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address to listen on. The port is below those from which the kernel takes the ports of
/// outgoing connections, of which there will be many.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    for _ in 0..1000 {
        let address: SocketAddr = ([127, 0, 0, 1], fastrand::u16(10_000..32_000)).into();
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free".to_owned())
}
