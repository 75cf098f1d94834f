//! The change from a running gateway to its successor: another version of the program, or the same one with
//! settings that only a start takes on. No connection is refused meanwhile.
//!
//! ```text
//!  the old one                                   the new one (`graygate upgrade` has started it)
//!      | <------------------------------- take ---- |  finds the old one by its ini file
//!      | ---- door, door, ..., lists, gates, -----> |  goes on with these sockets, and begins with what
//!      | ---- peers, history, offered ------------> |  the old one knew
//!      |                                            |  reads its lists, starts to accept
//!      | <------------------------------ ready ---- |
//!  accepts nothing more; if the new one ends        |
//!  within its first seconds, or hangs,              |
//!  it accepts again                                 |
//!      | ---- ping -------------------------------> |
//!      | <------------------------------- pong ---- |
//!      | ---- yours ------------------------------> |
//!      | <------------------------------ taken ---- |  has the pid file
//!  finishes what is under way, and ends             |
//!      | ---- connections, draining --------------> |
//!      | <----------------------------- reopen ---- |
//! ```
//!
//! Until `taken`, whatever goes wrong ends the new one and leaves the old one as it was. What either side is
//! told to do meanwhile (to accept a held change, to reload) it tells the other one.

mod arriving;
mod estate;
mod giving;
mod moving;
mod parting;
pub(crate) mod starting;
mod taking;
mod way;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::supervisor::SUPERVISED;

pub(super) use arriving::Arrivals;
pub(super) use estate::Estate;
pub(super) use giving::{Giver, Open, Successor};
pub(super) use moving::Mover;
pub(super) use parting::Parting;
pub(super) use taking::Taking;
pub(super) use way::HeirWay;

/// Set by `graygate upgrade` for the process that it starts.
pub(crate) const VARIABLE: &str = "GRAYGATE_UPGRADE";

/// What the new one says on standard output once it has taken over.
pub(crate) const DONE: &str = "taken over";

/// What the line begins with that says there why it has not.
pub(crate) const FAILED: &str = "not taken over: ";

/// How long the new one has to live before the old one lets go.
pub(crate) const PROBATION: Duration = Duration::from_secs(3);

/// Time for an answer that needs no work.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Says why this process cannot take over, if it was to, where [`DONE`] would stand: standard error may be
/// that of the old gateway by then.
pub(super) fn tell(why: &str) {
    if std::env::var_os(VARIABLE).is_some() && std::env::var_os(SUPERVISED).is_none() {
        // Nobody is left to tell if this fails.
        let _ = writeln!(io::stdout(), "{FAILED}{why}");
    }
}

/// Where the gateway that runs with the ini file at `config` can be asked for a handover: by the path as it
/// is given, which may be a symbolic link that leads elsewhere some day, and by that of the file itself.
fn socket_names_of(config: &Path) -> Vec<String> {
    names_of("graygate-upgrade", config)
}

/// Where its supervisor can be asked.
pub(super) fn supervisor_names_of(config: &Path) -> Vec<String> {
    names_of("graygate-supervisor", config)
}

fn names_of(kind: &str, config: &Path) -> Vec<String> {
    let given = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    let own = config.canonicalize().ok().filter(|own| *own != given);
    let names = [Some(given), own].into_iter().flatten();
    names.map(|it| format!("{kind}:{}", hash_of(&it))).collect()
}

fn hash_of(path: &Path) -> String {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    hash[..16].iter().map(|it| format!("{it:02x}")).collect()
}
