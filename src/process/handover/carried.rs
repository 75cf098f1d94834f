//! What is too long for a message goes with it as a file without a name (memfd_create(2)).

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// No text is longer than this, in bytes: as the last-good copy.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// A file with this content, for a message.
///
/// # Errors
/// The kernel's.
pub(crate) fn carry(content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"graygate-handover", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    Ok(file.into())
}

/// The content of a file that has come with a message.
///
/// # Errors
/// It is too long; the kernel's.
pub(crate) fn carried(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    // Whoever has written it has its place at the end, and both sides share that.
    file.rewind()?;
    let mut content = Vec::new();
    let length = file.take(LONGEST + 1).read_to_end(&mut content)?;
    match length as u64 > LONGEST {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(content),
    }
}
