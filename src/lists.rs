//! The three lists as one immutable value: who is gray, and where `pre` and `prod` are.
//!
//! A store hands over entries as text; here they are parsed, one parser for each kind of entry, and put
//! into the form that a request needs: ranges to search (`ranges`), rules (`rule`) filed so that few of them
//! have to be held against a request (`selection`), peers to choose from. An entry that cannot be read is
//! skipped and reported; it never empties a list. Lists are sets: order and repetition mean nothing, but
//! `findings` reports likely mistakes.
//!
//! Not here: where entries come from and when ([`crate::store`]); who is served by whom
//! ([`crate::route`]). No clock, no I/O.

mod admission;
mod almost;
mod by_list;
mod digest;
mod entry;
mod family;
pub(crate) mod findings;
mod flaws;
mod gray;
mod gray_entry;
mod name;
pub(crate) mod notes;
mod overlaps;
mod peer;
mod peers;
mod pool;
mod ranges;
mod remarks;
mod rule;
mod selection;
mod service;
mod share;

use std::sync::Arc;

pub(crate) use admission::AdmittedUntil;
pub(crate) use almost::almost_gray;
pub use by_list::ByList;
pub use digest::Digest;
pub(crate) use entry::net_entry;
pub(crate) use entry::why_unusable;
pub(crate) use entry::{LONGEST_ENTRY, WrongEntry};
pub use entry::{WrittenPeer, canonical, peer_entry};
pub(crate) use family::Family;
pub use gray::GrayList;
pub use gray_entry::{GrayEntry, gray_entry};
pub use name::ListName;
pub use notes::FindingKind;
pub use peer::{ListedPeer, Place};
pub use peers::PeerList;
pub use pool::PoolName;
pub(crate) use remarks::Remarks;
pub use remarks::{Skipped, SkippedEntry};
pub use rule::Rule;
pub(crate) use rule::words::comment;
pub(crate) use selection::Selection;
pub(crate) use selection::near::{Inspection, TermFinding};
pub use selection::{RulePlace, Scratch, Selected};
pub use service::ServiceName;
pub use share::Salt;
pub(crate) use share::of_address;

/// The lists themselves, each shared with its other users.
pub type SharedLists = ByList<Arc<GrayList>, Arc<PeerList>>;

/// One snapshot of all three lists.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Counts the snapshots of this process; 0 is the one that stands for "nothing read yet".
    pub generation: u64,
    /// A hash of the content: equal on every gateway that holds the same lists.
    pub digest: Digest,
    /// The digest of `pre` alone, as a number that is never 0: by that the version is known that was taken
    /// back.
    pub version: u64,
    /// The clients that get the new version.
    pub gray: Arc<GrayList>,
    /// The peers of the new version.
    pub pre: Arc<PeerList>,
    /// The peers of the old version.
    pub prod: Arc<PeerList>,
}

impl Lists {
    /// One of the pools.
    pub fn pool(&self, pool: PoolName) -> &PeerList {
        match pool {
            PoolName::Pre => &self.pre,
            PoolName::Prod => &self.prod,
        }
    }

    /// What is in force before anything was read.
    pub(crate) fn unread() -> Self {
        Self::new(0, SharedLists::default())
    }

    /// One snapshot of these lists.
    pub fn new(generation: u64, lists: SharedLists) -> Self {
        let ByList { gray, pre, prod } = lists;
        let digest = Self::digest_of(&gray, &pre, &prod);
        Self {
            generation,
            digest,
            version: pre.digest(ListName::Pre).number(),
            gray,
            pre,
            prod,
        }
    }

    /// The digest of a snapshot of these lists.
    pub(crate) fn digest_of(gray: &GrayList, pre: &PeerList, prod: &PeerList) -> Digest {
        Digest::of(&[
            (ListName::Gray, gray.content()),
            (ListName::Pre, pre.content()),
            (ListName::Prod, prod.content()),
        ])
    }

    /// One snapshot of these `entries`; peers without a port get `peer_port`.
    pub fn parse<E: AsRef<[u8]>>(
        generation: u64,
        entries: ByList<impl IntoIterator<Item = E>>,
        peer_port: u16,
    ) -> Self {
        let gray = |texts| Arc::new(GrayList::parse(texts));
        let peers = |texts| Arc::new(PeerList::parse(texts, peer_port));
        Self::new(generation, entries.map_each(gray, peers))
    }

