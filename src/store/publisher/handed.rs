//! Lists from one process of a gateway to the next: those in force, and what waits at the door.
//!
//! The new process serves by them at once, and its first reading of the store is judged as the old one would
//! have judged it. So an upgrade is no way around what is held, and needs no store that answers.

use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use super::{Publisher, Witness, copy};
use crate::lists::{ListName, Lists, PoolName};
use crate::store::StoreName;
use crate::store::gate::guard::GateRecord;

/// The lists of a gateway, for its next process.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandedLists {
    /// Those in force, as the text of a copy; `None` before there are any.
    pub(crate) copy: Option<Vec<u8>>,
    /// How often they were replaced.
    pub(crate) generation: u64,
    /// When they last changed.
    pub(crate) changed: Option<SystemTime>,
    /// How long ago the store was last read.
    pub(crate) age: Option<Duration>,
    /// Why it cannot be read at present.
    pub(crate) error: Option<String>,
    /// What has to be passed.
    pub(crate) gates: Vec<(ListName, GateRecord)>,
}

/// What of the lists that were handed over is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenLists {
    /// They are, since they are of the configured store.
    pub(crate) in_force: bool,
    /// How many servers of `prod` the old process has, whatever its store.
    pub(crate) servers: usize,
}

impl Publisher {
    /// What the next process is to go on with, of this `store`.
    pub(crate) fn hand_over(&self, store: &StoreName) -> HandedLists {
        let entrance = self.locked_entrance();
        let (lists, now) = (self.lists.load(), Instant::now());
        let gates = entrance.door.records(now).to_vec();
        // Not those of another store, in whose place this one is to be read yet.
        let are_of_store = lists.are_read() && !entrance.awaits_store;
        drop(entrance);
        let status = self.status();
        let age = status.checked.map(|at| now.saturating_duration_since(at));
        let time = SystemTime::now() - age.unwrap_or_default();
        let names = self.lists.names().addresses();
        let text = || copy::render(&lists, &names, store, time);
        HandedLists {
            copy: are_of_store.then(text),
            generation: lists.generation,
            changed: status.changed,
            age,
            error: status.error,
            gates,
        }
    }

    /// Goes on with what another process has `handed` over, as far as it is of this `store`.
    pub(crate) fn with_handed(
        mut self,
        handed: &HandedLists,
        store: &StoreName,
    ) -> (Self, TakenLists) {
        self.generation_before = handed.generation;
        let copy = handed.copy.as_ref();
        let copy = match copy.map(|it| copy::parse(it, self.peer_port())).transpose() {
            Ok(Some(copy)) => copy,
            Ok(None) => return (self, TakenLists::default()),
            Err(error) => {
                log::error!("lists-not-handed-over error={:?}", error.to_string());
                return (self, TakenLists::default());
            }
        };
        let servers = copy.lists.len(ListName::Prod);
        let in_force = copy.other_store(store).is_none();
        if in_force {
            self.go_on_with(handed, copy);
        }
        (self, TakenLists { in_force, servers })
    }

    fn go_on_with(&mut self, handed: &HandedLists, copy: copy::Copy) {
        let (peer_port, now) = (self.peer_port(), Instant::now());
        let lists = Lists {
            generation: handed.generation.max(1),
            ..copy.lists
        };
        let names = self.lists.names();
        names.remember(copy.names);
        names.prepare(PoolName::ALL.map(|it| Some(lists.pool(it))));
        let entrance = self.entrance.get_mut();
        let entrance = entrance.unwrap_or_else(PoisonError::into_inner);
        // These are newer.
        entrance.copy = None;
        entrance
            .door
            .go_on_with(&handed.gates, &lists, peer_port, now);
        let held = entrance.door.held();
        let status = self.status.get_mut();
        let status = status.unwrap_or_else(PoisonError::into_inner);
        (status.held, status.changed) = (held, handed.changed);
        status.checked = handed.age.and_then(|it| now.checked_sub(it));
        let (generation, digest) = (lists.generation, lists.digest);
        let [gray, pre, prod] = ListName::ALL.map(|list| lists.len(list));
        self.lists.store(lists);
        log::info!(
            "lists-handed-over generation={generation} digest={digest} gray={gray} pre={pre} prod={prod}"
        );
    }

    /// True once this process has read its store.
    pub(crate) fn was_read(&self) -> bool {
        self.locked_entrance().was_read
    }

    /// From now on, `witness` is told of every held change that somebody accepts, by its digest.
    pub(crate) fn tell_of_accepted(&self, witness: Option<Witness>) {
        let place = self.witness.lock();
        *place.unwrap_or_else(PoisonError::into_inner) = witness;
    }

    /// From now on this process writes the copy: the one before it has let go, or is about to.
    pub(crate) fn take_over_copy(&self) {
        if let Some(keeper) = self.keeper() {
            keeper.take_over();
        }
    }
}
