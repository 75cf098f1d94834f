//! `graygate demo` and `graygate origin`: a set-up to try the gateway with.
//!
//! An origin answers every request with its name and address. The demo runs two of each version,
//! a lists file and the gateway in one process, and says what to try.

mod origin;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crossbeam_channel::Receiver;

use crate::config::Config;
use crate::net::{self, Listener};
use crate::process::Command;
use crate::run;

/// Starts an origin called `name` on the workers, and returns its address.
fn start_origin(listen: SocketAddr, name: &str) -> io::Result<SocketAddr> {
    let listener = Listener::bind(listen).map_err(|error| named(listen, &error))?;
    let addr = listener.addr();
    origin::start(listener, &format!("{name} at {addr}\n"))?;
    Ok(addr)
}

/// Finds out whether `addr` is free, and which port stands for 0.
fn probe(addr: SocketAddr) -> io::Result<SocketAddr> {
    TcpListener::bind(addr)
        .and_then(|it| it.local_addr())
        .map_err(|error| named(addr, &error))
}

fn named(addr: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}"))
}

/// Runs one origin until a command ends it.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn origin(
    listen: SocketAddr,
    name: &str,
    commands: &Receiver<Command>,
) -> io::Result<()> {
    net::start(std::thread::available_parallelism().map_or(1, usize::from))?;
    let addr = start_origin(listen, name)?;
    say(&format!(
        "origin {name:?} listens on {addr}; Ctrl-C ends it\n"
    ));
    for command in commands {
        if command == Command::Drain {
            break;
        }
    }
    Ok(())
}

/// Runs the demo on `listen` until a command ends it.
///
/// # Errors
/// When an address cannot be had, or the files cannot be written.
pub(crate) fn demo(listen: SocketAddr, commands: &Receiver<Command>) -> io::Result<()> {
    // Checked before anything is started or written.
    let listen = probe(listen)?;
    let folder = Folder::create()?;
    net::start(std::thread::available_parallelism().map_or(1, usize::from))?;
    let origin = |name: &str| start_origin(SocketAddr::new([127, 0, 0, 1].into(), 0), name);
    let pre = [
        origin("pre-1 (new version)")?,
        origin("pre-2 (new version)")?,
    ];
    let prod = [
        origin("prod-1 (old version)")?,
        origin("prod-2 (old version)")?,
    ];
    let lists = folder.0.join("lists");
    fs::write(&lists, lists_text(pre, prod))?;
    let ini = folder.0.join("graygate.ini");
    fs::write(&ini, ini_text(listen))?;
    let config = Config::load(&ini, None).map_err(io::Error::other)?;
    say(&introduction(listen, &lists));
    run::run(config, commands)
}

/// A folder of the demo's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        let name = format!("graygate-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind, it is a few hundred bytes in a temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lists_text([pre_1, pre_2]: [SocketAddr; 2], [prod_1, prod_2]: [SocketAddr; 2]) -> String {
    format!(
        "# Who gets the new version: addresses, or nets like 10.0.0.0/8\n[gray]\n127.0.0.5\n\n\
         # The new version's servers\n[pre]\n{pre_1}\n{pre_2}\n\n\
         # The old version's servers\n[prod]\n{prod_1}\n{prod_2}\n"
    )
}

fn ini_text(listen: SocketAddr) -> String {
    format!(
        "[gateway]\nlisten = {listen}\nuser =\npid_file =\n[lists]\nfile = lists\nlast_good =\n\
         [log]\naccess = -\nerror = stderr\n[admin]\nsocket = off\nlisten = 127.0.0.1:0\nexpose = full\n"
    )
}

fn introduction(listen: SocketAddr, lists: &Path) -> String {
    let (lists, port) = (lists.display(), listen.port());
    format!(
        "\nGraygate listens on {listen}. In a second terminal:\n\n\
         \x20 a client that is on no list gets the old version:\n\
         \x20   curl http://{listen}/\n\n\
         \x20 127.0.0.5 is on the gray list and gets the new one:\n\
         \x20   curl --interface 127.0.0.5 http://{listen}/\n\n\
         \x20 put 127.0.0.1 on the list, too; within a second the first command gets the new version:\n\
         \x20   sed -i 's/^\\[gray\\]$/&\\n127.0.0.1/' {lists}\n\n\
         Each request is logged below. The admin listener's port stands in the line that says\n\
         \"ready\": /healthz, /lists, /config, /metrics. Ctrl-C ends the demo on port {port}.\n\n"
    )
}

/// The demo talks to a person at a terminal.
#[allow(clippy::print_stdout)]
fn say(text: &str) {
    print!("{text}");
    // If the terminal has gone, there is nobody to tell.
    let _ = io::Write::flush(&mut io::stdout());
}
