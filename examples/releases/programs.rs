//! The programs: gateways, and commands.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::children::{Running, free_address};

/// A gateway on its own folder.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) folder: PathBuf,
    _program: Running,
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
        command.current_dir(&folder);
        let program = Running::start(command, address, &folder.join("output.log"))?;
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
