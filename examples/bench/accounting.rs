//! What the kernel says that a proxy takes: CPU time and memory of all its processes.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The process `root` and all below it, in order. Workers that cannot be seen would not be counted, so
/// that is an error, as with a kernel without `CONFIG_PROC_CHILDREN`.
pub(crate) fn processes(root: u32) -> Result<Vec<u32>, String> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let of_process = format!("/proc/{}", found[at]);
        let tasks = tasks(Path::new(&of_process));
        let tasks = tasks.map_err(|it| format!("threads of a process of the proxy: {it}"))?;
        for task in tasks {
            let children = children(&task);
            found.extend(children.map_err(|it| format!("children of the proxy: {it}"))?);
        }
        at += 1;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The folders of a process's threads; none of one that has just ended.
fn tasks(process: &Path) -> io::Result<Vec<PathBuf>> {
    let tasks = fs::read_dir(process.join("task"))
        .and_then(|tasks| tasks.map(|task| Ok(task?.path())).collect());
    unless_ended(process, tasks)
}

/// What a thread has started; nothing of one that has just ended.
fn children(task: &Path) -> io::Result<Vec<u32>> {
    let text = unless_ended(task, fs::read_to_string(task.join("children")))?;
    let numbers = text.split_whitespace().map(str::parse);
    numbers.collect::<Result<_, _>>().map_err(io::Error::other)
}

/// The outcome of reading in this folder of `/proc`; nothing where that has gone meanwhile.
fn unless_ended<T: Default>(folder: &Path, outcome: io::Result<T>) -> io::Result<T> {
    match outcome {
        Err(_) if !folder.exists() => Ok(T::default()),
        outcome => outcome,
    }
}

/// CPU time of these processes so far, user and system: of all threads, also of those that have
/// ended, in nanoseconds (the ticks in `/proc` are 10 ms).
pub(crate) fn cpu_time(processes: &[u32]) -> Result<Duration, String> {
    let mut sum = Duration::ZERO;
    for process in processes {
        let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed()));
        let time = clock.and_then(|it| it.now());
        let time = time.map_err(|it| format!("CPU time of a process of the proxy: {it}"))?;
        sum += Duration::from(time);
    }
    Ok(sum)
}

/// Memory of these processes in bytes; pages that several share count once.
pub(crate) fn memory(processes: &[u32]) -> Result<u64, String> {
    let mut sum = 0;
    for process in processes {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(path).map_err(|it| format!("memory of the proxy: {it}"))?;
        let line = text.lines().find_map(|it| it.strip_prefix("Pss:"));
        let kib = line.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
        sum += kib.ok_or("memory of the proxy: no Pss")? * 1024;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::process::{Command, Stdio};

    #[test]
    fn processes_are_those_below_as_well() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & echo $!; read -r line; kill $!"]);
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut said = io::BufReader::new(shell.stdout.take().expect("a pipe"));
        let mut line = String::new();
        io::BufRead::read_line(&mut said, &mut line).expect("a number");
        let mut expected = [shell.id(), line.trim().parse().expect("a number")];
        expected.sort_unstable();
        assert_eq!(processes(shell.id()), Ok(expected.to_vec()));
        drop(shell.stdin.take());
        shell.wait().expect("its end");
        assert_eq!(processes(shell.id()), Ok(vec![shell.id()]));
    }

    #[test]
    fn children_that_cannot_be_read_of_a_task_that_is_there_are_an_error() {
        let task = tempfile::tempdir().expect("a folder");
        assert!(children(task.path()).is_err());
        assert_eq!(children(&task.path().join("gone")).ok(), Some(vec![]));
        assert_eq!(tasks(&task.path().join("gone")).ok(), Some(vec![]));
        assert!(tasks(task.path()).is_err());
    }
}
