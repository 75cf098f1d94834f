//! The Unix sockets at which a process listens.

use std::fs;
use std::path::PathBuf;

use nix::unistd::Pid;

/// By the kernel's table of sockets, and the descriptors of the process as far as this user may see them.
pub(super) fn of(pid: Pid) -> Vec<PathBuf> {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let links = open.filter_map(|it| fs::read_link(it.ok()?.path()).ok());
    let inodes: Vec<String> = links
        .filter_map(|it| {
            let inode = it.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let listening = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (flags, inode) = (words.nth(3)?, words.nth(2)?);
        let path = words.next().filter(|it| it.starts_with('/'))?;
        let is_own = flags == ACCEPTS && inodes.iter().any(|it| it == inode);
        is_own.then(|| PathBuf::from(path))
    });
    listening.collect()
}

/// A socket that listens (`__SO_ACCEPTCON` of the kernel).
const ACCEPTS: &str = "00010000";
