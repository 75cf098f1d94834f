//! The peers of a pool as they are at present: the addresses behind its entries, with their weights and
//! their health.
//!
//! A [`Registry`] makes rosters from lists. It knows the health of every peer that some list has, and
//! forgets that of the others: a peer that stays keeps what is known of it, whatever else changes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::budget::Budget;
use super::changes::Changes;
use super::hash;
use super::health::{Health, HealthRecord};

/// One peer of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// How much it is asked, compared with the others.
    pub weight: u16,
    /// The name that it was found by, if its entry has one.
    pub name: Option<Arc<str>>,
    /// How it does. Whatever other pool has the same peer shares it, also of another service.
    pub health: Arc<Health>,
    /// For the balance `hash`.
    pub(super) hash: u64,
}

/// What an entry of a list has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedPeer {
    /// Where the peer is.
    pub address: SocketAddr,
    /// See [`Peer::weight`].
    pub weight: u16,
    /// See [`Peer::name`].
    pub name: Option<Arc<str>>,
}

/// The peers of one pool.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    peers: Box<[Peer]>,
    budget: Arc<Budget>,
}

impl Roster {
    /// The peers, sorted by their addresses.
    pub(crate) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Which peer is at `address`, if one is.
    pub(crate) fn place_of(&self, address: SocketAddr) -> Option<usize> {
        self.peers
            .binary_search_by_key(&address, |it| it.address)
            .ok()
    }

    /// True when `other` has the same peers, and the same is known of them.
    pub(super) fn is(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Peer, &Peer)| {
            let is_known = Arc::ptr_eq(&one.health, &other.health);
            is_known && one.weight == other.weight && one.name == other.name
        };
        self.peers.len() == other.peers.len() && self.peers.iter().zip(&other.peers).all(is_same)
    }

    /// The pool's account of retries.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }
}

/// Every peer of all services.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: usize,
    changes: Changes,
    health: Mutex<FxHashMap<SocketAddr, Arc<Health>>>,
    /// What another process of this gateway knew of peers that nobody has asked for here yet.
    handed: Mutex<FxHashMap<SocketAddr, HealthRecord>>,
}

impl Registry {
    /// One that knows no peer, for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            changes: Changes::default(),
            health: Mutex::default(),
            handed: Mutex::default(),
        }
    }

    /// What is known of peers from another process of this gateway: of each, where it begins here; nothing
    /// from now on where this is empty.
    pub(crate) fn go_on_with(&self, records: FxHashMap<SocketAddr, HealthRecord>) {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = records;
    }

    /// How often the health of a peer has changed.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// How many workers serve.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// To be called once a second, by one thread: see [`Health::look`].
    pub(super) fn look(&self, now: Instant) {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.values().for_each(|it| it.look(now));
    }

    /// A pool of `found`, each once: the first of several with one address. A peer that is not known yet
    /// gets nothing before its first check if `check_first`.
    pub(crate) fn roster(
        &self,
        mut found: Vec<ResolvedPeer>,
        budget: &Arc<Budget>,
        check_first: bool,
        now: Instant,
    ) -> Roster {
        found.sort_by_key(|it| it.address);
        found.dedup_by_key(|it| it.address);
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = |found: ResolvedPeer| {
            let new = || {
                let changes = self.changes.clone();
                let handed = self.handed.lock();
                let handed = handed
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&found.address);
                let new = Health::new(self.workers, changes, check_first, now);
                Arc::new(match handed {
                    Some(record) => Health::of_record(&record, new, now),
                    None => new,
                })
            };
            let health = health.entry(found.address).or_insert_with(new);
            Peer {
                address: found.address,
                weight: found.weight,
                name: found.name,
                health: Arc::clone(health),
                hash: hash::of_address(found.address.ip())
                    ^ u64::from(found.address.port()).rotate_left(48),
            }
        };
        let peers = found.into_iter().map(peer).collect();
        Roster {
            peers,
            budget: Arc::clone(budget),
        }
    }

    /// Forgets the peers that nobody has any more.
    pub(crate) fn tidy(&self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.retain(|_, it| Arc::strong_count(it) > 1);
    }
}
