//! A pipe that a test may read, or not.

use std::fs::File;
use std::path::Path;

use nix::sys::stat::Mode;

/// Makes a pipe with a name, and opens it at both ends, so that nobody waits until it is opened.
#[track_caller]
pub(crate) fn pipe_at(path: &Path) -> File {
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}