    /// The lists themselves.
    pub(crate) fn each(&self) -> ByList<&Arc<GrayList>, &Arc<PeerList>> {
        ByList {
            gray: &self.gray,
            pre: &self.pre,
            prod: &self.prod,
        }
    }

    /// The same lists, for another snapshot.
    pub(crate) fn shared(&self) -> SharedLists {
        self.each().map_each(Arc::clone, Arc::clone)
    }

    /// False before anything was read.
    pub(crate) fn are_read(&self) -> bool {
        self.generation > 0
    }

    /// How many entries a list has.
    pub fn len(&self, list: ListName) -> usize {
        match list {
            ListName::Gray => self.gray.len(),
            ListName::Pre => self.pre.peers().len(),
            ListName::Prod => self.prod.peers().len(),
        }
    }

    /// What was skipped when a list was read.
    pub fn skipped(&self, list: ListName) -> &Skipped {
        &self.remarks(list).skipped
    }

    /// The notes about the entries of a list.
    pub(crate) fn remarks(&self, list: ListName) -> &Remarks {
        match list {
            ListName::Gray => self.gray.remarks(),
            ListName::Pre => self.pre.remarks(),
            ListName::Prod => self.prod.remarks(),
        }
    }
}

/// Lists of these entries; peers without a port have 80.
#[cfg(test)]
pub(crate) fn lists_of(gray: &[&str], pre: &[&str], prod: &[&str]) -> Lists {
    Lists::parse(1, ByList { gray, pre, prod }, 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_the_content_and_of_nothing_else() {
        let one = lists_of(&["1.1.1.1", "2.2.2.0/24"], &["3.3.3.3"], &["4.4.4.4"]);
        let same = lists_of(
            &["2.2.2.9/24", "::ffff:1.1.1.1", "1.1.1.1", "garbage"],
            &["3.3.3.3", " 3.3.3.3 "],
            &["4.4.4.4"],
        );
        assert_eq!(one.digest, same.digest);
        let elsewhere = ByList {
            gray: vec!["1.1.1.1", "2.2.2.0/24"],
            pre: vec!["3.3.3.3"],
            prod: vec!["4.4.4.4"],
        };
        let elsewhere = Lists::parse(1, elsewhere, 8080);
        assert_eq!(one.digest, elsewhere.digest, "with another default port");
        assert_eq!(one.digest.to_string().len(), 16);
        for other in [
            lists_of(&["1.1.1.1"], &["3.3.3.3"], &["4.4.4.4"]),
            lists_of(&["1.1.1.1", "2.2.2.0/24"], &["4.4.4.4"], &["3.3.3.3"]),
            lists_of(&["1.1.1.1", "2.2.2.0/24"], &["3.3.3.3:81"], &["4.4.4.4"]),
        ] {
            assert_ne!(one.digest, other.digest);
        }
    }

    #[test]
    fn a_weight_is_content_and_one_of_1_is_none() {
        let usual = lists_of(&[], &["app1"], &["3.3.3.3", "4.4.4.4 weight=1"]);
        let same = lists_of(&[], &["APP1 weight=1"], &["4.4.4.4", "3.3.3.3 weight=1"]);
        assert_eq!(usual.digest, same.digest);
        let other = lists_of(&[], &["app1"], &["3.3.3.3", "4.4.4.4 weight=2"]);
        assert_ne!(usual.digest, other.digest);
        // What a gateway had that knew neither weights nor names.
        let old = lists_of(&["1.1.1.1"], &["3.3.3.3"], &["4.4.4.4:81", "::1"]);
        assert_eq!(old.digest.to_string(), "503d0a78716ff1a8");
        let pre = |entries: &[&str]| {
            lists_of(&[], entries, &[])
                .pre
                .digest_with_ports(ListName::Pre)
        };
        assert_ne!(pre(&["app1"]), pre(&["app1 weight=2"]));
        assert_eq!(pre(&["app1"]), pre(&["app1:80"]));
        let several = lists_of(&[], &["app1:80 weight=3", "app1", "app1 weight=2"], &[]);
        let shown: Vec<String> = several
            .pre
            .peers()
            .iter()
            .map(ListedPeer::to_string)
            .collect();
        assert_eq!(shown, ["app1:80 weight=3"]);
    }
}
