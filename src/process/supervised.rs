//! Threads of the control plane that are restarted after a panic.
//!
//! Without that, a panic in one of them would leave a gateway that serves with lists that are no longer
//! refreshed, and nobody would notice until the lists are wrong. The error log says when a thread was
//! restarted.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use crate::memory::advice;

/// The pause between a panic and the restart, so that one that always recurs does not use up a CPU.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs `work` in a thread called `name`, and again whenever a panic has ended it. What `work` keeps
/// between two runs must be consistent at any moment.
///
/// # Errors
/// When the thread cannot be started, or there is no memory for it.
pub(crate) fn spawn(name: &str, work: impl FnMut() + Send + 'static) -> io::Result<JoinHandle<()>> {
    spawn_with(name, PAUSE, work)
}

fn spawn_with(
    name: &str,
    pause: Duration,
    mut work: impl FnMut() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    advice::room_for_thread()?;
    let own = name.to_owned();
    let thread = Builder::new().name(own.clone());
    thread.spawn(move || {
        // The panic itself is in the log, with its location: see `log_panics`.
        while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
            sleep(pause);
            log::error!("thread-restarted thread={own}");
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// Threads that are not spawned here, and why none of them can be missed for long.
    const OTHERS: &[(&str, &str)] = &[
        (
            "src/run/reload/store.rs",
            "lists-trial: one attempt, and the reload fails without its outcome",
        ),
        (
            "src/process.rs",
            "signals: it runs no code of ours but to pass them on",
        ),
        ("src/process/startup.rs", "startup: it only tells"),
        ("src/process/supervised.rs", "itself"),
        (
            "src/admin/listener.rs",
            "admin-request: one answer, whose slot comes free by its end",
        ),
        (
            "src/store/heavy.rs",
            "lists-heavy: its panic is that of who waits for it",
        ),
        (
            "src/store/redis/watcher.rs",
            "lists-redis: it survives panics by itself, to connect anew",
        ),
        (
            "src/fleet/heartbeat.rs",
            "heartbeat: it survives panics by itself, and tells of them",
        ),
        (
            "src/cli/notify.rs",
            "telling: of a command, which waits for it and says how it ended",
        ),
        (
            "src/store/redis/changes/subscription.rs",
            "lists-events: who listens sees its end",
        ),
        (
            "src/store/redis/link/resolver.rs",
            "lists-resolver: one answer, which is waited for in time",
        ),
        (
            "src/run/upgrade/starting.rs",
            "upgrade-start: it tells what came of it; the other one reads what the new process says",
        ),
        (
            "src/run/upgrade/giving.rs",
            "upgrade: its panic is a failed upgrade, and arrivals see the end of the channel",
        ),
        (
            "src/run/upgrade/moving.rs",
            "mover: the other process sees the end of the channel",
        ),
        (
            "src/run/upgrade/arriving.rs",
            "arrivals: the other process sees the end of the channel",
        ),
        (
            "src/run/upgrade/way.rs",
            "heir: the process ends all the same, and its logs are opened anew by its own signal",
        ),
        (
            "src/run/upgrade/parting.rs",
            "drain-report: the process ends all the same, and only less is known of it",
        ),
        (
            "src/upstream/names.rs",
            "names-resolver: one of several, which hang as the resolver likes; it only asks that",
        ),
    ];

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap();
        let paths = entries.map(|it| it.unwrap().path());
        let below = |path: PathBuf| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        };
        paths.flat_map(below).collect()
    }

    #[test]
    fn no_other_thread_can_die_unnoticed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // A file of tests alone has threads of its own.
        let is_code = |path: &PathBuf| !path.ends_with("tests.rs");
        for path in sources(&root.join("src")).into_iter().filter(is_code) {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let spawns = code.contains("thread::Builder") || code.contains("thread::spawn");
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            let is_known = OTHERS.iter().any(|(known, _)| *known == name);
            assert!(
                !spawns || is_known,
                "{name}: use supervised::spawn, or say why not"
            );
        }
    }

    #[test]
    fn work_that_panics_is_begun_again_until_it_ends() {
        let (run, runs) = crossbeam_channel::unbounded();
        let mut number = 0;
        let work = move || {
            number += 1;
            run.send(number).unwrap();
            assert!(number == 3, "on purpose");
        };
        spawn_with("panics", Duration::ZERO, work).unwrap();
        assert_eq!(runs.iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
