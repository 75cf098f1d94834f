//! What of a new configuration a running gateway takes on, and what has come of that so far.
//!
//! Kept are the settings that were used up at the start: ports, threads, open logs, the user,
//! the source of the lists. All others hold for whatever begins after the reload.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Config, Store, Url};

/// What the reloads of a gateway have come to. Who has sent a signal learns here how it ended.
#[derive(Debug, Default)]
pub struct Reloads(Mutex<ReloadTally>);

/// The state of [`Reloads`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadTally {
    /// Reloads that took on what they read.
    pub ok: u64,
    /// Reloads that changed nothing, since the file was bad.
    pub failed: u64,
    /// One more has begun, and not yet ended.
    pub under_way: bool,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
    /// The full names of the keys that the last good one could not change.
    pub ignored: Vec<&'static str>,
}

impl Reloads {
    /// From now on the file may be read.
    pub fn begin(&self) {
        self.lock().under_way = true;
    }

    /// The reload has ended: with the keys that it could not change, or with what is wrong.
    pub fn end(&self, outcome: Result<Vec<&'static str>, String>) {
        let mut tally = self.lock();
        tally.under_way = false;
        match outcome {
            Ok(ignored) => {
                tally.ok += 1;
                tally.error = None;
                tally.ignored = ignored;
            }
            Err(error) => {
                tally.failed += 1;
                tally.error = Some(error);
            }
        }
    }

    /// The state now.
    pub fn tally(&self) -> ReloadTally {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ReloadTally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Config {
    /// The configuration to run with once `new` was read, and the full names of the keys
    /// (`gateway.workers`) that `new` changes in vain: they keep their values until a restart.
    pub fn reload(&self, mut new: Self) -> (Self, Vec<&'static str>) {
        let mut kept = Vec::new();
        let old = self.clone();
        {
            let (old, new) = (old.gateway, &mut new.gateway);
            keep(&mut kept, "gateway.listen", old.listen, &mut new.listen);
            keep(&mut kept, "gateway.workers", old.workers, &mut new.workers);
            keep(
                &mut kept,
                "gateway.pid_file",
                old.pid_file,
                &mut new.pid_file,
            );
            keep(&mut kept, "gateway.user", old.user, &mut new.user);
            keep(&mut kept, "gateway.group", old.group, &mut new.group);
        }
        kept.extend(changed_in_store(&old.store, &new.store));
        new.store = old.store;
        {
            let (old, new) = (old.lists, &mut new.lists);
            let (path, new_path) = (old.last_good, &mut new.last_good);
            keep(&mut kept, "lists.last_good", path, new_path);
            let (age, new_age) = (old.last_good_max_age, &mut new.last_good_max_age);
            keep(&mut kept, "lists.last_good_max_age", age, new_age);
        }
        let (port, new_port) = (old.upstream.peer_port, &mut new.upstream.peer_port);
        keep(&mut kept, "upstream.peer_port", port, new_port);
        keep(&mut kept, "log.access", old.log.access, &mut new.log.access);
        keep(&mut kept, "log.error", old.log.error, &mut new.log.error);
        keep(&mut kept, "admin.listen", old.admin, &mut new.admin);
        (new, kept)
    }
}

fn keep<T: PartialEq>(kept: &mut Vec<&'static str>, name: &'static str, old: T, new: &mut T) {
    if *new != old {
        kept.push(name);
        *new = old;
    }
}

/// Whether these are the same as they stand in the file: where their passwords are, others say.
fn same_text(old: &[Url], new: &[Url]) -> bool {
    old.iter().map(Url::as_str).eq(new.iter().map(Url::as_str))
}

/// The names of the keys in which two stores differ.
fn changed_in_store(old: &Store, new: &Store) -> Vec<&'static str> {
    let compared = match (old, new) {
        (Store::File(old), Store::File(new)) => vec![("lists.file", old == new)],
        (Store::Redis(old), Store::Redis(new)) => vec![
            ("redis.url", old.url.as_str() == new.url.as_str()),
            ("redis.sentinels", same_text(&old.sentinels, &new.sentinels)),
            (
                "redis.password_file",
                old.passwords.server == new.passwords.server,
            ),
            (
                "redis.sentinel_password_file",
                old.passwords.sentinels == new.passwords.sentinels,
            ),
            ("redis.tls_ca", old.tls.ca == new.tls.ca),
            ("redis.tls_cert", old.tls.cert() == new.tls.cert()),
            ("redis.tls_key", old.tls.key() == new.tls.key()),
            ("redis.tls_name", old.tls.name == new.tls.name),
            ("redis.gray_key", old.keys.gray == new.keys.gray),
            ("redis.pre_key", old.keys.pre == new.keys.pre),
            ("redis.prod_key", old.keys.prod == new.keys.prod),
            ("redis.accept_key", old.accept_key == new.accept_key),
            ("redis.notify", old.notify == new.notify),
            (
                "redis.check_interval",
                old.check_interval == new.check_interval,
            ),
            (
                "redis.poll_interval",
                old.poll_interval == new.poll_interval,
            ),
            ("redis.timeout", old.timeout == new.timeout),
            ("redis.max_reply", old.max_reply == new.max_reply),
            (
                "redis.heartbeat",
                old.fleet.heartbeat == new.fleet.heartbeat,
            ),
            ("redis.node", old.fleet.node == new.fleet.node),
            ("redis.node_key", old.fleet.node_key == new.fleet.node_key),
        ],
        // The URL decides between the two.
        (Store::File(_), Store::Redis(_)) | (Store::Redis(_), Store::File(_)) => {
            vec![("redis.url", false)]
        }
    };
    let changed = compared.into_iter().filter(|(_, same)| !same);
    changed.map(|(name, _)| name).collect()
}
