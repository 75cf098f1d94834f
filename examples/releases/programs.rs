//! The programs: Redis, gateways, and commands.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program that listens, until it is dropped.
pub(crate) struct Program {
    child: Child,
    name: String,
}

impl Program {
    /// Starts it, and waits until it accepts connections there.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn start(command: &mut Command, address: SocketAddr) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = quiet.stderr(Stdio::null()).spawn();
        let child = child.map_err(|it| format!("cannot start {name}: {it}"))?;
        let mut program = Self { child, name };
        for _ in 0..1000 {
            if TcpStream::connect(address).is_ok() {
                return Ok(program);
            }
            if program.child.try_wait().is_ok_and(|it| it.is_some()) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{} did not start", program.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let id = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(id, Signal::SIGTERM);
        for _ in 0..250 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address to listen on, with a port below those of outgoing connections.
///
/// # Errors
/// When there is none.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    for _ in 0..1000 {
        let address: SocketAddr = ([127, 0, 0, 1], fastrand::u16(10_000..32_000)).into();
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free".to_owned())
}

/// A gateway on its own folder.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) folder: PathBuf,
    _program: Program,
}

impl Gateway {
    /// One with what is not said here as shipped.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(graygate: &Path, folder: PathBuf, more: &str) -> Result<Self, String> {
        let in_words = |it: std::io::Error| format!("{}: {it}", folder.display());
        fs::create_dir_all(&folder).map_err(in_words)?;
        let address = free_address()?;
        let ini = format!(
            "[gateway]\nlisten = {address}\npid_file = pid\nuser =\n[lists]\nlast_good = lists.copy\n[log]\n\
             access = off\nerror = error.log\n[admin]\nlisten = off\nsocket = admin.sock\n{more}"
        );
        fs::write(folder.join("graygate.ini"), ini).map_err(in_words)?;
        let mut command = Command::new(graygate);
        command.args(["run", "-c"]).arg(folder.join("graygate.ini"));
        let program = Program::start(command.current_dir(&folder), address)?;
        Ok(Self {
            address,
            folder,
            _program: program,
        })
    }

    /// What its log says.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }

    /// A command with its ini file; what it says.
    ///
    /// # Errors
    /// What it says, where it fails.
    pub(crate) fn command(&self, graygate: &Path, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(graygate);
        command.args(arguments).args(["-c", "graygate.ini"]);
        let output = command.current_dir(&self.folder).output();
        let output = output.map_err(|it| format!("{arguments:?}: {it}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => {
                let more = String::from_utf8_lossy(&output.stderr);
                Err(format!("{arguments:?}: {said}{more}"))
            }
        }
    }
}
